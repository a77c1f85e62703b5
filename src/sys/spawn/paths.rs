//! Looking up paths of a container and working on what they lead to, in the
//! child: see `child` for the rules.
//!
//! The content of a root filesystem is not trusted: any name in it may be a
//! link, and another process that shares it may change it at any moment. So
//! every path is looked up once (openat2(2), Linux 5.6), and what follows is
//! done to the descriptor that this gave.

use std::ffi::CStr;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::statfs::{FsType, PROC_SUPER_MAGIC};

use super::child::Context;
use super::perform::{
    AT_EMPTY_PATH, AT_RECURSIVE, MOUNT_ATTR_RDONLY, MOVE_MOUNT_F_EMPTY_PATH, clone_tree, close,
    mount, pointer, set_attributes, simple, slot_fd,
};
use super::{Links, MountAttributes, Node, Place};
use crate::sys::raw::{call, signed, small, word};

const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
const NO_MAGIC_LINKS: u64 = libc::RESOLVE_NO_MAGICLINKS;
const PATH_BYTES: usize = libc::PATH_MAX as usize;
/// The kernel gives up a lookup with `EAGAIN` when a rename elsewhere could
/// have led it astray; renames without end are an attack.
const LOOKUPS: u32 = 128;

/// `openat2`.
fn look_up(directory: usize, path: &CStr, flags: i32, resolve: u64) -> Result<RawFd, Errno> {
    let flags = u64::from((flags | libc::O_PATH | libc::O_CLOEXEC).cast_unsigned());
    // `struct open_how`: flags, mode, resolve.
    let how = [flags, 0, resolve];
    let arguments = [directory, pointer(path), how.as_ptr() as usize, size_of_val(&how), 0, 0];
    let mut result = Err(Errno::EAGAIN);
    for _ in 0..LOOKUPS {
        // SAFETY: the path is a valid string and `how` a whole structure.
        result = unsafe { call(libc::SYS_openat2, arguments).and_then(small) };
        if result != Err(Errno::EAGAIN) {
            break;
        }
    }
    result
}

/// Where a lookup starts, and how.
fn start<'a>(context: &Context<'_>, place: &'a Place) -> Result<(usize, &'a CStr, u64), Errno> {
    match place.split() {
        (Some(slot), path) => {
            let resolve = NO_MAGIC_LINKS | libc::RESOLVE_IN_ROOT;
            Ok((signed(slot_fd(context, slot)?), path, resolve))
        }
        // Absolute, so that the child's own root is where it starts and ends.
        (None, path) => Ok((signed(libc::AT_FDCWD), path, NO_MAGIC_LINKS)),
    }
}

/// Opens what is at a place.
fn find(context: &Context<'_>, place: &Place, flags: i32, links: Links) -> Result<RawFd, Errno> {
    let (directory, path, mut resolve) = start(context, place)?;
    if links == Links::Refuse {
        resolve |= libc::RESOLVE_NO_SYMLINKS;
    }
    look_up(directory, path, flags, resolve)
}

/// Attaches a detached tree to an open place.
fn attach_to(tree: RawFd, target: RawFd) -> Result<(), Errno> {
    let empty = pointer(c"");
    let flags = word(MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
    // SAFETY: both paths are valid strings.
    unsafe {
        call(libc::SYS_move_mount, [signed(tree), empty, signed(target), empty, flags, 0]).map(drop)
    }
}

/// Attaches a detached tree.
pub(super) fn attach(
    context: &Context<'_>,
    tree: RawFd,
    place: &Place,
    flags: i32,
    links: Links,
) -> Result<(), Errno> {
    let target = find(context, place, flags, links)?;
    let result = attach_to(tree, target);
    close(target);
    result
}

/// Makes something, unless there is anything of that name.
pub(super) fn make(context: &Context<'_>, place: &Place, node: &Node) -> Result<(), Errno> {
    let (directory, path, resolve) = start(context, place)?;
    let bytes = path.to_bytes();
    let Some(slash) = bytes.iter().rposition(|byte| *byte == b'/') else {
        return make_in(directory, path, node);
    };
    let mut above = [0_u8; PATH_BYTES];
    // The folder of `/x` is `/`.
    let length = slash.max(1);
    above.get_mut(..length).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(&bytes[..length]);
    let above = CStr::from_bytes_until_nul(&above).map_err(|_| Errno::ENAMETOOLONG)?;
    let folder = look_up(directory, above, libc::O_DIRECTORY, resolve)?;
    let result = make_in(signed(folder), &path[slash + 1..], node);
    close(folder);
    result
}

fn make_in(folder: usize, name: &CStr, node: &Node) -> Result<(), Errno> {
    let result = match node {
        Node::Directory(mode) => simple(libc::SYS_mkdirat, [folder, pointer(name), word(*mode)]),
        Node::File => make_node(folder, name, libc::S_IFREG | 0o644, 0),
        Node::Symlink(target) => {
            simple(libc::SYS_symlinkat, [pointer(target), folder, pointer(name)])
        }
        Node::Special { mode, device, owner } => {
            let number = libc::makedev(device.0, device.1);
            make_node(folder, name, *mode, number).and_then(|()| own(folder, name, *mode, *owner))
        }
    };
    match result {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

fn make_node(folder: usize, name: &CStr, mode: u32, device: u64) -> Result<(), Errno> {
    let device = usize::try_from(device).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the name is a valid string.
    unsafe { call(libc::SYS_mknodat, [folder, pointer(name), word(mode), device, 0, 0]).map(drop) }
}

/// Gives a new node its owner, and its mode whatever the umask is. The name
/// was made a moment ago; if somebody put a link there instead, it is changed
/// itself and not followed (and its mode cannot be).
fn own(folder: usize, name: &CStr, mode: u32, owner: (u32, u32)) -> Result<(), Errno> {
    let path = look_up(folder, name, libc::O_NOFOLLOW, libc::RESOLVE_NO_SYMLINKS)?;
    let (user, group) = (word(owner.0), word(owner.1));
    let arguments = [signed(path), pointer(c""), user, group, word(AT_EMPTY_PATH), 0];
    // SAFETY: a valid, empty path.
    let result = unsafe { call(libc::SYS_fchownat, arguments).map(drop) };
    close(path);
    result?;
    simple(libc::SYS_fchmodat, [folder, pointer(name), word(mode & 0o7777)])
}

/// Opens a character device, and fails with `ENODEV` when it is another one or
/// none.
pub(super) fn open_device(path: &CStr, number: (u32, u32)) -> Result<RawFd, Errno> {
    let resolve = NO_MAGIC_LINKS | libc::RESOLVE_NO_SYMLINKS;
    let fd = look_up(signed(libc::AT_FDCWD), path, 0, resolve)?;
    // SAFETY: all zeroes is a valid `statx`, a structure of numbers.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let at = std::ptr::from_mut(&mut found) as usize;
    let flags = word(AT_EMPTY_PATH);
    let arguments = [signed(fd), pointer(c""), flags, word(libc::STATX_TYPE), at, 0];
    // SAFETY: `found` is valid for writing.
    let asked = unsafe { call(libc::SYS_statx, arguments).map(drop) };
    let is_device = u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFCHR;
    let is_right = is_device && (found.stx_rdev_major, found.stx_rdev_minor) == number;
    match asked {
        Ok(()) if is_right => Ok(fd),
        other => {
            close(fd);
            Err(other.err().unwrap_or(Errno::ENODEV))
        }
    }
}

/// Looks first what there is to hide: an attempt to bind a file over a
/// directory fails only after the kernel has made the mount, and undoing that
/// takes an RCU grace period.
pub(super) fn mask(context: &Context<'_>, place: &Place, null: RawFd) -> Result<(), Errno> {
    match find(context, place, libc::O_DIRECTORY, Links::Follow) {
        Ok(folder) => {
            let result = mask_folder(folder);
            close(folder);
            result
        }
        Err(Errno::ENOTDIR) => {
            let file = match find(context, place, 0, Links::Follow) {
                // A path through a file.
                Err(Errno::ENOTDIR) => return Ok(()),
                other => other?,
            };
            let result = clone_tree(signed(null), c"", AT_EMPTY_PATH).and_then(|tree| {
                let result = attach_to(tree, file);
                close(tree);
                result
            });
            close(file);
            result
        }
        Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Mounts on the directory itself, not on a path that could have changed.
fn mask_folder(folder: RawFd) -> Result<(), Errno> {
    simple(libc::SYS_fchdir, [signed(folder), 0, 0])?;
    let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount(c"tmpfs", c".", Some(c"tmpfs"), flags, c"size=0k,mode=755")?;
    simple(libc::SYS_chdir, [pointer(c"/"), 0, 0])
}

pub(super) fn protect(context: &Context<'_>, place: &Place) -> Result<(), Errno> {
    let target = match find(context, place, 0, Links::Follow) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        other => other?,
    };
    let all = AT_EMPTY_PATH | AT_RECURSIVE;
    let result = clone_tree(signed(target), c"", all).and_then(|tree| {
        let attributes = MountAttributes { set: MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
        let result = set_attributes(signed(tree), c"", all, &attributes)
            .and_then(|()| attach_to(tree, target));
        close(tree);
        result
    });
    close(target);
    result
}

/// Opens the present root, and makes the working directory the root.
pub(super) fn borrow_root() -> Result<RawFd, Errno> {
    let root = look_up(signed(libc::AT_FDCWD), c"/", libc::O_DIRECTORY, 0)?;
    simple(libc::SYS_chroot, [pointer(c"."), 0, 0]).inspect_err(|_| close(root))?;
    Ok(root)
}

/// Makes an open folder the root, and what was the root the working directory.
pub(super) fn return_root(root: RawFd) -> Result<(), Errno> {
    let borrowed = look_up(signed(libc::AT_FDCWD), c"/", libc::O_DIRECTORY, 0)?;
    let result = simple(libc::SYS_fchdir, [signed(root), 0, 0])
        .and_then(|()| simple(libc::SYS_chroot, [pointer(c"."), 0, 0]))
        .and_then(|()| simple(libc::SYS_fchdir, [signed(borrowed), 0, 0]));
    close(borrowed);
    result
}

/// A link to a descriptor, as `/proc/self/fd` has them, is refused: it could
/// lead to a directory of the host that is still open (the CVE-2024-21626
/// class). And whatever led there, a directory outside the root has no path
/// that starts with a slash (getcwd(2)).
pub(super) fn working_directory(path: &CStr) -> Result<(), Errno> {
    let folder = look_up(signed(libc::AT_FDCWD), path, libc::O_DIRECTORY, NO_MAGIC_LINKS)?;
    let result = simple(libc::SYS_fchdir, [signed(folder), 0, 0]);
    close(folder);
    result?;
    let mut inside = [0_u8; PATH_BYTES];
    simple(libc::SYS_getcwd, [inside.as_mut_ptr() as usize, inside.len(), 0])?;
    if inside[0] == b'/' { Ok(()) } else { Err(Errno::ENOENT) }
}

/// Fails with `ENODEV` when an open file is not in a `procfs`.
pub(super) fn expect_procfs(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: all zeroes is a valid `statfs`, a structure of numbers.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    simple(libc::SYS_fstatfs, [signed(fd), std::ptr::from_mut(&mut found) as usize, 0])?;
    if FsType(found.f_type) == PROC_SUPER_MAGIC { Ok(()) } else { Err(Errno::ENODEV) }
}
