//! What the tests of `unladen container run` share.
#![allow(dead_code, reason = "each test file uses a part")]

use std::borrow::BorrowMut;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use unladen::container::cgroup::{Controller, Hierarchy};

use crate::common::{stderr, stdout, unladen};

/// Nothing in these tests takes this long, however loaded the host.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A user who has no line in any file and nothing delegated.
pub const STRANGER: u32 = 64_322;

/// A root filesystem in which the host's `/usr` is mounted.
pub struct Engine {
    folder: tempfile::TempDir,
}

impl Engine {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("changed");
        let rootfs = folder.path().join("rootfs");
        for name in ["usr", "proc", "sys", "dev", "tmp"] {
            fs::create_dir_all(rootfs.join(name)).expect("made");
        }
        for name in ["bin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), rootfs.join(name)).expect("linked");
        }
        Self { folder }
    }

    pub fn rootfs(&self) -> PathBuf {
        self.folder.path().join("rootfs")
    }

    /// `unladen container run` with these flags, without a command.
    pub fn run(&self, flags: &[&str]) -> Command {
        let mut command = unladen();
        self.arguments(&mut command, flags);
        command
    }

    /// The same with a script as its command.
    pub fn sh(&self, flags: &[&str], script: &str) -> Command {
        let mut command = self.run(flags);
        command.args(["--", "sh", "-c", script]);
        command
    }

    /// The same as an unprivileged user.
    pub fn as_stranger(&self, flags: &[&str], script: &str) -> Command {
        // A copy, since the build folder may be closed to others.
        let copy = self.folder.path().join("unladen");
        if !copy.exists() {
            crate::common::copy_program(Path::new(env!("CARGO_BIN_EXE_unladen")), &copy);
        }
        let mut command = Command::new("setpriv");
        command
            .args([&format!("--reuid={STRANGER}"), &format!("--regid={STRANGER}")])
            .arg("--clear-groups")
            .arg(copy)
            .stdin(Stdio::null());
        self.arguments(&mut command, flags);
        command.args(["--", "sh", "-c", script]);
        command
    }

    fn arguments(&self, command: &mut Command, flags: &[&str]) {
        command.args(["container", "run", "--rootfs"]).arg(self.rootfs());
        command.args(["-v", "/usr:/usr:ro"]).args(flags);
    }

    /// Everything in the root filesystem, with what it holds.
    pub fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.rootfs(), &mut found);
        found.sort();
        found
    }
}

fn walk(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("folder").flatten() {
        let path = entry.path();
        let meta = path.symlink_metadata().expect("there");
        let text = fs::read_to_string(&path).unwrap_or_default();
        found.push(format!("{} {:o} {text}", path.display(), meta.permissions().mode()));
        if meta.is_dir() {
            walk(&path, found);
        }
    }
}

/// Runs to its end.
pub fn run(mut command: impl BorrowMut<Command>) -> Output {
    crate::common::run(command.borrow_mut())
}

/// Runs to its end and gives what it wrote, if all went well.
pub fn fine(command: impl BorrowMut<Command>) -> String {
    let output = run(command);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

/// A running container whose output is read line by line.
pub struct Talking {
    pub child: std::process::Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Talking {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("started");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    pub fn line(&mut self) -> String {
        self.lines.next().expect("more").expect("text")
    }

    pub fn end(mut self) -> Output {
        let status = self.child.wait().expect("waited");
        Output { status, stdout: Vec::new(), stderr: Vec::new() }
    }
}

impl Drop for Talking {
    /// A test that failed leaves nobody behind who would hold its streams.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether this user may limit what a container takes.
pub fn may_limit() -> bool {
    let hierarchy =
        Hierarchy::detect(Path::new("/proc"), Path::new("/sys/fs/cgroup")).expect("detected");
    let tree =
        hierarchy.prepare(&format!("test-may-{}", std::process::id()), &Controller::STANDARD);
    tree.is_ok_and(|mut tree| {
        let may = tree.missing().is_empty();
        tree.remove().expect("removed");
        may
    })
}

/// Sends a signal by name.
pub fn kill(pid: u32, name: &str) {
    // The shell's own, which knows all names; other programs do not.
    let status =
        Command::new("bash").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()]).status();
    assert!(status.expect("started").success(), "kill -s {name} {pid}");
}

/// The one child of a process: the first process of the container that it
/// runs.
pub fn first_process(runner: u32) -> Option<u32> {
    let path = format!("/proc/{runner}/task/{runner}/children");
    fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
}

/// The state letter of a process, `S` also for one that runs at the moment.
pub fn state_of(pid: u32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind) = text.rsplit_once(')')?;
    behind.trim_start().chars().next().map(|state| if state == 'R' { 'S' } else { state })
}

/// The control groups of the container that a process runs.
pub fn cgroups_of(runner: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    search(Path::new("/sys/fs/cgroup"), 6, &format!("unladen-run-{runner}-"), &mut found);
    found
}

fn search(folder: &Path, depth: u32, prefix: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            all_below(&path, found);
        } else if depth > 0 {
            search(&path, depth - 1, prefix, found);
        }
    }
}

fn all_below(folder: &Path, found: &mut Vec<PathBuf>) {
    found.push(folder.to_owned());
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all_below(&entry.path(), found);
        }
    }
}
