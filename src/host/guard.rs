//! The guard that stops a density ladder before the host suffers.

use std::fs;
use std::path::{Path, PathBuf};

use procfs::{LoadAverage, Meminfo, MemoryPressure};

use crate::units::{Bytes, MIB};

use super::cgroups::CgroupLayout;
use super::source::Root;

/// Share of the memory that stays free, in percent.
const MEMORY_PERCENT: u64 = 10;
/// Memory that stays free in any case, in bytes.
const MEMORY_BYTES: u64 = 1024 * MIB;
/// Share of the last ten seconds, in percent, that all processes may stand
/// still waiting for memory.
const PRESSURE_PERCENT: f32 = 10.0;
/// Process ids that stay free, but never more than a quarter of the limit.
const PIDS_KEPT: u64 = 1024;

/// Why no further instance may be started.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Limit {
    /// Too little memory would be left.
    #[error("memory floor: {} available, {} are kept free ({scope})", Bytes(*available), Bytes(*floor))]
    Memory {
        /// Bytes that are available.
        available: u64,
        /// Bytes that are kept free.
        floor: u64,
        /// Whose memory: the host's, or a control group's.
        scope: String,
    },
    /// Processes stand still waiting for memory.
    #[error(
        "memory pressure: all processes stood still for {percent:.1} % of the last ten seconds"
    )]
    Pressure {
        /// `full avg10` of `/proc/pressure/memory`.
        percent: f32,
    },
    /// Too few process ids would be left.
    #[error("process ids: {used} of {max} are in use ({scope})")]
    Pids {
        /// Processes and threads that exist.
        used: u64,
        /// How many may exist.
        max: u64,
        /// Whose limit: the host's, or a control group's.
        scope: String,
    },
    /// The guard cannot see, so it lets nothing pass.
    #[error("guard: cannot tell whether the host has room: {0}")]
    Unknown(String),
}

impl Limit {
    /// The short name that is stored as the end of a ladder.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Memory { .. } => "memory floor",
            Self::Pressure { .. } => "memory pressure",
            Self::Pids { .. } => "process ids",
            Self::Unknown(_) => "guard",
        }
    }
}

/// Looks at the host before each start of a ladder.
#[derive(Clone, Debug)]
pub struct Guard {
    root: PathBuf,
    /// Groups with limits that hold for us, looked up once: the layout does
    /// not change while we run.
    memory_groups: Vec<Group>,
    pids_groups: Vec<Group>,
}

/// Our control group or one above it.
#[derive(Clone, Debug)]
struct Group {
    path: PathBuf,
    is_v2: bool,
}

impl Guard {
    /// A guard over the host below `root` (`/`, or a test's folder).
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let groups = |controller| groups(Root(root), controller);
        Self { root: root.to_owned(), memory_groups: groups("memory"), pids_groups: groups("pids") }
    }

    /// Whether one more instance may be started.
    ///
    /// # Errors
    ///
    /// The limit that forbids it.
    pub fn check(&self) -> Result<(), Limit> {
        let root = Root(&self.root);
        host_memory(root)?;
        for group in &self.memory_groups {
            group_memory(root, group)?;
        }
        pressure(root)?;
        host_pids(root)?;
        for group in &self.pids_groups {
            group_pids(root, group)?;
        }
        Ok(())
    }
}

/// Our group of a controller and all above it. Empty where there is none.
fn groups(root: Root<'_>, controller: &str) -> Vec<Group> {
    let Ok(layout) = CgroupLayout::read(root.0) else {
        return Vec::new();
    };
    let Some((own, mount, is_v2)) = layout.own(root, controller) else {
        return Vec::new();
    };
    own.ancestors()
        .take_while(|path| path.starts_with(&mount))
        .map(|path| Group { path: path.to_owned(), is_v2 })
        .filter(|group| fs::exists(root.path(&group.path)).unwrap_or(false))
        .collect()
}

fn host_memory(root: Root<'_>) -> Result<(), Limit> {
    let meminfo: Meminfo = root.parsed("proc/meminfo").map_err(Limit::Unknown)?;
    let missing = || Limit::Unknown("/proc/meminfo has no MemAvailable".to_owned());
    let available = meminfo.mem_available.ok_or_else(missing)?;
    let floor = (meminfo.mem_total / 100 * MEMORY_PERCENT).max(MEMORY_BYTES);
    memory(available, floor, "the host's")
}

/// A group's reclaimable page cache counts as available, as in MemAvailable.
fn group_memory(root: Root<'_>, group: &Group) -> Result<(), Limit> {
    let (limit, usage) = match group.is_v2 {
        true => ("memory.max", "memory.current"),
        false => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    };
    // `max` in version 2, a number beyond any machine in version 1, no file
    // in the root group: no limit.
    let Ok(limit) = root.number(group.path.join(limit)) else {
        return Ok(());
    };
    if limit >= 1 << 62 {
        return Ok(());
    }
    let usage = root.number(group.path.join(usage)).map_err(Limit::Unknown)?;
    let stat = root.text(group.path.join("memory.stat")).unwrap_or_default();
    let key = if group.is_v2 { "inactive_file " } else { "total_inactive_file " };
    let cache = stat.lines().find_map(|line| line.strip_prefix(key)?.parse().ok()).unwrap_or(0);
    let available = (limit + cache).saturating_sub(usage);
    let scope = format!("control group {}", group.path.display());
    memory(available, limit / 100 * MEMORY_PERCENT, &scope)
}

fn memory(available: u64, floor: u64, scope: &str) -> Result<(), Limit> {
    if available < floor {
        return Err(Limit::Memory { available, floor, scope: scope.to_owned() });
    }
    Ok(())
}

/// Kernels without pressure information have no such file: nothing to check.
fn pressure(root: Root<'_>) -> Result<(), Limit> {
    let pressure: Result<MemoryPressure, _> = root.parsed("proc/pressure/memory");
    match pressure {
        Ok(pressure) if pressure.full.avg10 > PRESSURE_PERCENT => {
            Err(Limit::Pressure { percent: pressure.full.avg10 })
        }
        _ => Ok(()),
    }
}

/// `/proc/loadavg` counts every process and thread, at no cost.
fn host_pids(root: Root<'_>) -> Result<(), Limit> {
    let number = |path: &str| root.number(path).map_err(Limit::Unknown);
    let max = number("proc/sys/kernel/pid_max")?.min(number("proc/sys/kernel/threads-max")?);
    let text = root.text("proc/loadavg").map_err(Limit::Unknown)?;
    let load: LoadAverage = procfs::FromRead::from_read(text.as_bytes())
        .map_err(|error| Limit::Unknown(format!("/proc/loadavg: {error}")))?;
    pids(u64::from(load.max), max, "the host's")
}

fn group_pids(root: Root<'_>, group: &Group) -> Result<(), Limit> {
    let Ok(max) = root.number(group.path.join("pids.max")) else {
        return Ok(());
    };
    let used = root.number(group.path.join("pids.current")).map_err(Limit::Unknown)?;
    pids(used, max, &format!("control group {}", group.path.display()))
}

fn pids(used: u64, max: u64, scope: &str) -> Result<(), Limit> {
    let kept = PIDS_KEPT.min(max / 4);
    if used + kept > max {
        return Err(Limit::Pids { used, max, scope: scope.to_owned() });
    }
    Ok(())
}
