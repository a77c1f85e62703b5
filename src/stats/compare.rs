//! How two lists differ: ratio of medians with its interval, a test within
//! rounds, and the correction for many comparisons.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

use super::order::{Interval, Sorted, median, quantile};

/// Resamples behind every bootstrap interval.
pub const RESAMPLES: usize = 10_000;
/// Rounds from which the bootstrap of two medians is drawn from its limit
/// instead of by resampling, see [`ratio_of_medians`].
const MANY_ROUNDS: usize = 1_000;

/// The most rounds of which all pairs are averaged in [`hodges_lehmann`].
pub const MOST_MEANS: usize = 400;

/// One round: the value of the subject and that of the baseline.
pub type Pair = (f64, f64);

/// How one value differs from another, said in both usual ways at once, so
/// that they cannot contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Subject divided by baseline.
    pub ratio: f64,
    /// The larger divided by the smaller: the `x` of "x times".
    pub times: f64,
    /// Change relative to the baseline in per cent, negative for less: the
    /// `y` of "y % less" or "y % more".
    pub percent: f64,
}

/// The difference of `subject` from `baseline`: 0.6 against 0.82 is a ratio of
/// 0.73, 26.8 % less, and 1.37 times the other way round. Absent unless both
/// are positive and finite.
#[must_use]
pub fn difference(subject: f64, baseline: f64) -> Option<Difference> {
    let usable = |value: f64| value > 0.0 && value.is_finite();
    if !usable(subject) || !usable(baseline) {
        return None;
    }
    let ratio = subject / baseline;
    let times = subject.max(baseline) / subject.min(baseline);
    Some(Difference { ratio, times, percent: 100.0 * (subject - baseline) / baseline })
}

/// A ratio of medians with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Median of the subject over median of the baseline.
    pub ratio: f64,
    /// 95 % percentile-bootstrap interval; absent below six rounds.
    pub interval: Option<Interval>,
}

impl Ratio {
    /// Half the width of the interval on the scale of logarithms.
    #[must_use]
    pub fn half_width(&self) -> Option<f64> {
        self.interval.map(|interval| (interval.high / interval.low).ln() / 2.0)
    }
}

/// The ratio of medians over rounds and its 95 % percentile-bootstrap
/// interval: rounds are drawn with replacement, [`RESAMPLES`] times, and both
/// medians are taken over the same drawn rounds, so that what a round has in
/// common cancels out. The same seed gives the same interval.
///
/// From a thousand rounds on, the drawn medians come from the limit of that
/// procedure instead: a median of drawn rounds is the original list's quantile
/// at 1/2 plus a normal error of standard deviation `1 / (2 sqrt(n))`, the two
/// errors correlated as the two lists are (Bahadur, Annals of Mathematical
/// Statistics 37, 1966). It takes time independent of the number of rounds.
///
/// Absent without rounds, or when a median is not positive.
#[must_use]
pub fn ratio_of_medians(pairs: &[Pair], seed: u64) -> Option<Ratio> {
    ratio_with(pairs, seed, RESAMPLES)
}

pub(super) fn ratio_with(pairs: &[Pair], seed: u64, resamples: usize) -> Option<Ratio> {
    let subject = Ranked::new(pairs.iter().map(|pair| pair.0));
    let baseline = Ranked::new(pairs.iter().map(|pair| pair.1));
    let ratio = difference(subject.median()?, baseline.median()?)?.ratio;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let drawn = if pairs.len() < super::order::samples_needed(0.5) {
        None
    } else if pairs.len() < MANY_ROUNDS {
        Some(resampled(&subject, &baseline, resamples, &mut rng))
    } else {
        Some(from_limit(pairs, &subject, &baseline, resamples, &mut rng))
    };
    let interval = drawn.map(Sorted::new).and_then(|ratios| {
        let interval = Interval { low: quantile(&ratios, 0.025)?, high: quantile(&ratios, 0.975)? };
        (interval.low > 0.0 && interval.high.is_finite()).then_some(interval)
    });
    Some(Ratio { ratio, interval })
}

/// A list with the rounds in the order of its values.
struct Ranked {
    sorted: Sorted,
    rounds: Vec<usize>,
}

impl Ranked {
    fn new(values: impl Iterator<Item = f64>) -> Self {
        let mut both: Vec<(f64, usize)> = values.zip(0..).collect();
        both.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self {
            sorted: Sorted::new(both.iter().map(|(value, _)| *value).collect()),
            rounds: both.into_iter().map(|(_, round)| round).collect(),
        }
    }

    fn median(&self) -> Option<f64> {
        median(&self.sorted)
    }

    /// The median of the list in which round r stands `counts[r]` times.
    fn median_of(&self, counts: &[u32]) -> f64 {
        let total: usize = self.rounds.len();
        let (low, high) = ((total - 1) / 2, total / 2);
        let values = self.sorted.as_slice();
        let mut seen = 0;
        let mut first = None;
        for (round, value) in self.rounds.iter().zip(values) {
            seen += counts[*round] as usize;
            if first.is_none() && seen > low {
                first = Some(*value);
            }
            if seen > high {
                return first.map_or(*value, |first| f64::midpoint(first, *value));
            }
        }
        f64::NAN
    }
}

/// Ratios of medians over drawn rounds. Counting how often each round was
/// drawn and walking the sorted lists costs one pass instead of two sorts.
fn resampled(
    subject: &Ranked,
    baseline: &Ranked,
    resamples: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<f64> {
    let n = subject.rounds.len();
    let mut counts = vec![0_u32; n];
    (0..resamples)
        .map(|_| {
            counts.fill(0);
            for _ in 0..n {
                counts[below(rng, n)] += 1;
            }
            subject.median_of(&counts) / baseline.median_of(&counts)
        })
        .collect()
}

/// An index below `n`: the high half of a 64-bit product. With n under a
/// thousand its bias is below 3e-7 per index.
pub(super) fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    let product = u64::from(rng.next_u32()) * n as u64;
    usize::try_from(product >> 32).unwrap_or(0)
}

/// Ratios of medians drawn from the limit of the bootstrap.
fn from_limit(
    pairs: &[Pair],
    subject: &Ranked,
    baseline: &Ranked,
    resamples: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<f64> {
    let n = pairs.len() as f64;
    let (Some(a), Some(b)) = (subject.median(), baseline.median()) else {
        return Vec::new();
    };
    let agree = pairs.iter().filter(|(x, y)| (*x > a) == (*y > b)).count() as f64 / n;
    let correlation = 2.0 * agree - 1.0;
    let rest = (1.0 - correlation * correlation).max(0.0).sqrt();
    let step = 0.5 / n.sqrt();
    let at = |list: &Ranked, error: f64| {
        quantile(&list.sorted, (0.5 + step * error).clamp(0.0, 1.0)).unwrap_or(f64::NAN)
    };
    (0..resamples)
        .map(|_| {
            let (first, second) = (normal_value(rng), normal_value(rng));
            at(subject, first) / at(baseline, correlation * first + rest * second)
        })
        .collect()
}

/// A standard normal value, by the inverse of its distribution.
fn normal_value(rng: &mut ChaCha8Rng) -> f64 {
    let uniform = (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0;
    Normal::standard().inverse_cdf(uniform)
}

/// The typical ratio of a round: the Hodges-Lehmann estimate that belongs to
/// [`permutation_p`], which is the median of all means of two rounds' (or one
/// round's) logarithms of ratios, taken back from the logarithm (Hodges and
/// Lehmann, Annals of Mathematical Statistics 34, 1963). Unlike the ratio of
/// medians it follows each round's own ratio. Above [`MOST_MEANS`] rounds,
/// rounds at even distances in the order of their ratios stand for all. Absent
/// without rounds or when a value is not positive.
#[must_use]
pub fn hodges_lehmann(pairs: &[Pair]) -> Option<f64> {
    let logs = pairs.iter().map(|(a, b)| difference(*a, *b).map(|found| found.ratio.ln()));
    let logs = Sorted::new(logs.collect::<Option<Vec<f64>>>()?);
    let logs = logs.as_slice();
    let last = logs.len().checked_sub(1)?;
    let kept = logs.len().min(MOST_MEANS);
    let at = |index: usize| logs[index * last / (kept - 1).max(1)];
    let means =
        (0..kept).flat_map(|i| (i..kept).map(move |j| f64::midpoint(at(i), at(j)))).collect();
    median(&Sorted::new(means)).map(f64::exp)
}

/// The p-value, two-sided, of the hypothesis that within each round the two
/// values could as well stand the other way round: Wilcoxon's signed-rank
/// test, the permutation test within rounds on ranked differences. Up to a
/// hundred rounds it counts all `2^n` exchanges exactly (ties get middle ranks,
/// equal pairs say nothing and are left out, as in Wilcoxon 1945); above, the
/// normal approximation with the correction for ties. Absent without rounds.
#[must_use]
pub fn permutation_p(pairs: &[Pair]) -> Option<f64> {
    if pairs.is_empty() {
        return None;
    }
    let mut differences: Vec<f64> =
        pairs.iter().map(|(a, b)| a - b).filter(|difference| *difference != 0.0).collect();
    differences.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    // Twice the middle rank is whole even for ties.
    let mut doubled = Vec::with_capacity(differences.len());
    let mut positive = 0;
    for ties in differences.chunk_by(|a, b| a.abs() == b.abs()) {
        let rank = 2 * doubled.len() + ties.len() + 1;
        positive += rank * ties.iter().filter(|difference| **difference > 0.0).count();
        doubled.extend(std::iter::repeat_n(rank, ties.len()));
    }
    let total: usize = doubled.iter().sum();
    let lower = positive.min(total - positive);
    let p = if doubled.len() <= 100 { exact(&doubled, lower) } else { normal(&doubled, lower) };
    Some((2.0 * p).min(1.0))
}

/// The chance that the sum of a random subset of `ranks` is at most `lower`.
fn exact(ranks: &[usize], lower: usize) -> f64 {
    let mut chance = vec![0.0; lower + 1];
    chance[0] = 1.0;
    for &rank in ranks {
        for sum in (0..=lower).rev() {
            let with = sum.checked_sub(rank).map_or(0.0, |before| chance[before]);
            chance[sum] = (chance[sum] + with) / 2.0;
        }
    }
    chance.iter().sum()
}

/// The same by the normal distribution.
fn normal(ranks: &[usize], lower: usize) -> f64 {
    let mean = ranks.iter().sum::<usize>() as f64 / 2.0;
    let variance = ranks.iter().map(|rank| (*rank as f64).powi(2)).sum::<f64>() / 4.0;
    // Half a rank of continuity correction is one on the doubled scale.
    let z = (mean - lower as f64 - 1.0).max(0.0) / variance.sqrt();
    Normal::standard().sf(z)
}

/// The fewest rounds in which [`permutation_p`] can fall below `level` after
/// [`holm`] over `comparisons`: the smallest n with `2 * 2^-n * m < level`.
#[must_use]
pub fn rounds_needed(level: f64, comparisons: usize) -> usize {
    (1..)
        .find(|n| 2.0_f64.powi(1 - n) * (comparisons as f64) < level)
        .map_or(usize::MAX, |n: i32| usize::try_from(n).unwrap_or(usize::MAX))
}

/// Holm's step-down adjustment (Scandinavian Journal of Statistics 6, 1979):
/// the p-values, in the order given, that hold for all of them together.
#[must_use]
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut highest = 0.0_f64;
    for (rank, index) in order.into_iter().enumerate() {
        highest = highest.max((p[index] * (p.len() - rank) as f64).min(1.0));
        adjusted[index] = highest;
    }
    adjusted
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
