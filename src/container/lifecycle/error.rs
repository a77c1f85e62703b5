//! What can go wrong between `create` and `delete`.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::container::cgroup::CgroupError;
use crate::container::{BundleError, PlanError, PrepareError};
use crate::sys::spawn::SpawnError;

use super::state::Status;

/// Why a command of the container's life could not be carried out.
///
/// Some wordings are what engines look for: `does not exist` and `container
/// not running` tell containerd that there is nothing left to kill.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// A name that cannot be a container's.
    #[error(
        "container ID `{0}` is not usable: letters, digits and `_+-.`, not only dots, at most \
         1024 of them"
    )]
    Id(String),
    /// There is already a container of this name.
    #[error("container with ID `{0}` already exists")]
    Exists(String),
    /// There is no container of this name.
    #[error("container `{0}` does not exist")]
    Unknown(String),
    /// What is known about the container cannot be read.
    #[error("the state of container `{id}` in {} is damaged; `delete --force` removes it", path.display())]
    Damaged {
        /// Its name.
        id: String,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// The state could not be read, written or removed.
    #[error("cannot {action} {}", path.display())]
    State {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The command does not fit to the container's status.
    #[error("cannot {action} container `{id}`: it is {status}{}", hint(*.status, action))]
    Status {
        /// What was tried.
        action: &'static str,
        /// Its name.
        id: String,
        /// Its status.
        status: Status,
    },
    /// A signal was sent to a container that has ended.
    #[error("container not running: `{0}` is stopped")]
    NotRunning(String),
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The spec cannot be carried out.
    #[error("cannot use the container's configuration")]
    Plan(#[from] PlanError),
    /// A field that fits not to what the command was given.
    #[error("{0}")]
    Usage(&'static str),
    /// Its control groups.
    #[error("cannot use the container's control groups")]
    Cgroup(#[from] CgroupError),
    /// A limit that was asked for cannot be set here.
    #[error("cannot limit the container: {0}")]
    Limit(String),
    /// Limits that do not go together with those that are.
    #[error("cannot use the resources")]
    Resources {
        /// The cause.
        source: serde_json::Error,
    },
    /// Its process could not be prepared.
    #[error("cannot prepare the container")]
    Prepare(#[from] PrepareError),
    /// Its process could not be started.
    #[error("cannot start the container's process")]
    Spawn(#[from] SpawnError),
    /// The program is not there, in the words that engines look for to tell
    /// exit code 127.
    #[error("exec: \"{program}\": {}", not_executable(program, *.source))]
    Program {
        /// The program's name in the spec.
        program: String,
        /// The kernel's error.
        source: Errno,
    },
    /// The console socket.
    #[error("cannot connect to the console socket {}", path.display())]
    Console {
        /// Its path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A hook failed.
    #[error("the {kind} hook {} {reason}", path.display())]
    Hook {
        /// Which list of the spec it is in.
        kind: &'static str,
        /// Its program.
        path: PathBuf,
        /// How it ended.
        reason: String,
    },
    /// The container's process could not be looked at.
    #[error("cannot {action} process {pid} of the container")]
    Process {
        /// What was tried.
        action: &'static str,
        /// Its number.
        pid: i32,
        /// The kernel's error.
        source: Errno,
    },
    /// The process did not end.
    #[error("process {pid} of container `{id}` did not end after SIGKILL")]
    Survivor {
        /// The container.
        id: String,
        /// Its number.
        pid: i32,
    },
}

/// What a user can do about it.
fn hint(status: Status, action: &str) -> &'static str {
    match (status, action) {
        (Status::Running | Status::Paused, "delete") => {
            "; stop it first, or give --force to have it killed"
        }
        _ => "",
    }
}

/// How Go's `os/exec` says it, which engines search for.
fn not_executable(program: &str, error: Errno) -> &'static str {
    match error {
        Errno::ENOENT if !program.contains('/') => "executable file not found in $PATH",
        Errno::ENOENT | Errno::ENOTDIR => "no such file or directory",
        Errno::EACCES | Errno::EPERM => "permission denied",
        Errno::ENOEXEC => "exec format error",
        _ => "cannot be executed",
    }
}

impl LifecycleError {
    /// For `map_err` on a file operation.
    pub(super) fn state(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::State { action, path, source }
    }
}
