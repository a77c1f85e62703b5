//! What stands around every figure: title, conditions above, caption below.

use plotters::prelude::DrawingBackend;

use super::ChartError;
use super::canvas::{Anchor, Canvas, Drawn, Type, WIDTH, wrap};
use crate::record::{Manifest, Outcome};
use crate::stats::CellSummary;

/// Distance of everything from the sheet's edge.
pub(super) const MARGIN: f64 = 16.0;
const LINE: f64 = 15.0;

/// Title, conditions and caption, broken into lines.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) title: String,
    conditions: Vec<String>,
    caption: Vec<String>,
}

impl Frame {
    /// A frame for a figure of `cells`; `notes` explain how to read it.
    pub(super) fn new(
        title: String,
        manifest: &Manifest,
        cells: &[&CellSummary],
        notes: &str,
    ) -> Result<Self, ChartError> {
        let limit = WIDTH - 2.0 * MARGIN;
        let mut caption = wrap(notes, Type::NOTE, limit)?;
        caption.extend(wrap(&failures(cells), Type::NOTE, limit)?);
        let conditions = wrap(&conditions(manifest, cells), Type::NOTE, limit)?;
        Ok(Self { title, conditions, caption })
    }

    /// Where the figure itself begins.
    pub(super) fn top(&self) -> f64 {
        MARGIN + 26.0 + self.conditions.len() as f64 * LINE + 12.0
    }

    /// Height of the sheet when the figure itself ends at `bottom`.
    pub(super) fn height(&self, bottom: f64) -> f64 {
        bottom + 12.0 + self.caption.len() as f64 * LINE + MARGIN / 2.0
    }

    pub(super) fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>, bottom: f64) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        canvas.text(&self.title, (MARGIN, MARGIN + 9.0), Type::TITLE, Anchor::Left)?;
        for (line, y) in self.conditions.iter().zip(lines(MARGIN + 33.0)) {
            canvas.text(line, (MARGIN, y), Type::NOTE, Anchor::Left)?;
        }
        for (line, y) in self.caption.iter().zip(lines(bottom + 18.0)) {
            canvas.text(line, (MARGIN, y), Type::NOTE, Anchor::Left)?;
        }
        Ok(())
    }
}

/// Heights of lines of text, from the first one on.
pub(super) fn lines(first: f64) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(first), |y| Some(y + LINE))
}

/// The conditions that a reader must know: labels, processor, kernel, trials.
fn conditions(manifest: &Manifest, cells: &[&CellSummary]) -> String {
    let fact = |name: &str| {
        manifest.host_before.iter().find(|fact| fact.name == name).map(|fact| fact.value.clone())
    };
    let mut parts = manifest.labels.clone();
    parts.extend(fact("cpu.model"));
    parts.extend(fact("kernel.release").map(|release| format!("Linux {release}")));
    let tried = || cells.iter().map(|cell| cell.tried).filter(|tried| *tried > 0);
    match (tried().min(), tried().max()) {
        (Some(least), Some(most)) if least == most => parts.push(format!("n = {most} per cell")),
        (Some(least), Some(most)) => parts.push(format!("n = {least} to {most} per cell")),
        _ => parts.push("nothing measured".to_owned()),
    }
    parts.push(format!("run {}", manifest.run_id));
    parts.join(" · ")
}

/// Failed and skipped cells, with their reasons.
fn failures(cells: &[&CellSummary]) -> String {
    let failed: Vec<String> = cells
        .iter()
        .filter(|cell| cell.failed > 0)
        .map(|cell| format!("{} {} of {}", cell.label, cell.failed, cell.tried))
        .collect();
    let missing: Vec<String> = cells
        .iter()
        .filter(|cell| cell.outcome != Outcome::Ok)
        .map(|cell| format!("{} ({})", cell.label, cell.why_missing()))
        .collect();
    let list = |what: &str, items: &[String]| match items {
        [] => format!("{what}: none."),
        items => format!("{what}: {}.", items.join("; ")),
    };
    format!("{} {}", list("Failed trials", &failed), list("Missing", &missing))
}
