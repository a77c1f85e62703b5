//! What killed runs left behind, found and removed from names alone: cgroups
//! are called `unladen-<run id>`, every process of a run has the id in its
//! environment, and the snapshots of its machines are in a folder of that
//! name in the user's cache.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use procfs::process::Process;

use super::launcher::SUBCOMMAND;
use super::peers;
use super::vm::snapshot;
use crate::container::cgroup::{CgroupError, Hierarchy, find, sweep};
use crate::container::network::NetworkError;
use crate::container::{InstanceId, network};
use crate::host::RunId;
use crate::payload::protocol::ENV_RUN;
use crate::sys::clock::Deadline;
use crate::sys::pidfd::PidFd;

/// Time that an orphaned launcher may take to remove what it started.
const PATIENCE: Duration = Duration::from_secs(10);

/// The interfaces of this host.
const LINKS: &str = "/sys/class/net";

/// Why leftovers could not be looked for or removed.
#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    /// The processes of the host cannot be listed.
    #[error("cannot list the processes of this host")]
    Processes(#[source] procfs::ProcError),
    /// A cgroup cannot be found or removed.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A network interface cannot be found or removed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A folder of a run cannot be removed.
    #[error("cannot remove the folder `{path}`")]
    Snapshots {
        /// The folder.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A process cannot be killed.
    #[error("cannot kill process {pid}")]
    Kill {
        /// The process.
        pid: i32,
        /// Why.
        #[source]
        source: nix::errno::Errno,
    },
}

/// What there is of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftover {
    /// Its launcher, while it lives.
    pub launcher: Option<i32>,
    /// Whether the harness lives that the launcher works for, or the process
    /// that runs a single container.
    pub alive: bool,
    /// Instances' processes.
    pub processes: Vec<i32>,
    /// Cgroup folders.
    pub cgroups: Vec<PathBuf>,
    /// Network interfaces.
    pub links: Vec<String>,
    /// The folder with the snapshots of its machines.
    pub snapshots: Option<PathBuf>,
    /// The folders with its instances of somebody else's systems.
    pub instances: Vec<PathBuf>,
}

/// Everything on this host that carries the id of a run, by id.
///
/// # Errors
/// When processes or cgroups cannot be listed.
pub fn leftovers() -> Result<BTreeMap<String, Leftover>, LeftoverError> {
    let mut found: BTreeMap<String, Leftover> = BTreeMap::new();
    // Before the processes: a run that begins meanwhile has none of these.
    for (id, folder) in snapshot::folders() {
        found.entry(id).or_default().snapshots = Some(folder);
    }
    for (id, folder) in peers::folders() {
        found.entry(id).or_default().instances.push(folder);
    }
    // A process that ends while it is looked at has left nothing.
    for process in procfs::process::all_processes().map_err(LeftoverError::Processes)?.flatten() {
        if let Some((id, harness)) = launcher_of(&process) {
            let entry = found.entry(id).or_default();
            entry.launcher = Some(process.pid());
            // An orphan has been given another parent.
            entry.alive = process.stat().is_ok_and(|stat| stat.ppid == harness);
        } else if let Some(id) = run_of(&process) {
            found.entry(id).or_default().processes.push(process.pid());
        }
    }
    for folder in find(&hierarchy()?, None) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let id = name.trim_start_matches("unladen-").trim_end_matches("-aside").to_owned();
        let alive = InstanceId::is_alive(&id) == Some(true);
        let entry = found.entry(id).or_default();
        entry.alive |= alive;
        entry.cgroups.push(folder);
    }
    for (id, links) in network::find(Path::new(LINKS))? {
        let alive = InstanceId::is_alive(&id) == Some(true);
        let entry = found.entry(id).or_default();
        entry.alive |= alive;
        entry.links = links;
    }
    // Others may call a service `unladen-web` or have such a variable.
    found.retain(|id, _| is_of_ours(id));
    Ok(found)
}

/// Whether a text is the id of a run or of a single container.
fn is_of_ours(id: &str) -> bool {
    id.parse::<RunId>().is_ok() || InstanceId::is_alive(id).is_some()
}

/// Removes what a run left. An orphaned launcher is given time to do so
/// itself before it is killed.
///
/// # Errors
/// When something cannot be killed or removed.
pub fn remove(run_id: &str, leftover: &Leftover) -> Result<(), LeftoverError> {
    if let Some(launcher) = leftover.launcher.and_then(|pid| PidFd::open(Pid::from_raw(pid)).ok()) {
        let ended = launcher.wait_ended(Some(PATIENCE)).unwrap_or(false);
        if !ended {
            let _ = launcher.kill(Signal::SIGKILL);
            let _ = launcher.wait_ended(Some(PATIENCE));
        }
    }
    for folder in &leftover.instances {
        peers::undo(folder).map_err(|source| LeftoverError::Snapshots {
            path: folder.display().to_string(),
            source,
        })?;
    }
    for pid in &leftover.processes {
        kill_if_of(*pid, run_id)?;
    }
    if let Some(folder) = &leftover.snapshots {
        match std::fs::remove_dir_all(folder) {
            // Its own launcher was faster.
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(LeftoverError::Snapshots {
                    path: folder.display().to_string(),
                    source,
                });
            }
            _ => {}
        }
    }
    sweep(&hierarchy()?, Some(run_id)).failed.into_iter().next().map_or(Ok(()), Err)?;
    Ok(network::remove_links(run_id, Path::new(LINKS))?)
}

fn hierarchy() -> Result<Hierarchy, CgroupError> {
    Hierarchy::detect(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
}

/// The run id and the harness's process in a launcher's command line.
fn launcher_of(process: &Process) -> Option<(String, i32)> {
    let arguments = process.cmdline().ok()?;
    match arguments.as_slice() {
        [_, subcommand, id, harness] if subcommand == SUBCOMMAND => {
            Some((id.clone(), harness.parse().ok()?))
        }
        _ => None,
    }
}

/// The run id in a process's environment.
fn run_of(process: &Process) -> Option<String> {
    let environment = process.environ().ok()?;
    let id = environment.get(std::ffi::OsStr::new(ENV_RUN))?;
    id.to_str().map(str::to_owned)
}

/// Kills a process if it still is one of the run: a number may have been
/// given to another process meanwhile.
fn kill_if_of(pid: i32, run_id: &str) -> Result<(), LeftoverError> {
    let Ok(handle) = PidFd::open(Pid::from_raw(pid)) else { return Ok(()) };
    let same = Process::new(pid).ok().and_then(|process| run_of(&process));
    if same.as_deref() != Some(run_id) {
        return Ok(());
    }
    let gone = Deadline::after(PATIENCE);
    match handle.kill(Signal::SIGKILL) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {
            let _ = handle.wait_ended(Some(gone.left()));
            Ok(())
        }
        Err(source) => Err(LeftoverError::Kill { pid, source }),
    }
}
