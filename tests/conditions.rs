//! The conditions of a trial are what they are said to be: cold files are
//! cold, a known difference is found, and measuring has a known cost.

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
use std::process::{Command, Output};

use common::{is_root, manifest, run, samples, skip, stderr, stdout, unladen};

/// A folder on a disk: the one for temporary files may be in memory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("folder")
}

fn measure(command: &mut Command, dir: &Path, name: &str, spec: &str) -> Output {
    let path = dir.join(format!("{name}.toml"));
    fs::write(&path, spec).expect("written");
    run(command.args(["run", "--no-report", "--out"]).arg(dir.join(name)).arg(path))
}

#[test]
fn cold_cells_begin_without_their_files_in_memory() {
    if !is_root() {
        return skip("the container of this test needs root here");
    }
    let dir = folder();
    let spec = r#"
[rounds]
startup = 3
[[cells]]
backend = "process"
startup = ["exit"]
[[cells]]
backend = "process"
params = { cache = "cold" }
startup = ["exit"]
[[cells]]
backend = "container"
params = { cache = "cold" }
startup = ["exit"]
"#;
    // Files of its own: a program that another test runs at the moment is in
    // use, and so not cold.
    let mut command = unladen();
    let output = measure(command.env("XDG_CACHE_HOME", dir.path()), dir.path(), "run", spec);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let rows = samples(&dir.path().join("run"));
    let ready = |backend: &str, params: &str| {
        rows.iter()
            .filter(|row| row["backend"] == backend && row["params"] == params)
            .filter(|row| row["metric"] == "startup.ready" && row["outcome"] == "ok")
            .count()
    };
    for (backend, params) in
        [("process", ""), ("process", "cache=cold"), ("container", "cache=cold")]
    {
        assert_eq!(ready(backend, params), 3, "{backend} {params}");
    }
    // Between trials the kernel's leftovers are waited for, and the wait is
    // recorded.
    let trials: BTreeSet<&str> = rows.iter().map(|row| row["trial"].as_str()).collect();
    let waits = rows.iter().filter(|row| row["metric"] == "settle.wait").count();
    assert_eq!(waits, trials.len(), "one for each trial");
}

#[test]
fn a_trial_that_cannot_be_cold_is_not_measured_and_says_why() {
    let dir = folder();
    // A cache in memory: nothing can be let go.
    let Ok(memory) = tempfile::tempdir_in("/dev/shm") else {
        return skip("/dev/shm cannot be written");
    };
    let spec = "[rounds]\nstartup = 2\n[[cells]]\nbackend = \"process\"\n\
                params = { cache = \"cold\" }\nstartup = [\"exit\"]\n";
    let mut command = unladen();
    let output = measure(command.env("XDG_CACHE_HOME", memory.path()), dir.path(), "run", spec);
    let mut rows = samples(&dir.path().join("run"));
    rows.retain(|row| row["params"] == "cache=cold");
    assert_eq!(rows.len(), 2, "{}", stderr(&output));
    for row in rows {
        assert_eq!((row["outcome"].as_str(), row["value"].as_str()), ("skipped", ""));
        assert!(row["detail"].contains("not cold"), "{}", row["detail"]);
    }
}

#[test]
fn an_injected_delay_is_found_and_confessed() {
    if !is_root() {
        return skip("the container of this test needs root here");
    }
    let dir = folder();
    let spec = r#"
[rounds]
startup = 16
[[cells]]
backend = "process"
startup = ["sleep=250"]
[[cells]]
backend = "process"
params = { control = 1 }
startup = ["sleep=250"]
[[cells]]
backend = "container"
startup = ["sleep=250"]
[[cells]]
backend = "container"
params = { pids = 63 }
startup = ["sleep=250"]
"#;
    let plain = measure(&mut unladen(), dir.path(), "plain", spec);
    assert_eq!(plain.status.code(), Some(0), "{}", stderr(&plain));
    // A tenth slower, of a time so long that a busy host scatters it by less:
    // `scripts/injected-delay.sh` does the same with the shortest start there
    // is. Template 4 is the last cell's.
    let mut command = unladen();
    let delayed = command.env("UNLADEN_TEST_DELAY_PERCENT", "10@4");
    let delayed = measure(delayed, dir.path(), "delayed", spec);
    assert_eq!(delayed.status.code(), Some(0), "{}", stderr(&delayed));
    let warnings = manifest(&dir.path().join("delayed"))["warnings"].to_string();
    assert!(warnings.contains("UNLADEN_TEST_DELAY_PERCENT"), "{warnings}");

    let within = run(unladen()
        .args(["compare", "--fail-on-regression", "--arms", "container pids=63", "container"])
        .arg(dir.path().join("delayed")));
    assert_eq!(within.status.code(), Some(4), "{}", stdout(&within));
    let between = run(unladen()
        .args(["compare", "--fail-on-regression"])
        .arg(dir.path().join("plain"))
        .arg(dir.path().join("delayed")));
    assert_eq!(between.status.code(), Some(4), "{}", stdout(&between));
    let text = stdout(&between);
    let named: Vec<&str> = text.lines().filter(|line| line.contains("slower by")).collect();
    assert!(named.iter().any(|line| line.contains("pids=63")), "{text}");
    assert!(text.contains("between these two runs"), "{text}");
}

#[test]
fn what_measuring_costs_is_measured() {
    let dir = folder();
    let output = run(unladen()
        .args(["selfcheck", "--cost", "--backend", "process", "--json", "--out"])
        .arg(dir.path()));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let costs = told["costs"].as_array().expect("a list");
    assert_eq!(costs.len(), 6, "clock, channel, reading, and three spawns: {costs:?}");
    for cost in costs {
        assert!(cost["median"].as_f64().expect("measured") > 0.0, "{cost}");
    }
    for ratio in ["null_over_placed", "placed_over_bare"] {
        assert!(told[ratio]["ratio"].as_f64().expect("a ratio") > 0.0, "{told}");
        let interval = &told[ratio]["interval"];
        assert!(interval["low"].as_f64() <= interval["high"].as_f64(), "{told}");
    }
    let stored = fs::read_to_string(dir.path().join("cost.json")).expect("stored");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&stored).expect("JSON"), told);
}

/// Others took the sub-second field of a duration for the whole, and the peak
/// of a process's earlier children for its own.
#[test]
fn seconds_are_not_lost_and_peaks_are_not_inherited() {
    if !is_root() {
        return skip("the peak is that of a control group, which needs root here");
    }
    let dir = folder();
    let spec = r#"
[rounds]
startup = 1
memory = 2
[[cells]]
backend = "process"
startup = ["sleep=1100"]
memory = ["touch=64", "pause"]
"#;
    let output = measure(&mut unladen(), dir.path(), "run", spec);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let rows = samples(&dir.path().join("run"));
    let values = |workload: &str, metric: &str| -> Vec<f64> {
        rows.iter()
            .filter(|row| row["workload"] == workload && row["metric"] == metric)
            .map(|row| row["value"].parse().expect("a value"))
            .collect()
    };
    let slept = values("sleep=1100", "startup.ready");
    assert!(!slept.is_empty() && slept.iter().all(|took| *took >= 1.1e9), "{slept:?}");
    let mib = 1_048_576.0;
    let (touched, idle) = (values("touch=64", "memory.peak"), values("pause", "memory.peak"));
    assert!(touched.iter().all(|peak| *peak >= 64.0 * mib), "{touched:?}");
    assert!(idle.len() >= 2 && idle.iter().all(|peak| *peak < 32.0 * mib), "{idle:?}");
}
