//! Below which cgroup those of a run can be made.
//!
//! On version 1 this is always the caller's own cgroup, if it may write
//! there. On version 2 a cgroup other than the root cannot have both processes
//! and children with controllers (cgroups(7), "no internal processes rule"),
//! so the caller's own cgroup is suitable only if it is the root, or if it was
//! delegated and the processes in it can step aside into a leaf. Else the
//! cgroup above is tried: `unladen-<run>` then stands beside the caller's own.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, Pid};

use super::detect::{Hierarchy, Mounted, Version, may};
use super::files;

/// A cgroup below which others can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ground {
    /// Its folder.
    pub(super) folder: PathBuf,
    /// Processes that must first move into a leaf.
    pub(super) movers: Vec<Pid>,
}

/// What to do about a cgroup that is not the caller's to use.
const DELEGATE: &str = "start unladen as root, or in a cgroup of its own: \
     systemd-run --user --scope -p Delegate=yes unladen ...";

/// Finds the place, or says why there is none.
pub(super) fn find_ground(hierarchy: &Hierarchy, mounted: &Mounted) -> Result<Ground, String> {
    let own = &mounted.own;
    let here = |folder: &Path| Ground { folder: folder.to_owned(), movers: Vec::new() };
    if mounted.version == Version::V1 || is_root(own) {
        return usable(own).map(|()| here(own));
    }
    let at_top = *own == mounted.top;
    if at_top || delegated(own) {
        usable(own)?;
        let movers = movers(hierarchy, own)?;
        return Ok(Ground { folder: own.clone(), movers });
    }
    // Not at the top, so there is one above.
    let above = own.parent().unwrap_or(own);
    usable(above)?;
    if !is_root(above) {
        let inside = files::processes(above).map_err(|error| error.to_string())?;
        if !inside.is_empty() {
            return Err(format!("{} holds processes itself; {DELEGATE}", above.display()));
        }
    }
    Ok(here(above))
}

/// The real root of version 2 has no `cgroup.events`; the root of a cgroup
/// namespace, which is an ordinary cgroup, has it.
fn is_root(folder: &Path) -> bool {
    !folder.join("cgroup.events").exists()
}

/// Whether this cgroup was handed to its processes to divide further: it
/// belongs to an unprivileged caller, or systemd marked it
/// (<https://systemd.io/CGROUP_DELEGATION/>).
fn delegated(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let caller = nix::unistd::geteuid();
    let owned = folder.metadata().is_ok_and(|meta| meta.uid() == caller.as_raw());
    (!caller.is_root() && owned)
        || crate::sys::file::has_xattr(folder, c"user.delegate", b"1")
        || crate::sys::file::has_xattr(folder, c"trusted.delegate", b"1")
}

/// Whether the caller may make cgroups in it and move processes below it.
pub(super) fn usable(folder: &Path) -> Result<(), String> {
    may(folder, AccessFlags::W_OK | AccessFlags::X_OK)
        .and_then(|()| may(&folder.join("cgroup.procs"), AccessFlags::W_OK))
        .map_err(|error| {
            let why = match error {
                Errno::EROFS => "is mounted read-only".to_owned(),
                Errno::EACCES | Errno::EPERM => "belongs to somebody else".to_owned(),
                other => format!("cannot be written to ({other})"),
            };
            format!("cgroup {} {why}; {DELEGATE}", folder.display())
        })
}

/// The processes that must leave a delegated cgroup: allowed are the caller,
/// those it descends from and those that descend from it.
pub(super) fn movers(hierarchy: &Hierarchy, own: &Path) -> Result<Vec<Pid>, String> {
    let inside = files::processes(own).map_err(|error| error.to_string())?;
    let line = |pid: Pid| std::iter::successors(Some(pid), |pid| parent(hierarchy, *pid));
    let ancestors: Vec<Pid> = line(hierarchy.caller).collect();
    let strangers: Vec<Pid> = inside
        .iter()
        .copied()
        .filter(|pid| {
            !ancestors.contains(pid) && !line(*pid).any(|above| above == hierarchy.caller)
        })
        .collect();
    if strangers.is_empty() {
        return Ok(inside);
    }
    Err(format!(
        "cgroup {} also holds processes that unladen did not start ({}); {DELEGATE}",
        own.display(),
        files::list(&strangers)
    ))
}

/// The parent of a process: the second field behind its name in
/// `/proc/<pid>/stat` (proc_pid_stat(5)).
fn parent(hierarchy: &Hierarchy, pid: Pid) -> Option<Pid> {
    let path = hierarchy.proc_root.join(pid.to_string()).join("stat");
    let text = std::fs::read_to_string(path).ok()?;
    let (_, behind) = text.rsplit_once(')')?;
    let parent: i32 = behind.split_whitespace().nth(1)?.parse().ok()?;
    (parent > 0).then(|| Pid::from_raw(parent))
}
