//! Host settings: changed, recorded, and put back however a run ends.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test says what went wrong by panicking"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use common::{is_root, manifest, run, skip, stderr, stdout, unladen, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const GOVERNOR: &str = "sys/devices/system/cpu/cpufreq/policy0/scaling_governor";
const BOOST: &str = "sys/devices/system/cpu/cpufreq/boost";
const THP: &str = "sys/kernel/mm/transparent_hugepage/enabled";

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("parent")).expect("folders");
    fs::write(path, text).expect("written");
}

fn text(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).expect("read").trim().to_owned()
}

#[test]
fn the_command_changes_and_restores_another_host() {
    let root = tempfile::tempdir().expect("folder");
    let available = "sys/devices/system/cpu/cpufreq/policy0/scaling_available_governors";
    for (path, value) in [
        (GOVERNOR, "powersave\n"),
        (available, "performance powersave\n"),
        (BOOST, "1\n"),
        (THP, "[always] madvise never\n"),
        ("proc/sys/kernel/random/boot_id", "one\n"),
    ] {
        put(root.path(), path, value);
    }
    let tune = |arguments: &[&str]| {
        run(unladen().args(["tune", "--root"]).arg(root.path()).args(arguments))
    };
    let all = || [GOVERNOR, BOOST, THP].map(|path| text(root.path(), path));
    let before = ["powersave", "1", "[always] madvise never"].map(str::to_owned);

    let shown = tune(&[]);
    assert!(stdout(&shown).contains("powersave -> performance"), "{}", stdout(&shown));
    assert!(stdout(&shown).contains("ksm      not here"), "{}", stdout(&shown));
    assert_eq!(tune(&["--apply", "--dry-run"]).status.code(), Some(0));
    assert_eq!(all(), before, "neither of them changes anything");

    assert_eq!(tune(&["--apply", "--only", "turbo"]).status.code(), Some(0));
    assert_eq!(all(), ["powersave", "0", "[always] madvise never"].map(str::to_owned));
    let again = tune(&["--apply"]);
    assert_ne!(again.status.code(), Some(0));
    assert!(stderr(&again).contains("unladen tune --restore"), "{}", stderr(&again));
    assert_eq!(tune(&["--restore", "--dry-run"]).status.code(), Some(0));
    assert_eq!(text(root.path(), BOOST), "0");
    assert_eq!(tune(&["--restore"]).status.code(), Some(0));
    assert_eq!(all(), before);

    assert_eq!(tune(&["--apply"]).status.code(), Some(0));
    assert_eq!(all(), ["performance", "0", "madvise"].map(str::to_owned));
    assert_eq!(tune(&["--restore"]).status.code(), Some(0));
    assert_eq!(all(), ["powersave", "1", "always"].map(str::to_owned));
    let lacking = tune(&["--apply", "--only", "ksm"]);
    assert_eq!(lacking.status.code(), Some(3), "{}", stderr(&lacking));
}

const KSM: &str = "/sys/kernel/mm/ksm/run";

/// The kernel's own file. Nothing is merged while it says 0 or 2, so going
/// from one to the other does nothing to anybody.
struct Ksm {
    original: String,
}

impl Ksm {
    fn take() -> Result<Self, String> {
        let original = fs::read_to_string(KSM).map_err(|error| format!("{KSM}: {error}"))?;
        if original.trim() == "1" {
            return Err("this host merges pages, which a test does not interrupt".to_owned());
        }
        fs::write(KSM, "2").map_err(|error| format!("{KSM} cannot be written: {error}"))?;
        Ok(Self { original })
    }

    fn now() -> String {
        fs::read_to_string(KSM).expect("read").trim().to_owned()
    }
}

impl Drop for Ksm {
    fn drop(&mut self) {
        fs::write(KSM, self.original.trim()).expect("put back");
    }
}

/// A run with changed settings that takes its time.
struct Running {
    dir: tempfile::TempDir,
    child: Child,
}

impl Running {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let spec = "[rounds]\nstartup = 50\n[[cells]]\nbackend = \"process\"\nstartup = [\"sleep=1000\"]\n";
        fs::write(dir.path().join("slow.toml"), spec).expect("written");
        let child = Self::command(dir.path())
            .args(["run", "--tune", "--no-report", "--out"])
            .arg(dir.path().join("run"))
            .arg(dir.path().join("slow.toml"))
            .stderr(fs::File::create(dir.path().join("log")).expect("log"))
            .spawn()
            .expect("started");
        let running = Self { dir, child };
        // The manifest is the last file that a run begins.
        let measuring = || running.out().join("manifest.json").exists() && Ksm::now() == "0";
        assert!(wait_until(Duration::from_secs(60), measuring), "{}", running.log());
        running
    }

    /// With a state folder of its own.
    fn command(dir: &Path) -> Command {
        let mut command = unladen();
        command.env("XDG_STATE_HOME", dir.join("state"));
        command
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("small"))
    }

    fn launcher(&self) -> Pid {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = fs::read_to_string(children).expect("children");
        Pid::from_raw(children.split_whitespace().next().expect("a child").parse().expect("a pid"))
    }
}

#[test]
fn a_run_puts_the_kernels_settings_back_however_it_ends() {
    if !is_root() {
        return skip("settings of the kernel need root");
    }
    let ksm = match Ksm::take() {
        Ok(ksm) => ksm,
        Err(reason) => return skip(&reason),
    };

    // In order, by a signal.
    let mut running = Running::start();
    kill(running.pid(), Signal::SIGTERM).expect("sent");
    assert_eq!(running.child.wait().expect("ended").code(), Some(143), "{}", running.log());
    assert_eq!(Ksm::now(), "2", "{}", running.log());
    let changed = manifest(&running.out())["settings_changed"].clone();
    let expected = serde_json::json!([{ "name": KSM, "value": "2 -> 0" }]);
    assert!(changed.as_array().expect("a list").contains(&expected[0]), "{changed}");

    // Killed: the launcher sees it and puts them back.
    let mut running = Running::start();
    running.child.kill().expect("killed");
    running.child.wait().expect("reaped");
    let back = wait_until(Duration::from_secs(30), || Ksm::now() == "2");
    assert!(back, "the launcher restores: {}", running.log());
    let saved = running.dir.path().join("state/unladen/settings.json");
    assert!(wait_until(Duration::from_secs(10), || !saved.exists()));

    // Both killed: the next command does, and says so.
    let mut running = Running::start();
    let launcher = running.launcher();
    kill(running.pid(), Signal::SIGSTOP).expect("stopped");
    kill(launcher, Signal::SIGKILL).expect("killed");
    running.child.kill().expect("killed");
    running.child.wait().expect("reaped");
    assert_eq!(Ksm::now(), "0", "nobody is left to put it back");
    let next = run(Running::command(running.dir.path()).args(["tune"]));
    assert!(stderr(&next).contains("a killed run had left"), "{}", stderr(&next));
    assert_eq!(Ksm::now(), "2");
    // And with it goes what else it left.
    let id = common::run_id(&running.out());
    let cleaned = run(Running::command(running.dir.path()).args(["clean", &id]));
    assert_eq!(cleaned.status.code(), Some(0), "{}", stderr(&cleaned));
    drop(ksm);
}
