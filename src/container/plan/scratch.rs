//! A writable root that leaves the folder beneath it as it is: an overlay
//! whose changes live in memory and end with the container.
//!
//! Everything is mounted inside the container's own mount namespace, so the
//! host has nothing to remove afterwards. What is written is charged to the
//! container's own memory.

use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::{Plan, PlanError};
use crate::sys::namespace::in_first_user_namespace;
use crate::sys::spawn::{MountAttributes, Node, Place, Slot, Step};

/// The root of a container as an overlay over a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scratch {
    /// Permission bits of the folder, which the new root repeats.
    mode: u32,
    slot: Slot,
    /// A user namespace may write only `user.*` attributes (Linux 5.11).
    user_xattr: bool,
}

impl Plan {
    /// Puts a writable layer in memory over the root filesystem, which itself
    /// is not changed. The layer ends with the container. (A spec has no
    /// field for this.)
    ///
    /// # Errors
    ///
    /// When the root filesystem is gone meanwhile.
    pub fn with_scratch_layer(mut self) -> Result<Self, PlanError> {
        use std::os::unix::ffi::OsStrExt;
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(self.rootfs.as_bytes()));
        let mode = path
            .metadata()
            .map_err(|source| PlanError::File { what: "the root filesystem", path, source })?
            .permissions()
            .mode();
        let user_xattr = self.id_maps.is_some() || !in_first_user_namespace();
        let slot = Slot(self.mounts.slots());
        self.scratch = Some(Scratch { mode: mode & 0o7777, slot, user_xattr });
        Ok(self)
    }
}

impl Scratch {
    /// Opens the folder, while nothing hides it.
    pub(super) fn open(&self, folder: &CString) -> Vec<Step> {
        let private =
            MountAttributes { propagation: nix::libc::MS_PRIVATE, ..MountAttributes::default() };
        vec![
            // Recursive: in a user namespace a part of a tree cannot be taken
            // without what is mounted on it.
            Step::OpenTree { path: folder.clone(), recursive: true, slot: self.slot },
            Step::SetTree { slot: self.slot, recursive: true, attributes: private },
        ]
    }

    /// Puts the overlay together at the folder and makes it the working
    /// directory. Paths are relative, so that no path of the host is in the
    /// options of the mount, where some characters would have a meaning.
    pub(super) fn enter(&self, folder: &CString, devices: bool) -> Vec<Step> {
        let make = |path: &std::ffi::CStr, mode| Step::Make {
            place: Place::root(path.into()),
            node: Node::Directory(mode),
        };
        let mount = |kind: &std::ffi::CStr, target: &std::ffi::CStr, data: &std::ffi::CStr| {
            let (kind, source) = (CString::from(kind), CString::from(kind));
            let flags = if devices { 0 } else { nix::libc::MS_NODEV };
            Step::Mount { kind, source, target: target.into(), flags, data: data.into() }
        };
        // Nothing needs to survive, so nothing needs to be synced (Linux 5.10).
        let data = if self.user_xattr {
            c"lowerdir=lower,upperdir=upper,workdir=work,volatile,userxattr"
        } else {
            c"lowerdir=lower,upperdir=upper,workdir=work,volatile"
        };
        vec![
            mount(c"tmpfs", folder, c"mode=755"),
            Step::WorkingDirectory(folder.clone()),
            make(c"lower", 0o755),
            Step::AttachTree { slot: self.slot, target: c"lower".into() },
            // The root of an overlay is as its upper folder is.
            make(c"upper", self.mode),
            make(c"work", 0o755),
            make(c"root", 0o755),
            mount(c"overlay", c"root", data),
            Step::WorkingDirectory(c"root".into()),
        ]
    }
}
