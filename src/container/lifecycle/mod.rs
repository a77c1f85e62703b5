//! The life of a container in several hands: one command creates it, another
//! one starts it, others look at it, run more in it, and delete it. This is
//! what the OCI runtime specification describes in runtime.md and what
//! engines such as Podman and Docker use.
//!
//! Nothing runs in between: a container's first process waits by itself for
//! its start, and what is known about it is in a folder of its own below a
//! root folder. Only [`container::run`](super::run()) starts a container
//! in one go; see there for what costs least.
//!
//! Limits of cgroup version 2 by systemd's interface are not here: an engine
//! must use its `cgroupfs` manager.

mod cgroup_mounts;
mod console;
mod create;
mod delete;
mod enter;
mod error;
mod exec;
mod hooks;
mod signal;
mod start;
mod state;
mod store;
mod usage;

use std::ffi::CString;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use self::state::Record;
use self::store::Store;
use crate::container::cgroup::Group;

pub use self::create::CreateOptions;
pub use self::error::LifecycleError;
pub use self::exec::ExecOptions;
pub use self::state::{State, Status};
pub use self::usage::Statistics;

/// The FIFO through which the first process is told to start.
const START_FIFO: &str = "start";
/// The one through which it tells that it could not.
const STARTED_FIFO: &str = "started";

/// The containers below one root folder.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    store: Store,
}

impl Lifecycle {
    /// The containers whose states are below this folder, which is made when
    /// there is something to put in it. It must not outlive a boot.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { store: Store::new(root) }
    }

    /// The state of a container.
    ///
    /// # Errors
    ///
    /// When there is no such container, or what is known of it is damaged.
    pub fn state(&self, id: &str) -> Result<State, LifecycleError> {
        let record = self.store.read(id)?;
        let status = self.status(&record)?;
        Ok(record.state(status))
    }

    /// The states of all containers, by name. One whose state is damaged is
    /// in the list with the error.
    ///
    /// # Errors
    ///
    /// When the root folder cannot be read.
    pub fn list(&self) -> Result<Vec<Result<State, LifecycleError>>, LifecycleError> {
        let states = self.store.list()?.into_iter().map(|id| self.state(&id));
        // One that was deleted meanwhile is no container any more.
        Ok(states.filter(|state| !matches!(state, Err(LifecycleError::Unknown(_)))).collect())
    }

    /// Where a container is in its life, by what the kernel says.
    fn status(&self, record: &Record) -> Result<Status, LifecycleError> {
        if record.live_process().is_none() {
            let begun = record.process.is_some() || record.complete;
            return Ok(if begun { Status::Stopped } else { Status::Creating });
        }
        if !record.complete {
            return Ok(Status::Creating);
        }
        if self.awaits_start(&record.id)? {
            return Ok(Status::Created);
        }
        Ok(if frozen(record) { Status::Paused } else { Status::Running })
    }

    /// Whether somebody reads the FIFO: the first process has it open until it
    /// executes its program.
    fn awaits_start(&self, id: &str) -> Result<bool, LifecycleError> {
        let path = self.store.folder(id)?.join(START_FIFO);
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        Ok(nix::fcntl::open(&path, flags, Mode::empty()).is_ok())
    }
}

/// Whether the container's processes are stopped by the freezer; without one
/// they are not.
fn frozen(record: &Record) -> bool {
    let group = record.cgroups.as_ref().map(Group::reopen);
    group.and_then(Result::ok).is_some_and(|group| group.is_frozen().unwrap_or(false))
}

/// The name of a container's session keyring.
fn keyring(id: &str) -> CString {
    // Names of containers have no NUL bytes.
    CString::new(format!("_ses.{id}")).unwrap_or_default()
}
