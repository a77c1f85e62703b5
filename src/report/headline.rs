//! The answer in plain sentences, made from the numbers of the run.
//!
//! Each sentence carries the conditions without which it would be untrue, and
//! says "no verdict" where the rules of `stats` give none.

use super::sharing::sharing;
use crate::record::{
    BackendName, Experiment, Ledger, Manifest, Mark, Metric, Outcome, RunState, Workload,
};
use crate::stats::{CellSummary, Comparison, Distribution, Interval, Summary, Verdict};
use crate::units::Unit;

const READY: Metric = Metric::Startup(Mark::Ready);

/// The sentences, the most important first.
#[must_use]
pub fn headline(manifest: &Manifest, summary: &Summary) -> Vec<String> {
    let mut sentences = Vec::new();
    if summary.state != RunState::Complete {
        sentences.push(
            "This run did not come to its end; what follows is what it had measured.".to_owned(),
        );
    }
    sentences.extend(startup(summary));
    sentences.extend(tracing(summary));
    sentences.extend(memory(summary));
    sentences.extend(daemons(summary));
    sentences.extend(marginal(summary));
    sentences.extend(sharing(summary));
    sentences.extend(density(summary));
    sentences.push(missing(summary));
    sentences.extend(conditions(manifest));
    sentences
}

/// The workload whose start-up is spoken of: `exit`, which runs from request
/// to gone without the harness's doing, else the plan's first.
pub(super) fn main_workload(summary: &Summary, experiment: Experiment) -> Option<Workload> {
    let workloads = || {
        summary
            .cells
            .iter()
            .filter(|cell| cell.cell.experiment == experiment)
            .map(|cell| cell.cell.workload)
    };
    let preferred =
        if experiment == Experiment::Startup { Workload::Exit } else { Workload::Pause };
    workloads().find(|workload| *workload == preferred).or_else(|| workloads().next())
}

/// Measured cells of one experiment's main workload, without the control.
fn cells(summary: &Summary, experiment: Experiment) -> Vec<&CellSummary> {
    let workload = main_workload(summary, experiment);
    summary
        .cells
        .iter()
        .filter(|cell| {
            cell.cell.experiment == experiment
                && Some(cell.cell.workload) == workload
                && cell.outcome == Outcome::Ok
                && !cell.is_control()
        })
        .collect()
}

/// The cell of a backend with the smallest median.
fn least<'a>(
    cells: &[&'a CellSummary],
    backend: BackendName,
    metric: Metric,
) -> Option<(&'a CellSummary, &'a Distribution)> {
    cells
        .iter()
        .filter(|cell| cell.cell.backend == backend && !cell.cell.is_floor())
        .filter(|cell| cell.cell.untraced().is_none())
        .filter_map(|cell| Some((*cell, cell.values(metric)?)))
        .min_by(|a, b| a.1.median.total_cmp(&b.1.median))
}

/// The cell of a backend that has every parameter at its default; without
/// one, the fastest.
fn plain_or_least<'a>(
    cells: &[&'a CellSummary],
    backend: BackendName,
) -> Option<(&'a CellSummary, &'a Distribution)> {
    let plain: Vec<&CellSummary> =
        cells.iter().copied().filter(|cell| cell.cell.params.0.is_empty()).collect();
    least(&plain, backend, READY).or_else(|| least(cells, backend, READY))
}

fn startup(summary: &Summary) -> Vec<String> {
    let cells = cells(summary, Experiment::Startup);
    let process = plain_or_least(&cells, BackendName::Process);
    let container = plain_or_least(&cells, BackendName::Container);
    let machine = least(&cells, BackendName::Vm, READY);
    let mut sentences = Vec::new();
    if let Some((_, values)) = process {
        sentences.push(format!(
            "A plain process was ready {} after the request.",
            with_interval(values, Unit::Nanoseconds)
        ));
    }
    if let Some((cell, values)) = container {
        let beside = process.map(|(null, _)| versus(summary, cell, null, "the plain process"));
        sentences.push(format!(
            "A container{} was ready in {}{}.",
            cell.label
                .strip_prefix("container")
                .filter(|rest| !rest.is_empty())
                .map_or(String::new(), |rest| format!(" ({})", rest.trim_start())),
            with_interval(values, Unit::Nanoseconds),
            beside.unwrap_or_default()
        ));
    }
    if let Some((cell, values)) = machine {
        let other = container.map(|(other, _)| versus(summary, cell, other, "the container"));
        let null = process.map(|(other, _)| versus(summary, cell, other, "the plain process"));
        sentences.push(format!(
            "The fastest virtual machine ({}) was ready in {}{}{}.",
            cell.label,
            with_interval(values, Unit::Nanoseconds),
            emulated(cell),
            other.or(null).unwrap_or_default()
        ));
    }
    sentences
}

/// How much each trace disturbs what it shows.
fn tracing(summary: &Summary) -> Vec<String> {
    let sentence = |cell: &CellSummary| {
        let twin = cell.cell.untraced()?;
        let workload = cell.cell.workload;
        let untraced = summary.cells.iter().find(|other| other.cell == twin);
        let told = untraced.map(|other| versus(summary, cell, other, "without the trace"));
        let told = told.as_deref().and_then(|told| told.strip_prefix(", "));
        let unknown = "an unknown time longer: the same cell without the trace gave no value in \
            this run";
        Some(format!(
            "How much tracing disturbs: until `ready`, {} {workload} took {}.",
            cell.label,
            told.unwrap_or(unknown)
        ))
    };
    summary.cells.iter().filter(|cell| cell.outcome == Outcome::Ok).filter_map(sentence).collect()
}

/// What must be said beside every number of an emulated machine.
fn emulated(cell: &CellSummary) -> &'static str {
    match cell.accelerator.as_deref() {
        Some("tcg") => " under software emulation (TCG), which is not how fast it is under KVM",
        _ => "",
    }
}

/// How a start compares with another, by the verdict that the run allows.
fn versus(summary: &Summary, cell: &CellSummary, other: &CellSummary, name: &str) -> String {
    let Some(comparison) = summary.comparison(&cell.cell, &other.cell, READY) else {
        return String::new();
    };
    let Some(ratio) = comparison.ratio else { return String::new() };
    let times = Unit::Count.human(ratio.ratio);
    let interval = ratio.interval.map_or(String::new(), |interval| {
        let end = |value| Unit::Count.human(value);
        format!(" (95 % interval {} to {})", end(interval.low), end(interval.high))
    });
    format!(", {times} times as long as {name}{interval}{}", caveat(comparison))
}

fn caveat(comparison: &Comparison) -> String {
    match &comparison.verdict {
        Verdict::Withheld { reason } => format!("; no verdict: {reason}"),
        Verdict::NoDifference { .. } => "; no difference shown".to_owned(),
        _ => String::new(),
    }
}

/// The ledger that most cells have a value in, the cgroup's before PSS.
fn best_ledger(has: impl Fn(Ledger) -> usize) -> Option<Ledger> {
    let most = [Ledger::Pss, Ledger::Cgroup].into_iter().max_by_key(|ledger| has(*ledger))?;
    (has(most) > 0).then_some(most)
}

fn ledger_name(ledger: Ledger) -> &'static str {
    match ledger {
        Ledger::Cgroup => "what its memory cgroup is charged",
        _ => "proportional set size",
    }
}

fn memory(summary: &Summary) -> Option<String> {
    let cells = cells(summary, Experiment::Memory);
    let values = |cell: &CellSummary, ledger| {
        cell.values(Metric::Memory(ledger)).map(|values| values.median)
    };
    let ledger =
        best_ledger(|ledger| cells.iter().filter(|cell| values(cell, ledger).is_some()).count())?;
    let parts: Vec<String> = cells
        .iter()
        .filter_map(|cell| Some((cell, values(cell, ledger)?)))
        .map(|(cell, median)| format!("{} for {}", Unit::Bytes.human(median), cell.label))
        .collect();
    Some(format!("One idle instance holds {}, by {}.", parts.join(", "), ledger_name(ledger)))
}

/// What stays on the host however many instances there are.
fn daemons(summary: &Summary) -> Option<String> {
    let cells = cells(summary, Experiment::Memory);
    let metric = Metric::Daemon(Ledger::Pss);
    let parts: Vec<String> = cells
        .iter()
        .filter_map(|cell| Some((cell, cell.values(metric)?.median)))
        .map(|(cell, median)| format!("{} for {}", Unit::Bytes.human(median), cell.label))
        .collect();
    let name = ledger_name(Ledger::Pss);
    let text = format!("On each host, daemons hold beside all instances {}", parts.join(", "));
    (!parts.is_empty()).then(|| format!("{text}, by {name}."))
}

fn marginal(summary: &Summary) -> Option<String> {
    let mut cells = cells(summary, Experiment::Memory);
    cells.retain(|cell| !cell.marginals.is_empty());
    if cells.is_empty() {
        cells = self::cells(summary, Experiment::Density);
    }
    let ledger =
        best_ledger(|ledger| cells.iter().filter(|cell| cell.marginal(ledger).is_some()).count())?;
    let parts: Vec<String> = cells
        .iter()
        .filter_map(|cell| Some((cell, cell.marginal(ledger)?)))
        .map(|(cell, line)| {
            let interval = line.interval.map_or(String::new(), |found| between(found, Unit::Bytes));
            format!("{}{interval} for {}", Unit::Bytes.human(line.slope), cell.label)
        })
        .collect();
    Some(format!("One more idle instance costs {}, by {}.", parts.join(", "), ledger_name(ledger)))
}

fn density(summary: &Summary) -> Option<String> {
    let parts: Vec<String> = cells(summary, Experiment::Density)
        .iter()
        .filter_map(|cell| Some((cell, cell.values(Metric::DensityInstances)?)))
        .map(|(cell, values)| {
            let limits: Vec<&str> = cell.limits.iter().map(|limit| limit.text.as_str()).collect();
            let limit =
                if limits.is_empty() { "no limit named".to_owned() } else { limits.join(", ") };
            format!("{} of {} ({limit})", Unit::Count.human(values.max), cell.label)
        })
        .collect();
    (!parts.is_empty()).then(|| {
        format!(
            "Alive at once and all answering, until the limit in brackets: {}.",
            parts.join(", ")
        )
    })
}

fn missing(summary: &Summary) -> String {
    let tried: usize = summary.cells.iter().map(|cell| cell.tried).sum();
    let failed: usize = summary.cells.iter().map(|cell| cell.failed).sum();
    let absent = summary.cells.iter().filter(|cell| cell.outcome != Outcome::Ok).count();
    let trials = match failed {
        0 => format!("None of {tried} trials failed"),
        _ => format!("{failed} of {tried} trials failed"),
    };
    match absent {
        0 => format!("{trials}, and every one of {} cells was measured.", summary.cells.len()),
        _ => format!("{trials}; {absent} of {} cells have no value.", summary.cells.len()),
    }
}

fn conditions(manifest: &Manifest) -> Option<String> {
    (!manifest.labels.is_empty())
        .then(|| format!("All of this holds under: {}.", manifest.labels.join(", ")))
}

fn with_interval(values: &Distribution, unit: Unit) -> String {
    let interval = values.interval.map_or(String::new(), |found| between(found, unit));
    format!("{}{interval}", unit.human(values.median))
}

fn between(interval: Interval, unit: Unit) -> String {
    format!(" [{}, {}]", unit.human(interval.low), unit.human(interval.high))
}
