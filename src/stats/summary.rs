//! What a run says: the types of `summary.json`.
//!
//! Everything here is derived from a manifest and its samples and can be
//! rebuilt from them at any time; [`Summary::build`] does so. Values that could
//! not be measured are absent with their reasons, never zero.

use serde::{Deserialize, Serialize};

use super::flags::Flag;
use super::ledgers::CrossCheck;
use super::order::Interval;
use super::slope::Line;
use super::timeline::{Phase, TimelineCheck};
use super::within::{Comparison, Control};
use crate::record::{CellKey, Ledger, Metric, Outcome, RunState};

/// The summary of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// [`crate::record::SCHEMA_VERSION`] of the program that wrote it.
    pub schema: u32,
    /// Id of the run.
    pub run_id: String,
    /// How far the run came.
    pub state: RunState,
    /// Seed of the order, and of every bootstrap here.
    pub seed: u64,
    /// Conditions that every number must carry, from the manifest.
    pub labels: Vec<String>,
    /// Every cell of the plan, measured or not, in the plan's order.
    pub cells: Vec<CellSummary>,
    /// Whether the timelines of all trials are consistent.
    pub timeline: TimelineCheck,
    /// The A/A controls: the null backend against itself.
    pub controls: Vec<Control>,
    /// All comparisons; the p-values are adjusted over exactly these.
    pub comparisons: Vec<Comparison>,
}

/// A reason and how often it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The reason, with the metric that was due when it is one of a failure.
    pub text: String,
    /// How often.
    pub count: usize,
}

/// One cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellSummary {
    /// Its identity.
    pub cell: CellKey,
    /// Its name in charts and tables.
    pub label: String,
    /// Accelerator of a VM cell: `tcg` or `kvm`.
    pub accelerator: Option<String>,
    /// Trials that the plan asked for.
    pub planned: u32,
    /// Trials that ran, failed ones among them.
    pub tried: usize,
    /// Trials in which at least one value could not be measured.
    pub failed: usize,
    /// `Skipped` when it never ran, `Failed` when no trial gave a value, else
    /// `Ok`. Also `Skipped` when a run ended before the cell's first trial.
    pub outcome: Outcome,
    /// The first different reasons of failures and skips.
    pub reasons: Vec<Reason>,
    /// Remarks on the cell as a whole.
    pub flags: Vec<Flag>,
    /// Its metrics, in the order of reports, density steps ascending.
    pub metrics: Vec<MetricSummary>,
    /// Median phases of the instance's life; empty without start-up marks.
    pub phases: Vec<Phase>,
    /// What one more instance costs, by ledger; empty where a trial has one
    /// instance only.
    pub marginals: Vec<Marginal>,
    /// Those slopes against each other.
    #[serde(default)]
    pub cross_check: Option<CrossCheck>,
    /// What ended each density ladder, and how often.
    pub limits: Vec<Reason>,
}

/// One metric of one cell (and one step of a density ladder).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricSummary {
    /// The metric; its unit follows from it.
    pub metric: Metric,
    /// Live instances, in a density ladder.
    pub step: Option<u32>,
    /// Values measured.
    pub n: usize,
    /// Failed trials that left no value of this metric.
    pub failed: usize,
    /// Rows that say why this metric was not measured.
    pub skipped: usize,
    /// First different reasons of missing values of this metric.
    pub reasons: Vec<Reason>,
    /// The distribution; absent when n is zero.
    pub values: Option<Distribution>,
    /// Remarks on the values.
    pub flags: Vec<Flag>,
}

/// Figures of a list of values, in the metric's unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Smallest.
    pub min: f64,
    /// Median.
    pub median: f64,
    /// 95 % order-statistic interval of the median, from six values on.
    pub interval: Option<Interval>,
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation, from two values on.
    pub sd: Option<f64>,
    /// 90th percentile, from 36 values on.
    pub p90: Option<f64>,
    /// 95th percentile, from 72 values on.
    pub p95: Option<f64>,
    /// 99th percentile, from 368 values on.
    pub p99: Option<f64>,
    /// 99.9th percentile, from 3688 values on.
    pub p999: Option<f64>,
    /// Largest.
    pub max: f64,
}

/// What one more instance costs by one ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Marginal {
    /// The ledger.
    pub ledger: Ledger,
    /// Theil-Sen line of total bytes over live instances; its slope is the
    /// cost, its intercept the fixed part.
    pub line: Option<Line>,
    /// Why there is no line.
    pub reason: Option<String>,
}

impl Marginal {
    /// The name of the metric that the slope is a value of.
    #[must_use]
    pub fn metric(&self) -> Metric {
        Metric::Marginal(self.ledger)
    }
}

impl CellSummary {
    /// The summary of a metric outside of density steps.
    #[must_use]
    pub fn metric(&self, metric: Metric) -> Option<&MetricSummary> {
        self.metrics.iter().find(|found| found.metric == metric && found.step.is_none())
    }

    /// The distribution of a metric outside of density steps, if measured.
    #[must_use]
    pub fn values(&self, metric: Metric) -> Option<&Distribution> {
        self.metric(metric)?.values.as_ref()
    }

    /// The line of one ledger, if there is one.
    #[must_use]
    pub fn marginal(&self, ledger: Ledger) -> Option<&Line> {
        self.marginals.iter().find(|found| found.ledger == ledger)?.line.as_ref()
    }

    /// Whether this is the null backend's second label, the A/A control.
    #[must_use]
    pub fn is_control(&self) -> bool {
        super::within::is_control(&self.cell)
    }

    /// Why the cell has no values, for a place where a number would stand.
    #[must_use]
    pub fn why_missing(&self) -> String {
        match (self.outcome, self.reasons.first()) {
            (Outcome::Skipped, Some(reason)) => format!("skipped: {}", reason.text),
            (Outcome::Skipped, None) => "not run".to_owned(),
            (_, Some(reason)) => format!("not measured: {}", reason.text),
            (_, None) => "not measured".to_owned(),
        }
    }
}

impl Summary {
    /// The comparison of one cell with another on one metric.
    #[must_use]
    pub fn comparison(
        &self,
        subject: &CellKey,
        baseline: &CellKey,
        metric: Metric,
    ) -> Option<&Comparison> {
        self.comparisons.iter().find(|found| {
            found.metric == metric && found.subject == *subject && found.baseline == *baseline
        })
    }
}
