//! Memory of one instance, one panel for each way to count it. Ledgers are
//! never added, and bars are compared within a panel only.

use plotters::prelude::DrawingBackend;

use super::ChartError;
use super::arms::{self, Style};
use super::axis::Log;
use super::canvas::{Anchor, BLACK, Canvas, Drawn, GREY, Type, WIDTH, shortened, width};
use super::frame::{Frame, MARGIN};
use super::render::Draw;
use crate::record::{Experiment, Ledger, Manifest, Metric, Workload};
use crate::stats::{CellSummary, Interval, Summary};
use crate::units::Unit;

/// Most that the labels of cells may take.
const LABELS: f64 = 250.0;
/// What stands behind the end of an axis: a value in figures.
const VALUES: f64 = 78.0;
const COLUMNS: usize = 2;
const ROW: f64 = 19.0;
const HEAD: f64 = 30.0;
const FOOT: f64 = 40.0;

/// The figure of one workload.
pub(super) struct Memory {
    frame: Frame,
    labels: Vec<(String, Style)>,
    panels: Vec<Panel>,
    values: Vec<f64>,
    /// Left edge of the first column.
    left: f64,
}

/// One ledger.
struct Panel {
    title: &'static str,
    bars: Vec<Bar>,
}

/// One cell in one ledger.
enum Bar {
    Measured { median: f64, interval: Option<Interval> },
    Missing(String),
}

impl Memory {
    pub(super) fn new(
        manifest: &Manifest,
        summary: &Summary,
        workload: Workload,
    ) -> Result<Self, ChartError> {
        let cells = arms::cells(summary, Experiment::Memory, workload);
        let known = |ledger: &Ledger| {
            cells.iter().any(|cell| cell.metric(Metric::Memory(*ledger)).is_some())
        };
        let mut panels: Vec<Panel> = Ledger::ALL
            .into_iter()
            .filter(known)
            .map(|ledger| Panel {
                title: title(ledger),
                bars: cells.iter().map(|cell| bar(cell, Metric::Memory(ledger))).collect(),
            })
            .collect();
        panels.extend(daemons(&cells));
        let labels = cells
            .iter()
            .map(|cell| {
                let label = shortened(&cell.label, Type::SMALL, LABELS)?;
                Ok((label, arms::style(summary, &cell.cell)))
            })
            .collect::<Result<Vec<_>, ChartError>>()?;
        let frame = Frame::new(
            format!("Memory of one instance: workload {workload}"),
            manifest,
            &cells,
            "Medians with their 95 % intervals on one logarithmic axis; a bar's end is its value, \
             its length is not. Each panel counts in its own way: compare within a panel, never \
             add panels. What one more instance costs is in the density figure.",
        )?;
        let values = panels.iter().flat_map(|panel| &panel.bars).filter_map(|bar| match bar {
            Bar::Measured { median, .. } => Some(*median),
            Bar::Missing(_) => None,
        });
        let values = values.collect();
        let mut widest: f64 = 0.0;
        for (label, _) in &labels {
            widest = widest.max(width(label, Type::SMALL)?);
        }
        Ok(Self { frame, labels, panels, values, left: MARGIN + widest + 10.0 })
    }

    /// Length of every panel's axis.
    fn bars(&self) -> f64 {
        (WIDTH - self.left) / COLUMNS as f64 - VALUES
    }

    fn panel_height(&self) -> f64 {
        HEAD + self.labels.len() as f64 * ROW + FOOT
    }
}

/// What all instances of a system share, where one has daemons.
fn daemons(cells: &[&CellSummary]) -> Option<Panel> {
    let metric = Metric::Daemon(Ledger::Pss);
    let bar = |cell: &&CellSummary| match cell.metric(metric) {
        Some(_) => bar(cell, metric),
        None => Bar::Missing("none, or the user's".to_owned()),
    };
    cells.iter().any(|cell| cell.metric(metric).is_some()).then(|| Panel {
        title: "PSS of daemons: once on a host, for all instances",
        bars: cells.iter().map(bar).collect(),
    })
}

fn bar(cell: &CellSummary, metric: Metric) -> Bar {
    let Some(found) = cell.metric(metric) else {
        return Bar::Missing(cell.why_missing());
    };
    match (&found.values, found.reasons.first()) {
        (Some(values), _) => Bar::Measured { median: values.median, interval: values.interval },
        (None, Some(reason)) => Bar::Missing(format!("not measured: {}", reason.text)),
        (None, None) => Bar::Missing(cell.why_missing()),
    }
}

fn title(ledger: Ledger) -> &'static str {
    match ledger {
        Ledger::Pss => "PSS: shared pages divided by their users",
        Ledger::Uss => "USS: private pages only",
        Ledger::Rss => "RSS: every mapped page, once per process",
        Ledger::Cgroup => "cgroup: what its memory cgroup is charged",
        Ledger::Peak => "peak: the most the cgroup was charged",
        Ledger::Hwm => "highest RSS of its processes since they began",
        Ledger::Host => "host: change of the host's memory in use",
    }
}

impl Panel {
    fn draw<DB: DrawingBackend>(
        &self,
        canvas: &Canvas<DB>,
        memory: &Memory,
        (left, top): (f64, f64),
        labelled: bool,
    ) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        canvas.text(self.title, (left, top + 10.0), Type::HEAD, Anchor::Left)?;
        let bars = memory.bars();
        let axis = Log::around(memory.values.iter().copied(), Unit::Bytes, left, left + bars);
        let (first, last) = (top + HEAD, top + HEAD + self.bars.len() as f64 * ROW);
        if let Some(axis) = &axis {
            axis.draw_below(canvas, Unit::Bytes, (first - 6.0, last))?;
        }
        for (row, (bar, (label, style))) in self.bars.iter().zip(&memory.labels).enumerate() {
            let y = first + (row as f64 + 0.5) * ROW;
            if labelled {
                canvas.text(label, (left - 8.0, y), Type::SMALL, Anchor::Right)?;
            }
            match (bar, &axis) {
                (Bar::Measured { median, interval }, Some(axis)) => {
                    draw_bar(canvas, axis, *style, y, *median, *interval)?;
                }
                (Bar::Missing(reason), _) => {
                    let text = shortened(reason, Type::NOTE, bars + 60.0)?;
                    canvas.text(&text, (left + 4.0, y), Type::NOTE, Anchor::Left)?;
                }
                (Bar::Measured { .. }, None) => {
                    canvas.text("0 B", (left + 4.0, y), Type::SMALL, Anchor::Left)?;
                }
            }
        }
        Ok(())
    }
}

/// A bar, its interval as a whisker, its value in figures behind both.
fn draw_bar<DB: DrawingBackend>(
    canvas: &Canvas<DB>,
    axis: &Log,
    style: Style,
    y: f64,
    median: f64,
    interval: Option<Interval>,
) -> Drawn
where
    DB::ErrorType: 'static,
{
    let end = axis.at(median);
    canvas.bar((axis.at(0.0), y - 6.0), (end, y + 6.0), style.colour)?;
    let mut free = end;
    if let Some(interval) = interval {
        let (low, high) = (axis.at(interval.low), axis.at(interval.high));
        canvas.line(&[(low, y), (high, y)], GREY, 1.0)?;
        for x in [low, high] {
            canvas.line(&[(x, y - 4.0), (x, y + 4.0)], BLACK, 1.0)?;
        }
        free = free.max(high);
    }
    canvas.text(&Unit::Bytes.human(median), (free + 6.0, y), Type::SMALL, Anchor::Left)
}

impl Draw for Memory {
    fn frame(&self) -> &Frame {
        &self.frame
    }

    fn bottom(&self) -> f64 {
        let rows = self.panels.len().div_ceil(COLUMNS).max(1);
        self.frame.top() + rows as f64 * self.panel_height() - 10.0
    }

    fn draw_inside<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        if self.panels.is_empty() {
            let middle = (WIDTH / 2.0, self.frame.top() + 20.0);
            return canvas.text("nothing was measured", middle, Type::BODY, Anchor::Middle);
        }
        for (index, panel) in self.panels.iter().enumerate() {
            let (row, column) = (index / COLUMNS, index % COLUMNS);
            let top = self.frame.top() + row as f64 * self.panel_height();
            let left = self.left + column as f64 * (self.bars() + VALUES);
            panel.draw(canvas, self, (left, top), column == 0)?;
        }
        Ok(())
    }
}
