//! One container from a spec to its end, with nothing left behind.

use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::errno::Errno;
use oci_spec::runtime::Spec;

use super::cgroup::{CgroupError, Controller, Hierarchy, RunTree};
use super::plan::{Plan, PlanError};
use super::runtime::{Container, PrepareError};
use crate::sys::pidfd::Exit;
use crate::sys::spawn::SpawnError;

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
    /// Its root filesystem or process could not be prepared.
    #[error("cannot prepare the container")]
    Prepare(#[from] PrepareError),
    /// It could not be started.
    #[error("cannot start the container")]
    Start(#[from] SpawnError),
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

/// Runs a container to its end and returns how it ended. `id` names its
/// control groups, so it must be new.
///
/// Killing the caller kills the container (but see
/// [`sweep`](super::cgroup::sweep) for its empty control groups).
///
/// # Errors
///
/// See [`RunError`]. Nothing of the container is left in any case. Unlike a
/// cell of a run, a limit that cannot be set is an error here: who asked for it
/// relies on it.
pub fn run(spec: &Spec, bundle: &Path, id: &str, stdio: &Stdio<'_>) -> Result<Exit, RunError> {
    let plan = Plan::from_spec(spec, bundle)?;
    let hierarchy = Hierarchy::detect(Path::new("/proc"), Path::new("/sys/fs/cgroup"))?;
    let standard = Controller::STANDARD.into_iter();
    let controllers: Vec<_> = standard.chain(plan.limits().controllers()).collect();
    let mut tree = hierarchy.prepare(id, &controllers)?;
    let result = run_in(&plan, &tree, stdio);
    let removed = tree.remove();
    // What went wrong first says more.
    let exit = result?;
    removed?;
    Ok(exit)
}

fn run_in(plan: &Plan, tree: &RunTree, stdio: &Stdio<'_>) -> Result<Exit, RunError> {
    let group = tree.create("container", plan.limits())?;
    if let Some(remark) = group.remarks().first() {
        return Err(RunError::Limit(remark.clone()));
    }
    let mut container = Container::prepare_direct(plan)?;
    let fds = [(stdio.input, 0), (stdio.output, 1), (stdio.error, 2)];
    let child = container.launch(&group, &fds)?;
    loop {
        // Without a limit, so it returns only with an end.
        if let Some(ended) = child.pidfd.wait(None).map_err(RunError::Wait)? {
            return Ok(ended.exit);
        }
    }
}
