//! The container runtime with real containers: isolation as seen from
//! outside, limits that bite, errors that say where, and nothing left behind.
//!
//! The containers run the host's own shell: its `/usr` is bound read-only into
//! an otherwise empty root filesystem.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod lab;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use common::{is_root, skip as skipped};
use lab::{LIMIT, Lab, Running, mounts_of_host, open_descriptors};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use unladen::container::cgroup::{Controller, CpuQuota, Hierarchy, Limits, find, sweep};
use unladen::container::{Container, Plan, Stdio, default_cell_spec, run};
use unladen::sys::pidfd::Exit;
use unladen::sys::spawn::{Command, Launch, Program, SpawnError, Step};

const MIB: u64 = 1024 * 1024;

/// Both ways of launching.
type Way = (&'static str, fn(&Plan) -> Container);
const WAYS: [Way; 2] = [
    ("prepared", |plan| Container::prepare(plan).expect("prepared")),
    ("direct", |plan| Container::prepare_direct(plan).expect("prepared")),
];

fn limits() -> Limits {
    Limits {
        memory: Some(64 * MIB),
        swap: None,
        pids: Some(32),
        cpu_quota: Some(CpuQuota { quota_us: 50_000, period_us: 100_000 }),
        cpu_weight: Some(200),
    }
}

#[test]
fn a_container_is_isolated_as_seen_from_outside() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    for (way, prepare) in WAYS {
        let lab = Lab::new();
        let plan = lab.plan("echo ready; read word || true", limits());
        let group = lab.tree.create("one", plan.limits()).expect("group");
        let mut container = prepare(&plan);
        let running = Running::launch(&mut container, &group);
        let proc = PathBuf::from(format!("/proc/{}", running.child.pid));
        for kind in ["pid", "mnt", "uts", "ipc", "net", "cgroup"] {
            let link = |folder: &Path| fs::read_link(folder.join("ns").join(kind)).expect("link");
            assert_ne!(link(&proc), link(Path::new("/proc/self")), "{way}: {kind}");
        }
        let status = fs::read_to_string(proc.join("status")).expect("status");
        for line in [
            "CapInh:\t0000000000000000",
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "CapAmb:\t0000000000000000",
            "NoNewPrivs:\t1",
            "SigIgn:\t0000000000000000",
            &format!("NSpid:\t{}\t1", running.child.pid),
            &format!("NSsid:\t{}\t1", running.child.pid),
        ] {
            assert!(status.contains(line), "{way}: no `{line}` in {status}");
        }
        assert_eq!(lab::descriptors_of(&proc), BTreeSet::from([0, 1, 2]), "{way}");
        assert_eq!(lab::mount_points_of(&proc), lab.expected_mount_points(), "{way}");
        let cgroup = fs::read_to_string(proc.join("cgroup")).expect("cgroup");
        let inside = format!("unladen-{}/one", lab.id);
        let used = group.folders().len();
        assert!(cgroup.lines().filter(|line| line.ends_with(&inside)).count() >= used, "{cgroup}");
        running.finish(Exit::Code(0));
    }
}

#[test]
fn a_container_sees_only_its_own() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let script = r#"
        echo host $(hostname)
        echo id $(id -u) $(id -g)
        echo pid $$
        echo root $(ls -A /)
        echo dev $(ls -A /dev)
        (: > /file) 2>/dev/null && echo wrote-root
        (: > /dev/file) 2>/dev/null && echo wrote-dev
        (: > /usr/file) 2>/dev/null && echo wrote-usr
        (: > /tmp/file) && echo wrote-tmp
        (echo x > /dev/null) && echo null works
        echo keys $(cat /proc/keys | wc -c)
        echo acpi $(ls -A /proc/acpi 2>/dev/null | wc -l)
        (echo 1 > /proc/sys/kernel/randomize_va_space) 2>/dev/null && echo wrote-sys
        mount -t tmpfs none /tmp 2>/dev/null && echo mounted
        echo lo $(cat /proc/net/dev | grep -c :)
        echo cgroup $(cut -d: -f3 /proc/self/cgroup | sort -u)
        exec 3<>/dev/udp/127.0.0.1/9 && echo loopback is up
    "#;
    for (way, prepare) in WAYS {
        let lab = Lab::new();
        let plan = lab.plan_for("bash", script, limits());
        let group = lab.tree.create("one", plan.limits()).expect("group");
        let (exit, output) = lab::output(&mut prepare(&plan), &group);
        assert_eq!(exit, Exit::Code(0), "{way}: {output}");
        let expected = [
            "host unladen",
            "id 0 0",
            "pid 1",
            "root bin dev lib lib64 proc sys tmp usr",
            "dev fd full null random stderr stdin stdout tty urandom zero",
            "wrote-tmp",
            "null works",
            "keys 0",
            "acpi 0",
            "lo 1",
        ];
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines[..expected.len()], expected, "{way}: {output}");
        // Hierarchies that are not used still show the caller's place.
        assert!(lines[expected.len()].split(' ').any(|place| place == "/"), "{output}");
        assert_eq!(lines.last(), Some(&"loopback is up"), "{way}: {output}");
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
        (Controller::Cpu, "cpu.shares", "cpu.weight", ["5219", "200"]),
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
fn a_user_namespace_of_its_own_works_for_root() {
    if !is_root() {
        return skipped("the test without root is another one");
    }
    let lab = Lab::new();
    let script = "echo $(id -u) $(cat /proc/self/uid_map); grep NoNewPrivs /proc/self/status";
    let mut options = lab.options("sh", script, limits());
    options.user_namespace = true;
    let plan = lab.plan_from(&options);
    let group = lab.tree.create("one", plan.limits()).expect("group");
    let mut container = Container::prepare(&plan).expect("ready");
    let (exit, output) = lab::output(&mut container, &group);
    assert_eq!((exit, output.as_str()), (Exit::Code(0), "0 0 0 1\nNoNewPrivs:\t1\n"));
}

#[test]
fn without_root_a_container_runs_in_a_user_namespace() {
    if !is_root() {
        return rootless();
    }
    if !Path::new("/usr/bin/setpriv").exists() {
        return skipped("setpriv (util-linux) is not installed");
    }
    // A copy, since the build folder may be closed to others.
    let folder = tempfile::tempdir().expect("folder");
    lab::open_to_all(folder.path());
    let copy = folder.path().join("test");
    fs::copy(std::env::current_exe().expect("own path"), &copy).expect("copied");
    let name = "without_root_a_container_runs_in_a_user_namespace";
    let arguments = ["setpriv", "--reuid=64321", "--regid=64321", "--clear-groups"];
    let arguments = arguments.iter().copied().map(String::from).chain([
        copy.display().to_string(),
        "--exact".to_owned(),
        name.to_owned(),
        "--nocapture".to_owned(),
    ]);
    let (exit, output) = lab::host_program("/usr/bin/setpriv", arguments);
    assert_eq!(exit, Exit::Code(0), "{output}");
    assert!(output.contains("1 passed"), "{output}");
    assert!(!output.contains("SKIPPED"), "{output}");
}

/// The part of the test above that has no privileges.
fn rootless() {
    let lab = Lab::new();
    let script = "echo $(id -u):$(id -g) $(hostname); read word || true";
    let mut options = lab.options("sh", script, limits());
    options.user_namespace = true;
    let plan = lab.plan_from(&options);
    let group = lab.tree.create("one", plan.limits()).expect("group");
    // Nothing was delegated to this user, and the group says so.
    assert_eq!(group.remarks().len(), lab.tree.missing().len());
    for _ in 0..3 {
        let mut container = Container::prepare(&plan).expect("ready");
        let running = Running::launch(&mut container, &group);
        let proc = PathBuf::from(format!("/proc/{}", running.child.pid));
        let status = fs::read_to_string(proc.join("status")).expect("status");
        assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
        assert!(status.contains("Uid:\t64321"), "{status}");
        assert_eq!(running.first_line, "0:0 unladen");
        assert_eq!(lab::mount_points_of(&proc), lab.expected_mount_points());
        running.finish(Exit::Code(0));
    }
    // Without a user namespace the kernel refuses, with advice.
    let plan = lab.plan("true", Limits::default());
    let mut container = Container::prepare_direct(&plan).expect("ready");
    let error = container.launch(&group, &[]).expect_err("refused");
    assert!(matches!(error, SpawnError::Clone { source: Errno::EPERM, .. }), "{error:?}");
    assert!(error.to_string().contains("user namespace"), "{error}");
}

#[test]
fn a_step_that_fails_is_named_and_leaves_nothing() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    let group = lab.tree.create("one", &Limits::default()).expect("group");
    let refused = |change: &dyn Fn(&mut oci_spec::runtime::Spec)| {
        let cell = default_cell_spec(&lab.options("sh", "true", Limits::default()));
        let mut spec = lab::with_programs(cell);
        change(&mut spec);
        let plan = Plan::from_spec(&spec, &lab.rootfs).expect("a plan");
        let error = Container::prepare(&plan)
            .map_err(|error| unladen::errors::chain(&error))
            .and_then(|mut container| {
                container.launch(&group, &[]).map_err(|error| unladen::errors::chain(&error))
            });
        error.expect_err("refused")
    };
    let before = mounts_of_host();
    let error = refused(&|spec| {
        let mounts = spec.mounts_mut().as_mut().expect("mounts");
        mounts[3].set_destination("/usr/bin/sh".into());
    });
    assert!(error.contains("cannot mount tmpfs at /usr/bin/sh with `mode=1777`"), "{error}");
    assert!(error.ends_with("ENOTDIR: Not a directory"), "{error}");
    let error = refused(&|spec| {
        spec.process_mut().as_mut().expect("process").set_cwd("/nowhere".into());
    });
    assert!(error.starts_with("cannot change to the directory /nowhere"), "{error}");
    let error = refused(&|spec| {
        let mounts = spec.mounts_mut().as_mut().expect("mounts");
        mounts[3].set_options(Some(vec!["colour=red".to_owned()]));
    });
    assert!(error.starts_with("cannot mount tmpfs at /tmp with `colour=red`"), "{error}");
    let error = refused(&|spec| {
        let process = spec.process_mut().as_mut().expect("process");
        process.set_args(Some(vec!["/bin/no-such".to_owned()]));
    });
    assert_eq!(error, "cannot execute /bin/no-such: ENOENT: No such file or directory");
    assert_eq!(mounts_of_host(), before);
    assert_eq!(group.processes().expect("read"), vec![]);
}

#[test]
fn what_cannot_be_planned_is_named() {
    let lab = Lab::new();
    let refused = |change: &dyn Fn(&mut oci_spec::runtime::Spec)| {
        let mut spec = default_cell_spec(&lab.options("sh", "true", Limits::default()));
        change(&mut spec);
        Plan::from_spec(&spec, &lab.rootfs).map(drop).expect_err("refused").to_string()
    };
    let error = refused(&|spec| {
        let mut root = oci_spec::runtime::Root::default();
        root.set_path("nowhere".into());
        spec.set_root(Some(root));
    });
    assert!(error.starts_with("cannot find the root filesystem"), "{error}");
    assert!(error.ends_with("/rootfs/nowhere"), "{error}");
    let error = refused(&|spec| {
        spec.process_mut().as_mut().expect("process").user_mut().set_uid(u32::MAX);
    });
    assert!(error.starts_with("`process.user` cannot be `4294967295`"), "{error}");
    let error = refused(&|spec| {
        spec.mounts_mut().as_mut().expect("mounts")[2].set_typ(Some("nfs".to_owned()));
    });
    assert!(error.starts_with("`mounts[2].type` cannot be `nfs`"), "{error}");
    let error = refused(&|spec| {
        spec.mounts_mut().as_mut().expect("mounts")[2].set_destination("/tmp/../etc".into());
    });
    assert!(error.starts_with("`mounts[2].destination` cannot be `/tmp/../etc`"), "{error}");
    let error = refused(&|spec| {
        spec.mounts_mut().as_mut().expect("mounts").remove(0);
    });
    assert!(error.starts_with("`mounts[/dev]` is missing"), "{error}");
    let error = refused(&|spec| {
        let linux = spec.linux_mut().as_mut().expect("linux");
        linux.set_sysctl(Some([("kernel.x".to_owned(), "1".to_owned())].into()));
    });
    assert_eq!(error, "`linux.sysctl.kernel.x` is not supported by this runtime");
}

#[test]
fn a_failure_at_any_step_leaves_nothing() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let mut lab = Lab::new();
    let plan = lab.plan("true", limits());
    let steps = plan.direct_steps();
    let before = (mounts_of_host(), open_descriptors());
    for index in 0..=steps.len() {
        let mut broken = steps.clone();
        broken.insert(index, Step::WorkingDirectory(c"/no/such/folder".into()));
        let mut group = lab.tree.create("broken", plan.limits()).expect("group");
        let program = Program::Paths(vec![c"/bin/true".into()]);
        let namespaces = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWNET;
        let mut command =
            Command::new(program, vec![c"true".into()], vec![], namespaces, broken).expect("fine");
        let join = group.join_fds();
        let launch = Launch { fds: &[], join: &join, into_cgroup: group.into_cgroup() };
        match command.spawn(&launch) {
            Err(SpawnError::Step { index: failed, source: Errno::ENOENT, .. }) => {
                assert_eq!(failed, index);
            }
            other => panic!("step {index}: {other:?}"),
        }
        group.remove(LIMIT).expect("no process is left");
        assert!(!group.exists());
    }
    assert_eq!(mounts_of_host(), before.0);
    assert!(open_descriptors() <= before.1 + lab::NEIGHBOURS);
    lab.tree.remove().expect("removed");
    assert_eq!(find(&lab.hierarchy, Some(&lab.id)), Vec::<PathBuf>::new());
}

#[test]
fn many_starts_and_kills_leak_nothing() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let mut lab = Lab::new();
    let plan = lab.plan("read word", limits());
    let mut container = Container::prepare(&plan).expect("ready");
    let before = (mounts_of_host(), open_descriptors());
    let (input, _keep) = std::io::pipe().expect("pipe");
    for round in 0..200 {
        let mut group = lab.tree.create(&format!("g{round}"), plan.limits()).expect("group");
        let child = container.launch(&group, &[(input.as_fd(), 0)]).expect("launched");
        let ended = child.pidfd.kill_and_wait().expect("killed").expect("ended");
        assert_eq!(ended.exit, Exit::Signal(Signal::SIGKILL as i32));
        group.remove(LIMIT).expect("removed");
        assert!(!group.exists());
    }
    assert_eq!(mounts_of_host(), before.0);
    // Two for the pipe made since.
    assert!(open_descriptors() <= before.1 + 2 + lab::NEIGHBOURS);
    for folder in lab.tree.folders() {
        let children = fs::read_dir(folder)
            .expect("there")
            .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_dir()));
        assert_eq!(children.count(), 0);
    }
    lab.tree.remove().expect("removed");
}

#[test]
fn a_container_dies_with_the_thread_that_launched_it() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    let plan = lab.plan("sleep 1000", limits());
    let group = lab.tree.create("one", plan.limits()).expect("group");
    let child = std::thread::scope(|scope| {
        let launch = || Container::prepare(&plan).expect("ready").launch(&group, &[]);
        scope.spawn(launch).join().expect("no panic").expect("launched")
    });
    let ended = child.pidfd.wait(Some(LIMIT)).expect("waited").expect("ended");
    assert_eq!(ended.exit, Exit::Signal(Signal::SIGKILL as i32));
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
    let error = group.remove(std::time::Duration::ZERO).expect_err("occupied").to_string();
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

#[test]
fn one_call_runs_a_container_and_cleans_up() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    let id = format!("{}-run", lab.id);
    let spec = default_cell_spec(&lab.options("sh", "cat; exit 42", limits()));
    let spec = lab::with_programs(spec);
    let (input, mut sender) = std::io::pipe().expect("pipe");
    let (mut receiver, output) = std::io::pipe().expect("pipe");
    std::io::Write::write_all(&mut sender, b"through the streams").expect("written");
    drop(sender);
    let stdio = Stdio { input: input.as_fd(), output: output.as_fd(), error: output.as_fd() };
    let exit = run(&spec, &lab.rootfs, &id, &stdio).expect("ran");
    drop(output);
    let mut text = String::new();
    receiver.read_to_string(&mut text).expect("UTF-8");
    assert_eq!((exit, text.as_str()), (Exit::Code(42), "through the streams"));
    assert!(find(&lab.hierarchy, Some(&id)).is_empty());
}

#[test]
fn version_2_kills_at_once_and_hands_out_controllers() {
    let lab = Lab::new();
    let unified = lab.tree.folders().into_iter().find(|folder| folder.join("cgroup.kill").exists());
    let Some(folder) = unified else {
        return skipped("this host has no usable controller on cgroup version 2");
    };
    let given = fs::read_to_string(folder.join("cgroup.subtree_control")).expect("read");
    for controller in Controller::STANDARD {
        let missing = lab.tree.missing().iter().any(|(name, _)| *name == controller);
        assert_ne!(given.contains(controller.as_str()), missing, "{controller}: {given}");
    }
    let group = lab.tree.create("one", &limits()).expect("group");
    assert!(group.into_cgroup().is_some() && group.join_fds().is_empty());
}
