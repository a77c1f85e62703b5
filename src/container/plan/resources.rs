//! Limits and id maps of a spec.

use nix::sched::CloneFlags;
use oci_spec::runtime::{Linux, LinuxIdMapping};

use super::{IdMaps, PlanError};
use crate::container::cgroup::{CpuQuota, Limits, shares_to_weight};

/// The period of a CPU quota that names none: the kernel's default.
const DEFAULT_PERIOD_US: u64 = 100_000;

/// The limits that a spec asks for. In a spec -1 means no limit.
pub(super) fn limits(linux: &Linux) -> Result<Limits, PlanError> {
    let mut limits = Limits::default();
    let Some(resources) = linux.resources() else { return Ok(limits) };
    if let Some(memory) = resources.memory() {
        limits.memory = positive(memory.limit());
        // The specification's `swap` is memory and swap together.
        if let Some(both) = positive(memory.swap()) {
            let swap = limits.memory.and_then(|memory| both.checked_sub(memory));
            limits.swap = Some(swap.ok_or(PlanError::Value {
                field: "linux.resources.memory.swap".to_owned(),
                value: both.to_string(),
                reason: "it is the sum of memory and swap, so it must be at least memory.limit",
            })?);
        }
    }
    if let Some(pids) = resources.pids() {
        limits.pids = positive(Some(pids.limit()));
    }
    if let Some(cpu) = resources.cpu() {
        limits.cpu_weight = cpu.shares().filter(|shares| *shares > 0).map(shares_to_weight);
        let period_us = cpu.period().filter(|period| *period > 0).unwrap_or(DEFAULT_PERIOD_US);
        limits.cpu_quota = positive(cpu.quota()).map(|quota_us| CpuQuota { quota_us, period_us });
    }
    Ok(limits)
}

/// A limit that is one.
fn positive(value: Option<i64>) -> Option<u64> {
    value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0)
}

/// The id maps of a user namespace: one id of the caller's own each, which
/// a child may write itself, also without privileges.
pub(super) fn id_maps(linux: &Linux, namespaces: CloneFlags) -> Result<Option<IdMaps>, PlanError> {
    let users = linux.uid_mappings().as_deref().unwrap_or_default();
    let groups = linux.gid_mappings().as_deref().unwrap_or_default();
    if !namespaces.contains(CloneFlags::CLONE_NEWUSER) {
        return match (users, groups) {
            ([], []) => Ok(None),
            _ => Err(PlanError::Missing {
                field: "linux.namespaces[user]",
                reason: "id mappings need a user namespace",
            }),
        };
    }
    let uid = nix::unistd::geteuid().as_raw();
    let gid = nix::unistd::getegid().as_raw();
    Ok(Some(IdMaps {
        user: single("linux.uidMappings", users, uid)?,
        group: single("linux.gidMappings", groups, gid)?,
    }))
}

/// The id inside and outside.
fn single(field: &str, maps: &[LinuxIdMapping], own: u32) -> Result<(u32, u32), PlanError> {
    match maps {
        [map] if map.size() == 1 && map.host_id() == own => Ok((map.container_id(), map.host_id())),
        _ => Err(PlanError::Value {
            field: field.to_owned(),
            value: maps
                .iter()
                .map(|map| format!("{} {} {}", map.container_id(), map.host_id(), map.size()))
                .collect::<Vec<_>>()
                .join(", "),
            reason: "this runtime maps exactly one id, the caller's own",
        }),
    }
}
