//! A test of two independent lists, and the ratio of their medians when each
//! list comes from one or several runs.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use super::compare::{RESAMPLES, Ratio, below, difference};
use super::moments::mean;
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
/// lists of runs, with a 95 % interval: the wider one of two, at either end.
/// The first is a percentile bootstrap in which runs are drawn first, where a
/// side has several, and then values within each drawn run (Davison and
/// Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). With
/// few runs it is too narrow, since there are few ways to draw them; the second
/// is that of [`between_runs`], which knows how few they are. Runs count by
/// their number of values.
///
/// With one run on each side the interval holds for these two runs only: how
/// far runs differ cannot be seen in them.
///
/// Absent when a side has no value or a median is not positive; the interval
/// is absent below six values.
#[must_use]
pub fn ratio_between(subject: &[Vec<f64>], baseline: &[Vec<f64>], seed: u64) -> Option<Ratio> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let ratio = difference(centre(&subject.concat())?, centre(&baseline.concat())?)?.ratio;
    let fewest = subject.concat().len().min(baseline.concat().len());
    if fewest < samples_needed(0.5) {
        return Some(Ratio { ratio, interval: None });
    }
    let drawn = (0..RESAMPLES)
        .map(|_| drawn_median(subject, &mut rng) / drawn_median(baseline, &mut rng))
        .collect();
    let ratios = Sorted::new(drawn);
    let mut interval = Interval { low: quantile(&ratios, 0.025)?, high: quantile(&ratios, 0.975)? };
    if let Some(runs) = between_runs(subject, baseline) {
        interval.low = interval.low.min(runs.interval.low);
        interval.high = interval.high.max(runs.interval.high);
    }
    let interval = (interval.low > 0.0 && interval.high.is_finite()).then_some(interval);
    Some(Ratio { ratio, interval })
}

/// What the medians of runs tell about the runs to come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BetweenRuns {
    /// 95 % interval of the ratio of two runs' typical medians.
    pub interval: Interval,
    /// p-value, two-sided, of the hypothesis that it is 1.
    pub p: f64,
}

/// Student's t-test (Biometrika 6, 1908) of the logarithms of the runs'
/// medians, with the same spread between runs on both sides, and the interval
/// that belongs to it. One run on one side will do if the other has more: its
/// own spread is then taken to be theirs. Absent for one run on each side, or
/// when a median is not positive.
#[must_use]
pub fn between_runs(subject: &[Vec<f64>], baseline: &[Vec<f64>]) -> Option<BetweenRuns> {
    let logs = |runs: &[Vec<f64>]| -> Option<Vec<f64>> {
        let medians = runs.iter().map(|run| centre(run).filter(|median| *median > 0.0));
        medians.map(|median| median.map(f64::ln)).collect()
    };
    let (subject, baseline) = (logs(subject)?, logs(baseline)?);
    let (m, n) = (subject.len() as f64, baseline.len() as f64);
    let freedom = m + n - 2.0;
    // Fails without freedom, which is one run on each side.
    let student = StudentsT::new(0.0, 1.0, freedom).ok()?;
    let (first, second) = (mean(&subject)?, mean(&baseline)?);
    let squares =
        |logs: &[f64], mean: f64| logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>();
    let variance = (squares(&subject, first) + squares(&baseline, second)) / freedom;
    let error = (variance * (1.0 / m + 1.0 / n)).sqrt();
    let apart = first - second;
    let p = match (error > 0.0, apart == 0.0) {
        (true, _) => (2.0 * student.sf(apart.abs() / error)).min(1.0),
        (false, equal) => f64::from(u8::from(equal)),
    };
    let reach = student.inverse_cdf(0.975) * error;
    let interval = Interval { low: (apart - reach).exp(), high: (apart + reach).exp() };
    Some(BetweenRuns { interval, p })
}

/// The median of a list in any order.
fn centre(values: &[f64]) -> Option<f64> {
    median(&Sorted::new(values.to_vec()))
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
    fn runs_are_compared_by_their_medians() {
        let runs = |medians: &[f64]| -> Vec<Vec<f64>> {
            medians.iter().map(|ln| vec![ln.exp(); 3]).collect()
        };
        // 1, 2, 3 against 2, 4, 6, 8: means 2 and 5, squares 2 and 20, so
        // t = -3 / sqrt(22 / 5 * (1 / 3 + 1 / 4)) = -1.8726 with five degrees
        // of freedom; p by integrating the density; the interval reaches
        // 2.5706 errors (the tables' 97.5 %) of 1.6021.
        let found = between_runs(&runs(&[1.0, 2.0, 3.0]), &runs(&[2.0, 4.0, 6.0, 8.0]));
        let found = found.expect("five degrees of freedom");
        assert!((found.p - 0.1200).abs() < 1e-4, "{found:?}");
        assert!((found.interval.low.ln() + 7.1183).abs() < 1e-4, "{found:?}");
        assert!((found.interval.high.ln() - 1.1183).abs() < 1e-4, "{found:?}");
        assert_eq!(between_runs(&runs(&[1.0]), &runs(&[2.0])), None, "nothing is known of runs");
        assert!(between_runs(&runs(&[1.0]), &runs(&[2.0, 2.1])).is_some());
        // Exact copies, such as a mock's.
        let p = |a: &[f64], b: &[f64]| between_runs(&runs(a), &runs(b)).expect("two").p;
        assert_eq!(p(&[1.0, 1.0], &[2.0, 2.0]), 0.0);
        assert_eq!(p(&[1.0, 1.0], &[1.0, 1.0]), 1.0);
    }

    #[test]
    fn the_interval_of_few_runs_covers_the_truth() {
        // Runs differ by 5 %, their values by 3 %: three runs a side.
        let mut noise = Noise::new(31);
        let covered = (0..100)
            .filter(|seed| {
                let mut side = |centre: f64| -> Vec<Vec<f64>> {
                    let mut run = || {
                        let centre = centre * noise.lognormal(0.05);
                        (0..12).map(|_| centre * noise.lognormal(0.03)).collect()
                    };
                    (0..3).map(|_| run()).collect()
                };
                let ratio = ratio_between(&side(1.2), &side(1.0), *seed).expect("positive");
                !ratio.interval.expect("enough").excludes(1.2)
            })
            .count();
        // 95 % of 100 less three standard errors.
        assert!(covered >= 88, "{covered} of 100");
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
