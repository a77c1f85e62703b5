//! Guests that go on from a snapshot: real QEMU, under emulation wherever
//! the tests run.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test says what went wrong by panicking"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use common::{cache, run, run_id, samples, skip, stderr, traces_of, unladen, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

type Row = BTreeMap<String, String>;

/// A run of this spec in a folder of its own.
struct Run {
    _folder: tempfile::TempDir,
    out: PathBuf,
    output: Output,
    rows: Vec<Row>,
}

impl Run {
    /// Runs to the end, with this QEMU if one is given.
    fn made(spec: &str, qemu: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("spec.toml");
        fs::write(&file, spec).expect("written");
        let out = folder.path().join("out");
        let mut command = unladen();
        command.args(["run", "--no-report", "--seed", "5", "--out"]).arg(&out).arg(&file);
        if let Some(script) = qemu {
            let path = folder.path().join("qemu");
            common::write_program(&path, script.as_bytes());
            command.env("UNLADEN_QEMU", path).args(["--deadline", "20s"]);
        }
        let output = run(&mut command);
        let rows = samples(&out);
        let id = run_id(&out);
        assert!(traces_of(&id).is_empty(), "left behind: {:?}", traces_of(&id));
        Self { _folder: folder, out, output, rows }
    }

    /// The same; `None` when the host has no guest to start.
    fn of(spec: &str, qemu: Option<&str>) -> Option<Self> {
        let made = Self::made(spec, qemu);
        if let Some(reason) = made.skipped() {
            assert!(qemu.is_none(), "cannot be prepared: {reason}");
            skip(reason);
            return None;
        }
        Some(made)
    }

    /// Why its machines were not started, if they were not.
    fn skipped(&self) -> Option<&str> {
        let machines: Vec<&Row> = self.rows.iter().filter(|row| row["backend"] == "vm").collect();
        assert!(!machines.is_empty(), "{}", stderr(&self.output));
        let skipped = machines.into_iter().find(|row| row["outcome"] == "skipped");
        skipped.map(|row| row["detail"].as_str())
    }

    /// Values of a metric of the machines that start like this.
    fn values(&self, start: &str, workload: &str, metric: &str, step: &str) -> Vec<f64> {
        let wanted = |row: &&Row| {
            row["backend"] == "vm"
                && start_of(row) == start
                && row["workload"] == workload
                && row["metric"] == metric
                && row["step"] == step
                && row["outcome"] == "ok"
        };
        let value = |row: &Row| row["value"].parse().expect("a number");
        self.rows.iter().filter(wanted).map(value).collect()
    }

    /// The detail of the one machine row, which must have failed.
    fn failure(&self) -> String {
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row["backend"] == "vm").collect();
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!((rows[0]["outcome"].as_str(), rows[0]["value"].as_str()), ("failed", ""));
        assert_eq!(self.output.status.code(), Some(1), "{}", stderr(&self.output));
        rows[0]["detail"].clone()
    }
}

/// `cold`, `clone` or `restore`.
fn start_of(row: &Row) -> &str {
    let start = row["params"].split(';').find_map(|pair| pair.strip_prefix("start="));
    start.unwrap_or("cold")
}

const ALL: &str = r#"
[rounds]
startup = 3
memory = 1
density = 1
[[cells]]
backend = "vm"
params = { accel = "tcg" }
startup = ["pause"]
memory = ["pause"]
[[cells]]
backend = "vm"
params = { accel = "tcg", start = "clone" }
startup = ["exit", "exit=7", "pause", "http", "touch=16"]
memory = ["pause"]
density = ["pause"]
density_cap = 5
[[cells]]
backend = "vm"
params = { accel = "tcg", start = "restore" }
startup = ["exit", "http"]
memory = ["pause"]
"#;

#[test]
fn clones_start_answer_share_memory_and_leave_nothing() {
    let Some(run) = Run::of(ALL, None) else { return };
    assert_eq!(run.output.status.code(), Some(0), "{}", stderr(&run.output));
    let failed: Vec<_> = run.rows.iter().filter(|row| row["outcome"] != "ok").collect();
    assert!(failed.is_empty(), "{failed:?}");
    for (start, workload) in [
        ("clone", "exit"),
        ("clone", "exit=7"),
        ("clone", "pause"),
        ("clone", "http"),
        ("clone", "touch=16"),
        ("restore", "exit"),
        ("restore", "http"),
    ] {
        let at = |mark| run.values(start, workload, &format!("startup.{mark}"), "");
        let (resumed, ready) = (at("resumed"), at("ready"));
        assert_eq!((resumed.len(), ready.len()), (3, 3), "{start} {workload}");
        assert!(at("vmm_ready").iter().zip(&resumed).all(|(before, after)| before < after));
        assert!(resumed.iter().zip(&ready).all(|(before, after)| before < after));
        // Both lie before the snapshot.
        assert!(at("kernel").is_empty() && at("init").is_empty());
        let gone = if workload.starts_with("exit") { "startup.gone" } else { "stop.gone" };
        assert_eq!(run.values(start, workload, gone, "").len(), 3);
    }
    assert_eq!(run.values("clone", "http", "http.answer", "").len(), 3);
    assert_eq!(run.values("restore", "http", "http.answer", "").len(), 3);
    // By how much is for a measurement; that it is faster is the point.
    let least = |start| {
        let values = run.values(start, "pause", "startup.ready", "");
        values.into_iter().fold(f64::INFINITY, f64::min)
    };
    assert!(least("clone") < least("cold"));
    let charged = |start| run.values(start, "pause", "memory.cgroup", "")[0];
    assert!(charged("clone") < charged("restore") && charged("restore") < charged("cold"));
    assert!(charged("clone") < 0.5 * charged("cold"), "{} {}", charged("clone"), charged("cold"));
    // What one more costs, when they share one file.
    let together = |step| run.values("clone", "pause", "memory.pss", step)[0];
    let marginal = (together("5") - together("1")) / 4.0;
    assert!(marginal < 0.5 * charged("cold"), "{marginal}");
    assert_eq!(run.values("clone", "pause", "density.instances", ""), [5.0]);
    assert!(run.out.join("manifest.json").is_file());
}

const ONE: &str = r#"
[rounds]
startup = 1
[[cells]]
backend = "vm"
params = { accel = "tcg", start = "START", machine = "MACHINE" }
startup = ["pause"]
"#;

/// A QEMU that does something of its own before a guest goes on; everything
/// else is the real one's.
fn meddling(before: &str) -> String {
    format!(
        "#!/bin/sh\ncase \" $* \" in *' -incoming '*)\n{before}\n;; esac\n\
         exec qemu-system-x86_64 \"$@\"\n"
    )
}

fn one(start: &str, machine: &str) -> String {
    ONE.replace("START", start).replace("MACHINE", machine)
}

fn has_qemu() -> bool {
    let found = run(unladen().args(["doctor", "--json"]));
    let there = String::from_utf8_lossy(&found.stdout).contains("QEMU emulator version");
    if !there {
        skip("no QEMU");
    }
    there
}

#[test]
fn an_ordinary_machine_is_cloned_too() {
    let Some(run) = Run::of(&one("clone", "q35"), None) else { return };
    assert_eq!(run.output.status.code(), Some(0), "{}", stderr(&run.output));
    assert_eq!(run.values("clone", "pause", "startup.resumed", "").len(), 1);
    let manifest = fs::read_to_string(run.out.join("manifest.json")).expect("read");
    // The guest is told that it is a copy, and the report names the original.
    assert!(manifest.contains("vmgenid") && manifest.contains("from a snapshot of:"));
}

#[test]
fn a_corrupt_snapshot_is_a_failed_row_with_qemus_words() {
    if !has_qemu() {
        return;
    }
    let cut = meddling("truncate -s 9000 \"$(readlink /proc/$$/fd/6)\"");
    let Some(run) = Run::of(&one("clone", "microvm"), Some(&cut)) else { return };
    let detail = run.failure();
    for part in ["start, waiting for resumed", "ended with code 1", "stderr:", "load of migration"]
    {
        assert!(detail.contains(part), "{part} is not in: {detail}");
    }
    let garbage = meddling("printf 'this is no state' >\"$(readlink /proc/$$/fd/6)\"");
    let Some(run) = Run::of(&one("restore", "microvm"), Some(&garbage)) else { return };
    let detail = run.failure();
    assert!(detail.contains("waiting for resumed") && detail.contains("stderr:"), "{detail}");
}

/// A QEMU that saves through a `cat` of this body.
fn saving_by(cat: &str) -> String {
    format!(
        "#!/bin/sh\nbin=$(dirname \"$0\")/bin\nmkdir -p \"$bin\"\n\
         printf '%s\\n' '#!/bin/sh' '{cat}' >\"$bin/cat\"\nchmod +x \"$bin/cat\"\n\
         export PATH=\"$bin:$PATH\"\nexec qemu-system-x86_64 \"$@\"\n"
    )
}

#[test]
fn a_snapshot_is_whole_before_anything_goes_on_from_it() {
    if !has_qemu() {
        return;
    }
    // QEMU has long said that it has saved when this writes the first byte.
    let slow = saving_by("sleep 2; exec /bin/cat");
    let Some(run) = Run::of(&one("clone", "microvm"), Some(&slow)) else { return };
    assert_eq!(run.output.status.code(), Some(0), "{}", stderr(&run.output));
    assert_eq!(run.values("clone", "pause", "startup.ready", "").len(), 1);
    let full = saving_by("/bin/cat >/dev/null; echo no space left >&2; exit 1");
    let run = Run::made(&one("clone", "microvm"), Some(&full));
    let reason = run.skipped().expect("nothing to go on from");
    assert!(reason.contains("has not ended well"), "{reason}");
    assert!(reason.contains("no space left"), "{reason}");
}

#[test]
fn a_lost_snapshot_is_a_failed_row() {
    if !has_qemu() {
        return;
    }
    // The first guest that goes on takes the file away from those after it.
    let spec = one("clone", "microvm").replace("startup = 1", "startup = 2");
    let lose = meddling("rm \"$(readlink /proc/$$/fd/6)\"");
    let Some(run) = Run::of(&spec, Some(&lose)) else { return };
    assert_eq!(run.values("clone", "pause", "startup.ready", "").len(), 1);
    let failed: Vec<_> = run.rows.iter().filter(|row| row["outcome"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0]["detail"].contains("cannot open the snapshot"), "{failed:?}");
}

#[test]
fn arguments_that_do_not_match_the_snapshot_are_refused_by_qemu() {
    if !has_qemu() {
        return;
    }
    let larger = meddling("set -- \"$@\" -m 256M");
    let Some(run) = Run::of(&one("restore", "microvm"), Some(&larger)) else { return };
    let detail = run.failure();
    assert!(detail.contains("waiting for resumed"), "{detail}");
    assert!(detail.contains("Size mismatch"), "{detail}");
}

#[test]
fn a_command_that_qemu_refuses_is_named() {
    if !has_qemu() {
        return;
    }
    let refusing = meddling(
        "echo '{\"QMP\": {}}' >&5\n\
         echo '{\"return\": {}}' >&5\n\
         echo '{\"error\": {\"class\": \"GenericError\", \"desc\": \"not today\"}}' >&5\n\
         echo 'a last line' >&4\n\
         exec sleep 1000",
    );
    let Some(run) = Run::of(&one("clone", "microvm"), Some(&refusing)) else { return };
    let detail = run.failure();
    let told = "QEMU refuses `migrate-set-capabilities`: not today";
    assert!(detail.contains("waiting for resumed") && detail.contains(told), "{detail}");
}

#[test]
fn a_guest_that_does_not_answer_ends_at_the_deadline() {
    if !has_qemu() {
        return;
    }
    let dumb = meddling(
        "echo '{\"QMP\": {}}' >&5\n\
         for _ in 1 2 3; do echo '{\"return\": {}}' >&5; done\n\
         echo '{\"event\": \"RESUME\"}' >&5\n\
         exec sleep 1000",
    );
    let Some(run) = Run::of(&one("clone", "microvm"), Some(&dumb)) else { return };
    let detail = run.failure();
    assert!(detail.contains("waiting for ready: not within 20.0 s"), "{detail}");
}

#[test]
fn a_killed_runs_snapshots_are_cleaned_from_their_name_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let spec = folder.path().join("spec.toml");
    let many = one("clone", "microvm").replace("startup = 1", "startup = 500");
    fs::write(&spec, many).expect("written");
    let out = folder.path().join("out");
    let mut harness = unladen()
        .args(["run", "--no-report", "--out"])
        .args([&out, &spec])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let begun = || out.join("samples.csv").is_file() && samples(&out).len() > 20;
    let ended = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", harness.id())).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    assert!(wait_until(Duration::from_secs(120), || begun() || ended()), "no guest was cloned");
    if !begun() {
        let rows = samples(&out);
        let reason = rows.iter().find(|row| row["outcome"] == "skipped");
        harness.wait().expect("reaped");
        return skip(&reason.expect("it ended without a reason")["detail"]);
    }
    let id = run_id(&out);
    let snapshots = cache().join("snapshots").join(&id);
    let mode = fs::metadata(&snapshots).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "a guest's memory is nobody else's business");
    let launcher = launcher_of(&id).expect("a launcher");
    // Both stopped first, so that neither can clean up for the other.
    let pid = Pid::from_raw(i32::try_from(harness.id()).expect("a pid"));
    kill(pid, Signal::SIGSTOP).expect("stopped");
    kill(launcher, Signal::SIGKILL).expect("killed");
    kill(pid, Signal::SIGKILL).expect("killed");
    harness.wait().expect("reaped");
    assert!(snapshots.is_dir());
    let output = run(unladen().args(["clean", &id]));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(common::stdout(&output).contains(&snapshots.display().to_string()));
    let gone = wait_until(Duration::from_secs(20), || traces_of(&id).is_empty());
    assert!(gone, "left behind: {:?}", traces_of(&id));
}

/// The launcher of a run, by its command line.
fn launcher_of(id: &str) -> Option<Pid> {
    let wanted = format!("__launcher\0{id}\0");
    let pids: BTreeSet<i32> = fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter(|entry| {
            let cmdline = fs::read(Path::new(&entry.path()).join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&cmdline).contains(&wanted)
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.into_iter().next().map(Pid::from_raw)
}
