//! What settings were, on disk.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use procfs::process::Process;
use serde::{Deserialize, Serialize};

use super::super::run_id::utc;
use super::{Change, SettingsError};

const FILE: &str = "settings.json";
/// Version of the file.
const SCHEMA: u32 = 1;

/// The process for the time of whose life settings are changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// Its number.
    pub pid: i32,
    /// When it was started, in clock ticks since the boot: a number may be
    /// given to another process later (`starttime` in proc_pid_stat(5)).
    pub started: u64,
}

impl Holder {
    /// This process.
    ///
    /// # Errors
    /// The reason why it cannot be looked at.
    pub fn myself() -> Result<Self, String> {
        let stat = Process::myself().and_then(|process| process.stat());
        let stat = stat.map_err(|error| format!("/proc/self/stat: {error}"))?;
        Ok(Self { pid: stat.pid, started: stat.starttime })
    }

    /// Whether it lives; one that only waits to be reaped does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Process::new(self.pid).and_then(|process| process.stat()).is_ok_and(|stat| {
            stat.starttime == self.started && !matches!(stat.state, 'Z' | 'X' | 'x')
        })
    }

    /// Whether it lives and is not this process.
    pub(super) fn is_another_alive(&self) -> bool {
        Self::myself().as_ref() != Ok(self) && self.is_alive()
    }
}

/// The saved state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    schema: u32,
    /// The kernel's name for the boot: settings do not outlive it.
    pub boot_id: String,
    /// When the settings were changed, in UTC.
    pub since: String,
    /// The run that holds them; none when they stay until they are restored.
    pub holder: Option<Holder>,
    /// What is changed.
    pub changes: Vec<Change>,
}

impl Saved {
    pub(super) fn new(boot_id: String, holder: Option<Holder>, changes: Vec<Change>) -> Self {
        let since = utc(SystemTime::now());
        Self { schema: SCHEMA, boot_id, since, holder, changes }
    }

    pub(super) fn read(folder: &Path) -> Result<Option<Self>, SettingsError> {
        let path = folder.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(saved) => Ok(Some(saved)),
                Err(source) => Err(SettingsError::Unreadable { path, source }),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SettingsError::State { operation: "read", path, source }),
        }
    }

    /// Replaces the file as a whole; it is on the disk when this returns.
    pub(super) fn write(&self, folder: &Path) -> Result<(), SettingsError> {
        let path = folder.join(FILE);
        let error = |operation| {
            let path = path.clone();
            move |source| SettingsError::State { operation, path, source }
        };
        let text = serde_json::to_vec_pretty(self)
            .map_err(|source| SettingsError::Unreadable { path: path.clone(), source })?;
        fs::create_dir_all(folder).map_err(error("make the folder of"))?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(error("write"))?;
        file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(error("write"))?;
        file.persist(&path).map_err(|failed| error("write")(failed.error))?;
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(error("write"))
    }

    pub(super) fn remove(folder: &Path) -> Result<(), SettingsError> {
        let path: PathBuf = folder.join(FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(source) => Err(SettingsError::State { operation: "remove", path, source }),
            Ok(()) => Ok(()),
        }
    }
}
