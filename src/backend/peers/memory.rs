//! Where the memory of an instance of somebody else's system is: in whatever
//! processes exist because of it, and in their control groups.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::real::RealInstance;
use super::super::{BackendError, Instance, MemorySource, Timeline};
use super::census::{census, cgroup_tops, cgroups_of, descendants};
use crate::payload::protocol::WorkResult;

/// A live instance.
pub(super) struct PeerInstance {
    inner: RealInstance,
    run_id: String,
    /// The daemon's processes, where they are known.
    daemons: Vec<i32>,
    tops: Vec<PathBuf>,
}

impl PeerInstance {
    pub(super) fn new(inner: RealInstance, run_id: &str, daemons: Vec<i32>) -> Self {
        Self { inner, run_id: run_id.to_owned(), daemons, tops: cgroup_tops() }
    }
}

impl Instance for PeerInstance {
    fn timeline(&self) -> &Timeline {
        self.inner.timeline()
    }

    fn result(&self) -> WorkResult {
        self.inner.result()
    }

    fn memory(&self) -> MemorySource {
        let (words, mut folders) = self.inner.places();
        folders.extend(cgroups_of(&self.tops, &self.run_id, &words));
        let pids = census(&words, &folders);
        let daemons = descendants(&self.daemons);
        // A child of the daemon that belongs to the instance is the instance's.
        let daemons = daemons.into_iter().filter(|pid| !pids.contains(pid)).collect();
        let groups = memory_groups(&pids, &self.tops, &self.run_id);
        MemorySource::Processes { pids, groups, daemons }
    }

    fn ping(&mut self) -> Result<(), BackendError> {
        self.inner.ping()
    }

    fn http(&mut self) -> Result<u64, BackendError> {
        self.inner.http()
    }

    fn release(&mut self) -> Result<(), BackendError> {
        self.inner.release()
    }

    fn stop(self: Box<Self>) -> Result<Timeline, BackendError> {
        Box::new(self.inner).stop()
    }
}

/// The control groups of the memory controller in which these processes are,
/// or who is in none that is the run's own.
fn memory_groups(pids: &[i32], tops: &[PathBuf], run_id: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = BTreeSet::new();
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .map_err(|error| format!("cannot read the control group of process {pid}: {error}"))?;
        let folder = memory_group(&text, tops)
            .ok_or_else(|| format!("process {pid} is in no group of the memory controller"))?;
        if !folder.to_string_lossy().contains(&format!("unladen-{run_id}")) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            return Err(format!("{} is in no control group of the instance", name.trim()));
        }
        found.insert(folder);
    }
    // What is charged to a group is charged to those above it, too.
    let outer = |folder: &&PathBuf| !folder.ancestors().skip(1).any(|above| found.contains(above));
    Ok(found.iter().filter(outer).cloned().collect())
}

/// The folder of a process in the memory controller's hierarchy, from its
/// `/proc/PID/cgroup` (cgroups(7)).
fn memory_group(text: &str, tops: &[PathBuf]) -> Option<PathBuf> {
    let fields = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (_, names) = (fields.next()?, fields.next()?.to_owned());
        Some((names, fields.next()?.to_owned()))
    };
    let all: Vec<(String, String)> = text.lines().filter_map(fields).collect();
    let one = all.iter().find(|(names, _)| names.split(',').any(|name| name == "memory"));
    let two = all.iter().find(|(names, _)| names.is_empty());
    let (_, path) = one.or(two)?;
    let join = |top: &PathBuf| top.join(path.trim_start_matches('/'));
    let has = |folder: &Path| {
        folder.join("memory.usage_in_bytes").exists() || folder.join("memory.current").exists()
    };
    tops.iter().map(join).find(|folder| has(folder))
}
