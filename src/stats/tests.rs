//! Whole runs, small enough to be reckoned by hand.

use super::testing::{at_step, failed, key, manifest, metric, ok, realistic};
use super::*;
use crate::record::{CellKey, Ledger, Mark, Metric, Outcome, Sample};

fn near(got: f64, expected: f64) {
    assert!((got - expected).abs() <= 1e-9 * expected.abs(), "{got} instead of {expected}");
}

/// Every cell once per round, with the metric's values as given.
fn run(cells: &[(&str, &[f64])], name: &str) -> (Vec<CellKey>, Vec<Sample>) {
    let keys: Vec<CellKey> = cells.iter().map(|(text, _)| key(text)).collect();
    let samples = keys
        .iter()
        .zip(cells)
        .flat_map(|(key, (_, values))| {
            (1..).zip(*values).map(|(round, value)| ok(key, round, name, *value))
        })
        .collect();
    (keys, samples)
}

fn summary(cells: &[(&str, &[f64])], name: &str) -> Summary {
    let (keys, samples) = run(cells, name);
    Summary::build(&manifest(&keys, 20), &samples)
}

#[test]
fn a_mock_run_gives_exactly_the_expected_figures() {
    let cell = key("startup mock exit");
    let marks =
        [("spawned", 10.0), ("init", 40.0), ("ready", 50.0), ("exited", 90.0), ("gone", 95.0)];
    let samples: Vec<Sample> = (1..=6)
        .flat_map(|round| {
            let cell = cell.clone();
            marks.map(|(mark, at)| {
                ok(&cell, round, &format!("startup.{mark}"), at * f64::from(round))
            })
        })
        .collect();
    let summary = Summary::build(&manifest(std::slice::from_ref(&cell), 6), &samples);
    let found = &summary.cells[0];
    assert_eq!((found.outcome, found.planned, found.tried, found.failed), (Outcome::Ok, 6, 6, 0));
    let names: Vec<String> = found.metrics.iter().map(|found| found.metric.to_string()).collect();
    let expected = marks.map(|(mark, _)| format!("startup.{mark}"));
    assert_eq!(names, expected);
    let ready = found.values(Metric::Startup(Mark::Ready)).expect("measured");
    assert_eq!(
        *ready,
        Distribution {
            min: 50.0,
            median: 175.0,
            interval: Some(Interval { low: 50.0, high: 300.0 }),
            mean: 175.0,
            sd: Some(8_750.0_f64.sqrt()),
            p90: None,
            p95: None,
            p99: None,
            p999: None,
            max: 300.0,
        }
    );
    let phases: Vec<(&str, f64, f64, f64)> = found
        .phases
        .iter()
        .map(|phase| (phase.name.as_str(), phase.start, phase.end, phase.median))
        .collect();
    assert_eq!(
        phases,
        [
            ("spawn", 0.0, 35.0, 35.0),
            ("exec to init", 35.0, 140.0, 105.0),
            ("init to ready", 140.0, 175.0, 35.0),
            ("run + exit", 175.0, 315.0, 140.0),
            ("cleanup", 315.0, 332.5, 17.5),
        ]
    );
    let check = &summary.timeline;
    assert_eq!((check.trials, check.broken, check.worst_residue_ns), (6, 0, Some(0.0)));
    assert!(summary.comparisons.is_empty(), "a mock is compared with nothing");
}

#[test]
fn only_what_has_a_network_of_its_own_has_its_cleanup_as_a_phase() {
    let names = |gone: f64| -> Vec<String> {
        let cell = key("startup container exit");
        let marks = [("ready", 10.0), ("exited", 20.0), ("removed", 30.0), ("gone", gone)];
        let samples: Vec<Sample> = (1..=3)
            .flat_map(|round| {
                marks.map(|(mark, at)| ok(&cell, round, &format!("startup.{mark}"), at))
            })
            .collect();
        let summary = Summary::build(&manifest(std::slice::from_ref(&cell), 3), &samples);
        summary.cells[0].phases.iter().map(|phase| phase.name.clone()).collect()
    };
    let last = |gone| names(gone).last().cloned();
    assert_eq!(last(30.0).as_deref(), Some("cleanup"));
    assert_eq!(last(31.0).as_deref(), Some("network cleanup"));
}

#[test]
fn idle_time_before_a_stop_is_no_phase() {
    let cell = key("startup container pause");
    let samples = [
        ok(&cell, 1, "startup.spawned", 10.0),
        ok(&cell, 1, "startup.ready", 30.0),
        ok(&cell, 1, "stop.exited", 5.0),
        ok(&cell, 1, "stop.gone", 7.0),
    ];
    let summary = Summary::build(&manifest(std::slice::from_ref(&cell), 1), &samples);
    let phases: Vec<(&str, f64, f64)> = summary.cells[0]
        .phases
        .iter()
        .map(|phase| (phase.name.as_str(), phase.start, phase.end))
        .collect();
    assert_eq!(
        phases,
        [
            ("spawn", 0.0, 10.0),
            ("spawned to ready", 10.0, 30.0),
            ("exit", 30.0, 35.0),
            ("cleanup", 35.0, 37.0)
        ]
    );
}

#[test]
fn marks_that_run_backwards_are_reported() {
    let cell = key("startup vm exit");
    let samples = [ok(&cell, 4, "startup.init", 50.0), ok(&cell, 4, "startup.ready", 20.0)];
    let check = Summary::build(&manifest(std::slice::from_ref(&cell), 1), &samples).timeline;
    assert_eq!((check.trials, check.broken), (1, 1));
    let text = check.first_broken.expect("named");
    assert_eq!(text, "startup vm exit, round 4, trial 4: `ready` lies 30 ns before `init`");
}

#[test]
fn a_zero_is_a_value_and_its_arm_stays() {
    let zero: &[f64] = &[0.0; 8];
    let summary = summary(
        &[("startup process exit", &[5.0; 8]), ("startup container exit", zero)],
        "startup.ready",
    );
    let container = &summary.cells[1];
    assert_eq!((container.outcome, container.failed), (Outcome::Ok, 0));
    let values = container.values(metric("startup.ready")).expect("measured");
    assert_eq!((values.median, values.min, values.max), (0.0, 0.0, 0.0));
    assert_eq!(container.metrics[0].n, 8);
    let comparison = &summary.comparisons[0];
    assert_eq!((comparison.pairs, comparison.ratio), (8, None));
}

#[test]
fn failures_are_counted_and_never_become_numbers() {
    let cell = key("startup vm exit");
    let mut samples: Vec<Sample> =
        (1..=8).map(|round| ok(&cell, round, "startup.ready", 100.0)).collect();
    samples.push(failed(&cell, 9, "startup.kernel", "no output"));
    samples.push(failed(&cell, 10, "startup.ready", "wrong checksum"));
    // A row that claims success without a number is a failure too.
    samples.push(Sample { value: Some(f64::NAN), ..ok(&cell, 11, "startup.ready", 0.0) });
    let summary = Summary::build(&manifest(std::slice::from_ref(&cell), 12), &samples);
    let found = &summary.cells[0];
    assert_eq!((found.tried, found.failed, found.planned), (11, 3, 12));
    let ready = found.metric(metric("startup.ready")).expect("listed");
    assert_eq!((ready.n, ready.failed), (8, 3));
    assert_eq!(ready.values.as_ref().expect("measured").min, 100.0);
    let kernel = found.metric(metric("startup.kernel")).expect("listed");
    assert_eq!((kernel.n, kernel.failed, kernel.values.is_none()), (0, 3, true));
    assert_eq!(found.reasons[0].text, "startup.kernel: no output");
    assert!(matches!(found.flags[..], [Flag::ManyFailures { .. }]));
}

#[test]
fn what_never_ran_is_present_with_its_reason() {
    let (manifest, samples) = realistic(6);
    let summary = Summary::build(&manifest, &samples);
    assert_eq!(summary.cells.len(), manifest.cells.len());
    let skipped = summary.cells.last().expect("cells");
    assert_eq!((skipped.outcome, skipped.tried), (Outcome::Skipped, 0));
    assert_eq!(skipped.why_missing(), "skipped: the guest never reached init under KVM within 9 s");
    let memory = summary
        .cells
        .iter()
        .find(|found| found.cell == key("memory process pause"))
        .expect("planned");
    let cgroup = memory.metric(Metric::Memory(Ledger::Cgroup)).expect("listed");
    assert_eq!((cgroup.n, cgroup.skipped, cgroup.values.is_none()), (0, 6, true));
    assert_eq!(cgroup.reasons[0].text, "the memory controller is not delegated");
}

#[test]
fn an_interrupted_run_shows_cells_that_had_no_turn() {
    let summary = Summary::build(&manifest(&[key("startup vm exit")], 5), &[]);
    let found = &summary.cells[0];
    assert_eq!((found.outcome, found.planned, found.tried), (Outcome::Skipped, 5, 0));
    assert_eq!(found.why_missing(), "not run");
    assert_eq!(summary.timeline.worst_residue_ns, None);
}

/// Ten values around `centre` that differ by a per cent.
fn around(centre: f64) -> Vec<f64> {
    (0..20).map(|i| centre * (1.0 + 0.001 * f64::from(i % 10))).collect()
}

/// The same values in another order, for a control that agrees.
fn turned(centre: f64) -> Vec<f64> {
    let mut values = around(centre);
    values.rotate_left(3);
    values
}

fn verdict_of(control: Option<Vec<f64>>, container: &[f64]) -> Comparison {
    let null = around(100.0);
    let mut cells: Vec<(&str, &[f64])> =
        vec![("startup process exit", &null), ("startup container exit", container)];
    if let Some(control) = &control {
        cells.push(("startup process exit control=1", control));
    }
    let mut summary = summary(&cells, "startup.ready");
    assert_eq!(summary.comparisons.len(), 1, "the control is no subject");
    summary.comparisons.remove(0)
}

#[test]
fn a_clear_difference_is_named() {
    let slower = verdict_of(Some(turned(100.0)), &around(300.0));
    assert_eq!((slower.verdict, slower.text.as_str()), (Verdict::Slower, "slower by 3.00x"));
    let faster = verdict_of(Some(turned(100.0)), &around(80.0));
    assert_eq!(faster.verdict, Verdict::Faster);
    assert_eq!(faster.text, "faster by 1.25x");
    near(faster.ratio.expect("positive").ratio, 0.8);
    assert_eq!(faster.p, Some(2.0_f64.powi(-19)));
}

#[test]
fn below_two_per_cent_nothing_is_named() {
    let same = verdict_of(Some(turned(100.0)), &around(101.5));
    let Verdict::NoDifference { smallest } = same.verdict else { panic!("{:?}", same.verdict) };
    assert!(smallest >= LEAST_RATIO);
    assert!(same.text.starts_with("no difference shown; "), "{}", same.text);
}

#[test]
fn nothing_is_said_without_a_control_that_agrees_with_itself() {
    let reason = |comparison: Comparison| match comparison.verdict {
        Verdict::Withheld { reason } => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(verdict_of(None, &around(300.0))).contains("no A/A control"));
    let unstable = verdict_of(Some(around(110.0)), &around(300.0));
    assert!(reason(unstable).contains("differs from itself"));
}

#[test]
fn a_noisy_control_raises_the_bar() {
    let noisy: Vec<f64> =
        (0..20).map(|i| if i % 2 == 0 { 90.0 } else { 112.0 + f64::from(i) / 10.0 }).collect();
    let comparison = verdict_of(Some(noisy), &around(108.0));
    assert!(matches!(comparison.verdict, Verdict::NoDifference { .. }), "{:?}", comparison.verdict);
}

#[test]
fn too_few_rounds_are_named_and_cost_the_others_nothing() {
    let (null, container) = (around(100.0), around(300.0));
    let (mut keys, mut samples) = run(
        &[
            ("startup process exit", &null[..8]),
            ("startup process exit control=1", &turned(100.0)[..8]),
            ("startup container exit", &container[..8]),
        ],
        "startup.ready",
    );
    let (more_keys, more_samples) = run(
        &[("startup process http", &null[..6]), ("startup container http", &container[..6])],
        "startup.ready",
    );
    keys.extend(more_keys);
    samples.extend(more_samples);
    let summary = Summary::build(&manifest(&keys, 8), &samples);
    let [first, second] = &summary.comparisons[..] else { panic!("two comparisons") };
    assert_eq!(first.verdict, Verdict::Slower);
    assert_eq!(first.p_holm, Some(2.0_f64.powi(-7)));
    assert_eq!(second.p_holm, None);
    assert_eq!(second.text, "withheld: 6 rounds are too few to be tested, 9 would do");
}

#[test]
fn a_cell_with_many_failures_is_not_judged() {
    let (keys, mut samples) = run(
        &[("startup process exit", &around(100.0)), ("startup container exit", &around(300.0))],
        "startup.ready",
    );
    for round in 21..=24 {
        samples.push(failed(&keys[1], round, "startup.ready", "died"));
    }
    let summary = Summary::build(&manifest(&keys, 24), &samples);
    assert_eq!(summary.comparisons[0].text, "withheld: 4 of 24 trials of container failed");
}

#[test]
fn the_cost_of_one_more_is_a_slope() {
    let cell = key("density container pause");
    let ladder = [1, 2, 4, 8, 16];
    let mut samples: Vec<Sample> = ladder
        .iter()
        .map(|&n| at_step(&cell, 1, n, "memory.pss", 500.0 + 30.0 * f64::from(n)))
        .collect();
    samples.push(at_step(&cell, 1, 1, "memory.cgroup", 40.0));
    samples.push(at_step(&cell, 1, 2, "memory.cgroup", 80.0));
    samples.push(Sample {
        detail: "cap of the spec".to_owned(),
        ..at_step(&cell, 1, 16, "density.instances", 16.0)
    });
    let summary = Summary::build(&manifest(std::slice::from_ref(&cell), 1), &samples);
    let found = &summary.cells[0];
    let line = found.marginal(Ledger::Pss).expect("five steps");
    // Never 980 / 16.
    assert_eq!((line.slope, line.intercept, line.points), (30.0, 500.0, 5));
    assert_eq!(line.interval, Some(Interval { low: 30.0, high: 30.0 }));
    assert_eq!(found.marginal(Ledger::Cgroup), None);
    let reason = found.marginals[1].reason.as_deref();
    assert_eq!(reason, Some("2 steps measured, a slope needs 3"));
    assert_eq!(found.limits, [Reason { text: "cap of the spec".to_owned(), count: 1 }]);
    assert_eq!(found.values(Metric::DensityInstances).expect("measured").median, 16.0);
    let steps: Vec<Option<u32>> = found
        .metrics
        .iter()
        .filter(|found| found.metric == Metric::Memory(Ledger::Pss))
        .map(|found| found.step)
        .collect();
    assert_eq!(steps, ladder.map(Some));
}

#[test]
fn a_summary_reads_back_and_its_table_is_rectangular() {
    let (manifest, samples) = realistic(8);
    let summary = Summary::build(&manifest, &samples);
    let json = summary.to_json().expect("text");
    // Reading a number back may differ in its last bit; everything else may not.
    let read: Summary = serde_json::from_str(&json).expect("valid");
    let words = |summary: &Summary| {
        let texts = summary.comparisons.iter().map(|found| found.text.clone());
        let cells =
            summary.cells.iter().map(|found| format!("{:?} {:?}", found.cell, found.reasons));
        texts.chain(cells).collect::<Vec<_>>()
    };
    assert_eq!(words(&read), words(&summary));
    assert!(Summary::build(&manifest, &samples) == summary, "same samples, same summary");
    let table = summary.to_csv().expect("text");
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    assert_eq!(reader.headers().expect("header").iter().collect::<Vec<_>>(), COLUMNS);
    let rows: Vec<csv::StringRecord> =
        reader.records().collect::<Result<_, _>>().expect("rectangular");
    for cell in &summary.cells {
        let params = cell.cell.params.to_string();
        assert!(rows.iter().any(|row| {
            row[1] == *cell.cell.experiment.as_str()
                && row[2] == *cell.cell.backend.as_str()
                && row[4] == params
        }));
    }
    let skipped = rows.iter().find(|row| &row[8] == "skipped" && row[4].contains("kvm"));
    assert!(skipped.expect("present")[14].is_empty(), "no median for what never ran");
    assert!(rows.iter().any(|row| &row[5] == "memory.marginal.pss" && !row[14].is_empty()));
}

#[test]
fn realistic_runs_give_the_verdicts_one_expects() {
    let (manifest, samples) = realistic(20);
    let summary = Summary::build(&manifest, &samples);
    let verdict = |subject: &str, baseline: &str, name: &str| {
        let found = summary.comparison(&key(subject), &key(baseline), metric(name));
        found.unwrap_or_else(|| panic!("{subject} {name}")).verdict.clone()
    };
    let vm = "startup vm exit accel=tcg;kernel=tuned;machine=microvm";
    assert_eq!(
        verdict("startup container exit", "startup process exit", "startup.ready"),
        Verdict::Slower
    );
    assert_eq!(verdict(vm, "startup container exit", "startup.gone"), Verdict::Slower);
    let vm = "memory vm pause accel=tcg;kernel=tuned;machine=q35";
    assert_eq!(verdict(vm, "memory process pause", "memory.pss"), Verdict::More);
    assert!(summary.comparisons.iter().all(|found| !found.text.is_empty()));
    assert!(summary.comparisons.iter().all(|found| found.metric != Metric::Startup(Mark::Init)));
}
