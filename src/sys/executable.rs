//! Executables that nobody can write to through a running process.
//!
//! A process of a container can reach the executable of whoever made it
//! (`/proc/self/exe`, see `spawn::guard`). A long-lived launching process
//! avoids that for all its children at no cost by being executed from what
//! [`sealed`] returns.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::raw::{call, signed, small, word};

/// `MFD_EXEC` (Linux 6.3), which `nix` does not name: says that the file is to
/// be executed, where `vm.memfd_noexec` would otherwise forbid it.
const MFD_EXEC: MFdFlags = MFdFlags::from_bits_retain(0x10);

const OPEN_TREE_CLONE: u32 = 1;
const MOUNT_ATTR_RDONLY: u64 = 1;

/// The executable at `path`, to be executed through its descriptor: on a
/// read-only mount of its own that is attached nowhere, so that nobody can make
/// it writable; or, without the privilege to mount, a copy in a sealed memory
/// file.
///
/// # Errors
///
/// When the file cannot be read, or copied.
pub fn sealed(path: &Path) -> io::Result<OwnedFd> {
    match read_only_mount(path) {
        Err(Errno::EPERM | Errno::ENOSYS | Errno::EINVAL) => {
            sealed_copy(c"unladen", &mut File::open(path)?)
        }
        other => Ok(other?),
    }
}

/// `open_tree` with a copy (Linux 5.2) and `mount_setattr` (Linux 5.12).
fn read_only_mount(path: &Path) -> Result<OwnedFd, Errno> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let flags = word(OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned());
    let arguments = [signed(libc::AT_FDCWD), path.as_ptr() as usize, flags, 0, 0, 0];
    // SAFETY: a valid path; the kernel returns a fresh descriptor that nobody
    // else owns.
    let tree = unsafe {
        let fd = call(libc::SYS_open_tree, arguments).and_then(small)?;
        OwnedFd::from_raw_fd(fd)
    };
    let attributes = [MOUNT_ATTR_RDONLY, 0, 0, 0];
    let fd = signed(tree.as_raw_fd());
    let (empty, at) = (c"".as_ptr() as usize, attributes.as_ptr() as usize);
    let arguments = [fd, empty, signed(libc::AT_EMPTY_PATH), at, size_of_val(&attributes), 0];
    // SAFETY: `attributes` has the layout of `struct mount_attr`: four u64.
    unsafe { call(libc::SYS_mount_setattr, arguments)? };
    Ok(tree)
}

/// A sealed memory file, open for reading only: what is open for writing
/// cannot be executed.
pub(super) fn sealed_copy(name: &CStr, content: &mut impl Read) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = match memfd_create(name, flags | MFD_EXEC) {
        Err(Errno::EINVAL) => memfd_create(name, flags)?,
        other => other?,
    };
    let mut file = File::from(file);
    io::copy(content, &mut file)?;
    let seals = SealFlag::F_SEAL_SEAL
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?.into())
}

/// Whether this process was executed from what [`sealed`] returns. When in
/// doubt it was not.
#[must_use]
pub fn is_sealed() -> bool {
    File::open("/proc/self/exe").is_ok_and(|file| is_sealed_file(&file).unwrap_or(false))
}

fn is_sealed_file(file: &File) -> io::Result<bool> {
    if let Ok(seals) = fcntl(file, FcntlArg::F_GET_SEALS) {
        return Ok(SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_WRITE));
    }
    if !fstatvfs(file.as_fd())?.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(false);
    }
    // A mount that is attached somewhere may become writable.
    let path = format!("/proc/self/fdinfo/{}", file.as_raw_fd());
    let text = std::fs::read_to_string(path)?;
    let Some(mount) = text.lines().find_map(|line| line.strip_prefix("mnt_id:")) else {
        return Ok(false);
    };
    let attached = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(!attached.lines().any(|line| line.split(' ').next() == Some(mount.trim())))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_sealed_executable_runs_and_cannot_be_written() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("sleep");
        std::fs::copy("/bin/sleep", &path).expect("copied");
        let copy = || sealed_copy(c"test", &mut File::open(&path).expect("there"));
        for (what, file) in [("best", sealed(&path)), ("copy", copy())] {
            let file = file.expect(what);
            let link = format!("/proc/self/fd/{}", file.as_raw_fd());
            let mut child = Command::new(&link).arg("1000").spawn().expect("started");
            let exe = format!("/proc/{}/exe", child.id());
            drop(file);
            let opened = File::open(&exe).expect("readable");
            assert!(is_sealed_file(&opened).expect("known"), "{what}");
            let error = File::options().write(true).open(&exe).expect_err("refused");
            let refused = [Errno::EROFS, Errno::ETXTBSY].map(|errno| errno as i32);
            assert!(refused.contains(&error.raw_os_error().expect("errno")), "{what}: {error}");
            child.kill().expect("killed");
            child.wait().expect("ended");
        }
        let plain = File::open(&path).expect("there");
        assert!(!is_sealed_file(&plain).expect("known"));
    }
}
