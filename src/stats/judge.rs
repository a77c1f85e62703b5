//! Verdicts: when a difference may be called one, and how it is said.
//!
//! A difference is named only when it is certain, larger than the null backend
//! may differ from itself, and significant among all comparisons judged
//! together. Everything else is said to be not shown.

use std::fmt;

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

use super::compare::Ratio;
use super::order::Interval;
use crate::units::Unit;

/// Adjusted p-values must lie below this.
pub const LEVEL: f64 = 0.01;
/// No difference below 2 % is named, however certain.
pub const LEAST_RATIO: f64 = 1.02;
/// A difference that a reader would want to know of.
const WORTH_SHOWING: f64 = 1.05;
/// What may be said about a difference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Verdict {
    /// A shorter time.
    Faster,
    /// A longer time.
    Slower,
    /// Fewer bytes.
    Less,
    /// More bytes.
    More,
    /// Nothing that the rules allow to be called a difference.
    NoDifference {
        /// The smallest ratio, above one, that would have been called one in
        /// four of five such runs.
        smallest: f64,
    },
    /// No verdict is given.
    Withheld {
        /// Why.
        reason: String,
    },
}

impl Verdict {
    /// Whether it names a difference.
    #[must_use]
    pub fn is_named(&self) -> bool {
        matches!(self, Self::Faster | Self::Slower | Self::Less | Self::More)
    }

    /// Whether it says slower or more, certainly by more than `threshold` (a
    /// share: 0.05 for 5 %).
    #[must_use]
    pub fn is_worse_by(&self, ratio: Option<Ratio>, threshold: f64) -> bool {
        let near = ratio.and_then(|ratio| ratio.interval).map(|interval| interval.low);
        matches!(self, Self::Slower | Self::More) && near.is_some_and(|near| near > 1.0 + threshold)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::Less => "less",
            Self::More => "more",
            Self::NoDifference { .. } => "no difference shown",
            Self::Withheld { .. } => "withheld",
        })
    }
}

/// Gives verdicts by the rules at the head of this module.
pub(super) struct Judge {
    /// Comparisons tested together.
    pub(super) tested: usize,
}

/// What a verdict is given on; what is missing, with its reason.
pub(super) struct Evidence {
    pub(super) unit: Unit,
    pub(super) ratio: Option<Ratio>,
    /// The adjusted p-value.
    pub(super) p: Result<f64, String>,
    /// How far, as the logarithm of a ratio, identical things differ here.
    pub(super) noise: Result<f64, String>,
}

impl Judge {
    pub(super) fn verdict(&self, evidence: Evidence) -> Verdict {
        let (p, noise) = match (evidence.p, evidence.noise) {
            (Ok(p), Ok(noise)) => (p, noise.max(LEAST_RATIO.ln())),
            (Err(reason), _) | (_, Err(reason)) => return Verdict::Withheld { reason },
        };
        let Some((ratio, interval)) =
            evidence.ratio.and_then(|ratio| Some((ratio, ratio.interval?)))
        else {
            return Verdict::Withheld { reason: "a median of zero has no ratio".to_owned() };
        };
        if interval.excludes(1.0) && ratio.ratio.ln().abs() > noise && p < LEVEL {
            return named(evidence.unit, ratio.ratio < 1.0);
        }
        let smallest = self.detectable(noise, ratio.half_width().unwrap_or(0.0));
        Verdict::NoDifference { smallest }
    }

    /// The ratio that is called a difference in four of five runs: its
    /// logarithm must reach both bars with a margin of 0.84 standard errors (a
    /// normal value lies above -0.84 in 80 % of cases). The first bar is the
    /// noise; the second is the level of the test, divided among all
    /// comparisons. Half an interval's width is 1.96 standard errors of the
    /// ratio of medians; the signed-rank test sees differences with 0.8 of
    /// those (its efficiency against the median is 1.5 for normal values:
    /// Lehmann, Nonparametrics, 1975, sections 2.4 and 4.3).
    fn detectable(&self, noise: f64, half_width: f64) -> f64 {
        let normal = Normal::standard();
        let margin = normal.inverse_cdf(0.8);
        let level = normal.inverse_cdf(1.0 - LEVEL / (2 * self.tested.max(1)) as f64);
        let error = half_width / normal.inverse_cdf(0.975);
        (noise + margin * error).max((level + margin) * 0.8 * error).exp()
    }
}

fn named(unit: Unit, smaller: bool) -> Verdict {
    match (unit, smaller) {
        (Unit::Nanoseconds, true) => Verdict::Faster,
        (Unit::Nanoseconds, false) => Verdict::Slower,
        (_, true) => Verdict::Less,
        (_, false) => Verdict::More,
    }
}

/// The verdict in words.
pub(super) fn words(verdict: &Verdict, ratio: Option<Ratio>, n: usize, of: &str) -> String {
    match (verdict, ratio.and_then(|ratio| ratio.interval)) {
        (Verdict::Withheld { reason }, _) => format!("withheld: {reason}"),
        (Verdict::NoDifference { smallest }, _) => {
            let shown = amount(*smallest);
            format!(
                "no difference shown; could have shown {shown}{}",
                more_needed(*smallest, n, of)
            )
        }
        (_, Some(interval)) => format!("{verdict} by {}", by_how_much(interval)),
        (_, None) => verdict.to_string(),
    }
}

/// How many values it would take to show [`WORTH_SHOWING`], when these could
/// not: errors shrink with the square root of their number.
fn more_needed(smallest: f64, n: usize, of: &str) -> String {
    let share = smallest.ln() / WORTH_SHOWING.ln();
    if share <= 1.0 || !share.is_finite() {
        return String::new();
    }
    let n = two_digits(n as f64 * share * share);
    format!(", {} would take about {n:.0} {of}", amount(WORTH_SHOWING))
}

/// A number of values rounded up to two digits: an estimate has no more.
fn two_digits(n: f64) -> f64 {
    let unit = 10_f64.powf((n.log10().floor() - 1.0).max(0.0));
    (n / unit).ceil() * unit
}

/// A ratio above one as people say it: per cent below twice, times beyond.
fn amount(ratio: f64) -> String {
    if ratio < 2.0 {
        percent(100.0 * (ratio - 1.0))
    } else {
        format!("{}x", Unit::Count.human(ratio))
    }
}

/// The interval of a ratio as people say it: per cent where they are easy to
/// read, times beyond.
fn by_how_much(interval: Interval) -> String {
    let Interval { low, high } = interval;
    let larger = low.max(1.0 / high);
    let (from, to) = if larger < 1.1 {
        let change = |ratio: f64| percent((100.0 * (ratio - 1.0)).abs());
        if low > 1.0 { (change(low), change(high)) } else { (change(high), change(low)) }
    } else {
        let times = |ratio: f64| format!("{}x", Unit::Count.human(ratio));
        if low > 1.0 { (times(low), times(high)) } else { (times(1.0 / high), times(1.0 / low)) }
    };
    if from == to { from } else { format!("{from} to {to}") }
}

fn percent(value: f64) -> String {
    format!("{} %", Unit::Count.human(value))
}
