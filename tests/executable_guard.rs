//! The launching process's executable out of a hostile container's reach
//! (CVE-2019-5736): the attack overwrites a copy of this test's executable
//! when the guard is off, and fails when it is on.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod lab;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{is_root, skip as skipped, wait_until};
use lab::Lab;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use unladen::container::cgroup::{Limits, sweep};
use unladen::container::{Container, Plan, default_cell_spec};

/// What the launching part is to do: the guard and the kind of program.
const LAUNCH: &str = "UNLADEN_TEST_LAUNCH";
/// Set for the hostile part.
const HOSTILE: &str = "UNLADEN_TEST_HOSTILE";

#[test]
fn a_container_cannot_overwrite_the_executable_that_launched_it() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    for kind in ["direct", "script"] {
        assert!(is_overwritten("off", kind), "{kind}: the attack does not work at all");
        assert!(!is_overwritten("on", kind), "{kind}");
    }
}

/// Whether the copy of this executable that launches a hostile container has
/// other content afterwards.
fn is_overwritten(guard: &str, kind: &str) -> bool {
    let folder = tempfile::tempdir().expect("folder");
    lab::open_to_all(folder.path());
    let copy = folder.path().join("copy");
    // By another process: what is open for writing here would be so for a
    // moment in every child of a neighbouring test, and could not be executed.
    let own = std::env::current_exe().expect("own path");
    let copied = Command::new("/bin/cp").arg(own).arg(&copy).status().expect("started");
    assert!(copied.success(), "{copied}");
    let mut launcher = Command::new(&copy);
    launcher.args(["launching_part", "--exact", "--nocapture"]).env("TMPDIR", folder.path());
    let mut child = launcher.env(LAUNCH, format!("{guard} {kind}")).spawn().expect("started");
    let is_changed = || fs::read(&copy).expect("readable").starts_with(b"overwritten");
    let seen = guard == "off" && wait_until(Duration::from_secs(30), is_changed);
    let status = child.wait().expect("waited");
    assert!(status.success(), "{guard} {kind}: {status}");
    let hierarchy = unladen::container::cgroup::Hierarchy::detect(
        Path::new("/proc"),
        Path::new("/sys/fs/cgroup"),
    );
    let swept = sweep(&hierarchy.expect("detected"), Some(&format!("test-{}-0", child.id())));
    assert!(swept.failed.is_empty(), "{:?}", swept.failed);
    seen || is_changed()
}

/// Launches a container whose program is `/proc/self/exe`, and then becomes
/// another program, so that nobody executes the file any more.
#[test]
fn launching_part() {
    let Ok(mode) = std::env::var(LAUNCH) else { return };
    let (guard, kind) = mode.split_once(' ').expect("two words");
    let lab = Lab::new();
    let script = lab.rootfs.join("script");
    common::write_program(&script, b"#!/proc/self/exe hostile_part\n");
    let arguments: &[&str] = match kind {
        "script" => &["/script"],
        _ => &["/proc/self/exe", "hostile_part", "--exact", "--nocapture"],
    };
    let cell = default_cell_spec(&lab.options("sh", "true", Limits::default()));
    let mut spec = lab::with_programs(cell);
    let process = spec.process_mut().as_mut().expect("process");
    process.set_args(Some(arguments.iter().map(|text| (*text).to_owned()).collect()));
    process.set_env(Some(vec!["PATH=/usr/bin".to_owned(), format!("{HOSTILE}=1")]));
    let plan = Plan::from_spec(&spec, &lab.rootfs).expect("a plan");
    let group = lab.tree.create("one", plan.limits()).expect("group");
    let container = Container::prepare(&plan).expect("prepared");
    let mut container = container.guarded(guard == "on").expect("permitted");
    let (reader, writer) = std::io::pipe().expect("pipe");
    let null = File::open("/dev/null").expect("null");
    let fds = [(null.as_fd(), 0), (writer.as_fd(), 1), (null.as_fd(), 2)];
    let child = container.launch(&group, &fds).expect("launched");
    drop(writer);
    let mut lines = BufReader::new(reader).lines();
    if !lines.any(|line| line.expect("text").ends_with("ready")) {
        child.pidfd.wait(Some(lab::LIMIT)).expect("waited").expect("ended");
        return;
    }
    // As long as it is executed, nobody can write to it; but containers
    // outlive the commands that start them. The thread goes on, so the
    // container does.
    let error = Command::new("/bin/sleep").arg("3").exec();
    panic!("cannot become another program: {error}");
}

/// What runs inside: keeps the executable open, becomes another program, and
/// writes as soon as it can.
#[test]
fn hostile_part() {
    if std::env::var_os(HOSTILE).is_none() {
        return;
    }
    let own = File::open("/proc/self/exe").expect("readable");
    fcntl(&own, FcntlArg::F_SETFD(FdFlag::empty())).expect("kept open");
    // Not by a macro, whose output the harness may keep.
    let mut stdout = std::io::stdout();
    stdout.write_all(b"\nready\n").and_then(|()| stdout.flush()).expect("written");
    let script = format!(
        "i=0; while [ $i -lt 200 ]; do \
         (echo overwritten > /proc/self/fd/{}) 2>/dev/null && exit 0; \
         i=$((i+1)); sleep 0.01; done",
        own.as_raw_fd()
    );
    let error = Command::new("/bin/sh").args(["-c", &script]).exec();
    panic!("cannot become another program: {error}");
}

/// Everything else is as without a guard.
#[test]
fn a_guarded_program_is_executed_as_any_other() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    let group = lab.tree.create("one", &Limits::default()).expect("group");
    let run = |guarded: bool, arguments: &[&str]| {
        let cell = default_cell_spec(&lab.options("sh", "true", Limits::default()));
        let mut spec = lab::with_programs(cell);
        let process = spec.process_mut().as_mut().expect("process");
        process.set_args(Some(arguments.iter().map(|text| (*text).to_owned()).collect()));
        let environment = ["PATH=/nowhere:/dev:/usr/bin", "A=b c", "EMPTY="].map(str::to_owned);
        process.set_env(Some(environment.to_vec()));
        let plan = Plan::from_spec(&spec, &lab.rootfs).expect("a plan");
        let container = Container::prepare(&plan).expect("prepared");
        let mut container = container.guarded(guarded).expect("permitted");
        let null = File::open("/dev/null").expect("null");
        match container.launch(&group, &[(null.as_fd(), 0)]) {
            Err(error) => Err(unladen::errors::chain(&error)),
            Ok(child) => {
                child.pidfd.kill_and_wait().expect("killed");
                Ok(lab::output(&mut container, &group))
            }
        }
    };
    let script = "echo $0 $#; env; ls -l /proc/self/fd | wc -l; readlink /proc/$$/exe; \
                  grep -E 'Cap|NoNew|Sig|Seccomp|Groups|Uid' /proc/self/status; cat /proc/$$/comm";
    for arguments in [
        &["bash", "-c", script, "zero", "", "two words"][..],
        &["/bin/bash", "-c", "exit 7"],
        &["no-such-program"],
        // Found in the second folder of PATH, but nothing to execute.
        &["null"],
        &["/dev/null"],
        &["/usr"],
        &["/no/such", ""],
    ] {
        let (with, without) = (run(true, arguments), run(false, arguments));
        assert_eq!(with, without, "{arguments:?}");
    }
}
