use super::*;
use crate::stats::testing::Noise;
use proptest::prelude::*;

#[test]
fn times_and_per_cent_are_one_function() {
    // The published example: 0.6 s against 0.82 s was called a reduction of
    // 73.2 %.
    let less = difference(0.6, 0.82).expect("positive");
    assert_eq!(format!("{:.1} {:.2}", less.percent, less.times), "-26.8 1.37");
    let memory = difference(178.2, 223.2).expect("positive");
    assert_eq!(format!("{:.1}", memory.percent), "-20.2");
    let more = difference(3.0, 2.0).expect("positive");
    assert_eq!((more.ratio, more.times, more.percent), (1.5, 1.5, 50.0));
    assert_eq!(difference(0.0, 1.0), None);
    assert_eq!(difference(1.0, 0.0), None);
}

#[test]
fn holm_by_hand() {
    // Sorted .01 .02 .03 .04 times 4 3 2 1: .04 .06 .06 .04, made monotone.
    let adjusted = holm(&[0.04, 0.01, 0.03, 0.02]);
    for (got, expected) in adjusted.iter().zip([0.06, 0.04, 0.06, 0.06]) {
        assert!((got - expected).abs() < 1e-12, "{adjusted:?}");
    }
    assert_eq!(holm(&[0.7, 0.9]), [1.0, 1.0]);
    assert_eq!(holm(&[]), Vec::<f64>::new());
}

fn pairs(differences: &[f64]) -> Vec<Pair> {
    differences.iter().map(|difference| (100.0 + difference, 100.0)).collect()
}

#[test]
fn the_permutation_test_counts_exactly() {
    let p = |differences: &[f64]| permutation_p(&pairs(differences)).expect("rounds");
    // All of one sign: two of the 2^n exchanges are as extreme.
    assert_eq!(p(&[1.0, 2.0, 3.0, 4.0, 5.0]), 2.0 / 32.0);
    assert_eq!(p(&[-1.0, -2.0, -3.0]), 2.0 / 8.0);
    // R: wilcox.test(c(-1, 2, 3, 4, 5, 6), exact = TRUE): V = 20, p = 0.0625.
    assert_eq!(p(&[-1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 0.0625);
    // Ties: ranks 1.5 1.5 3; sums at most 1.5 are {}, {a}, {b}: 3 of 8.
    assert_eq!(p(&[-1.0, 1.0, 2.0]), 0.75);
    assert_eq!(p(&[0.0, 0.0]), 1.0);
    assert_eq!(permutation_p(&[]), None);
}

#[test]
fn exact_and_normal_agree_where_they_meet() {
    let ranks: Vec<usize> = (1..=100).map(|rank| 2 * rank).collect();
    for lower in [3_600, 4_000, 4_600] {
        let (a, b) = (exact(&ranks, lower), normal(&ranks, lower));
        assert!((a / b - 1.0).abs() < 0.05, "{lower}: {a} {b}");
    }
}

#[test]
fn the_typical_ratio_by_hand() {
    let typical = |ratios: &[f64]| {
        hodges_lehmann(&ratios.iter().map(|ratio| (*ratio, 1.0)).collect::<Vec<_>>())
    };
    // Logarithms 0, 1, 2 (base 2): means 0, 1/2, 1, 1, 3/2, 2; median 1.
    assert!((typical(&[4.0, 1.0, 2.0]).expect("positive") - 2.0).abs() < 1e-12);
    // 0, 1, 10: means 0, 1/2, 1, 5, 11/2, 10; median 3.
    assert!((typical(&[1.0, 2.0, 1024.0]).expect("positive") - 8.0).abs() < 1e-9);
    assert_eq!(typical(&[3.0]).map(|ratio| (ratio * 1e9).round()), Some(3e9));
    assert_eq!(typical(&[]), None);
    assert_eq!(typical(&[1.0, 0.0]), None);
    let many: Vec<f64> = (0..5_000).map(|i| (f64::from(i) / 2_499.5 - 1.0).exp()).collect();
    assert!((typical(&many).expect("positive") - 1.0).abs() < 0.01);
}

#[test]
fn needed_rounds_are_exactly_enough() {
    for comparisons in [1, 10, 240] {
        let n = rounds_needed(0.01, comparisons);
        let p = |n: usize| permutation_p(&vec![(2.0, 1.0); n]).expect("rounds");
        assert!(p(n) * comparisons as f64 <= 0.01);
        assert!(p(n - 1) * comparisons as f64 >= 0.01);
    }
    assert_eq!(rounds_needed(0.01, 1), 8);
}

#[test]
fn a_constant_ratio_has_a_constant_interval() {
    let same: Vec<Pair> = (1..=9).map(|i| (3.0 * f64::from(i), 2.0 * f64::from(i))).collect();
    let ratio = ratio_of_medians(&same, 1).expect("positive");
    assert_eq!(ratio, Ratio { ratio: 1.5, interval: Some(Interval { low: 1.5, high: 1.5 }) });
    assert_eq!(ratio.half_width(), Some(0.0));
    assert_eq!(ratio_of_medians(&same[..5], 1).expect("positive").interval, None);
    assert_eq!(ratio_of_medians(&[(1.0, 0.0); 9], 1), None);
    assert_eq!(ratio_of_medians(&[], 1), None);
}

#[test]
fn the_seed_fixes_the_interval() {
    let mut noise = Noise::new(5);
    let pairs: Vec<Pair> = (0..30).map(|_| (noise.lognormal(0.2), noise.lognormal(0.2))).collect();
    assert_eq!(ratio_of_medians(&pairs, 9), ratio_of_medians(&pairs, 9));
    assert_ne!(ratio_of_medians(&pairs, 9), ratio_of_medians(&pairs, 10));
}

#[test]
fn drawn_medians_equal_medians_of_drawn_lists() {
    let values = [5.0, 1.0, 4.0, 2.0, 3.0, 9.0];
    let ranked = Ranked::new(values.into_iter());
    for counts in [[1, 1, 1, 1, 1, 1], [0, 3, 0, 0, 0, 3], [6, 0, 0, 0, 0, 0], [0, 1, 2, 0, 3, 0]] {
        let list = values
            .iter()
            .zip(counts)
            .flat_map(|(value, count)| std::iter::repeat_n(*value, count as usize))
            .collect();
        assert_eq!(Some(ranked.median_of(&counts)), median(&Sorted::new(list)), "{counts:?}");
    }
}

#[test]
fn limit_and_resampling_agree() {
    let mut noise = Noise::new(11);
    let pairs: Vec<Pair> = (0..900)
        .map(|_| {
            let common = noise.lognormal(0.1);
            (1.3 * common * noise.lognormal(0.1), common * noise.lognormal(0.1))
        })
        .collect();
    let width = |ratios: Vec<f64>| {
        let ratios = Sorted::new(ratios);
        (quantile(&ratios, 0.975).expect("many") / quantile(&ratios, 0.025).expect("many")).ln()
    };
    let a = Ranked::new(pairs.iter().map(|pair| pair.0));
    let b = Ranked::new(pairs.iter().map(|pair| pair.1));
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let drawn = width(resampled(&a, &b, 2_000, &mut rng));
    let limit = width(from_limit(&pairs, &a, &b, 2_000, &mut rng));
    assert!((drawn / limit).ln().abs() < 0.25, "{drawn} {limit}");
}

/// How often, out of `runs` simulated runs of `n` rounds with the true ratio
/// `truth`, the interval excludes `value`.
fn exclusions(runs: u64, n: usize, truth: f64, value: f64) -> usize {
    let mut noise = Noise::new(17);
    (0..runs)
        .filter(|run| {
            let pairs: Vec<Pair> = (0..n)
                .map(|_| {
                    let round = noise.lognormal(0.1);
                    (truth * round * noise.lognormal(0.05), round * noise.lognormal(0.05))
                })
                .collect();
            let ratio = ratio_with(&pairs, *run, 500).expect("positive");
            ratio.interval.expect("enough").excludes(value)
        })
        .count()
}

#[test]
fn the_interval_covers_the_truth_at_its_level() {
    // 95 % of 400: at most 20 expected outside; 33 is three standard errors more.
    let outside = exclusions(400, 30, 1.2, 1.2);
    assert!(outside <= 33, "{outside} of 400");
}

#[test]
fn a_slow_down_of_twenty_per_cent_is_seen() {
    assert!(exclusions(50, 40, 1.2, 1.0) >= 48);
}

#[test]
fn the_test_keeps_its_level_and_has_power() {
    let mut noise = Noise::new(23);
    let mut significant = |truth: f64| {
        (0..1_000)
            .filter(|_| {
                let pairs: Vec<Pair> = (0..30)
                    .map(|_| (truth * noise.lognormal(0.05), noise.lognormal(0.05)))
                    .collect();
                permutation_p(&pairs).expect("rounds") < 0.01
            })
            .count()
    };
    let false_alarms = significant(1.0);
    assert!(false_alarms <= 20, "{false_alarms} of 1000 at the 1 % level");
    let found = significant(1.05);
    assert!(found >= 700, "a 5 % slow-down was found {found} times of 1000");
}

proptest! {
    #[test]
    fn the_ratio_scales_and_turns_round(
        values in prop::collection::vec((0.1..1e6_f64, 0.1..1e6_f64), 6..30),
        power in -8_i32..8,
    ) {
        let factor = 2.0_f64.powi(power);
        let plain = ratio_with(&values, 3, 200).expect("positive");
        let scaled: Vec<Pair> = values.iter().map(|(a, b)| (a * factor, *b)).collect();
        let scaled = ratio_with(&scaled, 3, 200).expect("positive");
        prop_assert_eq!(scaled.ratio, plain.ratio * factor);
        let (plain, scaled) = (plain.interval.expect("six"), scaled.interval.expect("six"));
        prop_assert_eq!(scaled.low, plain.low * factor);
        prop_assert!(plain.low <= plain.high);
        let turned: Vec<Pair> = values.iter().map(|(a, b)| (*b, *a)).collect();
        prop_assert_eq!(permutation_p(&turned), permutation_p(&values));
    }

    #[test]
    fn holm_never_lowers_a_p_and_keeps_their_order(
        p in prop::collection::vec(0.0..1.0_f64, 1..40),
    ) {
        let adjusted = holm(&p);
        for (a, raw) in adjusted.iter().zip(&p) {
            prop_assert!(a >= raw && *a <= 1.0);
        }
        for i in 0..p.len() {
            for j in 0..p.len() {
                prop_assert!(p[i] >= p[j] || adjusted[i] <= adjusted[j]);
            }
        }
    }
}
