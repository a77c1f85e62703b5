//! `unladen container run` with real containers: every flag as the command
//! sees it, exit codes, streams, signals, and nothing left behind.
//!
//! The containers run the host's own programs: its `/usr` is a read-only
//! volume in an otherwise empty root filesystem.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::too_many_lines,
    reason = "a test says what went wrong by panicking"
)]

mod common;
mod engine;

use std::borrow::BorrowMut;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{is_root, skip, stderr, stdout, unladen, wait_until};
use engine::{Engine, PATIENCE, cgroups_of, first_process, may_limit, state_of};

fn run(mut command: impl BorrowMut<Command>) -> Output {
    common::run(command.borrow_mut())
}

/// Runs to its end and gives what it wrote, if all went well.
fn fine(command: impl BorrowMut<Command>) -> String {
    let output = run(command);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

#[test]
fn the_exit_code_is_the_commands() {
    let engine = Engine::new();
    for code in [0, 1, 2, 7, 125, 255] {
        let output = run(engine.sh(&[], &format!("exit {code}")));
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert_eq!(stderr(&output), "");
    }
    // 128 and the signal's number, and not a signal that killed this program.
    let child = engine.sh(&[], "echo ready; sleep 1000").stdout(Stdio::piped()).spawn();
    let mut child = child.expect("started");
    let mut line = String::new();
    let output = child.stdout.take().expect("piped");
    BufReader::new(output).read_line(&mut line).expect("text");
    let inside = first_process(child.id()).expect("it runs");
    engine::kill(inside, "KILL");
    let status = child.wait().expect("waited");
    assert_eq!((status.code(), status.signal()), (Some(137), None));
}

#[test]
fn a_command_that_cannot_run_has_its_own_codes() {
    let engine = Engine::new();
    let text = engine.rootfs().join("text");
    fs::write(&text, "no program\n").expect("written");
    fs::set_permissions(&text, fs::Permissions::from_mode(0o644)).expect("changed");
    for (command, code, part) in [
        ("/no/such/program", 127, "cannot execute /no/such/program: ENOENT"),
        ("no-such-program", 127, "no-such-program"),
        ("/text", 126, "cannot execute /text: EACCES"),
        ("/usr", 126, "cannot execute /usr: EACCES"),
    ] {
        let output = run(engine.run(&[]).arg("--").arg(command));
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{command}: {error}");
        assert!(error.contains(part) && error.lines().count() == 1, "{error}");
    }
    fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).expect("changed");
    let output = run(engine.run(&[]).arg("--").arg("/text"));
    assert_eq!(output.status.code(), Some(126), "{}", stderr(&output));
    assert!(stderr(&output).contains("ENOEXEC"), "{}", stderr(&output));
}

#[test]
fn wrong_use_is_one_clear_error_with_125() {
    let engine = Engine::new();
    let rootfs = engine.rootfs().display().to_string();
    fs::write(engine.rootfs().join("file"), "").expect("written");
    let with = |more: &[&str]| -> Vec<String> {
        let words = ["--rootfs", &rootfs].into_iter().chain(more.iter().copied());
        words.chain(["--", "true"]).map(str::to_owned).collect()
    };
    for (arguments, part) in [
        (vec!["--".to_owned(), "true".to_owned()], "--rootfs"),
        (vec!["--rootfs".to_owned(), rootfs.clone()], "there is no command to run"),
        (with(&["--rootfs", "/x"]), "--rootfs"),
        (with(&["--image", "/x"]), "--image"),
        (vec!["--bundle".to_owned(), "/no/bundle".to_owned()], "/no/bundle"),
        (with(&["--bundle", "/x"]), "--bundle"),
        (with(&["--overlay", "--readonly"]), "--readonly"),
        (with(&["--memory", "64Q"]), "64Q"),
        (with(&["--memory", "0"]), "--memory"),
        (with(&["--swap", "1M"]), "--memory"),
        (with(&["--cpus", "0"]), "number of processors"),
        (with(&["--pids", "0"]), "--pids"),
        (with(&["--net", "moon"]), "loopback"),
        (with(&["--user", "nobody-here"]), "no user `nobody-here`"),
        (with(&["--user", "0:no-group"]), "no group `no-group`"),
        (with(&["-v", "name:/x"]), "./name"),
        (with(&["-v", "/no/such/source:/x"]), "/no/such/source"),
        (with(&["-v", "/usr:x"]), "not an absolute path"),
        (with(&["--tmpfs", "x"]), "not an absolute path"),
        (with(&["--device", "/dev/null:null"]), "not an absolute path"),
        (with(&["--device", "/dev/null:/dev/x:rx"]), "letters `rwm`"),
        (with(&["--device", "/dev/null", "--rootless"]), "--device needs root"),
        (with(&["--tmpfs", "/x:colour=red"]), "colour=red"),
        (with(&["--env", "=x"]), "no name before"),
        (with(&["--env-file", "/no/file"]), "/no/file"),
        (with(&["--workdir", "x"]), "not an absolute path"),
        (with(&["--workdir", "/file"]), "change to the directory /file ("),
        (with(&["--hostname", "a b"]), "host name"),
        (with(&["--cap-add", "FLY"]), "`FLY` is no capability"),
        (with(&["--ulimit", "files=3"]), "`files`"),
        (with(&["--ulimit", "nofile=3:2"]), "above the second"),
        (with(&["--no-new-privileges=maybe"]), "maybe"),
        (with(&["--seccomp", "/no/profile"]), ""),
        (with(&["--frobnicate"]), "--frobnicate"),
    ] {
        let output = run(unladen().args(["container", "run"]).args(&arguments));
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(125), "{arguments:?}: {error}");
        assert!(error.contains(part), "{arguments:?}: {error}");
        assert_eq!(error.matches("error: ").count(), 1, "{arguments:?}: {error}");
        assert_eq!(stdout(&output), "");
    }
    assert_eq!(run(unladen().args(["container", "run", "--help"])).status.code(), Some(0));
}

#[test]
fn every_flag_is_seen_inside() {
    if !is_root() {
        return skip("users other than one's own need root");
    }
    let engine = Engine::new();
    let folder = tempfile::tempdir().expect("folder");
    fs::write(folder.path().join("file"), "content\n").expect("written");
    fs::write(folder.path().join("env"), "# comment\nFROM_FILE=f\nBOTH=file\n").expect("written");
    fs::create_dir_all(engine.rootfs().join("etc")).expect("made");
    let passwd = "root:x:0:0::/root:\nworker:x:1000:1001::/home/worker:\n";
    fs::write(engine.rootfs().join("etc/passwd"), passwd).expect("written");
    fs::write(engine.rootfs().join("etc/group"), "team:x:50:worker\n").expect("written");
    let path = folder.path().display();
    let script = r#"
        echo host $(hostname)
        echo id $(id -u):$(id -g) $(id -G)
        echo where $(pwd)
        echo home $HOME name $HOSTNAME
        echo env $GIVEN $FROM_FILE $BOTH $PASSED ${UNKNOWN-unset}
        echo limits $(ulimit -Sn) $(ulimit -Hn) $(ulimit -c)
        echo umask $(umask)
        echo score $(cat /proc/self/oom_score_adj)
        grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status
        cat /read/file; (echo x > /read/file) 2>/dev/null && echo wrote-read
        echo y > /write/file
        echo z > /scratch/file && stat -f -c '%T %b' /scratch
        echo lines $(grep -c : /proc/net/dev)
        echo pid $$
    "#;
    let output = fine(
        engine
            .sh(
                &[
                    "--hostname",
                    "box",
                    "--user",
                    "worker",
                    "--workdir",
                    "/usr/bin",
                    "-e",
                    "GIVEN=a b",
                    "--env",
                    "PASSED",
                    "-e",
                    "UNKNOWN",
                    "--env-file",
                    &format!("{path}/env"),
                    "-e",
                    "BOTH=flag",
                    "--ulimit",
                    "nofile=100:200",
                    "--ulimit",
                    "core=0",
                    "--oom-score-adj",
                    "77",
                    "--cap-add",
                    "net_raw",
                    "--cap-drop",
                    "KILL",
                    "-v",
                    &format!("{path}:/read:ro"),
                    "--volume",
                    &format!("{path}:/write"),
                    "--tmpfs",
                    "/scratch:size=1m,mode=777",
                ],
                script,
            )
            .env("PASSED", "on"),
    );
    // Writable by everybody, or the command's user could not.
    assert_eq!(
        output.lines().collect::<Vec<_>>(),
        [
            "host box",
            "id 1000:1001 1001 50",
            "where /usr/bin",
            "home /home/worker name box",
            "env a b f flag on unset",
            "limits 100 200 0",
            "umask 0022",
            "score 77",
            "CapEff:\t0000000000002000",
            "CapBnd:\t00000000800425db",
            "NoNewPrivs:\t1",
            "content",
            "tmpfs 256",
            "lines 1",
            "pid 1",
        ],
        "{output}"
    );
}

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
fn device_nodes_of_others_are_of_no_use() {
    if !is_root() {
        return skip("device nodes need root");
    }
    let engine = Engine::new();
    let folder = tempfile::tempdir().expect("folder");
    for place in [&engine.rootfs(), folder.path()] {
        let made = run(Command::new("mknod").arg(place.join("node")).args(["c", "1", "5"]));
        assert!(made.status.success(), "{}", stderr(&made));
    }
    let volume = format!("{}:/volume", folder.path().display());
    let script = "for node in /node /volume/node /dev/zero; do head -c 1 $node | wc -c; done 2>&1";
    for mode in [&[][..], &["--overlay"], &["--readonly"], &["--rootless"]] {
        let flags = [&["-v", &volume][..], mode].concat();
        let seen = fine(engine.sh(&flags, script));
        assert_eq!(seen.matches("Permission denied").count(), 2, "{mode:?}: {seen}");
        assert_eq!(seen.lines().last(), Some("1"), "{mode:?}: {seen}");
    }
    // Who may make nodes can only make those that any container has.
    let script = "for number in '1 5' '1 1'; do rm -f /tmp/node; mknod /tmp/node c $number; \
                  head -c 1 /tmp/node | wc -c; done 2>&1";
    let flags = ["--cap-add", "MKNOD", "--cap-add", "SYS_RAWIO", "--tmpfs", "/tmp:dev"];
    let seen = fine(engine.sh(&flags, script));
    assert_eq!(seen.lines().next(), Some("1"), "{seen}");
    assert!(seen.contains("not permitted"), "{seen}");
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
fn streams_are_the_commands_own() {
    let engine = Engine::new();
    // Every byte, and more than a pipe holds.
    let data: Vec<u8> = (0..=u8::MAX).cycle().take(3_000_001).collect();
    let mut command = engine.run(&[]);
    command.args(["--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("started");
    let mut input = child.stdin.take().expect("piped");
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            input.write_all(&data).expect("written");
            drop(input);
        });
        child.wait_with_output().expect("ended")
    });
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == data, "{} bytes came back", output.stdout.len());
    let output = run(engine.sh(&[], "echo out; echo error >&2"));
    assert_eq!((stdout(&output).as_str(), stderr(&output).as_str()), ("out\n", "error\n"));
    // They are the same open files, so nothing is copied and positions are shared.
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("out");
    let file = fs::File::create(&path).expect("made");
    fine(engine.sh(&[], "stat -L -c %i /proc/self/fd/1 >&2; echo text").stdout(file));
    assert_eq!(fs::read_to_string(&path).expect("there"), "text\n");
    let much = run(engine.sh(&[], "head -c 50000000 /dev/zero"));
    assert_eq!(much.stdout.len(), 50_000_000);
}

#[test]
fn a_reader_that_has_seen_enough_and_no_input_are_no_trouble() {
    let engine = Engine::new();
    let words = |command: &Command| {
        let words: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| format!("'{}'", word.to_string_lossy()))
            .collect();
        words.join(" ")
    };
    let yes = words(engine.run(&[]).args(["--", "yes"]));
    let script = format!("set -o pipefail; {yes} | head -n 1; echo ${{PIPESTATUS[0]}}");
    let output = run(Command::new("bash").arg("-c").arg(script));
    // `yes` as process 1 is told by an error, since the signal is dropped.
    assert!(stdout(&output).starts_with("y\n1"), "{} {}", stdout(&output), stderr(&output));
    let cat = words(engine.run(&[]).args(["--", "cat"]));
    let output = run(Command::new("bash").arg("-c").arg(format!("{cat} <&-")));
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), ""));
}

#[test]
fn nothing_but_the_streams_is_inherited() {
    let engine = Engine::new();
    let mut command = engine.sh(&[], "ls /proc/self/fd | tr '\\n' ' '; cat <&9");
    let words: Vec<String> = std::iter::once(command.get_program().to_owned())
        .chain(command.get_args().map(ToOwned::to_owned))
        .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")))
        .collect();
    let script = format!("exec 9</etc/passwd; exec {}", words.join(" "));
    let output = run(Command::new("bash").arg("-c").arg(script));
    assert!(stdout(&output).starts_with("0 1 2 3 "), "{}", stdout(&output));
    assert!(!stdout(&output).contains("root:"), "{}", stdout(&output));
    assert_ne!(output.status.code(), Some(0));
    drop(run(&mut command));
}

/// A running container whose output is read line by line.
struct Talking {
    child: std::process::Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Talking {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("started");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("more").expect("text")
    }

    fn end(mut self) -> Output {
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

#[test]
fn signals_reach_the_command() {
    let engine = Engine::new();
    let names = [
        "HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "CONT", "WINCH", "PWR", "IO", "VTALRM",
        "XCPU", "XFSZ", "RTMIN+1",
    ];
    let traps: String = names.iter().map(|name| format!("trap 'echo {name}' {name}\n")).collect();
    let script =
        format!("{traps} trap 'echo TERM; exit 9' TERM; echo ready; while :; do sleep 0.02; done");
    let mut running = Talking::start(engine.run(&[]).args(["--", "bash", "-c", &script]));
    assert_eq!(running.line(), "ready");
    for name in names {
        engine::kill(running.child.id(), name);
        assert_eq!(running.line(), name);
    }
    engine::kill(running.child.id(), "TERM");
    assert_eq!(running.line(), "TERM");
    assert_eq!(running.end().status.code(), Some(9));
}

#[test]
fn an_ignored_signal_stays_ignored_by_us() {
    let engine = Engine::new();
    let mut command = engine.run(&[]);
    let script =
        "trap 'echo HUP' HUP; trap 'echo USR1' USR1; echo ready; while :; do sleep 0.02; done";
    command.args(["--", "bash", "-c", script]);
    let words: Vec<String> = std::iter::once(command.get_program().to_owned())
        .chain(command.get_args().map(ToOwned::to_owned))
        .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")))
        .collect();
    let script = format!("trap '' HUP; exec {}", words.join(" "));
    let mut running = Talking::start(Command::new("bash").arg("-c").arg(script));
    assert_eq!(running.line(), "ready");
    engine::kill(running.child.id(), "HUP");
    engine::kill(running.child.id(), "USR1");
    assert_eq!(running.line(), "USR1");
    let inside = first_process(running.child.id()).expect("it runs");
    engine::kill(inside, "KILL");
    assert_eq!(running.end().status.code(), Some(137));
}

#[test]
fn stopping_stops_the_command_too() {
    let engine = Engine::new();
    let mut running =
        Talking::start(engine.sh(&[], "echo ready; exec sleep 1000").stdin(Stdio::null()));
    assert_eq!(running.line(), "ready");
    let own = running.child.id();
    let inside = first_process(own).expect("it runs");
    let both = |state: char| {
        wait_until(PATIENCE, || state_of(own) == Some(state) && state_of(inside) == Some(state))
    };
    assert!(both('S'), "{:?} {:?}", state_of(own), state_of(inside));
    engine::kill(own, "TSTP");
    assert!(both('T'), "{:?} {:?}", state_of(own), state_of(inside));
    engine::kill(own, "CONT");
    assert!(both('S'), "{:?} {:?}", state_of(own), state_of(inside));
    engine::kill(inside, "KILL");
    assert_eq!(running.end().status.code(), Some(137));
}

#[test]
fn limits_are_set_and_gone_afterwards() {
    if !may_limit() {
        return skip("limits need a delegated cgroup");
    }
    let engine = Engine::new();
    let flags = ["--memory", "64M", "--swap", "0", "--cpus", "0.5", "--pids", "20"];
    let mut running = Talking::start(&mut engine.sh(&flags, "echo ready; sleep 1000"));
    assert_eq!(running.line(), "ready");
    let folders = cgroups_of(running.child.id());
    assert!(!folders.is_empty());
    let has = |names: [&str; 2], values: [&str; 2]| {
        let files = folders.iter().flat_map(|folder| names.map(|name| folder.join(name)));
        let texts: Vec<String> = files.filter_map(|file| fs::read_to_string(file).ok()).collect();
        assert!(texts.iter().any(|text| values.contains(&text.trim())), "{names:?}: {texts:?}");
    };
    has(["memory.max", "memory.limit_in_bytes"], ["67108864"; 2]);
    has(["pids.max"; 2], ["20"; 2]);
    has(["cpu.max", "cpu.cfs_quota_us"], ["50000 100000", "50000"]);
    let inside = first_process(running.child.id()).expect("it runs");
    engine::kill(inside, "KILL");
    let own = running.child.id();
    assert_eq!(running.end().status.code(), Some(137));
    assert_eq!(cgroups_of(own), Vec::<std::path::PathBuf>::new());
    // They bite: more processes than allowed, more memory than allowed.
    let output =
        run(&mut engine.sh(&["--pids", "5"], "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done"));
    assert_ne!(output.status.code(), Some(0));
    let hog = ["--memory", "16M", "--swap", "0"];
    let output =
        run(&mut engine.sh(&hog, "exec head -c 100000000 /dev/zero | tail -c 100000000 | wc -c"));
    assert!(!stdout(&output).contains("100000000"), "{} {}", stdout(&output), stderr(&output));
    let said = "unladen: the kernel killed a process of the container for lack of memory \
                (its limit: 16 MiB)\n";
    assert!(stderr(&output).ends_with(said), "{}", stderr(&output));
    // Who ends within the limit hears nothing of it.
    let output = run(&mut engine.sh(&hog, "kill -KILL $$; exit 3"));
    assert_eq!((output.status.code(), stderr(&output)), (Some(3), String::new()));
}

#[test]
fn killing_the_runner_kills_the_container_and_clean_removes_the_rest() {
    if !is_root() {
        // A session's cgroup is one run's at a time.
        return skip("limited containers side by side need root");
    }
    let engine = Engine::new();
    let start = || {
        let mut running =
            Talking::start(&mut engine.sh(&["--pids", "20"], "echo ready; sleep 1000"));
        assert_eq!(running.line(), "ready");
        running
    };
    let (mut killed, neighbour) = (start(), start());
    let inside = first_process(killed.child.id()).expect("it runs");
    killed.child.kill().expect("killed");
    let id = killed.child.id();
    killed.end();
    assert!(wait_until(PATIENCE, || state_of(inside).is_none_or(|state| state == 'Z')));
    let left = cgroups_of(id);
    assert!(!left.is_empty(), "nothing was left: has cleaning become automatic?");
    // Only by the names of these two, since other tests run at the same time.
    for own in [id, neighbour.child.id()] {
        let folder = cgroups_of(own).into_iter().next().expect("a cgroup");
        let top = folder.ancestors().find_map(|path| {
            let name = path.file_name()?.to_string_lossy().into_owned();
            name.strip_prefix("unladen-").map(str::to_owned)
        });
        let output = run(unladen().arg("clean").arg(top.expect("an id")));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    assert_eq!(cgroups_of(id), Vec::<std::path::PathBuf>::new());
    let inside = first_process(neighbour.child.id()).expect("the neighbour still runs");
    assert!(!cgroups_of(neighbour.child.id()).is_empty());
    engine::kill(inside, "KILL");
    assert_eq!(neighbour.end().status.code(), Some(137));
}

#[test]
fn a_printed_spec_is_a_bundle() {
    let engine = Engine::new();
    let flags = ["--hostname", "printed", "-e", "A=b", "--ulimit", "nofile=99"];
    let script = "echo $(hostname) $A $(ulimit -n); grep -c . /proc/mounts";
    let text = fine(engine.sh(&flags, script));
    let mut command = engine.sh(&flags, script);
    let words: Vec<String> =
        command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut printing = unladen();
    let (front, back) = words.split_at(2);
    printing.args(front).arg("--print-spec").args(back);
    let spec = fine(&mut printing);
    assert_eq!(spec, fine(&mut printing), "two printed specs differ");
    let bundle = tempfile::tempdir().expect("folder");
    fs::write(bundle.path().join("config.json"), &spec).expect("written");
    let output = fine(unladen().args(["container", "run", "--bundle"]).arg(bundle.path()));
    assert_eq!(output, text);
    assert_eq!(fine(&mut command), text);
    let broken = spec.replace("\"hostname\"", "\"hostnam\"");
    fs::write(bundle.path().join("config.json"), broken).expect("written");
    let output = run(unladen().args(["container", "run", "--bundle"]).arg(bundle.path()));
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).contains("hostnam"), "{}", stderr(&output));
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

#[test]
fn help_and_readme_tell_the_same_codes() {
    let help = fine(unladen().args(["container", "run", "--help"]));
    for code in ["125", "126", "127", "128+n"] {
        assert!(help.contains(code), "{help}");
    }
    let mut text = String::new();
    fs::File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"))
        .and_then(|mut file| file.read_to_string(&mut text))
        .expect("README.md");
    let codes = help.split("Exit codes:").nth(1).expect("a table");
    for line in codes.lines().filter(|line| !line.trim().is_empty()) {
        let (code, meaning) = line.trim().split_once("  ").expect("two columns");
        let row = format!("| {code} | {meaning} |");
        assert!(text.contains(&row), "the README lacks: {row}");
    }
}
