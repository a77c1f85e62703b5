//! Owners, modes, times and extended attributes of unpacked files.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, UtimensatFlags, fchmod, fchmodat, futimens, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat};
use xattr::FileExt;

use super::tarball::Member;

/// What a file has besides its content.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, u32),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What could not be kept: attribute and reason, how often, and where first.
pub(super) type Lost = BTreeMap<(String, &'static str), (u64, String)>;

impl Attributes {
    /// Those of an archive's entry.
    pub(super) fn of(member: &Member) -> Result<Self, &'static str> {
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        let owner = "its owner is no valid id";
        Ok(Self {
            mode: member.mode,
            uid: id(member.uid).ok_or(owner)?,
            gid: id(member.gid).ok_or(owner)?,
            mtime: member.mtime,
            xattrs: member.xattrs.clone(),
        })
    }

    /// Those of a folder that no entry describes: of the same folder of the
    /// layers below, which it would hide otherwise.
    pub(super) fn implied(below: Option<&FileStat>) -> Self {
        below.map_or_else(
            || Self { mode: 0o755, ..Self::default() },
            |stat| Self {
                mode: stat.st_mode & 0o7777,
                uid: stat.st_uid,
                gid: stat.st_gid,
                mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
                xattrs: BTreeMap::new(),
            },
        )
    }

    /// Sets them on an open file or folder. The order matters: a new owner
    /// takes away setuid bits and capabilities.
    pub(super) fn set(
        &self,
        opened: &File,
        owners: bool,
        name: &str,
        lost: &mut Lost,
    ) -> Result<(), Errno> {
        if owners {
            fchown(opened, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        }
        fchmod(opened, Mode::from_bits_truncate(self.mode))?;
        for (key, value) in &self.xattrs {
            let text = String::from_utf8_lossy(key).into_owned();
            let reason = if is_kept(key) {
                match opened.set_xattr(OsStr::from_bytes(key), value) {
                    Ok(()) => continue,
                    Err(error) => refusal(&error)?,
                }
            } else {
                "it is not for images to set"
            };
            lost.entry((text, reason)).or_insert((0, name.to_owned())).0 += 1;
        }
        let time = self.time();
        futimens(opened.as_fd(), &time, &time)
    }

    /// Sets what a link, FIFO or device can have, by its name.
    pub(super) fn set_at(
        &self,
        parent: &OwnedFd,
        part: &OsStr,
        is_link: bool,
        owners: bool,
        name: &str,
        lost: &mut Lost,
    ) -> Result<(), Errno> {
        if owners {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            fchownat(parent, part, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        if !is_link {
            // It was just made under this name, in a folder that nobody else
            // can enter, and is no link.
            let mode = Mode::from_bits_truncate(self.mode);
            fchmodat(parent, part, mode, FchmodatFlags::FollowSymlink)?;
        }
        for key in self.xattrs.keys() {
            let text = String::from_utf8_lossy(key).into_owned();
            let reason = "only files and folders keep attributes";
            lost.entry((text, reason)).or_insert((0, name.to_owned())).0 += 1;
        }
        let time = self.time();
        utimensat(parent, part, &time, &time, UtimensatFlags::NoFollowSymlink)
    }

    fn time(&self) -> TimeSpec {
        TimeSpec::new(self.mtime.0, i64::from(self.mtime.1))
    }
}

/// Attributes that an image may set. Those of overlayfs would make a layer
/// mean something else than its entries say, and labels are the host's.
fn is_kept(key: &[u8]) -> bool {
    let ours = key.starts_with(b"user.overlay.");
    let known = key.starts_with(b"user.")
        || key.starts_with(b"system.posix_acl_")
        || key == b"security.capability";
    known && !ours
}

/// Why an attribute could not be set, if one can do without it.
fn refusal(error: &std::io::Error) -> Result<&'static str, Errno> {
    match (error.kind(), error.raw_os_error().map(Errno::from_raw)) {
        (ErrorKind::PermissionDenied, _) => Ok("it needs privileges that the importer lacks"),
        (_, Some(Errno::EOPNOTSUPP)) => Ok("the store's filesystem does not have such"),
        (_, Some(Errno::ENOSPC | Errno::E2BIG | Errno::ERANGE)) => {
            Ok("it is larger than the store's filesystem allows")
        }
        (_, Some(Errno::EINVAL)) => Ok("its value is not valid here"),
        (_, other) => Err(other.unwrap_or(Errno::EIO)),
    }
}

/// What was lost, for people.
pub(super) fn remarks(lost: &Lost, layer: &str) -> Vec<String> {
    let line = |((key, reason), (count, first)): (&(String, &str), &(u64, String))| {
        let times = if *count == 1 { String::new() } else { format!(" and {} more", count - 1) };
        format!("layer {layer}: `{key}` of `{first}`{times} is not kept: {reason}")
    };
    lost.iter().map(line).collect()
}
