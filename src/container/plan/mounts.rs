//! The mounts of a container, divided into those that all of its instances
//! can share and those that each needs for itself.
//!
//! Shared are binds, and temporary filesystems that nobody can write to: they
//! are mounted once, before the first instance. `proc`, `sysfs`, `mqueue`,
//! `devpts` and the like show the namespaces of who mounts them, and a
//! writable `tmpfs` must be empty, so those are mounted by each instance.
//!
//! Whatever is mounted is made detached while the host's files are in sight,
//! and attached when they are not: no link of an image can then lead to them.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Mount;

use super::cgroup_mounts::{self, View};
use super::devices::Device;
use super::options::{Options, READ_ONLY};
use super::{PlanError, c_path};
use crate::sys::spawn::{MountAttributes, Place, Slot, Step};

mod reader;

pub(super) use reader::Reader;

/// One mount, or something that is made like a mount point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) destination: PathBuf,
    /// Made or opened before the root changes.
    pub(super) open: Vec<Step>,
    /// Makes the mount point; without effect when it exists.
    pub(super) point: Vec<Step>,
    pub(super) attach: Vec<Step>,
    /// Makes it read-only once all mount points in it exist.
    pub(super) seal: Option<Step>,
    pub(super) shared: bool,
    /// Whether the mount point is in what is shared, not in what an instance
    /// mounts for itself.
    pub(super) point_is_shared: bool,
    /// The mounted tree, where paths in it may be looked up beneath it: no
    /// link of the image is in it, and no name above it is needed.
    pub(super) anchor: Option<Slot>,
    /// Whether it receives what the host mounts later.
    pub(super) receives: bool,
}

/// All mounts in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mounts {
    list: Vec<Planned>,
    seal_root: Option<Step>,
    slots: usize,
}

/// What of a spec has to do with mounts.
pub(super) struct Request<'a> {
    pub(super) mounts: &'a [Mount],
    pub(super) devices: &'a [Device],
    pub(super) rootfs: &'a Path,
    pub(super) bundle: &'a Path,
    pub(super) readonly: bool,
    /// What mounts of control groups show.
    pub(super) view: View,
    /// The directory of the process, which is made if need be.
    pub(super) cwd: &'a Path,
    /// Whether something will be bound at `/dev/console`.
    pub(super) console: bool,
}

impl Mounts {
    /// Plans the mounts of a spec.
    pub(super) fn plan(request: &Request<'_>) -> Result<Self, PlanError> {
        let Request { mounts, devices, rootfs, bundle, readonly, view, cwd, console } = *request;
        let mut reader = Reader { console, devices, ..Reader::new(rootfs, bundle, view) };
        for (index, mount) in mounts.iter().enumerate() {
            reader.read(mount, &format!("mounts[{index}]"))?;
        }
        reader.add_devices()?;
        if cwd != Path::new("/") {
            let cwd = destination(cwd, "process.cwd")?;
            let point = reader.point(&cwd, true)?;
            let point_is_shared = reader.point_is_shared(&cwd);
            let folder = Planned { destination: cwd, point, point_is_shared, ..Planned::default() };
            reader.list.push(folder);
        }
        let seal_root = readonly.then(|| seal(c"/".into()));
        Ok(Self { list: reader.list, seal_root, slots: reader.next_slot })
    }

    /// The slot of the null device, with which files are hidden.
    pub(super) fn null_slot(&self) -> Slot {
        Slot(self.slots)
    }

    /// The first slot that nothing here uses.
    pub(super) fn slots(&self) -> usize {
        self.slots + 1
    }

    /// Whether a mount receives what the host mounts later.
    pub(super) fn receive(&self) -> bool {
        self.list.iter().any(|mount| mount.receives)
    }

    /// See [`View::Borrowed`].
    pub(super) fn borrow_cgroup_namespace(&self) -> bool {
        self.list.iter().flat_map(|mount| &mount.open).any(cgroup_mounts::gives_back)
    }

    /// Whether a mount shows control groups, and so the cgroup namespace that
    /// its maker is in.
    pub(super) fn show_cgroups(&self) -> bool {
        self.list.iter().flat_map(|mount| &mount.open).any(cgroup_mounts::shows)
    }

    /// A path as an instance looks it up.
    pub(super) fn place(&self, field: &str, path: &Path) -> Result<Place, PlanError> {
        place(&self.list, &destination(path, field)?, field, false)
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
        let mut steps = self.attach_shared();
        steps.extend(self.seals(true));
        steps
    }

    /// Mounts what each instance has for itself.
    pub(super) fn attach_instance(&self) -> Vec<Step> {
        let mut steps = self.attach_own();
        steps.extend(self.seals(false));
        steps
    }

    /// Mounts everything, all of it still as writable as it is.
    pub(super) fn attach_unsealed(&self) -> Vec<Step> {
        let mut steps = self.attach_shared();
        steps.extend(self.attach_own());
        steps
    }

    /// What is read-only only when it is filled; the root with what is shared.
    pub(super) fn seals(&self, shared: bool) -> Vec<Step> {
        let of_mounts = self.list.iter().filter(|mount| mount.shared == shared);
        let root = self.seal_root.iter().filter(|_| shared);
        of_mounts.filter_map(|mount| mount.seal.as_ref()).chain(root).cloned().collect()
    }

    fn attach_shared(&self) -> Vec<Step> {
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
        steps
    }

    fn attach_own(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for mount in self.list.iter().filter(|mount| !mount.shared) {
            if !mount.point_is_shared {
                steps.extend_from_slice(&mount.point);
            }
            steps.extend_from_slice(&mount.attach);
        }
        steps
    }

    fn collect(&self, shared: bool, part: fn(&Planned) -> &Vec<Step>) -> Vec<Step> {
        self.list.iter().filter(|mount| mount.shared == shared).flat_map(part).cloned().collect()
    }
}

/// The last mount around a path; with `at`, one at the path itself counts.
fn around<'a>(list: &'a [Planned], path: &Path, at: bool) -> Option<&'a Planned> {
    list.iter()
        .filter(|mount| !mount.attach.is_empty() && !mount.open.is_empty())
        .filter(|mount| path.starts_with(&mount.destination))
        .filter(|mount| at || path != mount.destination)
        .max_by_key(|mount| mount.destination.components().count())
}

/// A path as it is looked up while what is shared is mounted, or later.
fn place(list: &[Planned], path: &Path, field: &str, shared: bool) -> Result<Place, PlanError> {
    let whole = c_path(field, path)?;
    let anchor = around(list, path, false)
        .filter(|mount| mount.shared == shared)
        .and_then(|mount| Some((mount.anchor?, mount.destination.as_os_str().len() + 1)));
    Ok(match anchor {
        Some((slot, skip)) => Place::beneath(whole, slot, skip),
        None => Place::root(whole),
    })
}

/// Who sees later mounts in a new filesystem, if its options say.
pub(super) fn flow(options: &Options, slot: Slot) -> Option<Step> {
    let (propagation, _) = options.propagation?;
    let attributes = MountAttributes { propagation, ..MountAttributes::default() };
    Some(Step::SetTree { slot, recursive: false, attributes })
}

/// An absolute path that goes only down.
pub(super) fn destination(path: &Path, field: &str) -> Result<PathBuf, PlanError> {
    let down =
        path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !down || path.parent().is_none() {
        return Err(PlanError::Value {
            field: if field.starts_with("mounts") {
                format!("{field}.destination")
            } else {
                field.to_owned()
            },
            value: path.display().to_string(),
            reason: "it must be an absolute path below / without `..`",
        });
    }
    // Without double slashes and such.
    Ok(path.components().collect())
}

/// Makes one mount read-only.
pub(super) fn seal(path: std::ffi::CString) -> Step {
    let attributes = MountAttributes { set: READ_ONLY, ..MountAttributes::default() };
    Step::SetMount { path, recursive: false, attributes }
}
