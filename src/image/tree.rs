//! A folder that is being filled from an archive nobody trusts.
//!
//! Every path is resolved by the kernel beneath the folder's descriptor, with
//! no symbolic link followed anywhere (openat2(2): `RESOLVE_BENEATH`,
//! `RESOLVE_NO_SYMLINKS`, `RESOLVE_NO_XDEV`); what is made is made by one name
//! in a folder opened that way. So whatever stands in the archive, nothing
//! outside can be reached, and no comparison of path texts is relied upon.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Folders within each other at most: more than any image needs, and few
/// enough that removing them again needs no more descriptors than a process
/// has.
const DEPTH: usize = 256;

/// The folder.
pub(super) struct Tree {
    root: Rc<OwnedFd>,
    /// The folder that was opened last; entries of one come together.
    last: Option<(PathBuf, Rc<OwnedFd>)>,
}

/// A name that an archive gives, taken apart; by default that of the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(Vec<OsString>);

impl Name {
    /// Takes a name apart, or says why it cannot be one.
    pub(super) fn parse(bytes: &[u8], limit: usize) -> Result<Self, &'static str> {
        if bytes.len() > limit {
            return Err("the name is too long");
        }
        if bytes.contains(&0) {
            return Err("the name contains a NUL byte");
        }
        if bytes.first() == Some(&b'/') {
            return Err("the name is absolute");
        }
        let mut parts: Vec<OsString> = Vec::new();
        for part in bytes.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err("the name leads upwards by `..`"),
                other => parts.push(OsStr::from_bytes(other).to_owned()),
            }
        }
        if parts.len() > DEPTH {
            return Err("it lies too deep");
        }
        Ok(Self(parts))
    }

    /// The parts.
    pub(super) fn parts(&self) -> &[OsString] {
        &self.0
    }

    /// The last part, and what is before it; nothing for the root.
    pub(super) fn split(&self) -> Option<(&OsStr, Self)> {
        let (last, before) = self.0.split_last()?;
        Some((last, Self(before.to_vec())))
    }

    /// This name with one part more.
    pub(super) fn join(&self, part: &OsStr) -> Self {
        let mut parts = self.0.clone();
        parts.push(part.to_owned());
        Self(parts)
    }

    /// As a relative path; empty for the root.
    pub(super) fn path(&self) -> PathBuf {
        self.0.iter().collect()
    }
}

impl Tree {
    pub(super) fn open(root: &Path) -> Result<Self, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let root = Rc::new(nix::fcntl::open(root, flags, Mode::empty())?);
        Ok(Self { root, last: None })
    }

    /// Opens a folder; `ELOOP` and `ENOTDIR` when something on the way is
    /// none.
    pub(super) fn folder(&mut self, name: &Name) -> Result<Rc<OwnedFd>, Errno> {
        if name.0.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        let path = name.path();
        if let Some((last, opened)) = &self.last
            && *last == path
        {
            return Ok(Rc::clone(opened));
        }
        let how =
            OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).resolve(
                ResolveFlag::RESOLVE_BENEATH
                    | ResolveFlag::RESOLVE_NO_SYMLINKS
                    | ResolveFlag::RESOLVE_NO_MAGICLINKS
                    | ResolveFlag::RESOLVE_NO_XDEV,
            );
        let opened = Rc::new(openat2(&*self.root, &path, how)?);
        self.last = Some((path, Rc::clone(&opened)));
        Ok(opened)
    }

    /// Makes a folder in which only the caller can do anything until its own
    /// mode is set.
    pub(super) fn make_folder(parent: &OwnedFd, part: &OsStr) -> Result<(), Errno> {
        mkdirat(parent, part, Mode::S_IRWXU)
    }

    /// What stands under a name, if anything does.
    pub(super) fn status(parent: &OwnedFd, part: &OsStr) -> Result<Option<FileStat>, Errno> {
        match fstatat(parent, part, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes what is not a folder.
    pub(super) fn unlink(parent: &OwnedFd, part: &OsStr) -> Result<(), Errno> {
        unlinkat(parent, part, UnlinkatFlags::NoRemoveDir)
    }
}

/// The kind of a file.
pub(super) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_down_only() {
        let parse = |text: &str| Name::parse(text.as_bytes(), 20);
        assert_eq!(parse("./a//b/.").expect("fine").path(), PathBuf::from("a/b"));
        assert!(parse(".").expect("the root").parts().is_empty());
        for (bad, why) in [
            ("/a", "absolute"),
            ("a/../b", "upwards"),
            ("..", "upwards"),
            ("a\0b", "NUL"),
            ("aaaaaaaaaaaaaaaaaaaaa", "too long"),
        ] {
            assert!(parse(bad).expect_err("refused").contains(why), "{bad}");
        }
    }

    #[test]
    fn no_link_is_followed() {
        let outside = tempfile::tempdir().expect("folder");
        let folder = tempfile::tempdir().expect("folder");
        std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).expect("linked");
        std::fs::create_dir(folder.path().join("real")).expect("made");
        let mut tree = Tree::open(folder.path()).expect("opened");
        let mut open = |text: &str| tree.folder(&Name::parse(text.as_bytes(), 99).expect("name"));
        assert!(open("real").is_ok() && open("").is_ok());
        assert_eq!(open("link").expect_err("refused"), Errno::ELOOP);
        assert_eq!(open("link/x").expect_err("refused"), Errno::ELOOP);
        assert_eq!(open("real/x").expect_err("missing"), Errno::ENOENT);
    }
}
