//! From a `config.json` to a running container: what other tools generate is
//! understood, what it asks for is the case inside, and an image that sets
//! traps does not get what it wants.
//!
//! Each trap is tested twice: with the guard the container does not start or
//! does not fall for it, and without the guard it does.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod lab;

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use common::{is_root, skip as skipped};
use lab::{LIMIT, Lab, Running};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use proptest::prelude::*;
use serde_json::{Value, json};
use unladen::container::cgroup::Limits;
use unladen::container::{Container, Plan, default_cell_spec, parse_config};
use unladen::errors::chain;
use unladen::sys::pidfd::Exit;
use unladen::sys::spawn::{Command, Launch, Links, Program, Slot, SpawnError, Step};

/// Configurations that other tools wrote.
fn recorded() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/oci");
    let mut all: Vec<_> = fs::read_dir(folder)
        .expect("there")
        .map(|entry| {
            let path = entry.expect("entry").path();
            let text = fs::read_to_string(&path).expect("UTF-8");
            let name = path.file_name().expect("name").to_string_lossy().into_owned();
            (name, serde_json::from_str(&text).expect("JSON"))
        })
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    assert!(all.len() >= 4);
    all
}

/// The spec of a cell in a lab, as JSON, changed.
fn config(lab: &Lab, script: &str, change: impl FnOnce(&mut Value)) -> Value {
    let cell = default_cell_spec(&lab.options("bash", script, Limits::default()));
    let mut config = serde_json::to_value(lab::with_programs(cell)).expect("JSON");
    change(&mut config);
    config
}

fn plan_of(config: &Value, lab: &Lab) -> Result<Plan, String> {
    let spec = parse_config(config.to_string().as_bytes(), Path::new("config.json"))
        .map_err(|error| chain(&error))?;
    Plan::from_spec(&spec, &lab.rootfs).map_err(|error| chain(&error))
}

/// Both ways of launching.
fn both_ways(plan: &Plan) -> [(&'static str, Container); 2] {
    [
        ("prepared", Container::prepare(plan).expect("prepared")),
        ("direct", Container::prepare_direct(plan).expect("prepared")),
    ]
}

/// Runs a script in both ways and returns what it wrote, which is the same.
fn outputs(lab: &Lab, config: &Value) -> String {
    let plan = plan_of(config, lab).expect("a plan");
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("g{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let group = lab.tree.create(&name, plan.limits()).expect("group");
    let [first, second] = both_ways(&plan).map(|(way, mut container)| {
        let (exit, output) = lab::output(&mut container, &group);
        assert_eq!(exit, Exit::Code(0), "{way}: {output}");
        output
    });
    assert_eq!(first, second);
    first
}

/// Runs a program with steps of the test's own.
fn run_steps(steps: Vec<Step>, script: &str) -> Result<String, SpawnError> {
    let arguments = [c"bash".into(), c"-c".into(), std::ffi::CString::new(script).expect("text")];
    let program = Program::Paths(vec![c"/bin/bash".into()]);
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET;
    let environment = vec![c"PATH=/usr/bin".into()];
    let mut command =
        Command::new(program, arguments.into(), environment, namespaces, steps).expect("fine");
    let (mut reader, writer) = std::io::pipe().expect("pipe");
    let null = fs::File::open("/dev/null").expect("null");
    let fds = [(null.as_fd(), 0), (writer.as_fd(), 1), (writer.as_fd(), 2)];
    let child = command.spawn(&Launch { fds: &fds, ..Launch::default() })?;
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("UTF-8");
    child.pidfd.wait(Some(LIMIT)).expect("waited").expect("ended");
    Ok(text)
}

fn errno(error: &SpawnError) -> Option<Errno> {
    match error {
        SpawnError::Step { source, .. } => Some(*source),
        _ => None,
    }
}

#[test]
fn what_other_tools_generate_is_understood() {
    for (name, mut config) in recorded() {
        config["process"]["terminal"] = json!(false);
        let text = serde_json::to_vec_pretty(&config).expect("JSON");
        if let Err(error) = parse_config(&text, Path::new(&name)) {
            panic!("{}", chain(&error));
        }
    }
}

#[test]
fn recorded_bundles_run() {
    if !is_root() {
        return skipped("some of the recorded containers have no user namespace");
    }
    for (name, mut config) in recorded() {
        let lab = Lab::new();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] =
            json!(["/bin/bash", "-c", "echo $(hostname) $(id -u); ls /dev"]);
        config["process"]["env"] = json!(["PATH=/usr/bin"]);
        config["root"]["path"] = json!(lab.rootfs);
        let programs = json!({"destination": "/usr", "type": "bind", "source": "/usr",
                              "options": ["rbind", "ro"]});
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        // Of the host's control groups other tests say more.
        mounts.retain(|mount| mount["type"] != "cgroup");
        mounts.push(programs);
        let plan = plan_of(&config, &lab).unwrap_or_else(|error| panic!("{name}: {error}"));
        let group = lab.tree.create("one", &Limits::default()).expect("group");
        for (way, mut container) in both_ways(&plan) {
            let (exit, output) = lab::output(&mut container, &group);
            assert_eq!(exit, Exit::Code(0), "{name} {way}: {output}");
            let host = config["hostname"].as_str().expect("a name");
            assert!(output.starts_with(&format!("{host} 0\n")), "{name} {way}: {output}");
            for device in ["mqueue", "null", "ptmx", "pts", "shm", "stdin"] {
                assert!(output.lines().any(|line| line == device), "{name} {way}: {output}");
            }
        }
    }
}

#[test]
fn what_a_configuration_asks_for_is_the_case_inside() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    let script = "
        cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shmmni
        cat /proc/sys/kernel/domainname
        pwd; umask
        stat -c '%a %u %g %t:%T %F' /dev/mine /dev/pipe
        uname -m; ionice -p $$; cut -d' ' -f19 /proc/self/stat
        ulimit -n
        grep -c ' /data/deep .*ro,nosuid' /proc/self/mountinfo
        (: > /data/deep/file) 2>/dev/null || echo refused
    ";
    let folder = tempfile::tempdir().expect("folder");
    let config = config(&lab, script, |config| {
        config["linux"]["sysctl"] =
            json!({"net.ipv4.ip_default_ttl": "99", "kernel/shmmni": "1234"});
        config["domainname"] = json!("example");
        config["linux"]["personality"] = json!({"domain": "LINUX32"});
        config["linux"]["devices"] = json!([
            {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640,
             "uid": 7, "gid": 8},
            {"path": "/dev/pipe", "type": "p"},
        ]);
        config["process"]["cwd"] = json!("/tmp/made/here");
        config["process"]["user"]["umask"] = json!(0o27);
        config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
        config["process"]["scheduler"] = json!({"policy": "SCHED_OTHER", "nice": 5});
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 200, "hard": 300}]);
        config["mounts"].as_array_mut().expect("list").push(json!({
            "destination": "/data/deep", "type": "bind", "source": folder.path(),
            "options": ["rbind", "rro", "rnosuid", "rprivate"],
        }));
    });
    let output = outputs(&lab, &config);
    let expected = [
        "99",
        "1234",
        "example",
        "/tmp/made/here",
        "0027",
        "640 7 8 1:3 character special file",
        "666 0 0 0:0 fifo",
        "i686",
        "idle",
        "5",
        "200",
        "1",
        "refused",
    ];
    assert_eq!(output.lines().map(str::trim).collect::<Vec<_>>(), expected, "{output}");
}

/// The kernel's release as two numbers.
fn kernel() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").expect("proc");
    let mut numbers = text.split('.').map(|part| part.parse().expect("a number"));
    (numbers.next().expect("major"), numbers.next().expect("minor"))
}

#[test]
fn clocks_have_their_offsets_where_the_kernel_can() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    let offsets = |offsets: Value| {
        config(&lab, "tail -1 /proc/self/timens_offsets | tr -s ' '", |config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("list");
            namespaces.push(json!({"type": "time"}));
            config["linux"]["timeOffsets"] = offsets;
        })
    };
    assert_eq!(outputs(&lab, &offsets(json!({}))).trim(), "boottime 0 0");
    let some = offsets(json!({"boottime": {"secs": 1000, "nanosecs": 5}}));
    if kernel() >= (6, 2) {
        assert_eq!(outputs(&lab, &some).trim(), "boottime 1000 5");
    } else {
        let plan = plan_of(&some, &lab).expect("a plan");
        let group = lab.tree.create("one", &Limits::default()).expect("group");
        for (way, mut container) in both_ways(&plan) {
            let error = container.launch(&group, &[]).expect_err(way).to_string();
            assert!(error.contains("; Linux before 6.2 has a new process"), "{way}: {error}");
        }
    }
}

#[test]
fn ranges_of_ids_are_mapped_by_somebody_outside() {
    if !is_root() {
        return skipped("without root ranges come from /etc/subuid, which is the host's");
    }
    let lab = Lab::new();
    lab::open_to_all(lab.rootfs.parent().expect("a parent"));
    let script = "id -u; id -G; tr -s ' ' < /proc/self/uid_map; touch /tmp/x; stat -c %u /tmp/x; \
                  cat /proc/self/setgroups";
    let config = config(&lab, script, |config| {
        config["linux"]["namespaces"].as_array_mut().expect("list").push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        config["process"]["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9]});
    });
    let output = outputs(&lab, &config);
    let lines: Vec<&str> = output.lines().map(str::trim).collect();
    assert_eq!(lines, ["7", "8 9", "0 100000 1000", "7", "allow"], "{output}");
    let mut unmapped = config;
    unmapped["process"]["user"]["uid"] = json!(5000);
    let error = plan_of(&unmapped, &lab).expect_err("refused");
    assert!(error.starts_with("`process.user` cannot be `5000:"), "{error}");
}

#[test]
fn existing_namespaces_are_entered_after_their_kind_was_checked() {
    if !is_root() {
        return skipped("namespaces of others can be entered by root only");
    }
    let lab = Lab::new();
    let wait = "echo ready; read word || true";
    let host = config(&lab, wait, |config| {
        config["hostname"] = json!("first");
        config["linux"]["namespaces"].as_array_mut().expect("list").push(json!({"type": "user"}));
    });
    let plan = plan_of(&host, &lab).expect("a plan");
    let group = lab.tree.create("one", &Limits::default()).expect("group");
    let running = Running::launch(&mut Container::prepare(&plan).expect("ready"), &group);
    let file = |kind: &str| format!("/proc/{}/ns/{kind}", running.child.pid);
    let inside = |kind: &str| fs::read_link(file(kind)).expect("link").display().to_string();
    let joining = |kinds: &[(&str, &str)], script: &str| {
        config(&lab, script, |config| {
            config.as_object_mut().expect("object").remove("hostname");
            let list = config["linux"]["namespaces"].as_array_mut().expect("list");
            for (kind, name) in kinds {
                list.retain(|entry| entry["type"] != *kind);
                list.push(json!({"type": kind, "path": file(name)}));
            }
            if kinds.iter().any(|(kind, _)| *kind == "user") {
                config["linux"].as_object_mut().expect("object").remove("uidMappings");
                config["linux"].as_object_mut().expect("object").remove("gidMappings");
            }
        })
    };
    let simple = [("network", "net"), ("uts", "uts"), ("ipc", "ipc")];
    let show = "hostname; for kind in net uts ipc pid user; do readlink /proc/self/ns/$kind; done";
    let lines = |kinds: &[(&str, &str)], script| {
        let plan = plan_of(&joining(kinds, script), &lab).expect("a plan");
        let mut lines = both_ways(&plan).map(|(way, mut container)| {
            let (exit, output) = lab::output(&mut container, &group);
            assert_eq!(exit, Exit::Code(0), "{way}: {output}");
            output.lines().map(str::to_owned).collect::<Vec<_>>()
        });
        // New namespaces are others each time.
        assert_eq!(lines[0].len(), lines[1].len());
        std::mem::take(&mut lines[1])
    };
    let found = lines(&simple, show);
    assert_eq!(found[..4], ["first".to_owned(), inside("net"), inside("uts"), inside("ipc")]);
    assert_ne!(found[4], inside("pid"));
    let all = [&simple[..], &[("pid", "pid"), ("user", "user")]].concat();
    let found = lines(&all, show);
    assert_eq!(found[4..], [inside("pid"), inside("user")]);
    let found = lines(&[("pid", "pid")], "kill -0 1 2>/dev/null; echo $? $(($$ > 1))");
    assert_eq!(found, ["0 1"]);

    let wrong = joining(&[("network", "uts")], "true");
    let plan = plan_of(&wrong, &lab).expect("a plan");
    let error = chain(&Container::prepare(&plan).expect_err("refused"));
    assert!(error.contains("namespaces["), "{error}");
    assert!(error.contains("CLONE_NEWUTS"), "{error}");
    let error = plan_of(&joining(&[("mount", "mnt")], "true"), &lab).expect_err("refused");
    assert!(error.contains("mount namespace"), "{error}");
    running.finish(Exit::Code(0));
}

/// CVE-2021-30465 and its like: a mount point behind a link out of the root.
/// While the old root is stacked on the new one, `/..` leads to it.
#[test]
fn a_link_of_the_image_does_not_lead_to_the_host() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    let trap = tempfile::tempdir().expect("folder");
    symlink(format!("/../{}", trap.path().display()), lab.rootfs.join("evil")).expect("linked");
    let config = config(&lab, "true", |config| {
        config["mounts"].as_array_mut().expect("list").push(json!({
            "destination": "/evil/made", "type": "tmpfs", "source": "tmpfs",
        }));
    });
    let plan = plan_of(&config, &lab).expect("a plan");
    let steps = plan.direct_steps();
    let error = run_steps(steps.clone(), "true").expect_err("the link leads nowhere");
    assert_eq!(errno(&error), Some(Errno::ENOENT), "{error}");
    assert!(!trap.path().join("made").exists());
    // Without the guard: the old root goes only after everything was mounted.
    let mut late = steps;
    let at = late.iter().position(|step| *step == Step::DetachOldRoot).expect("there");
    let detach = late.remove(at);
    let at = late.iter().position(|step| matches!(step, Step::HostName(_))).expect("there");
    late.insert(at, detach);
    run_steps(late, "true").expect("it falls for it");
    assert!(trap.path().join("made").exists());
}

/// CVE-2019-19921 and CVE-2023-27561: `/proc` is a link, so that what is hidden
/// in it would not be.
#[test]
fn proc_and_sys_are_not_mounted_through_links() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    fs::remove_dir(lab.rootfs.join("proc")).expect("removed");
    fs::create_dir(lab.rootfs.join("other")).expect("made");
    symlink("other", lab.rootfs.join("proc")).expect("linked");
    let plan = plan_of(&config(&lab, "true", |_| {}), &lab).expect("a plan");
    let mut steps = plan.direct_steps();
    let error = run_steps(steps.clone(), "true").expect_err("refused");
    assert_eq!(errno(&error), Some(Errno::ELOOP), "{error}");
    assert!(error.to_string().contains("mount at /proc"), "{error}");
    for step in &mut steps {
        if let Step::Attach { links, .. } = step {
            *links = Links::Follow;
        }
    }
    let output = run_steps(steps, "[ -d /other/self ] && echo mounted").expect("it falls for it");
    assert_eq!(output, "mounted\n");
}

/// CVE-2025-31133: something else is at `/dev/null`, with which files would be
/// "hidden".
#[test]
fn files_are_hidden_behind_the_null_device_only() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    let config = config(&lab, "true", |config| {
        config["mounts"].as_array_mut().expect("list").push(json!({
            "destination": "/dev/null", "type": "bind", "source": "/dev/zero",
        }));
    });
    let plan = plan_of(&config, &lab).expect("a plan");
    let mut steps = plan.direct_steps();
    let error = run_steps(steps.clone(), "true").expect_err("refused");
    assert_eq!(errno(&error), Some(Errno::ENODEV), "{error}");
    for step in &mut steps {
        if let Step::OpenDevice { number, .. } = step {
            *number = (1, 5);
        }
    }
    let output = run_steps(steps, "head -c 4 /proc/keys | od -An -tx1").expect("it falls for it");
    assert_eq!(output.trim(), "00 00 00 00");
}

/// CVE-2024-21626: a working directory through an open descriptor.
#[test]
fn the_working_directory_is_inside() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    let plan = plan_of(&config(&lab, "true", |_| {}), &lab).expect("a plan");
    let host = Slot(90);
    let mut steps = plan.direct_steps();
    let at = steps.iter().position(|step| matches!(step, Step::OpenTree { .. })).expect("there");
    steps.insert(at, Step::OpenTree { path: c"/usr".into(), recursive: false, slot: host });
    let directory = |step: &Step| matches!(step, Step::WorkingDirectory(_));
    let at = steps.iter().position(directory).expect("there");
    for number in 0..20 {
        let path = std::ffi::CString::new(format!("/proc/self/fd/{number}")).expect("text");
        steps[at] = Step::WorkingDirectory(path);
        let error = run_steps(steps.clone(), "true").expect_err("refused");
        let expected = [Errno::ELOOP, Errno::ENOENT, Errno::ENOTDIR];
        assert!(expected.contains(&errno(&error).expect("a step")), "{number}: {error}");
    }
    // Without the guard the directory stays open, and is the host's.
    steps.remove(at);
    let at = steps.iter().position(|step| *step == Step::MapDescriptors).expect("there");
    steps.insert(at, Step::EnterTree(host));
    let output = run_steps(steps, "[ -d bin ] && /bin/pwd 2>&1").expect("it falls for it");
    assert!(output.contains("unreachable") || output.contains("No such file"), "{output}");
}

/// CVE-2019-16884 and CVE-2025-52881: a file that only looks like one of
/// `/proc`.
#[test]
fn settings_are_written_to_proc_only() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    let folder = tempfile::tempdir().expect("folder");
    let fake = folder.path().join("exec");
    fs::write(&fake, "").expect("written");
    let plan = plan_of(&config(&lab, "true", |_| {}), &lab).expect("a plan");
    let mut steps = plan.direct_steps();
    let path = std::ffi::CString::new(fake.display().to_string()).expect("text");
    steps.insert(0, Step::WriteFile { path, data: b"exec profile".to_vec() });
    let error = run_steps(steps, "true").expect_err("refused");
    assert_eq!(errno(&error), Some(Errno::ENODEV), "{error}");
    assert_eq!(fs::read(&fake).expect("there"), b"");
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Somebody who shares the root filesystem changes `/proc` and `/dev` all the
/// time: a container starts with everything hidden or not at all.
#[test]
fn a_race_for_mount_points_hides_everything_or_fails() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    fs::create_dir(lab.rootfs.join("other")).expect("made");
    // Wherever the mount went meanwhile.
    let script = "for at in /proc /away /other; do \
                  [ -e $at/keys ] && echo keys $({ wc -c < $at/keys; } 2>/dev/null); done; echo end";
    let plan = plan_of(&config(&lab, script, |_| {}), &lab).expect("a plan");
    let group = lab.tree.create("one", &Limits::default()).expect("group");
    let stop = AtomicBool::new(false);
    let (proc, away): (PathBuf, PathBuf) = (lab.rootfs.join("proc"), lab.rootfs.join("away"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // Either may be busy or gone: then the next round does it.
                let _ = fs::rename(&proc, &away);
                let _ = symlink("other", &proc);
                let _ = fs::remove_file(&proc);
                let _ = fs::rename(&away, &proc);
            }
        });
        // Also when an assertion fails: the other thread must end.
        let _stop = StopOnDrop(&stop);
        let (mut started, mut refused) = (0, 0);
        for _ in 0..150 {
            let mut container = Container::prepare_direct(&plan).expect("ready");
            let (mut reader, writer) = std::io::pipe().expect("pipe");
            match container.launch(&group, &[(writer.as_fd(), 1)]) {
                Ok(child) => {
                    drop(writer);
                    let mut text = String::new();
                    reader.read_to_string(&mut text).expect("UTF-8");
                    child.pidfd.wait(Some(LIMIT)).expect("waited").expect("ended");
                    assert!(text.ends_with("end\n"), "{text}");
                    let shown = text.lines().filter(|line| line.starts_with("keys"));
                    // Gone between two looks of the script: no number.
                    let hidden = |line: &str| matches!(line, "keys 0" | "keys");
                    assert!(shown.clone().all(hidden), "{text}");
                    started += 1;
                }
                Err(_) => refused += 1,
            }
        }
        assert_eq!(started + refused, 150);
    });
}

#[test]
fn every_field_that_cannot_be_carried_out_is_named() {
    let lab = Lab::new();
    let refused = [
        ("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt.closID"),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND"}), "linux.memoryPolicy.mode"),
        ("/linux/netDevices", json!({"eth0": {"name": "x"}}), "linux.netDevices.eth0.name"),
        ("/linux/mountLabel", json!("label"), "linux.mountLabel"),
        ("/linux/rootfsPropagation", json!("shared"), "linux.rootfsPropagation"),
        ("/linux/rootfsPropagation", json!("unbindable"), "linux.rootfsPropagation"),
        (
            "/linux/sysctl",
            json!({"kernel.core_pattern": "|/x"}),
            "linux.sysctl.kernel.core_pattern",
        ),
        ("/linux/timeOffsets", json!({"boottime": {"secs": 1}}), "linux.namespaces[time]"),
        ("/linux/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]), "user"),
        ("/linux/devices", json!([{"path": "/dev/x", "type": "a"}]), "linux.devices[0].type"),
        ("/linux/devices", json!([{"path": "dev/x", "type": "p"}]), "linux.devices[0].path"),
        ("/linux/maskedPaths", json!(["proc/keys"]), "linux.maskedPaths[0]"),
        ("/linux/personality", json!({"domain": "LINUX", "flags": ["x"]}), "personality.flags"),
        ("/mounts/0/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]), "mounts[0]"),
        ("/mounts/0/options", json!(["idmap"]), "mounts[0].options"),
        ("/mounts/0/destination", json!("/a/../b"), "mounts[0].destination"),
        ("/mounts/0/type", json!("nfs"), "mounts[0]"),
        ("/process/commandLine", json!("x"), "process.commandLine"),
        ("/process/user/username", json!("x"), "process.user.username"),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 9}), "ioPriority"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/windows", json!({"layerFolders": ["x"]}), "windows"),
        ("/vm", json!({"kernel": {"path": "/x"}}), "vm"),
        ("/solaris", json!({"milestone": "x"}), "solaris"),
        ("/zos", json!({"namespaces": [{"type": "pid"}]}), "zos"),
        ("/unheardOf", json!(1), "unheardOf"),
    ];
    for (pointer, value, named) in refused {
        let config = config(&lab, "true", |config| {
            let (above, name) = pointer.rsplit_once('/').expect("a path");
            config.pointer_mut(above).expect("there")[name] = value.clone();
            if name == "type" {
                config["mounts"][0]["options"] = json!([]);
            }
        });
        let error = plan_of(&config, &lab).map(drop).expect_err(pointer);
        assert!(error.contains(named), "{pointer}: {error}");
    }
}

/// Any JSON.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        prop_oneof![Just("/"), Just("/../x"), Just("\u{0}"), Just("rbind"), Just("mount")]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-zA-Z]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// All places in a document.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(name, below)| pointers(below, &format!("{at}/{name}"), all));
        }
        Value::Array(list) => {
            for (index, below) in list.iter().enumerate() {
                pointers(below, &format!("{at}/{index}"), all);
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is changed in a configuration, the result is a plan or an
    /// error with words.
    #[test]
    fn changed_configurations_never_panic(
        which in 0..4_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_json()), 1..4),
    ) {
        let (_, mut config) = recorded().swap_remove(which);
        for (place, value) in changes {
            let mut all = Vec::new();
            pointers(&config, "", &mut all);
            let pointer: &String = place.get(&all);
            *config.pointer_mut(pointer).expect("there") = value;
        }
        let folder = std::env::temp_dir();
        let result = parse_config(config.to_string().as_bytes(), Path::new("config.json"))
            .map_err(|error| chain(&error))
            .and_then(|spec| Plan::from_spec(&spec, &folder).map_err(|error| chain(&error)))
            .map(|plan| plan.direct_steps().len());
        prop_assert!(result.map_or_else(|error| !error.is_empty(), |steps| steps > 0));
    }

    /// Nor does text that is no configuration at all.
    #[test]
    fn text_never_panics(text in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(parse_config(&text, Path::new("config.json")).is_err());
    }
}
