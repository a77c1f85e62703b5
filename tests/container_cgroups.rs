//! Control groups with the real kernel: limits that are written, bite and are
//! counted, and removal of what was left.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod lab;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{is_root, skip as skipped};
use lab::{LIMIT, Lab, Running};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use unladen::container::Container;
use unladen::container::cgroup::{
    Availability, Controller, CpuQuota, Hierarchy, Limits, find, sweep,
};
use unladen::sys::pidfd::Exit;
use unladen::sys::spawn::SpawnError;

const MIB: u64 = 1024 * 1024;

fn limits() -> Limits {
    Limits {
        memory: Some(64 * MIB),
        swap: None,
        pids: Some(32),
        cpu_quota: Some(CpuQuota { quota_us: 50_000, period_us: 100_000 }),
        cpu_weight: Some(200),
        ..Limits::default()
    }
}

#[test]
fn limits_are_written_and_read_back() {
    let lab = Lab::new();
    let group = lab.tree.create("one", &limits()).expect("group");
    let read = |controller: Controller, v1: &str, v2: &str| {
        let folder = group.folder(controller)?;
        let name = if folder.join(v1).exists() { v1 } else { v2 };
        Some(fs::read_to_string(folder.join(name)).expect("read").trim().to_owned())
    };
    let (mut checked, mut expected) = (0, 0);
    for (controller, v1, v2, values) in [
        (Controller::Memory, "memory.limit_in_bytes", "memory.max", ["67108864"; 2]),
        (Controller::Pids, "pids.max", "pids.max", ["32"; 2]),
        (Controller::Cpu, "cpu.cfs_quota_us", "cpu.max", ["50000", "50000 100000"]),
        (Controller::Cpu, "cpu.shares", "cpu.weight", ["2451", "200"]),
    ] {
        if let Some(value) = read(controller, v1, v2) {
            assert!(values.contains(&value.as_str()), "{controller}: {value}");
            checked += 1;
        }
        expected += 1;
    }
    let missing =
        lab.tree.missing().iter().map(|(controller, reason)| format!("{controller}: {reason}"));
    let missing: Vec<String> = missing.collect();
    if checked == 0 {
        return skipped(&missing.join("; "));
    }
    assert_eq!(group.remarks().len(), missing.len(), "{:?}", group.remarks());
    assert!(checked == expected || !missing.is_empty());
    assert_eq!(group.pids().expect("pids"), 0);
    assert_eq!(group.oom_kills().expect("memory"), 0);
    assert_eq!(group.cpu_throttled().expect("cpu"), 0);
}

#[test]
fn a_memory_hog_is_killed_and_counted() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    if lab.lacks(Controller::Memory) {
        return;
    }
    let hog = "head -c 100m /dev/zero | tail -c 100m | wc -c; true";
    let plan = lab.plan(hog, Limits { memory: Some(24 * MIB), ..Limits::default() });
    let group = lab.tree.create("hog", plan.limits()).expect("group");
    let (_, output) = lab::output(&mut Container::prepare(&plan).expect("ready"), &group);
    assert_ne!(output.trim(), (100 * MIB).to_string(), "the hog got its memory");
    assert!(group.oom_kills().expect("counted") > 0);
    assert!(group.memory_peak().expect("peak") <= 24 * MIB);
}

#[test]
fn a_limit_that_is_too_small_to_start_in_is_an_error() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    if lab.lacks(Controller::Memory) {
        return;
    }
    // A plan refuses such a limit; a group may have it for other reasons.
    let plan = lab.plan("true", Limits::default());
    let tiny = Limits { memory: Some(8192), ..Limits::default() };
    let mut group = lab.tree.create("tiny", &tiny).expect("group");
    let mut container = Container::prepare(&plan).expect("ready");
    // Where it fails is the kernel's choice, which charges in batches. The
    // launching process, whose memory the child shares, must survive it.
    match container.launch(&group, &[]).expect_err("no memory") {
        SpawnError::Step { source, .. } | SpawnError::Execute { source, .. } => {
            assert_eq!(source, Errno::ENOMEM);
        }
        other => panic!("{other:?}"),
    }
    group.remove(LIMIT).expect("nothing is left");
}

#[test]
fn memory_is_charged_to_the_instance() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    if lab.lacks(Controller::Memory) {
        return;
    }
    let script = "head -c 8m /dev/zero > /tmp/file; echo ready; read word || true";
    let plan = lab.plan(script, limits());
    let group = lab.tree.create("one", plan.limits()).expect("group");
    let mut container = Container::prepare(&plan).expect("ready");
    let running = Running::launch(&mut container, &group);
    let usage = group.memory_usage().expect("usage");
    let split = group.memory_split().expect("split");
    assert!(usage >= 8 * MIB, "{usage}");
    assert!(split.file >= 8 * MIB && split.anonymous > 0, "{split:?}");
    assert!(split.shared.is_none_or(|shared| shared >= 8 * MIB), "{split:?}");
    assert!(group.memory_peak().expect("peak") >= 8 * MIB);
    assert_eq!(group.processes().expect("read"), vec![running.child.pid]);
    running.finish(Exit::Code(0));
}

#[test]
fn a_fork_bomb_stops_at_its_limit() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    if lab.lacks(Controller::Pids) {
        return;
    }
    let bomb = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done 2>/dev/null; echo survived";
    let plan = lab.plan(bomb, Limits { pids: Some(6), ..Limits::default() });
    let group = lab.tree.create("bomb", plan.limits()).expect("group");
    let mut container = Container::prepare(&plan).expect("ready");
    let (exit, output) = lab::output(&mut container, &group);
    // A shell that cannot fork gives up; it must not have come to the end.
    assert_ne!((exit, output.as_str()), (Exit::Code(0), "survived\n"));
    assert_eq!(group.processes().expect("read"), vec![], "the namespace died with its init");
}

#[test]
fn what_a_killed_run_left_is_found_and_removed_by_name() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    let plan = lab.plan("sleep 1000 & sleep 1000 & echo ready; wait", limits());
    let group = lab.tree.create("one", plan.limits()).expect("group");
    let mut container = Container::prepare(&plan).expect("ready");
    let running = Running::launch(&mut container, &group);
    // As another process would see it, that knows only the id.
    let hierarchy =
        Hierarchy::detect(Path::new("/proc"), Path::new("/sys/fs/cgroup")).expect("detected");
    let found = find(&hierarchy, Some(&lab.id));
    assert_eq!(found.len(), lab.tree.folders().len());
    assert!(find(&hierarchy, Some("no-such-run")).is_empty());
    let swept = sweep(&hierarchy, Some(&lab.id));
    assert!(swept.failed.is_empty(), "{swept:?}");
    assert_eq!(swept.removed, found);
    assert!(!group.exists());
    running.finish(Exit::Signal(Signal::SIGKILL as i32));
}

#[test]
fn an_occupied_group_is_not_removed_and_names_its_processes() {
    let lab = Lab::new();
    if lab.tree.folders().is_empty() {
        return skipped("no cgroup can be made here");
    }
    let mut group = lab.tree.create("one", &limits()).expect("group");
    // Three processes, of which two are no children of ours.
    let script = "sleep 1000 & sleep 1000 & echo ready; wait";
    let running = lab::plain_in(&group, script);
    let error = group.remove(Duration::ZERO).expect_err("occupied").to_string();
    assert!(error.contains(&running.child.pid.to_string()), "{error}");
    assert_eq!(group.processes().expect("read").len(), 3);
    group.kill_all().expect("killed");
    running.finish(Exit::Signal(Signal::SIGKILL as i32));
    group.remove(LIMIT).expect("removed");
    assert!(!group.exists());
}

#[test]
fn a_limit_that_the_kernel_refuses_is_named() {
    let lab = Lab::new();
    if lab.lacks(Controller::Cpu) {
        return;
    }
    // The kernel takes periods from 1 ms to 1 s.
    let cpu_quota = Some(CpuQuota { quota_us: 50_000, period_us: 5 });
    let limits = Limits { cpu_quota, ..Limits::default() };
    let error = lab.tree.create("one", &limits).expect_err("refused").to_string();
    let (value, file) =
        match lab.tree.folders().iter().any(|folder| folder.join("cpu.max").exists()) {
            true => ("`50000 5`", "cpu.max (cpu)"),
            false => ("`5`", "cpu.cfs_period_us (cpu)"),
        };
    assert!(error.contains(value) && error.contains(file), "{error}");
    assert!(lab.tree.folders().iter().all(|folder| !folder.join("one").exists()));
    for bad in ["", "..", "a/b", "unladen.service\n"] {
        assert!(lab.tree.create(bad, &Limits::default()).is_err(), "{bad:?}");
    }
}

/// Every test ends with its groups removed, also one that a signal ends.
#[test]
fn tests_that_are_killed_leave_no_groups() {
    const ROLE: &str = "UNLADEN_TEST_WAITS";
    if std::env::var_os(ROLE).is_some() {
        let _lab = Lab::new();
        eprintln!("ready");
        std::thread::sleep(LIMIT);
        return;
    }
    if Lab::new().lacks(Controller::Pids) {
        return;
    }
    let hierarchy =
        Hierarchy::detect(Path::new("/proc"), Path::new("/sys/fs/cgroup")).expect("detected");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut waiting = std::process::Command::new(std::env::current_exe().expect("own path"))
            .args(["tests_that_are_killed_leave_no_groups", "--exact", "--nocapture"])
            .env(ROLE, "yes")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("started");
        let mut words = BufReader::new(waiting.stderr.take().expect("piped")).lines();
        assert!(words.any(|line| line.expect("text") == "ready"), "it has a lab");
        let id = format!("test-{}-0", waiting.id());
        assert!(!find(&hierarchy, Some(&id)).is_empty(), "its groups are there");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(waiting.id()).expect("a pid"));
        nix::sys::signal::kill(pid, signal).expect("sent");
        let status = waiting.wait().expect("reaped");
        assert_eq!(status.signal(), Some(signal as i32));
        assert_eq!(find(&hierarchy, Some(&id)), Vec::<PathBuf>::new());
    }
}

#[test]
fn on_version_2_children_are_born_inside_and_killed_at_once() {
    let Some((_proc, hierarchy)) = lab::unified_only() else {
        return skipped("no cgroup version 2 is mounted");
    };
    if let Availability::Unusable(reason) = hierarchy.availability(Controller::Freezer) {
        return skipped(&reason);
    }
    let id = format!("test-{}-unified", std::process::id());
    let mut tree = hierarchy.prepare(&id, &[Controller::Freezer]).expect("prepared");
    let script = "sleep 1000 & sleep 1000 & echo ready; wait";
    let mut group = tree.create("one", &Limits::default()).expect("group");
    assert!(group.into_cgroup().is_some() && group.join_fds().is_empty());
    let running = lab::plain_in(&group, script);
    assert_eq!(group.processes().expect("read").len(), 3);
    let error = group.remove(Duration::from_millis(20)).expect_err("occupied").to_string();
    assert!(error.contains(&running.child.pid.to_string()), "{error}");
    group.kill_all().expect("killed");
    running.finish(Exit::Signal(Signal::SIGKILL as i32));
    group.remove(LIMIT).expect("removed");
    // What is left by others is killed and removed by name, groups in groups
    // included.
    let group = tree.create("two", &Limits::default()).expect("group");
    let running = lab::plain_in(&group, script);
    fs::create_dir(group.folders()[0].join("below")).expect("made");
    let swept = sweep(&hierarchy, Some(&id));
    assert!(swept.failed.is_empty() && swept.removed.len() == 1, "{swept:?}");
    running.finish(Exit::Signal(Signal::SIGKILL as i32));
    assert!(!group.exists() && find(&hierarchy, Some(&id)).is_empty());
    tree.remove().expect("nothing is left to do");
}
