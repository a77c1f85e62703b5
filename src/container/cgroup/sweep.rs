//! Removing cgroups, and finding those of runs that could not do it
//! themselves, by their names alone.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::group::rmdir;
use super::tree::{ASIDE, PREFIX};
use super::{CgroupError, Hierarchy, files, freeze};
use crate::sys::clock::Deadline;
use crate::sys::pidfd::PidFd;

/// How long the cleaning of one tree may take.
const LIMIT: Duration = Duration::from_secs(30);
/// First and longest pause where the kernel has no notification.
const PAUSE: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(5));

/// What a cleaning did.
#[derive(Debug, Default)]
pub struct Swept {
    /// Folders that were removed with everything in them.
    pub removed: Vec<PathBuf>,
    /// What could not be removed.
    pub failed: Vec<CgroupError>,
}

/// The folders of a run, or of every run with `None`, in all hierarchies that
/// are mounted, wherever in them they are.
#[must_use]
pub fn find(hierarchy: &Hierarchy, run_id: Option<&str>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for top in &hierarchy.tops {
        search(top, run_id, &mut found);
    }
    found.sort();
    found.dedup();
    found
}

/// Removes what [`find`] finds. Processes inside are killed, except for those
/// that had only stepped aside: they go back where they were.
#[must_use]
pub fn sweep(hierarchy: &Hierarchy, run_id: Option<&str>) -> Swept {
    let mut swept = Swept::default();
    let_all_die(hierarchy, run_id);
    let (aside, mut ordered): (Vec<PathBuf>, Vec<PathBuf>) = find(hierarchy, run_id)
        .into_iter()
        .partition(|folder| folder.to_string_lossy().ends_with(ASIDE));
    // Those who stepped aside can go back only when the rest is gone.
    ordered.extend(aside);
    for folder in ordered {
        let result = match folder.parent() {
            Some(from) if folder.to_string_lossy().ends_with(ASIDE) => step_back(from, &folder),
            _ => remove_tree(&folder),
        };
        match result {
            Ok(()) => swept.removed.push(folder),
            Err(error) => swept.failed.push(error),
        }
    }
    swept
}

/// Lets frozen processes of version 1 receive the signal that ends them,
/// which in other hierarchies would be waited for in vain.
fn let_all_die(hierarchy: &Hierarchy, run_id: Option<&str>) {
    for folder in find(hierarchy, run_id) {
        if folder.join("freezer.state").exists() {
            // Whoever cannot be killed is named by the removal that follows.
            let _ = signal_tree(&folder, Signal::SIGKILL, &mut BTreeSet::new());
            thaw_tree(&folder);
        }
    }
}

fn thaw_tree(folder: &Path) {
    freeze::let_die(folder);
    for child in children(folder) {
        thaw_tree(&child);
    }
}

/// Whether a folder's name is that of a run: `unladen-<run id>`, or the leaf
/// for stepping aside. Names with a dot are systemd's units.
fn belongs(name: &str, run_id: Option<&str>) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    match run_id {
        Some(run_id) => rest.strip_suffix(ASIDE).unwrap_or(rest) == run_id,
        None => !rest.is_empty() && !rest.contains('.'),
    }
}

/// Looks for folders of runs, not inside those.
fn search(folder: &Path, run_id: Option<&str>, found: &mut Vec<PathBuf>) {
    for child in children(folder) {
        let name = child.file_name().map(|name| name.to_string_lossy().into_owned());
        if name.is_some_and(|name| belongs(&name, run_id)) {
            found.push(child);
        } else {
            search(&child, run_id, found);
        }
    }
}

/// Folders directly inside one. A cgroup that is removed while it is read, or
/// may not be read, has none for us.
pub(super) fn children(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Removes a folder and those inside, killing what runs there.
pub(super) fn remove_tree(folder: &Path) -> Result<(), CgroupError> {
    if !folder.exists() {
        return Ok(());
    }
    let deadline = Deadline::after(LIMIT);
    kill_tree(folder, deadline)?;
    remove_folder(folder, deadline)
}

/// Removes a folder and those inside, waiting while the kernel calls one busy.
pub(super) fn remove_folder(folder: &Path, deadline: Deadline) -> Result<(), CgroupError> {
    let mut pause = PAUSE.0;
    loop {
        let source = match rmdir(folder) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // Groups that somebody made inside, as an init system does, keep it
        // busy, too.
        for child in children(folder) {
            remove_folder(&child, deadline)?;
        }
        if source.raw_os_error() != Some(Errno::EBUSY as i32) || deadline.passed() {
            let pids = files::processes(folder).unwrap_or_default();
            let processes = files::list(&pids);
            return Err(CgroupError::Remove { path: folder.to_owned(), processes, source });
        }
        wait_for_change(folder, deadline, &mut pause);
    }
}

/// Kills every process in a folder and below it, and waits until none is left.
pub(super) fn kill_tree(folder: &Path, deadline: Deadline) -> Result<(), CgroupError> {
    // Version 2 from Linux 5.14 on: one write kills all, also what forks
    // meanwhile. Elsewhere a limit of no processes stops those forks.
    let at_once = files::write(&folder.join("cgroup.kill"), "1").is_ok();
    let mut pause = PAUSE.0;
    loop {
        let pids = kill_round(folder, at_once)?;
        if pids.is_empty() {
            return Ok(());
        }
        if deadline.passed() {
            let processes = files::list(&pids);
            return Err(CgroupError::Survivors { path: folder.to_owned(), processes });
        }
        wait_for_change(folder, deadline, &mut pause);
    }
}

/// One round over a tree; returns who is still there.
fn kill_round(folder: &Path, killed: bool) -> Result<Vec<Pid>, CgroupError> {
    let mut pids = files::processes(folder)?;
    if !killed && !pids.is_empty() {
        // Not every hierarchy has this file.
        let _ = files::write(&folder.join("pids.max"), "0");
        for pid in &pids {
            signal_member(folder, *pid, Signal::SIGKILL)?;
        }
    }
    for child in children(folder) {
        pids.extend(kill_round(&child, killed)?);
    }
    Ok(pids)
}

/// Sends a signal once to everybody in a folder and below it who is not
/// `known` yet.
pub(super) fn signal_tree(
    folder: &Path,
    signal: Signal,
    known: &mut BTreeSet<Pid>,
) -> Result<(), CgroupError> {
    for pid in files::processes(folder)? {
        if known.insert(pid) {
            signal_member(folder, pid, signal)?;
        }
    }
    children(folder).iter().try_for_each(|child| signal_tree(child, signal, known))
}

/// Signals a process if it is (still) in this cgroup: between reading its number
/// and opening it, the number may have gone to somebody else.
fn signal_member(folder: &Path, pid: Pid, signal: Signal) -> Result<(), CgroupError> {
    let Ok(pidfd) = PidFd::open(pid) else { return Ok(()) };
    if files::processes(folder)?.contains(&pid) {
        // ESRCH means that it ended meanwhile; a process that may not be
        // killed is reported as a survivor.
        let _ = pidfd.kill(signal);
    }
    Ok(())
}

/// Waits until something may have changed: version 2 notifies through
/// `cgroup.events`; version 1 has no notification, so there the pauses grow
/// from 50 microseconds to 5 milliseconds.
pub(super) fn wait_for_change(folder: &Path, deadline: Deadline, pause: &mut Duration) {
    let step = (*pause).min(deadline.left());
    *pause = (*pause * 2).min(PAUSE.1);
    // Reading arms the notification; a change since then ends the wait at once.
    let path = folder.join("cgroup.events");
    let events = fs::File::open(&path)
        .and_then(|mut file| io::copy(&mut file, &mut io::sink()).map(|_| file));
    match events {
        Ok(events) => {
            let mut entry = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            // A limit beside the notification: rmdir can be refused for a
            // moment after the last process has gone.
            let _ = nix::poll::ppoll(&mut entry, Some(step.into()), None);
        }
        Err(_) => thread::sleep(step),
    }
}

/// Moves processes from the leaf where they stepped aside back to where they
/// were, which first must not hand out controllers any more.
pub(super) fn step_back(from: &Path, leaf: &Path) -> Result<(), CgroupError> {
    if !leaf.exists() {
        return Ok(());
    }
    let control = from.join("cgroup.subtree_control");
    for controller in files::read(&control)?.split_whitespace() {
        files::set("stepping back", &control, &format!("-{controller}"))?;
    }
    let deadline = Deadline::after(LIMIT);
    loop {
        let pids = files::processes(leaf)?;
        if pids.is_empty() {
            return remove_folder(leaf, deadline);
        }
        for pid in pids {
            // One that ended meanwhile is not there in the next round.
            let moved = files::set("stepping back", &from.join("cgroup.procs"), &pid.to_string());
            if deadline.passed() {
                moved?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_run_belong_to_it() {
        for (name, run, own) in [
            ("unladen-7", Some("7"), true),
            ("unladen-7-aside", Some("7"), true),
            ("unladen-77", Some("7"), false),
            ("unladen-7-8", Some("7"), false),
            ("unladen-7", None, true),
            ("unladen-bench.service", None, false),
            ("unladen-", None, false),
            ("session-7", None, false),
        ] {
            assert_eq!(belongs(name, run), own, "{name} {run:?}");
        }
    }
}
