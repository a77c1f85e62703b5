//! What the memory of a virtual machine monitor consists of, from
//! `/proc/PID/smaps` (proc_pid_smaps(5)): each mapping belongs to one part.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use procfs::FromBufRead;
use procfs::process::{MMPermissions, MMapPath, MemoryMap, MemoryMaps};

use super::ProbeError;
use super::smaps::pids;
use crate::record::Part;

/// What tells a machine's mappings apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Size of the guest's memory in bytes.
    pub memory: u64,
    /// Files that the guest is made from, such as its kernel.
    pub images: Vec<PathBuf>,
}

/// Bytes of one part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartSize {
    /// Proportional set size.
    pub pss: u64,
    /// Resident set size.
    pub rss: u64,
}

/// Bytes by part; every part is there.
pub type Parts = BTreeMap<Part, PartSize>;

/// The parts of all processes of an instance.
pub(super) fn read(
    proc: &Path,
    pid: i32,
    cgroups: &[PathBuf],
    shape: &Shape,
) -> Result<Parts, ProbeError> {
    let mut parts: Parts = Part::ALL.into_iter().map(|part| (part, PartSize::default())).collect();
    for pid in pids(pid, cgroups)? {
        let failed = |reason: String| ProbeError::Process { pid, reason };
        let path = proc.join(pid.to_string()).join("smaps");
        let text = fs::read(path).map_err(|error| failed(error.to_string()))?;
        let maps = MemoryMaps::from_buf_read(text.as_slice());
        for map in maps.map_err(|error| failed(error.to_string()))?.0 {
            let field = |name: &str| {
                let value = map.extension.map.get(name).copied();
                value.ok_or_else(|| failed(format!("smaps has no field {name}")))
            };
            let part = parts.entry(part_of(&map, shape)).or_default();
            part.pss += field("Pss")?;
            part.rss += field("Rss")?;
        }
    }
    Ok(parts)
}

/// The part that a mapping belongs to.
fn part_of(map: &MemoryMap, shape: &Shape) -> Part {
    let writable = map.perms.contains(MMPermissions::WRITE);
    let executable = map.perms.contains(MMPermissions::EXECUTE);
    let len = map.address.1 - map.address.0;
    match &map.pathname {
        MMapPath::Path(path) if shape.images.contains(path) => Part::Image,
        // The guest's memory is one mapping of its whole size, of a snapshot's
        // file where the guest goes on from one.
        _ if writable && !executable && len == shape.memory => Part::GuestRam,
        // QEMU keeps its translated code in a file of memory when it may not
        // be written and executed at one address.
        MMapPath::Path(path) if path.starts_with("/memfd:tcg-jit") => Part::Translation,
        MMapPath::Path(_) => Part::Text,
        // The kernel's own code for everybody.
        MMapPath::Vdso | MMapPath::Vsyscall => Part::Text,
        _ if executable => Part::Translation,
        _ => Part::Vmm,
    }
}
