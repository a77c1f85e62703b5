//! Order statistics: quantiles, the median and its interval, the median
//! absolute deviation, and which percentiles a number of samples allows.
//!
//! Functions that need sorted input take [`Sorted`], so that an unsorted list
//! cannot reach them.

use serde::{Deserialize, Serialize};

/// Values in ascending order, without NaN.
#[derive(Clone, Debug, PartialEq)]
pub struct Sorted(Vec<f64>);

impl Sorted {
    /// Sorts the values. Values that are not a number are left out; the
    /// caller counts them as missing before it comes here.
    #[must_use]
    pub fn new(mut values: Vec<f64>) -> Self {
        values.retain(|value| !value.is_nan());
        values.sort_unstable_by(f64::total_cmp);
        Self(values)
    }

    /// The values, smallest first.
    #[must_use]
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// An interval that is meant to hold the true value in 95 of 100 runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// How far from 1 the further end of a ratio's interval is, as a logarithm.
    #[must_use]
    pub fn furthest(&self) -> f64 {
        self.high.ln().max(-self.low.ln())
    }

    /// Whether `value` lies outside.
    #[must_use]
    pub fn excludes(&self, value: f64) -> bool {
        value < self.low || value > self.high
    }
}

/// The quantile at `p` (0 to 1): linear interpolation between the two nearest
/// order statistics, definition 7 of Hyndman and Fan, "Sample Quantiles in
/// Statistical Packages", The American Statistician 50 (1996), which is also
/// the default of R and `NumPy`. Absent when there is no value or `p` is
/// outside 0 to 1.
#[must_use]
pub fn quantile(sorted: &Sorted, p: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    if !(0.0..=1.0).contains(&p) {
        return None;
    }
    let position = p * last as f64;
    let below = index(position.floor()).min(last);
    let above = (below + 1).min(last);
    let (low, high) = (sorted.0[below], sorted.0[above]);
    let share = position - position.floor();
    // The first form keeps infinities and equal neighbours exact.
    Some(if low == high || share == 0.0 { low } else { low + share * (high - low) })
}

/// The median by [`quantile`].
#[must_use]
pub fn median(sorted: &Sorted) -> Option<f64> {
    quantile(sorted, 0.5)
}

/// The median absolute deviation from the median, without a scale factor.
#[must_use]
pub fn mad(sorted: &Sorted) -> Option<f64> {
    let centre = median(sorted)?;
    let deviations = sorted.0.iter().map(|value| (value - centre).abs()).collect();
    // Distances from the middle are in no order: they must be sorted anew.
    median(&Sorted::new(deviations))
}

/// A percentile that is reported when there are enough samples for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Percentile {
    /// The 90th.
    P90,
    /// The 95th.
    P95,
    /// The 99th.
    P99,
    /// The 99.9th.
    P999,
}

impl Percentile {
    /// All of them, ascending.
    pub const ALL: [Self; 4] = [Self::P90, Self::P95, Self::P99, Self::P999];

    /// The share of values below it.
    #[must_use]
    pub fn share(self) -> f64 {
        match self {
            Self::P90 => 0.90,
            Self::P95 => 0.95,
            Self::P99 => 0.99,
            Self::P999 => 0.999,
        }
    }

    /// The percentile, or nothing when there are fewer samples than
    /// [`samples_needed`] for it.
    #[must_use]
    pub fn of(self, sorted: &Sorted) -> Option<f64> {
        if sorted.len() < samples_needed(self.share()) {
            return None;
        }
        quantile(sorted, self.share())
    }
}

/// The fewest samples for which a distribution-free two-sided 95 % interval of
/// the quantile `p` exists: the smallest n with `max(p, 1-p)^n <= 0.025`,
/// since the interval can at most reach from the smallest to the largest
/// value. 6 for the median, 36, 72, 368 and 3688 for p90, p95, p99 and p99.9.
#[must_use]
pub fn samples_needed(p: f64) -> usize {
    let worst = p.max(1.0 - p);
    index((0.025_f64.ln() / worst.ln()).ceil())
}

/// A 95 % interval of the median from order statistics: from the k-th smallest
/// to the k-th largest value with the largest k for which a binomial(n, 1/2)
/// count stays below k with a probability of at most 0.025 (Conover, Practical
/// Nonparametric Statistics, section 3.2). It assumes nothing about the
/// distribution and covers at least 95 %. Absent below six values.
#[must_use]
pub fn median_interval(sorted: &Sorted) -> Option<Interval> {
    median_interval_at(sorted, 0.025)
}

/// [`median_interval`] that leaves out the median with at most `tail` on
/// either side.
pub(super) fn median_interval_at(sorted: &Sorted, tail: f64) -> Option<Interval> {
    let n = sorted.len();
    let mut log_chance = -(n as f64) * std::f64::consts::LN_2;
    let mut below = 0.0;
    let mut k = 0;
    loop {
        below += log_chance.exp();
        if below > tail || k > n {
            break;
        }
        log_chance += ((n - k) as f64 / (k + 1) as f64).ln();
        k += 1;
    }
    let low = k.checked_sub(1)?;
    Some(Interval { low: sorted.0[low], high: sorted.0[n - 1 - low] })
}

/// A non-negative whole `f64` as an index.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "callers pass whole, non-negative numbers far below 2^52; the cast saturates"
)]
fn index(value: f64) -> usize {
    value as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(values: &[f64]) -> Sorted {
        Sorted::new(values.to_vec())
    }

    #[test]
    fn quantiles_are_those_of_r_type_7() {
        // R: quantile(c(1, 3, 4, 10, 12), c(.1, .25, .5, .9), type = 7)
        let values = sorted(&[12.0, 1.0, 4.0, 10.0, 3.0]);
        for (p, expected) in [(0.1, 1.8), (0.25, 3.0), (0.5, 4.0), (0.9, 11.2), (1.0, 12.0)] {
            let got = quantile(&values, p).expect("values");
            assert!((got - expected).abs() < 1e-12, "{p}: {got}");
        }
        assert_eq!(median(&sorted(&[1.0, 2.0, 3.0, 10.0])), Some(2.5));
        assert_eq!(quantile(&values, 1.5), None);
        assert_eq!(median(&sorted(&[])), None);
        assert_eq!(median(&sorted(&[7.0])), Some(7.0));
    }

    #[test]
    fn mad_sorts_the_deviations() {
        // Deviations from the median 3 in input order: 2, 1, 0, 1, 97. The
        // middle of that unsorted list would be 0.
        assert_eq!(mad(&sorted(&[1.0, 2.0, 3.0, 4.0, 100.0])), Some(1.0));
        assert_eq!(mad(&sorted(&[5.0, 1.0, 9.0, 2.0, 2.0, 4.0, 6.0])), Some(2.0));
    }

    #[test]
    fn percentiles_need_their_samples() {
        assert_eq!(samples_needed(0.5), 6);
        let needed: Vec<usize> =
            Percentile::ALL.iter().map(|percentile| samples_needed(percentile.share())).collect();
        assert_eq!(needed, [36, 72, 368, 3688]);
        for (percentile, n) in Percentile::ALL.into_iter().zip(needed) {
            let values = |n: usize| Sorted::new((0..n).map(|i| i as f64).collect());
            assert_eq!(percentile.of(&values(n - 1)), None, "{percentile:?}");
            assert!(percentile.of(&values(n)).is_some(), "{percentile:?}");
        }
        let ten = Sorted::new((0..10).map(f64::from).collect());
        assert_eq!(Percentile::P99.of(&ten), None, "a p99 of ten is its maximum");
    }

    #[test]
    fn median_interval_matches_the_binomial_tables() {
        let count = |n: u32| Sorted::new((1..=n).map(f64::from).collect());
        assert_eq!(median_interval(&count(5)), None);
        // Ranks from the sign-test table (Conover, table A3): n=6: 1..6,
        // n=10: 2..9, n=20: 6..15, n=60: 22..39.
        for (n, low, high) in [(6, 1.0, 6.0), (10, 2.0, 9.0), (20, 6.0, 15.0), (60, 22.0, 39.0)] {
            assert_eq!(median_interval(&count(n)), Some(Interval { low, high }), "n={n}");
        }
    }

    #[test]
    fn median_interval_of_many_follows_the_normal_approximation() {
        let n = 1_000_000_u32;
        let interval = median_interval(&Sorted::new((1..=n).map(f64::from).collect()));
        let half = 1.96 * f64::from(n).sqrt() / 2.0;
        let low = interval.expect("many").low;
        assert!((low - (f64::from(n) / 2.0 - half)).abs() < 2.0, "{low}");
    }

    proptest! {
        #[test]
        fn quantiles_are_ordered_and_inside(
            values in prop::collection::vec(-1e12..1e12_f64, 1..80),
            p in 0.0..1.0_f64, q in 0.0..1.0_f64,
        ) {
            let sorted = Sorted::new(values);
            let (low, high) = (p.min(q), p.max(q));
            let at = |p| quantile(&sorted, p).expect("values");
            prop_assert!(at(low) <= at(high));
            prop_assert!(at(0.0) <= at(low) && at(high) <= at(1.0));
        }

        #[test]
        fn quantiles_scale_with_their_values(
            values in prop::collection::vec(0.0..1e9_f64, 1..60),
            p in 0.0..1.0_f64, power in -8_i32..8,
        ) {
            // A power of two scales without rounding, so equality is exact.
            let factor = 2.0_f64.powi(power);
            let scaled = Sorted::new(values.iter().map(|value| value * factor).collect());
            let plain = Sorted::new(values);
            prop_assert_eq!(quantile(&scaled, p), quantile(&plain, p).map(|q| q * factor));
        }

        #[test]
        fn the_median_lies_in_its_interval(values in prop::collection::vec(0.0..1e9_f64, 6..80)) {
            let sorted = Sorted::new(values);
            let interval = median_interval(&sorted).expect("six or more");
            prop_assert!(!interval.excludes(median(&sorted).expect("values")));
        }
    }
}
