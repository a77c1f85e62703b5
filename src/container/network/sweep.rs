//! Interfaces of runs, found and removed by their names alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};

use super::NetworkError;
use super::bridge::{name_of, no_such_link};
use super::netlink::Connection;

/// The start of every name.
pub(super) const PREFIX: &str = "unl";

/// The interfaces of runs, by run id; `net` is `/sys/class/net`. A bridge
/// tells its run's id in its alias, its ports begin with its name.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn find(net: &Path) -> Result<BTreeMap<String, Vec<String>>, NetworkError> {
    let mut names: Vec<String> = fs::read_dir(net)
        .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
        .map_err(|source| NetworkError::List { folder: net.to_owned(), source })?
        .iter()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let mut found = BTreeMap::new();
    for name in &names {
        // One that is removed while it is looked at has left nothing.
        let alias = fs::read_to_string(net.join(name).join("ifalias")).unwrap_or_default();
        let Some(id) = alias.trim_end().strip_prefix("unladen-") else { continue };
        // The name must agree, so that nobody else's interface is taken.
        if name_of(id).0 == *name {
            let of_run = names.iter().filter(|other| other.starts_with(name.as_str()));
            found.insert(id.to_owned(), of_run.cloned().collect());
        }
    }
    Ok(found)
}

/// Removes the bridge of a run and every interface on it.
///
/// # Errors
///
/// What the kernel refuses.
pub fn remove_links(run_id: &str, net: &Path) -> Result<(), NetworkError> {
    let (name, _) = name_of(run_id);
    let Ok(entries) = fs::read_dir(net) else { return Ok(()) };
    let of_run = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|other| other.starts_with(&name));
    let mut names: Vec<String> = of_run.collect();
    if names.is_empty() {
        return Ok(());
    }
    // The longest first: the ports, and the bridge last, so that what could
    // not be finished is found again by the bridge.
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let mut connection = Connection::open().map_err(|source| NetworkError::Netlink {
        operation: "open a netlink socket".to_owned(),
        source,
    })?;
    names.iter().try_for_each(|name| remove_link(&mut connection, name))
}

/// Removes one interface; one that is gone is fine.
pub(super) fn remove_link(connection: &mut Connection, name: &str) -> Result<(), NetworkError> {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    match connection.request(vec![(RouteNetlinkMessage::DelLink(link), 0)]) {
        Err((_, error)) if no_such_link(&error) => Ok(()),
        Err((_, source)) => {
            Err(NetworkError::Netlink { operation: format!("remove the interface {name}"), source })
        }
        Ok(()) => Ok(()),
    }
}
