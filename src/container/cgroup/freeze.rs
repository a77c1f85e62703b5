//! Stopping and continuing all processes of a group.

use std::path::Path;
use std::thread;
use std::time::Duration;

use super::detect::Version;
use super::sweep::wait_for_change;
use super::{CgroupError, Controller, Group, files};
use crate::sys::clock::Deadline;

/// First pause between two looks at a state that the kernel does not notify.
const PAUSE: Duration = Duration::from_micros(50);

impl Group {
    /// Stops every process in the group and below it, and waits until none
    /// runs any more. They do not notice, but for the time that passes.
    ///
    /// # Errors
    ///
    /// Without a freezer, and when a process did not stop within `limit`,
    /// after which all continue: one that waits in the kernel for a device,
    /// or of version 1 for a parent that shares its memory (vfork), cannot.
    pub fn freeze(&self, limit: Duration) -> Result<(), CgroupError> {
        let result = self.set_frozen(true, Deadline::after(limit));
        if result.is_err() {
            // The first error is the one that says why.
            let _ = self.set_frozen(false, Deadline::after(limit));
        }
        result
    }

    /// Continues what [`Group::freeze`] stopped, and waits until it runs.
    ///
    /// # Errors
    ///
    /// Without a freezer, and when it does not run within `limit`: a cgroup
    /// above may be frozen, too.
    pub fn thaw(&self, limit: Duration) -> Result<(), CgroupError> {
        self.set_frozen(false, Deadline::after(limit))
    }

    /// Whether every process is stopped.
    ///
    /// # Errors
    ///
    /// Without a freezer.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        let part = self.part(Controller::Freezer)?;
        state(part.version, &part.folder).map(|state| state == wanted(part.version, true))
    }

    fn set_frozen(&self, frozen: bool, deadline: Deadline) -> Result<(), CgroupError> {
        let part = self.part(Controller::Freezer)?;
        let folder = &part.folder;
        let (file, value) = match (part.version, frozen) {
            (Version::V1, true) => ("freezer.state", "FROZEN"),
            (Version::V1, false) => ("freezer.state", "THAWED"),
            (Version::V2, true) => ("cgroup.freeze", "1"),
            (Version::V2, false) => ("cgroup.freeze", "0"),
        };
        files::set("freezer", &folder.join(file), value)?;
        let mut pause = PAUSE;
        loop {
            let state = state(part.version, folder)?;
            if state == wanted(part.version, frozen) {
                return Ok(());
            }
            if deadline.passed() {
                let wanted = if frozen { "frozen" } else { "thawed" };
                return Err(CgroupError::Freeze { path: folder.clone(), wanted, state });
            }
            match part.version {
                Version::V2 => wait_for_change(folder, deadline, &mut pause),
                Version::V1 => {
                    thread::sleep(pause.min(deadline.left()));
                    pause = (pause * 2).min(Duration::from_millis(5));
                    // Processes born while others were being stopped are
                    // looked at again only when asked
                    // (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst).
                    if frozen {
                        files::set("freezer", &folder.join(file), value)?;
                    }
                }
            }
        }
    }
}

fn wanted(version: Version, frozen: bool) -> &'static str {
    match (version, frozen) {
        (Version::V1, true) => "FROZEN",
        (Version::V1, false) => "THAWED",
        (Version::V2, true) => "1",
        (Version::V2, false) => "0",
    }
}

/// What the kernel says: the state of version 1, or `frozen` of
/// `cgroup.events`.
fn state(version: Version, folder: &Path) -> Result<String, CgroupError> {
    match version {
        Version::V1 => Ok(files::read(&folder.join("freezer.state"))?.trim().to_owned()),
        Version::V2 => {
            let path = folder.join("cgroup.events");
            let text = files::read(&path)?;
            files::find_key(&text, "frozen").map(str::to_owned).ok_or_else(|| {
                CgroupError::Content { path, content: "no line `frozen` (Linux 5.2)".to_owned() }
            })
        }
    }
}

/// Continues a cgroup of version 1 so that its processes can die: there a
/// signal, `SIGKILL` included, waits until they run again.
pub(super) fn let_die(folder: &Path) {
    let path = folder.join("freezer.state");
    if path.exists() {
        // A cgroup that is removed meanwhile has nobody left to continue.
        let _ = files::write(&path, "THAWED");
    }
}
