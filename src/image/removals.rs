//! Marks of removal, from the archive's spelling to overlayfs's.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;

use nix::sys::stat::{Mode, SFlag, mknodat};
use xattr::FileExt;

use super::tree::{Name, Tree, kind};
use super::unpack::{Trouble, Work, failed, refused};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What a builder's filesystem noted for itself.
const PRIVATE: &[u8] = b".wh..wh.";

/// Whether an entry is a mark, or below one.
pub(super) fn is_mark(name: &Name) -> bool {
    name.parts().iter().any(|part| part.as_bytes().starts_with(WHITEOUT))
}

impl Work<'_> {
    /// Takes note of a mark of removal.
    pub(super) fn mark(&mut self, name: &Name) -> Result<(), Trouble> {
        let Some((part, parent)) = name.split() else { return Ok(()) };
        let is_mark = |part: &OsString| part.as_bytes().starts_with(WHITEOUT);
        let private = |part: &OsString| part.as_bytes().starts_with(PRIVATE);
        if part == OsStr::from_bytes(OPAQUE) && !parent.parts().iter().any(is_mark) {
            self.parent(&parent)?;
            self.opaque.push(parent);
            return Ok(());
        }
        if name.parts().iter().any(private) {
            return Ok(());
        }
        if parent.parts().iter().any(is_mark) {
            return refused("it lies below a mark of removal");
        }
        match &part.as_bytes()[WHITEOUT.len()..] {
            b"" | b"." | b".." => refused("it marks no name as removed"),
            hidden => {
                self.parent(&parent)?;
                self.whiteouts.push(parent.join(OsStr::from_bytes(hidden)));
                Ok(())
            }
        }
    }

    /// Hides what the layers below have under a name.
    pub(super) fn hide(&mut self, name: &Name) -> Result<(), Trouble> {
        let Some((part, parent)) = name.split() else { return Ok(()) };
        let folder = self.parent(&parent)?;
        match Tree::status(&folder, part).map_err(failed("look at"))? {
            // What the layer itself has is not meant, but shows nothing of below.
            Some(stat) if kind(&stat) == SFlag::S_IFDIR => self.hide_all(name),
            Some(_) => Ok(()),
            None => mknodat(&*folder, part, SFlag::S_IFCHR, Mode::empty(), 0)
                .map_err(failed("mark as removed")),
        }
    }

    /// Makes a folder hide all that the layers below have in it.
    pub(super) fn hide_all(&mut self, name: &Name) -> Result<(), Trouble> {
        let folder = self.parent(name)?;
        let opened = folder.try_clone().map_err(|error| Trouble::Failed("open", error))?;
        let opened = File::from(opened);
        // Both spellings where possible, so that a layer of root's serves
        // containers with and without a user namespace.
        for key in &super::OPAQUE[usize::from(!self.layer.privileged)..] {
            opened
                .set_xattr(key, b"y")
                .map_err(|error| Trouble::Failed("mark as replaced", error))?;
        }
        Ok(())
    }
}
