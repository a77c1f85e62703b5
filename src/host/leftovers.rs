//! Counters of what the kernel takes away later than it says so: control
//! groups that are removed and still held by what they were charged for.

use std::path::{Path, PathBuf};

use super::cgroups::CgroupLayout;
use super::source::Root;

/// Reads the counters, again and again.
#[derive(Clone, Debug)]
pub struct LeftoverCounters {
    root: PathBuf,
    /// `cgroup.stat` of the hierarchy of version 2.
    stat: Result<PathBuf, String>,
}

/// The counters at one moment, of the whole host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftovers {
    /// Groups that are removed and not yet freed, in the hierarchy of version
    /// 2 (`nr_dying_descendants`, Documentation/admin-guide/cgroup-v2.rst).
    pub dying: Result<u64, String>,
    /// Groups of the memory controller, dying ones included: the kernel takes
    /// one from `num_cgroups` in `/proc/cgroups` only when it frees it
    /// (`css_free_rwork_fn` in kernel/cgroup/cgroup.c).
    pub memory_groups: Result<u64, String>,
}

impl LeftoverCounters {
    /// The counters below `root`. The layout is looked up once: it does not
    /// change while we run.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let mount = CgroupLayout::read(root).and_then(|layout| {
            layout.v2_mount.ok_or_else(|| "no hierarchy of version 2 is mounted".to_owned())
        });
        Self { root: root.to_owned(), stat: mount.map(|mount| mount.join("cgroup.stat")) }
    }

    /// The counters now.
    #[must_use]
    pub fn read(&self) -> Leftovers {
        let root = Root(&self.root);
        let dying = self.stat.as_ref().map_err(Clone::clone).and_then(|path| {
            let text = root.text(path)?;
            let count = text.lines().find_map(|line| line.strip_prefix("nr_dying_descendants "));
            let count = count.and_then(|count| count.parse().ok());
            count.ok_or_else(|| "this kernel does not tell".to_owned())
        });
        Leftovers { dying, memory_groups: memory_groups(root) }
    }
}

impl Leftovers {
    /// How many groups there are beyond those of `before`, by the counter
    /// that shows most. One that either side lacks shows none.
    #[must_use]
    pub fn beyond(&self, before: &Self) -> u64 {
        let more = |now: &Result<u64, String>, then: &Result<u64, String>| match (now, then) {
            (Ok(now), Ok(then)) => now.saturating_sub(*then),
            _ => 0,
        };
        more(&self.dying, &before.dying).max(more(&self.memory_groups, &before.memory_groups))
    }
}

fn memory_groups(root: Root<'_>) -> Result<u64, String> {
    let text = root.text("proc/cgroups")?;
    // Name, hierarchy, groups, enabled.
    let line = text.lines().find_map(|line| line.strip_prefix("memory\t"));
    let count = line.and_then(|line| line.split('\t').nth(1)?.parse().ok());
    count.ok_or_else(|| "/proc/cgroups has no memory controller".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_and_compared() {
        let root = tempfile::tempdir().expect("folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folders");
            std::fs::write(path, text).expect("written");
        };
        let mounts = "28 22 0:24 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        write("proc/self/mountinfo", mounts);
        write("sys/fs/cgroup/cgroup.controllers", "memory pids\n");
        write("sys/fs/cgroup/cgroup.stat", "nr_descendants 5\nnr_dying_descendants 2\n");
        let names =
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t9\t1\nmemory\t0\t40\t1\n";
        write("proc/cgroups", names);
        let counters = LeftoverCounters::new(root.path());
        let before = counters.read();
        assert_eq!(before, Leftovers { dying: Ok(2), memory_groups: Ok(40) });
        assert_eq!(before.beyond(&before), 0);
        write("proc/cgroups", &names.replace("40", "43"));
        assert_eq!(counters.read().beyond(&before), 3);
        assert_eq!(before.beyond(&counters.read()), 0, "fewer than before is none");

        let nothing = LeftoverCounters::new(&root.path().join("nowhere")).read();
        assert!(nothing.dying.is_err() && nothing.memory_groups.is_err());
        assert_eq!(nothing.beyond(&before), 0);
    }
}
