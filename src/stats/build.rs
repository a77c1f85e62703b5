//! From samples to a [`Summary`].

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::flags::{Flag, flags};
use super::group::{self, CellData, Series, TrialId};
use super::ledgers;
use super::moments::{mean, sample_sd};
use super::order::{Percentile, Sorted, median, median_interval};
use super::slope::theil_sen;
use super::summary::{CellSummary, Distribution, Marginal, MetricSummary, Summary};
use super::timeline::{self, Marks};
use super::within::{MAX_FAILED_SHARE, compare};
use crate::record::{Experiment, Ledger, Manifest, Metric, Outcome, SCHEMA_VERSION, Sample};

/// Different numbers of instances that a marginal cost needs.
const LEAST_STEPS: usize = 3;

impl Summary {
    /// Summarises a run. Pure and deterministic: the same manifest and samples
    /// give the same summary; every random draw comes from the run's seed.
    /// Takes time in the order of `n log n` samples, plus a constant for each
    /// comparison.
    #[must_use]
    pub fn build(manifest: &Manifest, samples: &[Sample]) -> Self {
        let cells = group::cells(manifest, samples);
        let timelines: Vec<(&CellData<'_>, BTreeMap<TrialId, Marks>)> =
            cells.iter().map(|cell| (cell, timeline::trials(cell))).collect();
        let (controls, comparisons) = compare(&cells, manifest.seed);
        Self {
            schema: SCHEMA_VERSION,
            run_id: manifest.run_id.clone(),
            state: manifest.state,
            seed: manifest.seed,
            labels: manifest.labels.clone(),
            cells: timelines.iter().map(|(cell, trials)| summarise(cell, trials)).collect(),
            timeline: timeline::check(&timelines),
            controls,
            comparisons,
        }
    }
}

fn summarise(cell: &CellData<'_>, trials: &BTreeMap<TrialId, Marks>) -> CellSummary {
    let measured = cell.series.values().any(|series| !series.values.is_empty());
    let skipped = cell.fact.is_some_and(|fact| fact.outcome == Outcome::Skipped);
    let outcome = match (measured, cell.tried.is_empty()) {
        (true, _) => Outcome::Ok,
        (false, false) if !skipped => Outcome::Failed,
        (false, _) => Outcome::Skipped,
    };
    let marginals = marginals(cell);
    let share = cell.failed.len() as f64 / cell.tried.len().max(1) as f64;
    CellSummary {
        cell: cell.key.clone(),
        label: cell.key.label(),
        accelerator: cell.fact.and_then(|fact| fact.accelerator.clone()),
        planned: cell.fact.map_or(0, |fact| fact.rounds),
        tried: cell.tried.len(),
        failed: cell.failed.len(),
        outcome,
        reasons: cell.reasons.clone(),
        flags: (share > MAX_FAILED_SHARE)
            .then_some(Flag::ManyFailures { share })
            .into_iter()
            .collect(),
        metrics: cell
            .series
            .iter()
            .map(|((place, step), series)| metric(cell, place.metric, *step, series))
            .collect(),
        phases: timeline::phases(trials),
        cross_check: ledgers::cross_check(cell, &marginals),
        marginals,
        limits: cell.limits.clone(),
    }
}

fn metric(
    cell: &CellData<'_>,
    metric: Metric,
    step: Option<u32>,
    series: &Series,
) -> MetricSummary {
    let failed = if cell.failed.is_empty() {
        0
    } else {
        let measured: HashSet<TrialId> = series.values.iter().map(|(id, _)| *id).collect();
        cell.failed.iter().filter(|id| !measured.contains(id)).count()
    };
    let in_time: Vec<(u32, f64)> =
        series.values.iter().map(|(id, value)| (id.round, *value)).collect();
    MetricSummary {
        metric,
        step,
        n: series.values.len(),
        failed,
        skipped: series.skipped,
        reasons: series.reasons.clone(),
        values: distribution(in_time.iter().map(|(_, value)| *value).collect()),
        flags: flags(&in_time),
    }
}

/// The figures of a list; absent when it is empty.
fn distribution(values: Vec<f64>) -> Option<Distribution> {
    let (mean, sd) = (mean(&values)?, sample_sd(&values));
    let sorted = Sorted::new(values);
    Some(Distribution {
        min: *sorted.as_slice().first()?,
        median: median(&sorted)?,
        interval: median_interval(&sorted),
        mean,
        sd,
        p90: Percentile::P90.of(&sorted),
        p95: Percentile::P95.of(&sorted),
        p99: Percentile::P99.of(&sorted),
        p999: Percentile::P999.of(&sorted),
        max: *sorted.as_slice().last()?,
    })
}

/// What one more instance costs, by every ledger that the ladder has rows of.
fn marginals(cell: &CellData<'_>) -> Vec<Marginal> {
    if !matches!(cell.key.experiment, Experiment::Memory | Experiment::Density) {
        return Vec::new();
    }
    Ledger::ALL
        .into_iter()
        .filter_map(|ledger| {
            let rows: Vec<(Option<u32>, &Series)> = cell
                .series
                .iter()
                .filter(|((place, step), _)| {
                    place.metric == Metric::Memory(ledger) && step.is_some()
                })
                .map(|((_, step), series)| (*step, series))
                .collect();
            (!rows.is_empty()).then(|| marginal(ledger, &rows))
        })
        .collect()
}

fn marginal(ledger: Ledger, rows: &[(Option<u32>, &Series)]) -> Marginal {
    let points: Vec<(f64, f64)> = rows
        .iter()
        .filter_map(|(step, series)| Some((f64::from((*step)?), *series)))
        .flat_map(|(step, series)| series.values.iter().map(move |(_, value)| (step, *value)))
        .collect();
    let steps: BTreeSet<u64> = points.iter().map(|(step, _)| step.to_bits()).collect();
    if steps.len() >= LEAST_STEPS {
        return Marginal { ledger, line: theil_sen(&points), reason: None };
    }
    let because = rows.iter().flat_map(|(_, series)| &series.reasons).next();
    let reason = match because {
        Some(reason) => reason.text.clone(),
        None => format!("{} steps measured, a slope needs {LEAST_STEPS}", steps.len()),
    };
    Marginal { ledger, line: None, reason: Some(reason) }
}
