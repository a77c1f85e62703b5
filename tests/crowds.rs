//! Several instances at once: what a memory trial reads of them, the limits
//! that end a ladder and their names, and what is left of one that is killed.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test says what went wrong by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{is_root, measure, run, run_id, skip, stderr, stdout, traces_of, unladen, wait_until};

type Row = BTreeMap<String, String>;

/// Values of a metric of one backend by step.
fn by_step(rows: &[Row], backend: &str, metric: &str) -> Vec<(u32, f64)> {
    common::by_step(rows, |row| row["backend"] == backend, metric)
}

fn end(rows: &[Row], backend: &str) -> (f64, String) {
    let wanted = |row: &&Row| row["backend"] == backend && row["metric"] == "density.instances";
    let row = rows.iter().find(wanted).expect("an end");
    (row["value"].parse().expect("a number"), row["detail"].clone())
}

#[test]
fn a_memory_trial_reads_several_containers_and_what_the_kernel_holds_for_them() {
    if !is_root() {
        return skip("containers need root here");
    }
    let rows = measure(
        "[rounds]\nmemory = 1\n[[cells]]\nbackend = \"container\"\nmemory = [\"pause\"]\nmemory_cap = 12\n",
    );
    for metric in ["memory.pss", "memory.cgroup", "memory.host", "memory.charge.kernel"] {
        let steps: Vec<u32> =
            by_step(&rows, "container", metric).iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, [1, 2, 4, 8, 12], "{metric}");
    }
    let kernel = by_step(&rows, "container", "memory.charge.kernel");
    let each = (kernel[4].1 - kernel[0].1) / 11.0;
    // Page tables and a kernel stack at the least, no more than a machine's.
    assert!((8_192.0..2_097_152.0).contains(&each), "{each} bytes of kernel memory each");
    // The kinds make up the whole, wherever both were read.
    let sum: f64 = ["anon", "file", "kernel", "advance"]
        .iter()
        .map(|kind| by_step(&rows, "container", &format!("memory.charge.{kind}"))[4].1)
        .sum();
    let whole = by_step(&rows, "container", "memory.cgroup")[4].1;
    assert!((sum - whole).abs() <= 0.25 * whole, "{sum} of {whole}");
    let peak = common::values(&rows, "container", "memory.hwm");
    assert!(peak.iter().all(|bytes| *bytes > 0.0) && !peak.is_empty());
}

#[test]
fn slow_starts_end_a_ladder_and_do_not_count() {
    let rows = measure(
        "[density]\ncap = 16\nslo_ms = 5\n[[cells]]\nbackend = \"process\"\ndensity = [\"sleep=20\"]\n",
    );
    let (alive, limit) = end(&rows, "process");
    assert_eq!(alive, 2.0, "two steps are stood before the third slow start: {limit}");
    assert!(limit.starts_with("start latency: 3 starts in a row took longer than 5ms"), "{limit}");
}

#[test]
fn running_out_of_descriptors_is_named_and_the_most_that_answer_is_found() {
    let dir = tempfile::tempdir().expect("folder");
    let spec = dir.path().join("spec.toml");
    let text = "[[cells]]\nbackend = \"process\"\ndensity = [\"pause\"]\ndensity_cap = 256\n";
    fs::write(&spec, text).expect("written");
    let out = dir.path().join("out");
    let script = "ulimit -n 160; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_unladen"), "run", "--no-report"]);
    let output = run(command.arg("--out").arg(&out).arg(&spec).stdin(Stdio::null()));
    assert_eq!(output.status.code(), Some(0), "a limit is a result: {}", stderr(&output));
    let rows = common::samples(&out);
    let (alive, limit) = end(&rows, "process");
    assert!(limit.starts_with("file descriptors: "), "{limit}");
    assert!(alive > 16.0 && alive < 160.0, "{alive}");
    // What stood at the limit was read as well: a step between the usual ones.
    let last = by_step(&rows, "process", "memory.pss").last().map(|(step, _)| f64::from(*step));
    assert_eq!(last, Some(alive));
    assert!(traces_of(&run_id(&out)).is_empty());
}

#[test]
fn a_killed_ladder_leaves_its_steps_to_the_report() {
    let dir = tempfile::tempdir().expect("folder");
    let spec = dir.path().join("spec.toml");
    let text = "[[cells]]\nbackend = \"process\"\ndensity = [\"pause\"]\ndensity_cap = 64\n";
    fs::write(&spec, text).expect("written");
    let out = dir.path().join("out");
    let mut child = unladen()
        .args(["run", "--no-report", "--out"])
        .arg(&out)
        .arg(&spec)
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let steps = || {
        let text = fs::read_to_string(out.join("partial.csv")).unwrap_or_default();
        text.lines().filter(|line| line.contains(",memory.pss,")).count()
    };
    assert!(wait_until(Duration::from_secs(60), || steps() >= 3), "{} steps", steps());
    child.kill().expect("killed");
    child.wait().expect("ended");
    let kept = steps();
    let output = run(unladen().arg("report").arg(&out));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let summary = fs::read_to_string(out.join("summary.json")).expect("summary");
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("JSON");
    let metrics = summary["cells"][0]["metrics"].as_array().expect("metrics");
    let read = metrics.iter().filter(|found| found["metric"] == "memory.pss").count();
    assert_eq!(read, kept, "every step that was kept is told");
    let id = run_id(&out);
    assert!(wait_until(Duration::from_secs(20), || traces_of(&id).is_empty()));
    // Continued, the ladder is climbed anew and its steps are stored for good.
    let output = run(unladen().args(["run", "--no-report", "--resume"]).arg(&out));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!out.join("partial.csv").exists());
    assert_eq!(end(&common::samples(&out), "process"), (64.0, "cap of 64".to_owned()));
}

/// The payloads of a run, by their process ids.
fn payloads(out: &Path) -> Vec<i32> {
    if !out.join("manifest.json").is_file() {
        return Vec::new();
    }
    let is_payload = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with("unladen-p")
    };
    let traces = traces_of(&run_id(out)).into_iter();
    let pids = traces.filter_map(|trace| trace.strip_prefix("/proc/")?.parse().ok());
    pids.filter(is_payload).collect()
}

/// Runs a spec, and stops its payloads for good once there are four. A stopped
/// process neither answers nor ends before it is killed.
fn stopped_on_the_way(cell: &str) -> Vec<Row> {
    let dir = tempfile::tempdir().expect("folder");
    let (spec, out) = (dir.path().join("spec.toml"), dir.path().join("out"));
    fs::write(&spec, format!("[rounds]\nmemory = 1\n[[cells]]\n{cell}")).expect("written");
    let mut command = unladen();
    command.args(["run", "--no-report", "--out"]).args([&out, &spec]).stderr(Stdio::null());
    let mut child = command.spawn().expect("started");
    assert!(wait_until(Duration::from_secs(60), || payloads(&out).len() >= 4));
    for pid in payloads(&out) {
        let pid = nix::unistd::Pid::from_raw(pid);
        // One that has ended meanwhile need not be stopped.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP);
    }
    assert_eq!(child.wait().expect("ended").code(), Some(0), "a limit is a result");
    assert!(traces_of(&run_id(&out)).is_empty(), "{:?}", traces_of(&run_id(&out)));
    common::samples(&out)
}

#[test]
fn what_does_not_end_at_a_limit_is_killed_and_told() {
    let told = |detail: &str| {
        assert!(detail.contains("liveness: instance 1 of "), "{detail}");
        assert!(detail.contains("; then ") && detail.contains("waiting for exited"), "{detail}");
    };
    let ladder = |of: &str| format!("backend = \"process\"\n{of} = [\"pause\"]\n{of}_cap = 64\n");
    // Both wait for most of their time.
    let memory = std::thread::spawn(move || stopped_on_the_way(&ladder("memory")));
    let (_, detail) = end(&stopped_on_the_way(&ladder("density")), "process");
    told(&detail);
    let rows = memory.join().expect("measured");
    let limit = |row: &&Row| row["detail"].starts_with("ended at ");
    told(&rows.iter().find(limit).expect("a limit")["detail"]);
    assert!(rows.iter().all(|row| row["outcome"] != "failed"), "{rows:?}");
}

#[test]
fn scale_times_the_next_start_many_at_once_and_the_end_of_all() {
    let rows = measure("[[cells]]\nbackend = \"process\"\nscale = [\"pause\"]\nscale_cap = 12\n");
    let count = |metric: &str, step: u32| {
        by_step(&rows, "process", metric).iter().filter(|(at, _)| *at == step).count()
    };
    for step in [0, 10, 12] {
        assert_eq!((count("scale.start", step), count("scale.stop", step)), (10, 10), "{step}");
    }
    assert_eq!(count("scale.destroy", 12), 1);
    let rates = by_step(&rows, "process", "scale.flight.starts");
    let steps: Vec<u32> = rates.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [1, 2, 4, 8]);
    assert!(rates.iter().all(|(_, rate)| *rate > 0.0), "{rates:?}");
    let open = by_step(&rows, "process", "scale.open.ready");
    assert!(!open.is_empty() && open.iter().all(|(_, took)| *took > 0.0));
}

#[test]
fn what_a_run_costs_is_told_with_its_assumptions() {
    let dir = tempfile::tempdir().expect("folder");
    let spec = dir.path().join("spec.toml");
    let text = "[rounds]\nmemory = 1\n[[cells]]\nbackend = \"process\"\nmemory = [\"touch=2\"]\nmemory_cap = 16\n";
    fs::write(&spec, text).expect("written");
    let out = dir.path().join("out");
    let output = run(unladen().args(["run", "--no-report", "--out"]).arg(&out).arg(&spec));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let cost = |more: &[&str]| run(unladen().arg("cost").arg(&out).args(more));
    let host = ["--ledger", "pss", "--memory", "1G", "--cpus", "4", "--host-cost", "30"];
    let told = cost(&host);
    assert_eq!(told.status.code(), Some(0), "{}", stderr(&told));
    for needed in ["process", "extrapolated beyond 16", "30 a month", "1 GiB", "kept free"] {
        assert!(stdout(&told).contains(needed), "{needed} is not in {}", stdout(&told));
    }
    let json: serde_json::Value =
        serde_json::from_slice(&cost(&[&host[..], &["--json"]].concat()).stdout).expect("JSON");
    let fit = &json["fits"][0];
    let instances = fit["instances"].as_f64().expect("a number");
    // Each holds its 2 MiB and little more.
    assert!((350.0..461.0).contains(&instances), "{instances}");
    let price = fit["per_thousand"].as_f64().expect("a price");
    assert!((price - 30_000.0 / instances).abs() < 1e-6);
    assert_eq!(cost(&["--reserve", "100"]).status.code(), Some(2));
}
