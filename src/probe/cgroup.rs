//! What a control group is charged: page cache, kernel memory and anonymous
//! memory of everything in it.
//!
//! Version 2 has `memory.current` and `memory.peak`. Version 1 has
//! `memory.usage_in_bytes` and `memory.max_usage_in_bytes`, the first of
//! which is exact to some pages per processor only (the kernel's
//! `admin-guide/cgroup-v1/memory`, section 5.5).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::ProbeError;

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
