//! A device of the host inside a container.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::libc;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

/// Why a device cannot be given to a container.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is none.
    #[error("cannot look at the device {}", path.display())]
    Missing {
        /// Its path on the host.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is something else.
    #[error("{} is no device, but {what}", path.display())]
    Other {
        /// Its path on the host.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// It would be of no use where it is wanted.
    #[error(
        "a device cannot be at {}: only below /dev, since everything else is mounted `nodev`",
        path.display()
    )]
    Place {
        /// Its path inside.
        path: PathBuf,
    },
}

/// A device of the host: its node inside, and what may be done with it.
#[derive(Clone, Debug, PartialEq)]
pub struct HostDevice {
    /// The node, with the mode and the owner of the host's.
    pub(super) node: LinuxDevice,
    /// The rule of the control group.
    pub(super) rule: LinuxDeviceCgroup,
}

/// The device at `host` (links are followed) for a container in which it is
/// `inside`. `access` is made of `r`, `w` and `m`, which is to make nodes of it.
///
/// # Errors
///
/// See [`DeviceError`].
pub fn host_device(host: &Path, inside: &Path, access: &str) -> Result<HostDevice, DeviceError> {
    let below = inside.strip_prefix("/dev").ok();
    if below.is_none_or(|below| below.as_os_str().is_empty()) {
        return Err(DeviceError::Place { path: inside.to_owned() });
    }
    let found =
        host.metadata().map_err(|source| DeviceError::Missing { path: host.to_owned(), source })?;
    let file = found.file_type();
    let kind = if file.is_char_device() {
        LinuxDeviceType::C
    } else if file.is_block_device() {
        LinuxDeviceType::B
    } else {
        let what = if file.is_dir() { "a folder" } else { "another kind of file" };
        return Err(DeviceError::Other { path: host.to_owned(), what });
    };
    let (major, minor) = (libc::major(found.rdev()).into(), libc::minor(found.rdev()).into());
    let mut node = LinuxDevice::default();
    node.set_path(inside.to_owned()).set_typ(kind).set_major(major).set_minor(minor);
    node.set_file_mode(Some(found.mode() & 0o7777));
    node.set_uid(Some(found.uid())).set_gid(Some(found.gid()));
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true).set_typ(Some(kind)).set_major(Some(major)).set_minor(Some(minor));
    rule.set_access(Some(access.to_owned()));
    Ok(HostDevice { node, rule })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_what_it_is_on_the_host() {
        let device = host_device(Path::new("/dev/null"), Path::new("/dev/x/y"), "r").expect("one");
        assert_eq!((device.node.major(), device.node.minor()), (1, 3));
        assert_eq!(device.node.path(), Path::new("/dev/x/y"));
        assert_eq!(device.rule.access().as_deref(), Some("r"));
        assert_eq!((device.rule.major(), device.rule.minor()), (Some(1), Some(3)));
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let error = |host: &str, inside: &str| {
            let device = host_device(Path::new(host), Path::new(inside), "rwm");
            device.expect_err("refused").to_string()
        };
        assert!(error("/dev/null", "/null").contains("only below /dev"));
        assert!(error("/dev/null", "/dev").contains("only below /dev"));
        assert!(error("/dev/nothing", "/dev/x").contains("/dev/nothing"));
        assert!(error("/usr", "/dev/x").contains("but a folder"));
        assert!(error("/etc/passwd", "/dev/x").contains("another kind of file"));
    }
}
