//! What an image may cost the host before it is refused.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use super::ImageError;
use super::error::file;
use crate::units::{MIB, Unit};

/// Limits of an import. The defaults are far above what images of the public
/// registries need and far below what would harm a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all layers together when unpacked (and, separately, the
    /// apparent size of all files, of which a sparse one needs no space).
    /// Default 64 GiB.
    pub unpacked: u64,
    /// Entries of all layers together. Default two million.
    pub entries: u64,
    /// Bytes of an entry's name, and of what a link points at. Default 4095,
    /// the kernel's `PATH_MAX` without its NUL.
    pub path: usize,
    /// Bytes of one entry's extended header. Default 1 MiB.
    pub header: u64,
    /// Bytes of a description (index, manifest, configuration). Default 4
    /// MiB, as registries have it.
    pub json: u64,
    /// Bytes that stay free on the disk; a disk on which that is more than a
    /// tenth keeps a tenth free. Default 1 GiB.
    pub keep_free: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unpacked: 64 * 1024 * MIB,
            entries: 2_000_000,
            path: 4095,
            header: MIB,
            json: 4 * MIB,
            keep_free: 1024 * MIB,
        }
    }
}

/// What is left of the limits while an image is unpacked.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) limits: Limits,
    store: PathBuf,
    unpacked: u64,
    apparent: u64,
    entries: u64,
    /// Bytes until the disk is looked at again.
    until_look: u64,
}

/// Bytes that may be written between two looks at the disk.
const LOOK_EVERY: u64 = 64 * MIB;

impl Budget {
    pub(super) fn new(limits: Limits, store: &Path) -> Self {
        Self {
            limits,
            store: store.to_owned(),
            unpacked: 0,
            apparent: 0,
            entries: 0,
            until_look: 0,
        }
    }

    /// Takes note of bytes that are about to be written.
    pub(super) fn spend(&mut self, bytes: u64) -> Result<(), ImageError> {
        self.unpacked = self.unpacked.saturating_add(bytes);
        if self.unpacked > self.limits.unpacked {
            return Err(self.too_much());
        }
        if bytes >= self.until_look {
            self.look(bytes)?;
            self.until_look = LOOK_EVERY;
        } else {
            self.until_look -= bytes;
        }
        Ok(())
    }

    /// Takes note of an entry that says to have this size.
    pub(super) fn entry(&mut self, size: u64) -> Result<(), ImageError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(ImageError::TooLarge {
                what: "the number of the image's entries".to_owned(),
                limit: self.limits.entries.to_string(),
                hint: ", see --max-entries",
            });
        }
        self.apparent = self.apparent.saturating_add(size);
        if self.apparent > self.limits.unpacked {
            return Err(self.too_much());
        }
        Ok(())
    }

    /// Bytes that were unpacked so far.
    pub(super) fn unpacked(&self) -> u64 {
        self.unpacked
    }

    /// Entries so far.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    fn too_much(&self) -> ImageError {
        ImageError::TooLarge {
            what: "the unpacked image".to_owned(),
            limit: human(self.limits.unpacked),
            hint: ", see --max-size",
        }
    }

    /// Refuses to fill the disk.
    fn look(&self, bytes: u64) -> Result<(), ImageError> {
        let disk =
            statvfs(&self.store).map_err(|errno| file("look at", &self.store)(errno.into()))?;
        let block = disk.fragment_size();
        let total = disk.blocks().saturating_mul(block);
        let free = disk.blocks_available().saturating_mul(block);
        let keep = self.limits.keep_free.min(total / 10);
        if free < keep.saturating_add(bytes) {
            let (free, keep) = (human(free), human(keep));
            return Err(ImageError::DiskFull { path: self.store.clone(), free, keep });
        }
        Ok(())
    }
}

/// Bytes for a message.
pub(super) fn human(bytes: u64) -> String {
    Unit::Bytes.human(bytes as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_foreseen() {
        let folder = tempfile::tempdir().expect("folder");
        let limits = Limits { unpacked: u64::MAX, ..Limits::default() };
        let error = Budget::new(limits, folder.path()).spend(1 << 62).expect_err("too much");
        assert!(matches!(error, ImageError::DiskFull { .. }), "{error}");
        // Looked at again after some time, not at every byte.
        let mut budget = Budget::new(limits, folder.path());
        budget.spend(1).expect("little");
        budget.spend(LOOK_EVERY - 1).expect("little");
        assert!(budget.spend(1 << 62).is_err());
    }

    #[test]
    fn limits_add_up_over_layers() {
        let folder = tempfile::tempdir().expect("folder");
        let limits = Limits { unpacked: 10, entries: 2, ..Limits::default() };
        let mut budget = Budget::new(limits, folder.path());
        budget.spend(6).expect("fits");
        budget.entry(4).expect("fits");
        assert!(budget.spend(5).expect_err("too much").to_string().contains("limit of 10 B"));
        assert!(budget.entry(7).expect_err("too much").to_string().contains("--max-size"));
        assert!(budget.entry(0).expect_err("too many").to_string().contains("--max-entries"));
    }
}
