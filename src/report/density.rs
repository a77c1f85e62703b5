//! Tables of the page about many instances: ledgers against each other, starts
//! among many, and how many would fit.

use super::page::{Row, interval};
use crate::record::{Experiment, Manifest, Metric, Throughput};
use crate::stats::{Capacity, Demand, Summary};
use crate::units::Unit;

/// Slopes of each cell against each other, and what lies between them.
pub(super) fn ledgers(summary: &Summary) -> Vec<Row> {
    let checked = summary.cells.iter().filter_map(|cell| Some((cell, cell.cross_check.as_ref()?)));
    checked
        .map(|(cell, check)| {
            let human = |value: Option<f64>| {
                value.map_or("–".to_owned(), |value| Unit::Bytes.human(value))
            };
            let parts: Vec<String> = check
                .parts
                .iter()
                .map(|part| format!("{} {}", part.metric, human(Some(part.line.slope))))
                .collect();
            Row {
                class: if check.agree { "" } else { "differs" },
                fields: vec![
                    cell.cell.to_string(),
                    human(Some(check.pss)),
                    human(check.cgroup),
                    human(check.host),
                    human(check.residue_cgroup),
                    human(check.residue_host),
                    parts.join(", "),
                ],
            }
        })
        .collect()
}

/// Starts and stops among many: one row for each value of each step.
pub(super) fn scale(summary: &Summary) -> Vec<Row> {
    let cells = summary.cells.iter().filter(|cell| cell.cell.experiment == Experiment::Scale);
    let mut rows = Vec::new();
    for cell in cells {
        let found = cell.metrics.iter().filter(|found| matches!(found.metric, Metric::Scale(_)));
        for found in found {
            let (Metric::Scale(what), Some(step)) = (found.metric, found.step) else { continue };
            let unit = found.metric.unit();
            let values = found.values.as_ref();
            let reasons: Vec<&str> =
                found.reasons.iter().map(|reason| reason.text.as_str()).collect();
            rows.push(Row {
                class: if values.is_none() { "withheld" } else { "" },
                fields: vec![
                    cell.cell.to_string(),
                    described(what, step),
                    found.n.to_string(),
                    values.map_or("–".to_owned(), |values| unit.human(values.median)),
                    interval(values.and_then(|values| values.interval), unit),
                    values.map_or("–".to_owned(), |values| unit.human(values.max)),
                    reasons.join("; "),
                ],
            });
        }
    }
    rows
}

/// What a step of a metric means.
fn described(what: Throughput, step: u32) -> String {
    match what {
        Throughput::Start => format!("next start, {step} running"),
        Throughput::Stop => format!("its stop, {step} others running"),
        Throughput::Destroy => format!("end of all {step}"),
        Throughput::FlightStarts => format!("starts a second, {step} at once"),
        Throughput::FlightStops => format!("stops a second, {step} at once"),
        Throughput::FlightReady => format!("start, {step} at once"),
        Throughput::OpenReady => format!("due to ready, {step} arrivals a second"),
        Throughput::OpenLate => format!("due to request, {step} arrivals a second"),
    }
}

/// How many instances the run's own host would hold.
pub(super) fn capacity(manifest: &Manifest, summary: &Summary) -> Option<Capacity> {
    let demand = Demand::of_host(&manifest.host_before)?;
    let capacity = Capacity::of(summary, demand);
    (!capacity.fits.is_empty()).then_some(capacity)
}

/// The rows of that table.
pub(super) fn fits(capacity: &Capacity) -> Vec<Row> {
    capacity.fits.iter().map(|fit| Row { class: "", fields: fit.fields() }).collect()
}
