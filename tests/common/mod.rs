//! What the integration tests share.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The command under test.
pub fn unladen() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unladen"));
    command.stdin(Stdio::null());
    command
}

/// Runs to its end.
pub fn run(command: &mut Command) -> Output {
    command.output().expect("the command starts")
}

/// Writes a program that is executed soon. A file that is open for writing
/// is executed by nobody (ETXTBSY in execve(2)), and each process that other
/// threads create at that moment holds it open until it executes something
/// itself. So none of this process is ever open: another one writes it.
pub fn write_program(path: &Path, content: &[u8]) {
    let mut writer = Command::new("sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell starts");
    writer.stdin.take().expect("piped").write_all(content).expect("written");
    assert!(writer.wait().expect("reaped").success(), "cannot write {}", path.display());
}

/// Copies a program that is executed soon, by another process for the same
/// reason as [`write_program`].
pub fn copy_program(from: &Path, to: &Path) {
    let output = run(Command::new("cp").arg("-p").args([from, to]));
    assert!(output.status.success(), "{}", stderr(&output));
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Says that a test cannot run here, and why. On continuous integration
/// (`UNLADEN_NO_SKIPS=1`) that is a failure.
pub fn skip(reason: &str) {
    assert!(
        std::env::var_os("UNLADEN_NO_SKIPS").is_none(),
        "a test was skipped where none may be: {reason}"
    );
    eprintln!("SKIPPED: {reason}");
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Waits for a condition, at most this long.
pub fn wait_until(patience: Duration, condition: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    while !condition() {
        if started.elapsed() > patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// The rows of a run's `samples.csv`, by column name.
pub fn samples(dir: &Path) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(dir.join("samples.csv")).expect("samples.csv");
    reader.deserialize().map(|row| row.expect("a row")).collect()
}

/// Values of a metric by step, of the rows that `wanted` picks.
pub fn by_step(
    rows: &[BTreeMap<String, String>],
    wanted: impl Fn(&BTreeMap<String, String>) -> bool,
    metric: &str,
) -> Vec<(u32, f64)> {
    rows.iter()
        .filter(|row| wanted(row) && row["metric"] == metric)
        .filter(|row| row["outcome"] == "ok" && !row["step"].is_empty())
        .map(|row| (row["step"].parse().expect("a step"), row["value"].parse().expect("a number")))
        .collect()
}

/// Values of one metric of one backend, in the order of the file.
pub fn values(rows: &[BTreeMap<String, String>], backend: &str, metric: &str) -> Vec<f64> {
    rows.iter()
        .filter(|row| row["backend"] == backend && row["metric"] == metric)
        .filter(|row| row["outcome"] == "ok")
        .map(|row| row["value"].parse().expect("a number"))
        .collect()
}

/// The command's cache folder.
pub fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("unladen")
}

/// Everything on the host that carries this run's id: processes by their
/// environment, cgroups and links by their names, mounts, and snapshots.
pub fn traces_of(run_id: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let marker = format!("UNLADEN_RUN={run_id}");
        let own = environ.split(|byte| *byte == 0).any(|var| var == marker.as_bytes());
        let launcher = String::from_utf8_lossy(&cmdline).contains(&format!("__launcher\0{run_id}"));
        if own || launcher {
            found.push(format!("{}", entry.path().display()));
        }
    }
    cgroups(Path::new("/sys/fs/cgroup"), 4, &format!("unladen-{run_id}"), &mut found);
    let alias = format!("unladen-{run_id}");
    for link in std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let own = std::fs::read_to_string(link.path().join("ifalias")).unwrap_or_default();
        if own.trim_end() == alias {
            found.push(link.path().display().to_string());
        }
    }
    let snapshots = cache().join("snapshots").join(run_id);
    if snapshots.exists() {
        found.push(snapshots.display().to_string());
    }
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    found.extend(mounts.lines().filter(|line| line.contains(run_id)).map(str::to_owned));
    found
}

fn cgroups(folder: &Path, depth: u32, name: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path: PathBuf = entry.path();
        if entry.file_name().to_string_lossy().starts_with(name) {
            found.push(path.display().to_string());
        } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            cgroups(&path, depth - 1, name, found);
        }
    }
}

/// Runs a spec and gives its rows; nothing may be left of it.
pub fn measure(spec_text: &str) -> Vec<BTreeMap<String, String>> {
    let folder = tempfile::tempdir().expect("folder");
    let spec = folder.path().join("spec.toml");
    std::fs::write(&spec, spec_text).expect("spec");
    let out = folder.path().join("run");
    let mut command = unladen();
    command.arg("run").arg(&spec).arg("--no-report").arg("--out").arg(&out);
    let output = run(&mut command);
    assert!(out.join("samples.csv").exists(), "{}", stderr(&output));
    let rows = samples(&out);
    let left = traces_of(&rows[0]["run_id"]);
    assert!(left.is_empty(), "left behind: {left:?}");
    rows
}

/// Why a cell could not even be prepared, if one of this backend was not.
pub fn unprepared(rows: &[BTreeMap<String, String>], backend: &str) -> Option<String> {
    let row = rows.iter().find(|row| {
        row["backend"] == backend && row["outcome"] == "skipped" && row["round"] == "0"
    });
    row.map(|row| row["detail"].clone())
}

/// The run id in a run's manifest.
pub fn run_id(dir: &Path) -> String {
    manifest(dir)["run_id"].as_str().expect("an id").to_owned()
}

/// A run's manifest.
pub fn manifest(dir: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(dir.join("manifest.json")).expect("manifest.json");
    serde_json::from_str(&text).expect("JSON")
}
