//! One table per experiment: its main metrics side by side, a row per cell.

use serde::Serialize;

use crate::record::{Charge, Experiment, Ledger, Mark, Merging, Metric, Moment, Outcome};
use crate::stats::{CellSummary, Interval, Summary};
use crate::units::Unit;

/// A table of texts.
#[derive(Serialize)]
pub(super) struct Overview {
    title: &'static str,
    columns: Vec<String>,
    rows: Vec<OverviewRow>,
}

#[derive(Serialize)]
struct OverviewRow {
    cell: String,
    trials: String,
    /// Why there is no value at all; then there are no figures.
    missing: Option<String>,
    figures: Vec<Entry>,
}

/// A median and its interval, or a dash and nothing.
#[derive(Serialize)]
struct Entry {
    value: String,
    interval: String,
}

/// The tables of all experiments in the plan.
pub(super) fn overviews(summary: &Summary) -> Vec<Overview> {
    let startup = [
        Metric::Startup(Mark::Spawned),
        Metric::Startup(Mark::Init),
        Metric::Startup(Mark::Ready),
        Metric::Startup(Mark::Gone),
        Metric::Stop(Mark::Gone),
    ];
    let memory = [Ledger::Pss, Ledger::Uss, Ledger::Rss, Ledger::Cgroup, Ledger::Peak];
    // Most runs have no arm with a daemon.
    let daemon = Metric::Daemon(Ledger::Pss);
    let shared = summary.cells.iter().flat_map(|cell| &cell.metrics);
    let shared = { shared }.any(|found| found.metric == daemon).then_some(daemon);
    let memory = memory.map(Metric::Memory).into_iter().chain(shared);
    let slopes = [Ledger::Pss, Ledger::Cgroup, Ledger::Host];
    let split = Charge::ALL.map(Metric::Charge);
    let guest = Moment::ALL.map(Metric::Guest);
    let ksm = Merging::ALL.map(Metric::Merging);
    let has_idle = summary.cells.iter().any(|cell| cell.values(Metric::IdleCpu).is_some());
    let density = std::iter::once(Metric::DensityInstances).chain(slopes.map(Metric::Marginal));
    [
        ("Start-up", Experiment::Startup, startup.to_vec()),
        ("Memory of one instance", Experiment::Memory, memory.collect()),
        (
            "Memory: what one more instance costs",
            Experiment::Memory,
            slopes.map(Metric::Marginal).to_vec(),
        ),
        ("Memory: what its memory cgroup is charged for", Experiment::Memory, split.to_vec()),
        ("Memory: what is resident of a guest's", Experiment::Memory, guest.to_vec()),
        ("Processors kept busy while idle", Experiment::Memory, vec![Metric::IdleCpu]),
        ("Density", Experiment::Density, density.collect()),
        ("Merging of equal pages", Experiment::Ksm, ksm.to_vec()),
        ("Smallest memory", Experiment::Minimum, vec![Metric::Minimum]),
    ]
    .into_iter()
    // Older runs did not look.
    .filter(|(_, _, metrics)| metrics[..] != [Metric::IdleCpu] || has_idle)
    .filter_map(|(title, experiment, metrics)| overview(summary, title, experiment, &metrics))
    .collect()
}

fn overview(
    summary: &Summary,
    title: &'static str,
    experiment: Experiment,
    metrics: &[Metric],
) -> Option<Overview> {
    let rows: Vec<OverviewRow> = summary
        .cells
        .iter()
        .filter(|cell| cell.cell.experiment == experiment)
        .filter(|cell| has_any(cell, metrics))
        .map(|cell| OverviewRow {
            cell: format!("{} {}", cell.label, cell.cell.workload),
            trials: format!("{}/{}", cell.tried - cell.failed, cell.tried),
            missing: (cell.outcome != Outcome::Ok).then(|| cell.why_missing()),
            figures: metrics.iter().map(|metric| entry(cell, *metric)).collect(),
        })
        .collect();
    let columns = metrics.iter().map(ToString::to_string).collect();
    (!rows.is_empty()).then_some(Overview { title, columns, rows })
}

/// Whether a cell has a row in a table. The first table of an experiment has
/// all cells, further ones those that they are about.
fn has_any(cell: &CellSummary, metrics: &[Metric]) -> bool {
    let further = |metric: &Metric| {
        matches!(metric, Metric::Marginal(_) | Metric::Charge(_) | Metric::Guest(_))
    };
    if !metrics.iter().all(further) {
        return true;
    }
    metrics.iter().any(|metric| match metric {
        Metric::Marginal(ledger) => cell.marginal(*ledger).is_some(),
        other => cell.values(*other).is_some(),
    })
}

fn entry(cell: &CellSummary, metric: Metric) -> Entry {
    let found = match metric {
        Metric::Marginal(ledger) => cell.marginal(ledger).map(|line| (line.slope, line.interval)),
        _ => cell.values(metric).map(|values| (values.median, values.interval)),
    };
    let Some((value, interval)) = found else {
        return Entry { value: "–".to_owned(), interval: String::new() };
    };
    let unit = metric.unit();
    let between = |unit: Unit, found: Interval| {
        format!("{} to {}", unit.human(found.low), unit.human(found.high))
    };
    Entry {
        value: unit.human(value),
        interval: interval.map(|found| between(unit, found)).unwrap_or_default(),
    }
}
