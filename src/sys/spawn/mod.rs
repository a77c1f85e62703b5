//! The one way in which this suite makes processes: plain children,
//! containers and virtual machine monitors alike.
//!
//! A [`Command`] is prepared once: strings, pointers and descriptors are all
//! made beforehand. [`Command::spawn`] then makes a child that shares the
//! caller's memory (`clone3` with `CLONE_VM|CLONE_VFORK`, so no page table is
//! copied however large the caller is) and gets only those of its descriptors
//! that it needs, carries out a list of [`Step`]s with
//! nothing but raw system calls, and executes a program. A step that fails is
//! reported through the shared memory with its index and the kernel's error.
//!
//! [`Command::spawn_apart`] makes a child of the same kind in memory of its
//! own, which may stop on the way and outlive its parent: for a container that
//! is created by one command and started by another.
//!
//! Call it from a small single-threaded process. It is sound in a threaded one
//! (the tests are), but a parent-death signal is tied to the launching
//! *thread*, and only one thread may use a `Command` at a time.
//!
//! It does not find out what steps are right, in which order, or for whom: see
//! the `container` module.

mod apart;
mod child;
mod clone;
mod describe;
mod descriptors;
mod error;
mod filesystem;
mod guard;
mod launch;
mod paths;
mod perform;
mod prepare;
mod step;
mod strings;
mod terminal;
mod user_namespace;
mod wait;

use std::ffi::{CString, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI32, AtomicU64};

use nix::errno::Errno;
use nix::libc;
use nix::sched::CloneFlags;
use nix::unistd::Pid;

use self::child::{Context, OWN_TABLE, Report};
use self::clone::{Stack, clone_onto};
use self::guard::Guard;
use self::strings::StringArray;
use super::pidfd::PidFd;

pub use self::apart::StartFailure;
pub(super) use self::child::ignored_signals;
pub use self::error::{CommandError, SpawnError};
pub use self::launch::{Child, Hold, Launch, Program, Terminal};
pub use self::prepare::mount_namespace;
pub use self::step::{
    CapabilitySets, Filter, Handle, Instruction, Links, MountAttributes, Node, Place, Scheduling,
    Slot, Step,
};
pub use self::user_namespace::{IdMap, UserNamespaceError};

/// `CLONE_NEWTIME`, which the `nix` crate does not name. A child that shares
/// memory enters the time namespace when it executes its program (since Linux
/// 6.2; before, at once).
pub const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// Where the offsets of a new time namespace are set (time_namespaces(7)).
pub(crate) const TIME_OFFSETS: &str = "/proc/self/timens_offsets";

const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_PIDFD: u64 = 0x1000;

/// A prepared child, to be launched as often as wanted.
#[derive(Debug)]
pub struct Command {
    program: Program,
    /// Paths of `Program::Paths` in the form that the child walks through.
    arguments: StringArray,
    environment: StringArray,
    namespaces: CloneFlags,
    steps: Vec<Step>,
    handles: Vec<OwnedFd>,
    slots: Vec<AtomicI32>,
    traced: bool,
    guarded: bool,
    ignored_signals: u64,
    stack: Stack,
    /// For [`Step::BeBornAgain`].
    second_stack: Option<Stack>,
    /// Users and groups of a user namespace for each child.
    ids: Option<(Vec<IdMap>, Vec<IdMap>)>,
    /// The process that opened it, and a pidfd of that process.
    parent: Option<(u32, PidFd)>,
}

impl Command {
    /// Prepares a child that executes `program` with `arguments` (the first
    /// is the program's own name) and `environment` after having carried
    /// out `steps`, in `namespaces` that it is born into.
    ///
    /// Signals that this process ignores now are set back to their default
    /// in the child, handlers always are; its signal mask is empty.
    ///
    /// # Errors
    ///
    /// When the steps cannot work whatever the host, see [`CommandError`].
    pub fn new(
        program: Program,
        arguments: Vec<CString>,
        environment: Vec<CString>,
        namespaces: CloneFlags,
        steps: Vec<Step>,
    ) -> Result<Self, CommandError> {
        check_order(&steps)?;
        if matches!(&program, Program::Paths(paths) if paths.is_empty()) {
            return Err(CommandError::NoProgram);
        }
        let slots = slots(&steps);
        let again = steps.iter().any(|step| matches!(step, Step::BeBornAgain(_)));
        let second_stack =
            if again { Some(Stack::new().map_err(CommandError::Stack)?) } else { None };
        Ok(Self {
            program,
            arguments: StringArray::new(arguments),
            environment: StringArray::new(environment),
            namespaces,
            steps,
            handles: Vec::new(),
            slots,
            traced: false,
            guarded: false,
            ignored_signals: ignored_signals(),
            stack: Stack::new().map_err(CommandError::Stack)?,
            second_stack,
            ids: None,
            parent: None,
        })
    }

    /// Gives the command descriptors that its steps use; [`handle`] gives
    /// the n-th its name.
    #[must_use]
    pub fn with_handles(mut self, handles: Vec<OwnedFd>) -> Self {
        self.handles = handles;
        self
    }

    /// Makes a user namespace with these users and groups for each child,
    /// whose handle comes after all others; a step must enter it.
    #[must_use]
    pub fn with_user_namespace(mut self, users: Vec<IdMap>, groups: Vec<IdMap>) -> Self {
        self.ids = Some((users, groups));
        self
    }

    /// Makes the child stamp the end of each step, at the price of one clock
    /// reading each.
    #[must_use]
    pub fn traced(mut self, traced: bool) -> Self {
        self.traced = traced;
        self
    }

    /// Keeps this process's executable out of reach of the program, at the
    /// price of one more `execve`, about 50 us: needed for a program from
    /// [`Program::Paths`] that is not trusted, unless this process
    /// [has a sealed executable](super::executable::is_sealed).
    ///
    /// # Errors
    ///
    /// When a filter among the steps does not permit what the guard calls.
    pub fn guarded(mut self, guarded: bool) -> Result<Self, CommandError> {
        let forbids = |step: &Step| matches!(step, Step::Seccomp(filter) if !filter.permits_guard);
        if guarded && self.steps.iter().any(forbids) {
            return Err(CommandError::Guard);
        }
        self.guarded = guarded;
        Ok(self)
    }

    /// The steps, in order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The argument vector.
    #[must_use]
    pub fn arguments(&self) -> &[CString] {
        self.arguments.strings()
    }

    /// The namespaces that the child is born into.
    #[must_use]
    pub fn namespaces(&self) -> CloneFlags {
        self.namespaces
    }

    /// Launches a child. Returns when it has executed its program.
    ///
    /// # Errors
    ///
    /// See [`SpawnError`]; the child, if there was one, is reaped.
    pub fn spawn(&mut self, launch: &Launch<'_>) -> Result<Child, SpawnError> {
        if self.steps.iter().any(Step::waits) {
            // The parent is suspended until the child has executed: nobody
            // could answer.
            return Err(SpawnError::Unfit("steps that wait need memory of their own"));
        }
        let stamps = if self.traced { self.steps.len() } else { 0 };
        let trace: Vec<AtomicU64> = (0..stamps).map(|_| AtomicU64::new(0)).collect();
        let report = Report::default();
        let guard = self.guard(launch)?;
        let places = self.places(launch, guard.as_ref())?;
        let parent = self.parent_pidfd()?;
        self.make_user_namespace()?;
        let context =
            self.context(parent, launch, &places, &report, &trace).guarded(guard.as_ref());
        let shared = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES;
        let cloned = self.clone_child(&context, shared);
        self.forget_user_namespace();
        let (pid, pidfd) = cloned?;
        let (pid, pidfd) = follow(pid, pidfd, &report)?;
        if let Some(error) = self.failure(&report) {
            // The child has exited or been killed: this does not block.
            let _ = pidfd.wait(None);
            return Err(error);
        }
        if let Some(source) = guard.and_then(Guard::outcome) {
            let _ = pidfd.wait(None);
            return Err(SpawnError::Execute { program: self.program_name(), source });
        }
        let trace = trace.iter().map(|end| end.load(Relaxed)).collect();
        Ok(Child {
            pid: Pid::from_raw(pid),
            pidfd,
            begun: report.begun.load(Relaxed),
            set_up: report.set_up.load(Relaxed),
            trace,
        })
    }

    /// The guard of a launch, if there is to be one.
    fn guard<'a>(&self, launch: &Launch<'a>) -> Result<Option<Guard<'a>>, SpawnError> {
        match &self.program {
            Program::Paths(paths) if self.guarded => {
                let held = self.steps.contains(&Step::AwaitStart);
                let arguments = self.arguments.strings();
                Guard::new(launch, held, paths, arguments, self.steps.len()).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Makes the user namespace of the next child, if it shall have one.
    fn make_user_namespace(&mut self) -> Result<(), SpawnError> {
        if let Some((users, groups)) = &self.ids {
            self.handles.push(user_namespace::make(users, groups)?);
        }
        Ok(())
    }

    /// Lets go of what `make_user_namespace` made: the child is in it.
    fn forget_user_namespace(&mut self) {
        if self.ids.is_some() {
            self.handles.pop();
        }
    }

    /// Where the descriptors of a launch go.
    fn places(
        &self,
        launch: &Launch<'_>,
        guard: Option<&Guard<'_>>,
    ) -> Result<descriptors::Places, SpawnError> {
        let has_terminal = self.steps.iter().any(|step| matches!(step, Step::Terminal { .. }));
        if has_terminal && launch.terminal.is_none() {
            return Err(SpawnError::Unfit("a step makes a terminal and nobody takes it"));
        }
        if has_terminal && launch.fds.iter().any(|(_, target)| (0..3).contains(target)) {
            return Err(SpawnError::Unfit("the standard streams are the terminal's"));
        }
        let places = match guard {
            Some(guard) => descriptors::Places::new(&guard.fds(launch)),
            None => descriptors::Places::new(launch.fds),
        };
        places.map_err(SpawnError::Target)
    }

    /// What a child needs.
    fn context<'a>(
        &'a self,
        parent: RawFd,
        launch: &'a Launch<'a>,
        places: &'a descriptors::Places,
        report: &'a Report,
        trace: &'a [AtomicU64],
    ) -> Context<'a> {
        for slot in &self.slots {
            slot.store(-1, Relaxed);
        }
        let held = |fd: fn(&Hold<'a>) -> BorrowedFd<'a>| {
            AtomicI32::new(launch.hold.as_ref().map_or(-1, |hold| fd(hold).as_raw_fd()))
        };
        Context {
            steps: &self.steps,
            handles: &self.handles,
            slots: &self.slots,
            launch,
            places,
            parent: AtomicI32::new(parent),
            program: &self.program,
            guarded: false,
            program_fd: AtomicI32::new(match &self.program {
                Program::File(file) => file.as_raw_fd(),
                Program::Paths(_) => -1,
            }),
            arguments: self.arguments.as_ptr(),
            environment: self.environment.as_ptr(),
            ignored_signals: self.ignored_signals,
            second_stack: self.second_stack.as_ref(),
            trace,
            channel: AtomicI32::new(-1),
            far_end: -1,
            start: held(|hold| hold.start),
            started: held(|hold| hold.started),
            terminal: AtomicI32::new(-1),
            report,
        }
    }

    /// A pidfd of the process that calls now.
    fn parent_pidfd(&mut self) -> Result<RawFd, SpawnError> {
        let own = std::process::id();
        if let Some((process, pidfd)) = &self.parent
            && *process == own
        {
            return Ok(pidfd.as_fd().as_raw_fd());
        }
        let pidfd = PidFd::open(Pid::this()).map_err(SpawnError::OwnPidfd)?;
        let raw = pidfd.as_fd().as_raw_fd();
        self.parent = Some((own, pidfd));
        Ok(raw)
    }

    /// The creating call, with all signals blocked around it.
    fn clone_child(&self, context: &Context<'_>, sharing: i32) -> Result<(i32, PidFd), SpawnError> {
        let own = sharing | self.namespaces.bits();
        // Flags of 32 bits: the conversion keeps the bit pattern.
        let mut flags = u64::from(own.cast_unsigned()) | CLONE_PIDFD | CLONE_CLEAR_SIGHAND;
        let cgroup = context.launch.into_cgroup.map(|fd| {
            flags |= CLONE_INTO_CGROUP;
            u64::from(fd.as_raw_fd().cast_unsigned())
        });
        let dumpable = child::dumpable();
        let mask = child::block_signals();
        // SAFETY: `child::run` never returns, makes only raw system calls,
        // and finds in `context` nothing but shared data that outlives the
        // child's stay in this memory. All signals are blocked.
        let cloned = unsafe {
            clone_onto(
                &self.stack,
                flags,
                cgroup,
                None,
                child::run,
                std::ptr::from_ref(context).cast::<c_void>(),
            )
        };
        child::restore_signals(mask);
        child::restore_dumpable(dumpable);
        let cloned =
            cloned.map_err(|source| SpawnError::Clone { namespaces: self.namespaces, source })?;
        // SAFETY: `clone3` succeeded with CLONE_PIDFD, so this is a fresh
        // descriptor that nobody else owns.
        let pidfd = unsafe { OwnedFd::from_raw_fd(cloned.pidfd) };
        Ok((cloned.pid, PidFd::from_fd(pidfd)))
    }

    /// What the child reported, if it did not reach its program.
    fn failure(&self, report: &Report) -> Option<SpawnError> {
        let index = report.step.load(Relaxed);
        let errno = report.errno.load(Relaxed);
        let source = Errno::from_raw(errno);
        if index == OWN_TABLE {
            let step = "get descriptors of its own".to_owned();
            return Some(SpawnError::Step { index: 0, step, source });
        }
        match (self.steps.get(index), errno) {
            (Some(step), 0) => Some(SpawnError::Killed { index, step: step.to_string() }),
            (Some(step), _) => Some(SpawnError::Step { index, step: step.to_string(), source }),
            (None, 0) => None,
            (None, _) => Some(SpawnError::Execute { program: self.program_name(), source }),
        }
    }

    /// The program for a message.
    fn program_name(&self) -> String {
        let name = match &self.program {
            Program::Paths(paths) if paths.len() == 1 => paths.first(),
            // Looked for in several folders: by the name alone.
            Program::Paths(_) | Program::File(_) => self.arguments.strings().first(),
        };
        name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }
}

/// The child that executes the program: the second one, if there is one, for
/// which the first one has ended.
fn follow(pid: i32, pidfd: PidFd, report: &Report) -> Result<(i32, PidFd), SpawnError> {
    let second = report.second.load(Relaxed);
    if second == 0 {
        return Ok((pid, pidfd));
    }
    // It has ended or is about to: this does not block.
    let _ = pidfd.wait(None);
    // Nobody has waited for it, so its pid is still its own.
    let pidfd = PidFd::open(Pid::from_raw(second)).map_err(SpawnError::OwnPidfd)?;
    Ok((second, pidfd))
}

/// The name of the n-th descriptor given to [`Command::with_handles`].
#[must_use]
pub fn handle(index: usize) -> Handle {
    Handle(index)
}

/// A place for every descriptor that the steps open.
fn slots(steps: &[Step]) -> Vec<AtomicI32> {
    let count = steps.iter().filter_map(Step::slot).map(|slot| slot.0 + 1).max().unwrap_or(0);
    (0..count).map(|_| AtomicI32::new(-1)).collect()
}

/// Refuses lists in which a step would use a descriptor that is gone.
fn check_order(steps: &[Step]) -> Result<(), CommandError> {
    let maps = steps.iter().filter(|step| **step == Step::MapDescriptors).count();
    if maps != 1 {
        return Err(CommandError::MapDescriptors(maps));
    }
    let late = steps
        .iter()
        .enumerate()
        .skip_while(|(_, step)| **step != Step::MapDescriptors)
        .find(|(_, step)| step.uses_descriptors());
    match late {
        Some((index, step)) => Err(CommandError::TooLate { index, step: step.to_string() }),
        None => Ok(()),
    }
}
