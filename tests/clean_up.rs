//! Whatever ends a run, nothing of it is left behind, and what was measured
//! stays.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test says what went wrong by panicking"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{
    is_root, manifest, run, run_id, samples, skip, stderr, traces_of, unladen, wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LADDER: &str = r#"
[rounds]
startup = 3
density = 1
[[cells]]
backend = "process"
startup = ["exit"]
density = ["pause"]
density_cap = 4
[[cells]]
backend = "container"
startup = ["exit"]
density = ["pause"]
density_cap = 4
[[cells]]
backend = "container"
params = { net = "bridge" }
startup = ["exit"]
"#;

/// A run of the ladder that is under way.
struct Running {
    dir: tempfile::TempDir,
    child: Child,
}

impl Running {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let spec = dir.path().join("ladder.toml");
        fs::write(&spec, LADDER).expect("written");
        let child = unladen()
            .arg("run")
            .arg(&spec)
            .args(["--seed", "3", "--out"])
            .arg(dir.path().join("out"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        Self { dir, child }
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// Waits until a ladder has several instances alive.
    fn wait_for_ladder(&self) -> String {
        let alive = || {
            self.out().join("manifest.json").is_file() && {
                let id = run_id(&self.out());
                traces_of(&id).iter().filter(|trace| trace.starts_with("/proc")).count() >= 5
            }
        };
        assert!(wait_until(Duration::from_secs(60), alive), "no ladder was climbed");
        run_id(&self.out())
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("signalled");
    }
}

/// Nothing with the run's id is left on the host.
fn assert_gone(run_id: &str) {
    let gone = wait_until(Duration::from_secs(20), || traces_of(run_id).is_empty());
    assert!(gone, "left behind: {:?}", traces_of(run_id));
}

/// Continues a run to its end and checks that it is whole.
fn assert_resumes(out: &Path) {
    let before = samples(out);
    let output = run(unladen().args(["run", "--no-report", "--resume"]).arg(out));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let after = samples(out);
    assert_eq!(manifest(out)["state"], "complete");
    assert_eq!(after[..before.len()], before[..], "what was measured has changed");
    let ends = after.iter().filter(|row| row["metric"] == "density.instances").count();
    assert_eq!(ends, 2, "each ladder ends once");
    let trials: std::collections::BTreeSet<_> =
        after.iter().map(|row| (row["round"].clone(), row["trial"].clone())).collect();
    // Three rounds of process, its control and two containers, and two
    // ladders.
    assert_eq!(trials.len(), 3 * 4 + 2, "each trial is there");
    let unique: std::collections::BTreeSet<_> = after
        .iter()
        .map(|row| (row["trial"].clone(), row["metric"].clone(), row["step"].clone()))
        .collect();
    assert_eq!(unique.len(), after.len(), "no trial was repeated");
}

#[test]
fn kill_9_in_the_middle_of_a_ladder_leaves_nothing_and_resumes() {
    if !is_root() {
        return skip("the ladder's containers need root here");
    }
    let mut running = Running::start();
    let id = running.wait_for_ladder();
    running.signal(Signal::SIGKILL);
    running.child.wait().expect("reaped");
    let output = run(unladen().arg("clean"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_gone(&id);
    assert_eq!(manifest(&running.out())["state"], "running");
    assert_resumes(&running.out());
    assert_gone(&id);
}

#[test]
fn kill_9_of_harness_and_launcher_is_cleaned_from_the_names_alone() {
    if !is_root() {
        return skip("the ladder's containers need root here");
    }
    let mut running = Running::start();
    let id = running.wait_for_ladder();
    let launcher = traces_of(&id).into_iter().find_map(|trace| {
        let cmdline = fs::read(Path::new(&trace).join("cmdline")).ok()?;
        let text = String::from_utf8_lossy(&cmdline).into_owned();
        text.contains("__launcher").then(|| trace.trim_start_matches("/proc/").parse().ok())?
    });
    let launcher: i32 = launcher.expect("a launcher");
    // Both stopped first, so that neither can clean up for the other.
    running.signal(Signal::SIGSTOP);
    kill(Pid::from_raw(launcher), Signal::SIGKILL).expect("killed");
    running.signal(Signal::SIGKILL);
    running.child.wait().expect("reaped");

    let dry = run(unladen().args(["clean", "--dry-run"]));
    assert!(common::stdout(&dry).contains(&id), "{}", common::stdout(&dry));
    let bridge = |trace: &String| trace.starts_with("/sys/class/net/unl");
    assert!(traces_of(&id).iter().any(bridge), "a dry run removes nothing: {:?}", traces_of(&id));
    let output = run(unladen().args(["clean", &id]));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_gone(&id);
    assert_resumes(&running.out());
}

#[test]
fn ctrl_c_and_sigterm_end_in_order() {
    if !is_root() {
        return skip("the ladder's containers need root here");
    }
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let mut running = Running::start();
        let id = running.wait_for_ladder();
        running.signal(signal);
        assert_eq!(running.child.wait().expect("ended").code(), Some(code));
        assert_gone(&id);
        assert_eq!(manifest(&running.out())["state"], "interrupted");
        assert_resumes(&running.out());
    }
}

#[test]
fn clean_leaves_a_live_run_alone() {
    if !is_root() {
        return skip("the ladder's containers need root here");
    }
    let mut running = Running::start();
    let id = running.wait_for_ladder();
    let output = run(unladen().arg("clean"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains(&id), "it says what it leaves alone: {}", stderr(&output));
    assert_eq!(running.child.wait().expect("ended").code(), Some(0), "the run was disturbed");
    assert_gone(&id);
}

/// Others kill every QEMU and delete every container of the host. Here only a
/// run's id makes something ours.
#[test]
fn clean_touches_nothing_of_others() {
    if !is_root() {
        return skip("a control group of somebody else needs root here");
    }
    let pids = Path::new("/sys/fs/cgroup/pids");
    let root = if pids.is_dir() { pids } else { Path::new("/sys/fs/cgroup") };
    // Named almost as ours are.
    let group = root.join(format!("unladen-web-{}", std::process::id()));
    fs::create_dir(&group).expect("a cgroup");
    let mut machine = Command::new("qemu-system-x86_64");
    machine.args(["-M", "none", "-S", "-nodefaults", "-display", "none"]);
    let mut container = Command::new("sleep");
    container.arg("600").env("UNLADEN_RUN", "not-a-run");
    let mut others: Vec<Child> = [machine, container]
        .iter_mut()
        .map(|command| command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("started"))
        .collect();
    fs::write(group.join("cgroup.procs"), others[1].id().to_string()).expect("moved");

    let output = run(unladen().arg("clean"));
    let ended: Vec<_> = others.iter_mut().map(|other| other.try_wait().expect("asked")).collect();
    let kept = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for mut other in others {
        other.kill().expect("killed");
        other.wait().expect("reaped");
    }
    fs::remove_dir(&group).expect("removed");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(ended, [None, None], "both live on: {}", stderr(&output));
    assert_eq!(kept.lines().count(), 1, "the group keeps its process: {kept:?}");
}
