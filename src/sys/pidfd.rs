//! Processes by descriptor: waiting with a deadline, and signals that can
//! never reach a stranger who got a recycled pid.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::aside::aside;
use super::raw::{call, signed, small};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal number killed it.
    Signal(i32),
}

impl Exit {
    /// Whether the process ended by itself with code 0.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {number}"),
            },
        }
    }
}

/// An ended process: how it ended and what it and the children that it
/// waited for used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub exit: Exit,
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Page faults served without input or output.
    pub minor_faults: u64,
    /// Page faults that needed input or output.
    pub major_faults: u64,
}

/// A process, held by descriptor. Dropping it neither stops nor reaps the
/// process.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Takes a descriptor that `clone3` or `pidfd_open` returned.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The same with a number out of the way, see [`aside`].
    #[must_use]
    pub fn aside(self) -> Self {
        Self(aside(self.0))
    }

    /// Opens a process by number (`pidfd_open`, Linux 5.3). Only free of
    /// races for oneself and for own children that are not reaped yet.
    ///
    /// # Errors
    ///
    /// `ESRCH` when there is no such process.
    pub fn open(pid: Pid) -> Result<Self, Errno> {
        // SAFETY: no pointers; the kernel returns a fresh descriptor that
        // nobody else owns.
        unsafe {
            let fd = call(libc::SYS_pidfd_open, [signed(pid.as_raw()), 0, 0, 0, 0, 0])?;
            Ok(Self(OwnedFd::from_raw_fd(small(fd)?)))
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// `ESRCH` when the process was already reaped.
    pub fn kill(&self, signal: Signal) -> Result<(), Errno> {
        self.send(signal as i32)
    }

    /// Sends a signal by number, which may be a real-time one.
    ///
    /// # Errors
    ///
    /// `ESRCH` when the process was already reaped, `EINVAL` for a number that
    /// is no signal.
    pub fn send(&self, number: i32) -> Result<(), Errno> {
        let fd = signed(self.0.as_raw_fd());
        // SAFETY: no pointers but a null `siginfo`, which the call allows.
        unsafe { call(libc::SYS_pidfd_send_signal, [fd, signed(number), 0, 0, 0, 0]).map(drop) }
    }

    /// Waits until the process has ended, without reaping it; works for
    /// processes that are not children too. `None` waits without limit.
    /// Returns whether it has ended.
    ///
    /// # Errors
    ///
    /// Only for lack of kernel memory.
    pub fn wait_ended(&self, timeout: Option<Duration>) -> Result<bool, Errno> {
        let mut entry = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut left = timeout.map(timespec);
        loop {
            let limit = left.as_mut().map_or(0, |left| std::ptr::from_mut(left) as usize);
            // SAFETY: one valid `pollfd`, a valid or null `timespec` in which
            // the kernel leaves the time that remains, and no signal mask.
            let ready = unsafe {
                let entry = std::ptr::from_mut(&mut entry) as usize;
                call(libc::SYS_ppoll, [entry, 1, limit, 0, 0, 0])
            };
            match ready {
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
                Ok(count) => return Ok(count > 0),
            }
        }
    }

    /// Waits until a child has ended and reaps it. `None` waits without
    /// limit; a time limit of zero only looks. Returns `None` when the child
    /// still runs.
    ///
    /// # Errors
    ///
    /// `ECHILD` when the process is not a child of the caller, or was reaped.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<Ended>, Errno> {
        if !self.wait_ended(timeout)? {
            return Ok(None);
        }
        // SAFETY: both are plain data for which all zeroes is a valid value.
        let (mut info, mut usage) =
            unsafe { (std::mem::zeroed::<libc::siginfo_t>(), std::mem::zeroed::<libc::rusage>()) };
        let arguments = [
            libc::P_PIDFD as usize,
            signed(self.0.as_raw_fd()),
            std::ptr::from_mut(&mut info) as usize,
            signed(libc::WEXITED),
            std::ptr::from_mut(&mut usage) as usize,
            0,
        ];
        loop {
            // SAFETY: `info` and `usage` are valid for writing.
            match unsafe { call(libc::SYS_waitid, arguments) } {
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
                Ok(_) => break,
            }
        }
        // SAFETY: `waitid` succeeded, so `info` holds the fields of SIGCHLD.
        let status = unsafe { info.si_status() };
        let exit = if info.si_code == libc::CLD_EXITED {
            Exit::Code(status)
        } else {
            Exit::Signal(status)
        };
        Ok(Some(Ended {
            exit,
            user: duration(usage.ru_utime),
            system: duration(usage.ru_stime),
            minor_faults: u64::try_from(usage.ru_minflt).unwrap_or(0),
            major_faults: u64::try_from(usage.ru_majflt).unwrap_or(0),
        }))
    }

    /// Kills the child, if it still runs, and reaps it.
    ///
    /// # Errors
    ///
    /// As [`PidFd::wait`].
    pub fn kill_and_wait(&self) -> Result<Option<Ended>, Errno> {
        match self.kill(Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => self.wait(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<PidFd> for OwnedFd {
    fn from(pidfd: PidFd) -> Self {
        pidfd.0
    }
}

/// A time limit as the kernel takes it; one beyond its range is without limit
/// in practice.
fn timespec(limit: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(limit.subsec_nanos()),
    }
}

/// A CPU time as the kernel gives it, which is never negative.
fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
        + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}
