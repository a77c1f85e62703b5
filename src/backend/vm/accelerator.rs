//! Which accelerator really boots a guest here. A device node that opens
//! proves nothing: some hosts offer a KVM that runs tiny guests but no
//! ordinary kernel, and QEMU then stays alive without a word.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::AssetsError;
use super::super::assets::{artefact, hex};
use super::machine::{Machine, Qemu};

/// Why a machine cannot be had here.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// A carried file or script failed.
    #[error(transparent)]
    Assets(#[from] AssetsError),
    /// There is no guest kernel.
    #[error("no guest kernel; make it with {script}")]
    NoKernel {
        /// The script that makes it, with its flags.
        script: String,
        /// What the script said.
        #[source]
        source: AssetsError,
    },
    /// A kernel as shipped cannot do it on a machine without ACPI.
    #[error(
        "the distribution's kernel does not find {what} on a microvm: it is built without {option}; \
         use machine q35 or pc"
    )]
    Unsuited {
        /// What it does not find.
        what: &'static str,
        /// The option of its configuration.
        option: String,
    },
    /// Nothing is known of a kernel that is to be traced.
    #[error("cannot trace the kernel `{kernel}`: {reason}")]
    Untraceable {
        /// Its file.
        kernel: String,
        /// Why.
        reason: String,
    },
    /// QEMU did not say which version it is.
    #[error("cannot read QEMU's version from `{answer}`")]
    NoVersion {
        /// What was printed.
        answer: String,
    },
    /// A script printed no argument vector.
    #[error("`{script}` printed no argument vector")]
    NoArguments {
        /// The script.
        script: String,
    },
}

/// What executes a guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// The processor itself, through `/dev/kvm`.
    Kvm,
    /// QEMU's translator: software emulation.
    Tcg,
}

impl Accelerator {
    /// QEMU's name of it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// The outcome of trial boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The best accelerator that boots.
    pub best: Accelerator,
    /// Why it is not KVM.
    pub reason: Option<String>,
}

impl Probe {
    /// KVM boots.
    pub(super) fn kvm() -> Self {
        Self { best: Accelerator::Kvm, reason: None }
    }

    /// Only emulation boots.
    pub(super) fn tcg(reason: String) -> Self {
        Self { best: Accelerator::Tcg, reason: Some(reason) }
    }
}

/// Whether `/dev/kvm` can be opened, or the reason why not.
pub(super) fn kvm_opens() -> Result<(), String> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map(drop)
        .map_err(|error| format!("cannot open /dev/kvm: {error}"))
}

/// The remembered outcome for one kernel, machine type, QEMU version and
/// kind of access to `/dev/kvm`.
pub(super) struct Cache(PathBuf);

impl Cache {
    pub(super) fn new(cache: &Path, qemu: &Qemu, machine: &Machine) -> Result<Self, VmError> {
        let kernel = artefact("kernel", &machine.files.kernel)?;
        let mut hasher = Sha256::new();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        for part in [
            kernel.sha256.as_str(),
            &qemu.version,
            &machine.kind,
            &machine.firmware,
            &release,
            if kvm_opens().is_ok() { "opens" } else { "does not open" },
        ] {
            hasher.update(part);
            hasher.update([0]);
        }
        let name = format!("{}.json", &hex(&hasher.finalize())[..16]);
        Ok(Self(cache.join("accelerator").join(name)))
    }

    /// The outcome, if it is known.
    pub(super) fn read(&self) -> Option<Probe> {
        serde_json::from_slice(&fs::read(&self.0).ok()?).ok()
    }

    /// Remembers an outcome. A cache that cannot be written only costs the
    /// next run another trial boot.
    pub(super) fn write(&self, probe: &Probe) {
        let Some(folder) = self.0.parent() else { return };
        let written = || -> std::io::Result<()> {
            fs::create_dir_all(folder)?;
            let file = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer(&file, probe)?;
            file.persist(&self.0).map_err(|error| error.error)?;
            Ok(())
        };
        drop(written());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_remembered_and_damage_means_unknown() {
        let folder = tempfile::tempdir().expect("folder");
        let cache = Cache(folder.path().join("accelerator/x.json"));
        assert_eq!(cache.read(), None);
        let probe = Probe::tcg("it crawls".to_owned());
        cache.write(&probe);
        assert_eq!(cache.read(), Some(probe));
        fs::write(&cache.0, "{").expect("damaged");
        assert_eq!(cache.read(), None);
    }
}
