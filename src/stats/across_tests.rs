use super::*;
use crate::stats::testing::{Noise, key, manifest, ok};

type OneRun = (Manifest, Vec<Sample>);

/// A run whose container takes `slower` times as long as it should, on a host
/// that takes `host` times as long for everything.
fn run(seed: u64, rounds: u32, host: f64, slower: f64) -> OneRun {
    let mut noise = Noise::new(seed);
    let cells =
        ["startup process exit", "startup process exit control=1", "startup container exit"]
            .map(key);
    let mut samples = Vec::new();
    for round in 1..=rounds {
        for (cell, factor) in cells.iter().zip([1.0, 1.0, 4.0 * slower]) {
            let value = 1e5 * host * factor * noise.lognormal(0.03);
            samples.push(ok(cell, round, "startup.ready", value));
        }
    }
    (manifest(&cells, rounds), samples)
}

fn compared(base: &[OneRun], new: &[OneRun]) -> RunComparison {
    let base: Vec<RunRef<'_>> =
        base.iter().map(|(manifest, samples)| RunRef { manifest, samples }).collect();
    let new: Vec<RunRef<'_>> =
        new.iter().map(|(manifest, samples)| RunRef { manifest, samples }).collect();
    compare_runs(&base, &new)
}

#[test]
fn a_regression_is_found_and_no_other() {
    let base = run(1, 40, 1.0, 1.0);
    let same = compared(std::slice::from_ref(&base), &[run(2, 40, 1.0, 1.0)]);
    assert_eq!(same.changes.len(), 1, "the null backend is the yardstick");
    assert!(matches!(same.changes[0].verdict, Verdict::NoDifference { .. }), "{same:?}");
    let slower = compared(std::slice::from_ref(&base), &[run(3, 40, 1.0, 1.2)]);
    let change = &slower.changes[0];
    assert_eq!(change.verdict, Verdict::Slower, "{}", change.text);
    assert!(change.text.starts_with("slower by 1."), "{}", change.text);
    assert!(change.is_regression(0.05) && !change.is_regression(0.5));
    let faster = compared(&[run(3, 40, 1.0, 1.2)], &[base]);
    assert_eq!(faster.changes[0].verdict, Verdict::Faster);
    assert!(!faster.changes[0].is_regression(0.0));
}

#[test]
fn a_slower_host_is_no_regression_of_the_container() {
    let found = compared(&[run(1, 40, 1.0, 1.0)], &[run(2, 40, 1.3, 1.0)]);
    let change = &found.changes[0];
    assert!(matches!(change.verdict, Verdict::NoDifference { .. }), "{}", change.text);
    assert!(change.noise.expect("measured") > 1.25_f64.ln());
}

#[test]
fn too_few_values_are_not_judged() {
    let found = compared(&[run(1, 4, 1.0, 1.0)], &[run(2, 4, 1.0, 2.0)]);
    let text = "withheld: 4 values a side are too few to be tested, 5 would do";
    assert_eq!(found.changes[0].text, text);
}

#[test]
fn sets_of_runs_that_scatter_are_not_told_apart() {
    let scattered = |first: u64| -> Vec<OneRun> {
        [0.9, 1.0, 1.1, 1.25]
            .iter()
            .zip(first..)
            .map(|(slower, seed)| run(seed, 20, 1.0, *slower))
            .collect()
    };
    let mut higher = scattered(20);
    higher.remove(0);
    let found = compared(&scattered(10), &higher);
    assert!(matches!(found.changes[0].verdict, Verdict::NoDifference { .. }), "{found:?}");
}

/// Runs of a program whose containers take a time of their own in each run.
fn scattered(noise: &mut Noise, first: u64, runs: u64, by: f64, slower: f64) -> Vec<OneRun> {
    (first..first + runs).map(|seed| run(seed, 12, 1.0, slower * noise.lognormal(by))).collect()
}

#[test]
fn several_runs_are_judged_by_how_far_runs_differ() {
    let mut noise = Noise::new(5);
    let mut named = |sides: u64, runs: u64, by: f64, slower: f64| {
        (0..sides)
            .filter(|side| {
                let base = scattered(&mut noise, 1000 * side, runs, by, 1.0);
                let new = scattered(&mut noise, 1000 * side + 500, runs, by, slower);
                compared(&base, &new).changes[0].verdict.is_named()
            })
            .count()
    };
    let false_alarms = named(30, 3, 0.05, 1.0);
    assert!(false_alarms <= 2, "{false_alarms} of 30 at a level of 1 %");
    let found = named(10, 5, 0.02, 1.15);
    assert!(found >= 9, "{found} of 10");
}

#[test]
fn a_verdict_on_two_runs_says_that_they_are_two() {
    let base = [run(1, 40, 1.0, 1.0)];
    let one = compared(&base, &[run(3, 40, 1.0, 1.2)]);
    assert!(one.changes[0].text.ends_with("between these two runs"), "{}", one.changes[0].text);
    assert!(one.caution.is_some_and(|caution| caution.contains("several runs a side")));
    let several = compared(&base, &[run(3, 40, 1.0, 1.2), run(4, 40, 1.0, 1.2)]);
    assert_eq!(several.caution, None);
    assert!(!several.changes[0].text.contains("two runs"), "{}", several.changes[0].text);
}

#[test]
fn what_differs_and_what_is_missing_is_said() {
    let base = run(1, 8, 1.0, 1.0);
    let mut new = run(2, 8, 1.0, 1.0);
    new.0.host_before[0].value = "Another CPU".to_owned();
    new.0.host_before[1].value = "7.50".to_owned();
    let extra = key("startup vm exit");
    new.0.cells.push(crate::record::CellFact { cell: extra.clone(), ..new.0.cells[0].clone() });
    assert!(!same_cells(&base.0, &new.0) && same_cells(&base.0, &base.0));
    let found = compared(&[base], &[new]);
    assert_eq!(
        found.facts,
        [DifferingFact {
            name: "cpu.model".to_owned(),
            base: vec!["Example CPU 3000".to_owned()],
            new: vec!["Another CPU".to_owned()],
        }],
        "the load of a minute is no fact about a host"
    );
    let [line] = &found.missing[..] else { panic!("{:?}", found.missing) };
    assert!(line.contains("not in the plan of the base"), "{line}");
}

#[test]
fn identical_programs_are_seldom_called_different() {
    // Six runs of one program on a host that is some 5 % slower or faster from
    // run to run: 15 pairs.
    let mut noise = Noise::new(77);
    let runs: Vec<_> = (0..6).map(|seed| run(100 + seed, 20, noise.lognormal(0.05), 1.0)).collect();
    let mut named = 0;
    for (index, base) in runs.iter().enumerate() {
        for new in &runs[index + 1..] {
            let found = compared(std::slice::from_ref(base), std::slice::from_ref(new));
            named += usize::from(!matches!(found.changes[0].verdict, Verdict::NoDifference { .. }));
        }
    }
    assert_eq!(named, 0, "of 15 pairs");
}

#[test]
fn two_arms_of_one_run_are_compared_round_by_round() {
    let (manifest, samples) = run(5, 20, 1.0, 1.0);
    let run = RunRef { manifest: &manifest, samples: &samples };
    let [found] = &compare_arms(run, "container", "process")[..] else { panic!("one metric") };
    assert_eq!((found.pairs, &found.verdict), (20, &Verdict::Slower));
    let turned = compare_arms(run, "process", "container");
    assert_eq!(turned[0].verdict, Verdict::Faster);
    assert!(compare_arms(run, "container", "nothing").is_empty());
}
