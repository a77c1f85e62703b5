//! Keeps the launching process's executable out of the program's reach.
//!
//! A program path that leads to `/proc/self/exe`, directly or as a script's
//! interpreter, means at that moment the launching process's own executable:
//! the container would run the host's file as root and could open it again for
//! writing (CVE-2019-5736). So a guarded child first executes `unladen-guard`,
//! a static program in a sealed memory file, which then executes the real one:
//! whoever looks at `/proc/self/exe` finds a file that nobody can write.
//!
//! Everything else stays: environment, descriptors, credentials, signals. What
//! the real execution fails with comes back through a descriptor that it
//! closes. The price is one more `execve` of a file of one page.

use std::ffi::CString;
use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use nix::errno::Errno;

use super::apart::StartFailure;
use super::strings::StringArray;
use super::{Launch, SpawnError};
use crate::sys::executable::sealed_copy;

/// The guard's executable, compiled by the build script.
const EXECUTABLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/unladen-guard"));

/// The sealed memory file, made once in a process.
pub(super) fn executable() -> Result<&'static OwnedFd, SpawnError> {
    static FILE: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(file) = FILE.get() {
        return Ok(file);
    }
    let file = sealed_copy(c"unladen-guard", &mut { EXECUTABLE }).map_err(|error| {
        SpawnError::Guard { action: "prepare its guard", source: errno(&error) }
    })?;
    // If another thread was faster, this one's goes.
    Ok(FILE.get_or_init(|| file))
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32))
}

/// The guard of one launch.
#[derive(Debug)]
pub(super) struct Guard<'a> {
    /// How the guard tells of a failure: a pipe of this launch's own, or what
    /// the one who starts the child listens to.
    report: Report<'a>,
    /// The number that the descriptor has in the child.
    target: RawFd,
    pub(super) arguments: StringArray,
    pub(super) executable: BorrowedFd<'static>,
}

#[derive(Debug)]
enum Report<'a> {
    Pipe(PipeReader, PipeWriter),
    Started(BorrowedFd<'a>),
}

impl<'a> Guard<'a> {
    /// Prepares the guard of a launch that executes one of `paths` after
    /// `steps` steps; `held` when somebody else starts the child.
    pub(super) fn new(
        launch: &Launch<'a>,
        held: bool,
        paths: &[CString],
        arguments: &[CString],
        steps: usize,
    ) -> Result<Self, SpawnError> {
        let executable = executable()?.as_fd();
        let report = match launch.hold {
            Some(hold) if held => Report::Started(hold.started),
            _ => {
                let pipe = std::io::pipe().map_err(|error| SpawnError::Guard {
                    action: "make a pipe to its guard",
                    source: errno(&error),
                })?;
                Report::Pipe(pipe.0, pipe.1)
            }
        };
        // Above the standard streams, which may be a terminal's.
        let target = launch.fds.iter().map(|(_, target)| target + 1).max().unwrap_or(0).max(3);
        // Digits and colons hold no NUL.
        let header = CString::new(format!("{target}:{}:{steps}", paths.len())).unwrap_or_default();
        let strings =
            std::iter::once(header).chain(paths.iter().cloned()).chain(arguments.iter().cloned());
        Ok(Self { report, target, arguments: StringArray::new(strings.collect()), executable })
    }

    /// The launch's descriptors with the guard's.
    pub(super) fn fds<'b>(&'b self, launch: &Launch<'b>) -> Vec<(BorrowedFd<'b>, RawFd)> {
        let own = match &self.report {
            Report::Pipe(_, writer) => writer.as_fd(),
            Report::Started(started) => *started,
        };
        launch.fds.iter().copied().chain([(own, self.target)]).collect()
    }

    /// Waits until the program was executed, and returns the error if it could
    /// not be. Where somebody else starts the child, that is theirs to do.
    pub(super) fn outcome(self) -> Option<Errno> {
        let Report::Pipe(mut reader, writer) = self.report else { return None };
        drop(writer);
        let mut message = Vec::new();
        // A message cut short is one of a guard that was killed, whose end
        // will be seen.
        let _ = reader.read_to_end(&mut message);
        StartFailure::parse(&message).map(|failure| failure.error)
    }
}
