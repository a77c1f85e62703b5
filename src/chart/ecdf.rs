//! The distribution of the time to ready: every single trial, as a cumulative
//! curve. Above on a common logarithmic axis, where cells can be compared;
//! below relative to each cell's own median, where their spread and their
//! tails can, which the first axis is too coarse to show.

use std::collections::HashMap;

use plotters::prelude::DrawingBackend;

use super::ChartError;
use super::arms::{self, Style};
use super::axis::Log;
use super::canvas::{AXIS, Anchor, Canvas, Drawn, RULE, Type, WIDTH, shortened, wrap};
use super::frame::{Frame, MARGIN};
use super::render::Draw;
use crate::record::{CellKey, Experiment, Manifest, Mark, Metric, Outcome, Sample, Workload};
use crate::stats::{CellSummary, Sorted, Summary, median};
use crate::units::Unit;

const METRIC: Metric = Metric::Startup(Mark::Ready);
const LEFT: f64 = 58.0;
const PLOT_END: f64 = 622.0;
const KEY: f64 = 644.0;
const UPPER: f64 = 250.0;
const LOWER: f64 = 190.0;
/// The lower panel ends here, as multiples of the median.
const REACH: (f64, f64) = (0.5, 4.0);

/// The figure of one workload.
pub(super) struct Ecdf {
    frame: Frame,
    curves: Vec<Curve>,
    missing: Vec<String>,
}

/// One cell.
struct Curve {
    label: String,
    figures: String,
    style: Style,
    median: f64,
    values: Sorted,
}

impl Ecdf {
    pub(super) fn new(
        manifest: &Manifest,
        summary: &Summary,
        samples: &[Sample],
        workload: Workload,
    ) -> Result<Self, ChartError> {
        let cells = arms::cells(summary, Experiment::Startup, workload);
        let mut values: HashMap<&CellKey, Vec<f64>> = HashMap::new();
        for sample in samples.iter().filter(|sample| {
            sample.metric == METRIC && sample.step.is_none() && sample.outcome == Outcome::Ok
        }) {
            values.entry(&sample.cell).or_default().extend(sample.value);
        }
        let mut curves = Vec::new();
        let mut missing = Vec::new();
        for cell in &cells {
            let sorted = Sorted::new(values.remove(&cell.cell).unwrap_or_default());
            match median(&sorted) {
                Some(median) if median > 0.0 => curves.push(Curve {
                    label: cell.label.clone(),
                    figures: figures(cell),
                    style: arms::style(summary, &cell.cell),
                    median,
                    values: sorted,
                }),
                _ => missing.push(format!("{}: {}", cell.label, cell.why_missing())),
            }
        }
        curves.sort_by(|a, b| a.median.total_cmp(&b.median));
        let frame = Frame::new(
            format!("Time from request to ready: workload {workload}"),
            manifest,
            &cells,
            "Share of trials that were ready by a time; every trial is in its curve. Above: all \
             cells on one logarithmic axis. Below: each cell relative to its own median, so that \
             a steep curve is a steady cell; trials beyond the axis stand at its edge.",
        )?;
        Ok(Self { frame, curves, missing })
    }

    fn upper(&self) -> (f64, f64) {
        let top = self.frame.top() + 18.0;
        (top, top + UPPER)
    }

    fn lower(&self) -> (f64, f64) {
        let top = self.upper().1 + 56.0;
        (top, top + LOWER)
    }

    /// Heights of the two lines of each entry of the key.
    fn key_end(&self) -> f64 {
        let entries = self.curves.len() + self.missing.len();
        self.upper().0 + entries as f64 * 36.0
    }
}

fn figures(cell: &CellSummary) -> String {
    let human = |value: f64| Unit::Nanoseconds.human(value);
    match cell.metric(METRIC).and_then(|found| Some((found.n, found.values.as_ref()?))) {
        Some((n, values)) => match values.interval {
            Some(interval) => format!(
                "median {} [{}, {}], n = {n}",
                human(values.median),
                human(interval.low),
                human(interval.high)
            ),
            None => format!("median {}, n = {n}", human(values.median)),
        },
        None => String::new(),
    }
}

impl Curve {
    /// Draws the curve of the values divided by `unit`.
    fn draw<DB: DrawingBackend>(
        &self,
        canvas: &Canvas<DB>,
        axis: &Log,
        (top, bottom): (f64, f64),
        unit: f64,
    ) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        let n = self.values.len() as f64;
        let height = |rank: usize| bottom - (bottom - top) * rank as f64 / n;
        let mut path = Vec::with_capacity(2 * self.values.len());
        for (rank, value) in self.values.as_slice().iter().enumerate() {
            let x = axis.at(value / unit);
            path.push((x, height(rank)));
            path.push((x, height(rank + 1)));
        }
        canvas.line(&path, self.style.colour, 1.8)?;
        // The middle of the curve carries its marker.
        self.style.mark(canvas, (axis.at(self.median / unit), f64::midpoint(top, bottom)))
    }
}

/// Rules and labels of the shares.
fn shares<DB: DrawingBackend>(canvas: &Canvas<DB>, (top, bottom): (f64, f64)) -> Drawn
where
    DB::ErrorType: 'static,
{
    for quarter in 0..=4 {
        let y = bottom - (bottom - top) * f64::from(quarter) / 4.0;
        canvas.line(&[(LEFT, y), (PLOT_END, y)], RULE, 1.0)?;
        let label = format!("{} %", quarter * 25);
        canvas.text(&label, (LEFT - 6.0, y), Type::NOTE, Anchor::Right)?;
    }
    canvas.line(&[(LEFT, top), (LEFT, bottom)], AXIS, 1.0)
}

impl Ecdf {
    fn draw_key<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        let limit = WIDTH - MARGIN - KEY - 24.0;
        let mut y = self.upper().0 + 6.0;
        for curve in &self.curves {
            canvas.line(&[(KEY, y), (KEY + 18.0, y)], curve.style.colour, 2.5)?;
            curve.style.mark(canvas, (KEY + 9.0, y))?;
            let label = shortened(&curve.label, Type::HEAD, limit)?;
            canvas.text(&label, (KEY + 24.0, y), Type::HEAD, Anchor::Left)?;
            canvas.text(&curve.figures, (KEY + 24.0, y + 15.0), Type::NOTE, Anchor::Left)?;
            y += 36.0;
        }
        for text in &self.missing {
            for line in wrap(text, Type::NOTE, limit)?.iter().take(2) {
                let line = shortened(line, Type::NOTE, limit)?;
                canvas.text(&line, (KEY + 24.0, y), Type::NOTE, Anchor::Left)?;
                y += 15.0;
            }
            y += 6.0;
        }
        Ok(())
    }

    fn draw_upper<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        let (top, bottom) = self.upper();
        let all = self.curves.iter().flat_map(|curve| curve.values.as_slice().iter().copied());
        let (low, high) = all
            .clone()
            .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        let Some(axis) = Log::around(all, Unit::Nanoseconds, LEFT, PLOT_END) else {
            let middle = f64::midpoint(LEFT, PLOT_END);
            return canvas.text(
                "nothing was measured",
                (middle, top + 60.0),
                Type::BODY,
                Anchor::Middle,
            );
        };
        let axis = axis.between(low / 1.15, high * 1.15);
        canvas.text("ready by", (LEFT, top - 14.0), Type::NOTE, Anchor::Left)?;
        axis.draw_below(canvas, Unit::Nanoseconds, (top, bottom))?;
        shares(canvas, (top, bottom))?;
        self.curves.iter().try_for_each(|curve| curve.draw(canvas, &axis, (top, bottom), 1.0))
    }

    fn draw_lower<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        let (top, bottom) = self.lower();
        let relative = self
            .curves
            .iter()
            .flat_map(|curve| curve.values.as_slice().iter().map(|value| value / curve.median));
        let (low, high) = relative
            .fold((0.95_f64, 1.05_f64), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = (low.max(REACH.0), high.min(REACH.1));
        let Some(axis) = Log::around([1.0].into_iter(), Unit::Count, LEFT, PLOT_END) else {
            return Ok(());
        };
        let axis = axis.between(low, high);
        canvas.text("relative to its own median", (LEFT, top - 14.0), Type::NOTE, Anchor::Left)?;
        shares(canvas, (top, bottom))?;
        let mut free = f64::NEG_INFINITY;
        for tick in [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0] {
            let x = axis.at(tick);
            if (low..=high).contains(&tick) && x >= free {
                canvas.line(&[(x, top), (x, bottom + 5.0)], RULE, 1.0)?;
                canvas.text(&format!("×{tick}"), (x, bottom + 13.0), Type::NOTE, Anchor::Middle)?;
                free = x + 44.0;
            }
        }
        canvas.line(&[(LEFT, bottom), (PLOT_END, bottom)], AXIS, 1.0)?;
        self.curves
            .iter()
            .try_for_each(|curve| curve.draw(canvas, &axis, (top, bottom), curve.median))
    }
}

impl Draw for Ecdf {
    fn frame(&self) -> &Frame {
        &self.frame
    }

    fn bottom(&self) -> f64 {
        (self.lower().1 + 26.0).max(self.key_end())
    }

    fn draw_inside<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        self.draw_key(canvas)?;
        self.draw_upper(canvas)?;
        if self.curves.is_empty() {
            return Ok(());
        }
        self.draw_lower(canvas)
    }
}
