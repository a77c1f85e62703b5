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

use nix::libc;
use oci_spec::runtime::Mount;

use super::cgroup_mounts::{self, View};
use super::devices::Device;
use super::options::{Options, READ_ONLY};
use super::{PlanError, c_path, c_string};
use crate::container::cgroup::is_unified;
use crate::sys::spawn::{Links, MountAttributes, Node, Place, Slot, Step};

/// Filesystem types that this runtime mounts.
const KINDS: [&str; 6] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "overlay"];

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

/// Reads mounts one after the other.
pub(super) struct Reader<'a> {
    rootfs: &'a Path,
    bundle: &'a Path,
    next_slot: usize,
    /// What mounts of control groups show.
    pub(super) view: View,
    /// Whether something will be bound at `/dev/console`.
    pub(super) console: bool,
    /// Devices of the spec beside those that every container has.
    pub(super) devices: &'a [Device],
    pub(super) list: Vec<Planned>,
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

impl<'a> Reader<'a> {
    /// One that has read nothing yet. Slot 0 is the root.
    pub(super) fn new(rootfs: &'a Path, bundle: &'a Path, view: View) -> Self {
        let (devices, list) = (&[] as &[Device], Vec::new());
        Self { rootfs, bundle, next_slot: 1, view, console: false, devices, list }
    }

    /// Reads one mount of the spec.
    fn read(&mut self, mount: &Mount, field: &str) -> Result<(), PlanError> {
        let destination = destination(mount.destination(), field)?;
        let options = Options::parse(mount.options().as_deref().unwrap_or_default(), field)?;
        let kind = mount.typ().as_deref().unwrap_or("none");
        let planned = match options.bind {
            Some(recursive) => self.bind(mount, &destination, &options, recursive, field)?,
            None if kind == "bind" => self.bind(mount, &destination, &options, true, field)?,
            None if kind == "cgroup" && !is_unified() => {
                self.hierarchies(&destination, &options, field)?
            }
            None if kind == "cgroup" && !is_unified() => {
                self.hierarchies(&destination, &options, field)?
            }
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
        let unknown = options.data.first().map(String::as_str);
        if let Some(word) = unknown.or(options.whole.first().copied()) {
            return Err(PlanError::Value {
                field: format!("{field}.options"),
                value: word.to_owned(),
                reason: "a bind mount has no such option",
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
        let mut open = vec![Step::OpenTree { path: c_path(field, &source)?, recursive, slot }];
        open.extend(changes(options, recursive, slot));
        let shared = self.may_share(destination);
        // What must be what it seems to be.
        let special = is_kernels(destination);
        Ok(Planned {
            destination: destination.to_owned(),
            open,
            point: self.point(destination, folder)?,
            attach: vec![self.attach(destination, slot, (shared, folder, special), field)?],
            shared,
            point_is_shared: self.point_is_shared(destination),
            anchor: special.then_some(slot),
            receives: options.propagation.is_some_and(|(flow, _)| flow == libc::MS_SLAVE),
            ..Planned::default()
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
        let source = mount.source().as_deref().unwrap_or(Path::new(kind));
        let slot = self.slot();
        // What is sealed later must first be filled.
        let read_only = options.read_only() && !temporary;
        let mut open = vec![Step::Filesystem {
            kind: c_string(field, kind)?,
            options: options.parameters(field, c_path(field, source)?, read_only)?,
            attributes: if temporary { options.bits() & !READ_ONLY } else { options.bits() },
            slot,
            target: c_path(field, destination)?,
        }];
        open.extend(flow(options, slot));
        let shared = temporary && options.read_only() && self.may_share(destination);
        let special = matches!(kind, "proc" | "sysfs") || is_kernels(destination);
        let mut planned = Planned {
            destination: destination.to_owned(),
            open,
            point: self.point(destination, true)?,
            attach: vec![self.attach(destination, slot, (shared, true, special), field)?],
            seal: (temporary && options.read_only())
                .then(|| c_path(field, destination).map(seal))
                .transpose()?,
            shared,
            point_is_shared: self.point_is_shared(destination),
            anchor: Some(slot),
            receives: false,
        };
        if temporary && destination == Path::new("/dev") {
            self.fill_devices(&mut planned, slot)?;
        }
        if kind == "devpts" && destination == Path::new("/dev/pts") {
            let link = Path::new("/dev/ptmx");
            let place = place(&self.list, link, field, planned.point_is_shared)?;
            planned.point.push(Step::Make { place, node: Node::Symlink(c"pts/ptmx".into()) });
        }
        Ok(planned)
    }

    /// The step that attaches a tree: whether it is shared, a folder, and of
    /// the kernel's.
    pub(super) fn attach(
        &self,
        destination: &Path,
        slot: Slot,
        (shared, folder, special): (bool, bool, bool),
        field: &str,
    ) -> Result<Step, PlanError> {
        let place = place(&self.list, destination, field, shared)?;
        // Through a link, `/proc` would be somewhere else and what is hidden
        // in it would not be found there (the CVE-2019-19921 class).
        let links = if special { Links::Refuse } else { Links::Follow };
        Ok(Step::Attach { slot, place, links, folder })
    }

    pub(super) fn slot(&mut self) -> Slot {
        self.next_slot += 1;
        Slot(self.next_slot - 1)
    }

    /// Whether a mount may come before those of each instance: none of these
    /// that the spec lists earlier may be above or below it.
    pub(super) fn may_share(&self, destination: &Path) -> bool {
        !self.list.iter().filter(|other| !other.shared).any(|other| {
            destination.starts_with(&other.destination)
                || other.destination.starts_with(destination)
        })
    }

    /// Whether no earlier mount of an instance's own is around this path.
    pub(super) fn point_is_shared(&self, destination: &Path) -> bool {
        !self.list.iter().any(|other| !other.shared && destination.starts_with(&other.destination))
    }

    /// Steps that make a mount point, where it is not known to exist.
    pub(super) fn point(&self, destination: &Path, folder: bool) -> Result<Vec<Step>, PlanError> {
        let within = around(&self.list, destination, true).map(|mount| mount.destination.as_path());
        let known = |path: &Path| match within {
            // In the image; `..` and links in it were not looked at, which is
            // why the steps run inside the new root.
            None => {
                self.rootfs.join(path.strip_prefix("/").unwrap_or(path)).symlink_metadata().is_ok()
            }
            Some(mount) => !path.starts_with(mount) || path == mount,
        };
        let shared = self.point_is_shared(destination);
        let mut ancestors: Vec<&Path> = destination.ancestors().collect();
        ancestors.reverse();
        ancestors
            .into_iter()
            .filter(|path| !known(path))
            .map(|path| {
                let place = place(&self.list, path, "mounts", shared)?;
                let is_folder = folder || path != destination;
                let node = if is_folder { Node::Directory(0o755) } else { Node::File };
                Ok(Step::Make { place, node })
            })
            .collect()
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

/// The changes that make the copy of a tree what its options say.
fn changes(options: &Options, recursive: bool, slot: Slot) -> Vec<Step> {
    let (flow, below) = options.propagation.unwrap_or((libc::MS_PRIVATE, true));
    let mut all = options.recursive;
    all.propagation = if below { flow } else { libc::MS_PRIVATE };
    let mut top = options.attributes;
    top.propagation = if below { 0 } else { flow };
    if !recursive {
        // One mount: one call.
        let (set, clear) = (top.set, top.clear);
        all.set = all.set & !clear | set;
        all.clear = (all.clear & !set) | clear;
        all.propagation = flow;
        top = MountAttributes::default();
    }
    let mut steps = vec![Step::SetTree { slot, recursive, attributes: all }];
    if top != MountAttributes::default() {
        steps.push(Step::SetTree { slot, recursive: false, attributes: top });
    }
    steps
}

/// Who sees later mounts in a new filesystem, if its options say.
pub(super) fn flow(options: &Options, slot: Slot) -> Option<Step> {
    let (propagation, _) = options.propagation?;
    let attributes = MountAttributes { propagation, ..MountAttributes::default() };
    Some(Step::SetTree { slot, recursive: false, attributes })
}

/// A type that this runtime mounts, under the kernel's name.
fn mountable<'a>(kind: &'a str, field: &str) -> Result<&'a str, PlanError> {
    match kind {
        "cgroup" | "cgroup2" if is_unified() => Ok("cgroup2"),
        "cgroup" | "cgroup2" => Err(PlanError::Value {
            field: format!("{field}.type"),
            value: kind.to_owned(),
            reason: "this runtime has version 2 of control groups only where the host has it alone; use type `cgroup`",
        }),
        known if KINDS.contains(&known) => Ok(known),
        other => Err(PlanError::Value {
            field: format!("{field}.type"),
            value: other.to_owned(),
            reason: "this runtime mounts proc, sysfs, tmpfs, devpts, mqueue, cgroup, overlay and \
                     binds",
        }),
    }
}

/// Where the kernel's own files are expected.
fn is_kernels(destination: &Path) -> bool {
    [Path::new("/proc"), Path::new("/sys")].contains(&destination)
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
