//! A child that goes on in this very program: a copy of the calling process,
//! made by `clone3`, that runs one function and ends with its result.
//!
//! Only for a process with a single thread: in a copy of a process with
//! several, a lock that another thread held would never be released.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::pidfd::PidFd;
use super::raw::{call, signed, word};

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_PIDFD: u64 = 0x1000;

/// Where a copy lives, and what it keeps.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// A version 2 cgroup in which it is born.
    pub into_cgroup: Option<BorrowedFd<'a>>,
    /// `tasks` files of version 1 cgroups, opened for writing.
    pub join: &'a [BorrowedFd<'a>],
    /// Its descriptors: an open one, and the number from 0 on that it gets.
    /// All others are closed.
    pub fds: &'a [(BorrowedFd<'a>, i32)],
}

/// Whether this process has no other thread, nor shares its memory.
#[must_use]
pub fn is_alone() -> bool {
    // The kernel refuses this to whoever is not alone, and does nothing for
    // whoever is (unshare(2)).
    // SAFETY: a number as the only argument.
    let asked = unsafe { call(libc::SYS_unshare, [signed(libc::CLONE_THREAD), 0, 0, 0, 0, 0]) };
    asked.is_ok()
}

/// Makes a copy of this process that calls `born` first of all, then runs
/// `life` in `place`, and ends with the code that it gives, 101 if it panics, and 102 if the place cannot be had.
/// It is killed when this process ends.
///
/// # Errors
/// `EDEADLK` when this process has several threads, or the kernel's error.
pub fn copy(
    place: &Place<'_>,
    born: impl FnOnce(),
    life: impl FnOnce() -> u8,
) -> Result<(Pid, PidFd), Errno> {
    if !is_alone() {
        return Err(Errno::EDEADLK);
    }
    let parent = Pid::this();
    let mut pidfd: i32 = -1;
    let cgroup = place.into_cgroup.map(|fd| u64::from(fd.as_raw_fd().cast_unsigned()));
    let into = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    let exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    // The kernel's `struct clone_args` up to `cgroup`. No stack: the child
    // goes on with its copy of this one.
    let pidfd_at = std::ptr::from_mut(&mut pidfd) as u64;
    let arguments: [u64; 11] =
        [CLONE_PIDFD | into, pidfd_at, 0, 0, exit_signal, 0, 0, 0, 0, 0, cgroup.unwrap_or(0)];
    let at = std::ptr::from_ref(&arguments) as usize;
    // SAFETY: the arguments are valid. Without CLONE_VM the child has its own
    // copy of all memory, and since this process is alone, one that no other
    // thread was changing: it may go on with any code. It never returns.
    let made = unsafe { call(libc::SYS_clone3, [at, size_of_val(&arguments), 0, 0, 0, 0]) }?;
    if made == 0 {
        let code = catch_unwind(AssertUnwindSafe(|| {
            born();
            settle(place, parent).map_or(102, |()| life())
        }));
        // SAFETY: ends the copy at once: no destructor of the original runs.
        unsafe { libc::_exit(code.unwrap_or(101).into()) };
    }
    let pid = i32::try_from(made).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: with CLONE_PIDFD this is a fresh descriptor that nobody owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((Pid::from_raw(pid), PidFd::from_fd(pidfd)))
}

/// The copy's first work: to die with its maker, to be in its cgroups, and to
/// have its descriptors and no others.
fn settle(place: &Place<'_>, parent: Pid) -> Result<(), Errno> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    if Pid::parent() != parent {
        return Err(Errno::ESRCH);
    }
    nix::unistd::setsid()?;
    for group in place.join {
        nix::unistd::write(group, b"0")?;
    }
    arrange(place.fds)
}

/// Gives descriptors their numbers and closes all others.
fn arrange(fds: &[(BorrowedFd<'_>, i32)]) -> Result<(), Errno> {
    let end = fds.iter().map(|(_, number)| number + 1).max().unwrap_or(0);
    // Out of the way of all numbers first, so that none is overwritten.
    let aside = fds.iter().map(|(fd, number)| {
        let copy = nix::fcntl::fcntl(fd.as_fd(), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(end))?;
        Ok((copy, *number))
    });
    let aside = aside.collect::<Result<Vec<_>, Errno>>()?;
    for (from, to) in aside {
        // SAFETY: two numbers; whatever `to` was is not used by the copy.
        Errno::result(unsafe { libc::dup2(from, to) })?;
    }
    let first = word(end.cast_unsigned());
    // SAFETY: closes descriptors of the copy only, which uses none of them.
    unsafe { call(libc::SYS_close_range, [first, word(u32::MAX), 0, 0, 0, 0]) }?;
    Ok(())
}

/// A descriptor of the copy by its number.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn descriptor(number: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: the copy of the number is a fresh descriptor that nobody owns.
    unsafe {
        let copy = Errno::result(libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3))?;
        Ok(OwnedFd::from_raw_fd(copy))
    }
}
