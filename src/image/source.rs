//! Where an image's files come from: a folder, or an archive of the same
//! layout. Whatever they are, a reader of a blob gets plain bytes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

use super::ImageError;
use super::error::file;
use super::limits::Budget;
use super::tarball::{Kind, Tarball};

/// Links of an archive that are followed for one blob.
const LINKS: u32 = 8;

/// An opened layout.
pub(super) struct Source {
    pub(super) path: PathBuf,
    files: Files,
}

enum Files {
    Folder(OwnedFd),
    Archive { archive: File, index: HashMap<String, Place> },
}

/// A file of an archive.
enum Place {
    At { offset: u64, size: u64 },
    Link(String),
}

/// A blob that is being read.
pub(super) enum Blob {
    /// A file of a folder.
    File(File),
    /// A part of an archive.
    Part(Take<At>),
}

/// Reads an archive from a position of its own.
pub(super) struct At {
    archive: File,
    offset: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.archive.read_at(buffer, self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Part(part) => part.read(buffer),
        }
    }
}

impl Source {
    /// Opens a folder or an archive. A compressed archive is unpacked to a
    /// nameless file in `drafts` first, within the budget.
    pub(super) fn open(
        path: &Path,
        drafts: &Path,
        budget: &mut Budget,
    ) -> Result<Self, ImageError> {
        let open = || file("open", path);
        let meta = path.metadata().map_err(open())?;
        if meta.is_dir() {
            let flags = OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC;
            let folder = nix::fcntl::open(path, flags, Mode::empty())
                .map_err(|errno| open()(errno.into()))?;
            return Ok(Self { path: path.to_owned(), files: Files::Folder(folder) });
        }
        if !meta.is_file() {
            return Err(not_an_image(path, "it is neither a folder nor a file"));
        }
        let mut archive = File::open(path).map_err(open())?;
        let mut start = [0_u8; 2];
        let length = archive.read_at(&mut start, 0).map_err(file("read", path))?;
        if length == 2 && start == [0x1f, 0x8b] {
            archive = decompress(archive, path, drafts, budget)?;
        }
        let index = index(&mut archive, path, budget)?;
        Ok(Self { path: path.to_owned(), files: Files::Archive { archive, index } })
    }

    /// Whether there is a file of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.blob(name).is_ok()
    }

    /// Opens a file of the image.
    pub(super) fn blob(&self, name: &str) -> Result<Blob, ImageError> {
        match &self.files {
            Files::Folder(folder) => plain_file(folder, name).map(Blob::File),
            Files::Archive { archive, index } => {
                let (offset, size) = find(index, name)?;
                let archive = archive.try_clone().map_err(file("read", &self.path))?;
                Ok(Blob::Part(At { archive, offset }.take(size)))
            }
        }
    }

    /// Reads a small file whole.
    pub(super) fn small(&self, name: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        self.blob(name)?
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(file("read", &self.path.join(name)))?;
        if bytes.len() as u64 > limit {
            return Err(ImageError::TooLarge {
                what: format!("the image's `{name}`"),
                limit: super::limits::human(limit),
                hint: "",
            });
        }
        Ok(bytes)
    }
}

pub(super) fn not_an_image(path: &Path, reason: &str) -> ImageError {
    ImageError::NotAnImage { path: path.to_owned(), reason: reason.to_owned() }
}

/// A regular file in a folder that may be hostile: no link is followed on the
/// way, and nothing outside is ever reached.
fn plain_file(folder: &OwnedFd, name: &str) -> Result<File, ImageError> {
    let refused =
        |reason: &str| ImageError::Blob { name: name.to_owned(), reason: reason.to_owned() };
    // Without O_NONBLOCK opening a FIFO would wait for its writer.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
    let opened = openat2(folder, name, how).map_err(|errno| match errno {
        Errno::ELOOP => refused("it is, or lies behind, a symbolic link"),
        Errno::EXDEV => refused("it leads out of the image"),
        other => refused(other.desc()),
    })?;
    let opened = File::from(opened);
    match opened.metadata() {
        Ok(meta) if meta.is_file() => Ok(opened),
        Ok(_) => Err(refused("it is not a regular file")),
        Err(error) => Err(refused(&error.to_string())),
    }
}

/// Unpacks a compressed archive to a file without a name.
fn decompress(
    archive: File,
    path: &Path,
    drafts: &Path,
    budget: &mut Budget,
) -> Result<File, ImageError> {
    let mut plain = tempfile::tempfile_in(drafts).map_err(file("create a file in", drafts))?;
    let mut reader = MultiGzDecoder::new(io::BufReader::new(archive));
    let mut buffer = vec![0_u8; 256 * 1024];
    loop {
        let length = reader.read(&mut buffer).map_err(file("decompress", path))?;
        if length == 0 {
            return Ok(plain);
        }
        budget.spend(length as u64)?;
        io::Write::write_all(&mut plain, &buffer[..length]).map_err(file("write in", drafts))?;
    }
}

/// Where each file of an archive begins.
fn index(
    archive: &mut File,
    path: &Path,
    budget: &mut Budget,
) -> Result<HashMap<String, Place>, ImageError> {
    archive.seek(SeekFrom::Start(0)).map_err(file("read", path))?;
    let size = archive.metadata().map_err(file("look at", path))?.len();
    let reader = archive.try_clone().map_err(file("read", path))?;
    let mut tarball = Tarball::new(reader, budget.limits);
    let mut index = HashMap::new();
    loop {
        let member = tarball.next_seek().map_err(file("read the archive", path))?;
        let Some(member) = member else { break };
        budget.entry(0)?;
        let Ok(name) = String::from_utf8(member.name.clone()) else { continue };
        let name = name.trim_start_matches("./").to_owned();
        let place = match member.kind {
            Kind::File if member.is_sparse() => continue,
            Kind::File => {
                let offset = tarball.position();
                if offset.checked_add(member.size).is_none_or(|end| end > size) {
                    return Err(not_an_image(path, &format!("it ends within `{name}`")));
                }
                Place::At { offset, size: member.size }
            }
            Kind::HardLink => Place::Link(String::from_utf8_lossy(&member.link).into_owned()),
            // Old versions of `docker save` write a layer once and link to it.
            Kind::Symlink => match join(&name, &String::from_utf8_lossy(&member.link)) {
                Some(target) => Place::Link(target),
                None => continue,
            },
            _ => continue,
        };
        index.insert(name, place);
    }
    if index.is_empty() {
        return Err(not_an_image(path, "it is no tar archive, or an empty one"));
    }
    Ok(index)
}

/// Follows links within an archive.
fn find(index: &HashMap<String, Place>, name: &str) -> Result<(u64, u64), ImageError> {
    let refused =
        |reason: &str| ImageError::Blob { name: name.to_owned(), reason: reason.to_owned() };
    let mut at = name;
    for _ in 0..LINKS {
        match index.get(at) {
            None => return Err(refused("the archive has no such file")),
            Some(Place::At { offset, size }) => return Ok((*offset, *size)),
            Some(Place::Link(target)) => at = target.trim_start_matches("./"),
        }
    }
    Err(refused("it is a link to a link to a link, and so on"))
}

/// Where a relative link leads inside the archive; nothing if it leads out.
fn join(name: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            other => parts.push(other),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_the_archive() {
        assert_eq!(join("a/layer.tar", "../b/layer.tar").as_deref(), Some("b/layer.tar"));
        assert_eq!(join("a/layer.tar", "./x").as_deref(), Some("a/x"));
        assert_eq!(join("a/layer.tar", "../../b"), None);
        assert_eq!(join("a", "/etc/passwd"), None);
    }

    #[test]
    fn circles_of_links_end() {
        let index = HashMap::from([
            ("a".to_owned(), Place::Link("b".to_owned())),
            ("b".to_owned(), Place::Link("a".to_owned())),
        ]);
        assert!(find(&index, "a").expect_err("a circle").to_string().contains("link to a link"));
        assert!(find(&index, "c").expect_err("missing").to_string().contains("no such file"));
    }
}
