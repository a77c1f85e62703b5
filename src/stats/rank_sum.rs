//! A test of two independent lists, and the ratio of their medians when each
//! list comes from one or several runs.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use statrs::distribution::{ContinuousCDF, Normal};

use super::compare::{RESAMPLES, Ratio, below, difference};
use super::order::{Interval, Sorted, median, quantile, samples_needed};

/// Up to so many values in both lists together the test counts exactly.
const EXACT: usize = 60;

/// The p-value, two-sided, of the hypothesis that any exchange of values
/// between the two lists could have been observed as well: the rank-sum test
/// of Wilcoxon (1945) and of Mann and Whitney (1947). It counts all ways to
/// choose the first list's ranks exactly up to 60 values in all (ties get
/// middle ranks); above, the normal approximation with the correction for
/// ties. Absent when a list is empty.
#[must_use]
pub fn rank_sum_p(first: &[f64], second: &[f64]) -> Option<f64> {
    if first.is_empty() || second.is_empty() {
        return None;
    }
    let mut all: Vec<(f64, bool)> = first.iter().map(|value| (*value, true)).collect();
    all.extend(second.iter().map(|value| (*value, false)));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Twice the middle rank is whole even for ties.
    let mut doubled = Vec::with_capacity(all.len());
    let mut sum = 0;
    let mut ties = 0.0;
    for equal in all.chunk_by(|a, b| a.0 == b.0) {
        let rank = 2 * doubled.len() + equal.len() + 1;
        sum += rank * equal.iter().filter(|(_, is_first)| *is_first).count();
        doubled.extend(std::iter::repeat_n(rank, equal.len()));
        ties += (equal.len() as f64).powi(3) - equal.len() as f64;
    }
    let tail = if all.len() <= EXACT {
        exact(&doubled, first.len(), sum)
    } else {
        normal(first.len(), second.len(), sum, ties)
    };
    Some((2.0 * tail).min(1.0))
}

/// The fewest values in each list with which [`rank_sum_p`] can fall below
/// `level` divided by `comparisons`: the smallest n with
/// `2 / (2n choose n) * m < level`.
#[must_use]
pub fn values_needed(level: f64, comparisons: usize) -> usize {
    let mut choices = 1.0;
    let mut n = 0_usize;
    while 2.0 / choices * comparisons as f64 >= level {
        n += 1;
        choices *= (4 * n - 2) as f64 / n as f64;
    }
    n
}

/// The chance of a sum of `chosen` of the ranks as far out as `sum` on its
/// side.
fn exact(ranks: &[usize], chosen: usize, sum: usize) -> f64 {
    let total: usize = ranks.iter().sum();
    // Number of ways by count and sum; a double holds them to 16 digits.
    let mut ways = vec![vec![0.0_f64; total + 1]; chosen + 1];
    ways[0][0] = 1.0;
    for &rank in ranks {
        for count in (0..chosen).rev() {
            for at in (0..=total - rank).rev() {
                let more = ways[count][at];
                if more > 0.0 {
                    ways[count + 1][at + rank] += more;
                }
            }
        }
    }
    let all: f64 = ways[chosen].iter().sum();
    let low: f64 = ways[chosen][..=sum].iter().sum();
    let high: f64 = ways[chosen][sum..].iter().sum();
    low.min(high) / all
}

/// The same by the normal distribution, on doubled ranks; `ties` is the sum of
/// `t^3 - t` over groups of equal values.
fn normal(first: usize, second: usize, sum: usize, ties: f64) -> f64 {
    let (m, n) = (first as f64, second as f64);
    let all = m + n;
    let mean = m * (all + 1.0);
    let variance = m * n / 3.0 * (all + 1.0 - ties / (all * (all - 1.0)));
    // Half a rank of continuity correction is one on the doubled scale.
    let z = ((sum as f64 - mean).abs() - 1.0).max(0.0) / variance.sqrt();
    Normal::standard().sf(z)
}

/// The ratio of the median of all values of `subject` to that of `baseline`,
/// lists of runs, with a 95 % percentile-bootstrap interval. Where a side has
/// several runs, runs are drawn first and then values within each drawn run,
/// so that the interval holds for another run, not only for these (Davison and
/// Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). Runs
/// count by their number of values.
///
/// Absent when a side has no value or a median is not positive; the interval
/// is absent below six values.
#[must_use]
pub fn ratio_between(subject: &[Vec<f64>], baseline: &[Vec<f64>], seed: u64) -> Option<Ratio> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let centre = |runs: &[Vec<f64>]| median(&Sorted::new(runs.concat()));
    let ratio = difference(centre(subject)?, centre(baseline)?)?.ratio;
    let fewest = subject.concat().len().min(baseline.concat().len());
    if fewest < samples_needed(0.5) {
        return Some(Ratio { ratio, interval: None });
    }
    let drawn = (0..RESAMPLES)
        .map(|_| drawn_median(subject, &mut rng) / drawn_median(baseline, &mut rng))
        .collect();
    let ratios = Sorted::new(drawn);
    let interval = Interval { low: quantile(&ratios, 0.025)?, high: quantile(&ratios, 0.975)? };
    let interval = (interval.low > 0.0 && interval.high.is_finite()).then_some(interval);
    Some(Ratio { ratio, interval })
}

/// The median of one resample.
fn drawn_median(runs: &[Vec<f64>], rng: &mut ChaCha8Rng) -> f64 {
    let mut drawn = Vec::new();
    for _ in runs {
        let run = &runs[below(rng, runs.len())];
        drawn.extend((0..run.len()).map(|_| run[below(rng, run.len())]));
    }
    let middle = drawn.len() / 2;
    if drawn.is_empty() {
        return f64::NAN;
    }
    let even = drawn.len() % 2 == 0;
    let (below, value, _) = drawn.select_nth_unstable_by(middle, f64::total_cmp);
    let value = *value;
    if !even {
        return value;
    }
    let lower = below.iter().copied().max_by(f64::total_cmp).unwrap_or(value);
    f64::midpoint(lower, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::Noise;

    #[test]
    fn the_rank_sum_test_counts_exactly() {
        let p = |a: &[f64], b: &[f64]| rank_sum_p(a, b).expect("values");
        // Fully apart: 2 of (6 choose 3) = 20 choices.
        assert!((p(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]) - 0.1).abs() < 1e-12);
        // R: wilcox.test(c(1.1, 2.2, 0.9, 4), c(3.3, 5, 6, 7, 8)): W = 1,
        // p-value = 0.03175 (4 of 126).
        let found = p(&[1.1, 2.2, 0.9, 4.0], &[3.3, 5.0, 6.0, 7.0, 8.0]);
        assert!((found - 4.0 / 126.0).abs() < 1e-12, "{found}");
        // All equal: nothing can be said.
        assert_eq!(p(&[1.0, 1.0], &[1.0, 1.0]), 1.0);
        assert_eq!(rank_sum_p(&[], &[1.0]), None);
    }

    #[test]
    fn exact_and_normal_agree_where_they_meet() {
        let mut noise = Noise::new(3);
        for shift in [0.0, 0.1, 0.3] {
            let a: Vec<f64> = (0..30).map(|_| noise.normal()).collect();
            let b: Vec<f64> = (0..30).map(|_| noise.normal() + shift).collect();
            let mut all: Vec<f64> = [a.clone(), b.clone()].concat();
            all.sort_by(f64::total_cmp);
            let sum = a
                .iter()
                .map(|value| 2 * (1 + all.iter().position(|other| other == value).expect("in")))
                .sum();
            let (exact, normal) =
                (rank_sum_p(&a, &b).expect("values"), 2.0 * normal(30, 30, sum, 0.0));
            assert!((exact - normal.min(1.0)).abs() < 0.02, "{exact} {normal}");
        }
    }

    #[test]
    fn needed_values_are_exactly_enough() {
        for comparisons in [1, 30] {
            let n = values_needed(0.01, comparisons);
            let p = |n: usize| rank_sum_p(&vec![1.0; n], &vec![2.0; n]).expect("values");
            assert!(p(n) * (comparisons as f64) < 0.01);
            assert!(p(n - 1) * comparisons as f64 >= 0.01);
        }
    }

    #[test]
    fn runs_that_differ_widen_the_interval() {
        let mut noise = Noise::new(8);
        let mut run =
            |centre: f64| -> Vec<f64> { (0..30).map(|_| centre * noise.lognormal(0.02)).collect() };
        let alike = [run(1.0), run(1.0), run(1.0), run(1.0)];
        let unlike = [run(0.8), run(0.9), run(1.1), run(1.2)];
        let base = [run(1.0), run(1.0), run(1.0), run(1.0)];
        let width = |subject: &[Vec<f64>]| {
            ratio_between(subject, &base, 1).and_then(|ratio| ratio.half_width()).expect("many")
        };
        assert!(width(&unlike) > 5.0 * width(&alike));
    }

    #[test]
    fn the_interval_of_two_runs_covers_the_truth() {
        let mut noise = Noise::new(12);
        let covered = (0..100)
            .filter(|seed| {
                let mut run = |centre: f64| -> Vec<f64> {
                    (0..25).map(|_| centre * noise.lognormal(0.1)).collect()
                };
                let ratio = ratio_between(&[run(1.2)], &[run(1.0)], *seed).expect("positive");
                !ratio.interval.expect("enough").excludes(1.2)
            })
            .count();
        // 95 % of 100 less three standard errors.
        assert!(covered >= 88, "{covered} of 100");
    }
}
