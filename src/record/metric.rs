//! Marks on the timeline, memory ledgers, and the names of metrics.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::split::{Charge, HostCount, KernelPart, Merging, Moment, Throughput};
use crate::units::Unit;

/// A point on the timeline of one instance, stamped by the harness on
/// `CLOCK_MONOTONIC`. The order of the variants is the order in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// Just before the first system call that creates anything for the instance.
    Request,
    /// Its cgroup is made; absent where that is no part of its technique.
    Cgroup,
    /// First instruction of its first process, within its namespaces.
    Cloned,
    /// The last set-up step is done; the program is about to be executed.
    SetUp,
    /// The creating call returned: the program is executed.
    Spawned,
    /// `/dev/kvm` is open; this and the next three marks are known of a
    /// machine of bare KVM only.
    KvmOpened,
    /// The machine is created.
    VmCreated,
    /// The machine has its memory, with the program in it.
    VmMemory,
    /// The machine has its processor.
    VcpuCreated,
    /// The virtual machine monitor answers on its control socket; without
    /// one, the machine is about to run.
    VmmReady,
    /// A guest that was saved before goes on; its kernel started long ago.
    Resumed,
    /// First instruction of the firmware; this and the next three marks, and
    /// the two behind `kernel`, are known of a traced machine only.
    Firmware,
    /// First instruction of the program that unpacks a compressed kernel.
    Decompress,
    /// First instruction of the kernel itself.
    KernelEntry,
    /// First instruction of the kernel's `start_kernel`.
    StartKernel,
    /// First sign of life of the guest kernel on its console; of a machine of
    /// bare KVM its guest's first exit.
    Kernel,
    /// The kernel begins to unpack its initial file system.
    PopulateRootfs,
    /// The kernel is about to execute the guest's first program.
    RunInit,
    /// First instruction of our own program inside the instance.
    Init,
    /// The workload can serve, or has done its work.
    Ready,
    /// Stop was requested.
    Stop,
    /// The last process of the instance was reaped.
    Exited,
    /// Its cgroup is removed; its mounts went with its last process.
    Removed,
    /// Nothing of the instance is left on the host: the kernel has also
    /// destroyed its network namespace and the interfaces in it.
    Gone,
}

impl Mark {
    /// All marks in the order of time.
    pub const ALL: [Self; 24] = [
        Self::Request,
        Self::Cgroup,
        Self::Cloned,
        Self::SetUp,
        Self::Spawned,
        Self::KvmOpened,
        Self::VmCreated,
        Self::VmMemory,
        Self::VcpuCreated,
        Self::VmmReady,
        Self::Resumed,
        Self::Firmware,
        Self::Decompress,
        Self::KernelEntry,
        Self::StartKernel,
        Self::Kernel,
        Self::PopulateRootfs,
        Self::RunInit,
        Self::Init,
        Self::Ready,
        Self::Stop,
        Self::Exited,
        Self::Removed,
        Self::Gone,
    ];

    /// The name used in metric names and files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Cgroup => "cgroup",
            Self::Cloned => "cloned",
            Self::SetUp => "set_up",
            Self::Spawned => "spawned",
            Self::KvmOpened => "kvm_opened",
            Self::VmCreated => "vm_created",
            Self::VmMemory => "vm_memory",
            Self::VcpuCreated => "vcpu_created",
            Self::VmmReady => "vmm_ready",
            Self::Resumed => "resumed",
            Self::Firmware => "firmware",
            Self::Decompress => "decompress",
            Self::KernelEntry => "kernel_entry",
            Self::StartKernel => "start_kernel",
            Self::Kernel => "kernel",
            Self::PopulateRootfs => "populate_rootfs",
            Self::RunInit => "run_init",
            Self::Init => "init",
            Self::Ready => "ready",
            Self::Stop => "stop",
            Self::Exited => "exited",
            Self::Removed => "removed",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One way to count memory. Two ledgers are never added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ledger {
    /// Proportional set size: shared pages divided by their mappers.
    Pss,
    /// Unique set size: private pages only.
    Uss,
    /// Resident set size: every mapped page once per process.
    Rss,
    /// What the instance's memory cgroup is charged.
    Cgroup,
    /// The highest value that the cgroup was charged.
    Peak,
    /// The highest resident set of each process since it executed its program
    /// (`VmHWM`), added up.
    Hwm,
    /// The host's own ledger: memory in use less reclaimable caches.
    Host,
}

impl Ledger {
    /// All ledgers.
    pub const ALL: [Self; 7] =
        [Self::Pss, Self::Uss, Self::Rss, Self::Cgroup, Self::Peak, Self::Hwm, Self::Host];

    /// The name used in metric names and files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pss => "pss",
            Self::Uss => "uss",
            Self::Rss => "rss",
            Self::Cgroup => "cgroup",
            Self::Peak => "peak",
            Self::Hwm => "hwm",
            Self::Host => "host",
        }
    }
}

/// A part of the memory of a virtual machine monitor's processes. The parts
/// are disjoint and together all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The guest's memory, as far as it was ever touched and not given back.
    GuestRam,
    /// Buffers of translated code: memory that is both written and executed.
    Translation,
    /// Heap, stacks and other memory of its own.
    Vmm,
    /// Its program and libraries, which other instances share.
    Text,
    /// Files that the guest is made from: kernel, initial file system.
    Image,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 5] =
        [Self::GuestRam, Self::Translation, Self::Vmm, Self::Text, Self::Image];

    /// The name used in metric names and files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GuestRam => "guest_ram",
            Self::Translation => "translation",
            Self::Vmm => "vmm",
            Self::Text => "text",
            Self::Image => "image",
        }
    }
}

/// What a sample is a value of. [`fmt::Display`] gives the name in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// `startup.<mark>`: nanoseconds since `request`.
    Startup(Mark),
    /// `stop.<mark>`: nanoseconds since `stop`.
    Stop(Mark),
    /// `pool.refill`: nanoseconds that it took to make, beforehand, what an
    /// instance took from the pool.
    PoolRefill,
    /// `memory.<ledger>`: bytes of one idle instance (in a density ladder:
    /// bytes of all live instances together, see the sample's step).
    Memory(Ledger),
    /// `memory.marginal.<ledger>`: bytes that one more instance costs, the
    /// slope over a ladder.
    Marginal(Ledger),
    /// `memory.part.<part>.<ledger>`: bytes of one part of an idle virtual
    /// machine, by PSS or RSS.
    Part(Part, Ledger),
    /// `memory.daemon.<ledger>`: bytes of the daemons of a system, which all
    /// its instances share, while the instance is idle. They are in no other
    /// ledger of it.
    Daemon(Ledger),
    /// `memory.touched.<ledger>`: bytes of an instance that holds the memory
    /// of its work, before it gives it back.
    Touched(Ledger),
    /// `memory.minimum`: the smallest memory, in bytes, with which an instance
    /// became ready: a machine's memory, or the limit of a container's cgroup.
    Minimum,
    /// `idle.cpu`: the processors that one instance kept busy while nothing
    /// was asked of it, all threads of its processes together.
    IdleCpu,
    /// `density.instances`: the highest number alive at once, all of them
    /// answering.
    DensityInstances,
    /// `density.start`: `startup.ready` of the newest instance of a step.
    DensityStart,
    /// `http.answer`: nanoseconds from sending a request to its whole answer.
    HttpAnswer,
    /// `memory.charge.<kind>`: bytes of one kind that the memory cgroup is
    /// charged; the kinds are disjoint and make up `memory.cgroup`.
    Charge(Charge),
    /// `memory.file.cached`: bytes that the host's page cache holds of the file
    /// from which all instances of a cell read, once for all of them.
    FileCached,
    /// `memory.kernel.<part>`: growth of one part of the host's kernel memory
    /// since the trial began, in bytes.
    Kernel(KernelPart),
    /// `memory.guest.<moment>`: bytes of a machine's guest memory.
    Guest(Moment),
    /// `density.<count>`: what the host has of it at a step of a ladder.
    Host(HostCount),
    /// `scale.<what>`: starts and stops among many, see the sample's step.
    Scale(Throughput),
    /// `ksm.<what>`: what merging equal pages of several instances gains.
    Merging(Merging),
    /// `settle.wait`: nanoseconds from the end of a trial until the kernel
    /// had freed its control groups, or until nobody waited any longer.
    SettleWait,
}

impl Metric {
    /// The unit of every value of this metric.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Self::Startup(_)
            | Self::Stop(_)
            | Self::PoolRefill
            | Self::DensityStart
            | Self::HttpAnswer
            | Self::SettleWait => Unit::Nanoseconds,
            Self::Memory(_)
            | Self::Marginal(_)
            | Self::Part(..)
            | Self::Daemon(_)
            | Self::Touched(_)
            | Self::Charge(_)
            | Self::FileCached
            | Self::Kernel(_)
            | Self::Guest(_)
            | Self::Minimum => Unit::Bytes,
            Self::DensityInstances | Self::Host(_) => Unit::Count,
            Self::Scale(what) => what.unit(),
            Self::Merging(what) => what.unit(),
            Self::IdleCpu => Unit::Processors,
        }
    }

    /// Every metric there is, in the order in which reports list them.
    pub fn all() -> impl Iterator<Item = Self> {
        let ends = [Mark::Exited, Mark::Removed, Mark::Gone];
        Mark::ALL
            .into_iter()
            .filter(|mark| !matches!(mark, Mark::Request | Mark::Stop))
            .map(Self::Startup)
            .chain(ends.into_iter().map(Self::Stop))
            .chain([Self::PoolRefill, Self::HttpAnswer])
            .chain(Ledger::ALL.into_iter().map(Self::Memory))
            .chain(Ledger::ALL.into_iter().map(Self::Marginal))
            .chain(
                Part::ALL.into_iter().flat_map(|part| {
                    [Ledger::Pss, Ledger::Rss].map(|ledger| Self::Part(part, ledger))
                }),
            )
            .chain([Ledger::Pss, Ledger::Uss, Ledger::Rss].into_iter().map(Self::Daemon))
            .chain(Ledger::ALL.into_iter().map(Self::Touched))
            .chain(Charge::ALL.into_iter().map(Self::Charge))
            .chain([Self::FileCached])
            .chain(KernelPart::ALL.into_iter().map(Self::Kernel))
            .chain(Moment::ALL.into_iter().map(Self::Guest))
            .chain([Self::Minimum, Self::IdleCpu])
            .chain([Self::DensityInstances, Self::DensityStart])
            .chain(HostCount::ALL.into_iter().map(Self::Host))
            .chain(Throughput::ALL.into_iter().map(Self::Scale))
            .chain(Merging::ALL.into_iter().map(Self::Merging))
            .chain([Self::SettleWait])
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Startup(mark) => write!(f, "startup.{mark}"),
            Self::Stop(mark) => write!(f, "stop.{mark}"),
            Self::PoolRefill => f.write_str("pool.refill"),
            Self::Memory(ledger) => write!(f, "memory.{}", ledger.as_str()),
            Self::Marginal(ledger) => write!(f, "memory.marginal.{}", ledger.as_str()),
            Self::Part(part, ledger) => {
                write!(f, "memory.part.{}.{}", part.as_str(), ledger.as_str())
            }
            Self::Daemon(ledger) => write!(f, "memory.daemon.{}", ledger.as_str()),
            Self::Touched(ledger) => write!(f, "memory.touched.{}", ledger.as_str()),
            Self::Minimum => f.write_str("memory.minimum"),
            Self::IdleCpu => f.write_str("idle.cpu"),
            Self::DensityInstances => f.write_str("density.instances"),
            Self::DensityStart => f.write_str("density.start"),
            Self::HttpAnswer => f.write_str("http.answer"),
            Self::Charge(charge) => write!(f, "memory.charge.{}", charge.as_str()),
            Self::FileCached => f.write_str("memory.file.cached"),
            Self::Kernel(part) => write!(f, "memory.kernel.{}", part.as_str()),
            Self::Guest(moment) => write!(f, "memory.guest.{}", moment.as_str()),
            Self::Host(count) => write!(f, "density.{}", count.as_str()),
            Self::Scale(what) => write!(f, "scale.{}", what.as_str()),
            Self::Merging(what) => write!(f, "ksm.{}", what.as_str()),
            Self::SettleWait => f.write_str("settle.wait"),
        }
    }
}

/// A metric name that this version does not know.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown metric `{0}`")]
pub struct MetricError(String);

impl FromStr for Metric {
    type Err = MetricError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::all()
            .find(|metric| metric.to_string() == text)
            .ok_or_else(|| MetricError(text.to_owned()))
    }
}

impl Serialize for Metric {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_reads_back() {
        for metric in Metric::all() {
            assert_eq!(metric.to_string().parse(), Ok(metric));
        }
        assert_eq!("startup.lunch".parse::<Metric>(), Err(MetricError("startup.lunch".to_owned())));
    }
}
