//! A recipe resolved: everything about a cell's instances that is the same
//! for all of them, made before any timed window.

use std::ffi::{CString, NulError};
use std::fs::File;

use nix::sched::CloneFlags;
use nix::sys::signal::Signal;

use super::live::Kind;
use super::order::{Program, Recipe};
use crate::container::cgroup::{Limits, RunTree};
use crate::container::{ContainerError, Plan};
use crate::sys::spawn::{self, Command, CommandError, Step};

/// Why a recipe cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The program cannot be opened.
    #[error("cannot open `{path}`")]
    Open {
        /// The executable.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An argument or variable holds a NUL byte.
    #[error("an argument or variable holds a NUL byte")]
    Nul(#[from] NulError),
    /// The steps cannot work.
    #[error("cannot prepare the child")]
    Command(#[from] CommandError),
    /// The container cannot be made.
    #[error("cannot prepare the container")]
    Container(#[from] ContainerError),
}

/// A resolved recipe.
pub(super) struct Template {
    pub(super) kind: Kind,
    pub(super) command: Command,
    pub(super) limits: Limits,
    /// What this host cannot give.
    pub(super) remarks: Vec<String>,
}

impl Template {
    /// Resolves a recipe.
    pub(super) fn new(recipe: Recipe, tree: &RunTree) -> Result<Self, TemplateError> {
        let (kind, command, limits) = match recipe {
            // No limits, but a cgroup of the same depth and controllers.
            Recipe::Process(program) => (Kind::Process, plain(&program)?, Limits::default()),
            Recipe::Machine(program) => (Kind::Machine, plain(&program)?, Limits::default()),
            Recipe::Container { spec, bundle } => {
                let plan = Plan::from_spec(&spec, &bundle)?;
                let limits = plan.limits().clone();
                (Kind::Container, plan.into_command()?, limits)
            }
        };
        let missing = tree.missing().iter();
        let remarks = missing
            .map(|(controller, reason)| format!("no {controller} limit or reading: {reason}"))
            .chain(tree.remarks().iter().cloned())
            .collect();
        Ok(Self { kind, command, limits, remarks })
    }
}

/// A child without isolation.
fn plain(program: &Program) -> Result<Command, TemplateError> {
    let file = File::open(&program.path).map_err(|source| TemplateError::Open {
        path: program.path.display().to_string(),
        source,
    })?;
    let strings = |texts: &[String]| -> Result<Vec<CString>, NulError> {
        texts.iter().map(|text| CString::new(text.as_str())).collect()
    };
    Ok(Command::new(
        spawn::Program::File(file.into()),
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
