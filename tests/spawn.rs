//! The process-making layer, with real processes: descriptors, signals,
//! errors of steps, waiting and killing.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;

use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use unladen::sys::aside::aside;
use unladen::sys::pidfd::{Exit, PidFd};
use unladen::sys::spawn::{
    Command, CommandError, Hold, Launch, Program, SpawnError, StartFailure, Step, Terminal,
};

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
fn what_a_parent_keeps_aside_stays_open_and_can_be_given() {
    let kept = |_| {
        let (reader, writer) = std::io::pipe().expect("pipe");
        (aside(reader.into()), aside(writer.into()))
    };
    let kept: Vec<(OwnedFd, OwnedFd)> = (0..50).map(kept).collect();
    let numbers = kept.iter().flat_map(|(reader, writer)| [reader.as_raw_fd(), writer.as_raw_fd()]);
    assert!(numbers.min().expect("some") >= 256);
    let mut command = shell("echo to-you >&5; ls /proc/self/fd", plain());
    for give in [0, 49] {
        let (exit, open) = output(&mut command, &[(kept[give].1.as_fd(), 5)]);
        // The listing has its folder open.
        assert_eq!((exit, open.as_str()), (Exit::Code(0), "0\n1\n5\n"));
    }
    for (number, (reader, writer)) in kept.into_iter().enumerate() {
        drop(writer);
        let mut text = String::new();
        std::fs::File::from(reader).read_to_string(&mut text).expect("open as before");
        let given = number == 0 || number == 49;
        assert_eq!(text, if given { "to-you\n" } else { "" });
    }
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

/// Two FIFOs, open for reading and writing.
struct Fifos {
    folder: tempfile::TempDir,
    start: OwnedFd,
    started: OwnedFd,
}

impl Fifos {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let [start, started] = ["start", "started"].map(|name| {
            let path = folder.path().join(name);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("made");
            std::fs::File::options().read(true).write(true).open(path).expect("opened").into()
        });
        Self { folder, start, started }
    }

    fn launch<'a>(&'a self, fds: &'a [(BorrowedFd<'a>, i32)]) -> Launch<'a> {
        let hold = Hold { start: self.start.as_fd(), started: self.started.as_fd() };
        Launch { fds, hold: Some(hold), ..Launch::default() }
    }

    /// What another process would do: starts the child, and reads what it says.
    fn start(self) -> Vec<u8> {
        let mut started = std::fs::File::open(self.folder.path().join("started")).expect("open");
        let start = self.folder.path().join("start");
        drop((self.start, self.started));
        std::fs::write(start, b"!").expect("somebody waits");
        let mut said = Vec::new();
        started.read_to_end(&mut said).expect("read");
        said
    }
}

#[test]
fn a_child_of_its_own_memory_waits_for_its_start_with_nothing_else_open() {
    let mut steps = plain();
    steps.push(Step::FindProgram);
    steps.push(Step::AwaitStart);
    let mut command = shell("echo started", steps);
    assert!(matches!(command.spawn(&Launch::default()), Err(SpawnError::Unfit(_))));
    let fifos = Fifos::new();
    let (mut reader, writer) = std::io::pipe().expect("pipe");
    let fds = [(writer.as_fd(), 1)];
    let child =
        command.spawn_apart::<SpawnError>(&fifos.launch(&fds), |_, _| Ok(())).expect("launched");
    drop(writer);
    assert!(child.begun > 0);
    assert!(!child.pidfd.wait_ended(Some(Duration::from_millis(50))).expect("looked"));
    let open = std::fs::read_dir(format!("/proc/{}/fd", child.pid)).expect("alive").count();
    // Its output, both FIFOs, and the pidfd of who launched it.
    assert_eq!(open, 4);
    assert_eq!(fifos.start(), b"");
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("read");
    assert_eq!(text, "started\n");
    assert_eq!(child.pidfd.wait(LIMIT).expect("waited").expect("ended").exit, Exit::Code(0));
}

#[test]
fn who_starts_a_child_hears_why_it_cannot_execute() {
    let mut steps = plain();
    steps.push(Step::AwaitStart);
    let count = u32::try_from(steps.len()).expect("few");
    let program = Program::Paths(vec![text("/proc/version")]);
    let mut command =
        Command::new(program, vec![], vec![], CloneFlags::empty(), steps).expect("sound");
    let fifos = Fifos::new();
    let launch = fifos.launch(&[]);
    let child = command.spawn_apart::<SpawnError>(&launch, |_, _| Ok(())).expect("launched");
    let said = fifos.start();
    let failure = StartFailure { step: count, error: Errno::EACCES };
    assert_eq!(StartFailure::parse(&said), Some(failure));
    assert_eq!(StartFailure::parse(b""), None);
    assert_eq!(child.pidfd.wait(LIMIT).expect("waited").expect("ended").exit, Exit::Code(127));
}

#[test]
fn a_pause_is_answered_or_ends_the_child() {
    let mut steps = plain();
    steps.insert(1, Step::Pause(7));
    steps.push(Step::Pause(8));
    let mut seen = Vec::new();
    let mut command = shell("exit 3", steps);
    let child = command
        .spawn_apart::<SpawnError>(&Launch::default(), |number, child| {
            seen.push(number);
            assert!(std::fs::exists(format!("/proc/{}", child.pid)).expect("looked"));
            Ok(())
        })
        .expect("launched");
    assert_eq!(seen, [7, 8]);
    assert_eq!(child.pidfd.wait(LIMIT).expect("waited").expect("ended").exit, Exit::Code(3));
    let mut pid = None;
    let error = command
        .spawn_apart(&Launch::default(), |_, child| {
            pid = Some(child.pid);
            Err(SpawnError::Unfit("no"))
        })
        .expect_err("refused");
    assert!(matches!(error, SpawnError::Unfit("no")));
    let gone = format!("/proc/{}", pid.expect("called"));
    assert!(!std::fs::exists(gone).expect("looked"), "it was killed and reaped");
}

#[test]
fn a_failed_step_of_a_child_of_its_own_memory_is_named() {
    let mut steps = plain();
    steps.push(Step::WorkingDirectory(text("/no/such")));
    let error = shell("true", steps)
        .spawn_apart::<SpawnError>(&Launch::default(), |_, _| Ok(()))
        .expect_err("refused");
    assert_eq!(error.to_string(), "cannot change to the directory /no/such (step 4)");
    let mut steps = plain();
    steps.push(Step::FindProgram);
    let program = Program::Paths(vec![text("/no/such"), text("/proc/version"), text("/usr")]);
    let mut command =
        Command::new(program, vec![], vec![], CloneFlags::empty(), steps).expect("sound");
    let error =
        command.spawn_apart::<SpawnError>(&Launch::default(), |_, _| Ok(())).expect_err("refused");
    assert!(matches!(error, SpawnError::Step { source: Errno::EACCES, .. }), "{error}");
}

#[test]
fn a_terminal_is_made_and_its_master_sent() {
    if !common::is_root() {
        // Needs no privilege, but a /dev/pts/ptmx that everybody may open.
        let open = std::fs::File::options().read(true).write(true).open("/dev/pts/ptmx");
        if let Err(error) = open {
            return common::skip(&format!("/dev/pts/ptmx: {error}"));
        }
    }
    let owner = nix::unistd::geteuid().as_raw();
    let steps = vec![
        Step::NewSession,
        Step::Terminal { owner, console: false },
        Step::ParentDeathSignal(Signal::SIGKILL),
        Step::CheckParent,
        Step::MapDescriptors,
    ];
    let mut command = shell("stty size; test -t 2 && tty >/dev/tty; read line", steps);
    assert!(matches!(command.spawn(&Launch::default()), Err(SpawnError::Unfit(_))));
    let (near, far) = unladen::sys::fdpass::stream_pair().expect("pair");
    let terminal = Some(Terminal { socket: far.as_fd(), rows: 40, columns: 120 });
    let child = command.spawn(&Launch { terminal, ..Launch::default() }).expect("launched");
    let (name, mut fds) = unladen::sys::fdpass::receive(&near).expect("read").expect("a message");
    assert_eq!(name, b"/dev/pts/ptmx");
    let mut master = std::fs::File::from(fds.remove(0));
    let mut said = String::new();
    while said.matches('\n').count() < 2 {
        let mut part = [0; 256];
        let length = master.read(&mut part).expect("said");
        said.push_str(&String::from_utf8_lossy(&part[..length]));
    }
    assert!(said.starts_with("40 120\r\n/dev/pts/"), "{said}");
    // The terminal hangs up with its master.
    drop(master);
    let exit = child.pidfd.wait(LIMIT).expect("waited").expect("ended").exit;
    assert_eq!(exit, Exit::Signal(Signal::SIGHUP as i32));
}
