//! What was measured, as rows for a file and as tables for a reader.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use unladen::stats::{Sorted, median, median_interval, ratio_of_medians};
use unladen::store;

use crate::measure::Taken;

/// All trials of one arm, by round.
pub type Trials = BTreeMap<u32, Taken>;

/// One trial, for the file.
pub struct Row {
    pub round: u32,
    pub trial: u32,
    pub backend: String,
    pub workload: String,
    pub params: String,
    pub metric: &'static str,
    pub taken: Taken,
}

/// Writes all trials in the format of a run's `samples.csv`.
pub fn write(path: &Path, run_id: &str, rows: &[Row]) -> Result<(), io::Error> {
    let mut file = csv::Writer::from_path(path)?;
    file.write_record(store::COLUMNS)?;
    for row in rows {
        let (value, outcome, detail) = match &row.taken {
            Ok(taken) => (taken.to_string(), "ok", String::new()),
            Err(reason) => (String::new(), "failed", reason.replace('\n', " ")),
        };
        let (round, trial) = (row.round.to_string(), row.trial.to_string());
        file.write_record([
            run_id,
            &round,
            &trial,
            "1",
            "",
            "startup",
            &row.backend,
            &row.workload,
            &row.params,
            row.metric,
            "ns",
            "monotonic",
            &value,
            outcome,
            &detail,
        ])?;
    }
    file.flush()
}

/// Values of one arm.
fn values(trials: &Trials) -> Vec<f64> {
    trials.values().flatten().map(|taken| *taken as f64).collect()
}

/// The median of an arm in nanoseconds.
pub fn median_of(trials: &Trials) -> Option<f64> {
    median(&Sorted::new(values(trials)))
}

/// An arm of the table.
pub struct Line<'a> {
    pub name: &'a str,
    pub trials: &'a Trials,
    /// Nanoseconds to take off each value.
    pub less: f64,
}

/// A table of medians with their intervals, and of ratios to `base`, paired
/// by round.
pub fn table(lines: &[Line<'_>], base: &Trials, base_name: &str, seed: u64) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let ratio = format!("times {base_name}");
    table.set_header([
        "",
        "least ms",
        "median ms",
        "95 % interval",
        ratio.as_str(),
        "95 % interval",
        "failed",
    ]);
    for line in lines {
        let sorted =
            Sorted::new(values(line.trials).into_iter().map(|value| value - line.less).collect());
        let ms = |value: f64| format!("{:.3}", value / 1e6);
        let pairs: Vec<(f64, f64)> = line
            .trials
            .iter()
            .filter_map(|(round, taken)| match (taken, base.get(round)) {
                (Ok(taken), Some(Ok(base))) => Some((*taken as f64 - line.less, *base as f64)),
                _ => None,
            })
            .collect();
        let ratio = ratio_of_medians(&pairs, seed);
        let both = |low: String, high: String| format!("{low} to {high}");
        let failed = line.trials.values().filter(|taken| taken.is_err()).count();
        table.add_row([
            line.name.to_owned(),
            sorted.as_slice().first().map_or_else(|| "-".to_owned(), |least| ms(*least)),
            median(&sorted).map_or_else(|| "-".to_owned(), ms),
            median_interval(&sorted)
                .map_or_else(|| "-".to_owned(), |i| both(ms(i.low), ms(i.high))),
            ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.2}", ratio.ratio)),
            ratio.and_then(|ratio| ratio.interval).map_or_else(
                || "-".to_owned(),
                |i| both(format!("{:.2}", i.low), format!("{:.2}", i.high)),
            ),
            format!("{failed} of {}", line.trials.len()),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// Why trials failed: each reason once, with its count.
pub fn failures(name: &str, trials: &Trials) -> String {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in trials.values().filter_map(|taken| taken.as_ref().err()) {
        *reasons.entry(reason).or_default() += 1;
    }
    let mut text = String::new();
    for (reason, count) in reasons {
        let _ = writeln!(text, "{name}: failed {count} times: {reason}");
    }
    text
}
