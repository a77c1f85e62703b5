//! What a container uses, and changing what it may use.

use std::collections::BTreeSet;
use std::path::Path;

use nix::unistd::Pid;
use oci_spec::runtime::{Linux, LinuxResources};
use serde::Serialize;

use super::Lifecycle;
use super::error::LifecycleError;
use super::signal::group;
use super::state::Status;
use crate::container::cgroup::{CgroupError, Controller, Group};
use crate::container::plan::limits_of;

/// A snapshot of what a container uses, in the form of `runc events --stats`
/// (<https://github.com/opencontainers/runc/blob/main/types/events.go>). What
/// cannot be read is left out.
#[derive(Clone, Debug, Serialize)]
pub struct Statistics {
    /// Always `stats`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The container.
    pub id: String,
    /// The numbers.
    pub data: Data,
}

/// The numbers of [`Statistics`].
#[derive(Clone, Debug, Serialize)]
pub struct Data {
    /// CPU time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<Counted>,
}

/// CPU time.
#[derive(Clone, Debug, Serialize)]
pub struct Cpu {
    /// In nanoseconds.
    pub usage: CpuTime,
    /// How often the quota held it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttling: Option<Throttling>,
}

/// CPU time in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct CpuTime {
    /// In all.
    pub total: u128,
    /// In the kernel.
    pub kernel: u128,
    /// In user mode.
    pub user: u128,
}

/// What a CPU quota did.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods in which it was held back.
    pub throttled_periods: u64,
}

/// Memory.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// In bytes.
    pub usage: MemoryUse,
}

/// Bytes of memory.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryUse {
    /// Now.
    pub usage: u64,
    /// The most at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// The limit; the largest number where there is none.
    pub limit: u64,
}

/// A number and its limit.
#[derive(Clone, Debug, Serialize)]
pub struct Counted {
    /// Now.
    pub current: u64,
    /// The limit, or 0 where there is none.
    pub limit: u64,
}

impl Lifecycle {
    /// The processes of a container as the host numbers them.
    ///
    /// # Errors
    ///
    /// When there is no such container or its control groups cannot be read.
    pub fn processes(&self, id: &str) -> Result<Vec<Pid>, LifecycleError> {
        let record = self.store.read(id)?;
        let group = group(&record)?;
        let mut all = BTreeSet::new();
        for folder in group.folders() {
            members(folder, &mut all)?;
        }
        if all.is_empty() && record.live_process().is_some() {
            // Without control groups only the first is known.
            all.extend(record.process.map(|process| process.pid));
        }
        Ok(all.into_iter().map(Pid::from_raw).collect())
    }

    /// What a container uses.
    ///
    /// # Errors
    ///
    /// When it has ended, or there is none.
    pub fn statistics(&self, id: &str) -> Result<Statistics, LifecycleError> {
        let record = self.store.read(id)?;
        let status = self.status(&record)?;
        if status == Status::Stopped {
            return Err(LifecycleError::NotRunning(id.to_owned()));
        }
        let group = group(&record)?;
        Ok(Statistics {
            kind: "stats",
            id: id.to_owned(),
            data: Data { cpu: cpu(&group), memory: memory(&group), pids: pids(&group) },
        })
    }

    /// Changes limits of a container; what is not given stays.
    ///
    /// # Errors
    ///
    /// For a container that has ended, and naming controller, file and value
    /// for what the kernel refuses; limits before it are changed then.
    pub fn update(&self, id: &str, resources: &LinuxResources) -> Result<(), LifecycleError> {
        let entry = self.store.open(id)?;
        let mut record = entry.read()?;
        let status = self.status(&record)?;
        if status == Status::Stopped {
            return Err(LifecycleError::Status { action: "update", id: id.to_owned(), status });
        }
        let mut asked = Linux::default();
        asked.set_resources(Some(resources.clone()));
        let limits = limits_of(&asked)?;
        if let Some(remark) = group(&record)?.update(&limits)?.first() {
            return Err(LifecycleError::Limit(remark.clone()));
        }
        let mut linux = record.config.linux().clone().unwrap_or_default();
        linux.set_resources(Some(merged(linux.resources().as_ref(), resources)?));
        record.config.set_linux(Some(linux));
        entry.write(&record)
    }
}

/// The resources of a configuration after an update.
fn merged(
    old: Option<&LinuxResources>,
    new: &LinuxResources,
) -> Result<LinuxResources, LifecycleError> {
    let json = |error| LifecycleError::Resources { source: error };
    let mut all = serde_json::to_value(old).map_err(json)?;
    merge(&mut all, serde_json::to_value(new).map_err(json)?);
    serde_json::from_value(all).map_err(json)
}

fn merge(old: &mut serde_json::Value, new: serde_json::Value) {
    match (old, new) {
        (serde_json::Value::Object(old), serde_json::Value::Object(new)) => {
            for (name, value) in new {
                merge(old.entry(name).or_insert(serde_json::Value::Null), value);
            }
        }
        (_, serde_json::Value::Null) => {}
        (old, new) => *old = new,
    }
}

/// Processes in a cgroup and below it; one that is gone has none.
fn members(folder: &Path, all: &mut BTreeSet<i32>) -> Result<(), LifecycleError> {
    let path = folder.join("cgroup.procs");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(_) if !folder.exists() => return Ok(()),
        Err(source) => return Err(CgroupError::Read { path, source }.into()),
    };
    all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            members(&entry.path(), all)?;
        }
    }
    Ok(())
}

fn cpu(group: &Group) -> Option<Cpu> {
    let usage = group.cpu_usage().ok()?;
    Some(Cpu {
        usage: CpuTime {
            total: usage.total.as_nanos(),
            kernel: usage.system.as_nanos(),
            user: usage.user.as_nanos(),
        },
        throttling: group
            .cpu_throttled()
            .ok()
            .map(|throttled_periods| Throttling { throttled_periods }),
    })
}

fn memory(group: &Group) -> Option<Memory> {
    let limit = limit(group, Controller::Memory, &["memory.max", "memory.limit_in_bytes"]);
    Some(Memory {
        usage: MemoryUse {
            usage: group.memory_usage().ok()?,
            max: group.memory_peak().ok(),
            limit: limit.unwrap_or(u64::MAX),
        },
    })
}

fn pids(group: &Group) -> Option<Counted> {
    let limit = limit(group, Controller::Pids, &["pids.max"]);
    Some(Counted { current: group.pids().ok()?, limit: limit.unwrap_or(0) })
}

/// The limit in the file of these that exists; `max` is none.
fn limit(group: &Group, controller: Controller, files: &[&str]) -> Option<u64> {
    let folder = group.folder(controller)?;
    let text = files.iter().find_map(|file| std::fs::read_to_string(folder.join(file)).ok())?;
    text.trim().parse().ok()
}
