//! Comparisons between the cells of a run: which are made, with what control,
//! and the verdict on each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::compare::{
    Difference, Pair, Ratio, difference, hodges_lehmann, holm, permutation_p, ratio_of_medians,
    rounds_needed,
};
use super::group::{CellData, TrialId};
use super::judge::{Evidence, Judge, LEVEL, Verdict, words};
use super::order::{Sorted, median};
use crate::record::{
    BackendName, CellKey, Experiment, Ledger, Manifest, Mark, Metric, Params, Sample, Workload,
};

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
    /// The typical ratio of a round, by [`hodges_lehmann`].
    pub typical: Option<f64>,
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
pub(super) fn is_null(key: &CellKey) -> bool {
    key.backend == BackendName::Process && key.params == Params::default()
}

/// What is compared: metrics that mean the same for every backend, one for
/// each question, since every comparison shown weakens all others. `spawned`
/// is not one of them (a VMM is a program that has yet to begin by then), nor
/// are `init` and `exited`, which lie beside `ready` and `gone`; of the ledgers
/// those that count shared text once.
pub(super) fn is_comparable(metric: Metric) -> bool {
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
    compare_with(cells, &|pairs: &[Pair]| ratio_of_medians(pairs, seed))
}

/// [`compare`] with a way to find a ratio and its interval.
pub(crate) fn compare_with(
    cells: &[CellData<'_>],
    ratio: &dyn Fn(&[Pair]) -> Option<Ratio>,
) -> (Vec<Control>, Vec<Comparison>) {
    let subjects = cells
        .iter()
        .filter(|cell| !is_null(cell.key) && !is_control(cell.key) && !cell.key.is_floor());
    let pairs: Vec<_> = subjects
        .flat_map(|subject| {
            baselines(cells, subject.key).into_iter().map(move |baseline| (subject, baseline))
        })
        .collect();
    compare_pairs(cells, &pairs, ratio)
}

/// How far, as a share, the interval of the least certain ratio of times to
/// `ready` reaches from it. Absent when a cell that gave values has too few of
/// them for an interval, or none did.
#[must_use]
pub fn widest_ratio(manifest: &Manifest, samples: &[Sample]) -> Option<f64> {
    let cells = super::group::cells(manifest, samples);
    let (_, comparisons) = compare(&cells, manifest.seed);
    let mut ready =
        comparisons.iter().filter(|found| found.metric == Metric::Startup(Mark::Ready)).peekable();
    ready.peek()?;
    ready.try_fold(0.0_f64, |widest, found| {
        let half_width = found.ratio.and_then(|ratio| ratio.half_width())?;
        Some(widest.max(half_width.exp() - 1.0))
    })
}

/// All controls of a run's cells, and the given subjects against the given
/// baselines on every metric that both have, judged together.
pub(crate) fn compare_pairs(
    cells: &[CellData<'_>],
    pairs: &[(&CellData<'_>, &CellData<'_>)],
    ratio: &dyn Fn(&[Pair]) -> Option<Ratio>,
) -> (Vec<Control>, Vec<Comparison>) {
    let controls = controls(cells, ratio);
    let mut comparisons = Vec::new();
    let mut failures = Vec::new();
    for (subject, baseline) in pairs {
        let invalid = too_many_failures(subject).or_else(|| too_many_failures(baseline));
        for metric in Metric::all().filter(|metric| is_comparable(*metric)) {
            if !subject.values(metric).is_empty() && !baseline.values(metric).is_empty() {
                comparisons.push(one(subject, baseline, metric, &controls, ratio));
                failures.push(invalid.clone());
            }
        }
    }
    judge_all(&mut comparisons, &failures);
    (controls, comparisons)
}

/// The null backend of the same experiment and workload, and for a VM the
/// plainest container. A traced cell stands for no arm: all that is asked of
/// it is how far it is from itself without the trace.
fn baselines<'a>(cells: &'a [CellData<'a>], key: &CellKey) -> Vec<&'a CellData<'a>> {
    let same = |cell: &&CellData<'_>| {
        cell.key.experiment == key.experiment && cell.key.workload == key.workload
    };
    if let Some(twin) = key.untraced() {
        return cells.iter().filter(|cell| *cell.key == twin).collect();
    }
    let null = cells.iter().filter(same).find(|cell| is_null(cell.key));
    let container = cells
        .iter()
        .filter(same)
        .filter(|cell| {
            matches!(key.backend, BackendName::Vm | BackendName::Peer(_))
                && cell.key.backend == BackendName::Container
        })
        .min_by_key(|cell| (cell.key.params.0.len(), cell.key));
    null.into_iter().chain(container).collect()
}

fn controls(cells: &[CellData<'_>], ratio: &dyn Fn(&[Pair]) -> Option<Ratio>) -> Vec<Control> {
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
                        ratio: ratio(&pairs),
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
    ratio: &dyn Fn(&[Pair]) -> Option<Ratio>,
) -> Comparison {
    let pairs = paired(subject.values(metric), baseline.values(metric));
    let centre = |side: fn(&Pair) -> f64| median(&Sorted::new(pairs.iter().map(side).collect()));
    let key = subject.key;
    Comparison {
        metric,
        subject: key.clone(),
        baseline: baseline.key.clone(),
        pairs: pairs.len(),
        ratio: ratio(&pairs),
        difference: centre(|pair| pair.0)
            .zip(centre(|pair| pair.1))
            .and_then(|(subject, baseline)| difference(subject, baseline)),
        typical: hodges_lehmann(&pairs),
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

pub(super) fn too_many_failures(cell: &CellData<'_>) -> Option<String> {
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
    let judge = Judge { tested: p.len() };
    let enough = rounds_needed(LEVEL, pairs.len());
    for (comparison, failure) in comparisons.iter_mut().zip(failures) {
        comparison.verdict = match failure {
            Some(reason) => Verdict::Withheld { reason: reason.clone() },
            None => judge.verdict(evidence(comparison, enough)),
        };
        let ratio = comparison.ratio;
        comparison.text = words(&comparison.verdict, ratio, comparison.pairs, "rounds");
    }
}

/// What is known about a comparison within a run; with `enough` rounds any
/// comparison would be tested.
fn evidence(comparison: &Comparison, enough: usize) -> Evidence {
    let rounds = comparison.pairs;
    Evidence {
        unit: comparison.metric.unit(),
        ratio: comparison.ratio,
        p: comparison
            .p_holm
            .ok_or_else(|| format!("{rounds} rounds are too few to be tested, {enough} would do")),
        noise: floor(comparison.control.as_ref()),
    }
}

/// As far as the null backend may differ from itself.
fn floor(control: Option<&Control>) -> Result<f64, String> {
    let control = control.ok_or("no A/A control of this metric was measured")?;
    let interval = control.ratio.and_then(|ratio| ratio.interval);
    let interval = interval.ok_or("the A/A control has too few rounds for an interval")?;
    if interval.excludes(1.0) {
        return Err("the null backend differs from itself: the run was not stable enough".into());
    }
    Ok(interval.furthest())
}

/// The fewest rounds with which a comparison is tested: the smallest k such
/// that at most k comparisons can reach the level divided by k says how many.
fn rounds_to_be_tested(pairs: &[usize]) -> usize {
    let able = |k: usize| pairs.iter().filter(|n| **n >= rounds_needed(LEVEL, k)).count();
    (1..=pairs.len()).find(|k| able(*k) <= *k).map_or(usize::MAX, |k| rounds_needed(LEVEL, k))
}
