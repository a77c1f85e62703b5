//! What runs in the child, in memory that it shares with its parent or in a
//! copy of a process that may have had other threads: no allocation, no lock,
//! no panic, nothing but raw system calls.

use std::ffi::{c_char, c_void};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize};

use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::sched::CloneFlags;

use super::clone::{Stack, clone_onto};
use super::descriptors::{Places, own_table};
use super::guard::Guard;
use super::{CLONE_CLEAR_SIGHAND, Filter, Launch, Program, Step, perform, wait};
use crate::sys::raw::{call, signed};

/// What the child tells its parent: the step that it began last (the number
/// of steps stands for the execution itself), the error that ended it, and
/// when it began and was about to execute its program.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) step: AtomicUsize,
    pub(super) errno: AtomicI32,
    pub(super) begun: AtomicU64,
    pub(super) set_up: AtomicU64,
    /// The pid of a second child, or 0.
    pub(super) second: AtomicI32,
}

/// Everything that the child needs, made by the parent.
pub(super) struct Context<'a> {
    pub(super) steps: &'a [Step],
    pub(super) handles: &'a [OwnedFd],
    pub(super) slots: &'a [AtomicI32],
    pub(super) launch: &'a Launch<'a>,
    pub(super) places: &'a Places,
    pub(super) parent: AtomicI32,
    pub(super) program: &'a Program,
    /// Whether the file `program_fd` is executed first, whose arguments say
    /// what to execute then.
    pub(super) guarded: bool,
    pub(super) program_fd: AtomicI32,
    pub(super) arguments: *const *const c_char,
    pub(super) environment: *const *const c_char,
    pub(super) ignored_signals: u64,
    pub(super) second_stack: Option<&'a Stack>,
    pub(super) trace: &'a [AtomicU64],
    /// The child's end of the connection to a parent that does not wait for
    /// the execution, or -1.
    pub(super) channel: AtomicI32,
    /// The parent's end, which a child with a copy of the parent's descriptors
    /// must close, or it would never see that end; or -1.
    pub(super) far_end: RawFd,
    /// Where the byte comes from that starts the program, or -1.
    pub(super) start: AtomicI32,
    /// Where to say that the program could not be executed, or -1.
    pub(super) started: AtomicI32,
    /// The terminal that a step made, or -1.
    pub(super) terminal: AtomicI32,
    /// In memory that parent and child share.
    pub(super) report: &'a Report,
}

/// In place of a step: getting a table of descriptors of its own.
pub(super) const OWN_TABLE: usize = usize::MAX;

impl Context<'_> {
    /// The highest number among the descriptors that the child needs.
    fn highest_descriptor(&self) -> RawFd {
        let launch = self.launch;
        let terminal = launch.terminal.as_ref().map(|terminal| terminal.socket.as_raw_fd());
        let named = [&self.parent, &self.program_fd, &self.start, &self.started, &self.terminal];
        let named = named.into_iter().map(|fd| fd.load(Relaxed));
        let handles = self.handles.iter().map(AsRawFd::as_raw_fd);
        let joined = launch.join.iter().map(AsRawFd::as_raw_fd);
        let all = named.chain(handles).chain(joined).chain(terminal);
        all.max().unwrap_or(-1).max(self.places.highest())
    }

    /// The same with a guard between the child and its program.
    pub(super) fn guarded(mut self, guard: Option<&Guard<'_>>) -> Self {
        if let Some(guard) = guard {
            self.guarded = true;
            self.program_fd = AtomicI32::new(guard.executable.as_raw_fd());
            self.arguments = guard.arguments.as_ptr();
        }
        self
    }
}

/// The child's whole life before its program.
pub(super) extern "C" fn run(context: *const c_void) -> ! {
    // SAFETY: the parent passes a `Context` that it keeps, unchanged but for
    // atomics, until this child has left the shared memory.
    let context = unsafe { &*context.cast::<Context<'_>>() };
    context.report.begun.store(now(), Relaxed);
    if context.channel.load(Relaxed) < 0 {
        // The parent's table, until here: nothing may be opened or closed.
        if let Err(error) = own_table(context.highest_descriptor()) {
            context.report.step.store(OWN_TABLE, Relaxed);
            give_up(context, error);
        }
    }
    if context.far_end >= 0 {
        perform::close(context.far_end);
    }
    go_on(context, 0)
}

/// The life of a second child, from the step after its birth on.
extern "C" fn run_second(context: *const c_void) -> ! {
    // SAFETY: as in `run`; the first child is suspended until this one has
    // left the shared memory.
    let context = unsafe { &*context.cast::<Context<'_>>() };
    go_on(context, context.report.step.load(Relaxed) + 1)
}

/// All steps from one on, then the program.
fn go_on(context: &Context<'_>, from: usize) -> ! {
    let mut filter: Option<&Filter> = None;
    for (index, step) in context.steps.iter().enumerate().skip(from) {
        context.report.step.store(index, Relaxed);
        if let Step::Seccomp(next) = step {
            // A filter may forbid whatever the program does not need: before
            // it all is done that is not a step.
            default_signals(context.ignored_signals);
            context.report.set_up.store(now(), Relaxed);
            filter = Some(next);
        }
        if let Step::BeBornAgain(namespaces) = step {
            match bear_second(context, *namespaces) {
                Ok(()) => end(0),
                Err(error) => give_up(context, error),
            }
        }
        if let Err(error) = perform::step(step, context) {
            give_up(context, error);
        }
        if let Some(end) = context.trace.get(index) {
            end.store(stamp(context, filter), Relaxed);
        }
    }
    context.report.step.store(context.steps.len(), Relaxed);
    if filter.is_none() {
        default_signals(context.ignored_signals);
    }
    context.report.set_up.store(stamp(context, filter), Relaxed);
    let error = execute(context);
    give_up(context, error)
}

/// The time; under a filter that does not permit the clock the time just
/// before the filter.
fn stamp(context: &Context<'_>, filter: Option<&Filter>) -> u64 {
    if filter.is_none_or(|filter| filter.permits_clock) {
        now()
    } else {
        context.report.set_up.load(Relaxed)
    }
}

/// Makes a second child of the same parent, which goes on with the next step,
/// in the first one's memory if that is the parent's: then this returns when
/// the second has executed its program or ended.
fn bear_second(context: &Context<'_>, namespaces: CloneFlags) -> Result<(), Errno> {
    let stack = context.second_stack.ok_or(Errno::ENOMEM)?;
    let apart = context.channel.load(Relaxed) >= 0;
    let sharing = if apart { 0 } else { libc::CLONE_VM | libc::CLONE_VFORK };
    let own = sharing | libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID | namespaces.bits();
    let flags = u64::from(own.cast_unsigned()) | CLONE_CLEAR_SIGHAND;
    let context_at = std::ptr::from_ref(context).cast::<c_void>();
    // Written by the kernel before the second child runs.
    let pid_at = Some(&context.report.second);
    // SAFETY: `run_second` never returns and makes only raw system calls on
    // the same shared data, or on a copy. All signals are blocked since before
    // this child.
    unsafe { clone_onto(stack, flags, None, pid_at, run_second, context_at).map(drop) }
}

/// Reports an error and ends the child.
fn give_up(context: &Context<'_>, error: Errno) -> ! {
    context.report.errno.store(error as i32, Relaxed);
    wait::say_failure(context, error);
    end(127)
}

/// Ends this process.
fn end(code: usize) -> ! {
    // SAFETY: both end this process only; no destructor runs.
    unsafe {
        let _ = call(libc::SYS_exit_group, [code, 0, 0, 0, 0, 0]);
        let _ = call(libc::SYS_exit, [code, 0, 0, 0, 0, 0]);
    }
    // A filter forbids both. The parent waits for this child's end, so it
    // must end.
    loop {
        // SAFETY: an instruction that is defined to be undefined: the kernel
        // kills the process for it.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            std::arch::asm!("ud2");
        }
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        unsafe {
            std::arch::asm!("udf #0");
        }
    }
}

/// The time on `CLOCK_MONOTONIC` in nanoseconds, without the C library.
fn now() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let arguments =
        [signed(libc::CLOCK_MONOTONIC), std::ptr::from_mut(&mut now) as usize, 0, 0, 0, 0];
    // SAFETY: `now` is valid for writing. The call cannot fail with it.
    let _ = unsafe { call(libc::SYS_clock_gettime, arguments) };
    now.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec).cast_unsigned()
}

/// Executes the program; returns only with the error that prevented it.
fn execute(context: &Context<'_>) -> Errno {
    let arguments = context.arguments as usize;
    let environment = context.environment as usize;
    let mut last = Errno::ENOENT;
    match context.program {
        _ if context.guarded => execute_file(context),
        Program::File(_) => execute_file(context),
        Program::Paths(paths) => {
            for path in paths {
                let path = path.as_ptr() as usize;
                // SAFETY: as above.
                let result =
                    unsafe { call(libc::SYS_execve, [path, arguments, environment, 0, 0, 0]) };
                match result {
                    Err(error @ (Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES)) => {
                        // A program that exists and is refused says more than
                        // one that does not exist.
                        if last == Errno::ENOENT {
                            last = error;
                        }
                    }
                    Err(error) => return error,
                    Ok(_) => {}
                }
            }
            last
        }
    }
}

/// How often to try again what was open for writing when another thread made
/// a child, which has it open until its own execution: some milliseconds.
const BUSY_ATTEMPTS: u32 = 50_000;

/// Executes the open file; returns only with the error that prevented it.
fn execute_file(context: &Context<'_>) -> Errno {
    let fd = signed(context.program_fd.load(Relaxed));
    let empty = c"".as_ptr() as usize;
    let (arguments, environment) = (context.arguments as usize, context.environment as usize);
    let flags = signed(libc::AT_EMPTY_PATH);
    let mut attempts = BUSY_ATTEMPTS;
    loop {
        let all = [fd, empty, arguments, environment, flags, 0];
        // SAFETY: the vectors end with a null pointer; all strings live on in
        // the parent.
        match unsafe { call(libc::SYS_execveat, all) } {
            Err(Errno::ETXTBSY) if attempts > 0 => attempts -= 1,
            result => return result.err().unwrap_or(Errno::ENOENT),
        }
    }
}

/// The kernel's `struct sigaction` with its default disposition. All zeroes
/// on every architecture.
const DEFAULT_ACTION: [u64; 4] = [0; 4];
/// The kernel's signal sets have 64 bits.
const SET_BYTES: usize = 8;

/// Sets the given signals back to their default and unblocks all.
fn default_signals(ignored: u64) {
    for number in (1..=64_usize).filter(|number| ignored >> (number - 1) & 1 == 1) {
        let action = std::ptr::from_ref(&DEFAULT_ACTION) as usize;
        // SAFETY: `action` is as large as the kernel's structure, which is
        // read only; handlers are the child's own (no CLONE_SIGHAND). SIGKILL
        // and SIGSTOP fail without effect.
        let _ = unsafe { call(libc::SYS_rt_sigaction, [number, action, 0, SET_BYTES, 0, 0]) };
    }
    restore_signals(0);
}

/// The signals that this process ignores, as bits (bit 0 is signal 1).
pub(in crate::sys) fn ignored_signals() -> u64 {
    (1..=64_usize)
        .filter(|number| {
            let mut action = DEFAULT_ACTION;
            let pointer = std::ptr::from_mut(&mut action) as usize;
            // SAFETY: asks only; `action` is as large as the kernel's structure.
            let asked =
                unsafe { call(libc::SYS_rt_sigaction, [*number, 0, pointer, SET_BYTES, 0, 0]) };
            asked.is_ok() && action[0] == libc::SIG_IGN as u64
        })
        .fold(0, |set, number| set | 1 << (number - 1))
}

/// Blocks all signals of this thread, those that the C library keeps for
/// itself included, and returns the mask before.
pub(super) fn block_signals() -> u64 {
    let all = u64::MAX;
    let mut before = 0_u64;
    let arguments = [
        signed(libc::SIG_SETMASK),
        std::ptr::from_ref(&all) as usize,
        std::ptr::from_mut(&mut before) as usize,
        SET_BYTES,
        0,
        0,
    ];
    // SAFETY: both pointers are valid for 8 bytes. The call cannot fail with
    // valid arguments.
    let _ = unsafe { call(libc::SYS_rt_sigprocmask, arguments) };
    before
}

/// Sets this thread's signal mask.
pub(super) fn restore_signals(mask: u64) {
    let arguments =
        [signed(libc::SIG_SETMASK), std::ptr::from_ref(&mask) as usize, 0, SET_BYTES, 0, 0];
    // SAFETY: as in `block_signals`.
    let _ = unsafe { call(libc::SYS_rt_sigprocmask, arguments) };
}

/// A `prctl` without pointers.
pub(super) fn prctl(operation: i32, argument: usize) -> Result<usize, Errno> {
    // SAFETY: used for operations whose argument is a number.
    unsafe { call(libc::SYS_prctl as c_long, [signed(operation), argument, 0, 0, 0, 0]) }
}

/// Whether this process may be traced and its `/proc` files are its own.
pub(super) fn dumpable() -> usize {
    prctl(libc::PR_GET_DUMPABLE, 0).unwrap_or(1)
}

/// Undoes what a child's change of user did to the memory that it shared:
/// the kernel keeps the flag there (`commit_creds` in kernel/cred.c).
pub(super) fn restore_dumpable(before: usize) {
    if before == 1 && dumpable() != 1 {
        // Cannot fail for the value 1.
        let _ = prctl(libc::PR_SET_DUMPABLE, 1);
    }
}
