//! Waiting for a container while signals, and what a terminal says, pass
//! between it and the caller. No signal handler and no thread: signals are
//! read from a descriptor beside the others.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::terminal::{RawMode, Relay, Side, Streams};
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
            if !wait(&mut entries)? {
                continue;
            }
            let [ended, signalled] = entries.map(|entry| entry.any() == Some(true));
            while signalled && let Some(number) = self.next()? {
                match Signal::try_from(number) {
                    Ok(Signal::SIGTSTP) => stop(process),
                    _ => send(process, number),
                }
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// The same, with a terminal of the command's own between.
    pub(super) fn until_end_with_terminal(
        &self,
        process: &PidFd,
        master: OwnedFd,
    ) -> Result<(), Errno> {
        let mut relay = Relay::new(master)?;
        let mut mode = RawMode::enter()?;
        let streams = Streams::new();
        loop {
            let wanted = relay.wanted(&streams);
            let sides: Vec<Side> = wanted.iter().map(|(side, _)| *side).collect();
            let mut entries = vec![
                PollFd::new(process.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN),
            ];
            entries.extend(wanted.into_iter().map(|(_, entry)| entry));
            if !wait(&mut entries)? {
                continue;
            }
            let ready: Vec<PollFlags> =
                entries.iter().map(|entry| entry.revents().unwrap_or(PollFlags::empty())).collect();
            drop(entries);
            while !ready[1].is_empty()
                && let Some(number) = self.next()?
            {
                match Signal::try_from(number) {
                    Ok(Signal::SIGWINCH) => relay.resize(),
                    Ok(Signal::SIGTSTP) => {
                        mode.suspend();
                        stop(process);
                        mode.resume()?;
                        relay.resize();
                    }
                    _ => send(process, number),
                }
            }
            for (side, ready) in sides.into_iter().zip(&ready[2..]) {
                if !ready.is_empty() {
                    relay.advance(side, *ready)?;
                }
            }
            if !ready[0].is_empty() {
                return relay.finish();
            }
        }
    }

    /// The next signal that has come, but for those to be ignored.
    fn next(&self) -> Result<Option<i32>, Errno> {
        while let Some(info) = self.descriptor.read_signal()? {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            if number > 0 && self.ignored >> (number - 1) & 1 == 0 {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }
}

/// Waits; false when a signal ended that.
fn wait(entries: &mut [PollFd<'_>]) -> Result<bool, Errno> {
    match poll(entries, PollTimeout::NONE) {
        Err(Errno::EINTR) => Ok(false),
        other => other.map(|_| true),
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
