//! The life of an instance in phases, and whether they add up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::group::{CellData, TrialId};
use super::order::{Interval, Sorted, median, median_interval};
use crate::record::{Mark, Metric};

/// How far the phases of a trial may differ from its total, in nanoseconds.
/// All marks come from one clock as whole nanoseconds, so that a difference
/// can only be a mistake in book-keeping.
pub const TOLERANCE_NS: f64 = 1_000.0;

/// One phase of a cell, in medians over its complete trials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// The mark at which it begins.
    pub from: Mark,
    /// The mark at which it ends.
    pub to: Mark,
    /// What happens in it, in a word or two.
    pub name: String,
    /// Median time of its beginning, in nanoseconds since `request`.
    pub start: f64,
    /// Median time of its end, in nanoseconds since `request`.
    pub end: f64,
    /// Median length in nanoseconds. Medians of the phases need not add up to
    /// the median of the total; within each trial they do.
    pub median: f64,
    /// 95 % interval of the median length, from six trials on.
    pub interval: Option<Interval>,
    /// Trials.
    pub n: usize,
}

/// Whether the marks of all trials are in order and the phases add up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimelineCheck {
    /// Trials with start-up marks.
    pub trials: usize,
    /// Trials whose marks are not in the order of time, or whose phases miss
    /// the total by more than the tolerance.
    pub broken: usize,
    /// The first of those, in words.
    pub first_broken: Option<String>,
    /// [`TOLERANCE_NS`].
    pub tolerance_ns: f64,
    /// The largest difference between the sum of a trial's phases and its
    /// total; absent without trials.
    pub worst_residue_ns: Option<f64>,
}

/// The marks of one trial, in nanoseconds since `request`.
///
/// Where the harness decided when to stop, the time the instance was left idle
/// is no cost of its backend and left out: `stop` stands right behind the last
/// mark of the start, and the marks of the end follow from there.
#[derive(Clone, Debug)]
pub(crate) struct Marks {
    at: BTreeMap<Mark, f64>,
    /// Time of the last mark as its metric has it, idle time left out.
    total: f64,
}

/// The timeline of each trial of a cell; empty without start-up marks.
pub(crate) fn trials(cell: &CellData<'_>) -> BTreeMap<TrialId, Marks> {
    let mut trials: BTreeMap<TrialId, Marks> = BTreeMap::new();
    for mark in Mark::ALL {
        for (id, value) in cell.values(Metric::Startup(mark)) {
            let at = BTreeMap::from([(Mark::Request, 0.0)]);
            let marks = trials.entry(*id).or_insert(Marks { at, total: 0.0 });
            marks.at.insert(mark, *value);
            marks.total = *value;
        }
    }
    for mark in [Mark::Exited, Mark::Removed, Mark::Gone] {
        for (id, value) in cell.values(Metric::Stop(mark)) {
            if let Some(marks) = trials.get_mut(id) {
                marks.stopped(mark, *value);
            }
        }
    }
    trials
}

impl Marks {
    /// Adds a mark that was timed from `stop`.
    fn stopped(&mut self, mark: Mark, since_stop: f64) {
        let started = self.at.range(..Mark::Stop).next_back().map_or(0.0, |(_, at)| *at);
        self.at.insert(Mark::Stop, started);
        self.at.insert(mark, started + since_stop);
        self.total = started + since_stop;
    }

    /// Lengths of the phases between marks that are present.
    fn phases(&self) -> impl Iterator<Item = (Mark, Mark, f64)> + '_ {
        self.at.iter().zip(self.at.iter().skip(1)).map(|((from, a), (to, b))| (*from, *to, b - a))
    }

    /// Whether the instance was followed to its end, as far as that can be
    /// seen: without privileges `gone` cannot.
    fn is_complete(&self) -> bool {
        self.at.contains_key(&Mark::Gone) || self.at.contains_key(&Mark::Removed)
    }

    /// Whether anything was left to wait for behind `removed`. What has no
    /// network of its own is gone with its cgroup, by one stamp for both marks:
    /// that is no phase of no length, but none at all.
    fn has_network(&self) -> bool {
        self.at.get(&Mark::Removed) != self.at.get(&Mark::Gone)
    }

    /// How far the sum of all phases is from the total.
    fn residue(&self) -> f64 {
        let sum: f64 = self.phases().map(|(_, _, length)| length).sum();
        (sum - self.total).abs()
    }

    /// The first phase that runs backwards.
    fn backwards(&self) -> Option<String> {
        let (from, to, length) = self.phases().find(|(_, _, length)| *length < 0.0)?;
        Some(format!("`{to}` lies {} ns before `{from}`", -length))
    }
}

/// Checks every trial of every cell.
pub(crate) fn check(cells: &[(&CellData<'_>, BTreeMap<TrialId, Marks>)]) -> TimelineCheck {
    let mut check = TimelineCheck {
        trials: 0,
        broken: 0,
        first_broken: None,
        tolerance_ns: TOLERANCE_NS,
        worst_residue_ns: None,
    };
    for (cell, trials) in cells {
        for (id, marks) in trials {
            check.trials += 1;
            let residue = marks.residue();
            check.worst_residue_ns =
                Some(check.worst_residue_ns.map_or(residue, |worst| worst.max(residue)));
            let problem = marks.backwards().or_else(|| {
                (residue > TOLERANCE_NS).then(|| format!("phases miss the total by {residue} ns"))
            });
            if let Some(problem) = problem {
                check.broken += 1;
                check.first_broken.get_or_insert_with(|| {
                    format!("{}, round {}, trial {}: {problem}", cell.key, id.round, id.trial)
                });
            }
        }
    }
    check
}

/// Median phases over the trials that were followed to their end, between the
/// marks that all of them have.
pub(crate) fn phases(trials: &BTreeMap<TrialId, Marks>) -> Vec<Phase> {
    let complete: Vec<&Marks> = trials.values().filter(|marks| marks.is_complete()).collect();
    let shared: Vec<Mark> = Mark::ALL
        .into_iter()
        .filter(|mark| complete.iter().all(|marks| marks.at.contains_key(mark)))
        .filter(|mark| *mark != Mark::Gone || complete.iter().any(|marks| marks.has_network()))
        .collect();
    if complete.is_empty() {
        return Vec::new();
    }
    let sorted = |value: &dyn Fn(&Marks) -> f64| {
        Sorted::new(complete.iter().map(|marks| value(marks)).collect())
    };
    shared
        .windows(2)
        .map(|pair| (pair[0], pair[1]))
        .filter(|(_, to)| *to != Mark::Stop)
        .filter_map(|(from, to)| {
            let lengths = sorted(&|marks| marks.at[&to] - marks.at[&from]);
            Some(Phase {
                from,
                to,
                name: phase_name(from, to),
                start: median(&sorted(&|marks| marks.at[&from]))?,
                end: median(&sorted(&|marks| marks.at[&to]))?,
                median: median(&lengths)?,
                interval: median_interval(&lengths),
                n: lengths.len(),
            })
        })
        .collect()
}

/// What happens between two marks.
fn phase_name(from: Mark, to: Mark) -> String {
    let name = match (from, to) {
        (Mark::Request, Mark::Cgroup) => "cgroup",
        (Mark::Request | Mark::Cgroup, Mark::Cloned) => "clone",
        (Mark::Cloned, Mark::SetUp) => "set-up",
        (Mark::SetUp, Mark::Spawned) => "exec",
        (Mark::Request, Mark::Spawned) => "spawn",
        (Mark::Spawned, Mark::Init) => "exec to init",
        (Mark::Spawned, Mark::VmmReady) => "VMM",
        (Mark::SetUp, Mark::KvmOpened) => "open",
        (Mark::KvmOpened, Mark::VmCreated) => "create VM",
        (Mark::VmCreated, Mark::VmMemory) => "memory",
        (Mark::VmMemory, Mark::VcpuCreated) => "vCPU",
        (Mark::VcpuCreated, Mark::VmmReady) => "registers",
        (Mark::VmmReady, Mark::Resumed) => "restore",
        (Mark::Resumed, Mark::Ready) => "first answer",
        (Mark::VmmReady, Mark::Kernel) => "firmware + load",
        (Mark::Spawned, Mark::Kernel) => "VMM + firmware",
        (Mark::VmmReady, Mark::Init) => "firmware + kernel",
        (Mark::VmmReady, Mark::Firmware) => "machine",
        (Mark::Firmware, _) => "firmware",
        (Mark::Decompress, _) => "decompression",
        (Mark::KernelEntry, Mark::StartKernel) => "kernel entry",
        (Mark::StartKernel | Mark::KernelEntry, Mark::Kernel) => "early kernel",
        (Mark::Kernel, Mark::PopulateRootfs | Mark::RunInit) => "kernel",
        (Mark::PopulateRootfs, Mark::RunInit) => "root file system + drivers",
        (Mark::RunInit, Mark::Init) => "exec of init",
        (Mark::Kernel, Mark::Init) => "kernel",
        (Mark::Init, Mark::Ready) => "init to ready",
        (Mark::Ready, Mark::Exited) => "run + exit",
        (Mark::Stop, Mark::Exited) => "exit",
        (Mark::Exited, Mark::Removed | Mark::Gone) => "cleanup",
        (Mark::Removed, Mark::Gone) => "network cleanup",
        _ => return format!("{from} to {to}"),
    };
    name.to_owned()
}
