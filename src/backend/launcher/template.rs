//! A recipe resolved: everything about a cell's instances that is the same
//! for all of them, made before any timed window.

use std::ffi::{CString, NulError};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use nix::sched::CloneFlags;
use nix::sys::prctl::set_thp_disable;
use nix::sys::signal::Signal;

use super::bare::{Bare, BareError, Stamps};
use super::live::Kind;
use super::order::{Probe, Program, Recipe, fd};
use super::place::{Net, Network, Pool};
use super::snapshot::Restore;
use crate::container::cgroup::{Group, Limits, RunTree};
use crate::container::network::Netns;
use crate::container::{
    Container, HeldContainer, LaunchError, NetworkedContainer, Plan, PlanError, PrepareError,
};
use crate::errors::chain;
use crate::record::Mark;
use crate::sys::fdpass::listening_pair;
use crate::sys::pidfd::PidFd;
use crate::sys::spawn::{self, Child, Command, CommandError, Launch, Step};

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
    /// It is another module's.
    #[error("somebody else's system is not made from a template")]
    Foreign,
    /// A machine of bare KVM cannot be had.
    #[error("cannot prepare a machine of bare KVM")]
    Bare(#[from] BareError),
}

/// A resolved recipe.
pub(super) struct Template {
    pub(super) kind: Kind,
    pub(super) limits: Limits,
    pub(super) network: Network,
    /// Places made beforehand, for a pooled cell.
    pub(super) pool: Option<Pool>,
    /// What serves the root file system of each, as a second process of it.
    server: Option<Box<Command>>,
    /// Whether a machine's exit code tells the workload's.
    pub(super) tells_code: bool,
    /// Marks that are looked for, and how.
    pub(super) probes: Vec<(Mark, Probe)>,
    /// What its machines go on from, once that is made.
    pub(super) restore: Option<Restore>,
    /// What this host cannot give.
    pub(super) remarks: Vec<String>,
    maker: Maker,
}

/// What makes the instances.
enum Maker {
    /// A program, and whether it may have huge pages.
    Plain(Box<Command>, bool),
    Container(Box<Container>),
    Held(Box<HeldContainer>),
    Networked(Box<NetworkedContainer>),
    Bare(Bare),
}

impl Template {
    /// Resolves a recipe. `witnessed` says whether the end of network
    /// namespaces can be seen here.
    pub(super) fn new(
        recipe: Recipe,
        tree: &RunTree,
        witnessed: bool,
    ) -> Result<Self, TemplateError> {
        // A process or a machine has no limits, but a cgroup of the same
        // depth and controllers.
        let (mut limits, mut network, mut pool) = (Limits::default(), Network::Host, None);
        let (mut server, mut probes, mut tells_code) = (None, Vec::new(), true);
        let (kind, maker) = match recipe {
            Recipe::Peer(_) => return Err(TemplateError::Foreign),
            Recipe::Process(program) => (Kind::Process, maker(&program)?),
            Recipe::Machine(monitor) => {
                server = monitor.server.as_ref().map(plain).transpose()?.map(Box::new);
                probes = monitor.probes;
                tells_code = monitor.tells_code;
                (Kind::Machine, maker(&monitor.program)?)
            }
            Recipe::Bare { image, memory } => {
                (Kind::Bare, Maker::Bare(Bare::prepare(&image, memory)?))
            }
            Recipe::Restored { program, tells_code: tells, .. } => {
                tells_code = tells;
                (Kind::Restored, maker(&program)?)
            }
            Recipe::Container { spec, bundle, bridge, pooled } => {
                let plan = Plan::from_spec(&spec, &bundle)?;
                limits = plan.limits().clone();
                network = match (plan.has_network_namespace(), bridge, pooled) {
                    (false, ..) => Network::Host,
                    (true, true, _) => Network::Bridge,
                    (true, false, true) => Network::Given,
                    (true, false, false) => Network::Own,
                };
                pool = pooled.then(Pool::empty);
                let maker = match network {
                    // Whoever may not make a network namespace alone cannot
                    // see one end either; and one that was made outside of a
                    // user namespace would not belong to it.
                    Network::Own if witnessed && !plan.has_user_namespace() => {
                        Maker::Held(Box::new(HeldContainer::prepare(&plan)?))
                    }
                    Network::Host | Network::Own => {
                        Maker::Container(Box::new(Container::prepare(&plan)?))
                    }
                    Network::Given | Network::Bridge => {
                        Maker::Networked(Box::new(NetworkedContainer::prepare(&plan)?))
                    }
                };
                (Kind::Container, maker)
            }
        };
        let missing = tree.missing().iter();
        let remarks = missing
            .map(|(controller, reason)| format!("no {controller} limit or reading: {reason}"))
            .chain(tree.remarks().iter().cloned())
            .collect();
        let restore = None;
        Ok(Self {
            kind,
            limits,
            network,
            pool,
            server,
            tells_code,
            probes,
            restore,
            remarks,
            maker,
        })
    }

    /// Where the newest instance's own process stamps, if it does.
    pub(super) fn stamps(&self) -> Option<Rc<Stamps>> {
        match &self.maker {
            Maker::Bare(bare) => bare.stamps(),
            _ => None,
        }
    }

    /// Starts the server of a machine's root file system in the machine's
    /// group, if it has one, and gives the connection to it.
    pub(super) fn serve_files(
        &mut self,
        group: &Group,
        ordinary: &[(BorrowedFd<'_>, i32)],
    ) -> Result<Option<(PidFd, OwnedFd)>, String> {
        let Some(command) = &mut self.server else { return Ok(None) };
        if group.folders().is_empty() {
            // It is no child of the machine: nothing else holds them together.
            return Err("without a cgroup the memory of its file server is not counted".to_owned());
        }
        let (listening, connected) = listening_pair().map_err(|error| error.to_string())?;
        let fds = [ordinary, &[(listening.as_fd(), fd::FILES)]].concat();
        let (join, into_cgroup) = (group.join_fds(), group.into_cgroup());
        let launch = Launch { fds: &fds, join: &join, into_cgroup, ..Launch::default() };
        let child = command.spawn(&launch).map_err(|error| chain(&error))?;
        Ok(Some((child.pidfd, connected)))
    }

    /// Makes an instance's first process in its group, and gives the network
    /// namespace that was made with it.
    pub(super) fn launch(
        &mut self,
        group: &Group,
        fds: &[(BorrowedFd<'_>, i32)],
        net: Option<&Net>,
    ) -> Result<(Child, Option<Netns>), String> {
        let alone = |child| (child, None);
        let child = match (&mut self.maker, net) {
            (Maker::Plain(command, huge_pages), _) => {
                // The child inherits it with the memory that it shares with
                // us until it executes its program (prctl(2)).
                let _without = (!*huge_pages).then(WithoutHugePages::new).transpose()?;
                let join = group.join_fds();
                let into_cgroup = group.into_cgroup();
                let launch = Launch { fds, join: &join, into_cgroup, ..Launch::default() };
                command.spawn(&launch).map(alone).map_err(LaunchError::from)
            }
            (Maker::Container(container), _) => {
                container.launch(group, fds).map(alone).map_err(LaunchError::from)
            }
            (Maker::Held(container), _) => {
                container.launch(group, fds).map(|(child, netns)| (child, Some(netns)))
            }
            (Maker::Networked(container), Some(net)) => {
                container.launch(group, fds, &net.netns).map(alone)
            }
            (Maker::Bare(bare), _) => return bare.launch(group, fds).map(alone),
            (Maker::Networked(_), None) => return Err("no network was made for it".to_owned()),
        };
        child.map_err(|error| chain(&error))
    }
}

/// While it lives, new programs get no transparent huge pages.
struct WithoutHugePages;

impl WithoutHugePages {
    fn new() -> Result<Self, String> {
        set_thp_disable(true)
            .map(|()| Self)
            .map_err(|error| format!("cannot switch transparent huge pages off: {error}"))
    }
}

impl Drop for WithoutHugePages {
    fn drop(&mut self) {
        // Undoing what was done a moment ago cannot fail.
        let _ = set_thp_disable(false);
    }
}

/// What makes plain children.
fn maker(program: &Program) -> Result<Maker, TemplateError> {
    Ok(Maker::Plain(Box::new(plain(program)?), program.huge_pages))
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
        // First, as in a container: on a busy host a child waits for a
        // processor when it changes its scheduling group.
        Step::JoinCgroups,
        // Neither a terminal's signals nor those to the launcher's group must
        // reach it. A session would do that, too, but has a scheduling group
        // made for it (autogroup in sched(7)), which took a start up to a
        // tenth more time where nobody waits for a processor, and half as
        // much again where many do.
        Step::NewProcessGroup,
        // It must not outlive the launcher.
        Step::ParentDeathSignal(Signal::SIGKILL),
        Step::MapDescriptors,
        Step::CheckParent,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_in_its_group_before_anything_else() {
        assert_eq!(plain_steps().first(), Some(&Step::JoinCgroups));
    }
}
