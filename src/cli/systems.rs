//! Which systems beside ours this process knows.

use std::collections::BTreeMap;
use std::path::Path;

use etcetera::BaseStrategy;

use super::CliError;
use crate::record::{BackendName, Does};
use crate::spec::systems::{Systems, install, known};
use crate::spec::{known_backend, nearest};

/// A name on the command line that no backend has.
#[derive(Debug, thiserror::Error)]
#[error("unknown backend `{name}`{}", hint(.nearest.as_deref()))]
pub(super) struct UnknownBackend {
    name: String,
    nearest: Option<String>,
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

/// What these backends do and do not do.
pub(super) fn does(names: impl Iterator<Item = BackendName>) -> BTreeMap<String, Does> {
    let told = |name: BackendName| Some((name.to_string(), known().does(name.as_str())?.clone()));
    names.filter_map(told).collect()
}
