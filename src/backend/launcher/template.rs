//! A recipe resolved: everything about a cell's instances that is the same
//! for all of them, made before any timed window.

use std::ffi::{CString, NulError};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use nix::sched::CloneFlags;
use nix::sys::signal::Signal;

use super::live::Kind;
use super::order::{Program, Recipe};
use crate::container::cgroup::{Group, Limits, RunTree};
use crate::container::{Container, Plan, PlanError, PrepareError};
use crate::sys::spawn::{self, Child, Command, CommandError, Launch, SpawnError, Step};

/// Why a recipe cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// An argument or variable holds a NUL byte.
    #[error("an argument or variable holds a NUL byte")]
    Nul(#[from] NulError),
    /// The steps cannot work.
    #[error("cannot prepare the child")]
    Command(#[from] CommandError),
    /// The spec cannot be carried out.
    #[error("cannot carry out the container's spec")]
    Plan(#[from] PlanError),
    /// The container cannot be made.
    #[error("cannot prepare the container")]
    Container(#[from] PrepareError),
}

/// A resolved recipe.
pub(super) struct Template {
    pub(super) kind: Kind,
    pub(super) limits: Limits,
    /// What this host cannot give.
    pub(super) remarks: Vec<String>,
    maker: Maker,
}

/// What makes the instances.
enum Maker {
    Plain(Box<Command>),
    Container(Box<Container>),
}

impl Template {
    /// Resolves a recipe.
    pub(super) fn new(recipe: Recipe, tree: &RunTree) -> Result<Self, TemplateError> {
        // A process or a machine has no limits, but a cgroup of the same
        // depth and controllers.
        let plain = |program: &Program| {
            Ok::<_, TemplateError>((Maker::Plain(Box::new(plain(program)?)), Limits::default()))
        };
        let (kind, (maker, limits)) = match recipe {
            Recipe::Process(program) => (Kind::Process, plain(&program)?),
            Recipe::Machine(program) => (Kind::Machine, plain(&program)?),
            Recipe::Container { spec, bundle } => {
                let plan = Plan::from_spec(&spec, &bundle)?;
                let limits = plan.limits().clone();
                let container = Container::prepare(&plan)?;
                (Kind::Container, (Maker::Container(Box::new(container)), limits))
            }
        };
        let missing = tree.missing().iter();
        let remarks = missing
            .map(|(controller, reason)| format!("no {controller} limit or reading: {reason}"))
            .chain(tree.remarks().iter().cloned())
            .collect();
        Ok(Self { kind, limits, remarks, maker })
    }

    /// Makes an instance's first process in its group.
    pub(super) fn launch(
        &mut self,
        group: &Group,
        fds: &[(BorrowedFd<'_>, i32)],
    ) -> Result<Child, SpawnError> {
        match &mut self.maker {
            Maker::Plain(command) => {
                let join = group.join_fds();
                let into_cgroup = group.into_cgroup();
                command.spawn(&Launch { fds, join: &join, into_cgroup, ..Launch::default() })
            }
            Maker::Container(container) => container.launch(group, fds),
        }
    }
}

/// A child without isolation, executed by its path: a machine monitor may be
/// a wrapper's script, which cannot be executed by descriptor.
fn plain(program: &Program) -> Result<Command, TemplateError> {
    let path = CString::new(program.path.as_os_str().as_bytes())?;
    let strings = |texts: &[String]| -> Result<Vec<CString>, NulError> {
        texts.iter().map(|text| CString::new(text.as_str())).collect()
    };
    Ok(Command::new(
        spawn::Program::Paths(vec![path]),
        strings(&program.argv)?,
        strings(&program.env)?,
        CloneFlags::empty(),
        plain_steps(),
    )?)
}

/// What every plain child does before its program.
fn plain_steps() -> Vec<Step> {
    vec![
        // Its own session: a terminal's signals must not reach it.
        Step::NewSession,
        Step::JoinCgroups,
        // It must not outlive the launcher.
        Step::ParentDeathSignal(Signal::SIGKILL),
        Step::MapDescriptors,
        Step::CheckParent,
    ]
}
