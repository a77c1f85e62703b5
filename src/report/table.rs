//! The result as a table for a terminal.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use crate::record::{Experiment, Ledger, Mark, Metric, Outcome, Workload};
use crate::stats::{
    CellSummary, Comparison, Line, Ratio, RepeatedSlope, Repeats, RunComparison, Summary,
};
use crate::units::Unit;

/// One row per backend, parameters and workload: time to ready and to gone,
/// memory of one instance by two ledgers, the cost of one more, and how many
/// were alive at once. Cells outside the plan are empty, missing values are a
/// dash. What was not measured at all has its reason in [`missing_lines`].
#[must_use]
pub fn terminal_table(summary: &Summary) -> Table {
    let mut table = frame([
        "backend", "workload", "ok/tried", "ready", "gone", "PSS", "cgroup", "+1 costs", "alive",
    ]);
    for arm in arms(summary) {
        table.add_row(arm.row());
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// One line for each cell without any value, with the reason, to print below
/// the table.
#[must_use]
pub fn missing_lines(summary: &Summary) -> Vec<String> {
    summary
        .cells
        .iter()
        .filter(|cell| cell.outcome != Outcome::Ok)
        .map(|cell| format!("{}: {}", cell.cell, cell.why_missing()))
        .collect()
}

/// One line for each number of the table that one median does not describe,
/// with what was seen instead, to print below the table.
#[must_use]
pub fn remark_lines(summary: &Summary) -> Vec<String> {
    let shown = |metric: Metric| {
        matches!(
            metric,
            Metric::Startup(Mark::Ready | Mark::Gone)
                | Metric::Stop(Mark::Gone)
                | Metric::Memory(Ledger::Pss | Ledger::Cgroup)
        )
    };
    let cells = summary.cells.iter().filter(|cell| cell.cell.experiment != Experiment::Density);
    cells
        .flat_map(|cell| cell.metrics.iter().map(move |metric| (cell, metric)))
        .filter(|(_, metric)| shown(metric.metric))
        .filter_map(|(cell, metric)| {
            let flags = metric.flags.iter().filter(|flag| flag.is_of_the_centre());
            let text = flags.map(ToString::to_string).collect::<Vec<_>>().join("; ");
            (!text.is_empty()).then(|| format!("remark: {}, {}: {text}", cell.cell, metric.metric))
        })
        .collect()
}

/// One row per metric of two arms of a run: both medians come from the ratio's
/// rounds.
#[must_use]
pub fn arms_table(comparisons: &[Comparison]) -> Table {
    let mut table = frame(["workload", "metric", "rounds", "ratio", "95 % interval", "verdict"]);
    for found in comparisons {
        table.add_row([
            found.subject.workload.to_string(),
            found.metric.to_string(),
            found.pairs.to_string(),
            found.ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{:.3}", ratio.ratio)),
            interval(found.ratio),
            found.text.clone(),
        ]);
    }
    table
}

/// One row per cell and metric of runs before and after.
#[must_use]
pub fn changes_table(found: &RunComparison) -> Table {
    let header = ["cell", "metric", "base", "new", "n", "ratio", "95 % interval", "verdict"];
    let mut table = frame(header);
    for change in &found.changes {
        let unit = change.metric.unit();
        table.add_row([
            change.cell.to_string(),
            change.metric.to_string(),
            unit.human(change.base),
            unit.human(change.new),
            format!("{}, {}", change.base_n, change.new_n),
            change.ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{:.3}", ratio.ratio)),
            interval(change.ratio),
            change.text.clone(),
        ]);
    }
    table
}

/// One row per slope of two runs, each with its interval.
#[must_use]
pub fn slopes_table(found: &[RepeatedSlope]) -> Table {
    let human = |bytes: f64| Unit::Bytes.human(bytes);
    let line = |line: Option<Line>| {
        let Some(line) = line else { return "–".to_owned() };
        let interval = line.interval.map_or(String::new(), |found| {
            format!(" [{}, {}]", human(found.low), human(found.high))
        });
        format!("{}{interval}", human(line.slope))
    };
    let mut table = frame(["cell", "ledger", "base", "new", "do they overlap"]);
    for slope in found {
        table.add_row([
            slope.cell.to_string(),
            slope.ledger.as_str().to_owned(),
            line(slope.base),
            line(slope.new),
            match &slope.repeats {
                Repeats::Yes => "yes".to_owned(),
                Repeats::No { gap } => format!("no: {} apart", human(*gap)),
                Repeats::Unknown { reason } => format!("unknown: {reason}"),
            },
        ]);
    }
    table
}

fn interval(ratio: Option<Ratio>) -> String {
    match ratio.and_then(|ratio| ratio.interval) {
        Some(interval) => format!("{:.3} to {:.3}", interval.low, interval.high),
        None => "–".to_owned(),
    }
}

fn frame<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}

/// A backend with its parameters under one workload, in all experiments.
struct Arm<'a> {
    label: &'a str,
    workload: Workload,
    cells: Vec<&'a CellSummary>,
}

fn arms(summary: &Summary) -> Vec<Arm<'_>> {
    let mut arms: Vec<Arm<'_>> = Vec::new();
    for cell in &summary.cells {
        let same =
            |arm: &&mut Arm<'_>| arm.label == cell.label && arm.workload == cell.cell.workload;
        match arms.iter_mut().find(same) {
            Some(arm) => arm.cells.push(cell),
            None => arms.push(Arm {
                label: &cell.label,
                workload: cell.cell.workload,
                cells: vec![cell],
            }),
        }
    }
    arms
}

impl Arm<'_> {
    fn row(&self) -> Vec<String> {
        let tried: usize = self.cells.iter().map(|cell| cell.tried).sum();
        let failed: usize = self.cells.iter().map(|cell| cell.failed).sum();
        let mut row = vec![self.label.to_owned(), self.workload.to_string()];
        if self.cells.iter().all(|cell| cell.outcome != Outcome::Ok) {
            row.push(format!("{}/{tried}", tried - failed));
            row.push(if tried == 0 { "skipped" } else { "failed" }.to_owned());
            return row;
        }
        row.extend([
            format!("{}/{tried}", tried - failed),
            self.value(Experiment::Startup, Metric::Startup(Mark::Ready)),
            self.gone(),
            self.value(Experiment::Memory, Metric::Memory(Ledger::Pss)),
            self.value(Experiment::Memory, Metric::Memory(Ledger::Cgroup)),
            self.marginal(),
            self.alive(),
        ]);
        row
    }

    fn cell(&self, experiment: Experiment) -> Option<&CellSummary> {
        self.cells.iter().find(|cell| cell.cell.experiment == experiment).copied()
    }

    /// A median; a dash when the plan has the experiment but no value came.
    fn value(&self, experiment: Experiment, metric: Metric) -> String {
        let Some(cell) = self.cell(experiment) else { return String::new() };
        match cell.values(metric) {
            Some(values) => metric.unit().human(values.median),
            None => "–".to_owned(),
        }
    }

    /// Time to gone; for an instance that was stopped, counted from that stop.
    fn gone(&self) -> String {
        let stop = Metric::Stop(Mark::Gone);
        match self.cell(Experiment::Startup).and_then(|cell| cell.values(stop)) {
            Some(values) => format!("stop+{}", stop.unit().human(values.median)),
            None => self.value(Experiment::Startup, Metric::Startup(Mark::Gone)),
        }
    }

    /// The cost of one more instance, by the cgroup's ledger if there is one.
    fn marginal(&self) -> String {
        let of = |experiment| self.cell(experiment).filter(|cell| !cell.marginals.is_empty());
        let Some(cell) = of(Experiment::Memory).or_else(|| of(Experiment::Density)) else {
            return String::new();
        };
        let line = |ledger| cell.marginal(ledger).map(|line| (ledger, line.slope));
        match line(Ledger::Cgroup).or_else(|| line(Ledger::Pss)) {
            Some((ledger, slope)) => {
                format!("{} ({})", Metric::Marginal(ledger).unit().human(slope), ledger.as_str())
            }
            None => "–".to_owned(),
        }
    }

    fn alive(&self) -> String {
        let Some(cell) = self.cell(Experiment::Density) else { return String::new() };
        let Some(values) = cell.values(Metric::DensityInstances) else { return "–".to_owned() };
        let most = Metric::DensityInstances.unit().human(values.max);
        match cell.limits.first() {
            Some(limit) => format!("{most} ({})", limit.text),
            None => most,
        }
    }
}
