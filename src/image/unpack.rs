//! One layer from its entries to a folder that overlayfs can mount.
//!
//! Entries come in any order and may lack their parents. Marks of removal
//! (`.wh.NAME`, `.wh..wh..opq`: OCI image specification, "Whiteouts") are about
//! the layers below only, wherever they stand in the archive, so they are
//! carried out last: as character devices numbered 0, which anybody may make
//! since Linux 5.8, and as an attribute of the folder.
//!
//! As root, files get the owners that the archive gives them; otherwise all
//! belong to the caller, and device nodes are refused.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use nix::unistd::{linkat, mkfifoat, symlinkat};

use super::ImageError;
use super::attributes::{Attributes, Lost, remarks};
use super::limits::Budget;
use super::lookup::Merged;
use super::removals::is_mark;
use super::tarball::{Kind, Member, Tarball};
use super::tree::{Name, Tree, kind};

/// A layer that is being unpacked.
pub(super) struct Layer<'a> {
    pub(super) label: &'a str,
    pub(super) below: Option<&'a Merged>,
    pub(super) budget: &'a RefCell<Budget>,
    pub(super) privileged: bool,
}

/// The state of unpacking.
pub(super) struct Work<'a> {
    pub(super) layer: &'a Layer<'a>,
    tree: Tree,
    folders: BTreeMap<Name, Attributes>,
    /// Names to hide, and folders that hide all below.
    pub(super) whiteouts: Vec<Name>,
    pub(super) opaque: Vec<Name>,
    lost: Lost,
}

/// Why an entry was not unpacked, before it is known which.
pub(super) enum Trouble {
    Refused(String),
    Failed(&'static str, io::Error),
    Whole(ImageError),
}

impl From<ImageError> for Trouble {
    fn from(error: ImageError) -> Self {
        Self::Whole(error)
    }
}

pub(super) fn refused<T>(reason: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Refused(reason.into()))
}

/// The kernel's refusal of an operation.
pub(super) fn failed(operation: &'static str) -> impl FnOnce(Errno) -> Trouble {
    move |errno| Trouble::Failed(operation, errno.into())
}

impl Layer<'_> {
    /// Unpacks all entries into an empty folder; returns what could not be
    /// kept.
    pub(super) fn unpack<R: Read>(
        &self,
        tarball: &mut Tarball<R>,
        into: &Path,
    ) -> Result<Vec<String>, ImageError> {
        let tree =
            Tree::open(into).map_err(|errno| super::error::file("open", into)(errno.into()))?;
        let mut work = Work {
            layer: self,
            tree,
            folders: BTreeMap::new(),
            whiteouts: Vec::new(),
            opaque: Vec::new(),
            lost: Lost::new(),
        };
        while let Some(member) = tarball.next().map_err(|error| self.unreadable(error))? {
            work.member(&member, tarball).map_err(|trouble| self.explain(&member.name, trouble))?;
        }
        work.finish()?;
        Ok(remarks(&work.lost, self.label))
    }

    /// A stream that broke, or that a limit stopped.
    pub(super) fn unreadable(&self, error: io::Error) -> ImageError {
        match error.downcast::<ImageError>() {
            Ok(inner) => inner,
            Err(source) => ImageError::Layer { layer: self.label.to_owned(), source },
        }
    }

    fn explain(&self, name: &[u8], trouble: Trouble) -> ImageError {
        let layer = self.label.to_owned();
        // A hostile name shall not fill the screen or steer the terminal.
        let text = String::from_utf8_lossy(name);
        let entry: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
        match trouble {
            Trouble::Whole(error) => error,
            Trouble::Refused(reason) => ImageError::Entry { layer, entry, reason },
            Trouble::Failed(operation, source) => match source.downcast::<ImageError>() {
                Ok(inner) => inner,
                Err(source) => ImageError::Unpack { operation, layer, entry, source },
            },
        }
    }
}

impl Work<'_> {
    fn member<R: Read>(
        &mut self,
        member: &Member,
        tarball: &mut Tarball<R>,
    ) -> Result<(), Trouble> {
        let size = if member.kind == Kind::File { member.size } else { 0 };
        self.layer.budget.borrow_mut().entry(size)?;
        let name = self.name(&member.name)?;
        if is_mark(&name) {
            return self.mark(&name);
        }
        let attributes = Attributes::of(member).or_else(refused)?;
        let Some((part, parent)) = name.split() else {
            if member.kind != Kind::Folder {
                return refused("it takes the place of the root folder");
            }
            self.folders.insert(name, attributes);
            return Ok(());
        };
        let parent = self.parent(&parent)?;
        self.make_room(&parent, part, member.kind)?;
        match member.kind {
            Kind::Folder => {
                match Tree::make_folder(&parent, part) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(failed("make the folder")(errno)),
                }
                self.folders.insert(name, attributes);
                Ok(())
            }
            Kind::File => self.file(&parent, part, member, &attributes, tarball),
            Kind::HardLink => self.hard_link(&parent, part, member),
            _ => self.special(&parent, part, member, &attributes),
        }
    }

    fn name(&self, bytes: &[u8]) -> Result<Name, Trouble> {
        let limit = self.layer.budget.borrow().limits.path;
        Name::parse(bytes, limit).or_else(refused)
    }

    /// Opens a folder, and makes it with all above it where no entry did.
    pub(super) fn parent(&mut self, name: &Name) -> Result<Rc<OwnedFd>, Trouble> {
        match self.tree.folder(name) {
            Ok(opened) => Ok(opened),
            Err(Errno::ENOENT) => self.imply(name),
            Err(Errno::ELOOP | Errno::ENOTDIR | Errno::EXDEV) => {
                refused("it lies below something that is not a folder")
            }
            Err(errno) => Err(failed("open the folder of")(errno)),
        }
    }

    fn imply(&mut self, name: &Name) -> Result<Rc<OwnedFd>, Trouble> {
        let Some((part, above)) = name.split() else { return refused("it has no folder") };
        let above = self.parent(&above)?;
        let below = match self.layer.below {
            Some(merged) => merged.status(&name.path())?,
            None => None,
        };
        if below.is_some_and(|stat| kind(&stat) != SFlag::S_IFDIR) {
            let path = name.path();
            return refused(format!("in the layers below, `{}` is not a folder", path.display()));
        }
        Tree::make_folder(&above, part).map_err(failed("make the folder of"))?;
        self.folders.insert(name.clone(), Attributes::implied(below.as_ref()));
        self.tree.folder(name).map_err(failed("open the folder of"))
    }

    /// An entry may come twice: the later one counts, as with tar(1), unless
    /// it is of another kind, which no honest archive needs.
    fn make_room(&self, parent: &OwnedFd, part: &OsStr, new: Kind) -> Result<(), Trouble> {
        let Some(old) = Tree::status(parent, part).map_err(failed("look at"))? else {
            return Ok(());
        };
        let same = match kind(&old) {
            SFlag::S_IFDIR => {
                return match new {
                    Kind::Folder => Ok(()),
                    _ => refused("it takes the place of a folder of the same layer"),
                };
            }
            SFlag::S_IFREG => matches!(new, Kind::File | Kind::HardLink),
            SFlag::S_IFLNK => matches!(new, Kind::Symlink | Kind::HardLink),
            SFlag::S_IFIFO => matches!(new, Kind::Fifo | Kind::HardLink),
            SFlag::S_IFCHR => matches!(new, Kind::CharacterDevice | Kind::HardLink),
            SFlag::S_IFBLK => matches!(new, Kind::BlockDevice | Kind::HardLink),
            _ => false,
        };
        if !same {
            return refused("it comes twice in the layer, as different kinds of file");
        }
        if new == Kind::HardLink {
            // It might be a link to itself.
            return Ok(());
        }
        Tree::unlink(parent, part).map_err(failed("replace"))
    }

    fn file<R: Read>(
        &mut self,
        parent: &OwnedFd,
        part: &OsStr,
        member: &Member,
        attributes: &Attributes,
        tarball: &mut Tarball<R>,
    ) -> Result<(), Trouble> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened =
            openat(parent, part, flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(failed("create"))?;
        let opened = File::from(opened);
        let write = |source| Trouble::Failed("write", source);
        let mut buffer = [0_u8; 64 * 1024];
        for segment in member.data() {
            let (mut offset, mut left) = (segment.offset, segment.length);
            while left > 0 {
                let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                let length = tarball
                    .read_data(&mut buffer[..room])
                    .map_err(|source| Trouble::Failed("read", source))?;
                opened.write_all_at(&buffer[..length], offset).map_err(write)?;
                offset += length as u64;
                left -= length as u64;
            }
        }
        // Holes at the end.
        opened.set_len(member.size).map_err(write)?;
        self.set(&opened, attributes, &member.name)
    }

    fn set(&mut self, opened: &File, to: &Attributes, name: &[u8]) -> Result<(), Trouble> {
        let name = String::from_utf8_lossy(name);
        let owners = self.layer.privileged;
        to.set(opened, owners, &name, &mut self.lost).map_err(failed("set the attributes of"))
    }

    fn hard_link(
        &mut self,
        parent: &OwnedFd,
        part: &OsStr,
        member: &Member,
    ) -> Result<(), Trouble> {
        // Some builders write the target of a link as an absolute path of the
        // image; it means the same.
        let target = member.link.strip_prefix(b"/").unwrap_or(&member.link);
        let target = self.name(target).map_err(|_| {
            Trouble::Refused("it is a hard link to a name that cannot be in the layer".to_owned())
        })?;
        let missing = "it is a hard link to something that is not in the layer before it";
        let Some((target_part, target_parent)) = target.split() else { return refused(missing) };
        let folder = match self.tree.folder(&target_parent) {
            Ok(folder) => folder,
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR) => return refused(missing),
            Err(errno) => return Err(failed("open the folder of")(errno)),
        };
        let Some(found) = Tree::status(&folder, target_part).map_err(failed("look at"))? else {
            return refused(missing);
        };
        if kind(&found) == SFlag::S_IFDIR {
            return refused("it is a hard link to a folder");
        }
        if let Some(old) = Tree::status(parent, part).map_err(failed("look at"))? {
            if (old.st_dev, old.st_ino) == (found.st_dev, found.st_ino) {
                return Ok(());
            }
            if kind(&old) != kind(&found) {
                return refused("it comes twice in the layer, as different kinds of file");
            }
            Tree::unlink(parent, part).map_err(failed("replace"))?;
        }
        linkat(&*folder, target_part, parent, part, AtFlags::empty()).map_err(failed("link"))
    }

    /// Links, FIFOs and devices.
    fn special(
        &mut self,
        parent: &OwnedFd,
        part: &OsStr,
        member: &Member,
        attributes: &Attributes,
    ) -> Result<(), Trouble> {
        let limit = self.layer.budget.borrow().limits.path;
        let device = match member.kind {
            Kind::Symlink => {
                if member.link.len() > limit || member.link.contains(&0) {
                    return refused("it points at a name that is too long or has a NUL byte");
                }
                let target = OsString::from_vec(member.link.clone());
                symlinkat(target.as_os_str(), parent, part).map_err(failed("make the link"))?;
                None
            }
            Kind::Fifo => {
                mkfifoat(parent, part, Mode::S_IRUSR).map_err(failed("make the FIFO"))?;
                None
            }
            Kind::CharacterDevice => Some(SFlag::S_IFCHR),
            Kind::BlockDevice => Some(SFlag::S_IFBLK),
            Kind::Other(byte) => {
                return refused(format!("its type {:?} is not known here", char::from(byte)));
            }
            Kind::File | Kind::Folder | Kind::HardLink => return refused("it has no type"),
        };
        if let Some(device) = device {
            let (major, minor) = member.device;
            if (major, minor) == (0, 0) {
                return refused("device 0:0 would stand for a removed file");
            }
            if !self.layer.privileged {
                return refused("only root can make device nodes");
            }
            let number = makedev(major.into(), minor.into());
            mknodat(parent, part, device, Mode::S_IRUSR, number)
                .map_err(failed("make the device"))?;
        }
        let name = String::from_utf8_lossy(&member.name);
        let is_link = member.kind == Kind::Symlink;
        let owners = self.layer.privileged;
        attributes
            .set_at(parent, part, is_link, owners, &name, &mut self.lost)
            .map_err(failed("set the attributes of"))
    }

    /// What can only be done when all entries are there: marks of removal,
    /// then the attributes of folders, which new entries would have changed.
    fn finish(&mut self) -> Result<(), ImageError> {
        let explain = |layer: &Layer<'_>, name: &Name, trouble| {
            layer.explain(name.path().as_os_str().as_bytes(), trouble)
        };
        for name in std::mem::take(&mut self.whiteouts) {
            self.hide(&name).map_err(|trouble| explain(self.layer, &name, trouble))?;
        }
        for name in std::mem::take(&mut self.opaque) {
            self.hide_all(&name).map_err(|trouble| explain(self.layer, &name, trouble))?;
        }
        let root = Name::default();
        if !self.folders.contains_key(&root) {
            let below = self.layer.below.map(|merged| merged.status(Path::new("")));
            let below = below.transpose()?.flatten();
            self.folders.insert(root, Attributes::implied(below.as_ref()));
        }
        // The deepest first: afterwards its folder may be closed even to us.
        for (name, attributes) in std::mem::take(&mut self.folders).into_iter().rev() {
            let mut set = || {
                let opened = self.tree.folder(&name).map_err(failed("open the folder"))?;
                let opened = opened.try_clone().map_err(|e| Trouble::Failed("open", e))?;
                self.set(&File::from(opened), &attributes, name.path().as_os_str().as_bytes())
            };
            set().map_err(|trouble| explain(self.layer, &name, trouble))?;
        }
        Ok(())
    }
}
