//! Id maps of a spec.

use nix::sched::CloneFlags;
use oci_spec::runtime::{Linux, LinuxIdMapping};

use super::{IdMaps, PlanError};

/// The id maps of a user namespace: one id of the caller's own each, which
/// a child may write itself, also without privileges.
pub(super) fn id_maps(linux: &Linux, namespaces: CloneFlags) -> Result<Option<IdMaps>, PlanError> {
    let users = linux.uid_mappings().as_deref().unwrap_or_default();
    let groups = linux.gid_mappings().as_deref().unwrap_or_default();
    if !namespaces.contains(CloneFlags::CLONE_NEWUSER) {
        return match (users, groups) {
            ([], []) => Ok(None),
            _ => Err(PlanError::Missing {
                field: "linux.namespaces[user]",
                reason: "id mappings need a user namespace",
            }),
        };
    }
    let uid = nix::unistd::geteuid().as_raw();
    let gid = nix::unistd::getegid().as_raw();
    Ok(Some(IdMaps {
        user: single("linux.uidMappings", users, uid)?,
        group: single("linux.gidMappings", groups, gid)?,
    }))
}

/// The id inside and outside.
fn single(field: &str, maps: &[LinuxIdMapping], own: u32) -> Result<(u32, u32), PlanError> {
    match maps {
        [map] if map.size() == 1 && map.host_id() == own => Ok((map.container_id(), map.host_id())),
        _ => Err(PlanError::Value {
            field: field.to_owned(),
            value: maps
                .iter()
                .map(|map| format!("{} {} {}", map.container_id(), map.host_id(), map.size()))
                .collect::<Vec<_>>()
                .join(", "),
            reason: "this runtime maps exactly one id, the caller's own",
        }),
    }
}
