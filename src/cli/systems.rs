//! Which systems beside ours this process knows.

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

use super::CliError;
use crate::record::{BackendName, Does};
use crate::spec::systems::{System, Systems, install, known};
use crate::spec::{known_backend, nearest};

/// A name on the command line that no backend has.
#[derive(Debug, thiserror::Error)]
#[error("unknown backend `{name}`{}", hint(.nearest.as_deref()))]
pub(super) struct UnknownBackend {
    name: String,
    nearest: Option<String>,
}

/// A daemon of the user's that cannot be one.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadSocket {
    /// The system has no daemon, or there is no such system.
    #[error("--engine-socket {name}=...: no system with a daemon has this name; those are {known}")]
    NoDaemon {
        /// What was asked for.
        name: String,
        /// Those that have one.
        known: String,
    },
    /// Nobody can listen there.
    #[error("--engine-socket {name}={path}: that is no socket")]
    NoSocket {
        /// What was asked for.
        name: String,
        /// Where.
        path: String,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or(": see `unladen list`".to_owned(), |name| format!("; did you mean `{name}`?"))
}

/// Reads the shipped descriptions and the user's: `file`, or else
/// `unladen/backends.toml` in the user's configuration folder, if there is
/// one.
pub(super) fn know(file: Option<&Path>) -> Result<(), CliError> {
    let mut systems = Systems::shipped()?;
    let usual = || {
        let folder = etcetera::choose_base_strategy().ok()?.config_dir();
        Some(folder.join("unladen/backends.toml")).filter(|path| path.exists())
    };
    if let Some(path) = file.map(Path::to_owned).or_else(usual) {
        systems.add_file(&path)?;
    }
    Ok(install(systems)?)
}

/// Whether all names are known.
pub(super) fn check(names: impl IntoIterator<Item = BackendName>) -> Result<(), CliError> {
    for name in names {
        if known_backend(name.as_str()).is_none() {
            let own = BackendName::ALL.into_iter().map(BackendName::as_str);
            let all = own.chain(known().all().map(|system| system.name.as_str()));
            let nearest = nearest(name.as_str(), all);
            return Err(UnknownBackend { name: name.to_string(), nearest }.into());
        }
    }
    Ok(())
}

/// Whether these are sockets of systems that have daemons.
pub(super) fn check_sockets(sockets: &[(String, PathBuf)]) -> Result<(), BadSocket> {
    let has_daemon = |system: &&System| system.daemon.is_some();
    for (name, path) in sockets {
        let name = name.clone();
        if known().get(&name).filter(has_daemon).is_none() {
            let all = known().all().filter(has_daemon).map(|system| system.name.as_str());
            let known = all.collect::<Vec<_>>().join(", ");
            return Err(BadSocket::NoDaemon { name, known });
        }
        if !path.metadata().is_ok_and(|file| file.file_type().is_socket()) {
            return Err(BadSocket::NoSocket { name, path: path.display().to_string() });
        }
    }
    Ok(())
}

/// What these backends do and do not do.
pub(super) fn does(names: impl Iterator<Item = BackendName>) -> BTreeMap<String, Does> {
    let told = |name: BackendName| Some((name.to_string(), known().does(name.as_str())?.clone()));
    names.filter_map(told).collect()
}
