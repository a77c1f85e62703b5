//! More processes in a container of `unladen-oci`, its terminal and the
//! descriptors that it is given. With real containers, as root.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod oci;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use common::wait_until;
use oci::{PATIENCE, bundle};
use serde_json::json;

#[test]
fn exec_joins_the_container_with_the_rights_that_it_is_given() {
    let lab = bundle!();
    lab.launch("c");
    let pid = lab.state("c")["pid"].to_string();
    let script = "for kind in pid mnt; do readlink /proc/self/ns/$kind; done; grep CapEff /proc/self/status; \
                  echo $HOW $PWD; id -u; cat /proc/self/cgroup; exit 9";
    let (code, text) = lab.oci(&[
        "exec", "--env", "HOW=so", "--cwd", "/tmp", "--user", "7:8", "c", "sh", "-c", script,
    ]);
    assert_eq!(code, 9, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    for (line, kind) in lines.iter().zip(["pid", "mnt"]) {
        let theirs = fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("alive");
        assert_eq!(*line, theirs.to_string_lossy());
    }
    assert_eq!(lines[2], "CapEff:\t0000000000000000");
    assert_eq!(lines[3..5], ["so /tmp", "7"]);
    // Its own cgroup is the root of what it sees.
    assert!(lines[5..].iter().all(|line| line.ends_with(":/")), "{text}");
    let process = json!({
        "args": ["sh", "-c", "echo from a file"], "cwd": "/", "user": {"uid": 0, "gid": 0},
        "env": ["PATH=/usr/bin"],
    });
    fs::write(lab.file("process.json"), process.to_string()).expect("written");
    let pid_file = lab.file("exec.pid");
    let (code, text) =
        lab.oci(&["exec", "--process", &lab.file("process.json"), "--pid-file", &pid_file, "c"]);
    assert_eq!((code, text.as_str()), (0, "from a file\n"));
    assert!(fs::read_to_string(&pid_file).expect("a pid").parse::<i32>().is_ok());
    let (_, text) = lab.oci(&["exec", "c", "nope"]);
    assert!(text.contains("exec: \"nope\": executable file not found in $PATH"), "{text}");
    // The class of CVE-2024-21626: a way out through a descriptor.
    for number in 3..12 {
        let cwd = format!("/proc/self/fd/{number}");
        let (code, text) = lab.oci(&["exec", "--cwd", &cwd, "c", "pwd"]);
        assert_ne!(code, 0, "{cwd}: {text}");
    }
    lab.must(&["exec", "--detach", "c", "sleep", "60"]);
    let pids: Vec<i32> =
        serde_json::from_str(&lab.must(&["ps", "--format", "json", "c"])).expect("JSON");
    assert!(pids.len() >= 2 && pids.contains(&pid.parse().expect("number")), "{pids:?}");
    let table = lab.must(&["ps", "c"]);
    assert_eq!(table.lines().count(), pids.len() + 1, "{table}");
    lab.must(&["delete", "--force", "c"]);
    assert!(wait_until(PATIENCE, || pids.iter().all(|pid| !oci::runs(*pid))));
    lab.nothing_is_left();
}

/// Accepts one terminal.
fn terminal(listener: &UnixListener) -> fs::File {
    let (socket, _) = listener.accept().expect("a connection");
    let (_, mut fds) =
        unladen::sys::fdpass::receive(socket.as_fd()).expect("received").expect("a message");
    fs::File::from(fds.remove(0))
}

/// Reads until this was said.
fn hear(terminal: &mut fs::File, words: &str) -> String {
    let mut said = String::new();
    while !said.contains(words) {
        let mut part = [0; 512];
        match terminal.read(&mut part) {
            Ok(length) if length > 0 => said.push_str(&String::from_utf8_lossy(&part[..length])),
            _ => break,
        }
    }
    assert!(said.contains(words), "{said:?} has no {words:?}");
    said
}

#[test]
fn a_terminal_is_the_containers_own_and_sent_to_who_asks_for_it() {
    let mut lab =
        bundle!("tty; stty size; test -t 0 && echo said >/dev/console; read x; echo got $x");
    lab.change(|config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["consoleSize"] = json!({"height": 33, "width": 101});
    });
    assert!(lab.fails(&["create", "--bundle", &lab.path(), "c"]).contains("--console-socket"));
    let path = lab.file("console");
    let listener = UnixListener::bind(&path).expect("bound");
    lab.must(&["create", "--bundle", &lab.path(), "--console-socket", &path, "c"]);
    let mut master = terminal(&listener);
    lab.must(&["start", "c"]);
    let said = hear(&mut master, "said\r\n");
    assert!(said.starts_with("/dev/pts/0\r\n33 101\r\n"), "{said:?}");
    let second = lab.file("second");
    let others = UnixListener::bind(&second).expect("bound");
    lab.must(&["exec", "--tty", "--detach", "--console-socket", &second, "c", "tty"]);
    hear(&mut terminal(&others), "/dev/pts/1\r\n");
    master.write_all(b"this\n").expect("written");
    hear(&mut master, "got this\r\n");
    lab.stops("c");
    lab.is_deleted("c");
}

#[test]
fn only_descriptors_that_were_asked_for_are_handed_on() {
    let lab = bundle!(
        "echo to-three >&3; for n in 0 1 2 3 4 5 6 7 8 9; do test -e /proc/$$/fd/$n && echo $n; done"
    );
    // The shell opens number 3 for the runtime, and 4, which is not asked for.
    let mut command = lab.command(&["run", "--preserve-fds", "1", "--bundle", &lab.path(), "c"]);
    let script = format!("exec 3>{} 4</dev/null; exec \"$@\"", lab.file("three"));
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    command = std::process::Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(program).args(arguments).stdin(Stdio::null());
    let output = command.output().expect("ran");
    assert_eq!(common::stdout(&output), "0\n1\n2\n3\n", "{}", common::stderr(&output));
    assert_eq!(fs::read_to_string(lab.file("three")).expect("written"), "to-three\n");
    let error = lab.fails(&["create", "--preserve-fds", "700", "--bundle", &lab.path(), "c"]);
    assert!(error.contains("cannot hand on descriptor"), "{error}");
    lab.nothing_is_left();
}
