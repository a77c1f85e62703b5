//! The phase waterfall: when each phase of an instance's life happens, on one
//! logarithmic axis for all cells, and beside it what share of the life it
//! takes, on a linear one.
//!
//! One axis must do for a process of a tenth of a millisecond and a virtual
//! machine of a second, so the left bars show *when* by orders of magnitude.
//! Lengths on such an axis deceive, so the right bars show *how much*, each
//! cell's whole life stretched to the same length. Every phase has its length
//! in figures below.

use plotters::prelude::DrawingBackend;

use super::ChartError;
use super::arms;
use super::axis::Log;
use super::canvas::{
    AXIS, Anchor, BLACK, Canvas, Colour, Drawn, GREY, RULE, Type, WIDTH, shortened, width, wrap,
};
use super::frame::{Frame, MARGIN};
use super::render::Draw;
use crate::record::{Experiment, Manifest, Mark, Metric, Workload};
use crate::stats::{CellSummary, Phase, Summary};
use crate::units::Unit;

const LEFT: f64 = 168.0;
const LOG_END: f64 = 590.0;
const SHARE_START: f64 = 676.0;
const RIGHT: f64 = WIDTH - MARGIN;
const BAR: f64 = 18.0;
const KEY_LINE: f64 = 15.0;
const LABEL_LINE: f64 = 14.0;

/// How it is to be read.
const CAPTION: &str = "Left: medians of the marks on a logarithmic axis; it shows when a phase \
                       happens, not how much it weighs. Right: each median phase as a share of \
                       their sum, linear. The diamond is the moment the workload is ready. Time \
                       that an instance was left idle before its stop is not shown.";

/// The figure of one workload.
pub(super) struct Waterfall {
    frame: Frame,
    axis: Option<Log>,
    rows: Vec<Row>,
}

/// One cell.
struct Row {
    label: Vec<String>,
    phases: Vec<Phase>,
    ready: Option<f64>,
    missing: String,
    /// Whether the end of its network was not seen.
    unseen: bool,
    /// Phases with their lengths in words, broken into lines.
    key: Vec<Vec<KeyItem>>,
    height: f64,
}

struct KeyItem {
    x: f64,
    text: String,
    colour: Colour,
}

impl Waterfall {
    pub(super) fn new(
        manifest: &Manifest,
        summary: &Summary,
        workload: Workload,
    ) -> Result<Self, ChartError> {
        let cells = arms::cells(summary, Experiment::Startup, workload);
        let rows = cells.iter().map(|cell| Row::new(cell)).collect::<Result<Vec<_>, _>>()?;
        let ends = rows.iter().flat_map(|row| row.phases.iter().map(|phase| phase.end));
        let axis = Log::around(ends.clone(), Unit::Nanoseconds, LEFT, LOG_END)
            .map(|axis| axis.between(axis.low(), ends.fold(0.0, f64::max)));
        let removed = match rows.iter().any(|row| row.unseen) {
            true => " An asterisk: until it is removed; the end of its network was not seen.",
            false => "",
        };
        let frame = Frame::new(
            format!("From request to gone, phase by phase: workload {workload}"),
            manifest,
            &cells,
            &(CAPTION.to_owned() + removed),
        )?;
        Ok(Self { frame, axis, rows })
    }

    fn bars_top(&self) -> f64 {
        self.frame.top() + 22.0
    }

    fn rows_end(&self) -> f64 {
        self.bars_top() + self.rows.iter().map(|row| row.height).sum::<f64>()
    }
}

impl Row {
    fn new(cell: &CellSummary) -> Result<Self, ChartError> {
        let label = label(&cell.label)?;
        let key = key(&cell.phases)?;
        let gone = [Metric::Startup(Mark::Gone), Metric::Stop(Mark::Gone)];
        let below = BAR + 4.0 + key.len().max(1) as f64 * KEY_LINE;
        let beside = BAR + (label.len() as f64 - 1.0) * LABEL_LINE;
        Ok(Self {
            label,
            phases: cell.phases.clone(),
            ready: cell.phases.iter().find(|phase| phase.to == Mark::Ready).map(|phase| phase.end),
            missing: cell.why_missing(),
            unseen: cell.phases.last().is_some_and(|last| last.to == Mark::Removed)
                && gone.iter().all(|gone| cell.values(*gone).is_none()),
            key,
            height: below.max(beside) + 12.0,
        })
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>, axis: Option<&Log>, top: f64) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        for (line, text) in self.label.iter().enumerate() {
            let y = top + BAR / 2.0 + line as f64 * LABEL_LINE;
            canvas.text(text, (MARGIN, y), Type::HEAD, Anchor::Left)?;
        }
        let (Some(axis), Some(last)) = (axis, self.phases.last()) else {
            let text = shortened(&self.missing, Type::NOTE, RIGHT - LEFT)?;
            return canvas.text(&text, (LEFT, top + BAR / 2.0), Type::NOTE, Anchor::Left);
        };
        // Rules stand beside the bars only, so that the figures below stay clear.
        let beside = (top - 4.0, top + BAR + 3.0);
        axis.rules(canvas, beside)?;
        shares().try_for_each(|(x, _)| canvas.line(&[(x, beside.0), (x, beside.1)], RULE, 1.0))?;
        let total: f64 = self.phases.iter().map(|phase| phase.median).sum();
        let mut share = SHARE_START;
        for phase in &self.phases {
            let colour = colour(phase);
            let (from, to) = (axis.at(phase.start), axis.at(phase.end));
            canvas.bar((from, top), (to, top + BAR), colour)?;
            let wide = (RIGHT - SHARE_START) * phase.median / total.max(f64::MIN_POSITIVE);
            canvas.bar((share, top), (share + wide, top + BAR), colour)?;
            share += wide;
        }
        if let Some(ready) = self.ready {
            diamond(canvas, (axis.at(ready), top + BAR / 2.0))?;
        }
        let mut end = Unit::Nanoseconds.human(last.end);
        if self.unseen {
            end.push('*');
        }
        canvas.text(&end, (axis.at(last.end) + 11.0, top + BAR / 2.0), Type::HEAD, Anchor::Left)?;
        for (line, items) in self.key.iter().enumerate() {
            let y = top + BAR + 4.0 + (line as f64 + 0.5) * KEY_LINE;
            for item in items {
                canvas.bar((item.x, y - 4.0), (item.x + 8.0, y + 4.0), item.colour)?;
                canvas.text(&item.text, (item.x + 12.0, y), Type::SMALL, Anchor::Left)?;
            }
        }
        Ok(())
    }
}

/// A cell's name in lines; a parameter that is too wide for one takes two.
fn label(name: &str) -> Result<Vec<String>, ChartError> {
    let room = LEFT - MARGIN - 10.0;
    let mut lines = Vec::new();
    for line in wrap(name, Type::HEAD, room)? {
        match line.split_once('=') {
            Some((name, value)) if width(&line, Type::HEAD)? > room => {
                lines.extend([format!("{name}="), value.to_owned()]);
            }
            _ => lines.push(line),
        }
    }
    Ok(lines)
}

/// Positions and labels of the axis of shares.
fn shares() -> impl Iterator<Item = (f64, String)> {
    (0..=4).map(|quarter| {
        let x = SHARE_START + (RIGHT - SHARE_START) * f64::from(quarter) / 4.0;
        (x, format!("{} %", quarter * 25))
    })
}

/// A diamond with a light rim, visible on every colour.
fn diamond<DB: DrawingBackend>(canvas: &Canvas<DB>, (x, y): (f64, f64)) -> Drawn
where
    DB::ErrorType: 'static,
{
    let around = |r: f64| [(x - r, y), (x, y - r), (x + r, y), (x, y + r)];
    canvas.shape(&around(7.0), plotters::style::WHITE)?;
    canvas.shape(&around(5.0), BLACK)
}

/// Phases in words, broken into lines.
fn key(phases: &[Phase]) -> Result<Vec<Vec<KeyItem>>, ChartError> {
    let mut lines: Vec<Vec<KeyItem>> = Vec::new();
    let mut x = RIGHT;
    for phase in phases {
        let text = told(phase);
        let wide = 12.0 + width(&text, Type::SMALL)? + 14.0;
        if x + wide > RIGHT + 14.0 {
            lines.push(Vec::new());
            x = LEFT;
        }
        if let Some(line) = lines.last_mut() {
            line.push(KeyItem { x, text, colour: colour(phase) });
        }
        x += wide;
    }
    Ok(lines)
}

/// A phase and how long it takes. Two marks that the harness heard at once
/// have the same time, which is no time of zero.
fn told(phase: &Phase) -> String {
    if phase.median > 0.0 {
        format!("{} {}", phase.name, Unit::Nanoseconds.human(phase.median))
    } else {
        format!("{} heard at once", phase.name)
    }
}

/// One colour for each kind of phase, whatever marks enclose it.
fn colour(phase: &Phase) -> Colour {
    use plotters::style::RGBColor;
    match (phase.from, phase.to) {
        (_, Mark::Cgroup) => RGBColor(0x33, 0x22, 0x88),
        (_, Mark::Cloned) => RGBColor(0x00, 0x72, 0xb2),
        (_, Mark::SetUp) => RGBColor(0x44, 0xaa, 0x99),
        (_, Mark::Spawned) => RGBColor(0x88, 0xcc, 0xee),
        (_, Mark::KvmOpened) => RGBColor(0xdd, 0xcc, 0x77),
        (_, Mark::VmCreated) => RGBColor(0x99, 0x99, 0x33),
        (_, Mark::VmMemory) => RGBColor(0xaa, 0x44, 0x99),
        (_, Mark::VcpuCreated) => RGBColor(0x88, 0x22, 0x55),
        (_, Mark::VmmReady) => RGBColor(0x56, 0xb4, 0xe9),
        (_, Mark::Resumed) => RGBColor(0xdd, 0xcc, 0x77),
        (_, Mark::Firmware) => RGBColor(0x99, 0x99, 0x99),
        (_, Mark::Decompress) => RGBColor(0x66, 0x11, 0x00),
        (_, Mark::KernelEntry) => RGBColor(0xcc, 0x66, 0x77),
        (_, Mark::StartKernel) => RGBColor(0x11, 0x77, 0x33),
        (_, Mark::Kernel) => RGBColor(0xf0, 0xe4, 0x42),
        (_, Mark::PopulateRootfs) => RGBColor(0xb3, 0xa0, 0x00),
        (_, Mark::RunInit) => RGBColor(0xe6, 0xc8, 0x8c),
        (Mark::Spawned | Mark::Request, Mark::Init) => RGBColor(0x00, 0x9e, 0x73),
        (_, Mark::Init) => RGBColor(0xe6, 0x9f, 0x00),
        (_, Mark::Ready) => RGBColor(0xcc, 0x79, 0xa7),
        (_, Mark::Exited) => RGBColor(0xd5, 0x5e, 0x00),
        (_, Mark::Removed) => BLACK,
        (Mark::Exited, Mark::Gone) => BLACK,
        (_, Mark::Gone) => RGBColor(0x66, 0x66, 0x66),
        (_, Mark::Stop | Mark::Request) => GREY,
    }
}

impl Draw for Waterfall {
    fn frame(&self) -> &Frame {
        &self.frame
    }

    fn bottom(&self) -> f64 {
        self.rows_end() + 26.0
    }

    fn draw_inside<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        let head = self.frame.top() + 6.0;
        canvas.text(
            "when: time since request, logarithmic",
            (LEFT, head),
            Type::NOTE,
            Anchor::Left,
        )?;
        canvas.text(
            "how much: share of the whole, linear",
            (SHARE_START, head),
            Type::NOTE,
            Anchor::Left,
        )?;
        let (top, bottom) = (self.bars_top(), self.rows_end());
        if let Some(axis) = &self.axis {
            axis.draw_below(canvas, Unit::Nanoseconds, (bottom, bottom))?;
            canvas.line(&[(SHARE_START, bottom), (RIGHT, bottom)], AXIS, 1.0)?;
            for (x, label) in shares() {
                let anchor = if x >= RIGHT { Anchor::Right } else { Anchor::Middle };
                canvas.line(&[(x, bottom), (x, bottom + 5.0)], RULE, 1.0)?;
                canvas.text(&label, (x, bottom + 13.0), Type::NOTE, anchor)?;
            }
        }
        let mut y = top;
        for row in &self.rows {
            row.draw(canvas, self.axis.as_ref(), y)?;
            y += row.height;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_the_same_time_are_not_a_time_of_zero() {
        let phase = |median| Phase {
            from: Mark::Init,
            to: Mark::Ready,
            name: "init to ready".to_owned(),
            start: 5e6,
            end: 5e6 + median,
            median,
            interval: None,
            n: 15,
        };
        assert_eq!(told(&phase(12_000.0)), "init to ready 12 µs");
        assert_eq!(told(&phase(0.0)), "init to ready heard at once");
    }
}
