//! Whether what one more instance costs is the same in two runs: slope by
//! slope, by their intervals.

use serde::Serialize;

use super::across::RunRef;
use super::ledgers::resolved;
use super::slope::Line;
use super::summary::{CellSummary, Summary};
use crate::record::{CellKey, Ledger};

/// Bytes by which two intervals may miss each other and still count as
/// overlapping: ledgers count whole pages, and a slope whose points all lie on
/// one line has an interval without any width.
pub const GRAIN: f64 = 4096.0;

/// What two runs say of one slope.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Repeats {
    /// The intervals overlap.
    Yes,
    /// They do not.
    No {
        /// Bytes between them.
        gap: f64,
    },
    /// One of the runs has no interval.
    Unknown {
        /// Which, and why.
        reason: String,
    },
}

/// One slope in two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RepeatedSlope {
    /// The cell.
    pub cell: CellKey,
    /// By which ledger.
    pub ledger: Ledger,
    /// The line of the first run, bytes over instances.
    pub base: Option<Line>,
    /// The line of the second run.
    pub new: Option<Line>,
    /// Whether they say the same.
    pub repeats: Repeats,
}

/// Every slope that one of two runs has, in the order of the first run's plan.
#[must_use]
pub fn repeated_slopes(base: RunRef<'_>, new: RunRef<'_>) -> Vec<RepeatedSlope> {
    let build = |run: RunRef<'_>| Summary::build(run.manifest, run.samples);
    let (base, new) = (build(base), build(new));
    let find = |summary: &'_ Summary, key: &CellKey| {
        summary.cells.iter().find(|cell| cell.cell == *key).cloned()
    };
    let only_new = new.cells.iter().filter(|cell| find(&base, &cell.cell).is_none());
    let keys = base.cells.iter().chain(only_new).map(|cell| &cell.cell);
    keys.flat_map(|key| {
        let (base, new) = (find(&base, key), find(&new, key));
        Ledger::ALL.into_iter().filter_map(move |ledger| one(base.as_ref(), new.as_ref(), ledger))
    })
    .collect()
}

fn one(
    base: Option<&CellSummary>,
    new: Option<&CellSummary>,
    ledger: Ledger,
) -> Option<RepeatedSlope> {
    let has = |cell: &&CellSummary| cell.marginals.iter().any(|found| found.ledger == ledger);
    let cell = [base, new].into_iter().flatten().find(has)?.cell.clone();
    let line = |cell: Option<&CellSummary>| cell?.marginal(ledger).copied();
    let known = |cell, side| interval(cell, ledger).map_err(|reason| format!("{side}: {reason}"));
    let repeats = match (known(base, "base"), known(new, "new")) {
        (Ok(base), Ok(new)) => {
            let gap = (base.0 - new.1).max(new.0 - base.1);
            if gap <= GRAIN { Repeats::Yes } else { Repeats::No { gap } }
        }
        (Err(reason), _) | (_, Err(reason)) => Repeats::Unknown { reason },
    };
    Some(RepeatedSlope { cell, ledger, base: line(base), new: line(new), repeats })
}

/// Both ends of a slope's interval.
fn interval(cell: Option<&CellSummary>, ledger: Ledger) -> Result<(f64, f64), String> {
    let cell = cell.ok_or("the cell is not in its plan")?;
    let marginal = cell.marginals.iter().find(|found| found.ledger == ledger);
    let marginal = marginal.ok_or("nothing was read by this ledger")?;
    let line = marginal.line.ok_or_else(|| marginal.reason.clone().unwrap_or_default())?;
    if ledger == Ledger::Host && resolved(&cell.marginals, ledger).is_none() {
        return Err("lost in what others on the host did".to_owned());
    }
    let interval = line.interval.ok_or("an interval needs at least five points")?;
    Ok((interval.low, interval.high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Sample;
    use crate::stats::testing::{at_step, key, manifest};

    /// A ladder of one cell whose ledger grows by about `each` an instance.
    fn ladder(metric: &str, each: f64, wobble: f64, steps: &[u32]) -> Vec<Sample> {
        let cell = key("memory container pause");
        let signs = [1.0, -1.0, 0.5, -0.5, 0.0].into_iter().cycle();
        let value = |step: u32, sign: f64| 1e6 + f64::from(step) * each + sign * wobble;
        let rows = steps.iter().zip(signs);
        rows.map(|(step, sign)| at_step(&cell, 1, *step, metric, value(*step, sign))).collect()
    }

    fn verdicts(base: &[Sample], new: &[Sample]) -> Vec<(Ledger, Repeats)> {
        let manifest = manifest(&[key("memory container pause")], 1);
        let run = |samples| RunRef { manifest: &manifest, samples };
        let found = repeated_slopes(run(base), run(new));
        found.into_iter().map(|slope| (slope.ledger, slope.repeats)).collect()
    }

    const STEPS: [u32; 5] = [1, 2, 4, 8, 16];

    #[test]
    fn intervals_that_overlap_repeat_and_others_do_not() {
        let run = |each| ladder("memory.cgroup", each, 50_000.0, &STEPS);
        assert_eq!(verdicts(&run(1e6), &run(1.001e6)), [(Ledger::Cgroup, Repeats::Yes)]);
        let apart = verdicts(&run(1e6), &run(2e6));
        assert!(matches!(apart[..], [(Ledger::Cgroup, Repeats::No { gap })] if gap > 8e5));
        let exact = |each| ladder("memory.pss", each, 0.0, &STEPS);
        assert_eq!(verdicts(&exact(8192.0), &exact(12_288.0)), [(Ledger::Pss, Repeats::Yes)]);
        let apart = [(Ledger::Pss, Repeats::No { gap: 8192.0 })];
        assert_eq!(verdicts(&exact(8192.0), &exact(16_384.0)), apart);
    }

    #[test]
    fn without_an_interval_nothing_is_said() {
        let long = ladder("memory.pss", 1e6, 0.0, &STEPS);
        let short = ladder("memory.pss", 9e6, 0.0, &STEPS[..3]);
        let reason = |base: &[Sample], new: &[Sample]| match &verdicts(base, new)[..] {
            [(Ledger::Pss, Repeats::Unknown { reason })] => reason.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(&long, &short), "new: an interval needs at least five points");
        assert_eq!(reason(&[], &long), "base: nothing was read by this ledger");
        let lost = ladder("memory.host", 1e4, 1e6, &STEPS);
        let [(Ledger::Host, Repeats::Unknown { reason })] = &verdicts(&lost, &lost)[..] else {
            panic!("the host's ledger")
        };
        assert!(reason.contains("others on the host"), "{reason}");
    }
}
