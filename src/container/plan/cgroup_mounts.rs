//! Control groups as a container sees them where the host has version 1:
//! a small filesystem with one mount for each hierarchy, as hosts have it.
//!
//! What a mount of a hierarchy shows starts at the root of the mounting
//! process's cgroup namespace (cgroup_namespaces(7)). A container without one
//! of its own is in a new one for as long as its hierarchies are mounted, so
//! that it sees its own cgroups and nothing of its neighbours; this is what
//! other runtimes reach with binds of those folders. Where the host has
//! version 2 alone there is a single mount, which is no business of this
//! module.

use std::ffi::CString;
use std::path::Path;

use nix::sched::CloneFlags;
use procfs::process::MountInfos;
use procfs::{FromRead, ProcessCGroups};

use super::options::Options;
use super::{PlanError, c_path, c_string};
use crate::sys::spawn::{Step, handle};

/// The container's own place in the host's control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// It has a cgroup namespace.
    Own,
    /// It has none, and is in one only while mounting.
    Borrowed,
    /// It has none and cannot borrow one: its user namespace could not give
    /// it back.
    Impossible,
}

impl View {
    pub(super) fn of(namespaces: CloneFlags) -> Self {
        match (
            namespaces.contains(CloneFlags::CLONE_NEWCGROUP),
            namespaces.contains(CloneFlags::CLONE_NEWUSER),
        ) {
            (true, _) => Self::Own,
            (false, false) => Self::Borrowed,
            (false, true) => Self::Impossible,
        }
    }
}

/// One hierarchy of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    /// The last part of its mount point: `cpu,cpuacct`, `systemd`.
    name: String,
    /// What mount(2) is told to get it.
    data: String,
    /// Other names under which the host has it: `cpu` and `cpuacct`.
    links: Vec<String>,
}

/// Whether this host has hierarchies of version 1.
pub(super) fn are_needed() -> bool {
    !Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The steps that mount all hierarchies below `target`, for a mount of type
/// `cgroup`.
pub(super) fn steps(
    target: &Path,
    options: &Options,
    view: View,
    field: &str,
) -> Result<Vec<Step>, PlanError> {
    if view == View::Impossible {
        return Err(PlanError::Missing {
            field: "linux.namespaces[cgroup]",
            reason: "in a user namespace a mount of control groups needs a cgroup namespace",
        });
    }
    if !options.data.is_empty() {
        return Err(PlanError::Value {
            field: format!("{field}.options"),
            value: options.data.clone(),
            reason: "this runtime does not know this option of a cgroup mount",
        });
    }
    let read = |name: &str| {
        let path = Path::new("/proc/self").join(name);
        std::fs::read_to_string(&path).map_err(|source| PlanError::File {
            what: "the host's control groups,",
            path,
            source,
        })
    };
    let found = hierarchies(&read("mountinfo")?, &read("cgroup")?);
    mounts(target, options.flags, view, &found, field)
}

fn mounts(
    target: &Path,
    flags: u64,
    view: View,
    found: &[Hierarchy],
    field: &str,
) -> Result<Vec<Step>, PlanError> {
    let usual = nix::libc::MS_NOSUID | nix::libc::MS_NODEV | nix::libc::MS_NOEXEC;
    let mount = |kind: &str, place: CString, flags: u64, data: &str| {
        let (kind, data) = (c_string(field, kind)?, c_string(field, data)?);
        Ok::<Step, PlanError>(Step::Mount {
            source: kind.clone(),
            kind,
            target: place,
            flags,
            data,
        })
    };
    let mut steps = vec![mount("tmpfs", c_path(field, target)?, usual, "mode=755")?];
    if view == View::Borrowed {
        steps.push(Step::Unshare(CloneFlags::CLONE_NEWCGROUP));
    }
    for hierarchy in found {
        let place = c_path(field, &target.join(&hierarchy.name))?;
        steps.push(Step::MakeDirectory { path: place.clone(), mode: 0o755 });
        steps.push(mount("cgroup", place, usual | flags, &hierarchy.data)?);
        for link in &hierarchy.links {
            let path = c_path(field, &target.join(link))?;
            steps.push(Step::Symlink { target: c_string(field, &hierarchy.name)?, path });
        }
    }
    if view == View::Borrowed {
        let kind = CloneFlags::CLONE_NEWCGROUP;
        steps.push(Step::EnterNamespace { namespace: handle(0), kind });
    }
    Ok(steps)
}

/// The hierarchies of version 1 that are mounted. Lines that are not
/// understood are of no hierarchy that could be mounted again.
fn hierarchies(mountinfo: &str, own: &str) -> Vec<Hierarchy> {
    let mounts = MountInfos::from_read(mountinfo.as_bytes());
    let lines = ProcessCGroups::from_read(own.as_bytes());
    let (Ok(MountInfos(mounts)), Ok(ProcessCGroups(lines))) = (mounts, lines) else {
        return Vec::new();
    };
    let mut found: Vec<Hierarchy> = Vec::new();
    for mount in mounts.iter().filter(|mount| mount.fs_type == "cgroup") {
        let name = mount.mount_point.file_name().map(|name| name.to_string_lossy().into_owned());
        let fits = |controllers: &[String]| {
            !controllers.is_empty()
                && controllers.iter().all(|own| match own.split_once('=') {
                    // `name=systemd`, of a hierarchy without controllers.
                    Some((key, value)) => mount
                        .super_options
                        .get(key)
                        .is_some_and(|given| given.as_deref() == Some(value)),
                    None => mount.super_options.contains_key(own),
                })
        };
        let line = lines.iter().find(|line| line.hierarchy != 0 && fits(&line.controllers));
        let (Some(name), Some(line)) = (name, line) else { continue };
        if found.iter().any(|known| known.name == name) {
            continue;
        }
        let controllers = line.controllers.join(",");
        // The same options as the host's, of which the kernel would say that
        // they do not match.
        let xattr = if mount.super_options.contains_key("xattr") { ",xattr" } else { "" };
        let none = if controllers.starts_with("name=") { "none," } else { "" };
        let links = match line.controllers.as_slice() {
            [_] => Vec::new(),
            several => several.iter().filter(|own| **own != name).cloned().collect(),
        };
        found.push(Hierarchy { name, data: format!("{none}{controllers}{xattr}"), links });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
30 20 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
";
    const OWN: &str = "4:memory:/a\n3:cpu,cpuacct:/a\n1:name=systemd:/a\n0::/a\n";

    #[test]
    fn hierarchies_are_found_with_their_names_and_links() {
        let own = |name: &str, data: &str, links: &[&str]| Hierarchy {
            name: name.to_owned(),
            data: data.to_owned(),
            links: links.iter().map(|link| (*link).to_owned()).collect(),
        };
        assert_eq!(
            hierarchies(MOUNTS, OWN),
            [
                own("systemd", "none,name=systemd,xattr", &[]),
                own("cpu,cpuacct", "cpu,cpuacct", &["cpu", "cpuacct"]),
                own("memory", "memory", &[]),
            ]
        );
        assert_eq!(hierarchies("", ""), []);
    }

    #[test]
    fn they_are_mounted_below_a_small_filesystem_in_a_namespace() {
        let steps = |view| {
            let found = hierarchies(MOUNTS, OWN);
            let target = Path::new("/sys/fs/cgroup");
            let steps = mounts(target, nix::libc::MS_RDONLY, view, &found, "mounts[0]");
            steps.expect("planned").iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let own = steps(View::Own);
        assert_eq!(
            own,
            [
                "mount tmpfs at /sys/fs/cgroup with `mode=755`",
                "make the directory /sys/fs/cgroup/systemd",
                "mount cgroup at /sys/fs/cgroup/systemd with `none,name=systemd,xattr`",
                "make the directory /sys/fs/cgroup/cpu,cpuacct",
                "mount cgroup at /sys/fs/cgroup/cpu,cpuacct with `cpu,cpuacct`",
                "make the link /sys/fs/cgroup/cpu",
                "make the link /sys/fs/cgroup/cpuacct",
                "make the directory /sys/fs/cgroup/memory",
                "mount cgroup at /sys/fs/cgroup/memory with `memory`",
            ]
        );
        let borrowed = steps(View::Borrowed);
        assert_eq!(borrowed.len(), own.len() + 2);
        assert_eq!(borrowed[2..=own.len()], own[1..]);
        assert!(borrowed[1].contains("CLONE_NEWCGROUP"));
    }

    #[test]
    fn a_user_namespace_needs_a_cgroup_namespace() {
        assert_eq!(View::of(CloneFlags::CLONE_NEWUSER), View::Impossible);
        assert_eq!(View::of(CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWUSER), View::Own);
        assert_eq!(View::of(CloneFlags::CLONE_NEWPID), View::Borrowed);
        let options = Options::parse(&[], "mounts[0]").expect("none");
        let error = steps(Path::new("/x"), &options, View::Impossible, "mounts[0]");
        let error = error.expect_err("refused").to_string();
        assert!(error.starts_with("`linux.namespaces[cgroup]` is missing"), "{error}");
    }
}
