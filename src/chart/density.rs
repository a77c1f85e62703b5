//! The density ladder: memory of all live instances by ledger, with the cost
//! of one more as a slope, and the start of the newest beside how many were
//! already there, up to the limit that ended the ladder.

use plotters::prelude::DrawingBackend;

use super::ChartError;
use super::arms::{self, Style};
use super::axis::{Log, spread};
use super::canvas::{Anchor, Canvas, Drawn, Type, WIDTH, shortened, wrap};
use super::frame::{Frame, MARGIN};
use super::render::{DrawPanel, Panels};
use crate::record::{Experiment, Ledger, Manifest, Metric, Workload};
use crate::stats::{CellSummary, Summary};
use crate::units::Unit;

const LEFT: f64 = 78.0;
const PLOT_END: f64 = 520.0;
const LABELS: f64 = 546.0;
const PLOT: f64 = 190.0;
const LABEL_LINE: f64 = 14.0;
/// Ledgers whose slopes check each other: none of them can be smaller than
/// the one after it, if all see what they should.
const LEDGERS: [Ledger; 3] = [Ledger::Host, Ledger::Cgroup, Ledger::Pss];

/// Curves over the number of live instances, on logarithmic axes.
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) unit: Unit,
    /// What the horizontal axis counts.
    pub(super) counts: &'static str,
    pub(super) curves: Vec<Curve>,
}

/// One cell: medians at each step, and what stands behind its end.
pub(super) struct Curve {
    pub(super) style: Style,
    /// Number and value; what is not above zero has no place on the axis, and
    /// the curve is interrupted there.
    pub(super) points: Vec<(f64, f64)>,
    /// One line, or two.
    pub(super) label: Vec<String>,
}

impl Curve {
    /// The parts between interruptions.
    fn parts(&self) -> impl Iterator<Item = &[(f64, f64)]> {
        self.points.split(|(_, value)| *value <= 0.0).filter(|part| !part.is_empty())
    }

    /// The points that are drawn.
    fn drawn(&self) -> impl Iterator<Item = &(f64, f64)> {
        self.parts().flatten()
    }
}

/// The figure of one workload.
pub(super) fn density(
    manifest: &Manifest,
    summary: &Summary,
    workload: Workload,
) -> Result<Panels<Panel>, ChartError> {
    let cells = arms::cells(summary, Experiment::Density, workload);
    let panel = |title: String, metric: Metric, label: &dyn Fn(&CellSummary) -> String| {
        let curve = |cell: &&CellSummary| {
            Ok(Curve {
                style: arms::style(summary, &cell.cell),
                points: points(cell, metric),
                label: two_lines(&label(cell))?,
            })
        };
        let curves = cells.iter().map(curve).collect::<Result<Vec<_>, ChartError>>()?;
        Ok(Panel { title, unit: metric.unit(), counts: "live instances", curves })
    };
    let mut panels: Vec<Panel> = LEDGERS
        .into_iter()
        .map(|ledger| {
            let title = format!("memory of all live instances: {}", kind(ledger));
            panel(title, Metric::Memory(ledger), &|cell| slope(cell, ledger))
        })
        .filter(|panel| panel.as_ref().map_or(true, Panel::has_points))
        .collect::<Result<_, ChartError>>()?;
    let title = "time from request to ready of the newest instance".to_owned();
    panels.push(panel(title, Metric::DensityStart, &limit)?);
    let frame = Frame::new(
        format!("Many instances at once: workload {workload}"),
        manifest,
        &cells,
        "Medians at each number of live instances, all of which answered; both axes are \
             logarithmic. The slope of total memory over that number (Theil-Sen, with its 95 % \
             interval) is what one more instance costs. A ladder ends at the limit named. Where \
             the memory of the host seems to shrink (noise), the curve is interrupted; slopes \
             include that.",
    )?;
    Ok(Panels { frame, panels, beneath: 12.0 })
}

fn kind(ledger: Ledger) -> &'static str {
    match ledger {
        Ledger::Pss => "PSS, shared pages divided by their users",
        Ledger::Cgroup => "cgroup, what their memory cgroups are charged",
        Ledger::Host => "host, growth of the host's memory in use since the ladder began",
        Ledger::Uss | Ledger::Rss | Ledger::Peak | Ledger::Hwm => ledger.as_str(),
    }
}

/// Medians of a metric over the steps.
pub(super) fn points(cell: &CellSummary, metric: Metric) -> Vec<(f64, f64)> {
    let at = |step: Option<u32>, median: f64| Some((f64::from(step?), median));
    cell.metrics
        .iter()
        .filter(|found| found.metric == metric)
        .filter_map(|found| at(found.step, found.values.as_ref()?.median))
        .collect()
}

fn slope(cell: &CellSummary, ledger: Ledger) -> String {
    let human = |value: f64| Unit::Bytes.human(value);
    let marginal = cell.marginals.iter().find(|found| found.ledger == ledger);
    let text = match marginal.map(|found| (found.line, found.reason.as_deref())) {
        Some((Some(line), _)) => match line.interval {
            Some(interval) => format!(
                "{} each [{}, {}]",
                human(line.slope),
                human(interval.low),
                human(interval.high)
            ),
            None => format!("{} each (no interval: {} steps)", human(line.slope), line.distinct),
        },
        Some((None, Some(reason))) => format!("no slope: {reason}"),
        _ => cell.why_missing(),
    };
    format!("{}: {text}", cell.label)
}

fn limit(cell: &CellSummary) -> String {
    let most = cell.values(Metric::DensityInstances).map(|values| values.max);
    let limits: Vec<&str> = cell.limits.iter().map(|reason| reason.text.as_str()).collect();
    match (most, limits.is_empty()) {
        (Some(most), false) => {
            format!("{}: {} alive, then {}", cell.label, Unit::Count.human(most), limits.join(", "))
        }
        (Some(most), true) => format!("{}: {} alive", cell.label, Unit::Count.human(most)),
        (None, _) => format!("{}: {}", cell.label, cell.why_missing()),
    }
}

/// A label in at most two lines.
pub(super) fn two_lines(text: &str) -> Result<Vec<String>, ChartError> {
    let limit = WIDTH - 6.0 - LABELS;
    let lines = wrap(text, Type::SMALL, limit)?;
    match lines.split_first() {
        Some((first, rest)) if !rest.is_empty() => {
            Ok(vec![first.clone(), shortened(&rest.join(" "), Type::SMALL, limit)?])
        }
        _ => Ok(lines),
    }
}

impl Panel {
    pub(super) fn has_points(&self) -> bool {
        self.curves.iter().any(|curve| curve.drawn().next().is_some())
    }

    /// Distance of neighbouring labels: that of the tallest.
    fn gap(&self) -> f64 {
        let lines = self.curves.iter().map(|curve| curve.label.len()).max().unwrap_or(1);
        lines as f64 * LABEL_LINE + 3.0
    }

    fn plot(&self) -> f64 {
        PLOT.max(self.curves.len() as f64 * self.gap())
    }

    /// Labels at the height of the curves' ends, moved apart, each with its
    /// marker; cells without a curve stand at the bottom.
    fn draw_labels<DB: DrawingBackend>(
        &self,
        canvas: &Canvas<DB>,
        y: Option<&Log>,
        (top, bottom): (f64, f64),
    ) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        let end = |curve: &Curve| Some(y?.at(curve.drawn().last()?.1));
        let wanted: Vec<f64> =
            self.curves.iter().map(|curve| end(curve).unwrap_or(bottom)).collect();
        let lowest = bottom - (self.gap() - LABEL_LINE);
        let placed = spread(&wanted, self.gap(), top, lowest);
        for (curve, y) in self.curves.iter().zip(placed) {
            let empty = curve.drawn().next().is_none();
            let kind = if empty { Type::NOTE } else { Type::SMALL };
            if !empty {
                curve.style.mark(canvas, (LABELS - 9.0, y))?;
            }
            for (line, text) in curve.label.iter().enumerate() {
                let lower = y + line as f64 * LABEL_LINE;
                canvas.text(text, (LABELS, lower), kind, Anchor::Left)?;
            }
        }
        Ok(())
    }
}

impl DrawPanel for Panel {
    fn height(&self) -> f64 {
        24.0 + self.plot() + 44.0
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>, top: f64) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        canvas.text(&self.title, (MARGIN, top + 6.0), Type::HEAD, Anchor::Left)?;
        let (top, bottom) = (top + 24.0, top + 24.0 + self.plot());
        let all = || self.curves.iter().flat_map(Curve::drawn);
        let x = Log::around(all().map(|point| point.0), Unit::Count, LEFT, PLOT_END);
        let y = Log::around(all().map(|point| point.1), self.unit, bottom, top);
        let axes = x.zip(y);
        if let Some((x, y)) = &axes {
            y.draw_left(canvas, self.unit, (LEFT, PLOT_END))?;
            x.draw_below(canvas, Unit::Count, (top, bottom))?;
            let beside = (PLOT_END + 20.0, bottom + 13.0);
            canvas.text(self.counts, beside, Type::NOTE, Anchor::Left)?;
            for curve in &self.curves {
                for part in curve.parts() {
                    let path: Vec<(f64, f64)> =
                        part.iter().map(|(n, value)| (x.at(*n), y.at(*value))).collect();
                    curve.style.path(canvas, &path)?;
                }
            }
        }
        self.draw_labels(canvas, axes.as_ref().map(|(_, y)| y), (top, bottom))
    }
}
