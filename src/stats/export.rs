//! `summary.csv` and `summary.json` as text. Writing files is the caller's.

use super::StatsError;
use super::summary::{CellSummary, Distribution, MetricSummary, Reason, Summary};
use crate::record::Outcome;

/// The columns of `summary.csv`. Values are in the unit of their row; an empty
/// field means that there is no such value. A `memory.marginal` row holds the
/// slope as its median and the number of points as its n.
pub const COLUMNS: [&str; 25] = [
    "run_id",
    "experiment",
    "backend",
    "workload",
    "params",
    "metric",
    "unit",
    "step",
    "outcome",
    "planned",
    "n",
    "failed",
    "skipped",
    "min",
    "median",
    "low",
    "high",
    "mean",
    "sd",
    "p90",
    "p95",
    "p99",
    "p999",
    "max",
    "remarks",
];

impl Summary {
    /// The rows of `summary.csv` with a header: one per cell, metric and step;
    /// a cell without any value has one row that says why.
    ///
    /// # Errors
    /// When a row cannot be written as CSV.
    pub fn to_csv(&self) -> Result<String, StatsError> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let write = |writer: &mut csv::Writer<Vec<u8>>, row: &[String]| {
            writer.write_record(row).map_err(StatsError::Csv)
        };
        writer.write_record(COLUMNS).map_err(StatsError::Csv)?;
        for cell in &self.cells {
            if cell.metrics.is_empty() {
                write(&mut writer, &row(&self.run_id, cell, &Entry::nothing(cell)))?;
            }
            for metric in &cell.metrics {
                write(&mut writer, &row(&self.run_id, cell, &Entry::of(cell, metric)))?;
            }
            for marginal in &cell.marginals {
                write(&mut writer, &row(&self.run_id, cell, &Entry::marginal(marginal)))?;
            }
        }
        let bytes =
            writer.into_inner().map_err(|error| StatsError::Csv(error.into_error().into()))?;
        String::from_utf8(bytes).map_err(|error| StatsError::Text(error.utf8_error()))
    }

    /// The text of `summary.json`, indented, with a newline at its end.
    ///
    /// # Errors
    /// When a value has no JSON form.
    pub fn to_json(&self) -> Result<String, StatsError> {
        let mut text = serde_json::to_string_pretty(self).map_err(StatsError::Json)?;
        text.push('\n');
        Ok(text)
    }
}

/// The part of a row that differs between the metrics of a cell.
struct Entry {
    metric: String,
    unit: &'static str,
    step: Option<u32>,
    outcome: Outcome,
    counts: [usize; 3],
    figures: [Option<f64>; 11],
    remarks: Vec<String>,
}

impl Entry {
    fn nothing(cell: &CellSummary) -> Self {
        Self {
            metric: String::new(),
            unit: "",
            step: None,
            outcome: cell.outcome,
            counts: [0, cell.failed, 0],
            figures: [None; 11],
            remarks: texts(&cell.reasons),
        }
    }

    fn of(cell: &CellSummary, summary: &MetricSummary) -> Self {
        let outcome = match (summary.n, cell.outcome) {
            (0, Outcome::Skipped) => Outcome::Skipped,
            (0, _) if summary.failed == 0 && summary.skipped > 0 => Outcome::Skipped,
            (0, _) => Outcome::Failed,
            _ => Outcome::Ok,
        };
        let flags = cell.flags.iter().chain(&summary.flags).map(ToString::to_string);
        Self {
            metric: summary.metric.to_string(),
            unit: summary.metric.unit().as_str(),
            step: summary.step,
            outcome,
            counts: [summary.n, summary.failed, summary.skipped],
            figures: summary.values.as_ref().map_or([None; 11], figures),
            remarks: texts(&summary.reasons).into_iter().chain(flags).collect(),
        }
    }

    fn marginal(marginal: &super::Marginal) -> Self {
        let mut figures = [None; 11];
        figures[1] = marginal.line.map(|line| line.slope);
        let interval = marginal.line.and_then(|line| line.interval);
        figures[2] = interval.map(|interval| interval.low);
        figures[3] = interval.map(|interval| interval.high);
        Self {
            metric: marginal.metric().to_string(),
            unit: marginal.metric().unit().as_str(),
            step: None,
            outcome: if marginal.line.is_some() { Outcome::Ok } else { Outcome::Skipped },
            counts: [marginal.line.map_or(0, |line| line.points), 0, 0],
            figures,
            remarks: marginal.reason.iter().cloned().collect(),
        }
    }
}

fn texts(reasons: &[Reason]) -> Vec<String> {
    reasons.iter().map(|reason| reason.text.clone()).collect()
}

/// From `min` to `max` in the order of [`COLUMNS`].
fn figures(values: &Distribution) -> [Option<f64>; 11] {
    [
        Some(values.min),
        Some(values.median),
        values.interval.map(|interval| interval.low),
        values.interval.map(|interval| interval.high),
        Some(values.mean),
        values.sd,
        values.p90,
        values.p95,
        values.p99,
        values.p999,
        Some(values.max),
    ]
}

fn row(run_id: &str, cell: &CellSummary, entry: &Entry) -> Vec<String> {
    let key = &cell.cell;
    let outcome = match entry.outcome {
        Outcome::Ok => "ok",
        Outcome::Failed => "failed",
        Outcome::Skipped => "skipped",
    };
    let mut row = vec![
        run_id.to_owned(),
        key.experiment.to_string(),
        key.backend.to_string(),
        key.workload.to_string(),
        key.params.to_string(),
        entry.metric.clone(),
        entry.unit.to_owned(),
        entry.step.map(|step| step.to_string()).unwrap_or_default(),
        outcome.to_owned(),
        cell.planned.to_string(),
    ];
    row.extend(entry.counts.iter().map(ToString::to_string));
    row.extend(entry.figures.iter().map(|value| value.map(|v| v.to_string()).unwrap_or_default()));
    row.push(entry.remarks.join("; "));
    row
}
