//! Which controllers there are, where they are mounted, and where the caller
//! itself is. Reads only.

use std::path::{Component, Path, PathBuf};

use nix::unistd::{AccessFlags, Pid};
use procfs::FromRead;
use procfs::ProcessCGroups;
use procfs::process::MountInfos;
use serde::{Deserialize, Serialize};

use super::location::{Ground, find_ground};
use super::{CgroupError, Controller, files};

/// Where hosts mount control groups; a mount point below it is looked up
/// below the folder that the caller names instead.
const USUAL_ROOT: &str = "/sys/fs/cgroup";

/// Version of a control group hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// One hierarchy per controller or group of controllers.
    V1,
    /// The unified hierarchy.
    V2,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V1 => "version 1",
            Self::V2 => "version 2",
        })
    }
}

/// One mounted hierarchy and the caller's own place in it.
#[derive(Clone, Debug)]
pub(super) struct Mounted {
    pub(super) version: Version,
    /// Controllers: of version 1 those mounted here, of version 2 those that
    /// the caller's own cgroup was given.
    pub(super) controllers: Vec<String>,
    /// The hierarchy's top as far as it is visible.
    pub(super) top: PathBuf,
    /// The caller's own cgroup.
    pub(super) own: PathBuf,
}

impl Mounted {
    /// Whether a cgroup of this hierarchy takes processes only once it was
    /// told its CPUs and memory nodes (cpuset(7)).
    pub(super) fn needs_cpuset(&self) -> bool {
        self.version == Version::V1 && self.controllers.iter().any(|name| name == "cpuset")
    }

    /// Whether it has a controller.
    pub(super) fn has(&self, controller: Controller) -> bool {
        let name = controller.name(self.version);
        self.controllers.iter().any(|known| known == name)
    }
}

/// Whether instances can be limited by a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// They can.
    Usable {
        /// Version of the hierarchy that has it.
        version: Version,
        /// The cgroup below which those of a run will be made.
        below: PathBuf,
    },
    /// They cannot, for this reason.
    Unusable(String),
}

/// The control groups of this host as its caller sees them.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    pub(super) proc_root: PathBuf,
    pub(super) mounted: Vec<Mounted>,
    /// Every mounted hierarchy's top, used or not.
    pub(super) tops: Vec<PathBuf>,
    pub(super) caller: Pid,
}

impl Hierarchy {
    /// Finds out what there is. `proc_root` is `/proc` and `sys_fs_cgroup` is
    /// `/sys/fs/cgroup` but for tests.
    ///
    /// # Errors
    ///
    /// When `self/cgroup` or `self/mountinfo` below `proc_root` cannot be
    /// understood.
    pub fn detect(proc_root: &Path, sys_fs_cgroup: &Path) -> Result<Self, CgroupError> {
        let own: ProcessCGroups = parse(&proc_root.join("self/cgroup"), |_| true)?;
        // Hosts have many other mounts, and parsing one takes long.
        let mounts: MountInfos =
            parse(&proc_root.join("self/mountinfo"), |line| line.contains(" - cgroup"))?;
        let mut mounted: Vec<Mounted> = Vec::new();
        let mut tops = Vec::new();
        for mount in mounts.iter() {
            let version = match mount.fs_type.as_str() {
                "cgroup" => Version::V1,
                "cgroup2" => Version::V2,
                _ => continue,
            };
            let top = relocate(&mount.mount_point, sys_fs_cgroup);
            let line = own.0.iter().find(|line| match version {
                Version::V2 => line.hierarchy == 0,
                Version::V1 => {
                    line.hierarchy != 0
                        && line
                            .controllers
                            .iter()
                            .all(|name| mount.super_options.contains_key(name))
                }
            });
            tops.push(top.clone());
            let Some(line) = line else { continue };
            let Some(place) = inside(&line.pathname, &mount.root) else { continue };
            let folder = join(&top, &place);
            let controllers = match version {
                Version::V1 => line.controllers.clone(),
                Version::V2 => given(&folder)?,
            };
            if !mounted.iter().any(|known| known.controllers == controllers) {
                mounted.push(Mounted { version, controllers, top, own: folder });
            }
        }
        Ok(Self { proc_root: proc_root.to_owned(), mounted, tops, caller: Pid::this() })
    }

    /// The mounted hierarchy that has a controller; version 1 has it alone
    /// when it has it at all.
    pub(super) fn with(&self, controller: Controller) -> Result<&Mounted, String> {
        let unified = self.mounted.iter().find(|mounted| mounted.version == Version::V2);
        match (self.mounted.iter().find(|mounted| mounted.has(controller)), unified) {
            (Some(mounted), _) => Ok(mounted),
            (None, Some(unified)) if controller.is_core() => Ok(unified),
            (None, Some(unified)) => Err(format!(
                "{} was not given the {controller} controller (it has: {})",
                unified.own.display(),
                unified.controllers.join(" ")
            )),
            (None, None) => {
                Err(format!("no mounted cgroup hierarchy has it on this host ({USUAL_ROOT})"))
            }
        }
    }

    /// Whether, and where, instances can be limited by a controller.
    #[must_use]
    pub fn availability(&self, controller: Controller) -> Availability {
        match self
            .with(controller)
            .and_then(|mounted| find_ground(self, mounted).map(|ground| (mounted.version, ground)))
        {
            Ok((version, Ground { folder, .. })) => Availability::Usable { version, below: folder },
            Err(reason) => Availability::Unusable(reason),
        }
    }

    /// Remarks a reader of results should know about the layout: which
    /// controllers are on which version.
    #[must_use]
    pub fn describe(&self) -> String {
        let of = |version| {
            Controller::ALL
                .into_iter()
                .filter(|controller| {
                    self.with(*controller).is_ok_and(|mounted| mounted.version == version)
                })
                .map(Controller::as_str)
                .collect::<Vec<_>>()
                .join(" ")
        };
        match (of(Version::V1), of(Version::V2)) {
            (one, two) if one.is_empty() && two.is_empty() => "none".to_owned(),
            (one, two) if one.is_empty() => format!("v2 ({two})"),
            (one, two) if two.is_empty() => format!("v1 ({one})"),
            (one, two) => format!("hybrid: v1 ({one}), v2 ({two})"),
        }
    }
}

/// Parses one of the kernel's files.
fn parse<T: FromRead>(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<T, CgroupError> {
    let text = files::read(path)?;
    let lines: Vec<&str> = text.split_inclusive('\n').filter(|line| wanted(line)).collect();
    T::from_read(lines.concat().as_bytes())
        .map_err(|error| CgroupError::Content { path: path.to_owned(), content: error.to_string() })
}

/// Controllers that a version 2 cgroup was given.
fn given(folder: &Path) -> Result<Vec<String>, CgroupError> {
    let text = files::read(&folder.join("cgroup.controllers"))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// A mount point as the caller wants it looked up.
fn relocate(mount_point: &Path, sys_fs_cgroup: &Path) -> PathBuf {
    match mount_point.strip_prefix(USUAL_ROOT) {
        Ok(rest) => join(sys_fs_cgroup, rest),
        Err(_) => mount_point.to_owned(),
    }
}

/// Joins paths; the standard library adds a slash when the second is empty.
fn join(folder: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { folder.to_owned() } else { folder.join(rest) }
}

/// The path of a cgroup below a mount that shows the hierarchy from `root`
/// on, or nothing when it does not show the cgroup.
fn inside(pathname: &str, root: &str) -> Option<PathBuf> {
    let below = Path::new(pathname).strip_prefix(root).ok()?;
    // A cgroup outside of the caller's cgroup namespace is shown as `/../x`.
    let visible = below.components().all(|part| matches!(part, Component::Normal(_)));
    visible.then(|| below.to_owned())
}

/// Whether the caller may do this with a file, by its effective ids.
pub(super) fn may(path: &Path, flags: AccessFlags) -> Result<(), nix::errno::Errno> {
    nix::unistd::faccessat(nix::fcntl::AT_FDCWD, path, flags, nix::fcntl::AtFlags::AT_EACCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_below_what_is_mounted() {
        let found = |pathname, root| inside(pathname, root).map(|path| path.display().to_string());
        assert_eq!(found("/", "/"), Some(String::new()));
        assert_eq!(found("/user.slice/x", "/"), Some("user.slice/x".to_owned()));
        assert_eq!(found("/docker/abc/y", "/docker/abc"), Some("y".to_owned()));
        assert_eq!(found("/other", "/docker/abc"), None);
        assert_eq!(found("/../other", "/"), None);
    }

    #[test]
    fn mount_points_move_with_the_root() {
        let moved = |point: &str| relocate(Path::new(point), Path::new("/tmp/t"));
        assert_eq!(moved("/sys/fs/cgroup/memory"), Path::new("/tmp/t/memory"));
        assert_eq!(moved("/sys/fs/cgroup"), Path::new("/tmp/t"));
        assert_eq!(moved("/cg/memory"), Path::new("/cg/memory"));
    }
}
