//! `/proc/PID/smaps_rollup`: the kernel's sums over all mappings of a process
//! (since Linux 4.14; the fields are described in proc_pid_smaps(5)).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use procfs::FromBufRead;
use procfs::process::{SmapsRollup, Status};

use super::ProbeError;

/// Sums over all processes of an instance, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Proportional set size.
    pub pss: u64,
    /// Unique set size: `Private_Clean`, `Private_Dirty` and
    /// `Private_Hugetlb`.
    pub uss: u64,
    /// Resident set size.
    pub rss: u64,
}

/// Reads all processes in the control groups, or `pid` alone when there are
/// none.
pub(super) fn read(proc: &Path, pid: i32, cgroups: &[PathBuf]) -> Result<Sizes, ProbeError> {
    match try_read(proc, pid, cgroups) {
        // A process that ended between list and reading: the list was old.
        Err(ProbeError::Process { .. }) if !cgroups.is_empty() => try_read(proc, pid, cgroups),
        other => other,
    }
}

fn try_read(proc: &Path, pid: i32, cgroups: &[PathBuf]) -> Result<Sizes, ProbeError> {
    read_all(proc, &pids(pid, cgroups)?)
}

/// Reads these processes, all of them or none.
pub(super) fn read_all(proc: &Path, pids: &[i32]) -> Result<Sizes, ProbeError> {
    let mut sum = Sizes::default();
    for &pid in pids {
        let one = process(proc, pid)?;
        sum.pss += one.pss;
        sum.uss += one.uss;
        sum.rss += one.rss;
    }
    Ok(sum)
}

/// Every process that exists because of the instance.
pub(super) fn pids(pid: i32, cgroups: &[PathBuf]) -> Result<Vec<i32>, ProbeError> {
    let Some(first) = cgroups.first() else { return Ok(vec![pid]) };
    let mut all = Vec::new();
    for dir in cgroups {
        collect(dir, &mut all)?;
    }
    // In version 1 the same process is in a group of every controller.
    all.sort_unstable();
    all.dedup();
    if all.is_empty() {
        return Err(ProbeError::Empty { dir: first.clone() });
    }
    Ok(all)
}

/// Adds the processes of a group and of the groups below it.
fn collect(dir: &Path, pids: &mut Vec<i32>) -> Result<(), ProbeError> {
    let path = dir.join("cgroup.procs");
    let failed = |reason: String| ProbeError::File { path: path.clone(), reason };
    let text = fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
    for line in text.lines() {
        // 0 is a process that our own pid namespace does not show.
        match line.parse() {
            Ok(pid) if pid > 0 => pids.push(pid),
            _ => return Err(failed(format!("`{line}` is not a process we can see"))),
        }
    }
    let entries = fs::read_dir(dir).map_err(|error| failed(error.to_string()))?;
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), pids)?;
        }
    }
    Ok(())
}

/// The highest resident set of every process since it executed its program,
/// added up, in bytes (`VmHWM` in proc_pid_status(5)).
pub(super) fn highest(proc: &Path, pid: i32, cgroups: &[PathBuf]) -> Result<u64, ProbeError> {
    highest_all(proc, pids(pid, cgroups)?)
}

/// The same for these processes.
pub(super) fn highest_all(
    proc: &Path,
    pids: impl IntoIterator<Item = i32>,
) -> Result<u64, ProbeError> {
    let mut sum = 0;
    for pid in pids {
        let failed = |reason: String| ProbeError::Process { pid, reason };
        let path = proc.join(pid.to_string()).join("status");
        let text = fs::read(path).map_err(|error| failed(error.to_string()))?;
        let status = Status::from_buf_read(text.as_slice());
        let status = status.map_err(|error| failed(error.to_string()))?;
        let kib = status.vmhwm.ok_or_else(|| failed("it has ended".to_owned()))?;
        sum += kib * 1024;
    }
    Ok(sum)
}

fn process(proc: &Path, pid: i32) -> Result<Sizes, ProbeError> {
    let failed = |reason: String| ProbeError::Process { pid, reason };
    let path = proc.join(pid.to_string()).join("smaps_rollup");
    let text = fs::read(path).map_err(|error| {
        failed(match error.kind() {
            ErrorKind::PermissionDenied => {
                "not permitted; it belongs to another user or namespace, try as root".to_owned()
            }
            ErrorKind::NotFound => "it has ended".to_owned(),
            _ => error.to_string(),
        })
    })?;
    let rollup = SmapsRollup::from_buf_read(text.as_slice());
    let rollup = rollup.map_err(|error| failed(error.to_string()))?;
    // A process that has ended and was not reaped has no mappings.
    let map =
        rollup.memory_map_rollup.0.first().ok_or_else(|| failed("it has ended".to_owned()))?;
    let field = |name: &str| {
        let value = map.extension.map.get(name).copied();
        value.ok_or_else(|| failed(format!("smaps_rollup has no field {name}")))
    };
    // Only kernels with huge pages have the third part.
    let hugetlb = field("Private_Hugetlb").unwrap_or(0);
    Ok(Sizes {
        pss: field("Pss")?,
        uss: field("Private_Clean")? + field("Private_Dirty")? + hugetlb,
        rss: field("Rss")?,
    })
}
