//! The statistics tested as a whole, on data whose truth is known: how often
//! an interval covers it, how often identical systems are called different, and
//! how small a difference is found. What these tests print and bound is what
//! `report/METHODOLOGY.md` states.

use super::compare::{Pair, ratio_with};
use super::judge::Verdict;
use super::order::{Interval, Sorted, median_interval};
use super::testing::{Noise, key, manifest, ok};
use super::within::compare_with;

/// Resamples here, fewer than behind a real summary: the ends of an interval
/// then scatter a little more, around the same place.
const RESAMPLES: usize = 300;

/// Shapes that start-up times have.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// One hump with a longer right side.
    LogNormal,
    /// Every third trial takes half as long again.
    Bimodal,
    /// Pareto: rare values many times the median.
    HeavyTail,
}

impl Shape {
    const ALL: [Self; 3] = [Self::LogNormal, Self::Bimodal, Self::HeavyTail];

    fn draw(self, noise: &mut Noise) -> f64 {
        match self {
            Self::LogNormal => noise.lognormal(0.2),
            Self::Bimodal => noise.lognormal(0.05) * if noise.uniform() < 0.35 { 1.5 } else { 1.0 },
            // Index 1.5: a mean, but no variance.
            Self::HeavyTail => noise.uniform().powf(-1.0 / 1.5),
        }
    }

    /// The true median.
    fn median(self) -> f64 {
        match self {
            Self::LogNormal => 1.0,
            // Half of all lie below it; of the lower hump that is 0.5 / 0.65,
            // and the upper hump does not reach down so far.
            Self::Bimodal => (0.05 * 0.736_315_917_376_129_7_f64).exp(),
            Self::HeavyTail => 2.0_f64.powf(1.0 / 1.5),
        }
    }
}

/// The share of data sets whose interval holds the truth, in per cent.
fn coverage(sets: u32, mut holds: impl FnMut(&mut Noise) -> bool) -> f64 {
    let mut noise = Noise::new(2_026);
    let held = (0..sets).filter(|_| holds(&mut noise)).count();
    100.0 * held as f64 / f64::from(sets)
}

fn holds(interval: Option<Interval>, truth: f64) -> bool {
    !interval.expect("enough values").excludes(truth)
}

#[test]
fn intervals_of_medians_cover_them() {
    for shape in Shape::ALL {
        for n in [20, 60] {
            let share = coverage(4_000, |noise| {
                let values = (0..n).map(|_| shape.draw(noise)).collect();
                holds(median_interval(&Sorted::new(values)), shape.median())
            });
            // Ranks are whole numbers, so the level is kept from above: by the
            // binomial distribution 95.9 % at n = 20 and 97.3 % at n = 60.
            let level = if n == 20 { 95.9 } else { 97.3 };
            assert!((share - level).abs() < 1.0, "median, {shape:?}, n={n}: {share} %");
        }
    }
}

#[test]
fn intervals_of_ratios_cover_them() {
    for shape in Shape::ALL {
        for n in [20, 60] {
            let mut seed = 0;
            let share = coverage(2_000, |noise| {
                seed += 1;
                let pairs: Vec<Pair> =
                    (0..n).map(|_| (1.3 * shape.draw(noise), shape.draw(noise))).collect();
                holds(ratio_with(&pairs, seed, RESAMPLES).expect("positive").interval, 1.3)
            });
            // A gap between two humps is bridged more often than it must be.
            let high = if matches!((shape, n), (Shape::Bimodal, 60)) { 97.5 } else { 96.5 };
            assert!((93.5..=high).contains(&share), "ratio, {shape:?}, n={n}: {share} %");
        }
    }
}

/// Spread of the logarithm of one trial's time beside what its round shares:
/// that of start-up times on a quiet host.
const SPREAD: f64 = 0.05;

/// The verdicts of a simulated run, in which everything but the null backend
/// takes `slower` times as long.
fn verdicts(
    noise: &mut Noise,
    rounds: u32,
    slower: f64,
    draw: &dyn Fn(&mut Noise) -> f64,
) -> Vec<Verdict> {
    let cells = [
        "startup process exit",
        "startup process exit control=1",
        "startup container exit",
        "startup container exit userns=yes",
        "startup vm exit",
    ]
    .map(key);
    let mut samples = Vec::new();
    for round in 1..=rounds {
        // The host's load at that moment.
        let load = noise.lognormal(0.1);
        for (index, cell) in cells.iter().enumerate() {
            let factor = if index < 2 { 1.0 } else { slower };
            samples.push(ok(cell, round, "startup.ready", 1e6 * factor * load * draw(noise)));
        }
    }
    let manifest = manifest(&cells, rounds);
    let cells = super::group::cells(&manifest, &samples);
    let ratio = |pairs: &[Pair]| ratio_with(pairs, 1, RESAMPLES);
    let (_, comparisons) = compare_with(&cells, &ratio);
    comparisons.into_iter().map(|comparison| comparison.verdict).collect()
}

fn is_named(verdict: &Verdict) -> bool {
    !matches!(verdict, Verdict::NoDifference { .. } | Verdict::Withheld { .. })
}

#[test]
fn identical_backends_are_seldom_called_different() {
    for shape in Shape::ALL {
        let mut noise = Noise::new(5);
        let alarms = (0..1_000)
            .filter(|_| {
                verdicts(&mut noise, 20, 1.0, &|noise| shape.draw(noise)).iter().any(is_named)
            })
            .count();
        // Holm's level is 1 % for a whole run.
        assert!(alarms <= 20, "{shape:?}: {alarms} of 1000 runs");
    }
}

/// How often a slow-down against the null backend is called one, in per cent.
fn power(rounds: u32, slower: f64) -> f64 {
    let mut noise = Noise::new(9);
    let (mut named, mut all) = (0.0, 0.0);
    for _ in 0..200 {
        let found = verdicts(&mut noise, rounds, slower, &|noise| noise.lognormal(SPREAD));
        // Container, container in a user namespace, machine against the null
        // backend; the last is the machine against the container, from which
        // it does not differ.
        for verdict in &found[..3] {
            all += 1.0;
            named += if *verdict == Verdict::Slower { 1.0 } else { 0.0 };
        }
    }
    100.0 * named / all
}

#[test]
fn a_slow_down_of_five_per_cent_takes_a_hundred_rounds() {
    let found = power(100, 1.05);
    assert!(found >= 80.0, "{found} %");
    // With the rounds of the profile `quick` it takes fifteen per cent.
    let found = power(15, 1.15);
    assert!(found >= 80.0, "{found} %");
}

#[test]
fn what_could_have_been_shown_is_shown_in_four_of_five_runs() {
    let mut noise = Noise::new(4);
    for rounds in [15, 60] {
        let mut stated = Vec::new();
        for _ in 0..40 {
            for verdict in verdicts(&mut noise, rounds, 1.0, &|noise| noise.lognormal(SPREAD)) {
                if let Verdict::NoDifference { smallest } = verdict {
                    stated.push(smallest);
                }
            }
        }
        let stated = super::order::median(&Sorted::new(stated)).expect("some");
        let found = power(rounds, stated);
        assert!((70.0..=90.0).contains(&found), "{rounds} rounds, {stated}: {found} %");
    }
}
