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

use std::path::Path;

use nix::sched::CloneFlags;
use procfs::process::MountInfos;
use procfs::{FromRead, ProcessCGroups};

use super::mounts::{Planned, Reader, flow, seal};
use super::namespaces::Namespaces;
use super::options::{Options, READ_ONLY};
use super::{PlanError, c_path, c_string};
use crate::sys::spawn::{Links, Node, Place, Slot, Step, handle};

/// `MOUNT_ATTR_NOSUID`, `MOUNT_ATTR_NODEV` and `MOUNT_ATTR_NOEXEC` of
/// mount_setattr(2), which every mount of control groups has.
const USUAL: u64 = 0x2 | 0x4 | 0x8;

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
    pub(super) fn of(namespaces: &Namespaces) -> Self {
        let has = |kind: CloneFlags| namespaces.new.contains(kind) || namespaces.joins(kind);
        match (has(CloneFlags::CLONE_NEWCGROUP), has(CloneFlags::CLONE_NEWUSER)) {
            (true, _) => Self::Own,
            (false, false) => Self::Borrowed,
            (false, true) => Self::Impossible,
        }
    }
}

/// Whether a step ends [`View::Borrowed`].
pub(super) fn gives_back(step: &Step) -> bool {
    matches!(step, Step::EnterNamespace { kind: CloneFlags::CLONE_NEWCGROUP, .. })
}

/// Whether a step makes a filesystem of control groups.
pub(super) fn shows(step: &Step) -> bool {
    matches!(step, Step::Filesystem { kind, .. } if matches!(kind.to_bytes(), b"cgroup" | b"cgroup2"))
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

impl Reader<'_> {
    /// All of the host's hierarchies below a folder, for a mount of type
    /// `cgroup`.
    pub(super) fn hierarchies(
        &mut self,
        target: &Path,
        options: &Options,
        field: &str,
    ) -> Result<Planned, PlanError> {
        if self.view == View::Impossible {
            return Err(PlanError::Missing {
                field: "linux.namespaces[cgroup]",
                reason: "in a user namespace a mount of control groups needs a cgroup namespace",
            });
        }
        if let Some(word) =
            options.data.first().map(String::as_str).or(options.whole.first().copied())
        {
            return Err(PlanError::Value {
                field: format!("{field}.options"),
                value: word.to_owned(),
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
        self.mount_hierarchies(target, options, &found, field)
    }

    fn mount_hierarchies(
        &mut self,
        target: &Path,
        options: &Options,
        found: &[Hierarchy],
        field: &str,
    ) -> Result<Planned, PlanError> {
        let top = self.slot();
        let make = |kind: &str, data: &str, attributes: u64, place: &Path, slot: Slot| {
            let words = data.split(',').map(str::to_owned).collect();
            let data = Options { data: words, ..Options::default() };
            let options = data.parameters(field, c_string(field, kind)?, false)?;
            let (kind, target) = (c_string(field, kind)?, c_path(field, place)?);
            Ok::<Step, PlanError>(Step::Filesystem { kind, options, attributes, slot, target })
        };
        let beneath = |name: &str| {
            let path = c_path(field, &target.join(name))?;
            Ok::<Place, PlanError>(Place::beneath(path, top, target.as_os_str().len() + 1))
        };
        let bits = USUAL | options.bits();
        // What is sealed later must first be filled.
        let mut open = vec![make("tmpfs", "mode=755", bits & !READ_ONLY, target, top)?];
        open.extend(flow(options, top));
        let mut attach = vec![self.attach(target, top, (false, true, false), field)?];
        let kind = CloneFlags::CLONE_NEWCGROUP;
        if self.view == View::Borrowed {
            open.push(Step::Unshare(kind));
        }
        for hierarchy in found {
            let slot = self.slot();
            let place = target.join(&hierarchy.name);
            open.push(make("cgroup", &hierarchy.data, bits, &place, slot)?);
            let place = beneath(&hierarchy.name)?;
            attach.push(Step::Make { place: place.clone(), node: Node::Directory(0o755) });
            attach.push(Step::Attach { slot, place, links: Links::Refuse, folder: true });
            for link in &hierarchy.links {
                let node = Node::Symlink(c_string(field, &hierarchy.name)?);
                attach.push(Step::Make { place: beneath(link)?, node });
            }
        }
        if self.view == View::Borrowed {
            open.push(Step::EnterNamespace { namespace: handle(0), kind });
        }
        Ok(Planned {
            destination: target.to_owned(),
            open,
            point: self.point(target, true)?,
            attach,
            seal: options.read_only().then(|| c_path(field, target).map(seal)).transpose()?,
            shared: false,
            point_is_shared: self.point_is_shared(target),
            anchor: Some(top),
            receives: false,
        })
    }
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

    fn reader(view: View) -> Reader<'static> {
        Reader::new(Path::new("/"), Path::new("/"), view)
    }

    fn words(steps: &[Step]) -> Vec<String> {
        steps.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn they_are_mounted_below_a_small_filesystem_in_a_namespace() {
        let planned = |view| {
            let options = Options::parse(&["ro".to_owned()], "mounts[0]").expect("known");
            let target = Path::new("/sys/fs/cgroup");
            let found = hierarchies(MOUNTS, OWN);
            reader(view).mount_hierarchies(target, &options, &found, "mounts[0]").expect("planned")
        };
        let own = planned(View::Own);
        assert_eq!(
            words(&own.open),
            [
                "make the tmpfs for /sys/fs/cgroup with `source=tmpfs,mode=755`",
                "make the cgroup for /sys/fs/cgroup/systemd with \
                 `source=cgroup,none,name=systemd,xattr`",
                "make the cgroup for /sys/fs/cgroup/cpu,cpuacct with `source=cgroup,cpu,cpuacct`",
                "make the cgroup for /sys/fs/cgroup/memory with `source=cgroup,memory`",
            ]
        );
        assert_eq!(
            words(&own.attach),
            [
                "mount at /sys/fs/cgroup",
                "make the directory /sys/fs/cgroup/systemd",
                "mount at /sys/fs/cgroup/systemd",
                "make the directory /sys/fs/cgroup/cpu,cpuacct",
                "mount at /sys/fs/cgroup/cpu,cpuacct",
                "make the link /sys/fs/cgroup/cpu",
                "make the link /sys/fs/cgroup/cpuacct",
                "make the directory /sys/fs/cgroup/memory",
                "mount at /sys/fs/cgroup/memory",
            ]
        );
        let attributes = |step: &Step| match step {
            Step::Filesystem { attributes, .. } => *attributes,
            _ => 0,
        };
        // The small filesystem is filled before it is sealed.
        let bits: Vec<u64> = own.open.iter().map(attributes).collect();
        assert_eq!(bits, [USUAL, USUAL | READ_ONLY, USUAL | READ_ONLY, USUAL | READ_ONLY]);
        assert!(own.seal.is_some() && !own.open.iter().any(gives_back));
        assert!(own.open.iter().any(shows));
        let borrowed = planned(View::Borrowed);
        assert_eq!(borrowed.attach, own.attach);
        let between = borrowed.open.len() - 1;
        assert_eq!(borrowed.open[1], Step::Unshare(CloneFlags::CLONE_NEWCGROUP));
        assert_eq!(borrowed.open[2..between], own.open[1..]);
        assert!(gives_back(&borrowed.open[between]));
    }

    #[test]
    fn a_user_namespace_needs_a_cgroup_namespace() {
        let view = |new| View::of(&Namespaces { new, joined: Vec::new() });
        assert_eq!(view(CloneFlags::CLONE_NEWUSER), View::Impossible);
        assert_eq!(view(CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWUSER), View::Own);
        assert_eq!(view(CloneFlags::CLONE_NEWPID), View::Borrowed);
        let options = Options::default();
        let error = reader(View::Impossible).hierarchies(Path::new("/x"), &options, "mounts[0]");
        let error = error.expect_err("refused").to_string();
        assert!(error.starts_with("`linux.namespaces[cgroup]` is missing"), "{error}");
    }
}
