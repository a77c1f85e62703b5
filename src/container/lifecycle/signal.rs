//! Signals to a container, and stopping all of its processes for a while.

use std::time::Duration;

use nix::libc;

use super::Lifecycle;
use super::error::LifecycleError;
use super::state::{Record, Status};
use crate::container::cgroup::{Controller, Group};

/// How long the processes of a container may take to stop.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);

/// Signals that end a process that does nothing about them (signal(7)). A
/// created container's process, which is the first of its pid namespace and
/// has no handlers, would never notice them.
const ENDING: [i32; 7] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
];

impl Lifecycle {
    /// Sends a signal, by number, to the first process of a container, or to
    /// all of its processes; to a created one, whose program does not run yet,
    /// a signal that would end it is `SIGKILL`.
    ///
    /// # Errors
    ///
    /// When it does not run, and when the kernel refuses.
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<(), LifecycleError> {
        // Not locked: a start that hangs in a hook must not protect it.
        let record = self.store.read(id)?;
        let status = self.status(&record)?;
        if all {
            return kill_all(&record, signal, status);
        }
        let stopped = || LifecycleError::NotRunning(id.to_owned());
        let pidfd = record.live_process().ok_or_else(stopped)?;
        let waits = status == Status::Created && ENDING.contains(&signal);
        let signal = if waits { libc::SIGKILL } else { signal };
        match pidfd.send(signal) {
            Err(nix::errno::Errno::ESRCH) => return Err(stopped()),
            other => other.map_err(|source| LifecycleError::Process {
                action: "signal",
                pid: record.process.map_or(0, |process| process.pid),
                source,
            })?,
        }
        // A frozen process of version 1 does not even die.
        if signal == libc::SIGKILL && status == Status::Paused {
            group(&record)?.thaw(FREEZE_LIMIT)?;
        }
        Ok(())
    }

    /// Stops all processes of a running container.
    ///
    /// # Errors
    ///
    /// When it does not run, or there is no freezer.
    pub fn pause(&self, id: &str) -> Result<(), LifecycleError> {
        let entry = self.store.open(id)?;
        let record = entry.read()?;
        match self.status(&record)? {
            Status::Running | Status::Created => Ok(group(&record)?.freeze(FREEZE_LIMIT)?),
            status => Err(LifecycleError::Status { action: "pause", id: id.to_owned(), status }),
        }
    }

    /// Continues all processes of a paused container.
    ///
    /// # Errors
    ///
    /// When it is not paused.
    pub fn resume(&self, id: &str) -> Result<(), LifecycleError> {
        let entry = self.store.open(id)?;
        let record = entry.read()?;
        match self.status(&record)? {
            Status::Paused => Ok(group(&record)?.thaw(FREEZE_LIMIT)?),
            status => Err(LifecycleError::Status { action: "resume", id: id.to_owned(), status }),
        }
    }
}

/// Signals every process in the container's cgroups. Without cgroups it is
/// the first process, with which a pid namespace ends.
fn kill_all(record: &Record, signal: i32, status: Status) -> Result<(), LifecycleError> {
    let group = group(record)?;
    if group.folders().is_empty() || !group.exists() {
        return match record.live_process() {
            Some(pidfd) => pidfd.send(signal).map_err(|source| LifecycleError::Process {
                action: "signal",
                pid: record.process.map_or(0, |process| process.pid),
                source,
            }),
            // What is gone has got every signal that it ever will.
            None => Ok(()),
        };
    }
    if signal == libc::SIGKILL {
        return Ok(group.kill_all()?);
    }
    let frozen = status != Status::Paused
        && group.folder(Controller::Freezer).is_some()
        && group.freeze(FREEZE_LIMIT).is_ok();
    // While they stand still none is born that would be missed.
    let sent = match nix::sys::signal::Signal::try_from(signal) {
        Ok(signal) => group.signal(signal).map_err(LifecycleError::from),
        Err(source) => {
            let pid = record.process.map_or(0, |process| process.pid);
            Err(LifecycleError::Process { action: "signal", pid, source })
        }
    };
    if frozen {
        group.thaw(FREEZE_LIMIT)?;
    }
    sent
}

/// The control groups of a container.
pub(super) fn group(record: &Record) -> Result<Group, LifecycleError> {
    match &record.cgroups {
        Some(cgroups) => Ok(Group::reopen(cgroups)?),
        None => Ok(Group::none("the container has no control groups")),
    }
}
