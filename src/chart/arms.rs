//! Who is in a chart: backends with their parameters, each with one colour
//! and one marker in all figures of a page.

use plotters::prelude::DrawingBackend;

use super::canvas::{Canvas, Colour, Drawn};
use crate::record::{BackendName, CellKey, Experiment, Workload};
use crate::stats::{CellSummary, Summary};

const BLUE: Colour = plotters::style::RGBColor(0x00, 0x72, 0xb2);
const SKY: Colour = plotters::style::RGBColor(0x56, 0xb4, 0xe9);
const GREEN: Colour = plotters::style::RGBColor(0x00, 0x9e, 0x73);
const VERMILLION: Colour = plotters::style::RGBColor(0xd5, 0x5e, 0x00);
const ORANGE: Colour = plotters::style::RGBColor(0xe6, 0x9f, 0x00);
const PURPLE: Colour = plotters::style::RGBColor(0xcc, 0x79, 0xa7);
const DARK: Colour = plotters::style::RGBColor(0x33, 0x33, 0x33);
const PALE: Colour = plotters::style::RGBColor(0x99, 0x99, 0x99);

/// Colour and marker of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) colour: Colour,
    marker: Marker,
}

/// Shape of a point, for readers and printers without colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    Disc,
    Square,
    Triangle,
    Diamond,
}

impl Style {
    /// What is not of this run at all.
    pub(super) const PUBLISHED: Self =
        Self { colour: super::canvas::GREY, marker: Marker::Diamond };

    /// Draws a curve: a marker at each point, joined by a line, which is broken
    /// for what others published.
    pub(super) fn path<DB: DrawingBackend>(self, canvas: &Canvas<DB>, path: &[(f64, f64)]) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        match (path.len() > 1, self == Self::PUBLISHED) {
            (true, true) => canvas.dashes(path, self.colour)?,
            (true, false) => canvas.line(path, self.colour, 1.8)?,
            _ => {}
        }
        path.iter().try_for_each(|point| self.mark(canvas, *point))
    }

    /// Draws the cell's marker around a point.
    pub(super) fn mark<DB: DrawingBackend>(self, canvas: &Canvas<DB>, (x, y): (f64, f64)) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        let around = |offsets: &[(f64, f64)]| {
            let points: Vec<(f64, f64)> = offsets.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
            canvas.shape(&points, self.colour)
        };
        match self.marker {
            Marker::Disc => canvas.disc((x, y), 3.5, self.colour),
            Marker::Square => around(&[(-3.2, -3.2), (3.2, -3.2), (3.2, 3.2), (-3.2, 3.2)]),
            Marker::Triangle => around(&[(-4.2, 3.4), (4.2, 3.4), (0.0, -4.2)]),
            Marker::Diamond => around(&[(-4.4, 0.0), (0.0, -4.4), (4.4, 0.0), (0.0, 4.4)]),
        }
    }
}

/// The colour and the marker of a cell. The hues are those of Okabe and Ito,
/// "Color Universal Design" (2008), distinct to readers with any kind of
/// colour vision: grey for the null backend, cold ones for containers, warm
/// ones for virtual machines.
pub(super) fn style(summary: &Summary, key: &CellKey) -> Style {
    const MARKERS: [Marker; 4] = [Marker::Disc, Marker::Square, Marker::Triangle, Marker::Diamond];
    let mut arms: Vec<&CellKey> = Vec::new();
    for cell in summary.cells.iter().map(|found| &found.cell) {
        let alike = cell.backend == key.backend || (is_peer(cell) && is_peer(key));
        let known = |arm: &&CellKey| arm.params == cell.params && arm.backend == cell.backend;
        if alike && !arms.iter().any(known) {
            arms.push(cell);
        }
    }
    let ours = |arm: &&CellKey| arm.params == key.params && arm.backend == key.backend;
    let index = arms.iter().position(ours).unwrap_or(0);
    let hues: &[Colour] = match key.backend {
        BackendName::Process => &[DARK, PALE],
        BackendName::Container => &[BLUE, SKY, GREEN],
        BackendName::Peer(_) => &[GREEN, SKY, PALE, BLUE, DARK],
        BackendName::KvmBare => &[PURPLE],
        BackendName::Vm => &[VERMILLION, ORANGE, PURPLE],
        BackendName::Mock => &[GREEN, PURPLE, SKY, ORANGE],
    };
    // Up to three hues or five, and four markers: no pair returns for at least
    // four, or twenty.
    Style { colour: hues[index % hues.len()], marker: MARKERS[index % MARKERS.len()] }
}

/// Whether a cell is of somebody else's system: those share their colours.
fn is_peer(key: &CellKey) -> bool {
    matches!(key.backend, BackendName::Peer(_))
}

/// The cells of one experiment and workload, in the plan's order.
pub(super) fn cells(
    summary: &Summary,
    experiment: Experiment,
    workload: Workload,
) -> Vec<&CellSummary> {
    let wanted =
        |cell: &&CellSummary| cell.cell.experiment == experiment && cell.cell.workload == workload;
    summary.cells.iter().filter(wanted).collect()
}

/// The workloads of an experiment, in the plan's order.
pub(super) fn workloads(summary: &Summary, experiment: Experiment) -> Vec<Workload> {
    let mut found = Vec::new();
    for cell in summary.cells.iter().filter(|cell| cell.cell.experiment == experiment) {
        if !found.contains(&cell.cell.workload) {
            found.push(cell.cell.workload);
        }
    }
    found
}
