//! `unladen container run --tty` at a real terminal: the command has one of
//! its own, keys and sizes reach it, and the caller's is as before afterwards.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test says what went wrong by panicking"
)]

mod common;
mod engine;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use common::{run, stderr, stdout, wait_until};
use engine::{Engine, PATIENCE};
use nix::poll::{PollFd, PollFlags, poll};
use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use unladen::sys::terminal::WindowSize;

/// The caller's terminal, as the person in front of it sees it.
struct Screen {
    master: File,
    slave: OwnedFd,
    seen: String,
    child: Child,
}

impl Screen {
    fn start(mut command: Command) -> Self {
        let pty = openpty(None, None).expect("a terminal");
        WindowSize { rows: 33, columns: 101 }.apply(&pty.slave).expect("sized");
        let stream = || Stdio::from(pty.slave.try_clone().expect("cloned"));
        let child = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn();
        let child = child.expect("started");
        Self { master: pty.master.into(), slave: pty.slave, seen: String::new(), child }
    }

    /// Waits until a text has appeared since the last one.
    fn expect(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let mut entry = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut entry, 60_000_u16).expect("polled");
            assert!(ready > 0, "`{text}` did not appear in: {}", self.seen);
            let mut buffer = [0; 4096];
            let count = self.master.read(&mut buffer).expect("read");
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        let at = self.seen.find(text).expect("just seen");
        self.seen.drain(..at + text.len());
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("written");
    }

    fn mode(&self) -> Termios {
        tcgetattr(&self.slave).expect("a terminal")
    }

    fn is_raw(&self) -> bool {
        !self.mode().local_flags.contains(LocalFlags::ICANON)
    }

    fn end(&mut self) -> Option<i32> {
        self.child.wait().expect("waited").code()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const LOOP: &str = "echo ready; while :; do sleep 0.02; done";

#[test]
fn the_command_has_a_terminal_of_its_own() {
    let engine = Engine::new();
    let script =
        "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo three; echo $TERM; exit 4";
    let mut command = engine.sh(&["-it"], script);
    command.env("TERM", "dumb");
    let mut screen = Screen::start(command);
    for text in ["/dev/pts/0", "33 101", "three", "dumb"] {
        screen.expect(text);
    }
    assert_eq!(screen.end(), Some(4));
}

#[test]
fn keys_reach_the_command_and_the_callers_terminal_is_restored() {
    let engine = Engine::new();
    let script = format!("trap 'echo interrupted; exit 3' INT; {LOOP}");
    let mut screen = Screen::start(engine.sh(&["--tty"], &script));
    let before = screen.mode();
    screen.expect("ready");
    assert!(screen.is_raw());
    screen.press("\x03");
    screen.expect("interrupted");
    assert_eq!(screen.end(), Some(3));
    let after = screen.mode();
    assert_eq!(after.local_flags, before.local_flags);
    assert_eq!(after.input_flags, before.input_flags);
    assert!(after.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO));
}

#[test]
fn a_new_size_and_signals_reach_the_command() {
    let engine = Engine::new();
    let script = format!("trap 'stty size' WINCH; trap 'echo told; exit 6' TERM; {LOOP}");
    let mut screen = Screen::start(engine.sh(&["--tty"], &script));
    screen.expect("ready");
    WindowSize { rows: 40, columns: 120 }.apply(&screen.slave).expect("sized");
    // The kernel tells the foreground of the terminal, which this test's
    // process group is not.
    engine::kill(screen.child.id(), "WINCH");
    screen.expect("40 120");
    engine::kill(screen.child.id(), "TERM");
    screen.expect("told");
    assert_eq!(screen.end(), Some(6));
    assert!(!screen.is_raw());
}

#[test]
fn stopping_gives_the_terminal_back_for_a_while() {
    let engine = Engine::new();
    let mut screen = Screen::start(engine.sh(&["--tty"], &format!("trap 'exit 8' TERM; {LOOP}")));
    screen.expect("ready");
    let runner = screen.child.id();
    engine::kill(runner, "TSTP");
    assert!(wait_until(PATIENCE, || engine::state_of(runner) == Some('T')));
    assert!(!screen.is_raw());
    engine::kill(runner, "CONT");
    assert!(wait_until(PATIENCE, || screen.is_raw()));
    engine::kill(runner, "TERM");
    assert_eq!(screen.end(), Some(8));
    assert!(!screen.is_raw());
}

#[test]
fn much_is_shown_whole() {
    let engine = Engine::new();
    let mut screen = Screen::start(engine.sh(&["-t"], "seq 1 20000; echo the-end"));
    screen.expect("\r\n19999\r\n20000\r\nthe-end");
    assert_eq!(screen.end(), Some(0));
}

#[test]
fn a_pipe_in_place_of_the_callers_terminal_ends_like_one() {
    let engine = Engine::new();
    let mut command = engine.run(&["-t"]);
    command.args(["--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("started");
    child.stdin.take().expect("piped").write_all(b"line\n").expect("written");
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("line\r\n"), "{}", stdout(&output));
    let output = run(&mut engine.sh(&["-t"], "tty; exit 2"));
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), "/dev/pts/0\r\n"));
}
