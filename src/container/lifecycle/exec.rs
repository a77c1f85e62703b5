//! One more process in a container that runs.

use std::os::fd::{BorrowedFd, RawFd};
use std::path::Path;

use nix::sched::CloneFlags;
use oci_spec::runtime::{Process, Spec};

use super::console::Console;
use super::enter::Entrance;
use super::error::LifecycleError;
use super::signal::group;
use super::state::Status;
use super::{Lifecycle, keyring};
use crate::container::PrepareError;
use crate::container::plan::Joining;
use crate::sys::executable::is_sealed;
use crate::sys::spawn::{Child, Command, Launch, Program, SpawnError, Step};

/// What is executed in a container.
#[derive(Clone, Debug)]
pub struct ExecOptions<'a> {
    /// The container.
    pub id: &'a str,
    /// The process, as in a configuration.
    pub process: &'a Process,
    /// Where the terminal is sent, if it has one.
    pub console_socket: Option<&'a Path>,
    /// Whether it keeps the caller's session keyring.
    pub keep_keyring: bool,
    /// What it gets open: standard streams, unless it has a terminal, and what
    /// the caller has to hand on.
    pub fds: &'a [(BorrowedFd<'a>, RawFd)],
}

impl Lifecycle {
    /// The configuration of a container, as it was when it was created.
    ///
    /// # Errors
    ///
    /// As [`Lifecycle::state`].
    pub fn config(&self, id: &str) -> Result<Spec, LifecycleError> {
        Ok(self.store.read(id)?.config)
    }

    /// Executes a process in a created or running container: in its
    /// namespaces and control groups, with the rights that `process` says.
    /// It is a child of the caller, and not ended with it.
    ///
    /// # Errors
    ///
    /// When the container does not run, and when a step fails, by its name.
    pub fn exec(&self, options: &ExecOptions<'_>) -> Result<Child, LifecycleError> {
        let record = self.store.read(options.id)?;
        let status = self.status(&record)?;
        let id = options.id.to_owned();
        let runs = matches!(status, Status::Running | Status::Created);
        let Some(first) = record.live_process().filter(|_| runs) else {
            return Err(LifecycleError::Status { action: "execute in", id, status });
        };
        let pid = record.process.map_or(0, |process| process.pid);
        let process = options.process;
        let console = Console::connect(process, options.console_socket)?;
        let joining = Joining::plan(process, &record.config)?;
        let group = group(&record)?;
        let failed = |source| LifecycleError::Process { action: "enter", pid, source };
        let entrance = Entrance::new(pid, &first, joining.identity).map_err(failed)?;
        let mut steps = Vec::new();
        if let Some(value) = process.oom_score_adj() {
            // The host's /proc is still there.
            let data = value.to_string().into_bytes();
            steps.push(Step::WriteFile { path: c"/proc/self/oom_score_adj".into(), data });
        }
        steps.push(Step::JoinCgroups);
        steps.push(Step::NewSession);
        if !options.keep_keyring {
            steps.push(Step::SessionKeyring(keyring(options.id)));
        }
        steps.extend(entrance.steps());
        steps.extend(joining.terminal);
        steps.extend(entrance.identity.iter().cloned());
        let handle = entrance.handle().map_err(|_| failed(nix::errno::Errno::EMFILE))?;
        let mut command = Command::new(
            Program::Paths(joining.program),
            joining.arguments,
            joining.environment,
            CloneFlags::empty(),
            steps,
        )
        .map_err(PrepareError::Command)?
        // The container decides what is at the program's path.
        .guarded(!is_sealed())
        .map_err(PrepareError::Command)?
        .with_handles(vec![handle]);
        let join = group.join_fds();
        let launch = Launch {
            fds: options.fds,
            join: &join,
            into_cgroup: group.into_cgroup(),
            terminal: console.as_ref().map(Console::terminal),
            hold: None,
        };
        let launched = entrance.launch(&mut command, &launch);
        launched.map_err(|error| explain(error, &command, process))
    }
}

/// A program that was not found, in the words that engines know.
fn explain(error: SpawnError, command: &Command, process: &Process) -> LifecycleError {
    let source = match error {
        SpawnError::Step { index, source, .. }
            if command.steps().get(index) == Some(&Step::FindProgram) =>
        {
            source
        }
        SpawnError::Execute { source, .. } => source,
        other => return other.into(),
    };
    let arguments = process.args().as_deref().unwrap_or_default();
    let program = arguments.first().cloned().unwrap_or_default();
    LifecycleError::Program { program, source }
}
