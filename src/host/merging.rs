//! Kernel samepage merging for the time of one trial, and what it has found.

use std::path::{Path, PathBuf};

use super::settings::{Holder, Setting, Settings, SettingsError};
use super::source::Root;

/// Why pages cannot be merged here.
#[derive(Debug, thiserror::Error)]
pub enum MergingError {
    /// The settings cannot be changed, or not back.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The kernel refuses.
    #[error("pages cannot be merged here: {0}")]
    Refused(String),
    /// This process cannot be named as the holder.
    #[error("cannot tell which process holds the settings: {0}")]
    Holder(String),
}

/// Merging that is switched on. Dropping it puts the settings back.
#[derive(Debug)]
pub struct Merging {
    settings: Settings,
    root: PathBuf,
}

/// What the kernel says about merged pages (`Documentation/admin-guide/mm/ksm.rst`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Pages that are mapped to another's memory: what is saved.
    pub sharing: u64,
    /// Times that all mergeable memory was looked at.
    pub full_scans: u64,
}

impl Merging {
    /// Switches it on. What the settings were is on disk before the first of
    /// them changes; after a crash the next command puts them back.
    ///
    /// # Errors
    /// When the settings are changed already or cannot be changed.
    pub fn begin(settings: Settings, root: &Path) -> Result<Self, MergingError> {
        let holder = Holder::myself().map_err(MergingError::Holder)?;
        if let Some(saved) = settings.saved()? {
            return Err(SettingsError::Held { since: saved.since }.into());
        }
        let applied = settings.apply(&[Setting::KsmMerging], Some(holder))?;
        let merging = Self { settings, root: root.to_owned() };
        match applied.refused.into_iter().next() {
            Some((_, reason)) => Err(MergingError::Refused(reason)),
            None => Ok(merging),
        }
    }

    /// What is merged now, on the whole host.
    ///
    /// # Errors
    /// The reason why it cannot be read.
    pub fn merged(&self) -> Result<Merged, String> {
        merged(&self.root)
    }

    /// Puts the settings back.
    ///
    /// # Errors
    /// When some could not be put back; they stay noted.
    pub fn end(self) -> Result<(), MergingError> {
        Ok(self.settings.restore().map(drop)?)
    }
}

impl Drop for Merging {
    fn drop(&mut self) {
        // What cannot be put back stays noted, and the next command tries.
        let _ = self.settings.restore();
    }
}

/// What is merged on the host below `root`.
///
/// # Errors
/// The reason why it cannot be read.
pub fn merged(root: &Path) -> Result<Merged, String> {
    let number = |name: &str| Root(root).number(format!("sys/kernel/mm/ksm/{name}"));
    Ok(Merged { sharing: number("pages_sharing")?, full_scans: number("full_scans")? })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn merging_is_switched_on_for_its_time_only() {
        let (root, state) = (tempfile::tempdir().expect("root"), tempfile::tempdir().expect("s"));
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("parent")).expect("folders");
            fs::write(path, text).expect("written");
        };
        let files = ["pages_to_scan", "sleep_millisecs", "smart_scan", "run"];
        for (name, value) in files.iter().zip(["100", "200", "1", "0"]) {
            put(&format!("sys/kernel/mm/ksm/{name}"), value);
        }
        put("sys/kernel/mm/ksm/pages_sharing", "0");
        put("sys/kernel/mm/ksm/full_scans", "3");
        put("proc/sys/kernel/random/boot_id", "boot-1");
        let all = || {
            let read =
                |name: &&str| fs::read_to_string(root.path().join("sys/kernel/mm/ksm").join(name));
            files.iter().map(|name| read(name).expect("read")).collect::<Vec<_>>()
        };
        let settings = || Settings::new(root.path(), &state.path().join("unladen"));
        let merging = Merging::begin(settings(), root.path()).expect("begun");
        assert_eq!(all(), ["5000", "20", "0", "1"]);
        put("sys/kernel/mm/ksm/pages_sharing", "77");
        assert_eq!(merging.merged(), Ok(Merged { sharing: 77, full_scans: 3 }));
        assert!(Merging::begin(settings(), root.path()).is_err(), "one at a time");
        merging.end().expect("put back");
        assert_eq!(all(), ["100", "200", "1", "0"]);
        drop(Merging::begin(settings(), root.path()).expect("begun"));
        assert_eq!(all(), ["100", "200", "1", "0"], "also when a trial ends early");
    }
}
