//! Remarks on a list of values: outliers, drift, dependence and two humps.
//! They are shown beside the numbers and never remove a value.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::moments::lag1;
use super::order::{Sorted, mad, median, quantile};
use super::slope::theil_sen;

/// A modified z-score above this marks an outlier: ten times 1.4826, the
/// threshold of hyperfine (`src/outlier_detection.rs`), after Iglewicz and
/// Hoaglin, "How to Detect and Handle Outliers" (1993).
pub const OUTLIER_Z: f64 = 14.826;
/// Drift below this share of the median over the whole run is not remarked on.
const DRIFT_SHARE: f64 = 0.05;
/// Fewer values than this say nothing about dependence or humps.
const ENOUGH: usize = 20;
/// Fewer values than this are no group.
const FEWEST: usize = 5;
/// Distance of two humps in units of their spread from which they are named.
/// Halves of a normal, uniform or exponential distribution stay below 4.
const HUMPS_APART: f64 = 6.0;

/// One remark on a list of values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Flag {
    /// Values far from the rest; they are kept.
    Outliers {
        /// How many have `|x - median| / MAD` above [`OUTLIER_Z`].
        far: usize,
        /// How many lie outside Tukey's fences, 1.5 interquartile ranges
        /// beyond the quartiles.
        tukey: usize,
    },
    /// The first value measured is an outlier: something was still cold.
    FirstIsOutlier,
    /// The values move with the rounds.
    Drift {
        /// Change over the whole run as a share of the median.
        share: f64,
    },
    /// Neighbouring values resemble each other.
    Autocorrelated {
        /// Correlation of each value with the next.
        lag1: f64,
    },
    /// Two separate groups: the median describes neither.
    Bimodal {
        /// Median of the lower group.
        low: f64,
        /// Median of the upper group.
        high: f64,
        /// Share of values in the upper group.
        share: f64,
    },
    /// So many trials failed that the cell's numbers stand for the rest only.
    ManyFailures {
        /// Failed trials as a share of those tried.
        share: f64,
    },
}

impl Flag {
    /// Whether it says that one median is not the whole story: the values move,
    /// are of two kinds, or begin with another.
    #[must_use]
    pub fn is_of_the_centre(&self) -> bool {
        matches!(self, Self::Drift { .. } | Self::Bimodal { .. } | Self::FirstIsOutlier)
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: &f64| share * 100.0;
        match self {
            Self::Outliers { far, tukey } => {
                write!(f, "{far} far outliers, {tukey} outside Tukey's fences (kept)")
            }
            Self::FirstIsOutlier => {
                f.write_str("the first trial is an outlier (something was cold)")
            }
            Self::Drift { share } => write!(f, "drifts by {:+.0} % over the run", percent(share)),
            Self::Autocorrelated { lag1 } => {
                write!(f, "neighbouring trials resemble each other (lag-1 correlation {lag1:.2})")
            }
            Self::Bimodal { share, .. } => {
                write!(f, "two separate groups, {:.0} % of trials in the upper", percent(share))
            }
            Self::ManyFailures { share } => write!(f, "{:.0} % of trials failed", percent(share)),
        }
    }
}

/// All remarks on values given as `(round, value)` in the order of time.
#[must_use]
pub fn flags(series: &[(u32, f64)]) -> Vec<Flag> {
    let values: Vec<f64> = series.iter().map(|(_, value)| *value).collect();
    let sorted = Sorted::new(values.clone());
    let far = Fences::far(&sorted);
    let tukey = Fences::tukey(&sorted);
    let count = |fences: &Option<Fences>| {
        fences.as_ref().map_or(0, |fences| values.iter().filter(|x| fences.exclude(**x)).count())
    };
    let mut found = Vec::new();
    let (far_count, tukey_count) = (count(&far), count(&tukey));
    if far_count + tukey_count > 0 {
        found.push(Flag::Outliers { far: far_count, tukey: tukey_count });
    }
    if let (Some(fences), Some(first)) = (&far, values.first())
        && fences.exclude(*first)
    {
        found.push(Flag::FirstIsOutlier);
    }
    found.extend(drift(series, &sorted));
    found.extend(dependence(&values));
    found.extend(humps(&sorted));
    found
}

/// The range outside which a value is an outlier.
struct Fences {
    low: f64,
    high: f64,
}

impl Fences {
    /// By the modified z-score. Absent when the MAD is zero: with more than
    /// half of all values equal, the score is not defined.
    fn far(sorted: &Sorted) -> Option<Self> {
        let (centre, spread) = (median(sorted)?, mad(sorted)?);
        let reach = OUTLIER_Z * spread;
        (spread > 0.0).then_some(Self { low: centre - reach, high: centre + reach })
    }

    /// By Tukey's rule; absent below four values.
    fn tukey(sorted: &Sorted) -> Option<Self> {
        if sorted.len() < 4 {
            return None;
        }
        let (lower, upper) = (quantile(sorted, 0.25)?, quantile(sorted, 0.75)?);
        let reach = 1.5 * (upper - lower);
        Some(Self { low: lower - reach, high: upper + reach })
    }

    fn exclude(&self, value: f64) -> bool {
        value < self.low || value > self.high
    }
}

/// Drift: the Theil-Sen slope over rounds excludes zero and amounts to a share
/// of the median worth a remark.
fn drift(series: &[(u32, f64)], sorted: &Sorted) -> Option<Flag> {
    let points: Vec<(f64, f64)> =
        series.iter().map(|(round, value)| (f64::from(*round), *value)).collect();
    let line = theil_sen(&points)?;
    let centre = median(sorted)?;
    let first = points.iter().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let last = points.iter().map(|point| point.0).fold(f64::NEG_INFINITY, f64::max);
    let share = line.slope * (last - first) / centre;
    (line.interval?.excludes(0.0) && share.is_finite() && share.abs() >= DRIFT_SHARE)
        .then_some(Flag::Drift { share })
}

/// Lag-1 correlation beyond two standard errors (`2 / sqrt(n)`, Bartlett 1946).
/// The values are replaced by their ranks, so that one outlier cannot hide it.
fn dependence(values: &[f64]) -> Option<Flag> {
    if values.len() < ENOUGH {
        return None;
    }
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut at = 0;
    for ties in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let middle = at as f64 + (ties.len() - 1) as f64 / 2.0;
        ties.iter().for_each(|index| ranks[*index] = middle);
        at += ties.len();
    }
    let lag1 = lag1(&ranks)?;
    (lag1 > 2.0 / (values.len() as f64).sqrt()).then_some(Flag::Autocorrelated { lag1 })
}

/// Two groups: the cut that leaves the least variance inside both (Otsu 1979,
/// in one dimension), named when each group holds at least a tenth of the
/// values (and [`FEWEST`]) and their means are [`HUMPS_APART`] pooled standard deviations apart
/// (Ashman's D, The Astronomical Journal 108, 1994) with nothing in the third
/// between them.
fn humps(sorted: &Sorted) -> Option<Flag> {
    let values = sorted.as_slice();
    let n = values.len();
    if n < ENOUGH {
        return None;
    }
    let shift = median(sorted)?;
    let mut sums = vec![(0.0, 0.0)];
    for value in values {
        let (sum, squares) = sums[sums.len() - 1];
        let moved = value - shift;
        sums.push((sum + moved, squares + moved * moved));
    }
    let part = |from: usize, to: usize| {
        let count = (to - from) as f64;
        let mean = (sums[to].0 - sums[from].0) / count;
        let inside = (sums[to].1 - sums[from].1) - count * mean * mean;
        (mean, inside.max(0.0), count)
    };
    let least = n.div_ceil(10).max(FEWEST);
    let inside = |cut: usize| part(0, cut).1 + part(cut, n).1;
    let cut = (least..=n - least).min_by(|a, b| inside(*a).total_cmp(&inside(*b)))?;
    let ((low, low_ss, low_n), (high, high_ss, high_n)) = (part(0, cut), part(cut, n));
    let spread = ((low_ss / low_n + high_ss / high_n) / 2.0).sqrt();
    // Rounding of the prefix sums must not make two groups out of one value,
    // nor two clock ticks that differ by nothing anyone would care about.
    // A long tail has no empty stretch between its two halves.
    let gap = values[cut] - values[cut - 1];
    let apart = high - low > HUMPS_APART * spread
        && high - low > DRIFT_SHARE * shift.abs()
        && gap > (high - low) / 3.0;
    apart.then(|| Flag::Bimodal {
        low: values[cut / 2],
        high: values[cut + (n - cut) / 2],
        share: (n - cut) as f64 / n as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::Noise;

    fn series(values: &[f64]) -> Vec<(u32, f64)> {
        (1..).zip(values.iter().copied()).collect()
    }

    #[test]
    fn a_wild_first_trial_is_named_and_kept() {
        let mut values = vec![100.0];
        values.extend((0..12).map(|i| 10.0 + f64::from(i % 3)));
        let found = flags(&series(&values));
        assert!(found.contains(&Flag::Outliers { far: 1, tukey: 1 }), "{found:?}");
        assert!(found.contains(&Flag::FirstIsOutlier));
        values.rotate_left(1);
        assert!(!flags(&series(&values)).contains(&Flag::FirstIsOutlier));
    }

    #[test]
    fn the_threshold_is_that_of_hyperfine() {
        // Median 3, MAD 1: the fence is at 3 + 14.826.
        let with = |x: f64| flags(&series(&[1.0, 2.0, 3.0, 4.0, x]));
        let far = |found: &[Flag]| found.iter().any(|f| matches!(f, Flag::Outliers { far: 1, .. }));
        assert!(!far(&with(17.8)));
        assert!(far(&with(17.9)));
    }

    #[test]
    fn equal_values_have_no_remark() {
        assert_eq!(flags(&series(&[5.0; 40])), []);
        assert_eq!(flags(&[]), []);
    }

    #[test]
    fn drift_is_the_change_over_the_whole_run() {
        let values: Vec<f64> = (0..21).map(|round| 100.0 + f64::from(round)).collect();
        let found = flags(&series(&values));
        let Some(Flag::Drift { share }) = found.iter().find(|f| matches!(f, Flag::Drift { .. }))
        else {
            panic!("no drift in {found:?}");
        };
        assert!((share - 20.0 / 110.0).abs() < 1e-12);
        assert!(found.iter().any(|f| matches!(f, Flag::Autocorrelated { .. })));
    }

    #[test]
    fn two_groups_are_told_from_one() {
        let mut noise = Noise::new(7);
        for n in [20, 60, 300] {
            let two: Vec<f64> = (0..n)
                .map(|i| if i % 4 == 0 { 2.0 } else { 1.0 } + 0.03 * noise.normal())
                .collect();
            assert!(humps(&Sorted::new(two)).is_some(), "n={n}");
            for _ in 0..50 {
                let one = (0..n).map(|_| 100.0 + 20.0 * noise.normal()).collect();
                assert_eq!(humps(&Sorted::new(one)), None, "normal, n={n}");
                let tail = (0..n).map(|_| 1.0 - noise.uniform().ln()).collect();
                assert_eq!(humps(&Sorted::new(tail)), None, "exponential, n={n}");
            }
        }
    }

    #[test]
    fn independent_values_are_seldom_called_dependent() {
        let mut noise = Noise::new(3);
        let found = (0..400)
            .filter(|_| {
                let values: Vec<f64> = (0..40).map(|_| noise.normal()).collect();
                dependence(&values).is_some()
            })
            .count();
        assert!(found < 400 / 20, "{found} of 400");
    }
}
