//! One row of `samples.csv`: between its text and a [`Sample`].

use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::homely;
use crate::record::{CellKey, Clock, Metric, Outcome, Params, Sample};
use crate::units::Unit;

/// The columns of `samples.csv`, in order.
pub const COLUMNS: [&str; 15] = [
    "run_id",
    "round",
    "trial",
    "rows",
    "step",
    "experiment",
    "backend",
    "workload",
    "params",
    "metric",
    "unit",
    "clock",
    "value",
    "outcome",
    "detail",
];

/// A row as it is written: every column as text.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row<'a> {
    pub run_id: &'a str,
    round: &'a str,
    trial: &'a str,
    rows: &'a str,
    step: &'a str,
    experiment: &'a str,
    backend: &'a str,
    workload: &'a str,
    params: &'a str,
    metric: &'a str,
    unit: &'a str,
    clock: &'a str,
    value: &'a str,
    outcome: &'a str,
    detail: &'a str,
}

/// What is wrong with a row, and in which column.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub column: Option<&'static str>,
    pub problem: String,
}

impl Fault {
    fn new(column: &'static str, problem: impl Into<String>) -> Self {
        Self { column: Some(column), problem: problem.into() }
    }
}

/// Appends one row to `buffer`. `rows` is the number of rows of its trial.
pub(super) fn write(
    buffer: &mut Vec<u8>,
    run_id: &str,
    rows: usize,
    sample: &Sample,
) -> Result<(), Fault> {
    let detail = one_line(&homely(&sample.detail));
    check(sample, &detail)?;
    let CellKey { experiment, backend, workload, params } = &sample.cell;
    let row = Row {
        run_id,
        round: &sample.round.to_string(),
        trial: &sample.trial.to_string(),
        rows: &rows.to_string(),
        step: &sample.step.map(|step| step.to_string()).unwrap_or_default(),
        experiment: experiment.as_str(),
        backend: backend.as_str(),
        workload: &workload.to_string(),
        params: &params.to_string(),
        metric: &sample.metric.to_string(),
        unit: sample.metric.unit().as_str(),
        clock: &name_of(&sample.clock),
        value: &sample.value.map(|value| value.to_string()).unwrap_or_default(),
        outcome: &name_of(&sample.outcome),
        detail: &detail,
    };
    csv::WriterBuilder::new()
        .has_headers(false)
        .from_writer(buffer)
        .serialize(row)
        .map_err(|error| Fault { column: None, problem: error.to_string() })
}

impl Row<'_> {
    /// The sample, and the number of rows of its trial.
    pub(super) fn sample(&self) -> Result<(Sample, u32), Fault> {
        let metric: Metric = parse("metric", self.metric)?;
        let unit: Unit = named("unit", self.unit)?;
        if unit != metric.unit() {
            let problem = format!("`{unit}`, but {metric} is in `{}`", metric.unit());
            return Err(Fault::new("unit", problem));
        }
        let params: Params = parse("params", self.params)?;
        if params.to_string() != self.params {
            return Err(Fault::new("params", format!("`{}` is not in sorted order", self.params)));
        }
        let sample = Sample {
            round: number("round", self.round)?,
            trial: number("trial", self.trial)?,
            step: optional(self.step, |text| number("step", text))?,
            cell: CellKey {
                experiment: named("experiment", self.experiment)?,
                backend: named("backend", self.backend)?,
                workload: parse("workload", self.workload)?,
                params,
            },
            metric,
            clock: named::<Clock>("clock", self.clock)?,
            value: optional(self.value, value)?,
            outcome: named::<Outcome>("outcome", self.outcome)?,
            detail: self.detail.to_owned(),
        };
        check(&sample, self.detail)?;
        if one_line(self.detail) != self.detail {
            return Err(Fault::new("detail", "it has a line break or a control character"));
        }
        let rows = number("rows", self.rows)?;
        if rows == 0 {
            return Err(Fault::new("rows", "a trial has at least one row"));
        }
        Ok((sample, rows))
    }
}

/// What must hold for every sample, written or read.
fn check(sample: &Sample, detail: &str) -> Result<(), Fault> {
    match (sample.outcome, sample.value) {
        (Outcome::Ok, None) => return Err(Fault::new("value", "an ok row has no value")),
        (Outcome::Ok, Some(value)) if !value.is_finite() => {
            return Err(Fault::new("value", format!("{value} is not a number")));
        }
        (Outcome::Ok, Some(_)) => {}
        (_, Some(_)) => return Err(Fault::new("value", "a row that is not ok has a value")),
        (_, None) if detail.trim().is_empty() => {
            return Err(Fault::new("detail", "a row that is not ok gives no reason"));
        }
        (_, None) => {}
    }
    if (sample.round == 0) != (sample.trial == 0) {
        return Err(Fault::new("round", "only a cell that never ran has round 0 and trial 0"));
    }
    Ok(())
}

/// Line breaks and other control characters become spaces: a record is one
/// line, for `grep` as for the reader.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn optional<T>(text: &str, read: impl Fn(&str) -> Result<T, Fault>) -> Result<Option<T>, Fault> {
    if text.is_empty() { Ok(None) } else { read(text).map(Some) }
}

fn parse<T: FromStr<Err: ToString>>(column: &'static str, text: &str) -> Result<T, Fault> {
    text.parse().map_err(|error: T::Err| Fault::new(column, error.to_string()))
}

fn number(column: &'static str, text: &str) -> Result<u32, Fault> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| Fault::new(column, format!("`{text}` is not a whole number")))
}

fn value(text: &str) -> Result<f64, Fault> {
    text.parse()
        .ok()
        .filter(|value: &f64| value.is_finite())
        .ok_or_else(|| Fault::new("value", format!("`{text}` is not a number")))
}

/// Reads a name as serde knows it, so that each list of names exists once.
fn named<T: DeserializeOwned>(column: &'static str, text: &str) -> Result<T, Fault> {
    serde_json::from_value(serde_json::Value::from(text)).map_err(|error| {
        let expected = error.to_string();
        let expected = expected.split_once(", ").map_or("", |(_, expected)| expected);
        Fault::new(column, format!("unknown name `{text}`, {expected}"))
    })
}

/// The name under which serde writes a unit variant.
fn name_of<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        other => format!("{other:?}"),
    }
}
