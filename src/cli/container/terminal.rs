//! The caller's terminal, while the command has one of its own: keys go to
//! the command as they are typed, and what it writes goes to the caller.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{
    SetArg, SpecialCharacterIndices, Termios, cfmakeraw, tcgetattr, tcsetattr,
};
use nix::unistd::{read, write};

use crate::sys::terminal::WindowSize;

/// Bytes on their way in one direction. Not more than a pipe takes without
/// blocking when it says that it is ready (`PIPE_BUF`).
const CHUNK: usize = 4096;
/// How long, in milliseconds, the last words of a command may be on their way
/// when it has ended while others still hold its terminal.
const LAST_WORDS: u16 = 100;

/// The caller's terminal in raw mode; back in its own mode when this is
/// dropped, also by a panic.
#[derive(Debug)]
pub(super) struct RawMode {
    before: Option<Termios>,
}

impl RawMode {
    /// Nothing happens when standard input is no terminal.
    pub(super) fn enter() -> Result<Self, Errno> {
        let mut mode = Self { before: tcgetattr(io::stdin()).ok() };
        mode.resume()?;
        Ok(mode)
    }

    /// Back in its own mode for a while.
    pub(super) fn suspend(&self) {
        if let Some(before) = &self.before {
            // Nobody is left to be told.
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }

    /// In raw mode again.
    pub(super) fn resume(&mut self) -> Result<(), Errno> {
        let Some(before) = &self.before else { return Ok(()) };
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        self.suspend();
    }
}

/// The size of the caller's window, from whichever stream is a terminal.
pub(super) fn caller_size() -> WindowSize {
    let streams: [&dyn AsFd; 3] = [&io::stdin(), &io::stdout(), &io::stderr()];
    streams.iter().find_map(|stream| WindowSize::of(stream.as_fd()).ok()).unwrap_or_default()
}

/// A side of a [`Relay`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The caller's keys.
    Input,
    /// The command's terminal.
    Command,
    /// The caller's screen.
    Output,
}

/// Both directions between the caller's streams and the command's terminal.
#[derive(Debug)]
pub(super) struct Relay {
    master: OwnedFd,
    keys: Vec<u8>,
    words: Vec<u8>,
    /// Whether there may be more from the caller.
    listening: bool,
    /// Whether there may be more from the command.
    open: bool,
    /// Whether the caller still takes what the command says.
    heard: bool,
}

impl Relay {
    /// Takes the master side of the command's terminal.
    pub(super) fn new(master: OwnedFd) -> Result<Self, Errno> {
        // Only this process has it, so nobody else is surprised.
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (keys, words) = (Vec::new(), Vec::new());
        Ok(Self { master, keys, words, listening: true, open: true, heard: true })
    }

    /// The command's window takes the size of the caller's.
    pub(super) fn resize(&self) {
        // A size that is not known is left as it is.
        let size = caller_size();
        if size != WindowSize::default() {
            let _ = size.apply(&self.master);
        }
    }

    /// What to wait for; what is not waited for is left out, since it would
    /// still report a hang-up, again and again.
    pub(super) fn wanted<'a>(&'a self, streams: &'a Streams) -> Vec<(Side, PollFd<'a>)> {
        let when = |wanted: bool, flags| if wanted { flags } else { PollFlags::empty() };
        let input = when(self.listening && self.keys.is_empty(), PollFlags::POLLIN);
        let reading = when(self.open && self.words.is_empty(), PollFlags::POLLIN);
        let writing = when(self.open && !self.keys.is_empty(), PollFlags::POLLOUT);
        let output = when(!self.words.is_empty(), PollFlags::POLLOUT);
        [
            (Side::Input, streams.input.as_fd(), input),
            (Side::Command, self.master.as_fd(), reading | writing),
            (Side::Output, streams.output.as_fd(), output),
        ]
        .into_iter()
        .filter(|(_, _, flags)| !flags.is_empty())
        .map(|(side, fd, flags)| (side, PollFd::new(fd, flags)))
        .collect()
    }

    /// Moves what can be moved on one side.
    pub(super) fn advance(&mut self, side: Side, ready: PollFlags) -> Result<(), Errno> {
        match side {
            Side::Input => self.listen(),
            Side::Output => {
                self.speak();
                Ok(())
            }
            Side::Command => {
                if !self.keys.is_empty() && ready.contains(PollFlags::POLLOUT) {
                    let sent = self.send_keys()?;
                    self.keys.drain(..sent);
                }
                let some = PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR;
                if self.words.is_empty() && ready.intersects(some) { self.hear() } else { Ok(()) }
            }
        }
    }

    /// Reads what the caller typed.
    fn listen(&mut self) -> Result<(), Errno> {
        let mut buffer = [0; CHUNK];
        match read(io::stdin(), &mut buffer) {
            Ok(0) | Err(Errno::EIO) => {
                self.listening = false;
                // The end of a file is a key to a terminal.
                let terminal = tcgetattr(&self.master);
                let end = SpecialCharacterIndices::VEOF as usize;
                self.keys.push(terminal.map_or(4, |terminal| terminal.control_chars[end]));
            }
            Ok(count) => self.keys.extend_from_slice(&buffer[..count]),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn send_keys(&self) -> Result<usize, Errno> {
        match write(&self.master, &self.keys) {
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(0),
            // Nobody is there to read it.
            Err(Errno::EIO) => Ok(self.keys.len()),
            other => other,
        }
    }

    /// Reads what the command wrote.
    fn hear(&mut self) -> Result<(), Errno> {
        let mut buffer = [0; CHUNK];
        match read(&self.master, &mut buffer) {
            // The command and its children have closed their side.
            Ok(0) | Err(Errno::EIO) => self.open = false,
            Ok(count) if self.heard => self.words.extend_from_slice(&buffer[..count]),
            Ok(_) | Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Shows it to the caller. One who does not listen any more is like one
    /// who looks away from the screen: the command goes on.
    fn speak(&mut self) {
        match write(io::stdout(), &self.words) {
            Ok(count) => drop(self.words.drain(..count)),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => {
                self.words.clear();
                self.heard = false;
            }
        }
    }

    /// Shows what is still on its way when the command has ended.
    pub(super) fn finish(&mut self) -> Result<(), Errno> {
        loop {
            while !self.words.is_empty() {
                self.speak();
            }
            if !self.open {
                return Ok(());
            }
            let mut entry = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            match poll(&mut entry, PollTimeout::from(LAST_WORDS)) {
                Ok(0) => return Ok(()),
                Ok(_) => self.hear()?,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The caller's streams.
#[derive(Debug)]
pub(super) struct Streams {
    input: io::Stdin,
    output: io::Stdout,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self { input: io::stdin(), output: io::stdout() }
    }
}
