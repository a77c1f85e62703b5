//! What the tests with real containers share.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod bundle;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use oci_spec::runtime::{Capabilities, Mount, Spec};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use unladen::container::cgroup::{Controller, Group, Hierarchy, Limits, RunTree, sweep};
use unladen::container::seccomp::{Machine, default_profile};
use unladen::container::{CellOptions, Container, Plan, default_cell_spec};
use unladen::sys::pidfd::Exit;
use unladen::sys::spawn::{Child, Command, Launch, Program, Step};

/// Nothing in these tests takes this long, however loaded the host.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Descriptors that tests running at the same time may have open.
pub const NEIGHBOURS: usize = 100;

/// How many labs this process has prepared; held while one is.
static LABS: Mutex<u32> = Mutex::new(0);

/// Removes the control groups of all labs when a signal ends the tests, which
/// drop nothing then.
fn clean_when_killed() {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).expect("handlers");
    std::thread::spawn(move || {
        let signal = signals.forever().next().expect("a signal");
        // Never released: no lab is prepared any more.
        let labs = labs();
        for number in 0..*labs {
            let id = format!("test-{}-{number}", std::process::id());
            for error in sweep(&hierarchy(), Some(&id)).failed {
                eprintln!("{error}");
            }
        }
        emulate_default_handler(signal).expect("ended");
    });
}

fn labs() -> MutexGuard<'static, u32> {
    LABS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hierarchy() -> Hierarchy {
    Hierarchy::detect(Path::new("/proc"), Path::new("/sys/fs/cgroup")).expect("detected")
}

/// A root filesystem, and control groups of its own; all removed at the end.
pub struct Lab {
    pub id: String,
    pub hierarchy: Hierarchy,
    pub tree: RunTree,
    pub rootfs: PathBuf,
    _folder: tempfile::TempDir,
}

impl Lab {
    pub fn new() -> Self {
        Self::with(&Controller::STANDARD)
    }

    /// With other controllers than the usual ones.
    pub fn with(controllers: &[Controller]) -> Self {
        Self::on(hierarchy(), controllers)
    }

    /// On a part of the host's control groups.
    pub fn on(hierarchy: Hierarchy, controllers: &[Controller]) -> Self {
        static GUARD: Once = Once::new();
        GUARD.call_once(clean_when_killed);
        let mut labs = labs();
        let id = format!("test-{}-{labs}", std::process::id());
        *labs += 1;
        let tree = hierarchy.prepare(&id, controllers).expect("prepared");
        drop(labs);
        let folder = tempfile::tempdir().expect("folder");
        open_to_all(folder.path());
        let rootfs = folder.path().join("rootfs");
        for name in ["usr", "proc", "sys", "dev", "tmp"] {
            fs::create_dir_all(rootfs.join(name)).expect("made");
        }
        for name in ["bin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), rootfs.join(name)).expect("linked");
        }
        Self { id, hierarchy, tree, rootfs, _folder: folder }
    }

    /// A cell that runs a script in one of the host's shells.
    pub fn options(&self, shell: &str, script: &str, limits: Limits) -> CellOptions<'_> {
        let arguments = [&format!("/bin/{shell}"), "-c", script].map(str::to_owned).to_vec();
        let seccomp = default_profile(&Capabilities::new(), Machine::native()).expect("resolved");
        CellOptions {
            rootfs: &self.rootfs,
            arguments,
            limits,
            seccomp: Some(seccomp),
            user_namespace: false,
            network: true,
        }
    }

    /// The plan of a cell, with the host's programs.
    pub fn plan_from(&self, options: &CellOptions<'_>) -> Plan {
        Plan::from_spec(&with_programs(default_cell_spec(options)), &self.rootfs).expect("plan")
    }

    pub fn plan(&self, script: &str, limits: Limits) -> Plan {
        self.plan_from(&self.options("sh", script, limits))
    }

    pub fn plan_for(&self, shell: &str, script: &str, limits: Limits) -> Plan {
        self.plan_from(&self.options(shell, script, limits))
    }

    /// Whether a controller is missing, in which case the test is skipped.
    pub fn lacks(&self, controller: Controller) -> bool {
        let missing = self.tree.missing().iter().find(|(name, _)| *name == controller);
        if let Some((name, reason)) = missing {
            crate::common::skip(&format!("{name}: {reason}"));
        }
        missing.is_some()
    }

    /// Where a cell of this lab has something mounted: nothing else.
    pub fn expected_mount_points(&self) -> BTreeSet<String> {
        let mut points: BTreeSet<String> =
            ["/", "/dev", "/proc", "/tmp", "/usr"].map(str::to_owned).into();
        for device in ["full", "null", "random", "tty", "urandom", "zero"] {
            points.insert(format!("/dev/{device}"));
        }
        // Hidden or protected as far as this kernel has them.
        for path in [
            "acpi",
            "asound",
            "bus",
            "fs",
            "interrupts",
            "irq",
            "kcore",
            "keys",
            "latency_stats",
            "sched_debug",
            "scsi",
            "sys",
            "sysrq-trigger",
            "timer_list",
            "timer_stats",
        ] {
            let path = format!("/proc/{path}");
            if Path::new(&path).exists() {
                points.insert(path);
            }
        }
        points
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.tree.remove()
            && !std::thread::panicking()
        {
            panic!("{error}");
        }
    }
}

/// Adds the host's programs to a spec, and a `PATH`.
pub fn with_programs(mut spec: Spec) -> Spec {
    let mut mount = Mount::default();
    mount.set_destination("/usr".into());
    mount.set_typ(Some("bind".to_owned()));
    mount.set_source(Some("/usr".into()));
    mount.set_options(Some(["rbind", "ro", "nosuid", "nodev"].map(str::to_owned).to_vec()));
    spec.mounts_mut().as_mut().expect("mounts").insert(0, mount);
    let process = spec.process_mut().as_mut().expect("process");
    process.set_env(Some(vec!["PATH=/usr/bin".to_owned()]));
    spec
}

/// A container that has written its first line.
pub struct Running {
    pub child: Child,
    pub first_line: String,
    input: PipeWriter,
    _output: BufReader<PipeReader>,
}

impl Running {
    pub fn launch(container: &mut Container, group: &Group) -> Self {
        Self::with(|fds| container.launch(group, fds).expect("launched"))
    }

    pub fn with(launch: impl FnOnce(&[(std::os::fd::BorrowedFd<'_>, i32)]) -> Child) -> Self {
        let (reader, input) = std::io::pipe().expect("pipe");
        let (output, writer) = std::io::pipe().expect("pipe");
        let stderr = std::io::stderr();
        let child = launch(&[(reader.as_fd(), 0), (writer.as_fd(), 1), (stderr.as_fd(), 2)]);
        drop((reader, writer));
        let mut output = BufReader::new(output);
        let mut first_line = String::new();
        output.read_line(&mut first_line).expect("UTF-8");
        assert!(!first_line.is_empty(), "it ended before it said anything");
        Self { child, first_line: first_line.trim_end().to_owned(), input, _output: output }
    }

    /// Lets it end, by the end of its input, and checks how it did.
    pub fn finish(self, expected: Exit) {
        assert_eq!(self.end(), expected);
    }

    /// Lets it end.
    pub fn end(self) -> Exit {
        drop(self.input);
        self.child.pidfd.wait(Some(LIMIT)).expect("waited").expect("ended").exit
    }
}

/// Runs a container to its end.
pub fn output(container: &mut Container, group: &Group) -> (Exit, String) {
    let (mut reader, writer) = std::io::pipe().expect("pipe");
    let null = fs::File::open("/dev/null").expect("null");
    let fds = [(null.as_fd(), 0), (writer.as_fd(), 1), (writer.as_fd(), 2)];
    let child = container.launch(group, &fds).expect("launched");
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("UTF-8");
    let ended = child.pidfd.wait(Some(LIMIT)).expect("waited").expect("ended");
    (ended.exit, text)
}

/// The steps of a plain process.
fn plain_steps() -> Vec<Step> {
    vec![
        Step::JoinCgroups,
        Step::NewSession,
        Step::ParentDeathSignal(Signal::SIGKILL),
        Step::CheckParent,
        Step::MapDescriptors,
    ]
}

fn plain(path: &str, arguments: Vec<String>) -> Command {
    let text = |text: String| CString::new(text).expect("no NUL");
    Command::new(
        Program::Paths(vec![text(path.to_owned())]),
        arguments.into_iter().map(text).collect(),
        vec![c"PATH=/usr/bin:/bin".into()],
        CloneFlags::empty(),
        plain_steps(),
    )
    .expect("sound")
}

/// A script in a plain process in a group.
pub fn plain_in(group: &Group, script: &str) -> Running {
    let arguments = ["sh", "-c", script].map(str::to_owned).to_vec();
    let mut command = plain("/bin/sh", arguments);
    let join = group.join_fds();
    Running::with(|fds| {
        let into_cgroup = group.into_cgroup();
        let launch = Launch { fds, join: &join, into_cgroup, ..Launch::default() };
        command.spawn(&launch).expect("launched")
    })
}

/// Runs a program of the host; returns both output streams.
pub fn host_program(path: &str, arguments: impl Iterator<Item = String>) -> (Exit, String) {
    let mut command = plain(path, arguments.collect());
    let (mut reader, writer) = std::io::pipe().expect("pipe");
    let null = fs::File::open("/dev/null").expect("null");
    let fds = [(null.as_fd(), 0), (writer.as_fd(), 1), (writer.as_fd(), 2)];
    let child = command.spawn(&Launch { fds: &fds, ..Launch::default() }).expect("launched");
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("UTF-8");
    let ended = child.pidfd.wait(Some(LIMIT)).expect("waited").expect("ended");
    (ended.exit, text)
}

/// Compiles a program of these tests, `tests/NAME/main.rs`, as a static one.
pub fn compile(name: &str, program: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name).join("main.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = std::process::Command::new(rustc)
        .args(["--edition=2024", "-Ctarget-feature=+crt-static", "-Cpanic=abort", "-o"])
        .args([program, &source])
        .output()
        .expect("rustc starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A copy of the running test in a folder that is opened to all: the build
/// folder may be closed to other users.
pub fn own_copy(folder: &Path) -> PathBuf {
    open_to_all(folder);
    let copy = folder.join("test");
    crate::common::copy_program(&std::env::current_exe().expect("own path"), &copy);
    copy
}

pub fn open_to_all(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("changed");
}

pub fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("proc").count()
}

pub fn descriptors_of(proc: &Path) -> BTreeSet<i32> {
    fs::read_dir(proc.join("fd"))
        .expect("alive")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().parse().expect("number"))
        .collect()
}

/// Mount points as the process sees them.
pub fn mount_points_of(proc: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(proc.join("mountinfo")).expect("alive");
    text.lines().map(|line| line.split(' ').nth(4).expect("fifth field").to_owned()).collect()
}

pub fn mounts_of_host() -> String {
    fs::read_to_string("/proc/self/mountinfo").expect("proc")
}

/// The host as if it had nothing but its version 2 hierarchy, which also
/// hybrid hosts have (there without controllers worth having).
pub fn unified_only() -> Option<(tempfile::TempDir, Hierarchy)> {
    let pick = |name: &str, wanted: fn(&str) -> bool| {
        let text = fs::read_to_string(Path::new("/proc/self").join(name)).expect("proc");
        let line = text.lines().find(|line| wanted(line))?;
        Some(format!("{line}\n"))
    };
    let mount = pick("mountinfo", |line| line.contains(" - cgroup2 "))?;
    let own = pick("cgroup", |line| line.starts_with("0::"))?;
    let proc = tempfile::tempdir().expect("folder");
    fs::create_dir(proc.path().join("self")).expect("made");
    fs::write(proc.path().join("self/mountinfo"), mount).expect("written");
    fs::write(proc.path().join("self/cgroup"), own).expect("written");
    let hierarchy = Hierarchy::detect(proc.path(), Path::new("/sys/fs/cgroup")).expect("detected");
    Some((proc, hierarchy))
}
