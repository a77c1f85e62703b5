//! One container from a spec to its end, with nothing left behind.

use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::Pid;
use oci_spec::runtime::Spec;

use super::cgroup::{CgroupError, Group, Hierarchy, RunTree};
use super::network::{Attachment, Bridge, Lease, NetworkError};
use super::plan::{Plan, PlanError};
use super::runtime::{Container, PrepareError};
use crate::sys::pidfd::{Exit, PidFd};
use crate::sys::spawn::{Child, SpawnError, Terminal};

/// Why a container did not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its spec cannot be carried out.
    #[error("cannot use the container's configuration")]
    Plan(#[from] PlanError),
    /// Its control groups.
    #[error("cannot set up the container's control groups")]
    Cgroup(#[from] CgroupError),
    /// A limit that was asked for cannot be set here.
    #[error("cannot limit the container: {0}")]
    Limit(String),
    /// Its network.
    #[error("cannot set up the container's network")]
    Network(#[from] NetworkError),
    /// Its root filesystem or process could not be prepared.
    #[error("cannot prepare the container")]
    Prepare(#[from] PrepareError),
    /// It could not be started.
    #[error("cannot start the container")]
    Start(#[from] SpawnError),
    /// This process's own start cannot be told.
    #[error("cannot read /proc/self/stat (is /proc mounted?)")]
    Identity,
    /// It could not be waited for.
    #[error("cannot wait for the container")]
    Wait(#[source] Errno),
}

/// The standard streams of a container.
#[derive(Clone, Copy, Debug)]
pub struct Stdio<'a> {
    /// Number 0.
    pub input: BorrowedFd<'a>,
    /// Number 1.
    pub output: BorrowedFd<'a>,
    /// Number 2.
    pub error: BorrowedFd<'a>,
}

/// What a container's standard streams are.
#[derive(Clone, Copy, Debug)]
pub enum Streams<'a> {
    /// Descriptors of the caller's.
    Given(Stdio<'a>),
    /// A terminal that the container makes, for a spec that asks for one.
    Terminal(Terminal<'a>),
}

/// The id of a container that is run by itself: it says which process runs it
/// and when that began, so that whoever finds something of this name can tell
/// whether somebody still cares for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceId(String);

impl InstanceId {
    const PREFIX: &str = "run-";

    /// The id of the n-th container of this process.
    ///
    /// # Errors
    ///
    /// When `/proc/self/stat` cannot be read.
    pub fn own(number: u32) -> Result<Self, RunError> {
        let pid = std::process::id();
        let started = started("self").ok_or(RunError::Identity)?;
        Ok(Self(format!("{}{pid}-{started}-{number}", Self::PREFIX)))
    }

    /// The text, which may stand in names of control groups.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the process that runs the container of this id still lives;
    /// nothing for a text that is no such id.
    #[must_use]
    pub fn is_alive(text: &str) -> Option<bool> {
        let mut parts = text.strip_prefix(Self::PREFIX)?.split('-');
        let pid: u32 = parts.next()?.parse().ok()?;
        let begun: u64 = parts.next()?.parse().ok()?;
        let _number: u32 = parts.next()?.parse().ok()?;
        if parts.next().is_some() {
            return None;
        }
        Some(started(&pid.to_string()) == Some(begun))
    }
}

/// When a process started, in clock ticks since boot: the 22nd field of
/// `/proc/PID/stat` (proc_pid_stat(5)). Nothing for one that is gone, or a
/// zombie.
fn started(process: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the name, which may hold anything.
    let (_, behind) = text.rsplit_once(')')?;
    let mut fields = behind.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// How long the kernel may hold on to a control group whose processes ended.
const REMOVAL_LIMIT: Duration = Duration::from_secs(30);

/// A container that runs.
///
/// Dropping it leaves the container running and its control groups there; it
/// ends when the thread that started it does.
#[derive(Debug)]
pub struct Running {
    child: Child,
    groups: Groups,
    network: Option<(Bridge, Lease)>,
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its first process.
    pub exit: Exit,
    /// Whether the kernel killed any of its processes for its memory limit.
    pub killed_for_memory: bool,
}

impl Running {
    /// Its first process, as the host counts.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.child.pid
    }

    /// Its first process, for signals, and readable once it has ended.
    #[must_use]
    pub fn pidfd(&self) -> &PidFd {
        &self.child.pidfd
    }

    /// Its address, for one that was started on a bridge.
    #[must_use]
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.network.as_ref().map(|(_, lease)| lease.address())
    }

    /// Waits for its end and removes what is left of it.
    ///
    /// # Errors
    ///
    /// As [`Running::finish`].
    pub fn wait(self) -> Result<Exit, RunError> {
        self.finish().map(|ended| ended.exit)
    }

    /// As [`Running::wait`], and says whether memory was why.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for, or a control group or an interface cannot
    /// be removed.
    pub fn finish(mut self) -> Result<Ended, RunError> {
        let ended = loop {
            // Without a limit, so it returns only with an end.
            if let Some(ended) = self.child.pidfd.wait(None).map_err(RunError::Wait)? {
                break ended;
            }
        };
        let killed_for_memory = self.groups.group.was_killed_for_memory();
        let groups = self.groups.remove();
        if let Some((mut bridge, lease)) = self.network.take() {
            // The kernel would remove the interface with its namespace, but
            // only some time later.
            bridge.detach(&lease)?;
            bridge.remove()?;
        }
        groups?;
        Ok(Ended { exit: ended.exit, killed_for_memory })
    }
}

/// The control groups of one container.
#[derive(Debug)]
struct Groups {
    group: Group,
    /// What the group is in, unless the spec chose its place, or it needs none.
    tree: Option<RunTree>,
}

impl Groups {
    /// Makes those that a plan needs.
    fn make(plan: &Plan, id: &str) -> Result<Self, RunError> {
        let detect = || Hierarchy::detect(Path::new("/proc"), Path::new("/sys/fs/cgroup"));
        if let Some(path) = plan.cgroups_path() {
            let group = detect()?.group_at(path, plan.limits())?;
            return Ok(Self { group, tree: None });
        }
        let controllers = plan.controllers();
        if controllers.is_empty() {
            return Ok(Self { group: Group::none("no limit was asked for"), tree: None });
        }
        let (tree, group) = detect()?.prepare_one(id, &controllers, plan.limits())?;
        Ok(Self { group, tree: Some(tree) })
    }

    fn remove(&mut self) -> Result<(), CgroupError> {
        match &mut self.tree {
            Some(tree) => tree.remove(),
            None => {
                self.group.kill_all()?;
                self.group.remove(REMOVAL_LIMIT)
            }
        }
    }
}

/// Starts a container. `id` names its control groups, so it must be new; see
/// [`InstanceId`].
///
/// A container without limits and with a pid namespace gets no control groups
/// of its own: the kernel ends all of its processes with the first.
///
/// # Errors
///
/// See [`RunError`]. Nothing of the container is left in any case. Unlike a
/// cell of a run, a limit that cannot be set is an error here: who asked for it
/// relies on it.
pub fn start(plan: &Plan, id: &str, streams: &Streams<'_>) -> Result<Running, RunError> {
    let (child, groups) = in_groups(plan, id, |group| launch(plan, group, streams))?;
    Ok(Running { child, groups, network: None })
}

/// Starts a container whose network is a bridge of its own with an address
/// that the host reaches, instead of what the spec says.
///
/// # Errors
///
/// As [`start`], and what [`Bridge`] cannot do; without root that is all.
pub fn start_on_bridge(plan: &Plan, id: &str, streams: &Streams<'_>) -> Result<Running, RunError> {
    if plan.has_user_namespace() {
        return Err(PrepareError::UserNamespace.into());
    }
    let mut bridge = Bridge::create(id)?;
    let Attachment { netns, lease } = bridge.attach()?;
    let plan = plan.in_given_network();
    let started = in_groups(&plan, id, |group| {
        let _away = netns.enter()?;
        launch(&plan, group, streams)
    });
    match started {
        Ok((child, groups)) => Ok(Running { child, groups, network: Some((bridge, lease)) }),
        Err(error) => {
            // What went wrong first says more; the bridge goes by itself.
            let _ = bridge.detach(&lease);
            Err(error)
        }
    }
}

/// Makes the control groups that a plan needs, and a child in them.
fn in_groups(
    plan: &Plan,
    id: &str,
    launch: impl FnOnce(&Group) -> Result<Child, RunError>,
) -> Result<(Child, Groups), RunError> {
    let mut groups = Groups::make(plan, id)?;
    let child = match groups.group.remarks().first() {
        Some(remark) => Err(RunError::Limit(remark.clone())),
        None => launch(&groups.group),
    };
    match child {
        Ok(child) => Ok((child, groups)),
        Err(error) => {
            // What went wrong first says more.
            let _ = groups.remove();
            Err(error)
        }
    }
}

fn launch(plan: &Plan, group: &Group, streams: &Streams<'_>) -> Result<Child, RunError> {
    let mut container = Container::prepare_direct(&plan.with_own_keyring())?;
    Ok(match streams {
        Streams::Given(Stdio { input, output, error }) => {
            container.launch(group, &[(*input, 0), (*output, 1), (*error, 2)])?
        }
        Streams::Terminal(terminal) => container.launch_with_terminal(group, terminal)?,
    })
}

/// Runs a container to its end and returns how it ended. `id` names its
/// control groups, so it must be new.
///
/// Killing the caller kills the container (but see
/// [`sweep`](super::cgroup::sweep()) for its empty control groups).
///
/// # Errors
///
/// As [`start`] and [`Running::wait`].
pub fn run(spec: &Spec, bundle: &Path, id: &str, stdio: &Stdio<'_>) -> Result<Exit, RunError> {
    start(&Plan::from_spec(spec, bundle)?, id, &Streams::Given(*stdio))?.wait()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_whether_its_process_lives() {
        let own = InstanceId::own(3).expect("an id");
        assert_eq!(InstanceId::is_alive(own.as_str()), Some(true));
        let pid = std::process::id();
        for (text, alive) in [
            (format!("run-{pid}-1-0"), Some(false)),
            ("run-4194305-1-0".to_owned(), Some(false)),
            (format!("run-{pid}"), None),
            (format!("run-{pid}-1-0-0"), None),
            ("20261123-043512-a1b2c3".to_owned(), None),
        ] {
            assert_eq!(InstanceId::is_alive(&text), alive, "{text}");
        }
    }
}
