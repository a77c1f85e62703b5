//! The process-making layer, with real processes: descriptors, signals,
//! errors of steps, waiting and killing.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use unladen::sys::pidfd::{Exit, PidFd};
use unladen::sys::spawn::{Command, CommandError, Launch, Program, SpawnError, Step};

const LIMIT: Option<Duration> = Some(Duration::from_secs(20));

fn text(string: &str) -> CString {
    CString::new(string).expect("no NUL")
}

/// The usual steps of a plain child.
fn plain() -> Vec<Step> {
    vec![
        Step::NewSession,
        Step::ParentDeathSignal(Signal::SIGKILL),
        Step::CheckParent,
        Step::MapDescriptors,
    ]
}

fn shell(script: &str, steps: Vec<Step>) -> Command {
    let arguments = ["sh", "-c", script].map(text).to_vec();
    let environment = vec![text("PATH=/usr/bin:/bin"), text("MARK=here")];
    let program = Program::Paths(vec![text("/no/such/sh"), text("/bin/sh")]);
    Command::new(program, arguments, environment, CloneFlags::empty(), steps).expect("sound")
}

/// Runs a script and returns what it wrote on its standard output.
fn output(command: &mut Command, more: &[(BorrowedFd<'_>, i32)]) -> (Exit, String) {
    let (mut reader, writer) = std::io::pipe().expect("pipe");
    let mut fds = vec![(writer.as_fd(), 1)];
    fds.extend_from_slice(more);
    let child = command.spawn(&Launch { fds: &fds, ..Launch::default() }).expect("launched");
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("UTF-8");
    let ended = child.pidfd.wait(LIMIT).expect("waited").expect("ended");
    (ended.exit, text)
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc").count()
}

#[test]
fn a_child_gets_its_arguments_environment_and_exit_code() {
    let mut command = shell("echo $MARK; exit 7", plain());
    assert_eq!(output(&mut command, &[]), (Exit::Code(7), "here\n".to_owned()));
    // The same command launches again.
    assert_eq!(output(&mut command, &[]), (Exit::Code(7), "here\n".to_owned()));
}

#[test]
fn a_file_executes_by_descriptor() {
    let file = std::fs::File::open("/bin/sh").expect("a shell");
    let arguments = ["sh", "-c", "echo $0", "zero"].map(text).to_vec();
    let mut command =
        Command::new(Program::File(file.into()), arguments, vec![], CloneFlags::empty(), plain())
            .expect("sound");
    assert_eq!(output(&mut command, &[]), (Exit::Code(0), "zero\n".to_owned()));
}

#[test]
fn only_mapped_descriptors_stay_even_when_they_swap_places() {
    // Two pipes whose ends are handed over crosswise, so that each source
    // number is the other's target.
    let (mut reader_a, a) = std::io::pipe().expect("pipe");
    let (mut reader_b, b) = std::io::pipe().expect("pipe");
    let (number_a, number_b) = (a.as_raw_fd(), b.as_raw_fd());
    let inherited: OwnedFd = std::fs::File::open("/dev/null").expect("null").into();
    nix::fcntl::fcntl(&inherited, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))
        .expect("no close-on-exec");
    // Redirections above 9 need bash; dash takes one digit only. The last
    // word keeps the shell alive until it was looked at.
    let script = format!("echo to-b >&{number_a}; echo to-a >&{number_b}; echo; read word");
    let program = Program::Paths(vec![text("/bin/bash")]);
    let arguments = vec![text("bash"), text("-c"), text(&script)];
    let mut command =
        Command::new(program, arguments, vec![], CloneFlags::empty(), plain()).expect("sound");
    let (stdin, hold) = std::io::pipe().expect("pipe");
    let (mut stdout, writer) = std::io::pipe().expect("pipe");
    let fds =
        [(stdin.as_fd(), 0), (writer.as_fd(), 1), (a.as_fd(), number_b), (b.as_fd(), number_a)];
    let child = command.spawn(&Launch { fds: &fds, ..Launch::default() }).expect("launched");
    drop((a, b, writer));
    stdout.read_exact(&mut [0]).expect("both lines are written");
    let mut open: Vec<i32> = std::fs::read_dir(format!("/proc/{}/fd", child.pid))
        .expect("alive")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().parse().expect("number"))
        .collect();
    open.sort_unstable();
    let mut expected = vec![0, 1, number_a, number_b];
    expected.sort_unstable();
    assert_eq!(open, expected);
    drop((hold, inherited));
    child.pidfd.wait(LIMIT).expect("waited").expect("ended");
    let (mut got_a, mut got_b) = (String::new(), String::new());
    reader_a.read_to_string(&mut got_a).expect("read");
    reader_b.read_to_string(&mut got_b).expect("read");
    assert_eq!((got_a.as_str(), got_b.as_str()), ("to-a\n", "to-b\n"));
}

#[test]
fn signals_start_at_their_defaults() {
    // Rust programs ignore SIGPIPE; a child must not inherit that.
    let mut command = shell("grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status", plain());
    let (_, status) = output(&mut command, &[]);
    for name in ["SigBlk", "SigIgn"] {
        assert!(status.contains(&format!("{name}:\t0000000000000000")), "{status}");
    }
}

#[test]
fn a_failing_step_is_named_with_its_cause_and_leaves_no_process() {
    let missing = Step::WorkingDirectory(text("/no/such/folder"));
    let mut steps = plain();
    steps.insert(1, missing);
    let mut command = shell("true", steps);
    let before = open_descriptors();
    for _ in 0..20 {
        let error = command.spawn(&Launch::default()).expect_err("refused");
        assert_eq!(error.to_string(), "cannot change to the directory /no/such/folder (step 1)");
        assert!(matches!(error, SpawnError::Step { index: 1, source: Errno::ENOENT, .. }));
    }
    // Other tests of this process open some too, but not twenty each time.
    assert!(open_descriptors() < before + 20);
}

#[test]
fn a_program_that_cannot_be_executed_is_named() {
    for (path, cause) in [("/no/such/program", Errno::ENOENT), ("/etc/passwd", Errno::EACCES)] {
        let mut command = Command::new(
            Program::Paths(vec![text("/no/such"), text(path)]),
            vec![text("x")],
            vec![],
            CloneFlags::empty(),
            plain(),
        )
        .expect("sound");
        match command.spawn(&Launch::default()) {
            Err(SpawnError::Execute { source, .. }) => assert_eq!(source, cause, "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
}

#[test]
fn orders_that_cannot_work_are_refused() {
    let make = |steps| {
        let program = Program::Paths(vec![text("/bin/true")]);
        Command::new(program, vec![text("true")], vec![], CloneFlags::empty(), steps).err()
    };
    assert_eq!(make(vec![]), Some(CommandError::MapDescriptors(0)));
    let late = vec![Step::MapDescriptors, Step::JoinCgroups];
    assert!(matches!(make(late), Some(CommandError::TooLate { index: 1, .. })));
}

#[test]
fn waiting_has_a_limit_and_killing_is_seen() {
    let mut command = shell("sleep 1000", plain());
    let child = command.spawn(&Launch::default()).expect("launched");
    assert_eq!(child.pidfd.wait(Some(Duration::from_millis(10))), Ok(None));
    assert!(PidFd::open(child.pid).is_ok());
    let ended = child.pidfd.kill_and_wait().expect("killed").expect("ended");
    assert_eq!(ended.exit, Exit::Signal(9));
    assert_eq!(child.pidfd.kill(Signal::SIGTERM), Err(Errno::ESRCH));
    assert_eq!(child.pidfd.wait(LIMIT), Err(Errno::ECHILD));
}

#[test]
fn a_traced_child_stamps_every_step_in_order() {
    let mut command = shell("true", plain()).traced(true);
    let child = command.spawn(&Launch::default()).expect("launched");
    child.pidfd.wait(LIMIT).expect("waited");
    assert_eq!(child.trace.len(), plain().len());
    let all: Vec<u64> =
        [child.begun].into_iter().chain(child.trace).chain([child.set_up]).collect();
    assert!(all.iter().all(|stamp| *stamp > 0));
    assert!(all.is_sorted(), "{all:?}");
}

#[test]
fn a_child_dies_with_the_thread_that_launched_it() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let launcher = std::thread::spawn(move || {
        let mut command = shell("sleep 1000", plain());
        let child = command.spawn(&Launch::default()).expect("launched");
        sender.send(child).expect("received");
    });
    launcher.join().expect("ended");
    let child = receiver.recv().expect("sent");
    let ended = child.pidfd.wait(LIMIT).expect("waited").expect("ended");
    assert_eq!(ended.exit, Exit::Signal(9));
}

#[test]
fn the_launcher_stays_dumpable_when_a_child_changes_its_user() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: changing the user needs root");
        return;
    }
    let mut steps = plain();
    steps.insert(1, Step::SetGroups(vec![]));
    steps.insert(2, Step::SetUser { uid: 65_534, gid: 65_533 });
    let mut command = shell("id -u; id -g; grep Groups /proc/self/status", steps);
    let (_, ids) = output(&mut command, &[]);
    assert_eq!(ids, "65534\n65533\nGroups:\t \n");
    assert_eq!(nix::sys::prctl::get_dumpable(), Ok(true));
}
