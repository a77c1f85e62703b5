//! What an instance may use at most.

use std::collections::{BTreeMap, BTreeSet};

use super::{Controller, DeviceRule};

/// The value that lifts a limit, as -1 does in a spec.
pub const UNLIMITED: u64 = u64::MAX;

/// CPU time per period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuQuota {
    /// Microseconds of CPU time in each period, on all CPUs together, or
    /// [`UNLIMITED`].
    pub quota_us: u64,
    /// Length of a period in microseconds; the kernel takes 1000 to 1000000.
    pub period_us: u64,
}

/// CPU time of real-time tasks, on version 1 where the kernel has it
/// (`CONFIG_RT_GROUP_SCHED`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Realtime {
    /// Microseconds in each period; -1 lifts the limit.
    pub runtime_us: Option<i64>,
    /// Length of a period in microseconds.
    pub period_us: Option<u64>,
}

/// Number of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockDevice {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl std::fmt::Display for BlockDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// What a throttle counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ThrottleKind {
    /// Bytes read per second.
    ReadBytes,
    /// Bytes written per second.
    WriteBytes,
    /// Reads per second.
    Reads,
    /// Writes per second.
    Writes,
}

/// The most that may be done to one block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// The device.
    pub device: BlockDevice,
    /// What is counted.
    pub kind: ThrottleKind,
    /// How many per second; 0 lifts the limit, as in the specification's
    /// throttles of version 1.
    pub rate: u64,
}

/// Shares and limits of block devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockIo {
    /// Share under competition, 10 to 1000.
    pub weight: Option<u16>,
    /// The same for single devices.
    pub device_weights: Vec<(BlockDevice, u16)>,
    /// Limits.
    pub throttles: Vec<Throttle>,
}

/// What an instance may use at most: the OCI runtime specification's
/// `linux.resources` in units of its own
/// (<https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups>).
///
/// `None` leaves a limit as it is, which in a new group is unlimited;
/// [`UNLIMITED`] lifts it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory that are taken away last. Version 1:
    /// `memory.soft_limit_in_bytes`, version 2: `memory.low`.
    pub memory_reservation: Option<u64>,
    /// Bytes of swap, besides memory. Needs `memory` on version 1, where
    /// the kernel limits the sum.
    pub swap: Option<u64>,
    /// How readily memory is swapped out, 0 to 100. Version 1 only.
    pub swappiness: Option<u64>,
    /// Lets processes without memory wait instead of killing one. Version 1
    /// only; `Some(false)` is what version 2 does anyway.
    pub oom_kill_disable: Option<bool>,
    /// Refuses an update to less memory than is in use, where the kernel
    /// would kill to get it down.
    pub memory_check: bool,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// CPU time.
    pub cpu_quota: Option<CpuQuota>,
    /// Microseconds of unused CPU time that may be spent later on top of the
    /// quota.
    pub cpu_burst_us: Option<u64>,
    /// Share of CPU time under competition, 1 to 10000; the default is 100.
    pub cpu_weight: Option<u64>,
    /// The same in version 1's unit, 2 to 262144; the default is 1024. Counts
    /// when `cpu_weight` is not given.
    pub cpu_shares: Option<u64>,
    /// 1 runs only when nobody else wants the CPU, 0 is the default.
    pub cpu_idle: Option<i64>,
    /// Real-time tasks. Version 1 only.
    pub realtime: Realtime,
    /// CPUs that may be used, as `0-3,7`.
    pub cpus: Option<String>,
    /// Memory nodes that may be used.
    pub mems: Option<String>,
    /// Block devices.
    pub block_io: BlockIo,
    /// Bytes of huge pages by their size as the kernel writes it (`2MB`).
    pub hugepages: BTreeMap<String, u64>,
    /// Which device nodes may be used: the last rule that fits decides, and
    /// where none does the device may be used.
    pub devices: Vec<DeviceRule>,
    /// Files of version 2 and what is written to them, after all others.
    pub unified: BTreeMap<String, String>,
}

impl Limits {
    /// Whether any limit belongs to this controller. Lifting a limit needs no
    /// controller: without one there is none.
    #[must_use]
    pub fn wants(&self, controller: Controller) -> bool {
        let limited = |value: Option<u64>| value.is_some_and(|value| value != UNLIMITED);
        let own = match controller {
            Controller::Memory => {
                [self.memory, self.memory_reservation, self.swap].into_iter().any(limited)
                    || self.swappiness.is_some()
                    || self.oom_kill_disable == Some(true)
            }
            Controller::Pids => limited(self.pids),
            Controller::Cpu => {
                self.cpu_quota.is_some_and(|quota| quota.quota_us != UNLIMITED)
                    || self.cpu_weight.or(self.cpu_shares).is_some()
                    || self.cpu_idle.is_some()
                    || self.cpu_burst_us.is_some()
                    || self.realtime != Realtime::default()
            }
            Controller::Cpuset => self.cpus.is_some() || self.mems.is_some(),
            Controller::Io => self.block_io != BlockIo::default(),
            Controller::Hugetlb => self.hugepages.values().any(|bytes| *bytes != UNLIMITED),
            Controller::Devices => !self.devices.is_empty(),
            Controller::Cpuacct | Controller::Freezer => false,
        };
        own || self.unified_of(controller).next().is_some()
    }

    /// The controllers that these limits need.
    #[must_use]
    pub fn controllers(&self) -> BTreeSet<Controller> {
        Controller::ALL.into_iter().filter(|controller| self.wants(*controller)).collect()
    }

    /// Raw files of version 2 that belong to a controller.
    pub(super) fn unified_of(&self, controller: Controller) -> impl Iterator<Item = (&str, &str)> {
        self.unified
            .iter()
            .filter(move |(file, _)| Controller::of_file(file) == Some(controller))
            .map(|(file, value)| (file.as_str(), value.as_str()))
    }
}
