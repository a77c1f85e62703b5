//! Reads the mounts of a spec one after the other into steps.

use std::path::Path;

use nix::libc;
use oci_spec::runtime::Mount;

use super::super::cgroup_mounts::View;
use super::super::devices::Device;
use super::super::options::{Options, READ_ONLY};
use super::super::{PlanError, c_path, c_string};
use super::{Planned, around, destination, flow, place, seal};
use crate::container::cgroup::is_unified;
use crate::sys::spawn::{Links, MountAttributes, Node, Slot, Step};

/// Filesystem types that this runtime mounts.
const KINDS: [&str; 6] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "overlay"];

/// Reads mounts one after the other.
pub(in crate::container::plan) struct Reader<'a> {
    pub(in crate::container::plan) rootfs: &'a Path,
    pub(in crate::container::plan) bundle: &'a Path,
    pub(in crate::container::plan) next_slot: usize,
    /// What mounts of control groups show.
    pub(in crate::container::plan) view: View,
    /// Whether something will be bound at `/dev/console`.
    pub(in crate::container::plan) console: bool,
    /// Devices of the spec beside those that every container has.
    pub(in crate::container::plan) devices: &'a [Device],
    pub(in crate::container::plan) list: Vec<Planned>,
}

impl<'a> Reader<'a> {
    /// One that has read nothing yet. Slot 0 is the root.
    pub(in crate::container::plan) fn new(rootfs: &'a Path, bundle: &'a Path, view: View) -> Self {
        let (devices, list) = (&[] as &[Device], Vec::new());
        Self { rootfs, bundle, next_slot: 1, view, console: false, devices, list }
    }

    /// Reads one mount of the spec.
    pub(super) fn read(&mut self, mount: &Mount, field: &str) -> Result<(), PlanError> {
        let destination = destination(mount.destination(), field)?;
        let options = Options::parse(mount.options().as_deref().unwrap_or_default(), field)?;
        let kind = mount.typ().as_deref().unwrap_or("none");
        let planned = match options.bind {
            Some(recursive) => self.bind(mount, &destination, &options, recursive, field)?,
            None if kind == "bind" => self.bind(mount, &destination, &options, true, field)?,
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
    pub(in crate::container::plan) fn attach(
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

    pub(in crate::container::plan) fn slot(&mut self) -> Slot {
        self.next_slot += 1;
        Slot(self.next_slot - 1)
    }

    /// Whether a mount may come before those of each instance: none of these
    /// that the spec lists earlier may be above or below it.
    pub(in crate::container::plan) fn may_share(&self, destination: &Path) -> bool {
        !self.list.iter().filter(|other| !other.shared).any(|other| {
            destination.starts_with(&other.destination)
                || other.destination.starts_with(destination)
        })
    }

    /// Whether no earlier mount of an instance's own is around this path.
    pub(in crate::container::plan) fn point_is_shared(&self, destination: &Path) -> bool {
        !self.list.iter().any(|other| !other.shared && destination.starts_with(&other.destination))
    }

    /// Steps that make a mount point, where it is not known to exist.
    pub(in crate::container::plan) fn point(
        &self,
        destination: &Path,
        folder: bool,
    ) -> Result<Vec<Step>, PlanError> {
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
