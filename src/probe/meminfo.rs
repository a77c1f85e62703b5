//! The host's own ledger, from `/proc/meminfo` (proc_meminfo(5)).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use procfs::{FromBufRead, Meminfo};

use super::ProbeError;
use crate::record::KernelPart;

/// Memory in use less reclaimable caches, in bytes:
/// `MemTotal - MemFree - Buffers - Cached - SReclaimable + Shmem`.
///
/// `Shmem` is added back because it is part of `Cached` and cannot be dropped;
/// the memory of a guest may be such. It counts also what no control group is
/// charged for, and what everybody else on the host does.
pub(super) fn in_use(proc: &Path) -> Result<u64, ProbeError> {
    let (meminfo, failed) = (read(proc)?, |reason| failed(proc, reason));
    let field = |name: &str, value: Option<u64>| {
        value.ok_or_else(|| failed(format!("it has no field {name}")))
    };
    let caches = meminfo.buffers + meminfo.cached + field("SReclaimable", meminfo.s_reclaimable)?;
    let total = meminfo.mem_total + field("Shmem", meminfo.shmem)?;
    total
        .checked_sub(meminfo.mem_free + caches)
        .ok_or_else(|| failed("free memory and caches exceed the total".to_owned()))
}

/// The host's kernel memory by part, in bytes; a part that this kernel does
/// not tell is missing with the reason.
pub(super) fn kernel_parts(
    proc: &Path,
) -> Result<BTreeMap<KernelPart, Result<u64, String>>, ProbeError> {
    let meminfo = read(proc)?;
    let told = |value: Option<u64>, name: &str| {
        value.ok_or_else(|| format!("/proc/meminfo has no field {name}"))
    };
    let tables = told(meminfo.page_tables, "PageTables")
        .map(|tables| tables + meminfo.secondary_page_tables.unwrap_or(0));
    Ok(BTreeMap::from([
        (KernelPart::Slab, Ok(meminfo.slab)),
        (KernelPart::Stacks, told(meminfo.kernel_stack, "KernelStack")),
        (KernelPart::PageTables, tables),
        (KernelPart::Percpu, told(meminfo.per_cpu, "Percpu")),
    ]))
}

fn read(proc: &Path) -> Result<Meminfo, ProbeError> {
    let text = fs::read(proc.join("meminfo")).map_err(|error| failed(proc, error.to_string()))?;
    let meminfo = Meminfo::from_buf_read(text.as_slice());
    meminfo.map_err(|error| failed(proc, error.to_string()))
}

fn failed(proc: &Path, reason: String) -> ProbeError {
    ProbeError::File { path: proc.join("meminfo"), reason }
}
