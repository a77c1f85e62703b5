//! Host settings that steady a measurement: changed on request, written down
//! before they are changed, and put back.
//!
//! What was saved lies in one file in the user's state folder. It is written
//! whole before the first setting changes, names the boot it belongs to and
//! the process that holds it; so whoever comes next can put everything back
//! after a crash. A setting that somebody else has changed meanwhile is left
//! alone. Nothing here decides when to change anything.

mod saved;
mod setting;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::source::Root;
pub use saved::{Holder, Saved};
pub use setting::{Change, Planned, Setting};

/// Why settings could not be changed or put back.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// There is no folder for what has to be remembered.
    #[error("cannot find the user's state folder: set HOME or XDG_STATE_HOME")]
    NoFolder,
    /// A file or folder of the saved state.
    #[error("cannot {operation} {}", path.display())]
    State {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The saved state cannot be understood.
    #[error("{} is no saved state of this program; look at it and remove it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Settings are changed already.
    #[error("host settings are changed already, since {since}: `unladen tune --restore` undoes it")]
    Held {
        /// When they were changed, in UTC.
        since: String,
    },
    /// A run that is alive holds the settings.
    #[error("process {pid} is measuring with changed host settings and puts them back at its end")]
    InUse {
        /// The process of the run.
        pid: i32,
    },
    /// The kernel does not tell which boot this is.
    #[error("cannot tell one boot from another: {0}")]
    NoBoot(String),
    /// Some settings could not be put back; they stay in the saved state.
    #[error("cannot put back {}", failures.join("; "))]
    Kept {
        /// Each with its reason.
        failures: Vec<String>,
    },
}

/// What [`Settings::apply`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// What is now different.
    pub changes: Vec<Change>,
    /// What could not be changed, each with its reason.
    pub refused: Vec<(Setting, String)>,
}

/// What [`Settings::restore`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// What has its earlier value again.
    pub changes: Vec<Change>,
    /// What somebody else had changed meanwhile, with the value it keeps.
    pub foreign: Vec<(Change, String)>,
    /// Whether the host was started anew since, which undid everything.
    pub rebooted: bool,
}

/// The settings of the host below a root folder, and where what they were is
/// kept.
#[derive(Clone, Debug)]
pub struct Settings {
    root: PathBuf,
    folder: PathBuf,
}

impl Settings {
    /// The settings of this host. Their earlier values are kept in
    /// `$XDG_STATE_HOME/unladen`, else `~/.local/state/unladen`.
    ///
    /// # Errors
    /// [`SettingsError::NoFolder`].
    pub fn of_host() -> Result<Self, SettingsError> {
        let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let state = folder("XDG_STATE_HOME").map(PathBuf::from);
        let home = || Some(PathBuf::from(folder("HOME")?).join(".local/state"));
        let state = state.or_else(home).ok_or(SettingsError::NoFolder)?;
        Ok(Self::new(Path::new("/"), &state.join("unladen")))
    }

    /// The settings below `root`, with earlier values kept in `folder`.
    #[must_use]
    pub fn new(root: &Path, folder: &Path) -> Self {
        Self { root: root.to_owned(), folder: folder.to_owned() }
    }

    /// What applying these settings would do.
    #[must_use]
    pub fn plan(&self, which: &[Setting]) -> Vec<Planned> {
        which.iter().map(|setting| setting.plan(Root(&self.root))).collect()
    }

    /// What is changed at present, if anything.
    ///
    /// # Errors
    /// When there is a state that cannot be read.
    pub fn saved(&self) -> Result<Option<Saved>, SettingsError> {
        Saved::read(&self.folder)
    }

    /// Gives these settings the values that a measurement wants. What they
    /// were is on disk before the first of them changes.
    ///
    /// # Errors
    /// When settings are changed already, or the state cannot be written. A
    /// setting that cannot be changed is no error, see [`Applied::refused`].
    pub fn apply(
        &self,
        which: &[Setting],
        holder: Option<Holder>,
    ) -> Result<Applied, SettingsError> {
        let mut applied = Applied::default();
        let mut wanted = Vec::new();
        for planned in self.plan(which) {
            match planned {
                Planned::Change { changes, .. } => wanted.extend(changes),
                Planned::AsWanted { .. } => {}
                Planned::Absent { setting, reason } => applied.refused.push((setting, reason)),
            }
        }
        if wanted.is_empty() {
            return Ok(applied);
        }
        let _lock = self.lock()?;
        if let Some(saved) = self.saved()? {
            return Err(SettingsError::Held { since: saved.since });
        }
        let mut saved = Saved::new(self.boot()?, holder, wanted);
        saved.write(&self.folder)?;
        let refused = self.change(&saved.changes);
        saved.changes.retain(|change| !refused.iter().any(|(name, _)| *name == change.setting));
        applied.refused.extend(refused);
        match saved.changes.is_empty() {
            true => Saved::remove(&self.folder)?,
            false => saved.write(&self.folder)?,
        }
        applied.changes = saved.changes;
        Ok(applied)
    }

    /// Makes the changes; a setting of which one file refuses is put back.
    fn change(&self, changes: &[Change]) -> Vec<(Setting, String)> {
        let mut refused: Vec<(Setting, String)> = Vec::new();
        for change in changes {
            if refused.iter().any(|(name, _)| *name == change.setting) {
                continue;
            }
            if let Err(reason) = change.set(&self.root, &change.after) {
                for earlier in changes.iter().filter(|other| other.setting == change.setting) {
                    // A file that never took the value refuses this as well.
                    let _ = earlier.put_back(&self.root);
                }
                refused.push((change.setting, reason));
            }
        }
        refused
    }

    /// Puts everything back that [`Settings::apply`] changed.
    ///
    /// # Errors
    /// When a living run other than this process holds the settings, or some
    /// could not be put back.
    pub fn restore(&self) -> Result<Restored, SettingsError> {
        // Nothing saved needs no lock, which would need a folder.
        if self.saved()?.is_none() {
            return Ok(Restored::default());
        }
        let _lock = self.lock()?;
        match self.saved()? {
            None => Ok(Restored::default()),
            Some(Saved { holder: Some(holder), .. }) if holder.is_another_alive() => {
                Err(SettingsError::InUse { pid: holder.pid })
            }
            Some(saved) => self.put_back(saved),
        }
    }

    /// Puts back what a run left changed that is dead, or forgets what a
    /// restart of the host has undone; nothing else.
    ///
    /// # Errors
    /// When something cannot be put back.
    pub fn recover(&self) -> Result<Option<Restored>, SettingsError> {
        let Some(saved) = self.saved()? else { return Ok(None) };
        let rebooted = self.boot().is_ok_and(|boot| boot != saved.boot_id);
        let dead = saved.holder.as_ref().is_some_and(|holder| !holder.is_alive());
        if rebooted || dead { self.restore().map(Some) } else { Ok(None) }
    }

    fn put_back(&self, mut saved: Saved) -> Result<Restored, SettingsError> {
        let mut restored = Restored::default();
        if self.boot()? != saved.boot_id {
            restored.rebooted = true;
            Saved::remove(&self.folder)?;
            return Ok(restored);
        }
        let (mut failures, mut kept) = (Vec::new(), Vec::new());
        // The last change first, as anything that is undone.
        for change in saved.changes.into_iter().rev() {
            match change.put_back(&self.root) {
                Ok(None) => restored.changes.push(change),
                Ok(Some(now)) if now == change.before => {}
                Ok(Some(now)) => restored.foreign.push((change, now)),
                Err(reason) => {
                    failures.push(format!("{}: {reason}", change.setting.as_str()));
                    kept.push(change);
                }
            }
        }
        if kept.is_empty() {
            Saved::remove(&self.folder)?;
            return Ok(restored);
        }
        kept.reverse();
        saved.changes = kept;
        saved.write(&self.folder)?;
        Err(SettingsError::Kept { failures })
    }

    fn boot(&self) -> Result<String, SettingsError> {
        Root(&self.root).text("proc/sys/kernel/random/boot_id").map_err(SettingsError::NoBoot)
    }

    /// One process at a time; the kernel ends the lock with its holder.
    fn lock(&self) -> Result<Flock<std::fs::File>, SettingsError> {
        let path = self.folder.join("settings.lock");
        let error = |operation| {
            move |source| SettingsError::State { operation, path: path.clone(), source }
        };
        std::fs::create_dir_all(&self.folder).map_err(error.clone()("make the folder of"))?;
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("settings.lock"))
            .map_err(error.clone()("open"))?;
        Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| error("lock")(io::Error::from(errno)))
    }
}
