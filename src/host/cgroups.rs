//! Which control group hierarchies this host has, and which is ours.
//!
//! Only looking: groups are made by the container module.

use std::path::{Path, PathBuf};

use procfs::process::MountInfos;

use super::source::Root;

/// Which hierarchies are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    /// Only version 1.
    V1,
    /// Only version 2.
    V2,
    /// Controllers on version 1, and a version 2 tree beside them.
    Hybrid,
    /// None.
    Absent,
}

impl CgroupVersion {
    /// The name in facts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
            Self::Absent => "none",
        }
    }
}

/// The layout of the control groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupLayout {
    /// Which versions.
    pub version: CgroupVersion,
    /// Controllers of version 1, with their mount points.
    pub v1: Vec<(String, PathBuf)>,
    /// Controllers at the root of version 2.
    pub v2: Vec<String>,
    /// Mount point of version 2.
    pub v2_mount: Option<PathBuf>,
}

impl CgroupLayout {
    /// Reads the layout from `/proc/self/mountinfo` below `root`.
    ///
    /// # Errors
    ///
    /// The reason, when it cannot be read.
    pub fn read(root: &Path) -> Result<Self, String> {
        let root = Root(root);
        let MountInfos(mounts) = root.parsed("proc/self/mountinfo")?;
        let mut v1 = Vec::new();
        let mut v2_mount = None;
        for mount in mounts {
            match mount.fs_type.as_str() {
                "cgroup2" => v2_mount = Some(mount.mount_point),
                "cgroup" => {
                    // The other options are flags such as `rw` or a name.
                    let names = mount.super_options.into_iter();
                    let names = names.filter(|(_, value)| value.is_none()).map(|(name, _)| name);
                    let controllers = names.filter(|name| CONTROLLERS.contains(&name.as_str()));
                    v1.extend(controllers.map(|name| (name, mount.mount_point.clone())));
                }
                _ => {}
            }
        }
        v1.sort_unstable();
        let version = match (v1.is_empty(), &v2_mount) {
            (true, None) => CgroupVersion::Absent,
            (true, Some(_)) => CgroupVersion::V2,
            (false, None) => CgroupVersion::V1,
            (false, Some(_)) => CgroupVersion::Hybrid,
        };
        let v2 = match &v2_mount {
            Some(mount) => words(&root.text(mount.join("cgroup.controllers"))?),
            None => Vec::new(),
        };
        Ok(Self { version, v1, v2, v2_mount })
    }

    /// Whether a controller can be used at all on this host.
    #[must_use]
    pub fn has(&self, controller: &str) -> bool {
        self.v1.iter().any(|(name, _)| name == controller)
            || self.v2.iter().any(|name| name == controller)
    }

    /// Our own group of a controller, and the mount point that ends the way
    /// up from it; `true` when it is of version 2.
    pub(super) fn own(&self, root: Root<'_>, controller: &str) -> Option<(PathBuf, PathBuf, bool)> {
        let memberships = root.text("proc/self/cgroup").ok()?;
        let (mount, is_v2) = match self.v1.iter().find(|(name, _)| name == controller) {
            Some((_, mount)) => (mount, false),
            None => (self.v2_mount.as_ref()?, true),
        };
        let path = memberships.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let mine = match is_v2 {
                true => controllers.is_empty(),
                false => controllers.split(',').any(|name| name == controller),
            };
            mine.then_some(path)
        })?;
        Some((mount.join(path.trim_start_matches('/')), mount.clone(), is_v2))
    }
}

/// Controllers of Linux, for telling them from other mount options.
const CONTROLLERS: [&str; 13] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
];

pub(super) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
