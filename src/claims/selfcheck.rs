//! Known answers: work whose cost is known, compared with what was measured.

use serde::Serialize;

use crate::record::{CellKey, Experiment, Ledger, Mark, Metric, Outcome, Workload};
use crate::spec::param_value;
use crate::stats::{CellSummary, Summary};
use crate::units::{MIB, Unit};

/// What a second of CPU time takes at least at half a processor: the quota is
/// given in periods of 100 ms, and the last of twenty ends with its first half
/// (Documentation/scheduler/sched-bwc.rst).
const HALVED_LEAST: f64 = 1.95e9;
const HALVED_MOST: f64 = 2.0e9;

/// One instrument against a known answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// The arm, as in tables.
    pub arm: String,
    /// The instrument: what is measured by it, and of what.
    pub instrument: String,
    /// The answer in words.
    pub expected: String,
    /// What was measured, in words; absent when nothing was.
    pub measured: Option<String>,
    /// How far the measured value lies outside of what was expected, as a
    /// share of it; 0 inside.
    pub off: Option<f64>,
    /// The share that is allowed.
    pub allowed: f64,
    /// Whether the instrument is right.
    pub passed: bool,
    /// Why nothing was measured.
    pub reason: Option<String>,
}

/// A known answer: between two bounds, give or take a share.
struct Answer {
    unit: Unit,
    least: f64,
    most: f64,
    allowed: f64,
}

impl Answer {
    fn exactly(unit: Unit, value: f64, allowed: f64) -> Self {
        Self { unit, least: value, most: value, allowed }
    }

    /// At least this much; how much more is the neighbours' doing.
    fn at_least(unit: Unit, least: f64, allowed: f64) -> Self {
        Self { unit, least, most: f64::INFINITY, allowed }
    }

    fn words(&self) -> String {
        if self.most.is_infinite() {
            return format!("at least {}", self.unit.human(self.least));
        }
        let (least, most) = (self.unit.human(self.least), self.unit.human(self.most));
        let around = format!("within {} %", Unit::Count.human(100.0 * self.allowed));
        if least == most {
            format!("{least} {around}")
        } else {
            format!("{least} to {most} {around}")
        }
    }

    /// Compares a measured value.
    fn check(&self, arm: &str, instrument: String, measured: Result<f64, String>) -> Check {
        let (value, reason) = match measured {
            Ok(value) => (Some(value), None),
            Err(reason) => (None, Some(reason)),
        };
        let off = value.map(|value| {
            let outside = value - value.clamp(self.least, self.most);
            outside / if outside < 0.0 { self.least } else { self.most }
        });
        Check {
            arm: arm.to_owned(),
            instrument,
            expected: self.words(),
            measured: value.map(|value| self.unit.human(value)),
            off,
            allowed: self.allowed,
            passed: off.is_some_and(|off| off.abs() <= self.allowed),
            reason,
        }
    }
}

/// Every known answer of a run of the spec `selfcheck`.
#[must_use]
pub fn selfcheck(summary: &Summary) -> Vec<Check> {
    let mut checks = Vec::new();
    for cell in summary.cells.iter().filter(|cell| !cell.is_control()) {
        match (cell.cell.experiment, cell.cell.workload) {
            (Experiment::Startup, Workload::Sleep(ms)) => checks.push(asleep(cell, ms)),
            (Experiment::Startup, Workload::Spin(ms)) => checks.push(busy(cell, ms)),
            (Experiment::Startup, Workload::ExitWith(code)) => checks.push(ended(cell, code)),
            (Experiment::Memory, Workload::Touch(mib)) => {
                checks.extend(touched(summary, cell, mib));
            }
            _ => {}
        }
    }
    checks
}

/// From `init` to `ready`, in nanoseconds.
fn worked(cell: &CellSummary) -> Result<f64, String> {
    let work = cell.phases.iter().find(|phase| phase.from == Mark::Init && phase.to == Mark::Ready);
    work.map(|phase| phase.median).ok_or_else(|| cell.why_missing())
}

fn asleep(cell: &CellSummary, ms: u32) -> Check {
    // A timer never fires early; a guest's clock may be a little slow.
    let answer = Answer::exactly(Unit::Nanoseconds, f64::from(ms) * 1e6, 0.1);
    answer.check(&cell.label, format!("marks init to ready, asleep for {ms} ms"), worked(cell))
}

fn busy(cell: &CellSummary, ms: u32) -> Check {
    let amount = f64::from(ms) * 1e6;
    let half = param_value(&cell.cell, "cpus") == Some("0.5");
    let answer = if half {
        let second = amount / 1e9;
        let (least, most) = (HALVED_LEAST * second, HALVED_MOST * second);
        Answer { unit: Unit::Nanoseconds, least, most, allowed: 0.05 }
    } else {
        Answer::at_least(Unit::Nanoseconds, amount, 0.01)
    };
    let quota = if half { " at half a processor" } else { "" };
    let instrument = format!("marks init to ready, {ms} ms of CPU time{quota}");
    answer.check(&cell.label, instrument, worked(cell))
}

/// A trial whose code is not the one announced, or not the one asked for, has
/// failed; so a cell with values has the right one.
fn ended(cell: &CellSummary, code: u8) -> Check {
    let right = cell.outcome == Outcome::Ok && cell.failed == 0;
    let measured = if right { Ok(f64::from(code)) } else { Err(cell.why_missing()) };
    let answer = Answer::exactly(Unit::Count, f64::from(code), 0.0);
    answer.check(&cell.label, "exit code".to_owned(), measured)
}

/// What touching memory adds to each ledger.
fn touched(summary: &Summary, cell: &CellSummary, mib: u32) -> Vec<Check> {
    let idle = CellKey { workload: Workload::Pause, ..cell.cell.clone() };
    let idle = summary.cells.iter().find(|other| other.cell == idle);
    let answer = Answer::exactly(Unit::Bytes, (u64::from(mib) * MIB) as f64, 0.05);
    [Ledger::Pss, Ledger::Uss, Ledger::Rss, Ledger::Cgroup]
        .into_iter()
        .map(|ledger| {
            let metric = Metric::Memory(ledger);
            let value = |cell: &CellSummary| {
                cell.values(metric).map(|values| values.median).ok_or_else(|| {
                    let reasons = cell.metric(metric).map(|found| found.reasons.as_slice());
                    match reasons.and_then(<[_]>::first) {
                        Some(reason) => reason.text.clone(),
                        None => cell.why_missing(),
                    }
                })
            };
            let added = idle
                .ok_or_else(|| "the idle cell was not planned".to_owned())
                .and_then(|idle| Ok(value(cell)? - value(idle)?));
            let instrument = format!("{metric}, {mib} MiB touched above idle");
            answer.check(&cell.label, instrument, added)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::{key, manifest, ok};

    /// A run in which every instrument is right but for these factors.
    fn checks(sleep: f64, half: f64, memory: f64) -> Vec<Check> {
        let asleep = key("startup process sleep=100");
        let halved = key("startup container spin=1000 cpus=0.5");
        let (idle, touched) = (key("memory process pause"), key("memory process touch=64"));
        let mut samples = Vec::new();
        for round in 1..=3 {
            for (cell, work) in [(&asleep, 1e8 * sleep), (&halved, 1.97e9 * half)] {
                samples.push(ok(cell, round, "startup.init", 5e5));
                samples.push(ok(cell, round, "startup.ready", 5e5 + work));
                samples.push(ok(cell, round, "stop.exited", 1e5));
                samples.push(ok(cell, round, "stop.gone", 2e5));
            }
            let mib = 1_048_576.0;
            samples.push(ok(&idle, round, "memory.pss", mib));
            samples.push(ok(&touched, round, "memory.pss", mib + 64.0 * mib * memory));
        }
        let cells = [asleep, halved, idle, touched];
        selfcheck(&Summary::build(&manifest(&cells, 3), &samples))
    }

    fn passed(checks: &[Check]) -> Vec<bool> {
        let measured = checks.iter().filter(|check| check.measured.is_some());
        measured.map(|check| check.passed).collect()
    }

    #[test]
    fn right_instruments_pass() {
        let found = checks(1.01, 1.0, 1.0);
        assert_eq!(passed(&found), [true, true, true], "{found:?}");
        assert_eq!(found[1].off, Some(0.0), "inside its bounds");
    }

    #[test]
    fn each_wrong_one_is_named_with_how_far_it_is_off() {
        for (wrong, (sleep, half, memory)) in
            [(2.0, 1.0, 1.0), (1.0, 0.5, 1.0), (1.0, 1.0, 0.5)].into_iter().enumerate()
        {
            let found = checks(sleep, half, memory);
            let expected: Vec<bool> = (0..3).map(|index| index != wrong).collect();
            assert_eq!(passed(&found), expected, "{found:?}");
        }
        let late = checks(1.5, 1.0, 1.0);
        assert!((late[0].off.expect("measured") - 0.5).abs() < 1e-9);
    }

    #[test]
    fn what_was_not_measured_has_not_passed_and_says_why() {
        let found = checks(1.0, 1.0, 1.0);
        let missing: Vec<&Check> = found.iter().filter(|check| check.measured.is_none()).collect();
        assert_eq!(missing.len(), 3, "three ledgers without a reading");
        assert!(missing.iter().all(|check| !check.passed && check.reason.is_some()));
    }
}
