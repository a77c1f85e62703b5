//! Device nodes: those that every container has, and those that a spec adds.
//!
//! Nodes of the host are bound where possible: making nodes needs a privilege
//! that user namespaces do not give.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::libc;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use super::mounts::{Planned, Reader, destination};
use super::{PlanError, c_path, c_string};
use crate::sys::spawn::{Links, Node, Place, Slot, Step};

/// The device nodes of every container, and `/dev/fd` and its like: the
/// OCI runtime specification's "Default Devices" and "Dev symbolic links".
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];
/// The mode of a device that names none.
const MODE: u32 = 0o666;

/// A device of a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    path: PathBuf,
    node: Node,
    /// Bound from the host's node of the same path.
    bound: bool,
}

/// Reads the devices of a spec; `bound` where nodes cannot be made.
pub(super) fn devices(list: &[LinuxDevice], bound: bool) -> Result<Vec<Device>, PlanError> {
    list.iter()
        .enumerate()
        .map(|(index, device)| {
            let field = format!("linux.devices[{index}]");
            let path = destination(device.path(), &format!("{field}.path"))?;
            let (mode, number) = kind(device, &field)?;
            if bound {
                same_on_host(&path, mode, number, &field)?;
            }
            let permissions = device.file_mode().unwrap_or(MODE) & 0o7777;
            let owner = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
            let node = Node::Special { mode: mode | permissions, device: number, owner };
            Ok(Device { path, node, bound })
        })
        .collect()
}

/// The file type and the numbers.
fn kind(device: &LinuxDevice, field: &str) -> Result<(u32, (u32, u32)), PlanError> {
    let mode = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::P => return Ok((libc::S_IFIFO, (0, 0))),
        LinuxDeviceType::A => {
            return Err(PlanError::Value {
                field: format!("{field}.type"),
                value: "a".to_owned(),
                reason: "a node is a character (c, u) or block (b) device or a FIFO (p)",
            });
        }
    };
    let number = |name: &str, value: i64, most: i64| {
        u32::try_from(value).ok().filter(|_| value <= most).ok_or_else(|| PlanError::Value {
            field: format!("{field}.{name}"),
            value: value.to_string(),
            reason: "Linux has major numbers up to 4095 and minor numbers up to 1048575",
        })
    };
    let major = number("major", device.major(), 0xfff)?;
    Ok((mode, (major, number("minor", device.minor(), 0xf_ffff)?)))
}

/// In a user namespace the host's node must do.
fn same_on_host(path: &Path, mode: u32, number: (u32, u32), field: &str) -> Result<(), PlanError> {
    let found = path.metadata().map_err(|source| PlanError::File {
        what: "the device",
        path: path.to_owned(),
        source,
    })?;
    let kind = found.file_type();
    let right = match mode {
        libc::S_IFCHR => kind.is_char_device(),
        libc::S_IFBLK => kind.is_block_device(),
        _ => kind.is_fifo(),
    };
    let is = (libc::major(found.rdev()), libc::minor(found.rdev()));
    if right && (mode == libc::S_IFIFO || is == number) {
        return Ok(());
    }
    Err(PlanError::Value {
        field: format!("{field}.path"),
        value: path.display().to_string(),
        reason: "in a user namespace no node can be made, and the host's of this path is another",
    })
}

impl Reader<'_> {
    /// Fills a new `/dev`.
    pub(super) fn fill_devices(&mut self, dev: &mut Planned, slot: Slot) -> Result<(), PlanError> {
        let place = |name: &str| {
            let path = c_string("/dev", &format!("/dev/{name}"))?;
            Ok::<_, PlanError>(Place::beneath(path, slot, "/dev/".len()))
        };
        for device in DEVICES {
            // The spec has its own.
            if self.devices.iter().any(|other| other.path == Path::new("/dev").join(device)) {
                continue;
            }
            let node = self.slot();
            let path = c_string("/dev", &format!("/dev/{device}"))?;
            dev.open.push(Step::OpenTree { path, recursive: false, slot: node });
            dev.attach.push(Step::Make { place: place(device)?, node: Node::File });
            let (place, links) = (place(device)?, Links::Follow);
            dev.attach.push(Step::Attach { slot: node, place, links, folder: false });
        }
        for (name, target) in LINKS {
            let node = Node::Symlink(c_string("/dev", target)?);
            dev.attach.push(Step::Make { place: place(name)?, node });
        }
        if self.console {
            dev.attach.push(Step::Make { place: place("console")?, node: Node::File });
        }
        Ok(())
    }

    /// Adds the devices of the spec.
    pub(super) fn add_devices(&mut self) -> Result<(), PlanError> {
        for (index, device) in self.devices.iter().enumerate() {
            let planned = self.device(device, &format!("linux.devices[{index}].path"))?;
            self.list.push(planned);
        }
        Ok(())
    }

    fn device(&mut self, device: &Device, field: &str) -> Result<Planned, PlanError> {
        let path = &device.path;
        let point_is_shared = self.point_is_shared(path);
        let mut planned = Planned {
            destination: path.clone(),
            point: self.point(path, false)?,
            point_is_shared,
            ..Planned::default()
        };
        if device.bound {
            let slot = self.slot();
            planned.shared = self.may_share(path);
            planned.open.push(Step::OpenTree {
                path: c_path(field, path)?,
                recursive: false,
                slot,
            });
            let place = Place::root(c_path(field, path)?);
            planned.attach.push(Step::Attach { slot, place, links: Links::Follow, folder: false });
            return Ok(planned);
        }
        // Instead of the file that would be a mount point.
        if let Some(Step::Make { node, .. }) = planned.point.last_mut()
            && *node == Node::File
        {
            node.clone_from(&device.node);
        }
        Ok(planned)
    }
}
