//! Reading a file of an image without mounting it: the layers are looked
//! through from the top as overlayfs would show them.
//!
//! Each step of a path is one name looked up in open folders, links are never
//! followed by the kernel, and `..` goes back along folders that were passed:
//! no link of an image can lead out of it.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use xattr::FileExt;

use super::ImageError;
use super::error::file;

/// Links that may be followed on one way, as in the kernel.
const LINKS: u32 = 40;
/// Bytes of a file that is read at most.
const SIZE: u64 = 4 * 1024 * 1024;

/// The layers of an image seen as one.
#[derive(Debug)]
pub(super) struct Merged {
    store: PathBuf,
    /// Root folders from the topmost layer down.
    roots: Vec<OwnedFd>,
}

/// What a name is.
enum Found {
    Nothing,
    Folder(Vec<OwnedFd>),
    Link(OsString),
    /// Anything else: the folder that holds it, and what it is.
    Other(OwnedFd, FileStat),
}

impl Merged {
    /// Opens layers, from the topmost down.
    pub(super) fn open(store: &Path, lowers: &[String]) -> Result<Self, ImageError> {
        let open = |lower: &String| {
            let path = store.join(lower);
            nix::fcntl::open(&path, FOLDER, Mode::empty())
                .map_err(|errno| file("open", &path)(errno.into()))
        };
        let roots = lowers.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { store: store.to_owned(), roots })
    }

    /// The content of a regular file, or nothing if there is none.
    pub(super) fn read(&self, path: &str) -> Result<Option<String>, ImageError> {
        let failed = |errno: Errno| file("read the image's", Path::new(path))(errno.into());
        let Some((folder, stat)) = self.find(path).map_err(failed)? else { return Ok(None) };
        if kind(&stat) != SFlag::S_IFREG {
            return Ok(None);
        }
        let Some(name) = folder.1 else { return Ok(None) };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let opened = openat(&folder.0, name.as_os_str(), flags, Mode::empty()).map_err(failed)?;
        let mut bytes = Vec::new();
        let mut content = File::from(opened).take(SIZE);
        content.read_to_end(&mut bytes).map_err(file("read the image's", Path::new(path)))?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Whether a path leads to a folder.
    pub(super) fn is_folder(&self, path: &str) -> Result<bool, ImageError> {
        let failed = |errno: Errno| file("look at the image's", Path::new(path))(errno.into());
        Ok(self.find(path).map_err(failed)?.is_some_and(|(_, stat)| kind(&stat) == SFlag::S_IFDIR))
    }

    /// What stands at a path when the folders of this view are all there is:
    /// no links are followed.
    pub(super) fn status(&self, path: &Path) -> Result<Option<FileStat>, ImageError> {
        let failed = |errno: Errno| file("look at", &self.store.join(path))(errno.into());
        let mut folders = duplicate(&self.roots).map_err(failed)?;
        let Some(first) = folders.first() else { return Ok(None) };
        let mut last = nix::sys::stat::fstat(first).map_err(failed)?;
        for part in path.iter() {
            match look(&folders, part).map_err(failed)? {
                Found::Folder(found) => {
                    let Some(first) = found.first() else { return Ok(None) };
                    last = nix::sys::stat::fstat(first).map_err(failed)?;
                    folders = found;
                }
                Found::Nothing => return Ok(None),
                Found::Link(_) => {
                    last.st_mode = SFlag::S_IFLNK.bits();
                    folders = Vec::new();
                }
                Found::Other(_, stat) => {
                    last = stat;
                    folders = Vec::new();
                }
            }
        }
        Ok(Some(last))
    }

    /// Walks a path with links followed inside the image.
    #[allow(clippy::type_complexity, reason = "one private caller's shape")]
    fn find(&self, path: &str) -> Result<Option<((OwnedFd, Option<OsString>), FileStat)>, Errno> {
        let mut parts: VecDeque<OsString> = split(OsStr::new(path));
        let mut passed = vec![duplicate(&self.roots)?];
        let mut links = 0;
        while let Some(part) = parts.pop_front() {
            let Some(here) = passed.last() else { return Ok(None) };
            if part == ".." {
                // Above the root is the root.
                if passed.len() > 1 {
                    passed.pop();
                }
                continue;
            }
            match look(here, &part)? {
                Found::Nothing => return Ok(None),
                Found::Folder(folders) => passed.push(folders),
                Found::Link(target) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::ELOOP);
                    }
                    if target.as_bytes().first() == Some(&b'/') {
                        passed.truncate(1);
                    }
                    for part in split(&target).into_iter().rev() {
                        parts.push_front(part);
                    }
                }
                Found::Other(..) if !parts.is_empty() => return Ok(None),
                Found::Other(folder, stat) => return Ok(Some(((folder, Some(part)), stat))),
            }
        }
        let Some(top) = passed.pop().and_then(|folders| folders.into_iter().next()) else {
            return Ok(None);
        };
        let stat = nix::sys::stat::fstat(&top)?;
        Ok(Some(((top, None), stat)))
    }
}

const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Names of a path, without those that lead nowhere.
fn split(path: &OsStr) -> VecDeque<OsString> {
    let parts = path.as_bytes().split(|byte| *byte == b'/');
    let parts = parts.filter(|part| !part.is_empty() && *part != b".");
    parts.map(|part| OsStr::from_bytes(part).to_owned()).collect()
}

fn duplicate(folders: &[OwnedFd]) -> Result<Vec<OwnedFd>, Errno> {
    let again = |folder| openat(folder, ".", FOLDER, Mode::empty());
    folders.iter().map(again).collect()
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Looks one name up in the same folder of all layers.
fn look(folders: &[OwnedFd], name: &OsStr) -> Result<Found, Errno> {
    let mut found = Vec::new();
    for folder in folders {
        let stat = match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => continue,
            Err(error) => return Err(error),
        };
        if kind(&stat) == SFlag::S_IFDIR {
            let inner = openat(folder, name, FOLDER, Mode::empty())?;
            let opaque = is_opaque(&inner);
            found.push(inner);
            if opaque {
                break;
            }
            continue;
        }
        // What is not a folder hides what is below it, and ends what is above.
        if !found.is_empty() || is_whiteout(&stat) {
            break;
        }
        return match kind(&stat) {
            SFlag::S_IFLNK => Ok(Found::Link(readlinkat(folder, name)?)),
            _ => Ok(Found::Other(openat(folder, ".", FOLDER, Mode::empty())?, stat)),
        };
    }
    Ok(if found.is_empty() { Found::Nothing } else { Found::Folder(found) })
}

/// A whiteout: a character device numbered 0.
fn is_whiteout(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

/// Whether a folder hides the same folder of the layers below.
fn is_opaque(folder: &OwnedFd) -> bool {
    let Ok(folder) = folder.try_clone() else { return false };
    let folder = File::from(folder);
    super::OPAQUE
        .iter()
        .any(|name| matches!(folder.get_xattr(name), Ok(Some(value)) if value == b"y"))
}
