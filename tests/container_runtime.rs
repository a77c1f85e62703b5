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
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use common::{is_root, skip as skipped};
use lab::{LIMIT, Lab, Running, mounts_of_host, open_descriptors};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use unladen::container::cgroup::{CpuQuota, Group, Limits, find};
use unladen::container::network::Netns;
use unladen::container::{
    Container, HeldContainer, NetworkedContainer, Plan, Stdio, default_cell_spec, run,
};
use unladen::sys::pidfd::Exit;
use unladen::sys::spawn::{Child, Command, Launch, Program, SpawnError, Step};

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
        ..Limits::default()
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

/// What is seen of a container from outside, without what numbers each
/// instance anew.
fn outside(pid: nix::unistd::Pid, group: &str) -> Vec<String> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let read = |name: &str| fs::read_to_string(proc.join(name)).expect("alive");
    let mut lines = Vec::new();
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let link = |folder: &Path| fs::read_link(folder.join("ns").join(kind)).expect("link");
        let own = link(&proc) != link(Path::new("/proc/self"));
        lines.push(format!("{kind} namespace of its own: {own}"));
    }
    let passing = ["Pid", "Tgid", "PPid", "Vm", "Rss", "voluntary", "nonvoluntary", "SigQ"];
    // It waits for its input, so nothing of it changes any more.
    assert!(common::wait_until(LIMIT, || read("status").contains("State:\tS")));
    let status = read("status").replace(&format!("\t{pid}"), "\tN");
    let lasting = |line: &&str| !passing.iter().any(|start| line.starts_with(start));
    lines.extend(status.lines().filter(lasting).map(str::to_owned));
    // Without the numbers of mounts, parents and devices, by mount point: a
    // prepared root has its mounts in another order.
    let mounts = read("mountinfo");
    let rest = |line: &str| line.splitn(4, ' ').last().expect("rest").to_owned();
    let mut mounts: Vec<String> = mounts.lines().map(rest).collect();
    mounts.sort_by_key(|line| line.split(' ').nth(1).map(str::to_owned));
    lines.extend(mounts);
    lines.extend(read("cgroup").lines().map(|line| line.replace(group, "GROUP")));
    lines.extend(read("limits").lines().map(str::to_owned));
    for name in ["oom_score_adj", "uid_map", "gid_map", "setgroups", "personality", "net/dev"] {
        // Of the traffic only whose interface it is.
        let text = read(name);
        let words = text.lines().map(|line| line.split(':').next().unwrap_or_default().trim());
        lines.push(format!("{name} {}", words.collect::<Vec<_>>().join(" ")));
    }
    for number in lab::descriptors_of(&proc) {
        let target = fs::read_link(proc.join("fd").join(number.to_string())).expect("open");
        let kind = target.display().to_string();
        lines.push(format!("descriptor {number} {}", kind.split(":[").next().unwrap_or_default()));
    }
    lines
}

/// Lines that are not the same in both.
fn differing(one: &[String], other: &[String]) -> Vec<String> {
    assert_eq!(one.len(), other.len(), "{one:?}\n{other:?}");
    let pairs = one.iter().zip(other).filter(|(one, other)| one != other);
    pairs.map(|(one, other)| format!("{one} <> {other}")).collect()
}

/// Starts a container in a group, with descriptors.
type Starter<'a> = dyn FnMut(&Group, &[(BorrowedFd<'_>, i32)]) -> Child + 'a;

#[test]
fn a_pooled_container_is_isolated_as_a_cold_one() {
    if !is_root() {
        return skipped("network namespaces of the host's need root");
    }
    let lab = Lab::new();
    // Loopback is only of use when it is up.
    let script = "exec 3<>/dev/udp/127.0.0.1/9 || exit; echo $(hostname) $$; read word || true";
    let plan = lab.plan_for("bash", script, limits());
    let seen = |name: &str, launch: &mut Starter<'_>| {
        let group = lab.tree.create(name, plan.limits()).expect("group");
        let running = Running::with(|fds| launch(&group, fds));
        assert_eq!(running.first_line, "unladen 1", "{name}");
        let lines = outside(running.child.pid, &format!("unladen-{}/{name}", lab.id));
        running.finish(Exit::Code(0));
        lines
    };
    let mut direct = Container::prepare_direct(&plan).expect("ready");
    let direct = seen("direct", &mut |group, fds| direct.launch(group, fds).expect("launched"));
    let mut held = HeldContainer::prepare(&plan).expect("ready");
    let held = seen("held", &mut |group, fds| held.launch(group, fds).expect("launched").0);
    let mut pooled = NetworkedContainer::prepare(&plan).expect("ready");
    // The first is not the only one: nothing of it may be found by the next.
    for name in ["pooled", "pooled-again"] {
        let netns = Netns::fresh().expect("a namespace");
        let pooled =
            seen(name, &mut |group, fds| pooled.launch(group, fds, &netns).expect("launched"));
        assert!(
            differing(&pooled, &direct).is_empty(),
            "{name}: {:?}",
            differing(&pooled, &direct)
        );
    }
    assert!(differing(&held, &direct).is_empty(), "held: {:?}", differing(&held, &direct));
    // And it is not just that nothing was read.
    for part in ["net namespace of its own: true", "NoNewPrivs:\t1", "GROUP", " /proc/keys ", " lo"]
    {
        assert!(direct.iter().any(|line| line.contains(part)), "{part}: {direct:?}");
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
    let folder = tempfile::tempdir().expect("folder");
    let copy = lab::own_copy(folder.path());
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
        let uid = format!("Uid:\t{}\t", nix::unistd::getuid());
        assert!(status.contains(&uid), "{status}");
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
    assert!(error.contains("cannot mount at /usr/bin/sh"), "{error}");
    assert!(error.ends_with("ENOTDIR: Not a directory"), "{error}");
    let error = refused(&|spec| {
        spec.process_mut().as_mut().expect("process").set_cwd("/usr/nowhere".into());
    });
    assert!(error.contains("cannot make the directory /usr/nowhere"), "{error}");
    let error = refused(&|spec| {
        let mounts = spec.mounts_mut().as_mut().expect("mounts");
        mounts[3].set_options(Some(vec!["colour=red".to_owned()]));
    });
    let expected = "cannot make the tmpfs for /tmp with `source=tmpfs,colour=red`";
    assert!(error.starts_with(expected), "{error}");
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
        let linux = spec.linux_mut().as_mut().expect("linux");
        linux.set_sysctl(Some([("kernel.x".to_owned(), "1".to_owned())].into()));
    });
    assert!(error.starts_with("`linux.sysctl.kernel.x` cannot be `1`: "), "{error}");
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
        let into_cgroup = group.into_cgroup();
        let launch = Launch { join: &join, into_cgroup, ..Launch::default() };
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
