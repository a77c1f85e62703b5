//! Axes with ticks that a person can read: logarithmic ones, and linear ones
//! from zero for what is stacked.

use plotters::prelude::DrawingBackend;

use super::canvas::{AXIS, Anchor, Canvas, Drawn, RULE, Type};
use crate::units::Unit;

/// A logarithmic scale from a range of values to a range of pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Log {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    base: f64,
}

impl Log {
    /// A scale that holds `values` between whole powers of the unit's base
    /// (ten for time, two for bytes and counts), drawn from pixel `from` to
    /// pixel `to`. Absent without a positive value.
    pub(super) fn around(
        values: impl Iterator<Item = f64>,
        unit: Unit,
        from: f64,
        to: f64,
    ) -> Option<Self> {
        let (low, high) = values
            .filter(|value| *value > 0.0 && value.is_finite())
            .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        if high <= 0.0 {
            return None;
        }
        let base: f64 = if unit == Unit::Nanoseconds { 10.0 } else { 2.0 };
        let low = base.powf((low.ln() / base.ln() + 1e-9).floor());
        let high = base.powf((high.ln() / base.ln() - 1e-9).ceil()).max(low * base);
        Some(Self { low, high, from, to, base })
    }

    /// The same scale between other values.
    pub(super) fn between(self, low: f64, high: f64) -> Self {
        Self { low, high: high.max(low * 1.01), ..self }
    }

    /// The lowest value.
    pub(super) fn low(&self) -> f64 {
        self.low
    }

    /// The pixel of a value; values outside stand at the edge.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = (value.max(self.low) / self.low).ln() / (self.high / self.low).ln();
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Values of labelled ticks: powers of the base, thinned until at most
    /// `most` remain; on a short axis of time also 2 and 5 times those.
    pub(super) fn ticks(&self, most: usize) -> Vec<f64> {
        let most = most.max(2);
        let mut powers = self.powers();
        if powers.len() < 2 && self.base >= 10.0 {
            let steps = [1.0, 2.0, 5.0];
            let below = self.base.powf((self.low.ln() / self.base.ln()).floor());
            powers = [below, below * self.base]
                .iter()
                .flat_map(|power| steps.map(|step| power * step))
                .filter(|tick| self.holds(*tick))
                .collect();
        }
        let every = powers.len().div_ceil(most).max(1);
        powers.into_iter().step_by(every).collect()
    }

    /// Powers of the base on the axis.
    fn powers(&self) -> Vec<f64> {
        let first = (self.low.ln() / self.base.ln() - 1e-9).ceil();
        std::iter::successors(Some(self.base.powf(first)), |tick| Some(tick * self.base))
            .take_while(|tick| self.holds(*tick))
            .collect()
    }

    fn holds(&self, value: f64) -> bool {
        value >= self.low * 0.999_999 && value <= self.high * 1.000_001
    }

    /// Ticks between those: 2 to 9 times each power of ten.
    fn minor(&self) -> Vec<f64> {
        if self.base < 10.0 {
            return Vec::new();
        }
        let below = self.base.powf((self.low.ln() / self.base.ln()).floor());
        std::iter::once(below)
            .chain(self.powers())
            .flat_map(|power| (2..10).map(move |factor| power * f64::from(factor)))
            .filter(|tick| self.holds(*tick))
            .collect()
    }

    /// Draws rules for a horizontal axis between two heights.
    pub(super) fn rules<DB: DrawingBackend>(
        &self,
        canvas: &Canvas<DB>,
        (top, bottom): (f64, f64),
    ) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        self.labelled().into_iter().try_for_each(|tick| {
            let x = self.at(tick);
            canvas.line(&[(x, top), (x, bottom)], RULE, 1.0)
        })
    }

    /// Ticks that a horizontal axis has labels for.
    fn labelled(&self) -> Vec<f64> {
        self.ticks(most((self.to - self.from).abs(), 62.0))
    }

    /// Draws rules for a horizontal axis between two heights, and labels below.
    pub(super) fn draw_below<DB: DrawingBackend>(
        &self,
        canvas: &Canvas<DB>,
        unit: Unit,
        (top, bottom): (f64, f64),
    ) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        for tick in self.minor() {
            let x = self.at(tick);
            canvas.line(&[(x, bottom), (x, bottom + 3.0)], AXIS, 0.5)?;
        }
        self.rules(canvas, (top, bottom + 5.0))?;
        for tick in self.labelled() {
            let x = self.at(tick);
            canvas.text(&unit.human(tick), (x, bottom + 13.0), Type::NOTE, Anchor::Middle)?;
        }
        canvas.line(&[(self.from, bottom), (self.to, bottom)], AXIS, 1.0)
    }

    /// Draws rules for a vertical axis between two positions, and labels left.
    pub(super) fn draw_left<DB: DrawingBackend>(
        &self,
        canvas: &Canvas<DB>,
        unit: Unit,
        (left, right): (f64, f64),
    ) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        for tick in self.ticks(most((self.to - self.from).abs(), 30.0)) {
            let y = self.at(tick);
            canvas.line(&[(left, y), (right, y)], RULE, 1.0)?;
            canvas.text(&unit.human(tick), (left - 6.0, y), Type::NOTE, Anchor::Right)?;
        }
        canvas.line(&[(left, self.from), (left, self.to)], AXIS, 1.0)
    }
}

/// A linear scale from zero, for bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Linear {
    high: f64,
    tick: f64,
    from: f64,
    to: f64,
}

impl Linear {
    /// A scale that holds everything up to `most` and ends at a tick: ticks are
    /// powers of two, four to eight of them.
    pub(super) fn to(most: f64, from: f64, to: f64) -> Self {
        let most = most.max(1.0);
        let tick = 2.0_f64.powf((most / 4.0).log2().floor());
        Self { high: (most / tick).ceil() * tick, tick, from, to }
    }

    /// The pixel of a value.
    pub(super) fn at(&self, value: f64) -> f64 {
        self.from + (value / self.high).clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// The values of all ticks.
    fn ticks(&self) -> Vec<f64> {
        std::iter::successors(Some(0.0), |tick| Some(tick + self.tick))
            .take_while(|tick| *tick <= self.high * 1.000_001)
            .collect()
    }

    /// Draws rules between two heights, and labels below.
    pub(super) fn draw_below<DB: DrawingBackend>(
        &self,
        canvas: &Canvas<DB>,
        unit: Unit,
        (top, bottom): (f64, f64),
    ) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        for tick in self.ticks() {
            let x = self.at(tick);
            canvas.line(&[(x, top), (x, bottom + 5.0)], RULE, 1.0)?;
            canvas.text(&unit.human(tick), (x, bottom + 13.0), Type::NOTE, Anchor::Middle)?;
        }
        canvas.line(&[(self.from, bottom), (self.to, bottom)], AXIS, 1.0)
    }
}

/// How many labels of a size fit.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small positive number; the cast saturates"
)]
fn most(length: f64, each: f64) -> usize {
    (length / each) as usize
}

/// Moves heights apart until neighbours are at least `gap` apart, changing
/// their order nowhere and keeping within `top` and `bottom` when they fit.
pub(super) fn spread(wanted: &[f64], gap: f64, top: f64, bottom: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let mut placed = wanted.to_vec();
    let mut least = top;
    for index in &order {
        placed[*index] = placed[*index].max(least);
        least = placed[*index] + gap;
    }
    let mut most = bottom;
    for index in order.iter().rev() {
        placed[*index] = placed[*index].min(most);
        most = placed[*index] - gap;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_axis_runs_between_powers_of_ten() {
        let axis = Log::around([45e3, 3e8].into_iter(), Unit::Nanoseconds, 0.0, 100.0);
        let axis = axis.expect("positive");
        let labels: Vec<String> =
            axis.ticks(9).iter().map(|tick| Unit::Nanoseconds.human(*tick)).collect();
        assert_eq!(labels, ["10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s"]);
        assert_eq!((axis.at(10e3), axis.at(1.0)), (0.0, 0.0));
        assert!((axis.at(1e9) - 100.0).abs() < 1e-9 && (axis.at(1e6) - 40.0).abs() < 1e-9);
        assert_eq!(axis.ticks(3).len(), 3);
    }

    #[test]
    fn an_axis_of_bytes_has_powers_of_two() {
        let axis =
            Log::around([3_000.0, 9e6].into_iter(), Unit::Bytes, 0.0, 1.0).expect("positive");
        let labels: Vec<String> =
            axis.ticks(5).iter().map(|tick| Unit::Bytes.human(*tick)).collect();
        assert_eq!(labels[0], "2 KiB");
        assert!(labels.len() <= 5);
        assert_eq!(Log::around([0.0].into_iter(), Unit::Bytes, 0.0, 1.0), None);
    }

    #[test]
    fn a_linear_axis_begins_at_zero_and_ends_at_a_tick() {
        let axis = Linear::to(57.5 * 1024.0 * 1024.0, 0.0, 100.0);
        let labels: Vec<String> = axis.ticks().iter().map(|t| Unit::Bytes.human(*t)).collect();
        assert_eq!(labels[..2], ["0 B", "8 MiB"]);
        assert_eq!(labels.last().map(String::as_str), Some("64 MiB"));
        assert_eq!((axis.at(0.0), axis.at(64.0 * 1024.0 * 1024.0)), (0.0, 100.0));
        assert!((4..=9).contains(&labels.len()));
    }

    #[test]
    fn labels_are_spread_in_their_order() {
        let placed = spread(&[50.0, 51.0, 10.0, 52.0], 12.0, 0.0, 80.0);
        assert_eq!(placed[2], 10.0);
        let mut sorted = placed.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(sorted.windows(2).all(|pair| pair[1] - pair[0] >= 12.0), "{placed:?}");
        assert!(placed[0] < placed[1] && placed[1] < placed[3] && placed[3] <= 80.0);
    }
}
