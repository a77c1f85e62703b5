//! A writable root that leaves the folders beneath it as they are: an overlay
//! whose changes live in memory and end with the container.
//!
//! Everything is mounted inside the container's own mount namespace, so the
//! host has nothing to remove afterwards. What is written is charged to the
//! container's own memory.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use super::{PlanError, c_path};
use crate::sys::spawn::{MountAttributes, Slot, Step};

/// The kernel takes no more (`OVL_MAX_STACK` in fs/overlayfs/params.h).
const MOST_LAYERS: usize = 500;

/// Where the parts of an overlay are, relative to the memory filesystem that
/// holds them, so that no path of the host is in the options of the mount,
/// where some characters would have a meaning.
const UPPER: &str = "upper";
const WORK: &str = "work";
const MERGED: &str = "merged";

/// The root of a container as an overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Overlay {
    /// From the uppermost to the lowest.
    layers: Vec<CString>,
    /// Permission bits of the uppermost layer, which the root shall have.
    mode: u32,
    /// The first of as many slots as there are layers.
    first: usize,
    /// A user namespace may write only `user.*` attributes (Linux 5.11).
    user_xattr: bool,
}

impl Overlay {
    /// An overlay of folders, the first one uppermost.
    pub(super) fn new(
        layers: &[PathBuf],
        first: usize,
        user_xattr: bool,
    ) -> Result<Self, PlanError> {
        use std::os::unix::fs::PermissionsExt;
        let find = |path: &Path| {
            path.canonicalize().map_err(|source| PlanError::File {
                what: "the layer",
                path: path.to_owned(),
                source,
            })
        };
        let found = layers.iter().map(|path| find(path)).collect::<Result<Vec<_>, _>>()?;
        let top = match found.first() {
            Some(top) if found.len() <= MOST_LAYERS => top,
            _ => {
                return Err(PlanError::Value {
                    field: "layers".to_owned(),
                    value: found.len().to_string(),
                    reason: "an overlay has 1 to 500 layers",
                });
            }
        };
        let mode = top
            .metadata()
            .map_err(|source| PlanError::File { what: "the layer", path: top.clone(), source })?
            .permissions()
            .mode();
        let layers =
            found.iter().map(|path| c_path("root.path", path)).collect::<Result<_, _>>()?;
        Ok(Self { layers, mode: mode & 0o7777, first, user_xattr })
    }

    /// Opens the layers, while nothing hides them.
    pub(super) fn open(&self) -> Vec<Step> {
        let private =
            MountAttributes { propagation: nix::libc::MS_PRIVATE, ..MountAttributes::default() };
        let open = |(slot, path): (Slot, &CString)| {
            // Recursive: in a user namespace a part of a tree cannot be taken
            // without what is mounted on it.
            [
                Step::OpenTree { path: path.clone(), recursive: true, slot },
                Step::SetTree { slot, recursive: true, attributes: private },
            ]
        };
        self.slots().zip(&self.layers).flat_map(open).collect()
    }

    /// Puts the overlay together at a folder and makes it the working
    /// directory.
    pub(super) fn enter(&self, folder: &CString) -> Vec<Step> {
        let name = |text: &str| CString::new(text).unwrap_or_default();
        let make = |text: &str, mode| Step::MakeDirectory { path: name(text), mode };
        let mut steps = vec![
            Step::Mount {
                kind: c"tmpfs".into(),
                source: c"tmpfs".into(),
                target: folder.clone(),
                flags: 0,
                data: c"mode=755".into(),
            },
            Step::WorkingDirectory(folder.clone()),
        ];
        let mut lower = String::new();
        for (index, slot) in self.slots().enumerate() {
            let layer = index.to_string();
            lower.push_str(if index == 0 { "" } else { ":" });
            lower.push_str(&layer);
            steps.push(make(&layer, 0o755));
            steps.push(Step::AttachTree { slot, target: name(&layer) });
        }
        // The root of an overlay is as its uppermost folder is.
        steps.extend([make(UPPER, self.mode), make(WORK, 0o755), make(MERGED, 0o755)]);
        // Nothing needs to survive, so nothing needs to be synced (Linux 5.10).
        let mut data = format!("lowerdir={lower},upperdir={UPPER},workdir={WORK},volatile");
        if self.user_xattr {
            data.push_str(",userxattr");
        }
        steps.push(Step::Mount {
            kind: c"overlay".into(),
            source: c"overlay".into(),
            target: name(MERGED),
            flags: 0,
            data: name(&data),
        });
        steps.push(Step::WorkingDirectory(name(MERGED)));
        steps
    }

    fn slots(&self) -> impl Iterator<Item = Slot> {
        (self.first..).take(self.layers.len()).map(Slot)
    }
}
