//! Starting the program of a container that was created.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::enter::Entrance;
use super::error::LifecycleError;
use super::hooks::{self, Moment};
use super::state::{Record, Status};
use super::store::Entry;
use super::{Lifecycle, START_FIFO, STARTED_FIFO};
use crate::container::plan::Joining;
use crate::sys::pidfd::PidFd;
use crate::sys::spawn::StartFailure;

impl Lifecycle {
    /// Starts the program of a created container, and returns when it was
    /// executed.
    ///
    /// # Errors
    ///
    /// See [`LifecycleError`]. When a hook fails or the program cannot be
    /// executed, the container is stopped.
    pub fn start(&self, id: &str) -> Result<(), LifecycleError> {
        let entry = self.store.open(id)?;
        let record = entry.read()?;
        let status = self.status(&record)?;
        let wrong = || LifecycleError::Status { action: "start", id: id.to_owned(), status };
        let process = record.live_process().filter(|_| status == Status::Created);
        let pidfd = process.ok_or_else(wrong)?;
        let result = begin(&entry, &record, &pidfd).and_then(|()| {
            hooks::run(Moment::Poststart, &record.config, &record.state(Status::Running), None)
        });
        if result.is_err() {
            // Its end is all that is wanted; `delete` does the rest.
            let _ = pidfd.send(libc::SIGKILL);
        }
        for name in [START_FIFO, STARTED_FIFO] {
            // Nobody needs them any more, and `delete` removes what stays.
            let _ = std::fs::remove_file(entry.folder().join(name));
        }
        result
    }
}

/// From the hooks before the start to the execution.
fn begin(entry: &Entry, record: &Record, pidfd: &PidFd) -> Result<(), LifecycleError> {
    start_hooks(record, pidfd)?;
    let open = |name: &str, write: bool| {
        let path = entry.folder().join(name);
        // Without waiting for the other side, which is there.
        let file =
            File::options().read(!write).write(write).custom_flags(libc::O_NONBLOCK).open(&path);
        file.map_err(LifecycleError::state("open", path))
    };
    // First the answer's end, so that no answer is lost.
    let mut started = open(STARTED_FIFO, false)?;
    let path = entry.folder().join(START_FIFO);
    open(START_FIFO, true)?.write_all(b"!").map_err(LifecycleError::state("write", path))?;
    match hear(&mut started, pidfd).and_then(|said| StartFailure::parse(&said)) {
        None => Ok(()),
        Some(failure) => {
            let process = record.config.process().as_ref();
            let arguments = process.and_then(|process| process.args().as_deref());
            let program = arguments.and_then(<[String]>::first).cloned().unwrap_or_default();
            Err(LifecycleError::Program { program, source: failure.error })
        }
    }
}

/// Runs the hooks of the container's namespaces, with no more rights than its
/// program will have: the image decides what they execute.
fn start_hooks(record: &Record, pidfd: &PidFd) -> Result<(), LifecycleError> {
    let spec = &record.config;
    if Moment::StartContainer.hooks(spec).is_empty() {
        return Ok(());
    }
    let pid = record.process.map_or(0, |process| process.pid);
    let process = spec.process().clone().unwrap_or_default();
    let identity = Joining::plan(&process, spec)?.restrictions();
    let entrance = Entrance::new(pid, pidfd, identity)
        .map_err(|source| LifecycleError::Process { action: "enter", pid, source })?;
    hooks::run(Moment::StartContainer, spec, &record.state(Status::Created), Some(&entrance))
}

/// What the first process says until it executes its program or ends.
fn hear(started: &mut File, pidfd: &PidFd) -> Option<Vec<u8>> {
    let mut said = Vec::new();
    loop {
        let mut wait = [
            PollFd::new(started.as_fd(), PollFlags::POLLIN),
            // One that is killed meanwhile closes its side, too; this is for
            // copies that it may have handed on.
            PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
        ];
        match nix::poll::poll(&mut wait, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => return None,
            Ok(_) => {}
        }
        let mut part = [0; 64];
        match started.read(&mut part) {
            Ok(0) => return Some(said),
            Ok(length) => said.extend_from_slice(part.get(..length)?),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if pidfd.wait_ended(Some(std::time::Duration::ZERO)).unwrap_or(true) {
                    return Some(said);
                }
            }
            Err(_) => return None,
        }
    }
}
