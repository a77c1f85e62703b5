//! From the text of descriptions to systems.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::words::{LISTS, TOKENS, tokens};
use super::{Channel, Driver, File, System, Words};
use crate::record::{BackendName, Does, PeerName};
use crate::spec::params::{CPUS, Kind, MEMORY, PIDS, Param, SECCOMP};

/// Something wrong at a byte of the text.
type Problem = (usize, String);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(default)]
    systems: BTreeMap<Spanned<String>, Spanned<SystemWire>>,
    /// What this suite's own backends do.
    #[serde(default)]
    own: BTreeMap<String, Does>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SystemWire {
    #[serde(default)]
    about: String,
    driver: Driver,
    binary: Vec<String>,
    version: Option<Vec<Words>>,
    channel: Option<Spanned<String>>,
    /// Words that stand for `{options}`, and in an OCI runtime's commands
    /// after the program's name.
    #[serde(default)]
    options: Words,
    filter: Option<i32>,
    attached: Option<Words>,
    detached: Option<Words>,
    delete: Option<Vec<Words>>,
    #[serde(default)]
    load: Vec<Words>,
    #[serde(default)]
    unload: Vec<Words>,
    #[serde(default)]
    env: Words,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    files: Vec<File>,
    #[serde(default)]
    needs: Vec<String>,
    daemon: Option<String>,
    #[serde(default)]
    leaves: Vec<String>,
    #[serde(default)]
    hide_unified: bool,
    #[serde(default = "yes")]
    network: bool,
    #[serde(default = "yes")]
    root: bool,
    /// Whether it sets the limits `memory`, `pids` and `cpus`.
    limits: Option<bool>,
    #[serde(default)]
    power_off: bool,
    #[serde(default)]
    never_run: bool,
    #[serde(default)]
    params: BTreeMap<String, ParamWire>,
    #[serde(default)]
    does: Does,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ParamWire {
    values: Vec<String>,
    default: String,
    #[serde(default)]
    about: String,
    /// What the system's version says when it has this value: for one that
    /// cannot be chosen by a command.
    says: Option<String>,
}

fn yes() -> bool {
    true
}

/// The systems of a text in its order, and what our own backends do.
pub(super) fn check(text: &str) -> Result<(Vec<System>, BTreeMap<String, Does>), Problem> {
    let wire: Wire = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (at, error.message().replace('\n', ", "))
    })?;
    let mut found = wire.systems.into_iter().collect::<Vec<_>>();
    found.sort_by_key(|(name, _)| name.span().start);
    let system = |(name, wire): (Spanned<String>, Spanned<SystemWire>)| {
        let at = name.span().start;
        system(name.into_inner(), wire.into_inner()).map_err(|problem| (at, problem))
    };
    let systems: Result<Vec<System>, Problem> = found.into_iter().map(system).collect();
    Ok((systems?, wire.own))
}

fn system(name: String, wire: SystemWire) -> Result<System, String> {
    PeerName::new(&name).map_err(|error| error.to_string())?;
    if BackendName::ALL.iter().any(|own| own.as_str() == name) {
        return Err(format!("`{name}` is this suite's own backend"));
    }
    let oci = wire.driver == Driver::Oci;
    let channel = channel(&wire, oci)?;
    let (attached, detached, delete) = commands(&wire, channel, oci);
    if attached.is_none() && detached.is_none() {
        return Err(format!("{name} needs `attached` or `detached`: a command that starts it"));
    }
    if detached.is_some() && delete.is_empty() {
        return Err(format!("{name} needs `delete`: what removes a detached instance"));
    }
    let limits = wire.limits.unwrap_or(matches!(wire.driver, Driver::Oci | Driver::Engine));
    let params = params(&wire.params, limits, oci)?;
    let says = wire.params.values().filter_map(|param| param.says.clone()).collect();
    let optioned = |command: Words| -> Words {
        let expand = |word: String| match word.as_str() {
            "{options}" => wire.options.clone(),
            _ => vec![word],
        };
        command.into_iter().flat_map(expand).collect()
    };
    let all = |commands: Vec<Words>| commands.into_iter().map(&optioned).collect();
    let version = wire.version.unwrap_or_else(|| vec![words(&["{bin}", "--version"])]);
    let system = System {
        version: all(version),
        name,
        about: wire.about,
        driver: wire.driver,
        binary: wire.binary,
        channel,
        attached: attached.map(&optioned),
        detached: detached.map(&optioned),
        delete: all(delete),
        load: all(wire.load),
        unload: all(wire.unload),
        filter: wire.filter,
        env: wire.env,
        environment: wire.environment,
        files: wire.files,
        needs: wire.needs,
        daemon: wire.daemon,
        leaves: wire.leaves,
        hide_unified: wire.hide_unified,
        power_off: wire.power_off,
        network: wire.network,
        root: wire.root,
        never_run: wire.never_run,
        params,
        says,
        does: wire.does,
    };
    sensible(&system)?;
    Ok(system)
}

fn words(words: &[&str]) -> Words {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn channel(wire: &SystemWire, oci: bool) -> Result<Channel, String> {
    match wire.channel.as_ref().map(|text| text.get_ref().as_str()) {
        None if oci => Ok(Channel::Inherited(3)),
        None if wire.driver == Driver::Engine => Ok(Channel::Connected),
        None if wire.driver == Driver::Vmm => Ok(Channel::Serial),
        None | Some("fd:3") => Ok(Channel::Inherited(3)),
        Some("fd:0") => Ok(Channel::Inherited(0)),
        Some("socket") => Ok(Channel::Connected),
        Some("streams") => Ok(Channel::Streams),
        Some("serial") => Ok(Channel::Serial),
        Some(other) => Err(format!(
            "unknown channel `{other}`: expected fd:0, fd:3, socket, streams or serial"
        )),
    }
}

/// The commands that a description gives, or those that all OCI runtimes
/// understand.
fn commands(
    wire: &SystemWire,
    channel: Channel,
    oci: bool,
) -> (Option<Words>, Option<Words>, Vec<Words>) {
    let given = (wire.attached.clone(), wire.detached.clone());
    let delete = wire.delete.clone();
    if !oci {
        return (given.0, given.1, delete.unwrap_or_default());
    }
    let front = || {
        let options = wire.options.iter().cloned();
        words(&["{bin}", "--root", "{state}"]).into_iter().chain(options)
    };
    let preserved = match channel {
        Channel::Inherited(3) => words(&["--preserve-fds", "1"]),
        _ => Words::new(),
    };
    let end = words(&["--bundle", "{files}", "{id}"]);
    let run = |more: &[&str]| -> Words {
        front()
            .chain(words(&["run"]))
            .chain(words(more))
            .chain(preserved.clone())
            .chain(end.clone())
            .collect()
    };
    // One that was told how to stay is one that is not told how to run.
    let attached = match &given {
        (None, Some(_)) => None,
        _ => Some(given.0.unwrap_or_else(|| run(&[]))),
    };
    let detached = given.1.unwrap_or_else(|| run(&["--detach", "--pid-file", "{files}/pid"]));
    let delete = delete
        .unwrap_or_else(|| vec![front().chain(words(&["delete", "--force", "{id}"])).collect()]);
    (attached, Some(detached), delete)
}

/// All parameters of a system; they live as long as the process.
fn params(
    own: &BTreeMap<String, ParamWire>,
    limits: bool,
    oci: bool,
) -> Result<&'static [Param], String> {
    let leak = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
    let mut params = Vec::new();
    if limits {
        params.extend([MEMORY, PIDS, CPUS]);
    }
    if oci {
        params.push(SECCOMP);
    }
    for (name, wire) in own {
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let taken = TOKENS.iter().chain(&LISTS).any(|(token, _)| token == name);
        if !plain || taken {
            return Err(format!("`{name}` cannot be the name of a parameter"));
        }
        if !wire.values.contains(&wire.default) {
            return Err(format!("the default of `{name}` is none of its values"));
        }
        let values: Vec<&'static str> = wire.values.iter().map(|value| leak(value)).collect();
        params.push(Param {
            name: leak(name),
            kind: Kind::OneOf(Box::leak(values.into_boxed_slice())),
            default: Some(leak(&wire.default)),
            always: true,
            about: leak(&wire.about),
        });
    }
    Ok(Box::leak(params.into_boxed_slice()))
}

/// Whether every token means something.
fn sensible(system: &System) -> Result<(), String> {
    if system.binary.is_empty() || system.binary.iter().any(String::is_empty) {
        return Err(format!("{} needs `binary`: names of its program", system.name));
    }
    if system.version.is_empty() || system.version.iter().any(Vec::is_empty) {
        return Err(format!("{} needs `version`: a command that prints it", system.name));
    }
    let commands = system.version.iter().chain(&system.delete).chain(&system.load);
    let commands = commands.chain(&system.unload).chain(&system.attached).chain(&system.detached);
    let texts = commands
        .flatten()
        .chain(&system.env)
        .chain(system.environment.values())
        .chain(&system.daemon)
        .chain(&system.leaves)
        .chain(&system.says)
        .chain(system.files.iter().map(|file| &file.text));
    for text in texts {
        let unknown = tokens(text).find(|token| {
            let known = TOKENS.iter().chain(&LISTS).any(|(known, _)| known == token);
            !known && system.params.iter().all(|param| param.name != *token)
        });
        if let Some(token) = unknown {
            return Err(format!("unknown token {{{token}}} in `{text}` of {}", system.name));
        }
        let file = system.files.iter().any(|file| file.text == *text);
        if text.contains("{env}") && text != "{env}" && !file {
            return Err(format!("{{env}} stands for several words, and not in `{text}`"));
        }
    }
    if system.files.iter().any(|file| file.name.contains('/') || file.name.starts_with('.')) {
        return Err(format!("a file of {} has a name that leads elsewhere", system.name));
    }
    let run = |leaf: &&String| leaf.contains("{run}") || leaf.contains("{runs}");
    if system.leaves.iter().filter(run).count() != system.leaves.len() {
        return Err(format!(
            "what {} leaves behind needs {{run}} or {{runs}} in its path",
            system.name
        ));
    }
    let apart = |need: &String| need.split('/').any(|part| part == "..") || need.starts_with('/');
    if system.needs.iter().any(apart) {
        return Err(format!("{} needs something outside of its root", system.name));
    }
    Ok(())
}
