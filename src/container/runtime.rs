//! A plan made ready, and its instances.

use std::os::fd::{BorrowedFd, RawFd};

use super::cgroup::{Group, Limits};
use super::network::{Netns, NetworkError};
use super::plan::Plan;
use crate::sys::executable::is_sealed;
use crate::sys::spawn::{
    Child, Command, CommandError, Launch, Program, SpawnError, Step, Terminal, mount_namespace,
};

/// Why a container could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Its root filesystem could not be prepared.
    #[error("cannot prepare the container's root filesystem")]
    Root(#[source] SpawnError),
    /// Its steps cannot work.
    #[error("cannot prepare the container's process")]
    Command(#[from] CommandError),
    /// Its network namespace would belong to somebody else.
    #[error("a container with a user namespace of its own cannot be given a network namespace")]
    UserNamespace,
}

/// Why a container was not launched into a network.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Its network namespace could not be entered.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// It could not be started.
    #[error(transparent)]
    Start(#[from] SpawnError),
}

/// A container that is ready to be launched, as often as wanted.
///
/// Where possible its root filesystem stands ready in a mount namespace of
/// which each instance takes a copy: the copy has a handful of mounts instead
/// of all of the host's, the host's root was never in it, and no `pivot_root`
/// and unmounting is left for the launch. With a user namespace each instance
/// does everything itself.
#[derive(Debug)]
pub struct Container {
    command: Command,
    limits: Limits,
}

impl Container {
    /// Makes a plan ready.
    ///
    /// # Errors
    ///
    /// When the root filesystem cannot be prepared, naming the step.
    pub fn prepare(plan: &Plan) -> Result<Self, PrepareError> {
        if !plan.can_be_prepared() {
            return Self::prepare_direct(plan);
        }
        let namespace = mount_namespace(&plan.root_steps()).map_err(PrepareError::Root)?;
        let command = Command::new(
            Program::Paths(plan.program.clone()),
            plan.arguments.clone(),
            plan.environment.clone(),
            plan.birth_prepared(),
            plan.prepared_steps(),
        )?
        .guarded(!is_sealed())?
        .with_handles(vec![namespace]);
        Ok(Self { command, limits: plan.limits.clone() })
    }

    /// Makes a plan ready so that each instance sets up everything itself,
    /// which works for every plan and is what a one-shot start costs.
    ///
    /// # Errors
    ///
    /// When the launching process lacks memory.
    pub fn prepare_direct(plan: &Plan) -> Result<Self, PrepareError> {
        let command = Command::new(
            Program::Paths(plan.program.clone()),
            plan.arguments.clone(),
            plan.environment.clone(),
            plan.birth(),
            plan.direct_steps(),
        )?
        .guarded(!is_sealed())?;
        Ok(Self { command, limits: plan.limits.clone() })
    }

    /// Leaves this process's executable within reach of the container, which
    /// saves an `execve` where the program is trusted.
    ///
    /// # Errors
    ///
    /// None with `false`; with `true` when a seccomp filter forbids what the
    /// guard needs.
    pub fn guarded(mut self, guarded: bool) -> Result<Self, PrepareError> {
        self.command = self.command.guarded(guarded)?;
        Ok(self)
    }

    /// Makes each child stamp the end of each step, see
    /// [`Command::traced`].
    #[must_use]
    pub fn traced(mut self, traced: bool) -> Self {
        self.command = self.command.traced(traced);
        self
    }

    /// What each child does before its program, in order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        self.command.steps()
    }

    /// The limits that a group for this container should have.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Launches an instance in a group. It gets the given descriptors under
    /// the given numbers, and no others.
    ///
    /// # Errors
    ///
    /// Naming the step that failed; no process is left then.
    pub fn launch(
        &mut self,
        group: &Group,
        fds: &[(BorrowedFd<'_>, RawFd)],
    ) -> Result<Child, SpawnError> {
        let join = group.join_fds();
        let into_cgroup = group.into_cgroup();
        self.command.spawn(&Launch { fds, join: &join, into_cgroup, ..Launch::default() })
    }

    /// Launches an instance whose spec asks for a terminal.
    ///
    /// # Errors
    ///
    /// As [`Container::launch`].
    pub fn launch_with_terminal(
        &mut self,
        group: &Group,
        terminal: &Terminal<'_>,
    ) -> Result<Child, SpawnError> {
        let join = group.join_fds();
        self.command.spawn(&Launch {
            join: &join,
            into_cgroup: group.into_cgroup(),
            terminal: Some(*terminal),
            ..Launch::default()
        })
    }
}

/// A container whose instances live in network namespaces that are made for
/// them, see [`network`](super::network). Whether the plan asks for a network
/// namespace makes no difference then.
#[derive(Debug)]
pub struct NetworkedContainer(Container);

impl NetworkedContainer {
    /// As [`Container::prepare`].
    ///
    /// # Errors
    ///
    /// [`PrepareError::UserNamespace`] for a plan with a user namespace, which
    /// would have no say in a network namespace that is not its own; else as
    /// [`Container::prepare`].
    pub fn prepare(plan: &Plan) -> Result<Self, PrepareError> {
        Self::refuse_user_namespace(plan)?;
        Container::prepare(&plan.in_given_network()).map(Self)
    }

    /// As [`Container::prepare_direct`].
    ///
    /// # Errors
    ///
    /// As [`NetworkedContainer::prepare`].
    pub fn prepare_direct(plan: &Plan) -> Result<Self, PrepareError> {
        Self::refuse_user_namespace(plan)?;
        Container::prepare_direct(&plan.in_given_network()).map(Self)
    }

    fn refuse_user_namespace(plan: &Plan) -> Result<(), PrepareError> {
        if plan.has_user_namespace() { Err(PrepareError::UserNamespace) } else { Ok(()) }
    }

    /// The limits that a group for this container should have.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        self.0.limits()
    }

    /// Launches an instance in a group and a network namespace. The calling
    /// thread is in that namespace while the child is born.
    ///
    /// # Errors
    ///
    /// Naming the step that failed; no process is left then.
    pub fn launch(
        &mut self,
        group: &Group,
        fds: &[(BorrowedFd<'_>, RawFd)],
        netns: &Netns,
    ) -> Result<Child, LaunchError> {
        let away = netns.enter()?;
        let child = self.0.launch(group, fds);
        drop(away);
        Ok(child?)
    }
}
