//! The steps of a process whose life is in several hands: one command creates
//! it, another starts it, a third one kills it.

use std::ffi::CString;

use oci_spec::runtime::{Process, Spec};

use super::namespaces::{IdMaps, Namespaces};
use super::{Plan, PlanError, identity};
use crate::sys::spawn::{Node, Place, Step};

/// Where a held process pauses before its root changes, for hooks.
pub(in crate::container) const BEFORE_PIVOT: u8 = 1;
/// Where it pauses when all is set up, so that it is known to somebody before
/// it waits for its start.
pub(in crate::container) const SET_UP: u8 = 2;

/// Whether a spec has any hook.
pub(super) fn has_hooks(spec: &Spec) -> bool {
    // Every list in it is left out when it is empty or absent.
    let text = serde_json::to_value(spec.hooks()).unwrap_or_default();
    text.as_object().is_some_and(|lists| {
        lists.values().any(|list| list.as_array().is_some_and(|list| !list.is_empty()))
    })
}

impl Plan {
    /// Whether the spec has hooks, which [`Container`](crate::container::Container)
    /// does not run.
    #[must_use]
    pub fn has_hooks(&self) -> bool {
        self.hooks
    }

    /// Whether the spec wants a terminal: then
    /// [`Launch::terminal`](crate::sys::spawn::Launch::terminal) is needed, and
    /// no descriptors for the standard streams.
    #[must_use]
    pub fn has_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// The container's terminal, once its `/dev/pts` is there.
    pub(super) fn terminal_steps(&self) -> Vec<Step> {
        let Some(owner) = self.terminal else { return Vec::new() };
        // A /dev of this runtime has it already, and may be read-only by now.
        let place = Place::root(c"/dev/console".into());
        vec![Step::Make { place, node: Node::File }, Step::Terminal { owner, console: true }]
    }

    /// The steps of a process that waits for its start, which may come from
    /// anybody and at any time, and does not end with its creator.
    ///
    /// `keyring` names a session keyring of its own.
    pub(in crate::container) fn held_steps(&self, keyring: Option<CString>) -> Vec<Step> {
        let mut steps: Vec<Step> = keyring.map(Step::SessionKeyring).into_iter().collect();
        // Hooks may expect "that the mount namespace have been created and the
        // mount operations performed", "but before the pivot_root"
        // ("createRuntime Hooks" of config.md).
        steps.extend(match self.hooks {
            true => self.direct_steps_around(Step::Pause(BEFORE_PIVOT)),
            false => self.direct_steps(),
        });
        // It outlives its creator.
        steps.retain(|step| !matches!(step, Step::ParentDeathSignal(_) | Step::CheckParent));
        // With the final user, root and limits.
        before_last_filter(steps, [Step::FindProgram, Step::Pause(SET_UP), Step::AwaitStart])
    }
}

/// Adds steps at the end, but before a filter there, which is made for the
/// program. (One that must be loaded earlier must allow what they need.)
fn before_last_filter<const N: usize>(mut steps: Vec<Step>, more: [Step; N]) -> Vec<Step> {
    let filter = steps.pop_if(|step| matches!(step, Step::Seccomp(_)));
    steps.extend(more);
    steps.extend(filter);
    steps
}

/// The program and the steps of one more process in a container that runs:
/// from the arrangement of descriptors on.
#[derive(Debug)]
pub(in crate::container) struct Joining {
    pub(in crate::container) program: Vec<CString>,
    pub(in crate::container) arguments: Vec<CString>,
    pub(in crate::container) environment: Vec<CString>,
    /// In the container's namespaces, before descriptors are arranged.
    pub(in crate::container) terminal: Vec<Step>,
    /// From [`Step::MapDescriptors`] on.
    pub(in crate::container) identity: Vec<Step>,
}

impl Joining {
    /// Plans a process in the container of `spec`.
    pub(in crate::container) fn plan(process: &Process, spec: &Spec) -> Result<Self, PlanError> {
        let none = oci_spec::runtime::Linux::default();
        let linux = spec.linux().as_ref().unwrap_or(&none);
        let namespaces = Namespaces::read(linux)?;
        let maps = IdMaps::read(linux, &namespaces, process)?;
        let owner = process.user().uid();
        let terminal = process.terminal().unwrap_or(false);
        let filter = linux.seccomp().as_ref().map(super::seccomp::compile).transpose()?;
        let mut identity = identity::steps(process, linux, maps.as_ref(), filter)?;
        identity.retain(|step| !matches!(step, Step::ParentDeathSignal(_) | Step::CheckParent));
        let identity = before_last_filter(identity, [Step::FindProgram]);
        let arguments = process.args().as_deref().unwrap_or_default();
        Ok(Self {
            program: identity::program(process)?,
            arguments: super::strings("process.args", arguments)?,
            environment: super::strings(
                "process.env",
                process.env().as_deref().unwrap_or_default(),
            )?,
            terminal: terminal
                .then_some(Step::Terminal { owner, console: false })
                .into_iter()
                .collect(),
            identity,
        })
    }

    /// What the process may do and who it is, without its descriptors,
    /// directory and program.
    pub(in crate::container) fn restrictions(self) -> Vec<Step> {
        let other = |step: &Step| {
            matches!(step, Step::MapDescriptors | Step::FindProgram | Step::WorkingDirectory(_))
        };
        self.identity.into_iter().filter(|step| !other(step)).collect()
    }
}
