//! The whole pipeline with a mock whose timings are exact: what goes in as
//! ticks must come out as exactly these samples and figures.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test says what went wrong by panicking"
)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use common::{manifest, run, samples, stderr, stdout, unladen, values};

const SPEC: &str = r#"
title = "mock"
[rounds]
startup = 6
memory = 2
density = 1
[[cells]]
backend = "mock"
params = { spawned = 1000, init = 2000, ready = 5000, exited = 8000, gone = 9000, drift = 100 }
startup = ["exit"]
[[cells]]
backend = "mock"
params = { init = 10, ready = 20, stop_exited = 3, stop_gone = 7, pss = 1048576, uss = 4096, rss = 2097152, cgroup = 65536, peak = 131072 }
startup = ["pause"]
memory = ["pause"]
density = ["pause"]
density_cap = 10
[[cells]]
backend = "mock"
params = { init = 1, ready = 2, exited = 3, gone = 4, fail_every = 3 }
startup = ["exit"]
"#;

/// Runs the mock spec into `dir/run`.
fn run_mock(dir: &Path, more: &[&str]) -> std::process::Output {
    let spec = dir.join("mock.toml");
    fs::write(&spec, SPEC).expect("written");
    run(unladen().arg("run").arg(&spec).arg("--out").arg(dir.join("run")).args(more))
}

#[test]
fn exact_ticks_give_exact_samples_and_summary() {
    let dir = tempfile::tempdir().expect("folder");
    let output = run_mock(dir.path(), &["--seed", "7"]);
    assert_eq!(output.status.code(), Some(1), "a third of one cell fails: {}", stderr(&output));
    let told = stdout(&output);
    let remark = told.lines().find(|line| line.starts_with("remark: ")).expect("it drifts");
    assert!(remark.contains("startup.ready: drifts by +"), "{told}");
    let run = dir.path().join("run");
    let rows = samples(&run);

    let drifting: Vec<_> =
        rows.iter().filter(|row| row["params"].contains("drift")).cloned().collect();
    for (metric, first) in [
        ("startup.spawned", 1000.0),
        ("startup.init", 2000.0),
        ("startup.ready", 5000.0),
        ("startup.exited", 8000.0),
        ("startup.gone", 9000.0),
    ] {
        let expected: Vec<f64> = (0..6).map(|launch| first + 100.0 * f64::from(launch)).collect();
        assert_eq!(values(&drifting, "mock", metric), expected, "{metric}");
    }

    let failed = rows.iter().filter(|row| row["outcome"] == "failed").count();
    assert_eq!(failed, 2, "every third of six launches");
    assert!(
        rows.iter()
            .filter(|row| row["outcome"] == "failed")
            .all(|row| row["value"].is_empty() && row["detail"].contains("told to fail"))
    );

    let density: Vec<_> = rows.iter().filter(|row| row["experiment"] == "density").collect();
    let pss: Vec<(&str, &str)> = density
        .iter()
        .filter(|row| row["metric"] == "memory.pss")
        .map(|row| (row["step"].as_str(), row["value"].as_str()))
        .collect();
    assert_eq!(
        pss,
        [
            ("1", "1048576"),
            ("2", "2097152"),
            ("3", "3145728"),
            ("4", "4194304"),
            ("6", "6291456"),
            ("8", "8388608"),
            ("10", "10485760")
        ]
    );
    let end: Vec<_> = density.iter().filter(|row| row["metric"] == "density.instances").collect();
    assert_eq!(end.len(), 1);
    assert_eq!((end[0]["value"].as_str(), end[0]["detail"].as_str()), ("10", "cap of 10"));
    assert_eq!(manifest(&run)["state"], "complete");

    check_summary(&run);
}

/// Several instances of a memory trial, and the next start beside others.
#[test]
fn several_mocks_are_added_up_and_the_next_one_is_started_beside_them() {
    let rows = &common::measure(
        "[rounds]\nmemory = 1\n[[cells]]\nbackend = \"mock\"\n\
         params = { init = 10, ready = 20, stop_exited = 3, stop_gone = 7, pss = 1048576 }\n\
         memory = [\"pause\"]\nmemory_cap = 5\nscale = [\"pause\"]\nscale_cap = 20\n",
    );
    let of = |experiment: &str, metric: &str| -> Vec<(String, String)> {
        rows.iter()
            .filter(|row| row["experiment"] == experiment && row["metric"] == metric)
            .map(|row| (row["step"].clone(), row["value"].clone()))
            .collect()
    };
    let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter().map(|(step, value)| ((*step).to_owned(), (*value).to_owned())).collect()
    };
    let mib = ["1048576", "2097152", "4194304", "5242880"];
    let expected = [("", mib[0]), ("1", mib[0]), ("2", mib[1]), ("4", mib[2]), ("5", mib[3])];
    assert_eq!(of("memory", "memory.pss"), pairs(&expected));
    let starts = of("scale", "scale.start");
    for step in ["0", "10", "20"] {
        let found = starts.iter().filter(|(at, value)| at == step && value == "20").count();
        assert_eq!(found, 10, "beside {step}: {starts:?}");
    }
    let stops = of("scale", "scale.stop");
    assert!(stops.len() == 30 && stops.iter().all(|(_, value)| value == "7"), "{stops:?}");
    assert!(of("scale", "scale.flight.starts").is_empty(), "a mock has no rate");
}

/// The derived figures are exactly those of the ticks.
fn check_summary(run: &Path) {
    let summary: serde_json::Value =
        serde_json::from_slice(&fs::read(run.join("summary.json")).expect("summary"))
            .expect("JSON");
    let median = |metric: &str, params: &str| {
        let entry = find(&cell(&summary, "startup", params)["metrics"], "metric", metric);
        entry["values"]["median"].as_f64().expect("a median")
    };
    assert!((median("startup.ready", "drift") - 5250.0).abs() < 1e-9);
    assert!((median("stop.gone", "stop_gone") - 7.0).abs() < 1e-9);
    let memory = &cell(&summary, "memory", "pss")["metrics"];
    let pss = &find(memory, "metric", "memory.pss")["values"]["median"];
    assert_eq!(pss.as_f64(), Some(1_048_576.0));
    let marginals = &cell(&summary, "density", "pss")["marginals"];
    let slope = &find(marginals, "ledger", "pss")["line"]["slope"];
    assert_eq!(slope.as_f64(), Some(1_048_576.0), "{marginals}");
    let failing = cell(&summary, "startup", "fail_every");
    assert_eq!((failing["tried"].as_u64(), failing["failed"].as_u64()), (Some(6), Some(2)));
}

/// The cell of an experiment whose parameters contain `params`.
fn cell<'a>(
    summary: &'a serde_json::Value,
    experiment: &str,
    params: &str,
) -> &'a serde_json::Value {
    let cells = summary["cells"].as_array().expect("cells");
    let fits = |entry: &&serde_json::Value| {
        entry["cell"]["experiment"] == experiment
            && entry["cell"]["params"].as_str().is_some_and(|text| text.contains(params))
    };
    cells.iter().find(fits).unwrap_or_else(|| panic!("no {experiment} cell with {params}"))
}

/// The entry of a list whose `key` is `value`.
fn find<'a>(list: &'a serde_json::Value, key: &str, value: &str) -> &'a serde_json::Value {
    let entries = list.as_array().expect("a list");
    let found = entries.iter().find(|entry| entry[key] == value);
    found.unwrap_or_else(|| panic!("no {key} {value} in {list}"))
}

#[test]
fn the_same_seed_gives_the_same_order_and_resume_repeats_nothing() {
    let dir = tempfile::tempdir().expect("folder");
    run_mock(dir.path(), &["--seed", "7", "--no-report"]);
    let run_dir = dir.path().join("run");
    let other = tempfile::tempdir().expect("folder");
    run_mock(other.path(), &["--seed", "7", "--no-report"]);
    assert_eq!(manifest(&run_dir)["order"], manifest(&other.path().join("run"))["order"]);

    // Cut in the middle of a row: the torn trial is repeated, nothing else.
    let cut = other.path().join("run/samples.csv");
    let whole = fs::read(&cut).expect("samples");
    fs::write(&cut, &whole[..whole.len() / 2]).expect("cut");
    let output =
        run(unladen().args(["run", "--no-report", "--resume"]).arg(other.path().join("run")));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let key = |row: &std::collections::BTreeMap<String, String>| {
        [&row["round"], &row["trial"], &row["experiment"], &row["params"]].map(String::clone)
    };
    let trials = |dir: &Path| -> BTreeSet<_> { samples(dir).iter().map(key).collect() };
    assert_eq!(trials(&run_dir), trials(&other.path().join("run")));
    let rows = samples(&other.path().join("run"));
    let unique: BTreeSet<_> =
        rows.iter().map(|row| (key(row), row["step"].clone(), row["metric"].clone())).collect();
    assert_eq!(unique.len(), rows.len(), "nothing was repeated");
}

/// A start whose files another process has mapped is not called cold: a trial
/// is not measured, and a ladder ends there, each with the reason.
#[test]
fn what_cannot_be_cold_is_said_in_trials_and_on_ladders() {
    let dir = tempfile::tempdir().expect("folder");
    let spec = dir.path().join("spec.toml");
    let text = "[rounds]\nstartup = 2\ndensity = 1\n[[cells]]\nbackend = \"mock\"\n\
                params = { in_use = 1, init = 1, ready = 2, exited = 3, gone = 4 }\n\
                startup = [\"exit\"]\ndensity = [\"pause\"]\ndensity_cap = 2\n";
    fs::write(&spec, text).expect("written");
    let out = dir.path().join("run");
    let output = run(unladen().arg("run").arg(&spec).arg("--no-report").arg("--out").arg(&out));
    let rows = samples(&out);
    let starts: Vec<_> = rows.iter().filter(|row| row["experiment"] == "startup").collect();
    assert_eq!(starts.len(), 2, "{}", stderr(&output));
    for row in starts {
        assert_eq!((row["outcome"].as_str(), row["value"].as_str()), ("skipped", ""));
        assert!(row["detail"].contains("not cold"), "{}", row["detail"]);
    }
    let ladder: Vec<_> = rows.iter().filter(|row| row["experiment"] == "density").collect();
    let [end] = ladder[..] else { panic!("nothing was alive to be read: {ladder:?}") };
    assert_eq!((end["metric"].as_str(), end["value"].as_str()), ("density.instances", "0"));
    assert!(end["detail"].contains("not cold"), "{}", end["detail"]);
}
