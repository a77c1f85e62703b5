//! What is executed, what is handed over at each launch, and what comes of it.

use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use nix::unistd::Pid;

use crate::sys::pidfd::PidFd;

/// What a child executes.
#[derive(Debug)]
pub enum Program {
    /// The first of these paths that can be executed; the others are tried
    /// only after `ENOENT`, `ENOTDIR` and `EACCES`, like the shell does with
    /// `PATH`. Resolved after all steps, so inside the child's own root.
    Paths(Vec<CString>),
    /// An open file (`execveat` with `AT_EMPTY_PATH`): the same bytes
    /// whatever happens to the path. Not for scripts.
    File(OwnedFd),
}

/// What is handed over anew at each launch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Launch<'a> {
    /// Descriptors for the child: an open one, and the number it gets there.
    /// Nothing else stays open. Sources and targets may overlap.
    pub fds: &'a [(BorrowedFd<'a>, RawFd)],
    /// `tasks` files of version 1 cgroups, opened for writing, for
    /// [`Step::JoinCgroups`](super::Step::JoinCgroups).
    pub join: &'a [BorrowedFd<'a>],
    /// A version 2 cgroup in which the child is born (`CLONE_INTO_CGROUP`).
    pub into_cgroup: Option<BorrowedFd<'a>>,
    /// For [`Step::Terminal`](super::Step::Terminal).
    pub terminal: Option<Terminal<'a>>,
    /// For [`Step::AwaitStart`](super::Step::AwaitStart).
    pub hold: Option<Hold<'a>>,
}

/// What a child needs to make a terminal.
#[derive(Clone, Copy, Debug)]
pub struct Terminal<'a> {
    /// A connected Unix socket over which the master is sent as one message
    /// with one descriptor (`SCM_RIGHTS`), so that the other end may be
    /// another process's.
    pub socket: BorrowedFd<'a>,
    /// Height in characters, or 0 when it is not known.
    pub rows: u16,
    /// Width in characters, or 0 when it is not known.
    pub columns: u16,
}

/// What a child needs to wait for its start by any process: both must be open
/// for reading and writing (as a FIFO can be), so that neither reports its
/// end while the child waits.
#[derive(Clone, Copy, Debug)]
pub struct Hold<'a> {
    /// One byte written here starts the program.
    pub start: BorrowedFd<'a>,
    /// Closed when the program was executed, or [`StartFailure`](super::StartFailure) is written.
    pub started: BorrowedFd<'a>,
}

/// A launched child that executes its program.
///
/// Dropping it neither stops nor reaps the child.
#[derive(Debug)]
pub struct Child {
    /// Its pid as the caller sees it.
    pub pid: Pid,
    /// Its descriptor.
    pub pidfd: PidFd,
    /// When its first instruction ran, on `CLOCK_MONOTONIC` in nanoseconds.
    pub begun: u64,
    /// When its last step was done and its program about to be executed.
    pub set_up: u64,
    /// When traced, the end of each step; else empty.
    pub trace: Vec<u64>,
}
