//! Waiting for a container while signals, and what a terminal says, pass
//! between it and the caller. No signal handler and no thread: signals are
//! read from a descriptor beside the others.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::sys::pidfd::PidFd;
use crate::sys::signals;

/// Signals that are not the command's: those that tell of an own error, of
/// the use of a terminal from the background, or of a child.
const OWN: [Signal; 13] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGCHLD,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGPIPE,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGURG,
    Signal::SIGPROF,
];

/// All signals to this process, from now on.
#[derive(Debug)]
pub(super) struct Listener {
    descriptor: SignalFd,
    /// Those that the caller wanted ignored, `nohup` for example.
    ignored: u64,
}

impl Listener {
    /// Begins to listen.
    pub(super) fn new() -> Result<Self, Errno> {
        let mut set = SigSet::all();
        for signal in OWN {
            set.remove(signal);
        }
        set.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let descriptor = SignalFd::with_flags(&set, flags)?;
        Ok(Self { descriptor, ignored: signals::ignored() })
    }

    /// Passes signals on until the process has ended.
    pub(super) fn until_end(&self, process: &PidFd) -> Result<(), Errno> {
        loop {
            let mut entries = [
                PollFd::new(process.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut entries, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let [ended, signalled] = entries.map(|entry| entry.any() == Some(true));
            if signalled {
                self.pass_on(process, &mut || {})?;
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Passes on what has come.
    fn pass_on(&self, process: &PidFd, resized: &mut dyn FnMut()) -> Result<(), Errno> {
        while let Some(info) = self.descriptor.read_signal()? {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            if number > 0 && self.ignored >> (number - 1) & 1 == 1 {
                continue;
            }
            match Signal::try_from(number) {
                Ok(Signal::SIGTSTP) => stop(process),
                Ok(Signal::SIGWINCH) => {
                    resized();
                    send(process, number);
                }
                _ => send(process, number),
            }
        }
        Ok(())
    }
}

/// The process may have ended meanwhile, or have become somebody whom the
/// caller may not signal: neither is an error of ours.
fn send(process: &PidFd, number: i32) {
    let _ = process.send(number);
}

/// Stops the command and then this process, as the shell's job control
/// expects; the command as process 1 would not stop for `SIGTSTP`. The
/// `SIGCONT` that ends it is passed on like any other signal.
fn stop(process: &PidFd) {
    send(process, Signal::SIGSTOP as i32);
    let _ = nix::sys::signal::raise(Signal::SIGSTOP);
}
