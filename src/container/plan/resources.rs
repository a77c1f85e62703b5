//! Limits of a spec.

use oci_spec::runtime::Linux;

use super::PlanError;
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
