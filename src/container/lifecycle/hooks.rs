//! Hooks: programs that the configuration wants to be run at certain moments.
//!
//! Each gets the container's state on its standard input. Those of the
//! container's namespaces are launched into them by the runtime, so the
//! container's first process never runs anything but its own program.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use oci_spec::runtime::{Hook, Spec};

use super::enter::Entrance;
use super::error::LifecycleError;
use super::state::State;
use crate::errors::chain;
use crate::sys::executable::is_sealed;
use crate::sys::pidfd::PidFd;
use crate::sys::spawn::{Command, Launch, Program, Step};

/// The moments, see "POSIX-platform Hooks" of the OCI runtime specification's
/// config.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// The old name of the next one, run before it.
    Prestart,
    /// Namespaces exist; the root has not changed. Runs in the runtime's.
    CreateRuntime,
    /// At the same time, in the container's.
    CreateContainer,
    /// `start` was called; in the container's namespaces and root.
    StartContainer,
    /// The program runs. In the runtime's namespaces.
    Poststart,
    /// The container is deleted. In the runtime's namespaces.
    Poststop,
}

impl Moment {
    /// The name of the list in the configuration.
    fn as_str(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// Its hooks.
    #[allow(deprecated, reason = "configurations that have prestart hooks mean them")]
    pub(super) fn hooks(self, spec: &Spec) -> &[Hook] {
        let Some(hooks) = spec.hooks() else { return &[] };
        let list = match self {
            Self::Prestart => hooks.prestart(),
            Self::CreateRuntime => hooks.create_runtime(),
            Self::CreateContainer => hooks.create_container(),
            Self::StartContainer => hooks.start_container(),
            Self::Poststart => hooks.poststart(),
            Self::Poststop => hooks.poststop(),
        };
        list.as_deref().unwrap_or_default()
    }
}

/// Runs the hooks of a moment one after the other, in the runtime's
/// namespaces or through an entrance in the container's. The first that fails
/// is the last that is run.
pub(super) fn run(
    moment: Moment,
    spec: &Spec,
    state: &State,
    entrance: Option<&Entrance>,
) -> Result<(), LifecycleError> {
    moment.hooks(spec).iter().try_for_each(|hook| {
        run_one(hook, state, entrance).map_err(|reason| LifecycleError::Hook {
            kind: moment.as_str(),
            path: hook.path().clone(),
            reason,
        })
    })
}

/// Runs all hooks of a moment whatever they do; returns what failed.
pub(super) fn run_all(moment: Moment, spec: &Spec, state: &State) -> Vec<LifecycleError> {
    let failure = |hook: &Hook| {
        let reason = run_one(hook, state, None).err()?;
        Some(LifecycleError::Hook { kind: moment.as_str(), path: hook.path().clone(), reason })
    };
    moment.hooks(spec).iter().filter_map(failure).collect()
}

/// Runs one; the error says how it failed.
fn run_one(hook: &Hook, state: &State, entrance: Option<&Entrance>) -> Result<(), String> {
    let failed = |error: &dyn std::error::Error| format!("could not be run: {}", chain(error));
    let text = serde_json::to_vec(state).map_err(|error| failed(&error))?;
    let input = in_memory(&text).map_err(|error| failed(&error))?;
    // It inherits what the runtime says to people, and gets nothing else.
    let null = File::options().write(true).open("/dev/null").map_err(|error| failed(&error))?;
    let stderr = std::io::stderr();
    let fds = [(input.as_fd(), 0), (null.as_fd(), 1), (stderr.as_fd(), 2)];
    let mut command = command(hook, entrance)?;
    let launch = Launch { fds: &fds, ..Launch::default() };
    let launched = match entrance {
        Some(entrance) => entrance.launch(&mut command, &launch),
        None => command.spawn(&launch),
    };
    let child = launched.map_err(|error| failed(&error))?;
    let limit = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok());
    wait(&child.pidfd, limit.map(Duration::from_secs))
}

/// A file in memory, to be read from its start: unlike a pipe it needs nobody
/// who writes while the hook reads.
fn in_memory(text: &[u8]) -> std::io::Result<File> {
    use std::io::{Seek, SeekFrom};
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    let mut file = File::from(nix::sys::memfd::memfd_create(c"state", flags)?);
    file.write_all(text)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// Waits for the end of a hook, at most as long as it may take.
fn wait(pidfd: &PidFd, limit: Option<Duration>) -> Result<(), String> {
    match pidfd.wait(limit) {
        Ok(Some(ended)) if ended.exit.success() => Ok(()),
        Ok(Some(ended)) => Err(format!("failed: {}", ended.exit)),
        Ok(None) => {
            // Nothing can be done about one that cannot be killed.
            let _ = pidfd.kill_and_wait();
            let seconds = limit.unwrap_or_default().as_secs();
            Err(format!("was killed: it did not end within {seconds} s (hooks[].timeout)"))
        }
        Err(error) => Err(format!("could not be waited for: {error}")),
    }
}

fn command(hook: &Hook, entrance: Option<&Entrance>) -> Result<Command, String> {
    let path = hook.path();
    if !path.is_absolute() {
        return Err("could not be run: its path is not absolute".to_owned());
    }
    let c_string = |bytes: &[u8]| {
        CString::new(bytes).map_err(|_| "could not be run: it has a NUL byte".to_owned())
    };
    let all = |list: &Option<Vec<String>>| {
        list.iter().flatten().map(|text| c_string(text.as_bytes())).collect::<Result<Vec<_>, _>>()
    };
    let program = c_string(path.as_os_str().as_bytes())?;
    let mut arguments = all(hook.args())?;
    if arguments.is_empty() {
        arguments.push(program.clone());
    }
    let mut steps = vec![Step::NewSession];
    steps.extend(entrance.into_iter().flat_map(Entrance::steps));
    steps.push(Step::MapDescriptors);
    steps.extend(entrance.into_iter().flat_map(|entrance| entrance.identity.iter().cloned()));
    // With the runtime ends what it started; changes of user forget it.
    steps.extend([Step::ParentDeathSignal(Signal::SIGKILL), Step::CheckParent]);
    let handles: Vec<OwnedFd> = match entrance {
        Some(entrance) => {
            vec![entrance.handle().map_err(|error| format!("could not be run: {error}"))?]
        }
        None => Vec::new(),
    };
    let command = Command::new(
        Program::Paths(vec![program]),
        arguments,
        all(hook.env())?,
        CloneFlags::empty(),
        steps,
    );
    // In the container's namespaces the container may decide what is at the
    // program's path.
    let guarded = entrance.is_some() && !is_sealed();
    command
        .and_then(|command| command.guarded(guarded))
        .map(|command| command.with_handles(handles))
        .map_err(|error| format!("could not be run: {}", chain(&error)))
}
