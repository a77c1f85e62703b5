//! Streams and signals of a command that `unladen container run` runs: they
//! are its own.

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
use std::io::Write;
use std::process::{Command, Stdio};

use common::{stderr, stdout, wait_until};
use engine::{Engine, PATIENCE, Talking, fine, first_process, run, state_of};

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

#[test]
fn signals_reach_the_command() {
    let engine = Engine::new();
    // What a caller has ignored, as `nohup` and a shell's `&` do, rightly
    // stays so.
    let ignored = ignored_signals();
    let names: Vec<&str> = [
        "HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "CONT", "WINCH", "PWR", "IO", "VTALRM",
        "XCPU", "XFSZ", "RTMIN+1",
    ]
    .into_iter()
    .filter(|name| !ignored.contains(&format!("SIG{name}")))
    .collect();
    let traps: String = names.iter().map(|name| format!("trap 'echo {name}' {name}\n")).collect();
    let script =
        format!("{traps} trap 'echo TERM; exit 9' TERM; echo ready; while :; do sleep 0.02; done");
    let mut running = Talking::start(engine.run(&[]).args(["--", "bash", "-c", &script]));
    assert_eq!(running.line(), "ready");
    for name in &names {
        engine::kill(running.child.id(), name);
        assert_eq!(running.line(), *name);
    }
    engine::kill(running.child.id(), "TERM");
    assert_eq!(running.line(), "TERM");
    assert_eq!(running.end().status.code(), Some(9));
}

/// The signals that this process, and so what it starts, ignores
/// (proc_pid_status(5)).
fn ignored_signals() -> Vec<String> {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a mask");
    let mask = u64::from_str_radix(mask.trim(), 16).expect("hexadecimal");
    let all = nix::sys::signal::Signal::iterator();
    let ignored = all.filter(|signal| mask >> (*signal as i32 - 1) & 1 == 1);
    ignored.map(|signal| signal.to_string()).collect()
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
