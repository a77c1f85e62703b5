//! What a control group is charged: page cache, kernel memory and anonymous
//! memory of everything in it.
//!
//! Version 2 has `memory.current` and `memory.peak`. Version 1 has
//! `memory.usage_in_bytes` and `memory.max_usage_in_bytes`, the first of
//! which is exact to some pages per processor only (the kernel's
//! `admin-guide/cgroup-v1/memory`, section 5.5).

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::ProbeError;
use crate::record::Charge;

/// What the instance's group is charged now, in bytes.
pub(super) fn usage(cgroups: &[PathBuf]) -> Result<u64, ProbeError> {
    let (dir, is_v2) = memory_group(cgroups)?;
    number(&dir.join(if is_v2 { "memory.current" } else { "memory.usage_in_bytes" }))
}

/// The highest that the instance's group was ever charged, in bytes.
pub(super) fn peak(cgroups: &[PathBuf]) -> Result<u64, ProbeError> {
    let (dir, is_v2) = memory_group(cgroups)?;
    let path = dir.join(if is_v2 { "memory.peak" } else { "memory.max_usage_in_bytes" });
    if is_v2 && !path.exists() {
        return Err(ProbeError::NoPeak { path });
    }
    number(&path)
}

/// What the instance's group is charged for, by kind in bytes.
///
/// Version 2 tells all in `memory.stat` (`kernel` since Linux 5.18; before,
/// its parts are added up). Version 1 tells the first two there and the third
/// in `memory.kmem.usage_in_bytes`.
pub(super) fn charges(cgroups: &[PathBuf]) -> Result<BTreeMap<Charge, u64>, ProbeError> {
    let (dir, is_v2) = memory_group(cgroups)?;
    let path = dir.join("memory.stat");
    let failed = |reason: String| ProbeError::File { path: path.clone(), reason };
    let text = fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
    let value = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    };
    let needed = |name: &str| value(name).ok_or_else(|| failed(format!("it has no field {name}")));
    let kernel = match (is_v2, value("kernel")) {
        (true, Some(all)) => all,
        (true, None) => {
            needed("kernel_stack")?
                + needed("slab")?
                + KERNEL.iter().filter_map(|n| value(n)).sum::<u64>()
        }
        (false, _) => number(&dir.join("memory.kmem.usage_in_bytes"))?,
    };
    let (anon, file) = if is_v2 { ("anon", "file") } else { ("total_rss", "total_cache") };
    let (anon, file) = (needed(anon)?, needed(file)?);
    // Read last: whatever comes meanwhile is in the whole.
    let advance = usage(cgroups)?.saturating_sub(anon + file + kernel);
    Ok(BTreeMap::from([
        (Charge::Anon, anon),
        (Charge::File, file),
        (Charge::Kernel, kernel),
        (Charge::Advance, advance),
    ]))
}

/// Parts of version 2's kernel memory beside stacks and slab, as far as the
/// kernel tells them.
const KERNEL: [&str; 5] = ["pagetables", "sec_pagetables", "percpu", "sock", "vmalloc"];

/// The first folder that belongs to a memory controller; `true` for version 2.
fn memory_group(cgroups: &[PathBuf]) -> Result<(&Path, bool), ProbeError> {
    cgroups
        .iter()
        .find_map(|dir| {
            let has = |name: &str| dir.join(name).exists();
            let is_v2 = has("memory.current");
            (is_v2 || has("memory.usage_in_bytes")).then_some((dir.as_path(), is_v2))
        })
        .ok_or(ProbeError::NoMemoryGroup)
}

fn number(path: &Path) -> Result<u64, ProbeError> {
    let failed = |reason: String| ProbeError::File { path: path.to_owned(), reason };
    let text = fs::read_to_string(path).map_err(|error| {
        failed(match error.kind() {
            ErrorKind::NotFound => "it does not exist any more".to_owned(),
            _ => error.to_string(),
        })
    })?;
    let text = text.trim();
    text.parse().map_err(|_| failed(format!("`{text}` is not a number of bytes")))
}
