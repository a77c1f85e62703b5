//! System-call filters: from what a spec says about seccomp to a program that
//! the kernel takes.
//!
//! [`compile`] groups the numbers of each architecture into ranges of one
//! verdict and finds the range by a tree of comparisons, which the kernel
//! loads several times faster than one comparison per call. [`read_profile`]
//! and [`default_profile`] turn a profile with conditions (capabilities,
//! architecture, kernel) into a plain spec.
//!
//! The meaning is that of runc with libseccomp:
//! - Names that an architecture does not have are ignored, also those that
//!   none has: profiles name calls that are newer than the program.
//! - A rule without conditions decides; of two the first does. Else the first
//!   rule whose conditions hold, else the default. (libseccomp leaves open
//!   which of several conditional rules with different actions counts.)
//! - If an entry has two conditions on one argument, each of its conditions is
//!   a rule of its own.
//! - An architecture that is not in the list is killed; the native one always
//!   is in it.
//! - Numbers beyond the last that the profile names return `ENOSYS`, unless
//!   the default is lenient or says `ENOSYS` itself: programs try newer calls
//!   first and expect this answer.
//! - On i386 a rule also holds for the same call through `socketcall` or
//!   `ipc`; of a rule with conditions, which cannot be seen there, the
//!   stricter reading counts.
//!
//! Notifications to user space (`SCMP_ACT_NOTIFY`, `listenerPath`) are
//! refused.

mod machine;
mod profile;
mod program;
mod rules;
#[cfg(test)]
mod tests;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag};

use self::rules::{ALLOW, Rules, Verdict};
use crate::sys::spawn::Filter;

pub use self::machine::Machine;
pub use self::profile::{ProfileError, default_profile, read_profile};

/// `SECCOMP_FILTER_FLAG_*` (include/uapi/linux/seccomp.h).
const FLAG_TSYNC: u32 = 1;
const FLAG_LOG: u32 = 2;
const FLAG_SPEC_ALLOW: u32 = 4;

/// Why a filter cannot be made. Fields are those of `linux.seccomp`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SeccompError {
    /// The action needs a process that answers.
    #[error("`linux.seccomp.{field}` cannot be `SCMP_ACT_NOTIFY`: notifications are not supported")]
    Notify {
        /// The field.
        field: String,
    },
    /// So does a listener.
    #[error("`linux.seccomp.listenerPath` is not supported by this runtime")]
    Listener,
    /// The architecture's numbers are not known.
    #[error(
        "`linux.seccomp.architectures[{place}]` cannot be `{name}`: filters are made for x86_64, \
         x86, x32, aarch64 and arm"
    )]
    Architecture {
        /// Its place in the list.
        place: usize,
        /// Its name.
        name: String,
    },
    /// A flag that is of use only with a listener.
    #[error(
        "`linux.seccomp.flags[{place}]` cannot be `{name}`: it is about notifications, which are \
         not supported"
    )]
    Flag {
        /// Its place in the list.
        place: usize,
        /// Its name.
        name: String,
    },
    /// An error number where none can be returned, or one that is too large.
    #[error(
        "`linux.seccomp.{field}` cannot be `{action}` with error number {errno}: only \
         SCMP_ACT_ERRNO and SCMP_ACT_TRACE take one, at most 4095"
    )]
    Errno {
        /// The field.
        field: String,
        /// The action.
        action: LinuxSeccompAction,
        /// The number.
        errno: u32,
    },
    /// System calls have six arguments.
    #[error("`linux.seccomp.{field}` cannot be `{index}`: arguments have numbers from 0 to 5")]
    Index {
        /// The field.
        field: String,
        /// The number.
        index: usize,
    },
    /// The kernel would refuse the program.
    #[error(
        "`linux.seccomp` needs {instructions} filter instructions, more than the kernel's {}",
        program::MAXIMUM
    )]
    TooLong {
        /// How many.
        instructions: usize,
    },
    /// The container's program could never start.
    #[error(
        "`linux.seccomp` forbids execve (the filter returns {value:#x}), with which the \
         container's program is started: allow it"
    )]
    Execve {
        /// What the filter returns.
        value: u32,
    },
}

/// Makes the program of a spec's filter.
///
/// # Errors
///
/// See [`SeccompError`]; each names the field.
pub fn compile(seccomp: &LinuxSeccomp) -> Result<Filter, SeccompError> {
    if seccomp.listener_path().is_some() {
        return Err(SeccompError::Listener);
    }
    let flags = flags(seccomp)?;
    let rules = Rules::new(seccomp)?;
    if let Some(Verdict::Always(value)) = rules.verdict(Machine::native(), "execve")
        && !lets_pass(*value)
    {
        return Err(SeccompError::Execve { value: *value });
    }
    let permits = |name| {
        let verdict = rules.verdict(Machine::native(), name);
        matches!(verdict, Some(Verdict::Always(value)) if *value == ALLOW)
    };
    Ok(Filter {
        instructions: program::write(&rules)?,
        flags,
        permits_clock: permits("clock_gettime"),
        permits_guard: ["execveat", "fcntl", "write", "exit_group"].into_iter().all(permits),
    })
}

/// Whether a call that gets this verdict is carried out.
fn lets_pass(value: u32) -> bool {
    // ALLOW and LOG; TRACE does without a tracer what ERRNO does.
    (0x7ffc_0000..0x8000_0000).contains(&value)
}

fn flags(seccomp: &LinuxSeccomp) -> Result<u32, SeccompError> {
    let mut flags = 0;
    for (place, flag) in seccomp.flags().iter().flatten().enumerate() {
        flags |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => FLAG_TSYNC,
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                return Err(SeccompError::Flag { place, name: flag.to_string() });
            }
        };
    }
    Ok(flags)
}
