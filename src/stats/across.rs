//! Two runs, or two sets of runs, cell by cell.
//!
//! Rounds of different runs share nothing, so the values are compared as
//! independent lists. How far the null backend moved between the runs is how
//! far the host did: no change is named that is not larger. Where a side has
//! several runs, neither is one named that is not larger than they differ.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::compare::{Difference, Pair, Ratio, difference, holm, ratio_of_medians};
use super::group::{self, CellData};
use super::judge::{Evidence, Judge, LEVEL, Verdict, words};
use super::order::{Sorted, median};
use super::rank_sum::{between_runs, rank_sum_p, ratio_between, values_needed};
use super::within::{
    Comparison, compare_pairs, is_comparable, is_control, is_null, too_many_failures,
};
use crate::host::is_lasting;
use crate::record::{CellKey, Experiment, Manifest, Metric, Sample, Workload};

/// A run: what it was, and what it measured.
#[derive(Clone, Copy, Debug)]
pub struct RunRef<'a> {
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// Its samples.
    pub samples: &'a [Sample],
}

/// A fact that is not the same in all runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DifferingFact {
    /// Its name, such as `kernel.release` or `version of qemu`.
    pub name: String,
    /// Its different values in the runs of the base.
    pub base: Vec<String>,
    /// Its different values in the new runs.
    pub new: Vec<String>,
}

/// One metric of one cell, before and after.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The cell.
    pub cell: CellKey,
    /// Its name in tables.
    pub label: String,
    /// The metric.
    pub metric: Metric,
    /// Values in the base.
    pub base_n: usize,
    /// Values in the new runs.
    pub new_n: usize,
    /// Median of the base, in the metric's unit.
    pub base: f64,
    /// Median of the new runs, in the metric's unit.
    pub new: f64,
    /// New over base.
    pub ratio: Option<Ratio>,
    /// The same in times and per cent.
    pub difference: Option<Difference>,
    /// p-value of the rank-sum test of all values, or of the t-test of the
    /// runs' medians where there are several and it is larger.
    pub p: Option<f64>,
    /// The same after Holm over all changes with values enough to be tested.
    pub p_holm: Option<f64>,
    /// How far the null backend moved between the runs at the most, as the
    /// logarithm of a ratio.
    pub noise: Option<f64>,
    /// What may be said; `slower` and `more` are the new runs'.
    pub verdict: Verdict,
    /// The same in words.
    pub text: String,
}

impl Change {
    /// Whether the new runs are worse, certainly by more than `threshold` (a
    /// share: 0.05 for 5 %).
    #[must_use]
    pub fn is_regression(&self, threshold: f64) -> bool {
        self.verdict.is_worse_by(self.ratio, threshold)
    }
}

/// The outcome of comparing runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunComparison {
    /// Ids of the runs that are compared with.
    pub base: Vec<String>,
    /// Ids of the new runs.
    pub new: Vec<String>,
    /// Facts that differ between or within the two sides.
    pub facts: Vec<DifferingFact>,
    /// Cells without values on one of the sides, with the side.
    pub missing: Vec<String>,
    /// Every change, in the order of the base's plan.
    pub changes: Vec<Change>,
    /// What all verdicts leave open, if something.
    pub caution: Option<String>,
}

/// Said of one run on each side. Its rounds tell how well each run's median is
/// known; how far the medians of two such runs lie apart by themselves would
/// take more runs to see, and only the null backend's share of it is known.
const TWO_RUNS: &str = "one run a side: verdicts are about these two runs. How far runs of one \
                        program lie apart by themselves shows only in several runs a side: \
                        `scripts/regression.sh` measures them in turns";

/// Whether two runs measured the same things: cells and what is in them. How
/// many rounds and in which order does not matter.
#[must_use]
pub fn same_cells(a: &Manifest, b: &Manifest) -> bool {
    let cells = |manifest: &Manifest| -> BTreeSet<CellKey> {
        manifest.cells.iter().map(|fact| fact.cell.clone()).collect()
    };
    cells(a) == cells(b)
}

/// Compares `new` with `base`. The seed of the first run of the base makes
/// the bootstrap repeatable.
#[must_use]
pub fn compare_runs(base: &[RunRef<'_>], new: &[RunRef<'_>]) -> RunComparison {
    let sides = [Side::new(base), Side::new(new)];
    let [before, after] = &sides;
    let mut missing = Vec::new();
    let mut ladders = false;
    let mut changes = Vec::new();
    let mut failures = Vec::new();
    for key in before.keys().chain(after.keys().filter(|key| !before.has(key))) {
        if is_control(key) || is_null(key) {
            continue;
        }
        if key.experiment.is_ladder() {
            ladders = true;
            continue;
        }
        let found = one_cell(before, after, key);
        if found.is_empty() {
            missing.push(format!("{key}: {}", why_missing(before, after, key)));
        }
        failures.extend(found.iter().map(|_| before.failures(key).or_else(|| after.failures(key))));
        changes.extend(found);
    }
    if ladders {
        missing.push(
            "density ladders: a run has too few of them for a spread; each run's summary has their \
             slopes with intervals"
                .to_owned(),
        );
    }
    judge(&mut changes, &failures);
    let alone = base.len() == 1 && new.len() == 1;
    if alone {
        for change in changes.iter_mut().filter(|change| change.verdict.is_named()) {
            change.text.push_str(" between these two runs");
        }
    }
    let ids = |runs: &[RunRef<'_>]| runs.iter().map(|run| run.manifest.run_id.clone()).collect();
    RunComparison {
        base: ids(base),
        new: ids(new),
        facts: differing_facts(base, new),
        missing,
        changes,
        caution: alone.then(|| TWO_RUNS.to_owned()),
    }
}

/// Compares two arms of one run round by round, given by their names in the
/// tables: every experiment and workload that both have, on every metric that
/// means the same for all backends. The p-values are adjusted over these
/// comparisons alone.
#[must_use]
pub fn compare_arms(run: RunRef<'_>, subject: &str, baseline: &str) -> Vec<Comparison> {
    let cells = group::cells(run.manifest, run.samples);
    let named = |label: &str| cells.iter().filter(|cell| cell.key.label() == label).collect();
    let (subjects, baselines): (Vec<_>, Vec<_>) = (named(subject), named(baseline));
    let same = |a: &CellKey, b: &CellKey| a.experiment == b.experiment && a.workload == b.workload;
    let pairs: Vec<(&CellData<'_>, &CellData<'_>)> = subjects
        .iter()
        .filter_map(|cell| {
            let other = baselines.iter().find(|other| same(cell.key, other.key))?;
            Some((*cell, *other))
        })
        .collect();
    let ratio = |pairs: &[Pair]| ratio_of_medians(pairs, run.manifest.seed);
    compare_pairs(&cells, &pairs, &ratio).1
}

/// The cells of each run of one side.
struct Side<'a> {
    runs: Vec<Vec<CellData<'a>>>,
    seed: u64,
}

impl<'a> Side<'a> {
    fn new(runs: &'a [RunRef<'a>]) -> Self {
        let seed = runs.first().map_or(0, |run| run.manifest.seed);
        let runs = runs.iter().map(|run| group::cells(run.manifest, run.samples)).collect();
        Self { runs, seed }
    }

    /// Every cell once, in the order of plans.
    fn keys(&self) -> impl Iterator<Item = &CellKey> {
        let mut seen = BTreeSet::new();
        self.runs.iter().flatten().map(|cell| cell.key).filter(move |key| seen.insert(*key))
    }

    fn cells(&self, key: &CellKey) -> impl Iterator<Item = &CellData<'a>> {
        self.runs.iter().flatten().filter(move |cell| cell.key == key)
    }

    fn has(&self, key: &CellKey) -> bool {
        self.cells(key).next().is_some()
    }

    /// Values of a cell's metric by run; runs without any are left out.
    fn values(&self, key: &CellKey, metric: Metric) -> Vec<Vec<f64>> {
        self.cells(key)
            .map(|cell| cell.values(metric).iter().map(|(_, value)| *value).collect::<Vec<f64>>())
            .filter(|values| !values.is_empty())
            .collect()
    }

    fn failures(&self, key: &CellKey) -> Option<String> {
        self.cells(key).find_map(too_many_failures)
    }

    /// The null backend under both of its names.
    fn nulls(&self, experiment: Experiment, workload: Workload) -> Vec<&CellKey> {
        self.keys()
            .filter(|key| key.experiment == experiment && key.workload == workload)
            .filter(|key| is_null(key) || is_control(key))
            .collect()
    }
}

/// All metrics of one cell that both sides have, without verdicts.
fn one_cell(before: &Side<'_>, after: &Side<'_>, key: &CellKey) -> Vec<Change> {
    let mut changes = Vec::new();
    for metric in Metric::all().filter(|metric| is_comparable(*metric)) {
        let (base, new) = (before.values(key, metric), after.values(key, metric));
        let (all_base, all_new) = (base.concat(), new.concat());
        let centre = |values: &[f64]| median(&Sorted::new(values.to_vec()));
        let (Some(base_median), Some(new_median)) = (centre(&all_base), centre(&all_new)) else {
            continue;
        };
        changes.push(Change {
            cell: key.clone(),
            label: key.label(),
            metric,
            base_n: all_base.len(),
            new_n: all_new.len(),
            base: base_median,
            new: new_median,
            ratio: ratio_between(&new, &base, before.seed),
            difference: difference(new_median, base_median),
            p: larger(rank_sum_p(&all_new, &all_base), between_runs(&new, &base).map(|t| t.p)),
            p_holm: None,
            noise: noise(before, after, key, metric),
            verdict: Verdict::Withheld { reason: String::new() },
            text: String::new(),
        });
    }
    changes
}

/// The larger p-value, of those that there are.
fn larger(first: Option<f64>, second: Option<f64>) -> Option<f64> {
    first.into_iter().chain(second).reduce(f64::max)
}

/// How far the null backend of the same experiment, workload and metric moved:
/// the furthest of what the two names of it may have.
fn noise(before: &Side<'_>, after: &Side<'_>, key: &CellKey, metric: Metric) -> Option<f64> {
    before
        .nulls(key.experiment, key.workload)
        .into_iter()
        .filter_map(|null| {
            let (base, new) = (before.values(null, metric), after.values(null, metric));
            Some(ratio_between(&new, &base, before.seed)?.interval?.furthest())
        })
        .reduce(f64::max)
}

/// Adjusts all p-values together and gives each change its verdict.
fn judge(changes: &mut [Change], failures: &[Option<String>]) {
    let n = |change: &Change| change.base_n.min(change.new_n);
    // The fewest values with which a change is tested, as within a run.
    let able = |k: usize| {
        let needed = values_needed(LEVEL, k);
        changes.iter().filter(|change| n(change) >= needed).count()
    };
    let needed = (1..=changes.len())
        .find(|k| able(*k) <= *k)
        .map_or(usize::MAX, |k| values_needed(LEVEL, k));
    let tested: Vec<usize> =
        (0..changes.len()).filter(|index| n(&changes[*index]) >= needed).collect();
    let p: Vec<f64> = tested.iter().filter_map(|index| changes[*index].p).collect();
    for (index, adjusted) in tested.into_iter().zip(holm(&p)) {
        changes[index].p_holm = Some(adjusted);
    }
    let judge = Judge { tested: p.len() };
    let enough = values_needed(LEVEL, changes.len());
    for (change, failure) in changes.iter_mut().zip(failures) {
        let n = n(change);
        change.verdict = match failure {
            Some(reason) => Verdict::Withheld { reason: reason.clone() },
            None => judge.verdict(Evidence {
                unit: change.metric.unit(),
                ratio: change.ratio,
                p: change.p_holm.ok_or_else(|| {
                    format!("{n} values a side are too few to be tested, {enough} would do")
                }),
                noise: change.noise.ok_or_else(|| {
                    "the null backend of this workload has too few values to say how far the host \
                     moved"
                        .to_owned()
                }),
            }),
        };
        change.text = words(&change.verdict, change.ratio, n, "values a side");
    }
}

/// Why a cell has no values on both sides.
fn why_missing(before: &Side<'_>, after: &Side<'_>, key: &CellKey) -> String {
    let side = |side: &Side<'_>, name: &str| {
        let reason = side.cells(key).find_map(|cell| cell.reasons.first());
        match (side.has(key), reason) {
            (false, _) => format!("not in the plan of the {name}"),
            (true, Some(reason)) => format!("no value in the {name} ({})", reason.text),
            (true, None) => format!("no comparable value in the {name}"),
        }
    };
    let empty = |side: &Side<'_>| side.cells(key).all(|cell| cell.series.is_empty());
    match (empty(before), empty(after)) {
        (_, false) => side(before, "base"),
        (false, true) => side(after, "new runs"),
        (true, true) => format!("{}, {}", side(before, "base"), side(after, "new runs")),
    }
}

/// Names of facts with their different values, by side.
fn differing_facts(base: &[RunRef<'_>], new: &[RunRef<'_>]) -> Vec<DifferingFact> {
    let (mut before, mut after) = (facts(base), facts(new));
    let names: BTreeSet<String> = before.keys().chain(after.keys()).cloned().collect();
    let none = || vec!["not recorded".to_owned()];
    names
        .into_iter()
        .filter_map(|name| {
            let base = before.remove(&name).unwrap_or_else(none);
            let new = after.remove(&name).unwrap_or_else(none);
            (base != new || base.len() > 1).then_some(DifferingFact { name, base, new })
        })
        .collect()
}

fn facts(runs: &[RunRef<'_>]) -> BTreeMap<String, Vec<String>> {
    let mut facts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for manifest in runs.iter().map(|run| run.manifest) {
        let mut add = |name: String, value: &str| {
            facts.entry(name).or_default().insert(value.to_owned());
        };
        for fact in &manifest.host_before {
            if is_lasting(&fact.name) {
                add(fact.name.clone(), &fact.value);
            }
        }
        for version in &manifest.versions {
            add(format!("version of {}", version.name), &version.version);
        }
        for artefact in &manifest.artefacts {
            add(format!("sha256 of {}", artefact.role), &artefact.sha256);
        }
        add("conditions".to_owned(), &manifest.labels.join(", "));
    }
    facts.into_iter().map(|(name, values)| (name, values.into_iter().collect())).collect()
}

#[cfg(test)]
#[path = "across_tests.rs"]
mod tests;
