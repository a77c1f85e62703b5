//! The mounts of a container, divided into those that all of its instances
//! can share and those that each needs for itself.
//!
//! Shared are binds, and temporary filesystems that nobody can write to: they
//! are mounted once, before the first instance. `proc`, `sysfs`, `mqueue`,
//! `devpts` and the like show the namespaces of who mounts them, and a
//! writable `tmpfs` must be empty, so those are mounted by each instance.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Mount;

use super::options::{Options, READ_ONLY};
use super::{PlanError, c_path, c_string};
use crate::sys::spawn::{MountAttributes, Slot, Step};

/// The device nodes of every container, and `/dev/fd` and its like: the
/// OCI runtime specification's "Default Devices" and "Dev symbolic links".
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Filesystem types that this runtime mounts.
const KINDS: [&str; 5] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue"];

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Planned {
    destination: PathBuf,
    /// Opened before the root changes.
    open: Vec<Step>,
    /// Makes the mount point; without effect when it exists.
    point: Vec<Step>,
    attach: Vec<Step>,
    /// Makes it read-only once all mount points in it exist.
    seal: Option<Step>,
    shared: bool,
    /// Whether the mount point is in what is shared, not in what an instance
    /// mounts for itself.
    point_is_shared: bool,
}

/// All mounts in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mounts {
    list: Vec<Planned>,
    seal_root: Option<Step>,
    own_devices: bool,
    slots: usize,
}

/// Reads mounts one after the other.
struct Reader<'a> {
    rootfs: &'a Path,
    bundle: &'a Path,
    next_slot: usize,
    list: Vec<Planned>,
    own_devices: bool,
}

impl Mounts {
    /// Plans the mounts of a spec.
    pub(super) fn plan(
        mounts: &[Mount],
        rootfs: &Path,
        bundle: &Path,
        readonly: bool,
    ) -> Result<Self, PlanError> {
        // Slot 0 is the root.
        let mut reader =
            Reader { rootfs, bundle, next_slot: 1, list: Vec::new(), own_devices: false };
        for (index, mount) in mounts.iter().enumerate() {
            reader.read(mount, &format!("mounts[{index}]"))?;
        }
        let seal_root = readonly.then(|| seal(c"/".into()));
        let Reader { list, own_devices, next_slot: slots, .. } = reader;
        Ok(Self { list, seal_root, own_devices, slots })
    }

    /// The first slot that no mount uses.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Whether `/dev/null` is this runtime's own.
    pub(super) fn has_own_devices(&self) -> bool {
        self.own_devices
    }

    /// Whether instances cannot write to the root.
    pub(super) fn root_is_sealed(&self) -> bool {
        self.seal_root.is_some()
    }

    pub(super) fn open_static(&self) -> Vec<Step> {
        self.collect(true, |mount| &mount.open)
    }

    pub(super) fn open_instance(&self) -> Vec<Step> {
        self.collect(false, |mount| &mount.open)
    }

    /// Mounts what is shared, makes all mount points in it, then seals it.
    pub(super) fn attach_static(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for mount in &self.list {
            if mount.shared {
                steps.extend_from_slice(&mount.point);
                steps.extend_from_slice(&mount.attach);
            }
        }
        for mount in self.list.iter().filter(|mount| !mount.shared && mount.point_is_shared) {
            steps.extend_from_slice(&mount.point);
        }
        let seals = self.list.iter().filter(|mount| mount.shared);
        steps.extend(seals.filter_map(|mount| mount.seal.clone()));
        steps.extend(self.seal_root.clone());
        steps
    }

    /// Mounts what each instance has for itself.
    pub(super) fn attach_instance(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for mount in self.list.iter().filter(|mount| !mount.shared) {
            if !mount.point_is_shared {
                steps.extend_from_slice(&mount.point);
            }
            steps.extend_from_slice(&mount.attach);
        }
        let seals = self.list.iter().filter(|mount| !mount.shared);
        steps.extend(seals.filter_map(|mount| mount.seal.clone()));
        steps
    }

    fn collect(&self, shared: bool, part: fn(&Planned) -> &Vec<Step>) -> Vec<Step> {
        self.list.iter().filter(|mount| mount.shared == shared).flat_map(part).cloned().collect()
    }
}

impl Reader<'_> {
    /// Reads one mount of the spec.
    fn read(&mut self, mount: &Mount, field: &str) -> Result<(), PlanError> {
        let destination = destination(mount.destination(), field)?;
        let options = Options::parse(mount.options().as_deref().unwrap_or_default(), field)?;
        let kind = mount.typ().as_deref().unwrap_or("none");
        let planned = match options.bind {
            Some(recursive) => self.bind(mount, &destination, &options, recursive, field)?,
            None if kind == "bind" => self.bind(mount, &destination, &options, true, field)?,
            None => self.filesystem(mount, kind, &destination, &options, field)?,
        };
        self.list.push(planned);
        Ok(())
    }

    /// A folder or file of the host.
    fn bind(
        &mut self,
        mount: &Mount,
        destination: &Path,
        options: &Options,
        recursive: bool,
        field: &str,
    ) -> Result<Planned, PlanError> {
        if !options.data.is_empty() {
            return Err(PlanError::Value {
                field: format!("{field}.options"),
                value: options.data.clone(),
                reason: "this runtime does not know this option of a bind mount",
            });
        }
        let Some(source) = mount.source() else {
            return Err(PlanError::Value {
                field: format!("{field}.source"),
                value: String::new(),
                reason: "a bind mount needs a source",
            });
        };
        let path = self.bundle.join(source);
        let what = "the source of a bind mount,";
        let source =
            path.canonicalize().map_err(|source| PlanError::File { what, path, source })?;
        let folder = source.is_dir();
        let slot = self.slot();
        let attributes =
            MountAttributes { propagation: nix::libc::MS_PRIVATE, ..options.attributes };
        let open = vec![
            Step::OpenTree { path: c_path(field, &source)?, recursive, slot },
            Step::SetTree { slot, recursive, attributes },
        ];
        Ok(Planned {
            destination: destination.to_owned(),
            open,
            point: self.point(destination, folder)?,
            attach: vec![Step::AttachTree { slot, target: c_path(field, destination)? }],
            seal: None,
            shared: self.may_share(destination),
            point_is_shared: self.point_is_shared(destination),
        })
    }

    /// A new filesystem.
    fn filesystem(
        &mut self,
        mount: &Mount,
        kind: &str,
        destination: &Path,
        options: &Options,
        field: &str,
    ) -> Result<Planned, PlanError> {
        let kind = mountable(kind, field)?;
        let temporary = kind == "tmpfs";
        let point = self.point(destination, true)?;
        let source = mount.source().as_deref().unwrap_or(Path::new(kind));
        let target = c_path(field, destination)?;
        // What is sealed later must first be filled.
        let flags = if temporary { options.flags & !nix::libc::MS_RDONLY } else { options.flags };
        let mut open = Vec::new();
        let mut attach = vec![Step::Mount {
            kind: c_string(field, kind)?,
            source: c_path(field, source)?,
            target: target.clone(),
            flags,
            data: c_string(field, &options.data)?,
        }];
        if temporary && destination == Path::new("/dev") {
            self.fill_devices(&mut open, &mut attach)?;
        }
        if kind == "devpts" && destination == Path::new("/dev/pts") {
            let target = c"pts/ptmx".into();
            attach.push(Step::Symlink { target, path: c"/dev/ptmx".into() });
        }
        Ok(Planned {
            destination: destination.to_owned(),
            open,
            point,
            attach,
            seal: (temporary && options.read_only()).then(|| seal(target)),
            shared: temporary && options.read_only() && self.may_share(destination),
            point_is_shared: self.point_is_shared(destination),
        })
    }

    /// Device nodes are binds of the host's: making nodes needs a privilege
    /// that user namespaces do not give.
    fn fill_devices(
        &mut self,
        open: &mut Vec<Step>,
        attach: &mut Vec<Step>,
    ) -> Result<(), PlanError> {
        for device in DEVICES {
            let slot = self.slot();
            let path = c_string("/dev", &format!("/dev/{device}"))?;
            open.push(Step::OpenTree { path: path.clone(), recursive: false, slot });
            attach.push(Step::MakeFile { path: path.clone() });
            attach.push(Step::AttachTree { slot, target: path });
        }
        for (name, target) in LINKS {
            attach.push(Step::Symlink {
                target: c_string("/dev", target)?,
                path: c_string("/dev", &format!("/dev/{name}"))?,
            });
        }
        self.own_devices = true;
        Ok(())
    }

    fn slot(&mut self) -> Slot {
        self.next_slot += 1;
        Slot(self.next_slot - 1)
    }

    /// Whether a mount may come before those of each instance: none of these
    /// that the spec lists earlier may be above or below it.
    fn may_share(&self, destination: &Path) -> bool {
        !self.list.iter().filter(|other| !other.shared).any(|other| {
            is_below(destination, &other.destination) || is_below(&other.destination, destination)
        })
    }

    /// Whether no earlier mount of an instance's own is around this path.
    fn point_is_shared(&self, destination: &Path) -> bool {
        !self.list.iter().any(|other| !other.shared && is_below(destination, &other.destination))
    }

    /// Steps that make a mount point, where it is not known to exist.
    fn point(&self, destination: &Path, folder: bool) -> Result<Vec<Step>, PlanError> {
        let above = self.list.iter().map(|other| other.destination.as_path());
        let within = above
            .filter(|other| is_below(destination, other))
            .max_by_key(|other| other.components().count());
        let known = |path: &Path| match within {
            // In the image; `..` and links in it were not looked at, which is
            // why the steps run inside the new root.
            None => {
                self.rootfs.join(path.strip_prefix("/").unwrap_or(path)).symlink_metadata().is_ok()
            }
            Some(mount) => !is_below(path, mount) || path == mount,
        };
        let mut ancestors: Vec<&Path> = destination.ancestors().collect();
        ancestors.reverse();
        ancestors
            .into_iter()
            .filter(|path| !known(path))
            .map(|path| {
                let name = c_path("mounts", path)?;
                Ok(if folder || path != destination {
                    Step::MakeDirectory { path: name, mode: 0o755 }
                } else {
                    Step::MakeFile { path: name }
                })
            })
            .collect()
    }
}

/// A type that this runtime mounts, under the kernel's name.
fn mountable<'a>(kind: &'a str, field: &str) -> Result<&'a str, PlanError> {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    match kind {
        "cgroup" | "cgroup2" if unified => Ok("cgroup2"),
        "cgroup" | "cgroup2" => Err(PlanError::Value {
            field: format!("{field}.type"),
            value: kind.to_owned(),
            reason: "this runtime mounts control groups only where the host has version 2 alone",
        }),
        known if KINDS.contains(&known) => Ok(known),
        other => Err(PlanError::Value {
            field: format!("{field}.type"),
            value: other.to_owned(),
            reason: "this runtime mounts proc, sysfs, tmpfs, devpts, mqueue, cgroup and binds",
        }),
    }
}

/// An absolute path that goes only down.
fn destination(path: &Path, field: &str) -> Result<PathBuf, PlanError> {
    let down =
        path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !down || path.parent().is_none() {
        return Err(PlanError::Value {
            field: format!("{field}.destination"),
            value: path.display().to_string(),
            reason: "it must be an absolute path below / without `..`",
        });
    }
    // Without double slashes and such.
    Ok(path.components().collect())
}

/// Whether a path is this one or below it.
fn is_below(path: &Path, other: &Path) -> bool {
    path.starts_with(other)
}

/// Makes one mount read-only.
fn seal(path: std::ffi::CString) -> Step {
    let attributes = MountAttributes { set: READ_ONLY, ..MountAttributes::default() };
    Step::SetMount { path, recursive: false, attributes }
}
