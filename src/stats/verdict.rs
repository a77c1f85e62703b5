//! Comparisons between cells and what may be said about them.
//!
//! A difference is named only when it is certain, larger than the noise that
//! the null backend shows against itself, and significant among all
//! comparisons of the run. Everything else is said to be not shown.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::compare::{
    Difference, Pair, Ratio, difference, holm, permutation_p, ratio_of_medians, rounds_needed,
};
use super::group::{CellData, TrialId};
use super::order::{Sorted, median};
use crate::record::{BackendName, CellKey, Experiment, Ledger, Mark, Metric, Params, Workload};
use crate::units::Unit;

/// Adjusted p-values must lie below this.
pub const LEVEL: f64 = 0.01;
/// No difference below 2 % is named, however certain.
pub const LEAST_RATIO: f64 = 1.02;
/// A cell of whose trials a larger share failed is compared with nothing.
pub const MAX_FAILED_SHARE: f64 = 0.1;

/// The null backend against itself under a second label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// Experiment of both cells.
    pub experiment: Experiment,
    /// Workload of both cells.
    pub workload: Workload,
    /// The metric compared.
    pub metric: Metric,
    /// Rounds in which both gave a value.
    pub pairs: usize,
    /// Ratio of their medians.
    pub ratio: Option<Ratio>,
}

/// What may be said about a difference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Verdict {
    /// A shorter time.
    Faster,
    /// A longer time.
    Slower,
    /// Fewer bytes.
    Less,
    /// More bytes.
    More,
    /// Nothing that the rules allow to be called a difference.
    NoDifference {
        /// The smallest ratio, above one, that could have been shown.
        smallest: f64,
    },
    /// No verdict is given.
    Withheld {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::Less => "less",
            Self::More => "more",
            Self::NoDifference { .. } => "no difference shown",
            Self::Withheld { .. } => "withheld",
        })
    }
}

/// One cell compared with another on one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The metric compared.
    pub metric: Metric,
    /// The cell that the verdict is about.
    pub subject: CellKey,
    /// What it is compared with.
    pub baseline: CellKey,
    /// Rounds in which both gave a value.
    pub pairs: usize,
    /// Ratio of medians over those rounds, absent without any.
    pub ratio: Option<Ratio>,
    /// The same difference in times and per cent.
    pub difference: Option<Difference>,
    /// p-value of the permutation test within rounds.
    pub p: Option<f64>,
    /// The same after Holm over all comparisons of this summary that have
    /// rounds enough to be tested at all.
    pub p_holm: Option<f64>,
    /// The A/A control of the same experiment and metric that the verdict
    /// relies on: that of the same workload, else the widest of the others.
    pub control: Option<Control>,
    /// What may be said.
    pub verdict: Verdict,
    /// The same in words.
    pub text: String,
}

/// Whether a cell is the null backend under its second label.
pub(crate) fn is_control(key: &CellKey) -> bool {
    key.backend == BackendName::Process && key.params.get("control") == Some("1")
}

/// Whether a cell is the null backend itself.
fn is_null(key: &CellKey) -> bool {
    key.backend == BackendName::Process && key.params == Params::default()
}

/// What is compared: metrics that mean the same for every backend, one for
/// each question, since every comparison shown weakens all others. `spawned`
/// is not one of them (a VMM is a program that has yet to begin by then), nor
/// are `init` and `exited`, which lie beside `ready` and `gone`; of the ledgers
/// those that count shared text once.
fn is_comparable(metric: Metric) -> bool {
    matches!(
        metric,
        Metric::Startup(Mark::Ready | Mark::Gone)
            | Metric::Stop(Mark::Gone)
            | Metric::HttpAnswer
            | Metric::Memory(Ledger::Pss | Ledger::Uss | Ledger::Cgroup)
    )
}

/// All controls, and all comparisons: every cell against the null backend and
/// every VM against the container, within an experiment and a workload, on
/// every metric that both have outside of density ladders.
pub(crate) fn compare(cells: &[CellData<'_>], seed: u64) -> (Vec<Control>, Vec<Comparison>) {
    let controls = controls(cells, seed);
    let mut comparisons = Vec::new();
    let mut failures = Vec::new();
    for subject in cells.iter().filter(|cell| !is_null(cell.key) && !is_control(cell.key)) {
        for baseline in baselines(cells, subject.key) {
            let invalid = too_many_failures(subject).or_else(|| too_many_failures(baseline));
            for metric in Metric::all().filter(|metric| is_comparable(*metric)) {
                if !subject.values(metric).is_empty() && !baseline.values(metric).is_empty() {
                    comparisons.push(one(subject, baseline, metric, &controls, seed));
                    failures.push(invalid.clone());
                }
            }
        }
    }
    judge_all(&mut comparisons, &failures);
    (controls, comparisons)
}

/// The null backend of the same experiment and workload, and for a VM the
/// plainest container.
fn baselines<'a>(cells: &'a [CellData<'a>], key: &CellKey) -> Vec<&'a CellData<'a>> {
    let same = |cell: &&CellData<'_>| {
        cell.key.experiment == key.experiment && cell.key.workload == key.workload
    };
    let null = cells.iter().filter(same).find(|cell| is_null(cell.key));
    let container = cells
        .iter()
        .filter(same)
        .filter(|cell| key.backend == BackendName::Vm && cell.key.backend == BackendName::Container)
        .min_by_key(|cell| (cell.key.params.0.len(), cell.key));
    null.into_iter().chain(container).collect()
}

fn controls(cells: &[CellData<'_>], seed: u64) -> Vec<Control> {
    let mut controls = Vec::new();
    for control in cells.iter().filter(|cell| is_control(cell.key)) {
        for null in baselines(cells, control.key) {
            for metric in Metric::all().filter(|metric| is_comparable(*metric)) {
                let pairs = paired(control.values(metric), null.values(metric));
                if !pairs.is_empty() {
                    controls.push(Control {
                        experiment: control.key.experiment,
                        workload: control.key.workload,
                        metric,
                        pairs: pairs.len(),
                        ratio: ratio_of_medians(&pairs, seed),
                    });
                }
            }
        }
    }
    controls
}

/// Values of the same round, side by side. Should a round hold several, their
/// median stands for it.
fn paired(subject: &[(TrialId, f64)], baseline: &[(TrialId, f64)]) -> Vec<Pair> {
    let by_round = |values: &[(TrialId, f64)]| {
        let mut rounds: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for (id, value) in values {
            rounds.entry(id.round).or_default().push(*value);
        }
        rounds
    };
    let mut other = by_round(baseline);
    by_round(subject)
        .into_iter()
        .filter_map(|(round, values)| {
            let baseline = median(&Sorted::new(other.remove(&round)?))?;
            Some((median(&Sorted::new(values))?, baseline))
        })
        .collect()
}

/// A comparison without its verdict.
fn one(
    subject: &CellData<'_>,
    baseline: &CellData<'_>,
    metric: Metric,
    controls: &[Control],
    seed: u64,
) -> Comparison {
    let pairs = paired(subject.values(metric), baseline.values(metric));
    let centre = |side: fn(&Pair) -> f64| median(&Sorted::new(pairs.iter().map(side).collect()));
    let key = subject.key;
    Comparison {
        metric,
        subject: key.clone(),
        baseline: baseline.key.clone(),
        pairs: pairs.len(),
        ratio: ratio_of_medians(&pairs, seed),
        difference: centre(|pair| pair.0)
            .zip(centre(|pair| pair.1))
            .and_then(|(subject, baseline)| difference(subject, baseline)),
        p: permutation_p(&pairs),
        p_holm: None,
        control: control_for(controls, key.experiment, key.workload, metric),
        verdict: Verdict::Withheld { reason: String::new() },
        text: String::new(),
    }
}

fn control_for(
    controls: &[Control],
    experiment: Experiment,
    workload: Workload,
    metric: Metric,
) -> Option<Control> {
    let width = |control: &&Control| control.ratio.and_then(|ratio| ratio.half_width());
    let fits =
        || controls.iter().filter(|found| found.experiment == experiment && found.metric == metric);
    fits()
        .find(|found| found.workload == workload)
        .or_else(|| {
            fits()
                .max_by(|a, b| width(a).partial_cmp(&width(b)).unwrap_or(std::cmp::Ordering::Equal))
        })
        .cloned()
}

fn too_many_failures(cell: &CellData<'_>) -> Option<String> {
    let share = cell.failed.len() as f64 / cell.tried.len().max(1) as f64;
    (share > MAX_FAILED_SHARE).then(|| {
        format!(
            "{} of {} trials of {} failed",
            cell.failed.len(),
            cell.tried.len(),
            cell.key.label()
        )
    })
}

/// Adjusts all p-values together and gives each comparison its verdict.
///
/// A comparison of so few rounds that no outcome at all could reach the level
/// is not tested and so costs the others nothing (Tarone, Biometrics 46, 1990;
/// with Holm's steps: Hommel and Krummenauer, Biometrical Journal 40, 1998).
fn judge_all(comparisons: &mut [Comparison], failures: &[Option<String>]) {
    let pairs: Vec<usize> = comparisons.iter().map(|comparison| comparison.pairs).collect();
    let needed = rounds_to_be_tested(&pairs);
    let tested: Vec<usize> = (0..pairs.len()).filter(|index| pairs[*index] >= needed).collect();
    let p: Vec<f64> = tested.iter().filter_map(|index| comparisons[*index].p).collect();
    for (index, adjusted) in tested.into_iter().zip(holm(&p)) {
        comparisons[index].p_holm = Some(adjusted);
    }
    for (comparison, failure) in comparisons.iter_mut().zip(failures) {
        comparison.verdict = match failure {
            Some(reason) => Verdict::Withheld { reason: reason.clone() },
            None => judge(comparison, rounds_needed(LEVEL, pairs.len())),
        };
        comparison.text = words(comparison);
    }
}

/// The fewest rounds with which a comparison is tested: the smallest k such
/// that at most k comparisons can reach the level divided by k says how many.
fn rounds_to_be_tested(pairs: &[usize]) -> usize {
    let able = |k: usize| pairs.iter().filter(|n| **n >= rounds_needed(LEVEL, k)).count();
    (1..=pairs.len()).find(|k| able(*k) <= *k).map_or(usize::MAX, |k| rounds_needed(LEVEL, k))
}

/// The verdict by the rules at the head of this module. With `enough` rounds
/// any comparison would be tested.
fn judge(comparison: &Comparison, enough: usize) -> Verdict {
    let withheld = |reason: &str| Verdict::Withheld { reason: reason.to_owned() };
    let Some(p) = comparison.p_holm else {
        let rounds = comparison.pairs;
        return withheld(&format!("{rounds} rounds are too few to be tested, {enough} would do"));
    };
    let Some(control) = &comparison.control else {
        return withheld("no A/A control of this metric was measured");
    };
    let Some(floor) = control.ratio.filter(|ratio| ratio.interval.is_some()) else {
        return withheld("the A/A control has too few rounds for an interval");
    };
    if floor.interval.is_some_and(|interval| interval.excludes(1.0)) {
        return withheld("the null backend differs from itself: the run was not stable enough");
    }
    let Some((ratio, interval)) = comparison.ratio.and_then(|ratio| Some((ratio, ratio.interval?)))
    else {
        return withheld("a median of zero has no ratio");
    };
    let noise = (2.0 * floor.half_width().unwrap_or(0.0)).max(LEAST_RATIO.ln());
    if interval.excludes(1.0) && ratio.ratio.ln().abs() > noise && p < LEVEL {
        return named(comparison.metric.unit(), ratio.ratio < 1.0);
    }
    let smallest = noise.max(ratio.half_width().unwrap_or(0.0)).exp();
    Verdict::NoDifference { smallest }
}

fn named(unit: Unit, smaller: bool) -> Verdict {
    match (unit, smaller) {
        (Unit::Nanoseconds, true) => Verdict::Faster,
        (Unit::Nanoseconds, false) => Verdict::Slower,
        (_, true) => Verdict::Less,
        (_, false) => Verdict::More,
    }
}

/// The verdict in words.
fn words(comparison: &Comparison) -> String {
    let verdict = &comparison.verdict;
    match (verdict, comparison.difference) {
        (Verdict::Withheld { reason }, _) => format!("withheld: {reason}"),
        (Verdict::NoDifference { smallest }, _) => {
            format!("no difference shown; {} could have been", percent(100.0 * (smallest - 1.0)))
        }
        // Beyond twice as much, per cent are harder to read than times.
        (_, Some(difference)) if difference.percent > 100.0 => {
            format!("{verdict}: {} times", Unit::Count.human(difference.times))
        }
        (_, Some(difference)) => {
            let direction = if difference.percent < 0.0 { "less" } else { "more" };
            format!(
                "{verdict}: {} times, {} {direction}",
                Unit::Count.human(difference.times),
                percent(difference.percent.abs())
            )
        }
        (_, None) => verdict.to_string(),
    }
}

fn percent(value: f64) -> String {
    format!("{} %", Unit::Count.human(value))
}
