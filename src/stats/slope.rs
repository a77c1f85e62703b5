//! A robust straight line: Theil and Sen's slope with its interval.
//!
//! The marginal cost of one more instance is such a slope, never a total
//! divided by a count; the drift of a run over its rounds is another.

use serde::{Deserialize, Serialize};

use super::order::{Interval, Sorted, median, median_interval_at};

/// The most points a line is fitted through. The number of pairs grows with
/// the square of the points; above the cap, points are taken at even distances
/// from the list ordered by x, which widens the interval but moves no centre.
pub const MAX_POINTS: usize = 200;

/// A line fitted by [`theil_sen`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Median of the slopes of all pairs of points with different x.
    pub slope: f64,
    /// Median of `y - slope * x`: the fixed cost.
    pub intercept: f64,
    /// 95 % interval of the slope; absent when the points are too few for one
    /// (below five distinct points).
    pub interval: Option<Interval>,
    /// An interval of the intercept that holds it with at least 95 %; absent
    /// when the points are too few.
    #[serde(default)]
    pub intercept_interval: Option<Interval>,
    /// Points that the line was fitted through.
    pub points: usize,
    /// Distinct values of x among them.
    pub distinct: usize,
}

/// Fits a line through points `(x, y)`: P. K. Sen, "Estimates of the
/// Regression Coefficient Based on Kendall's Tau", JASA 63 (1968). The
/// interval takes the slopes at the ranks given by the variance of Kendall's
/// statistic with ties in x. The interval of the intercept goes from the
/// lowest median that the rests `y - slope * x` may have with the steepest
/// slope to the highest with the flattest. Absent with fewer than two distinct
/// x.
#[must_use]
pub fn theil_sen(points: &[(f64, f64)]) -> Option<Line> {
    let points = thinned(points);
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (index, (x0, y0)) in points.iter().enumerate() {
        for (x1, y1) in &points[index + 1..] {
            if x1 != x0 {
                slopes.push((y1 - y0) / (x1 - x0));
            }
        }
    }
    let slopes = Sorted::new(slopes);
    let slope = median(&slopes)?;
    let rests = |slope: f64| Sorted::new(points.iter().map(|(x, y)| y - slope * x).collect());
    let ties = tie_sizes(&points);
    // Bonferroni: each of the two holds what it should with 97.5 %.
    let steep = slope_interval(&slopes, points.len(), &ties, Z_975);
    let intercept_interval = steep.and_then(|steep| {
        let low = median_interval_at(&rests(steep.high), 0.0125)?.low;
        let high = median_interval_at(&rests(steep.low), 0.0125)?.high;
        Some(Interval { low, high })
    });
    Some(Line {
        slope,
        intercept: median(&rests(slope))?,
        interval: slope_interval(&slopes, points.len(), &ties, Z_95),
        intercept_interval,
        points: points.len(),
        distinct: ties.len(),
    })
}

/// The points ordered by x, at most [`MAX_POINTS`] of them.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut points = points.to_vec();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    if points.len() <= MAX_POINTS {
        return points;
    }
    let last = points.len() - 1;
    (0..MAX_POINTS).map(|index| points[index * last / (MAX_POINTS - 1)]).collect()
}

/// How many points share each x; the points are ordered by x.
fn tie_sizes(points: &[(f64, f64)]) -> Vec<usize> {
    points.chunk_by(|a, b| a.0 == b.0).map(<[_]>::len).collect()
}

/// Quantiles of the normal distribution for two-sided levels of 95 and 97.5 %.
const Z_95: f64 = 1.96;
const Z_975: f64 = 2.2414;

/// Sen's interval: ranks `(N - C) / 2` from either end, with
/// `C = z * sqrt(var)`. Rounding the rank to the nearest whole number
/// reproduces the exact tables for 4 to 8 points.
fn slope_interval(slopes: &Sorted, n: usize, ties: &[usize], z: f64) -> Option<Interval> {
    let term = |n: usize| (n * (n - 1) * (2 * n + 5)) as f64;
    let tied: f64 = ties.iter().map(|&size| term(size)).sum();
    let spread = z * ((term(n) - tied) / 18.0).sqrt();
    let rank = ((slopes.len() as f64 - spread) / 2.0).round();
    if rank < 1.0 {
        return None;
    }
    let values = slopes.as_slice();
    let from_end = values.iter().zip(1_u32..).find(|(_, at)| f64::from(*at) >= rank);
    let low = *from_end?.0;
    let high = *values.iter().rev().zip(1_u32..).find(|(_, at)| f64::from(*at) >= rank)?.0;
    Some(Interval { low, high })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: &[(f64, f64)]) -> Line {
        theil_sen(points).expect("a line")
    }

    #[test]
    fn an_exact_line_is_found_exactly() {
        let points: Vec<(f64, f64)> =
            [1.0, 2.0, 4.0, 8.0, 16.0].iter().map(|x| (*x, 7.0 + 3.0 * x)).collect();
        let fitted = line(&points);
        assert_eq!((fitted.slope, fitted.intercept), (3.0, 7.0));
        assert_eq!(fitted.interval, Some(Interval { low: 3.0, high: 3.0 }));
        assert_eq!((fitted.points, fitted.distinct), (5, 5));
    }

    #[test]
    fn the_interval_of_the_intercept_holds_the_truth() {
        let mut noise = super::super::testing::Noise::new(7);
        let (mut held, mut bounded) = (0, 0);
        for _ in 0..400 {
            let points: Vec<(f64, f64)> = (0..3)
                .flat_map(|_| [1.0, 2.0, 4.0, 8.0, 16.0])
                .map(|x| (x, 50.0 + 3.0 * x + noise.normal()))
                .collect();
            if let Some(interval) = line(&points).intercept_interval {
                bounded += 1;
                held += u32::from(!interval.excludes(50.0));
            }
        }
        assert_eq!(bounded, 400);
        assert!(held >= 380, "{held} of 400");
        assert_eq!(line(&[(1.0, 1.0), (2.0, 2.0), (4.0, 4.0)]).intercept_interval, None);
    }

    #[test]
    fn one_wild_point_does_not_bend_it() {
        let mut points: Vec<(f64, f64)> =
            (1..=10).map(|x| (f64::from(x), f64::from(2 * x))).collect();
        points[9].1 = 1_000.0;
        assert_eq!(line(&points).slope, 2.0);
    }

    #[test]
    fn the_interval_uses_the_ranks_of_the_exact_tables() {
        // With y = x^2 on 0..n the slopes are the sums i + j. Ranks from the
        // exact table of Kendall's S (Hollander and Wolfe): none for n=4,
        // 1 of 10 for n=5, 2 of 15 for n=6, 4 of 21 for n=7, 6 of 28 for n=8.
        for (n, rank) in [(5, 1), (6, 2), (7, 4), (8, 6)] {
            let points: Vec<(f64, f64)> =
                (0..n).map(|x| (f64::from(x), f64::from(x * x))).collect();
            let mut slopes: Vec<i32> = (0..n).flat_map(|i| (0..i).map(move |j| i + j)).collect();
            slopes.sort_unstable();
            let expected = Interval {
                low: f64::from(slopes[rank - 1]),
                high: f64::from(slopes[slopes.len() - rank]),
            };
            assert_eq!(line(&points).interval, Some(expected), "n={n}");
        }
        assert_eq!(line(&[(0.0, 0.0), (1.0, 1.0), (2.0, 4.0), (3.0, 9.0)]).interval, None);
    }

    #[test]
    fn points_at_one_x_make_no_line() {
        assert_eq!(theil_sen(&[(1.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(theil_sen(&[]), None);
    }

    #[test]
    fn many_points_are_thinned_evenly_and_keep_both_ends() {
        let points: Vec<(f64, f64)> =
            (0..10_001).map(|x| (f64::from(x), f64::from(5 * x))).collect();
        let kept = thinned(&points);
        assert_eq!((kept.len(), kept[0].0, kept[MAX_POINTS - 1].0), (MAX_POINTS, 0.0, 10_000.0));
        assert_eq!(line(&points).slope, 5.0);
    }
}
