//! An image that sets traps does not get what it wants.
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
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{is_root, skip as skipped};
use lab::bundle::{config, plan_of};
use lab::{LIMIT, Lab};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use serde_json::json;
use unladen::container::Container;
use unladen::container::cgroup::Limits;
use unladen::sys::spawn::{Command, Launch, Links, Program, Slot, SpawnError, Step};

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
