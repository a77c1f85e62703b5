//! Statistics of a run: pure functions from samples to a [`Summary`].
//!
//! Nothing here reads a file, a clock or a random source other than the run's
//! own seed. No value is ever dropped, filled in or taken for zero: what was
//! not measured stays absent, with its reason.

mod across;
mod build;
mod capacity;
mod compare;
mod export;
mod flags;
mod group;
mod judge;
mod ledgers;
mod moments;
mod order;
mod rank_sum;
mod repeat;
mod slope;
mod summary;
mod timeline;
mod within;

#[cfg(test)]
mod simulation;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use across::{
    Change, DifferingFact, RunComparison, RunRef, compare_arms, compare_runs, same_cells,
};
pub use capacity::{Capacity, Demand, Fit, RESERVE};
pub use compare::{
    Difference, MOST_MEANS, Pair, RESAMPLES, Ratio, difference, hodges_lehmann, holm,
    permutation_p, ratio_of_medians, rounds_needed,
};
pub use export::COLUMNS;
pub use flags::{Flag, OUTLIER_Z, flags};
pub use judge::{LEAST_RATIO, LEVEL, Verdict};
pub use ledgers::{AGREE, CrossCheck, PartSlope};
pub use moments::{lag1, mean, sample_sd};
pub use order::{
    Interval, Percentile, Sorted, mad, median, median_interval, quantile, samples_needed,
};
pub use rank_sum::{BetweenRuns, between_runs, rank_sum_p, ratio_between, values_needed};
pub use repeat::{GRAIN, RepeatedSlope, Repeats, repeated_slopes};
pub use slope::{Line, MAX_POINTS, theil_sen};
pub use summary::{CellSummary, Distribution, Marginal, MetricSummary, Reason, Summary};
pub use timeline::{Phase, TOLERANCE_NS, TimelineCheck};
pub use within::{Comparison, Control, MAX_FAILED_SHARE, widest_ratio};

/// Why a summary could not be written as text.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// A row of `summary.csv`.
    #[error("cannot write summary.csv as text")]
    Csv(#[source] csv::Error),
    /// `summary.json`.
    #[error("cannot write summary.json as text")]
    Json(#[source] serde_json::Error),
    /// The CSV text.
    #[error("summary.csv is not UTF-8")]
    Text(#[source] std::str::Utf8Error),
}
