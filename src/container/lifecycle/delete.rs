//! Deleting a container with everything that was made for it.

use std::path::Path;
use std::time::Duration;

use nix::libc;

use super::Lifecycle;
use super::error::LifecycleError;
use super::hooks::{self, Moment};
use super::state::{Record, Status};
use super::store::Entry;
use crate::container::cgroup::{Group, Hierarchy};

/// How long a killed process may take to end, and the kernel to let go of its
/// cgroups.
const DEATH_LIMIT: Duration = Duration::from_secs(30);

/// What a `delete` has to say besides success.
pub type Warnings = Vec<LifecycleError>;

impl Lifecycle {
    /// Deletes a container: its control groups, what still runs in them, and
    /// what is known of it. Its mounts were in its own namespace and ended
    /// with it. Returns poststop hooks that failed, which change nothing.
    ///
    /// A created container is killed first, as runc does. With `force`, so is
    /// a running one; a damaged state is removed with what can be found by it;
    /// and a container that does not exist is no error.
    ///
    /// # Errors
    ///
    /// When it runs, and when something could not be removed; calling again
    /// continues.
    pub fn delete(&self, id: &str, force: bool) -> Result<Warnings, LifecycleError> {
        let entry = match self.store.open(id) {
            Err(LifecycleError::Unknown(_)) if force => return Ok(Vec::new()),
            other => other?,
        };
        let record = match entry.read() {
            // Nothing that it could have been is known any more.
            Err(LifecycleError::Damaged { .. }) if force => {
                entry.remove()?;
                return Ok(Vec::new());
            }
            other => other?,
        };
        let status = self.status(&record)?;
        let may = force || matches!(status, Status::Stopped | Status::Created);
        if !may {
            let id = id.to_owned();
            return Err(LifecycleError::Status { action: "delete", id, status });
        }
        destroy(entry, &record)
    }
}

fn destroy(entry: Entry, record: &Record) -> Result<Warnings, LifecycleError> {
    kill_first(entry.id(), record)?;
    remove_cgroups(record)?;
    let state = record.state(Status::Stopped);
    // After everything is undone, before it is forgotten.
    let warnings = hooks::run_all(Moment::Poststop, &record.config, &state);
    entry.remove()?;
    Ok(warnings)
}

/// Ends the first process, and with it a pid namespace of its own.
fn kill_first(id: &str, record: &Record) -> Result<(), LifecycleError> {
    let Some(pidfd) = record.live_process() else { return Ok(()) };
    let pid = record.process.map_or(0, |process| process.pid);
    match pidfd.send(libc::SIGKILL) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(source) => return Err(LifecycleError::Process { action: "kill", pid, source }),
    }
    if let Some(cgroups) = &record.cgroups {
        // Frozen processes of version 1 die only when they are thawed.
        Group::reopen(cgroups)?.kill_all()?;
    }
    let failed = |source| LifecycleError::Process { action: "wait for", pid, source };
    match pidfd.wait_ended(Some(DEATH_LIMIT)).map_err(failed)? {
        true => Ok(()),
        false => Err(LifecycleError::Survivor { id: id.to_owned(), pid }),
    }
}

/// Ends whoever is still in the container's cgroups, and removes them.
fn remove_cgroups(record: &Record) -> Result<(), LifecycleError> {
    let mut group = match &record.cgroups {
        Some(cgroups) => Group::reopen(cgroups)?,
        None => {
            // `create` was killed before it could write down what it made.
            let hierarchy = Hierarchy::detect(Path::new("/proc"), Path::new("/sys/fs/cgroup"))?;
            match hierarchy.open_group(&record.cgroups_path) {
                Ok(group) => group,
                Err(_) => return Ok(()),
            }
        }
    };
    group.kill_all()?;
    Ok(group.remove(DEATH_LIMIT)?)
}
