//! A plan made ready, and its instances.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::sched::CloneFlags;

use super::cgroup::{Group, Limits};
use super::network::{Inside, Netns, NetworkError};
use super::plan::{IdMaps, Joined, Plan};
use crate::sys::executable::is_sealed;
use crate::sys::namespace::kind;
use crate::sys::spawn::{
    Child, Command, CommandError, Launch, Program, SpawnError, Step, Terminal, mount_namespace,
};

/// Why a container could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Its root filesystem could not be prepared.
    #[error("cannot prepare the container's root filesystem")]
    Root(#[source] SpawnError),
    /// Nobody would run its hooks.
    #[error("cannot use `hooks`: only the commands of `unladen-oci` run them")]
    Hooks,
    /// A namespace to enter.
    #[error("cannot open the namespace {} that `{field}.path` names", path.display())]
    Namespace {
        /// Path of the field in `config.json`.
        field: String,
        /// Its value.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The caller's own cgroup namespace could not be opened.
    #[error("cannot open {CGROUP_NAMESPACE}")]
    CgroupNamespace(#[source] io::Error),
    /// A namespace to enter is of another kind.
    #[error("`{field}.path` cannot be `{}`: it is a namespace of the kind {found:?}", path.display())]
    Kind {
        /// Path of the field in `config.json`.
        field: String,
        /// Its value.
        path: PathBuf,
        /// What it is.
        found: CloneFlags,
    },
    /// Its steps cannot work.
    #[error("cannot prepare the container's process")]
    Command(#[from] CommandError),
    /// The caller's own network namespace could not be opened.
    #[error(transparent)]
    Network(#[from] NetworkError),
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
        if plan.has_hooks() {
            return Err(PrepareError::Hooks);
        }
        if !plan.can_be_prepared() {
            return Self::prepare_direct(plan);
        }
        let mut handles = open_handles(plan)?;
        handles.push(mount_namespace(&plan.root_steps()).map_err(PrepareError::Root)?);
        let command = Command::new(
            Program::Paths(plan.program.clone()),
            plan.arguments.clone(),
            plan.environment.clone(),
            plan.birth_prepared(),
            plan.prepared_steps(),
        )?
        .guarded(!is_sealed())?
        .with_handles(handles);
        Ok(Self { command, limits: plan.limits.clone() })
    }

    /// Makes a plan ready so that each instance sets up everything itself,
    /// which works for every plan and is what a one-shot start costs.
    ///
    /// # Errors
    ///
    /// When a namespace to enter is none of its kind, or when the launching
    /// process lacks memory.
    pub fn prepare_direct(plan: &Plan) -> Result<Self, PrepareError> {
        if plan.has_hooks() {
            return Err(PrepareError::Hooks);
        }
        let handles = open_handles(plan)?;
        let mut command = Command::new(
            Program::Paths(plan.program.clone()),
            plan.arguments.clone(),
            plan.environment.clone(),
            plan.birth(),
            plan.direct_steps(),
        )?
        .guarded(!is_sealed())?
        .with_handles(handles);
        if let Some(IdMaps::Ranges { users, groups }) = plan.ranges() {
            command = command.with_user_namespace(users.clone(), groups.clone());
        }
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

    /// Makes a plan ready for a process that waits until somebody starts it,
    /// and does not end with its creator; see [`Plan::held_steps`]. It pauses
    /// where hooks have their place if the plan has some.
    ///
    /// # Errors
    ///
    /// When the launching process lacks memory.
    pub(super) fn prepare_held(
        plan: &Plan,
        keyring: Option<CString>,
    ) -> Result<Command, PrepareError> {
        let handles = open_handles(plan)?;
        let mut command = Command::new(
            Program::Paths(plan.program.clone()),
            plan.arguments.clone(),
            plan.environment.clone(),
            plan.birth(),
            plan.held_steps(keyring),
        )?
        .guarded(!is_sealed())?
        .with_handles(handles);
        if let Some(IdMaps::Ranges { users, groups }) = plan.ranges() {
            command = command.with_user_namespace(users.clone(), groups.clone());
        }
        Ok(command)
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
        Container::prepare(&plan.with_network_up()).map(Self)
    }

    /// As [`Container::prepare_direct`].
    ///
    /// # Errors
    ///
    /// As [`NetworkedContainer::prepare`].
    pub fn prepare_direct(plan: &Plan) -> Result<Self, PrepareError> {
        Self::refuse_user_namespace(plan)?;
        Container::prepare_direct(&plan.with_network_up()).map(Self)
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

/// A container whose instances get a network namespace of their own that the
/// caller gets hold of: the launching thread makes it and is in it when the
/// child is born, which costs what it costs with the child. Without that, the
/// namespace of an instance that ends at once cannot be found any more.
#[derive(Debug)]
pub struct HeldContainer {
    container: Container,
    home: Arc<Netns>,
}

impl HeldContainer {
    /// As [`Container::prepare`]. Only the thread that prepares may launch,
    /// or one in the same network namespace.
    ///
    /// # Errors
    ///
    /// As [`NetworkedContainer::prepare`].
    pub fn prepare(plan: &Plan) -> Result<Self, PrepareError> {
        NetworkedContainer::refuse_user_namespace(plan)?;
        let container = Container::prepare(&plan.in_given_network())?;
        Ok(Self { container, home: Arc::new(Netns::own()?) })
    }

    /// Launches an instance in a group; gives its network namespace too.
    ///
    /// # Errors
    ///
    /// Naming the step that failed; no process is left then.
    pub fn launch(
        &mut self,
        group: &Group,
        fds: &[(BorrowedFd<'_>, RawFd)],
    ) -> Result<(Child, Netns), LaunchError> {
        let away = Inside::anew_from(Arc::clone(&self.home))?;
        let child = self.container.launch(group, fds)?;
        // The child is on its way to its program meanwhile.
        let netns = Netns::own();
        drop(away);
        match netns {
            Ok(netns) => Ok((child, netns)),
            Err(error) => {
                // Nobody else knows of it.
                let _ = child.pidfd.kill_and_wait();
                Err(error.into())
            }
        }
    }
}

/// The cgroup namespace that children are born into.
const CGROUP_NAMESPACE: &str = "/proc/self/ns/cgroup";

/// Opens the namespaces that instances enter, in the order of their handles.
fn open_handles(plan: &Plan) -> Result<Vec<OwnedFd>, PrepareError> {
    let mut handles = Vec::new();
    if plan.borrows_cgroup_namespace() {
        let own = File::open(CGROUP_NAMESPACE).map_err(PrepareError::CgroupNamespace)?;
        handles.push(own.into());
    }
    for joined in plan.joined() {
        handles.push(open_one(joined)?);
    }
    Ok(handles)
}

fn open_one(joined: &Joined) -> Result<OwnedFd, PrepareError> {
    let (field, path) = (joined.field.clone(), joined.path.clone());
    let found = File::open(&path)
        .and_then(|file| kind(file.as_fd()).map(|kind| (file, kind)).map_err(io::Error::from));
    match found {
        Ok((file, kind)) if kind == joined.kind => Ok(file.into()),
        Ok((_, found)) => Err(PrepareError::Kind { field, path, found }),
        Err(source) => Err(PrepareError::Namespace { field, path, source }),
    }
}
