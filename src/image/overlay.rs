//! How the layers of an image become one root filesystem, as pure data.
//!
//! Nothing is mounted here: the container's own child does that, in its own
//! mount namespace, so that nothing is ever mounted on the host.
//!
//! All paths are relative to the store's folder and made of letters, digits
//! and `/` alone. So nothing needs the escaping that overlayfs wants for `:`
//! and `,`, and the options of 127 layers (the most that builders make) fit
//! into the page that mount(2) takes, on every kernel, wherever the cache is.

use std::path::{Path, PathBuf};

/// What the instances of a container may do to the image's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writable {
    /// Nothing: no upper layer exists, and all instances share one mount.
    No,
    /// Anything; it goes to a temporary filesystem of the instance's own,
    /// which ends with it.
    Private {
        /// Bytes that it may hold (and the memory cgroup pays for), or half
        /// of the host's memory, tmpfs(5)'s own default.
        size: Option<u64>,
    },
}

/// A root filesystem of layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// The store, where the paths below start.
    pub(super) store: PathBuf,
    /// Layers from the topmost down.
    pub(super) lowers: Vec<String>,
    pub(super) writable: Writable,
    /// Mode of the root folder, which an upper layer has to repeat.
    pub(super) root_mode: u32,
}

/// Where everything is mounted, relative to the store.
const MOUNT_POINT: &str = "mnt";

impl Overlay {
    /// The folder from which the paths of [`Overlay::options`] start, and
    /// which must be the working directory when they are used.
    #[must_use]
    pub fn working_directory(&self) -> &Path {
        &self.store
    }

    /// The folder on which to mount, relative to
    /// [`Overlay::working_directory`].
    #[must_use]
    pub fn mount_point(&self) -> &'static str {
        MOUNT_POINT
    }

    /// The same as an absolute path: a spec's `root.path`.
    #[must_use]
    pub fn root_path(&self) -> PathBuf {
        self.store.join(MOUNT_POINT)
    }

    /// Layers from the topmost down, relative to
    /// [`Overlay::working_directory`].
    #[must_use]
    pub fn lowers(&self) -> &[String] {
        &self.lowers
    }

    /// Whether instances may write, and how much.
    #[must_use]
    pub fn writable(&self) -> Writable {
        self.writable
    }

    /// Mode of the root folder.
    #[must_use]
    pub fn root_mode(&self) -> u32 {
        self.root_mode
    }

    /// Folders below the mount point, to be made on the temporary filesystem
    /// before the overlay is mounted over it: `(path, mode)`.
    #[must_use]
    pub fn upper_folders(&self) -> [(String, u32); 2] {
        [(format!("{MOUNT_POINT}/upper"), self.root_mode), (format!("{MOUNT_POINT}/work"), 0o700)]
    }

    /// Options of the temporary filesystem, when there is one.
    #[must_use]
    pub fn tmpfs_options(&self) -> Option<String> {
        match self.writable {
            Writable::No => None,
            Writable::Private { size: None } => Some("mode=700".to_owned()),
            Writable::Private { size: Some(size) } => Some(format!("mode=700,size={size}")),
        }
    }

    /// Options of the overlay itself. In a user namespace it can only be told
    /// by `user.*` attributes which folders hide what is below them.
    #[must_use]
    pub fn options(&self, in_user_namespace: bool) -> String {
        let mut options = format!("lowerdir={}", self.lowers.join(":"));
        if self.writable != Writable::No {
            options.push_str(&format!(",upperdir={MOUNT_POINT}/upper,workdir={MOUNT_POINT}/work"));
        }
        if in_user_namespace {
            // Linux 5.11 or later.
            options.push_str(",userxattr");
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::layer_path;

    #[test]
    fn as_many_layers_as_builders_make_fit_into_a_page() {
        let digest = crate::image::Digest::of(b"x");
        let overlay = Overlay {
            store: PathBuf::from("/s"),
            lowers: vec![layer_path(&digest); 128],
            writable: Writable::Private { size: None },
            root_mode: 0o755,
        };
        let options = overlay.options(true);
        assert!(options.len() < 4096, "{}", options.len());
        assert!(options.ends_with(",upperdir=mnt/upper,workdir=mnt/work,userxattr"), "{options}");
        let fixed = Overlay { writable: Writable::No, ..overlay };
        assert!(!fixed.options(false).contains("upper") && fixed.tmpfs_options().is_none());
    }
}
