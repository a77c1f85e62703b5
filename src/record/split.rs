//! The kinds that some metrics are split into.

use crate::units::Unit;

/// What a memory cgroup is charged for. The kinds are disjoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Charge {
    /// Memory of processes that belongs to no file.
    Anon,
    /// Page cache, in-memory file systems and shared memory among it.
    File,
    /// The kernel's own: slab objects, stacks, page tables and the like.
    Kernel,
    /// What the counter holds beyond those: charged in advance, 64 pages at a
    /// time for each processor (`MEMCG_CHARGE_BATCH` in mm/memcontrol.c), and
    /// not used yet.
    Advance,
}

impl Charge {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 4] = [Self::Anon, Self::File, Self::Kernel, Self::Advance];

    /// The name used in metric names.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anon => "anon",
            Self::File => "file",
            Self::Kernel => "kernel",
            Self::Advance => "advance",
        }
    }
}

/// A part of the host's kernel memory (proc_meminfo(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KernelPart {
    /// Slab objects, reclaimable ones among them (`Slab`).
    Slab,
    /// Kernel stacks (`KernelStack`).
    Stacks,
    /// Page tables, those of guests among them (`PageTables`, `SecPageTables`).
    PageTables,
    /// Memory of which each processor has its own (`Percpu`).
    Percpu,
}

impl KernelPart {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 4] = [Self::Slab, Self::Stacks, Self::PageTables, Self::Percpu];

    /// The name used in metric names.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slab => "slab",
            Self::Stacks => "stacks",
            Self::PageTables => "page_tables",
            Self::Percpu => "percpu",
        }
    }
}

/// When a machine's guest memory is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Moment {
    /// What the guest was given.
    Configured,
    /// Resident once it has booted and idles.
    Booted,
    /// Resident while the workload holds its memory.
    Worked,
    /// Resident after the workload has given it back.
    Returned,
}

impl Moment {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 4] = [Self::Configured, Self::Booted, Self::Worked, Self::Returned];

    /// The name used in metric names.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Booted => "booted",
            Self::Worked => "worked",
            Self::Returned => "returned",
        }
    }
}

/// What the whole host has of something at a step of a ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostCount {
    /// Processes and threads.
    Pids,
    /// Open file descriptions (`/proc/sys/fs/file-nr`).
    Files,
    /// Control groups of the memory controller, dying ones among them.
    Cgroups,
    /// Network namespaces of the processes that we may look into.
    Netns,
    /// Share of the last ten seconds in which something waited for a processor,
    /// in per cent (`some avg10` of `/proc/pressure/cpu`).
    CpuPressure,
    /// Share of the last ten seconds in which everything waited for memory, in
    /// per cent (`full avg10` of `/proc/pressure/memory`).
    MemoryPressure,
}

impl HostCount {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 6] = [
        Self::Pids,
        Self::Files,
        Self::Cgroups,
        Self::Netns,
        Self::CpuPressure,
        Self::MemoryPressure,
    ];

    /// The name used in metric names.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pids => "pids",
            Self::Files => "fds",
            Self::Cgroups => "cgroups",
            Self::Netns => "netns",
            Self::CpuPressure => "pressure.cpu",
            Self::MemoryPressure => "pressure.memory",
        }
    }
}

/// Starts and stops among many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Throughput {
    /// From request to ready of the next instance; step: how many were running.
    Start,
    /// From stop to the end of what it had; step: how many others were running.
    Stop,
    /// The end of all that were running, one after the other; step: how many.
    Destroy,
    /// Starts per second; step: how many workers start and stop at once.
    FlightStarts,
    /// Stops per second; step: how many workers start and stop at once.
    FlightStops,
    /// From request to ready; step: how many workers start and stop at once.
    FlightReady,
    /// From the moment at which a start was due to ready; step: arrivals per
    /// second.
    OpenReady,
    /// From the moment at which a start was due to its request; step: arrivals
    /// per second.
    OpenLate,
}

impl Throughput {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 8] = [
        Self::Start,
        Self::Stop,
        Self::Destroy,
        Self::FlightStarts,
        Self::FlightStops,
        Self::FlightReady,
        Self::OpenReady,
        Self::OpenLate,
    ];

    /// The name used in metric names.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Destroy => "destroy",
            Self::FlightStarts => "flight.starts",
            Self::FlightStops => "flight.stops",
            Self::FlightReady => "flight.ready",
            Self::OpenReady => "open.ready",
            Self::OpenLate => "open.late",
        }
    }

    /// The unit of its values.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Self::Start
            | Self::Stop
            | Self::Destroy
            | Self::FlightReady
            | Self::OpenReady
            | Self::OpenLate => Unit::Nanoseconds,
            Self::FlightStarts | Self::FlightStops => Unit::Count,
        }
    }
}

/// What merging equal pages gains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Merging {
    /// Proportional set size of all instances before; `detail` says how many.
    Before,
    /// The same once merging no longer finds anything.
    After,
    /// Memory that is mapped and not there: growth of `pages_sharing`.
    Saved,
    /// How long the kernel was given to merge.
    Took,
}

impl Merging {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 4] = [Self::Before, Self::After, Self::Saved, Self::Took];

    /// The name used in metric names.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::Saved => "saved",
            Self::Took => "took",
        }
    }

    /// The unit of its values.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Self::Before | Self::After | Self::Saved => Unit::Bytes,
            Self::Took => Unit::Nanoseconds,
        }
    }
}
