//! What the memory of one more instance consists of, in stacked bars: by its
//! memory cgroup, and of a machine by PSS. Each panel is one ledger.

use plotters::prelude::DrawingBackend;
use plotters::style::RGBColor;

use super::ChartError;
use super::arms;
use super::axis::Linear;
use super::canvas::{Anchor, Canvas, Colour, Drawn, GREY, Type, shortened};
use super::frame::{Frame, MARGIN};
use super::published::{Overhead, published};
use super::render::{DrawPanel, Panels};
use crate::record::{Charge, Experiment, Ledger, Manifest, Metric, Part, Workload};
use crate::stats::{CellSummary, Summary};
use crate::units::Unit;

const LEFT: f64 = 300.0;
const RIGHT: f64 = 840.0;
const LABELS: f64 = LEFT - MARGIN - 10.0;
const ROW: f64 = 22.0;
const HEAD: f64 = 44.0;
const FOOT: f64 = 34.0;

/// Hues of Okabe and Ito, one for each kind.
const HUES: [Colour; 5] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x00, 0x9e, 0x73),
];

/// One ledger.
pub(super) struct Panel {
    title: String,
    kinds: Vec<&'static str>,
    bars: Vec<Bar>,
    /// Published totals, for context.
    context: Vec<Overhead>,
}

struct Bar {
    label: String,
    /// One for each kind; below zero is nothing to draw.
    values: Vec<f64>,
}

/// The figure of one workload; absent when the run has nothing to stack.
pub(super) fn stack(
    manifest: &Manifest,
    summary: &Summary,
    workload: Workload,
) -> Result<Option<Panels<Panel>>, ChartError> {
    let cells = arms::cells(summary, Experiment::Memory, workload);
    let cells: Vec<&CellSummary> = cells.into_iter().filter(|cell| !cell.is_control()).collect();
    let context = published()?.overhead;
    let charges = bars(&cells, charges)?;
    let parts = bars(&cells, machine_parts)?;
    let beside = bars(&cells, beside_guest)?;
    let panels: Vec<Panel> = [
        Panel {
            title: "cgroup: what one more instance adds to the charges".to_owned(),
            kinds: vec!["anonymous", "page cache", "kernel", "charged in advance"],
            bars: charges,
            context: Vec::new(),
        },
        Panel {
            title: "PSS: what a machine consists of".to_owned(),
            kinds: vec!["guest memory", "translated code", "monitor", "text", "image"],
            bars: parts,
            context: Vec::new(),
        },
        Panel {
            title: "RSS: the same without the guest's memory and image".to_owned(),
            kinds: vec!["translated code", "monitor", "text"],
            bars: beside,
            context: context.clone(),
        },
    ]
    .into_iter()
    .filter(|panel| !panel.bars.is_empty())
    .collect();
    if panels.is_empty() {
        return Ok(None);
    }
    let sources: Vec<String> = context
        .iter()
        .map(|found| format!("{}: {} ({})", found.name, found.source, found.hardware))
        .collect();
    let frame = Frame::new(
        format!("What memory consists of: workload {workload}"),
        manifest,
        &cells,
        &format!(
            "Each panel is one ledger on a linear axis of its own: never add panels. Charges are \
                 slopes over the number of instances where the run has them, else medians of one; \
                 parts are medians of one. Upright lines are figures that others published, on \
                 other hardware and without translated code, for context only. {}.",
            sources.join("; ")
        ),
    )?;
    Ok(Some(Panels { frame, panels, beneath: 8.0 }))
}

/// The bars of all cells that have every value.
fn bars(
    cells: &[&CellSummary],
    values: fn(&CellSummary) -> Option<Vec<f64>>,
) -> Result<Vec<Bar>, ChartError> {
    cells
        .iter()
        .filter_map(|cell| Some((cell, values(cell)?)))
        .map(|(cell, values)| {
            Ok(Bar { label: shortened(&cell.label, Type::SMALL, LABELS)?, values })
        })
        .collect()
}

fn charges(cell: &CellSummary) -> Option<Vec<f64>> {
    let one = |kind| {
        let metric = Metric::Charge(kind);
        let slope = cell.cross_check.as_ref().and_then(|check| {
            let part = check.parts.iter().find(|part| part.metric == metric)?;
            Some(part.line.slope)
        });
        slope.or_else(|| cell.values(metric).map(|values| values.median))
    };
    Charge::ALL.into_iter().map(one).collect()
}

fn parts_by(cell: &CellSummary, ledger: Ledger, wanted: &[Part]) -> Option<Vec<f64>> {
    let one = |part: &Part| cell.values(Metric::Part(*part, ledger)).map(|found| found.median);
    wanted.iter().map(one).collect()
}

fn machine_parts(cell: &CellSummary) -> Option<Vec<f64>> {
    parts_by(cell, Ledger::Pss, &Part::ALL)
}

fn beside_guest(cell: &CellSummary) -> Option<Vec<f64>> {
    parts_by(cell, Ledger::Rss, &[Part::Translation, Part::Vmm, Part::Text])
}

impl Panel {
    fn axis(&self) -> Linear {
        let totals = self.bars.iter().map(|bar| bar.values.iter().map(|v| v.max(0.0)).sum());
        let most = totals.chain(self.context.iter().map(|found| found.bytes)).fold(0.0, f64::max);
        Linear::to(most, LEFT, RIGHT)
    }

    fn legend<DB: DrawingBackend>(&self, canvas: &Canvas<DB>, y: f64) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        let mut x = LEFT;
        for (kind, hue) in self.kinds.iter().zip(HUES) {
            canvas.bar((x, y - 5.0), (x + 10.0, y + 5.0), hue)?;
            canvas.text(kind, (x + 15.0, y), Type::NOTE, Anchor::Left)?;
            x += 30.0 + super::canvas::width(kind, Type::NOTE)?;
        }
        Ok(())
    }
}

impl DrawPanel for Panel {
    fn height(&self) -> f64 {
        let context = if self.context.is_empty() { 0.0 } else { 16.0 * self.context.len() as f64 };
        HEAD + self.bars.len() as f64 * ROW + FOOT + context
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>, top: f64) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        canvas.text(&self.title, (MARGIN, top + 8.0), Type::HEAD, Anchor::Left)?;
        self.legend(canvas, top + 28.0)?;
        let (first, axis) = (top + HEAD, self.axis());
        let last = first + self.bars.len() as f64 * ROW;
        axis.draw_below(canvas, Unit::Bytes, (first, last))?;
        for (row, bar) in self.bars.iter().enumerate() {
            let y = first + (row as f64 + 0.5) * ROW;
            canvas.text(&bar.label, (LEFT - 8.0, y), Type::SMALL, Anchor::Right)?;
            let mut from = 0.0;
            for (value, hue) in bar.values.iter().zip(HUES) {
                if *value <= 0.0 {
                    continue;
                }
                let ends = (axis.at(from), axis.at(from + value));
                canvas.bar((ends.0, y - 7.0), (ends.1, y + 7.0), hue)?;
                from += value;
            }
            let end = (axis.at(from) + 6.0, y);
            canvas.text(&Unit::Bytes.human(from), end, Type::SMALL, Anchor::Left)?;
        }
        // The shortest lines first, so that none crosses another's words.
        let mut context: Vec<&Overhead> = self.context.iter().collect();
        context.sort_by(|one, other| other.bytes.total_cmp(&one.bytes));
        for (line, found) in context.into_iter().enumerate() {
            let (x, y) = (axis.at(found.bytes), last + FOOT - 6.0 + 16.0 * line as f64);
            canvas.dashes(&[(x, first), (x, y - 7.0)], GREY)?;
            let text = format!("published: {} {}", found.name, Unit::Bytes.human(found.bytes));
            canvas.text(&text, (x + 4.0, y), Type::NOTE, Anchor::Left)?;
        }
        Ok(())
    }
}
