//! Control groups of version 1, of version 2, and of hosts that have both,
//! through one interface.
//!
//! [`Hierarchy::detect`] finds out, without changing anything, which
//! controllers the caller may use and where. [`Hierarchy::prepare`] makes the
//! folder of a run, `unladen-<run id>`, in every hierarchy that is used;
//! [`RunTree::create`] makes one [`Group`] per instance in it. Names carry the
//! run's id, so [`sweep()`] can find and remove what a killed run left.
//! [`Hierarchy::group_at`] makes one at a path that somebody else chose
//! (`linux.cgroupsPath`), and [`Hierarchy::open_group`] and
//! [`Group::reopen`] find one again from another process.
//!
//! It neither makes processes nor moves any but the caller's own session (see
//! [`RunTree`]): a child joins by itself, on version 1 by writing `0` into
//! [`Group::join_fds`], on version 2 by being born in [`Group::into_cgroup`].
//!
//! See cgroups(7) and the kernel's `Documentation/admin-guide/cgroup-v1` and
//! `cgroup-v2.rst`.

mod convert;
mod detect;
mod devices;
mod files;
mod freeze;
mod group;
mod limits;
mod location;
mod path;
mod readback;
mod settings;
mod sweep;
#[cfg(test)]
mod tests;
mod tree;
mod usage;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

pub(super) use self::convert::weight_to_shares;
pub use self::detect::{Availability, Hierarchy, Version};
pub use self::devices::{DeviceAccess, DeviceKind, DeviceRule};
pub use self::group::{FolderRecord, Group, GroupRecord};
pub use self::limits::{
    BlockDevice, BlockIo, CpuQuota, Limits, Realtime, Throttle, ThrottleKind, UNLIMITED,
};
pub use self::readback::MemorySplit;
pub use self::sweep::{Swept, find, sweep};
pub use self::tree::RunTree;
pub use self::usage::{CpuUsage, IoUsage, Pressure, Resource, Stall};

/// Whether this host has version 2 alone: its root has a list of controllers
/// then. Looked up once.
#[must_use]
pub fn is_unified() -> bool {
    static FOUND: LazyLock<bool> =
        LazyLock::new(|| Path::new("/sys/fs/cgroup/cgroup.controllers").exists());
    *FOUND
}

/// A resource controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Controller {
    /// Memory and swap.
    Memory,
    /// Number of processes and threads.
    Pids,
    /// CPU time.
    Cpu,
    /// Counting of CPU time; part of the core in version 2.
    Cpuacct,
    /// CPUs and memory nodes.
    Cpuset,
    /// Block devices; `blkio` in version 1.
    Io,
    /// Huge pages.
    Hugetlb,
    /// Device nodes; an eBPF program of the cgroup in version 2.
    Devices,
    /// Stopping and continuing; part of the core in version 2.
    Freezer,
}

impl Controller {
    /// All controllers that this module knows.
    pub const ALL: [Self; 9] = [
        Self::Memory,
        Self::Pids,
        Self::Cpu,
        Self::Cpuacct,
        Self::Cpuset,
        Self::Io,
        Self::Hugetlb,
        Self::Devices,
        Self::Freezer,
    ];
    /// Those that every instance of the suite gets, whatever runs it.
    pub const STANDARD: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    /// The kernel's name, in version 2 where the versions differ.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Io => "io",
            Self::Hugetlb => "hugetlb",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
        }
    }

    /// The kernel's name in one version.
    #[must_use]
    pub fn name(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::Io, Version::V1) => "blkio",
            (other, _) => other.as_str(),
        }
    }

    /// The controller to which a file of version 2 belongs, by its name:
    /// `memory.high` to memory. Files of the core count as the freezer's.
    #[must_use]
    pub fn of_file(file: &str) -> Option<Self> {
        let (name, _) = file.split_once('.')?;
        let known = |controller: &Self| controller.as_str() == name && !controller.is_core();
        match name {
            "cgroup" => Some(Self::Freezer),
            _ => Self::ALL.into_iter().find(known),
        }
    }

    /// Whether every cgroup of version 2 has it without being given it.
    pub(super) fn is_core(self) -> bool {
        matches!(self, Self::Cpuacct | Self::Devices | Self::Freezer)
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why something could not be done with a control group.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file of the kernel could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file of the kernel does not look as documented.
    #[error("{} does not hold what it should: `{content}`", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The part that was not understood.
        content: String,
    },
    /// A cgroup could not be made.
    #[error("cannot make the cgroup {}", path.display())]
    Create {
        /// Its folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A setting was refused.
    #[error("cannot write `{value}` to {} ({purpose})", path.display())]
    Write {
        /// What it is for: the controller, or moving a process.
        purpose: &'static str,
        /// The file.
        path: PathBuf,
        /// The value.
        value: String,
        /// The cause.
        source: io::Error,
    },
    /// The file with which a child joins could not be opened.
    #[error("cannot open {} for joining", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The group has no such controller.
    #[error("the {controller} controller is not available: {reason}")]
    Unavailable {
        /// The controller.
        controller: Controller,
        /// Why not, and what can be done.
        reason: String,
    },
    /// A cgroup could not be removed.
    #[error("cannot remove the cgroup {} (processes in it: {processes})", path.display())]
    Remove {
        /// Its folder.
        path: PathBuf,
        /// Pids, or `none`.
        processes: String,
        /// The cause.
        source: io::Error,
    },
    /// Processes did not die in time.
    #[error("processes {processes} in {} did not end after SIGKILL", path.display())]
    Survivors {
        /// The cgroup's folder.
        path: PathBuf,
        /// Their pids.
        processes: String,
    },
    /// A limit that this version of control groups does not have.
    #[error("`{limit}` cannot be set with cgroup {version}: {reason}")]
    Refused {
        /// The field below `linux.resources`, or what else asks for it.
        limit: String,
        /// The version of the hierarchy that has the controller.
        version: Version,
        /// Why, and what to use instead.
        reason: &'static str,
    },
    /// The program that guards device nodes could not be put in place.
    #[error("cannot guard the devices of {} with a program (devices)", path.display())]
    Guard {
        /// The cgroup's folder.
        path: PathBuf,
        /// The cause.
        source: crate::sys::bpf::BpfError,
    },
    /// A cgroup did not freeze or thaw in time.
    #[error("{} did not become {wanted} (it is {state})", path.display())]
    Freeze {
        /// The cgroup's folder.
        path: PathBuf,
        /// `frozen` or `thawed`.
        wanted: &'static str,
        /// What the kernel says instead.
        state: String,
    },
    /// A path that cannot be a cgroup's.
    #[error("`linux.cgroupsPath` cannot be `{}`: {reason}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// A cgroup that was to be a container's own has somebody else's processes.
    #[error("the cgroup {} is in use (processes in it: {processes})", path.display())]
    Occupied {
        /// Its folder.
        path: PathBuf,
        /// Their pids.
        processes: String,
    },
    /// No hierarchy has a cgroup of this path.
    #[error("there is no cgroup {} in any hierarchy", path.display())]
    Absent {
        /// The path.
        path: PathBuf,
    },
    /// A name that cannot be a folder's.
    #[error("`{0}` cannot name a cgroup: use letters, digits, `-`, `_` and `.`")]
    Name(String),
}
