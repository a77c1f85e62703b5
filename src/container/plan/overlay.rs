//! An image's layers in place of a root folder.

use std::path::{Component, Path};

use nix::libc;

use super::{Plan, PlanError, c_path, c_string};
use crate::image::Overlay;
use crate::sys::namespace::in_first_user_namespace;
use crate::sys::spawn::{Node, Place, Step};

/// The layers as steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layers {
    enter: Vec<Step>,
    /// Makes the working directory of the process, as images expect.
    folders: Vec<Step>,
    writable: bool,
}

impl Plan {
    /// Makes an image's layers the root, mounted by each instance (or once for
    /// all, if none can write) in its own mount namespace. The spec's
    /// `root.path` must be [`Overlay::root_path`], and its `root.readonly`
    /// says as ever whether instances may write. `workdir` is made if it is
    /// missing and the overlay has a writable layer.
    ///
    /// The root is mounted `nodev`: device nodes of an image are of no use,
    /// those of `/dev` are this runtime's own.
    ///
    /// # Errors
    ///
    /// When `root.path` is another folder, or `workdir` is not absolute.
    pub fn with_overlay(mut self, overlay: &Overlay, workdir: &Path) -> Result<Self, PlanError> {
        let rootfs = overlay.root_path();
        if c_path("root.path", &rootfs)? != self.rootfs {
            return Err(PlanError::Value {
                field: "root.path".to_owned(),
                value: self.rootfs.to_string_lossy().into_owned(),
                reason: "with an image it must be the image store's mount point",
            });
        }
        let in_user_namespace = self.id_maps.is_some() || !in_first_user_namespace();
        self.overlay = Some(Layers::new(overlay, in_user_namespace, workdir)?);
        Ok(self)
    }
}

impl Layers {
    fn new(overlay: &Overlay, in_user_namespace: bool, workdir: &Path) -> Result<Self, PlanError> {
        let field = "root.path";
        let target = c_string(field, overlay.mount_point())?;
        // Every path of an overlay is relative to its store.
        let store = c_path(field, overlay.working_directory())?;
        let mut enter = vec![Step::WorkingDirectory(store)];
        let tmpfs = overlay.tmpfs_options();
        let writable = tmpfs.is_some();
        if let Some(options) = tmpfs {
            enter.push(Step::Mount {
                kind: c"tmpfs".into(),
                source: c"tmpfs".into(),
                target: target.clone(),
                flags: libc::MS_NODEV,
                data: c_string(field, &options)?,
            });
            for (path, mode) in overlay.upper_folders() {
                enter.push(Step::Make {
                    place: Place::root(c_string(field, &path)?),
                    node: Node::Directory(mode),
                });
            }
        }
        enter.push(Step::Mount {
            kind: c"overlay".into(),
            source: c"overlay".into(),
            target: target.clone(),
            // Without an upper layer the kernel mounts read-only by itself.
            flags: libc::MS_NODEV,
            data: c_string(field, &overlay.options(in_user_namespace))?,
        });
        enter.push(Step::WorkingDirectory(target));
        let folders = if writable { folders(workdir)? } else { Vec::new() };
        Ok(Self { enter, folders, writable })
    }

    /// Mounts them and makes the result the working directory.
    pub(super) fn enter(&self) -> Vec<Step> {
        self.enter.clone()
    }

    /// What is made inside, after the root changed.
    pub(super) fn folders(&self) -> Vec<Step> {
        self.folders.clone()
    }

    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }
}

/// A folder with all above it.
fn folders(path: &Path) -> Result<Vec<Step>, PlanError> {
    let down = path.components().all(|part| !matches!(part, Component::ParentDir));
    if !path.is_absolute() || !down {
        return Err(PlanError::Value {
            field: "process.cwd".to_owned(),
            value: path.display().to_string(),
            reason: "it must be an absolute path without `..`",
        });
    }
    let mut paths: Vec<&Path> = path.ancestors().filter(|path| path.parent().is_some()).collect();
    paths.reverse();
    let make = |path: &&Path| -> Result<Step, PlanError> {
        let place = Place::root(c_path("process.cwd", path)?);
        Ok(Step::Make { place, node: Node::Directory(0o755) })
    };
    paths.iter().map(make).collect()
}
