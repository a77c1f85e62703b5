//! What a command finds inside when it is run by `unladen container run`:
//! privileges, filesystems, networks, the filter of system calls.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::too_many_lines,
    reason = "a test says what went wrong by panicking"
)]

mod common;
mod engine;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{is_root, skip, stderr, stdout};
use engine::{Engine, Talking, fine, run};

#[test]
fn privileges_are_few_and_can_be_changed() {
    if !is_root() {
        return skip("without root they are those of a user namespace");
    }
    let engine = Engine::new();
    let status = |flags: &[&str]| {
        fine(engine.sh(flags, "grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status"))
    };
    // Podman's eleven.
    let set = "00000000800405fb";
    assert_eq!(status(&[]), format!("CapEff:\t{set}\nCapBnd:\t{set}\nNoNewPrivs:\t1\n"));
    let none = status(&["--cap-drop", "all", "--no-new-privileges=false"]);
    assert_eq!(none, format!("CapEff:\t{0:016}\nCapBnd:\t{0:016}\nNoNewPrivs:\t0\n", 0));
    let one = status(&["--cap-drop", "ALL", "--cap-add", "CAP_CHOWN"]);
    assert!(one.starts_with("CapEff:\t0000000000000001\n"), "{one}");
    let all = status(&["--cap-add", "ALL", "--cap-drop", "CHOWN"]);
    let effective = all.lines().next().and_then(|line| line.split('\t').nth(1)).expect("a set");
    let effective = u64::from_str_radix(effective, 16).expect("hexadecimal");
    // All that this test has itself, but one.
    assert!(effective.count_ones() > 12 && effective & 1 == 0, "{all}");
    // What they are good for: a device node.
    let node = "mknod /tmp/node c 1 3";
    assert_ne!(run(engine.sh(&["--tmpfs", "/tmp"], node)).status.code(), Some(0));
    fine(engine.sh(&["--tmpfs", "/tmp", "--cap-add", "MKNOD"], node));
}

#[test]
fn what_is_mounted_in_a_volume_is_read_only_with_it() {
    if !is_root() {
        return skip("mounts of the host need root");
    }
    let engine = Engine::new();
    let folder = tempfile::tempdir().expect("folder");
    fs::create_dir(folder.path().join("deep")).expect("made");
    let volume = format!("{}:/volume:ro", folder.path().display());
    let script = "for place in /volume /volume/deep; do touch $place/file; done 2>&1";
    let command = engine.sh(&["-v", &volume], script);
    // In a mount namespace of its own, which ends with the command.
    let mut apart = Command::new("unshare");
    apart.args(["-m", "sh", "-c", "mount -t tmpfs deep $0/deep && exec \"$@\""]);
    apart.arg(folder.path()).arg(command.get_program()).args(command.get_args());
    let output = run(&mut apart);
    let seen = format!("{}{}", stdout(&output), stderr(&output));
    assert_eq!(seen.matches("Read-only file system").count(), 2, "{seen}");
}

#[test]
fn standard_filesystems_are_there() {
    let engine = Engine::new();
    let script = r"
        for path in /proc /dev /dev/pts /dev/mqueue /dev/shm /sys; do
            awk -v path=$path '$2 == path { print $3 }' /proc/mounts
        done
        ls /dev; (echo 1 > /sys/kernel/profiling) 2>/dev/null && echo wrote-sys
        cat /proc/keys | wc -c; ls /sys/firmware | wc -l
        (echo 1 > /proc/sys/kernel/randomize_va_space) 2>/dev/null && echo wrote-proc
        echo x > /dev/shm/x && cat /dev/shm/x
    ";
    let output = fine(engine.sh(&[], script));
    let kinds = ["proc", "tmpfs", "devpts", "mqueue", "tmpfs", "sysfs"];
    let nodes = [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
        "stdout", "tty", "urandom", "zero",
    ];
    let expected: Vec<&str> = kinds.into_iter().chain(nodes).chain(["0", "0", "x"]).collect();
    assert_eq!(output.lines().collect::<Vec<_>>(), expected, "{output}");
}

#[test]
fn changes_stay_are_dropped_or_are_refused() {
    let engine = Engine::new();
    let file = engine.rootfs().join("tmp/file");
    let write = "echo new > /tmp/file; cat /tmp/file; rm -r /etc; mkdir /etc; ls /etc; ls -ld / | cut -c1-10";
    fs::create_dir_all(engine.rootfs().join("etc/deep")).expect("made");
    fs::set_permissions(engine.rootfs(), fs::Permissions::from_mode(0o751)).expect("changed");
    let before = engine.files();
    let output = fine(engine.sh(&["--overlay"], write));
    assert_eq!(output, "new\ndrwxr-x--x\n");
    assert_eq!(engine.files(), before, "the overlay wrote through");
    // A second one begins anew.
    assert_eq!(fine(engine.sh(&["--overlay"], "ls /tmp /etc")), "/etc:\ndeep\n\n/tmp:\n");
    let output = run(engine.sh(&["--readonly"], "echo new > /tmp/file"));
    assert_ne!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("Read-only file system"), "{}", stderr(&output));
    assert!(!file.exists());
    fine(engine.sh(&[], "echo kept > /tmp/file"));
    assert_eq!(fs::read_to_string(file).expect("there"), "kept\n");
}

#[test]
fn the_network_is_its_own_unless_asked_otherwise() {
    let engine = Engine::new();
    let script = "readlink /proc/self/ns/net; bash -c 'exec 3<>/dev/udp/127.0.0.1/9 && echo up'";
    let host = fs::read_link("/proc/self/ns/net").expect("link").display().to_string();
    for flags in [&[][..], &["--net", "loopback"], &["--net", "none"]] {
        let output = fine(engine.sh(flags, script));
        assert!(!output.contains(&host) && output.ends_with("up\n"), "{flags:?}: {output}");
    }
    let output = fine(engine.sh(&["--net", "host"], script));
    assert!(output.contains(&host), "{output}");
}

#[test]
fn a_bridge_is_reached_by_the_host_and_leaves_nothing() {
    if !is_root() {
        return skip("bridges need root");
    }
    let engine = Engine::new();
    let links = |runner: u32| {
        let id = format!("unladen-run-{runner}-");
        let folders = fs::read_dir("/sys/class/net").expect("folder").flatten();
        let alias = |folder: fs::DirEntry| fs::read_to_string(folder.path().join("ifalias"));
        folders
            .filter_map(|folder| alias(folder).ok())
            .filter(|alias| alias.starts_with(&id))
            .count()
    };
    let script = "grep -c eth0 /proc/net/dev; read word";
    let mut command = engine.sh(&["--net", "bridge"], script);
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Talking::start(&mut command);
    assert_eq!(running.line(), "1");
    assert_eq!(links(running.child.id()), 1);
    drop(running.child.stdin.take());
    let mut said = String::new();
    running.child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    assert!(said.starts_with("unladen: the container's address is "), "{said}");
    let runner = running.child.id();
    assert_eq!(running.end().status.code(), Some(1));
    assert_eq!(links(runner), 0);
}

#[test]
fn system_calls_are_filtered_unless_asked_otherwise() {
    let engine = Engine::new();
    let mode = |flags: &[&str]| fine(engine.sh(flags, "grep Seccomp: /proc/self/status"));
    assert_eq!(mode(&[]), "Seccomp:\t2\n");
    assert_eq!(mode(&["--seccomp", "none"]), "Seccomp:\t0\n");
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("profile.json");
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}"#;
    fs::write(&path, profile).expect("written");
    let flags = ["--overlay", "--seccomp", &path.display().to_string()];
    let output = run(engine.sh(&flags, "mkdir /tmp/x"));
    assert!(stderr(&output).contains("Operation not supported"), "{}", stderr(&output));
}

#[test]
fn a_user_namespace_needs_no_privileges() {
    let engine = Engine::new();
    let script =
        "echo $(id -u):$(id -g) $(cat /proc/self/uid_map); echo x > /x; stat -c '%u %g' /x";
    let output = fine(engine.sh(&["--rootless", "--overlay"], script));
    let own = nix::unistd::geteuid();
    assert_eq!(output, format!("0:0 0 {own} 1\n0 0\n"));
    let output = fine(engine.sh(
        &["--rootless", "--readonly", "--user", "7:8", "--net", "host"],
        "id -u; id -g; ls /sys | wc -l",
    ));
    assert!(output.starts_with("7\n8\n") && !output.ends_with("\n0\n"), "{output}");
    if !is_root() {
        return;
    }
    if !Path::new("/usr/bin/setpriv").exists() {
        return skip("setpriv (util-linux) is not installed");
    }
    // The same without root, by itself.
    let output = fine(&mut engine.as_stranger(&["--overlay"], script));
    assert_eq!(output, format!("0:0 0 {} 1\n0 0\n", engine::STRANGER));
    let output = run(&mut engine.as_stranger(&["--readonly", "--memory", "64M"], "true"));
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(125), "{error}");
    assert!(error.contains("no memory limit") && error.contains("systemd-run --user"), "{error}");
    let output = run(&mut engine.as_stranger(&["--readonly", "--user", "7"], "exit 5"));
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
}
