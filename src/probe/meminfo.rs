//! The host's own ledger, from `/proc/meminfo` (proc_meminfo(5)).

use std::fs;
use std::path::Path;

use procfs::{FromBufRead, Meminfo};

use super::ProbeError;

/// Memory in use less reclaimable caches, in bytes:
/// `MemTotal - MemFree - Buffers - Cached - SReclaimable + Shmem`.
///
/// `Shmem` is added back because it is part of `Cached` and cannot be dropped;
/// the memory of a guest may be such. It counts also what no control group is
/// charged for, and what everybody else on the host does.
pub(super) fn in_use(proc: &Path) -> Result<u64, ProbeError> {
    let path = proc.join("meminfo");
    let failed = |reason: String| ProbeError::File { path: path.clone(), reason };
    let text = fs::read(&path).map_err(|error| failed(error.to_string()))?;
    let meminfo = Meminfo::from_buf_read(text.as_slice());
    let meminfo = meminfo.map_err(|error| failed(error.to_string()))?;
    let field = |name: &str, value: Option<u64>| {
        value.ok_or_else(|| failed(format!("it has no field {name}")))
    };
    let caches = meminfo.buffers + meminfo.cached + field("SReclaimable", meminfo.s_reclaimable)?;
    let total = meminfo.mem_total + field("Shmem", meminfo.shmem)?;
    total
        .checked_sub(meminfo.mem_free + caches)
        .ok_or_else(|| failed("free memory and caches exceed the total".to_owned()))
}
