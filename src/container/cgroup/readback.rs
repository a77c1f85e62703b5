//! What the kernel counted for a group.

use super::detect::Version;
use super::{CgroupError, Controller, Group, files};

/// What a memory cgroup is charged for, by kind, in bytes. The kinds are the
/// kernel's, do not overlap except where said, and need not add up to the
/// usage, which is counted in batches per CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemorySplit {
    /// Anonymous memory. Version 1: `total_rss`, version 2: `anon`.
    pub anonymous: u64,
    /// Page cache, tmpfs included. Version 1: `total_cache`, version 2: `file`.
    pub file: u64,
    /// Of `file`, tmpfs and shared memory.
    pub shared: Option<u64>,
    /// All kernel memory. Version 1: `memory.kmem.usage_in_bytes`, version 2:
    /// `kernel` (Linux 5.18).
    pub kernel: Option<u64>,
    /// Of `kernel`, the slab allocator. Version 2 only.
    pub slab: Option<u64>,
    /// Of `kernel`, kernel stacks. Version 2 only.
    pub kernel_stack: Option<u64>,
    /// Of `kernel`, page tables. Version 2 only.
    pub page_tables: Option<u64>,
    /// Of `kernel`, per-CPU data. Version 2 only.
    pub percpu: Option<u64>,
}

impl Group {
    /// Reads the number in the file that the controller's version has.
    fn number(&self, controller: Controller, v1: &str, v2: &str) -> Result<u64, CgroupError> {
        let part = self.part(controller)?;
        let file = match part.version {
            Version::V1 => v1,
            Version::V2 => v2,
        };
        files::read_number(&part.folder.join(file))
    }

    /// Bytes that the group is charged now.
    ///
    /// # Errors
    ///
    /// Without a memory controller, with the reason.
    pub fn memory_usage(&self) -> Result<u64, CgroupError> {
        self.number(Controller::Memory, "memory.usage_in_bytes", "memory.current")
    }

    /// The most bytes that the group was charged at once. Version 2 has it
    /// from Linux 5.19 on.
    ///
    /// # Errors
    ///
    /// Without a memory controller, with the reason.
    pub fn memory_peak(&self) -> Result<u64, CgroupError> {
        self.number(Controller::Memory, "memory.max_usage_in_bytes", "memory.peak")
    }

    /// Bytes by kind.
    ///
    /// # Errors
    ///
    /// Without a memory controller, with the reason.
    pub fn memory_split(&self) -> Result<MemorySplit, CgroupError> {
        let part = self.part(Controller::Memory)?;
        let path = part.folder.join("memory.stat");
        let text = files::read(&path)?;
        let get = |key: &str| files::find_key(&text, key).and_then(|value| value.parse().ok());
        let need = |key: &str| {
            get(key).ok_or_else(|| CgroupError::Content {
                path: path.clone(),
                content: format!("no number for {key}"),
            })
        };
        Ok(match part.version {
            Version::V1 => MemorySplit {
                anonymous: need("total_rss")?,
                file: need("total_cache")?,
                shared: get("total_shmem"),
                kernel: files::read_number(&part.folder.join("memory.kmem.usage_in_bytes")).ok(),
                ..MemorySplit::default()
            },
            Version::V2 => MemorySplit {
                anonymous: need("anon")?,
                file: need("file")?,
                shared: get("shmem"),
                kernel: get("kernel"),
                slab: get("slab"),
                kernel_stack: get("kernel_stack"),
                page_tables: get("pagetables"),
                percpu: get("percpu"),
            },
        })
    }

    /// Processes and threads in the group now.
    ///
    /// # Errors
    ///
    /// Without a pids controller, with the reason.
    pub fn pids(&self) -> Result<u64, CgroupError> {
        self.number(Controller::Pids, "pids.current", "pids.current")
    }

    /// How often the kernel killed a process of the group for lack of memory.
    ///
    /// # Errors
    ///
    /// Without a memory controller, with the reason.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        let part = self.part(Controller::Memory)?;
        let file = match part.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let path = part.folder.join(file);
        files::read_key(&path, "oom_kill")?.ok_or_else(|| CgroupError::Content {
            path,
            content: "no number for oom_kill".to_owned(),
        })
    }

    /// How often the group was held back by its CPU quota.
    ///
    /// # Errors
    ///
    /// Without a cpu controller, with the reason.
    pub fn cpu_throttled(&self) -> Result<u64, CgroupError> {
        let path = self.part(Controller::Cpu)?.folder.join("cpu.stat");
        files::read_key(&path, "nr_throttled")?.ok_or_else(|| CgroupError::Content {
            path,
            content: "no number for nr_throttled".to_owned(),
        })
    }
}
