//! Processor time of an instance: what each thread of its processes has run,
//! from `/proc/PID/task/TID/schedstat`, whose first number is in nanoseconds
//! (the kernel's `scheduler/sched-stats`). The times of `stat` come in ticks
//! of 10 ms, which is more than an idle instance uses in a second.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::ProbeError;
use super::smaps::pids;
use crate::sys::clock::monotonic_ns;

/// What the threads of an instance have run up to a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuTime {
    /// The moment, on `CLOCK_MONOTONIC`.
    at: u64,
    /// Nanoseconds by thread.
    threads: BTreeMap<i32, u64>,
}

impl CpuTime {
    /// The processors that were kept busy since `before`: 1 is one of them
    /// all the time. What a thread ran that has ended since is not known;
    /// `None` when no time went by.
    #[must_use]
    pub fn busy_since(&self, before: &Self) -> Option<f64> {
        let ran = |(thread, now): (&i32, &u64)| {
            now.saturating_sub(before.threads.get(thread).copied().unwrap_or(0))
        };
        let ran: u64 = self.threads.iter().map(ran).sum();
        let passed = self.at.checked_sub(before.at).filter(|passed| *passed > 0)?;
        Some(ran as f64 / passed as f64)
    }
}

/// Reads all processes in the control groups, or `pid` alone when there are
/// none.
pub(super) fn read(proc: &Path, pid: i32, cgroups: &[PathBuf]) -> Result<CpuTime, ProbeError> {
    read_all(proc, &pids(pid, cgroups)?)
}

/// Reads these processes.
pub(super) fn read_all(proc: &Path, pids: &[i32]) -> Result<CpuTime, ProbeError> {
    let mut threads = BTreeMap::new();
    let at = monotonic_ns();
    for &pid in pids {
        let folder = proc.join(pid.to_string()).join("task");
        let failed = |error: std::io::Error| ProbeError::Process { pid, reason: error.to_string() };
        for entry in fs::read_dir(&folder).map_err(failed)?.flatten() {
            let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            match fs::read_to_string(entry.path().join("schedstat")) {
                Ok(text) => drop(threads.insert(thread, first_number(pid, &text)?)),
                // It ended while the list was read.
                Err(error) if gone(&error) && !entry.path().exists() => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let reason = "this kernel does not count it (CONFIG_SCHED_INFO)".to_owned();
                    return Err(ProbeError::Process { pid, reason });
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }
    Ok(CpuTime { at, threads })
}

/// Whether a file's process or thread has ended (proc(5): `ESRCH` while it is
/// being read).
fn gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
        || error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32)
}

fn first_number(pid: i32, text: &str) -> Result<u64, ProbeError> {
    let word = text.split_ascii_whitespace().next().unwrap_or_default();
    word.parse().map_err(|_| ProbeError::Process {
        pid,
        reason: format!("`{}` is not what a thread has run", text.trim()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder like `/proc` with these threads of process 7.
    fn proc(threads: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        for (thread, text) in threads {
            let task = folder.path().join("7/task").join(thread);
            fs::create_dir_all(&task).expect("made");
            fs::write(task.join("schedstat"), text).expect("written");
        }
        folder
    }

    #[test]
    fn all_threads_count_new_ones_too_and_a_wrong_text_is_told() {
        let folder = proc(&[("7", "1000 5 1\n"), ("8", "20 0 1\n")]);
        let mut before = read(folder.path(), 7, &[]).expect("read");
        before.at = 1_000;
        fs::write(folder.path().join("7/task/7/schedstat"), "1500 5 1\n").expect("written");
        let task = folder.path().join("7/task/9");
        fs::create_dir_all(&task).expect("made");
        fs::write(task.join("schedstat"), "30 0 0\n").expect("written");
        let mut now = read(folder.path(), 7, &[]).expect("read");
        now.at = 2_060;
        assert_eq!(now.busy_since(&before), Some(0.5));
        assert_eq!(before.busy_since(&before), None);
        fs::write(task.join("schedstat"), "soon\n").expect("written");
        let error = read(folder.path(), 7, &[]).expect_err("refused");
        assert!(error.to_string().contains("soon"), "{error}");
        fs::remove_file(task.join("schedstat")).expect("removed");
        let error = read(folder.path(), 7, &[]).expect_err("refused");
        assert!(error.to_string().contains("CONFIG_SCHED_INFO"), "{error}");
    }

    #[test]
    fn a_busy_thread_is_seen() {
        let pid = i32::try_from(std::process::id()).expect("a pid");
        let before = read(Path::new("/proc"), pid, &[]).expect("read");
        let end = monotonic_ns() + 50_000_000;
        while monotonic_ns() < end {
            std::hint::spin_loop();
        }
        let now = read(Path::new("/proc"), pid, &[]).expect("read");
        assert!(now.busy_since(&before).expect("time went by") > 0.0);
    }
}
