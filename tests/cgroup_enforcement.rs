//! What limits do, not what is written: the kernel's verdict on programs that
//! want more than they may have.
#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test says what went wrong by panicking"
)]

mod common;
mod lab;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use common::{is_root, skip as skipped};
use lab::{LIMIT, Lab, Running};
use nix::sys::signal::Signal;
use unladen::container::Container;
use unladen::container::cgroup::{
    Controller, CpuQuota, DeviceRule, Group, Limits, Resource, UNLIMITED,
};
use unladen::sys::pidfd::Exit;

const MIB: u64 = 1024 * 1024;

/// Also the shell may end like this in a group that lacks memory: the kernel
/// may need more before it has back what the first that it killed had.
const KILLED: Exit = Exit::Signal(Signal::SIGKILL as i32);

/// A loop that uses a CPU without pause.
const SPINNER: &str = "echo ready; while :; do :; done";

#[test]
fn a_memory_hog_dies_alone() {
    let lab = Lab::new();
    if lab.lacks(Controller::Memory) {
        return;
    }
    let limits = Limits { memory: Some(16 * MIB), swap: Some(0), ..Limits::default() };
    let hog = lab.tree.create("hog", &limits).expect("group");
    let neighbour = lab.tree.create("neighbour", &limits).expect("group");
    let quiet = lab::plain_in(&neighbour, "echo ready; read word; exit 7");
    // The tail keeps what it has read, and is the one to be killed.
    let greedy = "echo ready; read word; head -c 64m /dev/zero | \
        (echo 1000 >/proc/self/oom_score_adj; exec tail -c 64m) | wc -c; exit 3";
    let ended = lab::plain_in(&hog, greedy).end();
    assert!(ended == Exit::Code(3) || ended == KILLED, "{ended:?}");
    assert!(hog.was_killed_for_memory(), "{:?}", hog.oom_kills());
    assert!(hog.memory_peak().expect("peak") <= 16 * MIB);
    assert!(!neighbour.was_killed_for_memory());
    assert_eq!(neighbour.processes().expect("read"), vec![quiet.child.pid]);
    quiet.finish(Exit::Code(7));
}

#[test]
fn a_fork_bomb_stops_at_its_limit_and_is_counted() {
    let lab = Lab::new();
    if lab.lacks(Controller::Pids) {
        return;
    }
    let limits = Limits { pids: Some(5), ..Limits::default() };
    let group = lab.tree.create("bomb", &limits).expect("group");
    // Bounded by itself, too, should the limit not hold.
    let bomb = "echo ready; i=0; while [ $i -lt 20 ]; do sleep 1000 & i=$((i+1)); done; wait";
    let running = lab::plain_in(&group, bomb);
    let full = || group.fork_failures().expect("counted") > 0;
    assert!(common::wait_until(LIMIT, full), "it was never refused a process");
    assert!(group.processes().expect("read").len() <= 5);
    group.kill_all().expect("killed");
    drop(running);
}

/// The share of one CPU that a group uses over a while.
fn share(group: &Group, window: Duration) -> f64 {
    let used = || group.cpu_usage().expect("counted").total;
    let (before, started) = (used(), Instant::now());
    std::thread::sleep(window);
    let (spent, passed) = (used() - before, started.elapsed());
    spent.as_secs_f64() / passed.as_secs_f64()
}

#[test]
fn a_spinner_gets_its_quota() {
    let lab = Lab::with(&[Controller::Cpu, Controller::Cpuacct]);
    if lab.lacks(Controller::Cpu) || lab.lacks(Controller::Cpuacct) {
        return;
    }
    // This is about the quota and not about who else is busy here.
    for folder in lab.tree.folders() {
        for (file, most) in [("cpu.weight", "10000"), ("cpu.shares", "262144")] {
            if folder.join(file).exists() {
                fs::write(folder.join(file), most).expect("written");
            }
        }
    }
    let quota = CpuQuota { quota_us: 10_000, period_us: 50_000 };
    let limits = Limits { cpu_quota: Some(quota), ..Limits::default() };
    let group = lab.tree.create("spinner", &limits).expect("group");
    let running = lab::plain_in(&group, SPINNER);
    // Above its quota it may never be; below only while the host is too busy
    // to give it that much.
    let mut shares = Vec::new();
    for _ in 0..5 {
        let relative = share(&group, Duration::from_secs(3)) / 0.2;
        assert!(relative < 1.05, "it used {relative} of its quota");
        shares.push(relative);
        if relative > 0.95 {
            break;
        }
    }
    assert!(shares.last().is_some_and(|share| *share > 0.95), "parts of its quota: {shares:?}");
    assert!(group.cpu_throttled().expect("counted") > 10);
    // Lifted while it runs.
    let lifted = CpuQuota { quota_us: UNLIMITED, period_us: 50_000 };
    group.update(&Limits { cpu_quota: Some(lifted), ..Limits::default() }).expect("lifted");
    let freed = || share(&group, Duration::from_millis(300)) > 0.3;
    assert!(common::wait_until(LIMIT, freed), "it never got more");
    group.kill_all().expect("killed");
    running.finish(Exit::Signal(Signal::SIGKILL as i32));
}

#[test]
fn what_is_frozen_makes_no_progress_and_can_be_killed() {
    let lab = Lab::with(&[Controller::Freezer, Controller::Cpuacct, Controller::Pids]);
    if lab.lacks(Controller::Freezer) || lab.lacks(Controller::Cpuacct) {
        return;
    }
    let mut group = lab.tree.create("one", &Limits::default()).expect("group");
    let running = lab::plain_in(&group, SPINNER);
    let used = || group.cpu_usage().expect("counted").total;
    assert!(!group.is_frozen().expect("asked"));
    for _ in 0..3 {
        group.freeze(LIMIT).expect("frozen");
        assert!(group.is_frozen().expect("asked"));
        let before = used();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(used(), before, "it went on");
        group.thaw(LIMIT).expect("thawed");
        assert!(common::wait_until(LIMIT, || used() > before), "it never went on");
    }
    group.freeze(LIMIT).expect("frozen");
    group.kill_all().expect("killed");
    running.finish(Exit::Signal(Signal::SIGKILL as i32));
    group.remove(LIMIT).expect("removed");
}

#[test]
fn frozen_leftovers_of_a_killed_run_are_removed() {
    let controllers = [Controller::Pids, Controller::Freezer, Controller::Memory];
    let lab = Lab::with(&controllers);
    if lab.lacks(Controller::Freezer) {
        return;
    }
    let group = lab.tree.create("one", &Limits::default()).expect("group");
    let running = lab::plain_in(&group, "sleep 1000 & echo ready; wait");
    group.freeze(LIMIT).expect("frozen");
    let swept = unladen::container::cgroup::sweep(&lab.hierarchy, Some(&lab.id));
    assert!(swept.failed.is_empty(), "{swept:?}");
    running.finish(Exit::Signal(Signal::SIGKILL as i32));
}

#[test]
fn only_the_given_cpus_are_used() {
    let lab = Lab::with(&[Controller::Cpuset, Controller::Cpu]);
    if lab.lacks(Controller::Cpuset) {
        return;
    }
    let own = fs::read_to_string("/proc/self/status").expect("status");
    let list = own.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let last = list.expect("a list").trim().rsplit([',', '-']).next().expect("a CPU").to_owned();
    let limits = Limits { cpus: Some(last.clone()), mems: Some("0".into()), ..Limits::default() };
    let group = lab.tree.create("one", &limits).expect("group");
    let running = lab::plain_in(&group, "echo $(grep Cpus_allowed_list /proc/self/status)");
    assert_eq!(running.first_line, format!("Cpus_allowed_list: {last}"));
    running.finish(Exit::Code(0));
    // Without a list of its own a group has those of the one above.
    let group = lab.tree.create("two", &Limits::default()).expect("group");
    lab::plain_in(&group, "echo ready").finish(Exit::Code(0));
    let limits = Limits { cpus: Some("4096".into()), ..Limits::default() };
    let error = lab.tree.create("three", &limits).expect_err("no such CPU").to_string();
    assert!(error.contains("`4096`") && error.contains("cpuset.cpus (cpuset)"), "{error}");
}

#[test]
fn swap_is_limited() {
    // A heading, and a line for each place to swap to.
    let swaps = fs::read_to_string("/proc/swaps").expect("proc").lines().count() > 1;
    let lab = Lab::new();
    if lab.lacks(Controller::Memory) {
        return;
    }
    // Twice the memory: with swap it fits, if the host has any.
    let script = "echo ready; head -c 32m /dev/zero | \
        (echo 1000 >/proc/self/oom_score_adj; exec tail -c 32m) | wc -c";
    for (name, swap, fits) in [("with", 64 * MIB, swaps), ("without", 0, false)] {
        let limits = Limits { memory: Some(16 * MIB), swap: Some(swap), ..Limits::default() };
        let group = lab.tree.create(name, &limits).expect("group");
        assert!(group.remarks().is_empty(), "{:?}", group.remarks());
        let folder = group.folder(Controller::Memory).expect("memory");
        let (file, wanted) = match folder.join("memory.swap.max").exists() {
            true => ("memory.swap.max", swap),
            false => ("memory.memsw.limit_in_bytes", 16 * MIB + swap),
        };
        let written = fs::read_to_string(folder.join(file)).expect("read");
        assert_eq!(written.trim(), wanted.to_string());
        let ended = lab::plain_in(&group, script).end();
        assert!(ended == Exit::Code(0) || !fits && ended == KILLED, "{name}: {ended:?}");
        assert_eq!(!group.was_killed_for_memory(), fits, "{name}");
    }
}

/// Tries to open nodes that exist on every host and are harmless to open.
const OPENER: &str = "echo $( \
    for node in null zero full urandom; do (: </dev/$node) 2>/dev/null && echo $node; done; \
    (: </dev/kmsg) 2>/dev/null && echo kmsg)";

#[test]
fn only_the_allowed_devices_can_be_opened() {
    if !is_root() {
        return skipped("device rules need root");
    }
    let lab = Lab::with(&[Controller::Devices]);
    if lab.lacks(Controller::Devices) {
        return;
    }
    devices_are_guarded(&lab);
}

fn devices_are_guarded(lab: &Lab) {
    let opened = |name: &str, devices: Vec<DeviceRule>| {
        let limits = Limits { devices, ..Limits::default() };
        let group = lab.tree.create(name, &limits).expect("group");
        let running = lab::plain_in(&group, OPENER);
        let line = running.first_line.clone();
        running.finish(Exit::Code(0));
        (line, group)
    };
    assert_eq!(opened("free", vec![]).0, "null zero full urandom kmsg");
    let mut usual = vec![DeviceRule::DENY_ALL];
    usual.extend(DeviceRule::defaults());
    let (line, group) = opened("usual", usual);
    assert_eq!(line, "null zero full urandom");
    // Changed while in use: the later rule counts.
    let null = fs::metadata("/dev/null").expect("null").rdev();
    let null = DeviceRule {
        major: u32::try_from(nix::sys::stat::major(null)).ok(),
        minor: u32::try_from(nix::sys::stat::minor(null)).ok(),
        kind: Some(unladen::container::cgroup::DeviceKind::Character),
        ..DeviceRule::DENY_ALL
    };
    let mut devices = vec![DeviceRule::DENY_ALL];
    devices.extend(DeviceRule::defaults());
    devices.push(null);
    group.update(&Limits { devices, ..Limits::default() }).expect("changed");
    let running = lab::plain_in(&group, OPENER);
    // The shell's own `2>/dev/null` fails as well, for every node.
    assert_ne!(running.first_line, line);
    running.finish(Exit::Code(0));
}

#[test]
fn on_version_2_a_program_guards_the_devices() {
    if !is_root() {
        return skipped("device rules need root");
    }
    let Some((_proc, hierarchy)) = lab::unified_only() else {
        return skipped("no cgroup version 2 is mounted");
    };
    devices_are_guarded(&Lab::on(hierarchy, &[Controller::Devices]));
}

#[test]
fn a_container_has_its_devices_and_no_others() {
    if !is_root() {
        return skipped("device rules need root");
    }
    let lab = Lab::with(&Controller::ALL);
    if lab.lacks(Controller::Devices) {
        return;
    }
    let mut devices = vec![DeviceRule::DENY_ALL];
    devices.extend(DeviceRule::defaults());
    let limits = Limits { devices, pids: Some(16), ..Limits::default() };
    let plan = lab.plan("echo x >/dev/null && read -r a </dev/urandom; echo ready", limits.clone());
    let group = lab.tree.create("one", &limits).expect("group");
    assert!(group.remarks().is_empty(), "{:?}", group.remarks());
    let mut container = Container::prepare(&plan).expect("ready");
    Running::launch(&mut container, &group).finish(Exit::Code(0));
}

#[test]
fn pressure_is_the_groups_own_or_marked_as_the_hosts() {
    let lab = Lab::new();
    let group = lab.tree.create("one", &Limits::default()).expect("group");
    let unified = group.folders().iter().any(|folder| folder.join("cgroup.events").exists());
    for resource in [Resource::Cpu, Resource::Memory, Resource::Io] {
        match group.pressure(resource) {
            Ok(pressure) => {
                let own = unified && !pressure.of_host;
                assert!(own || (!unified && pressure.of_host), "{pressure:?}");
                assert!(pressure.some.averages.iter().all(|part| (0.0..=100.0).contains(part)));
            }
            Err(error) => {
                let path = format!("/proc/pressure/{}", resource.as_str());
                let why = fs::read_to_string(path).expect_err("the kernel does not tell");
                eprintln!("{error}: {why}");
            }
        }
    }
}
