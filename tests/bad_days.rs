//! Guests that never become ready, monitors that die, payloads that are
//! killed: each is a failed row with its stage and cause, within a deadline,
//! and the run goes on.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test says what went wrong by panicking"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use common::{is_root, run, run_id, samples, skip, stderr, traces_of, unladen};

const SPEC: &str = r#"
[rounds]
startup = 1
[[cells]]
backend = "vm"
params = { accel = "tcg" }
startup = ["exit"]
"#;

/// A QEMU that only says its version, and else does what `body` says.
fn fake_qemu(dir: &Path, body: &str) -> PathBuf {
    let path = dir.join("qemu");
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && {{ echo 'QEMU emulator version 0.0.1'; exit 0; }}\n{body}\n"
    );
    common::write_program(&path, text.as_bytes());
    path
}

/// Runs the machine cell with this QEMU; gives the output and the detail of
/// the one machine row.
fn run_with(body: &str) -> (Output, String, String) {
    let dir = tempfile::tempdir().expect("folder");
    let spec = dir.path().join("spec.toml");
    fs::write(&spec, SPEC).expect("written");
    let out = dir.path().join("out");
    // A guest kernel is needed for the command line only; any file will do.
    let output = run(unladen()
        .env("UNLADEN_QEMU", fake_qemu(dir.path(), body))
        .args(["run", "--no-report", "--deadline", "2s", "--out"])
        .arg(&out)
        .arg(&spec));
    let rows = samples(&out);
    let machine: Vec<_> = rows.iter().filter(|row| row["backend"] == "vm").collect();
    assert_eq!(machine.len(), 1, "{}", stderr(&output));
    assert!(machine[0]["value"].is_empty());
    assert!(
        !common::values(&rows, "process", "startup.ready").is_empty(),
        "the rest of the run was measured"
    );
    let id = run_id(&out);
    assert!(traces_of(&id).is_empty(), "left behind: {:?}", traces_of(&id));
    (output, machine[0]["outcome"].clone(), machine[0]["detail"].clone())
}

#[test]
fn a_monitor_that_dies_is_told_with_its_last_words() {
    let (output, outcome, detail) = run_with("echo 'qemu: no such machine' >&2; exit 1");
    if outcome == "skipped" {
        return skip(&detail);
    }
    assert_eq!((output.status.code(), outcome.as_str()), (Some(1), "failed"), "{detail}");
    for part in ["waiting for vmm_ready", "ended with code 1", "no such machine"] {
        assert!(detail.contains(part), "{part} is not in: {detail}");
    }
}

#[test]
fn a_guest_that_says_nothing_ends_at_the_deadline() {
    let (output, outcome, detail) = run_with("exec sleep 1000");
    if outcome == "skipped" {
        return skip(&detail);
    }
    assert_eq!((output.status.code(), outcome.as_str()), (Some(1), "failed"), "{detail}");
    assert!(detail.contains("waiting for vmm_ready: not within 2.0 s"), "{detail}");
}

#[test]
fn a_guest_that_stops_after_its_kernel_began_is_told_with_its_console() {
    let (_, outcome, detail) = run_with(
        "echo '{\"QMP\": {}}' >&5; echo 'Kernel panic - not syncing' >&4; exec sleep 1000",
    );
    if outcome == "skipped" {
        return skip(&detail);
    }
    assert!(detail.contains("waiting for init"), "{detail}");
    assert!(detail.contains("console: Kernel panic - not syncing"), "{detail}");
}

#[test]
fn a_lying_payload_is_a_failure_and_not_a_measurement() {
    // Marks and a wrong proof: count 9, checksum 0, code 0.
    let proof = r"\241\242\245\001\021\000\000\000\011\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000";
    let (_, outcome, detail) = run_with(&format!("printf '{proof}' >&3; exit 1"));
    if outcome == "skipped" {
        return skip(&detail);
    }
    assert_eq!(outcome, "failed");
    assert!(detail.contains("wrong proof of work"), "{detail}");
}

#[test]
fn a_payload_that_is_killed_ends_its_ladder_with_that_limit() {
    if !is_root() {
        return skip("the ladder's containers need root here");
    }
    let dir = tempfile::tempdir().expect("folder");
    let spec = dir.path().join("spec.toml");
    let text = "[rounds]\ndensity = 1\n[[cells]]\nbackend = \"process\"\ndensity = [\"pause\"]\n\
                density_cap = 32\n";
    fs::write(&spec, text).expect("written");
    let out = dir.path().join("out");
    let mut child = unladen()
        .args(["run", "--no-report", "--out"])
        .arg(&out)
        .arg(&spec)
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("started");
    let payloads = || -> Vec<i32> {
        if !out.join("manifest.json").is_file() {
            return Vec::new();
        }
        let traces = traces_of(&run_id(&out)).into_iter();
        let pids = traces.filter_map(|trace| trace.strip_prefix("/proc/")?.parse().ok());
        let is_payload = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .unwrap_or_default()
                .starts_with("unladen-p")
        };
        pids.filter(is_payload).collect()
    };
    assert!(common::wait_until(Duration::from_secs(30), || payloads().len() >= 4));
    let victim = nix::unistd::Pid::from_raw(payloads()[0]);
    nix::sys::signal::kill(victim, nix::sys::signal::Signal::SIGKILL).expect("killed");
    assert_eq!(child.wait().expect("ended").code(), Some(0), "a limit is a result");
    let rows = samples(&out);
    let end = rows.iter().find(|row| row["metric"] == "density.instances").expect("an end");
    assert!(end["detail"].contains("the payload died"), "{}", end["detail"]);
    let alive: f64 = end["value"].parse().expect("a number");
    assert!((1.0..32.0).contains(&alive), "{alive}");
    assert!(traces_of(&run_id(&out)).is_empty());
}

#[test]
fn a_signal_while_an_accelerator_is_probed_leaves_nothing() {
    let dir = tempfile::tempdir().expect("folder");
    let spec = dir.path().join("spec.toml");
    fs::write(&spec, SPEC.replace("params = { accel = \"tcg\" }\n", "")).expect("written");
    let out = dir.path().join("out");
    let marker = dir.path().join("started");
    let body = format!("touch {}; exec sleep 1000", marker.display());
    let mut child = unladen()
        .env("UNLADEN_QEMU", fake_qemu(dir.path(), &body))
        .args(["run", "--no-report", "--out"])
        .arg(&out)
        .arg(&spec)
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("started");
    if !common::wait_until(Duration::from_secs(20), || marker.exists()) {
        child.wait().expect("ended");
        return skip("no guest kernel to probe with");
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("signalled");
    assert_eq!(child.wait().expect("ended").code(), Some(130));
    assert!(!out.exists(), "an empty folder is left");
    let orphans = || {
        let all = fs::read_dir("/proc").expect("/proc").flatten();
        all.filter(|entry| {
            let cmdline = fs::read(entry.path().join("environ")).unwrap_or_default();
            let needle = dir.path().display().to_string();
            String::from_utf8_lossy(&cmdline).contains(&needle)
        })
        .count()
    };
    assert!(common::wait_until(Duration::from_secs(20), || orphans() == 0), "orphans");
}

#[test]
fn a_resumed_run_tells_what_cannot_run_any_more() {
    let dir = tempfile::tempdir().expect("folder");
    let spec = dir.path().join("spec.toml");
    fs::write(&spec, SPEC.replace("startup = 1", "startup = 2")).expect("written");
    let out = dir.path().join("out");
    let qemu = fake_qemu(dir.path(), "exit 1");
    let first = run(unladen()
        .env("UNLADEN_QEMU", &qemu)
        .args(["run", "--no-report", "--budget", "1s", "--deadline", "2s", "--out"])
        .arg(&out)
        .arg(&spec));
    if common::manifest(&out)["cells"].to_string().contains("no guest kernel") {
        return skip("no guest kernel");
    }
    // Cut back to the header, as if nothing had been measured.
    let path = out.join("samples.csv");
    let text = fs::read_to_string(&path).expect("samples");
    fs::write(&path, format!("{}\n", text.lines().next().expect("a header"))).expect("cut");
    let second = run(unladen()
        .env("UNLADEN_QEMU", "/nonexistent/qemu")
        .args(["run", "--no-report", "--resume"])
        .arg(&out));
    assert_eq!(second.status.code(), Some(1), "{}{}", stderr(&first), stderr(&second));
    let rows = samples(&out);
    let lost: Vec<_> = rows.iter().filter(|row| row["backend"] == "vm").collect();
    assert_eq!(lost.len(), 2, "each planned trial has its row");
    for row in lost {
        assert_eq!(row["outcome"], "failed");
        assert!(row["detail"].contains("cannot run any more"), "{}", row["detail"]);
    }
}
