//! Why a child could not be prepared or launched.

use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::sched::CloneFlags;

use super::TIME_OFFSETS;
use super::user_namespace::UserNamespaceError;

/// A list of steps that cannot work.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CommandError {
    /// Descriptors must be arranged once.
    #[error("the steps arrange descriptors {0} times instead of once")]
    MapDescriptors(usize),
    /// The step's descriptor is gone by then.
    #[error("step {index} (to {step}) comes after the descriptors are arranged")]
    TooLate {
        /// Index of the step.
        index: usize,
        /// The step.
        step: String,
    },
    /// A resource that every launch needs could not be made.
    #[error("cannot map a stack for the child")]
    Stack(#[source] Errno),
    /// There is no program to execute.
    #[error("there is no program to execute")]
    NoProgram,
    /// The launching process's executable would be unprotected.
    #[error(
        "the seccomp filter forbids what the protection of this runtime's executable needs: allow \
         execveat, fcntl, write and exit_group"
    )]
    Guard,
}

/// Why a launch failed. No process is left.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The kernel did not make a child.
    #[error("cannot create a process (clone3 with {namespaces:?}{})", clone_hint(*.source))]
    Clone {
        /// Namespaces asked for.
        namespaces: CloneFlags,
        /// The kernel's error.
        source: Errno,
    },
    /// A set-up step failed.
    #[error("cannot {step} (step {index}{})", step_hint(step, *.source))]
    Step {
        /// Index in the list of steps.
        index: usize,
        /// What the step does.
        step: String,
        /// The kernel's error.
        source: Errno,
    },
    /// The program could not be executed.
    #[error("cannot execute {program}")]
    Execute {
        /// The path, or the name that was looked for in several folders.
        program: String,
        /// The kernel's error.
        source: Errno,
    },
    /// Somebody killed the child before it came to its program. The kernel
    /// does not for lack of memory: it spares a child that shares its parent's
    /// (`in_vfork` in mm/oom_kill.c), whose step then fails with `ENOMEM`.
    #[error("the child was killed before it could {step} (step {index})")]
    Killed {
        /// Index in the list of steps.
        index: usize,
        /// What the step does.
        step: String,
    },
    /// A descriptor target that cannot be given to a child.
    #[error("descriptor target {0} is negative or named twice")]
    Target(RawFd),
    /// The user namespace of the child.
    #[error("cannot make the user namespace")]
    UserNamespace(#[from] UserNamespaceError),
    /// A program that helps could not be prepared.
    #[error("cannot prepare a helping program")]
    Helper(#[source] CommandError),
    /// A descriptor for watching the launching process could not be opened.
    #[error("cannot open a pidfd of the launching process")]
    OwnPidfd(#[source] Errno),
    /// The launching process's executable could not be protected.
    #[error("cannot protect the launching process's executable ({action})")]
    Guard {
        /// What was tried.
        action: &'static str,
        /// The kernel's error.
        source: Errno,
    },
    /// The steps do not fit to the launch.
    #[error("cannot launch: {0}")]
    Unfit(&'static str),
    /// The connection to a child of its own memory.
    #[error("cannot keep in touch with the child ({action})")]
    Channel {
        /// What was tried.
        action: &'static str,
        /// The kernel's error.
        source: Errno,
    },
    /// The thread that prepares a mount namespace could not be started.
    #[error("cannot start a thread to prepare a mount namespace")]
    Thread(#[source] std::io::Error),
    /// The prepared mount namespace could not be kept.
    #[error("cannot open the prepared mount namespace (is /proc mounted?)")]
    Namespace(#[source] Errno),
}

/// What a user can do about a refused `clone3`.
fn clone_hint(error: Errno) -> &'static str {
    match error {
        Errno::EPERM => {
            "; without root this needs a user namespace, see user.max_user_namespaces and \
             kernel.apparmor_restrict_unprivileged_userns"
        }
        Errno::ENOSPC => "; a limit under /proc/sys/user is reached",
        Errno::EAGAIN => "; a process limit is reached, see `ulimit -u` and pids.max",
        Errno::ENOSYS => "; Linux 5.7 or later is needed",
        _ => "",
    }
}

/// What a user can know about a step that failed.
fn step_hint(step: &str, error: Errno) -> &'static str {
    match error {
        // The offsets are fixed as soon as somebody is in the namespace. A
        // child that shares its parent's memory enters it with its program
        // since "fs/exec: switch timens when a task gets a new mm"; before
        // that it is in it from the start (kernel/time/namespace.c).
        Errno::EACCES if step.ends_with(TIME_OFFSETS) => {
            "; Linux before 6.2 has a new process in its time namespace too early for offsets"
        }
        _ => "",
    }
}
