//! One row of `samples.csv`.

use serde::{Deserialize, Serialize};

use super::{CellKey, Metric};

/// Which clock or instrument a value was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The host's `CLOCK_MONOTONIC`.
    Monotonic,
    /// The harness's mock clock: exact ticks.
    Mock,
    /// Not a time: a kernel counter read at one moment.
    None,
}

/// What became of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Measured, and the work was verified.
    Ok,
    /// Tried, and did not come to its end; the detail says where and why.
    Failed,
    /// Not tried; the detail says why.
    Skipped,
}

/// One value of one metric of one trial, or the reason why there is none.
///
/// `value` is present exactly when `outcome` is [`Outcome::Ok`]: a missing
/// value can never be taken for a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Round in which the trial ran, from 1; 0 for a cell that never ran.
    pub round: u32,
    /// Position of the trial in the run, from 1; 0 for a cell that never ran.
    pub trial: u32,
    /// In a density ladder the number of live instances; else absent.
    pub step: Option<u32>,
    /// The cell.
    pub cell: CellKey,
    /// The metric; for a failed trial the one that was due next.
    pub metric: Metric,
    /// The clock.
    pub clock: Clock,
    /// The value in the metric's unit, when the outcome is ok.
    pub value: Option<f64>,
    /// What became of the trial.
    pub outcome: Outcome,
    /// Reason of a failure or skip, name of a limit, or empty.
    pub detail: String,
}
