//! Reading memory and processor time: one kernel source each, the same for every backend.
//!
//! A reading is of one moment and of whole instances: when one process of an
//! instance cannot be read, the ledgers that need it are missing with the
//! reason, never a partial sum. Nothing here waits, repeats or judges; and
//! nothing here is called within a timed window.

mod cgroup;
mod counts;
mod cpu;
mod meminfo;
mod parts;
mod reading;
mod smaps;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use cpu::CpuTime;
pub use parts::{PartSize, Parts, Shape};
pub use reading::{Reading, SETTLED_SHARE};

use crate::backend::MemorySource;
use crate::record::{HostCount, KernelPart};
use crate::sys::cached::pages;

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The memory of a process.
    #[error("cannot read the memory of process {pid}: {reason}")]
    Process {
        /// The process.
        pid: i32,
        /// Why.
        reason: String,
    },
    /// A file of a control group.
    #[error("cannot read {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A control group in which nothing runs.
    #[error("no process is left in {}", dir.display())]
    Empty {
        /// The group.
        dir: PathBuf,
    },
    /// An instance that is not in control groups of its own as a whole.
    #[error("{reason}")]
    Apart {
        /// In which way.
        reason: String,
    },
    /// An instance without a control group of the memory controller.
    #[error("the instance has no control group of the memory controller")]
    NoMemoryGroup,
    /// A kernel too old for the counter.
    #[error("{} does not exist: the kernel has it since Linux 5.19", path.display())]
    NoPeak {
        /// The file.
        path: PathBuf,
    },
}

/// Reads one instance by all ledgers but the host's, at one moment.
#[must_use]
pub fn memory(source: &MemorySource) -> Reading {
    memory_at(Path::new("/proc"), source)
}

/// Bytes of a file that are in the host's page cache, whole pages at a time.
///
/// # Errors
///
/// The reason why nobody can tell.
pub fn cached(file: &Path) -> Result<u64, String> {
    let pages = pages(file)
        .map_err(|error| format!("cannot see the cached pages of {}: {error}", file.display()))?;
    Ok(pages.bytes())
}

/// Reads the parts of a virtual machine, at one moment. Their sum is the
/// machine's RSS; by PSS it is up to a KiB a mapping below the whole, since
/// the kernel rounds each mapping down.
///
/// # Errors
///
/// The reason why they cannot be read.
pub fn parts(source: &MemorySource, shape: &Shape) -> Result<Parts, String> {
    match source {
        MemorySource::Kernel { pid, cgroups } => {
            parts::read(Path::new("/proc"), *pid, cgroups, shape).map_err(|error| error.to_string())
        }
        MemorySource::Processes { .. } => Err("it is no machine of ours".to_owned()),
        MemorySource::Exact(_) => Err("the mock has no parts".to_owned()),
    }
}

/// Reads the daemons that an instance shares with others by PSS, USS and RSS.
/// `None` for an instance without any.
#[must_use]
pub fn daemons(source: &MemorySource) -> Option<Reading> {
    let MemorySource::Processes { daemons, .. } = source else { return None };
    let missing = || ProbeError::Apart { reason: "not read for daemons".to_owned() };
    (!daemons.is_empty()).then(|| {
        Reading::timed(|| reading::Sources {
            sizes: smaps::read_all(Path::new("/proc"), daemons),
            usage: Err(missing()),
            peak: Err(missing()),
            highest: Err(missing()),
            charges: Err(missing()),
        })
    })
}

/// What the threads of an instance have run by now.
///
/// # Errors
///
/// The reason why it cannot be read.
pub fn cpu_time(source: &MemorySource) -> Result<CpuTime, String> {
    match source {
        MemorySource::Kernel { pid, cgroups } => {
            cpu::read(Path::new("/proc"), *pid, cgroups).map_err(|error| error.to_string())
        }
        MemorySource::Processes { pids, .. } => {
            cpu::read_all(Path::new("/proc"), pids).map_err(|error| error.to_string())
        }
        MemorySource::Exact(_) => Err("the mock uses no processor".to_owned()),
    }
}

/// The host's own ledger in bytes: memory in use less reclaimable caches, see
/// `meminfo`. Only differences between two moments mean anything.
///
/// # Errors
///
/// The reason why it cannot be read.
pub fn host_memory() -> Result<u64, String> {
    meminfo::in_use(Path::new("/proc")).map_err(|error| error.to_string())
}

/// The host's kernel memory by part, in bytes. Only differences between two
/// moments mean anything.
///
/// # Errors
///
/// The reason why it cannot be read.
pub fn kernel_memory() -> Result<BTreeMap<KernelPart, Result<u64, String>>, String> {
    meminfo::kernel_parts(Path::new("/proc")).map_err(|error| error.to_string())
}

/// What the whole host has of things that may run out, each or why it cannot
/// be told.
#[must_use]
pub fn host_counts() -> BTreeMap<HostCount, Result<f64, String>> {
    counts::read(Path::new("/proc"))
}

/// [`memory`] with another place for `/proc`.
fn memory_at(proc: &Path, source: &MemorySource) -> Reading {
    match source {
        MemorySource::Exact(values) => Reading::exact(values),
        MemorySource::Kernel { pid, cgroups } => Reading::timed(|| reading::Sources {
            sizes: smaps::read(proc, *pid, cgroups),
            usage: cgroup::usage(cgroups),
            peak: cgroup::peak(cgroups),
            highest: smaps::highest(proc, *pid, cgroups),
            charges: cgroup::charges(cgroups),
        }),
        MemorySource::Processes { pids, groups, .. } => Reading::timed(|| {
            let groups =
                groups.as_ref().map_err(|reason| ProbeError::Apart { reason: reason.clone() });
            let sum = |read: fn(&[PathBuf]) -> Result<u64, ProbeError>| {
                let groups = groups.clone()?;
                groups.iter().map(|group| read(std::slice::from_ref(group))).sum()
            };
            let peak = match &groups {
                // The peaks of several groups were at different times.
                Ok(several) if several.len() > 1 => {
                    Err(ProbeError::Apart { reason: "it is in several control groups".to_owned() })
                }
                _ => sum(cgroup::peak),
            };
            let charges = match &groups {
                Ok(several) if several.len() == 1 => cgroup::charges(several),
                Ok(_) => {
                    Err(ProbeError::Apart { reason: "it is in several control groups".to_owned() })
                }
                Err(error) => Err(error.clone()),
            };
            reading::Sources {
                sizes: smaps::read_all(proc, pids),
                usage: sum(cgroup::usage),
                peak,
                highest: smaps::highest_all(proc, pids.iter().copied()),
                charges,
            }
        }),
    }
}

#[cfg(test)]
mod tests;
