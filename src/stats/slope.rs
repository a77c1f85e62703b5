//! A robust straight line: Theil and Sen's slope with its interval.
//!
//! The marginal cost of one more instance is such a slope, never a total
//! divided by a count; the drift of a run over its rounds is another.

use serde::{Deserialize, Serialize};

use super::order::{Interval, Sorted, median};

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
    /// Points that the line was fitted through.
    pub points: usize,
    /// Distinct values of x among them.
    pub distinct: usize,
}

/// Fits a line through points `(x, y)`: P. K. Sen, "Estimates of the
/// Regression Coefficient Based on Kendall's Tau", JASA 63 (1968). The
/// interval takes the slopes at the ranks given by the variance of Kendall's
/// statistic with ties in x. Absent with fewer than two distinct x.
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
    let rests = points.iter().map(|(x, y)| y - slope * x).collect();
    let ties = tie_sizes(&points);
    Some(Line {
        slope,
        intercept: median(&Sorted::new(rests))?,
        interval: slope_interval(&slopes, points.len(), &ties),
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

/// Sen's interval: ranks `(N - C) / 2` from either end, with
/// `C = 1.96 * sqrt(var)`. Rounding the rank to the nearest whole number
/// reproduces the exact tables for 4 to 8 points.
fn slope_interval(slopes: &Sorted, n: usize, ties: &[usize]) -> Option<Interval> {
    let term = |n: usize| (n * (n - 1) * (2 * n + 5)) as f64;
    let tied: f64 = ties.iter().map(|&size| term(size)).sum();
    let spread = 1.96 * ((term(n) - tied) / 18.0).sqrt();
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
