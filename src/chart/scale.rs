//! The start of the n-th instance with all others running, beside what others
//! published of theirs.

use super::ChartError;
use super::arms::{self, Style};
use super::density::{Curve, Panel, two_lines};
use super::frame::Frame;
use super::published::published;
use super::render::Panels;
use crate::record::{Experiment, Manifest, Metric, Throughput, Workload};
use crate::stats::{CellSummary, Summary};
use crate::units::Unit;

/// The figure of one workload.
pub(super) fn scale(
    manifest: &Manifest,
    summary: &Summary,
    workload: Workload,
) -> Result<Panels<Panel>, ChartError> {
    let cells = arms::cells(summary, Experiment::Scale, workload);
    let mut curves = Vec::new();
    for cell in &cells {
        let (points, style) = (starts(cell), arms::style(summary, &cell.cell));
        curves.push(Curve { style, label: two_lines(&label(cell, &points))?, points });
    }
    let context = published()?.start;
    for curve in &context {
        let label = two_lines(&format!("published: {}", curve.name))?;
        let points = curve.points.clone();
        curves.push(Curve { style: Style::PUBLISHED, points, label });
    }
    let sources: Vec<String> = context
        .iter()
        .map(|curve| format!("{}: {} ({})", curve.name, curve.source, curve.hardware))
        .collect();
    let frame = Frame::new(
        format!("The next start among many: workload {workload}"),
        manifest,
        &cells,
        &format!(
            "Medians of the time from request to ready of the n-th instance, the others idle; \
                 both axes are logarithmic. Broken lines join figures that others published, on \
                 other hardware and by other definitions, for context only; between their two \
                 points nothing was published. {}.",
            sources.join("; ")
        ),
    )?;
    let title = "time from request to ready of the n-th instance".to_owned();
    let panel = Panel { title, unit: Unit::Nanoseconds, counts: "n-th instance", curves };
    Ok(Panels { frame, panels: vec![panel], beneath: 12.0 })
}

/// Medians over the number of the instance that is started.
fn starts(cell: &CellSummary) -> Vec<(f64, f64)> {
    cell.metrics
        .iter()
        .filter(|found| found.metric == Metric::Scale(Throughput::Start))
        .filter_map(|found| Some((f64::from(found.step?) + 1.0, found.values.as_ref()?.median)))
        .collect()
}

fn label(cell: &CellSummary, points: &[(f64, f64)]) -> String {
    match (points.first(), points.last()) {
        (Some(first), Some(last)) => format!(
            "{}: {} alone, {} as number {:.0}",
            cell.label,
            Unit::Nanoseconds.human(first.1),
            Unit::Nanoseconds.human(last.1),
            last.0
        ),
        _ => format!("{}: {}", cell.label, cell.why_missing()),
    }
}
