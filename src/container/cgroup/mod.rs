//! Control groups of version 1, of version 2, and of hosts that have both,
//! through one interface.
//!
//! [`Hierarchy::detect`] finds out, without changing anything, which
//! controllers the caller may use and where. [`Hierarchy::prepare`] makes the
//! folder of a run, `unladen-<run id>`, in every hierarchy that is used;
//! [`RunTree::create`] makes one [`Group`] per instance in it. Names carry the
//! run's id, so [`sweep()`] can find and remove what a killed run left.
//!
//! It neither makes processes nor moves any but the caller's own session (see
//! [`RunTree`]): a child joins by itself, on version 1 by writing `0` into
//! [`Group::join_fds`], on version 2 by being born in [`Group::into_cgroup`].
//!
//! See cgroups(7) and the kernel's `Documentation/admin-guide/cgroup-v1` and
//! `cgroup-v2.rst`.

mod detect;
mod files;
mod group;
mod limits;
mod location;
mod readback;
mod sweep;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;
use std::io;
use std::path::PathBuf;

pub use self::detect::{Availability, Hierarchy, Version};
pub use self::group::Group;
pub use self::limits::{CpuQuota, Limits};
pub(super) use self::limits::{shares_to_weight, weight_to_shares};
pub use self::readback::MemorySplit;
pub use self::sweep::{Swept, find, sweep};
pub use self::tree::RunTree;

/// A resource controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Controller {
    /// Memory and swap.
    Memory,
    /// Number of processes and threads.
    Pids,
    /// CPU time.
    Cpu,
    /// Stopping and continuing; part of the core in version 2.
    Freezer,
}

impl Controller {
    /// All controllers that this module knows.
    pub const ALL: [Self; 4] = [Self::Memory, Self::Pids, Self::Cpu, Self::Freezer];
    /// Those that every instance of the suite gets, whatever runs it.
    pub const STANDARD: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    /// The kernel's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
            Self::Freezer => "freezer",
        }
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
    /// A name that cannot be a folder's.
    #[error("`{0}` cannot name a cgroup: use letters, digits, `-`, `_` and `.`")]
    Name(String),
}
