//! What the standard library does not offer about files.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

use super::raw::{call, signed, small};

/// A copy, closed on exec, of a descriptor that this process was started with
/// and that is known by its number only.
///
/// # Errors
/// `EBADF` when it was not. What this process opened itself is closed on exec,
/// which tells it from what it was started with.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a number that is not open is an error. The kernel
    // returns a fresh descriptor that nobody else owns.
    unsafe {
        let flags = call(libc::SYS_fcntl, [signed(number), signed(libc::F_GETFD), 0, 0, 0, 0])?;
        if flags & signed(libc::FD_CLOEXEC) != 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let arguments = [signed(number), signed(libc::F_DUPFD_CLOEXEC), 3, 0, 0, 0];
        let copy = call(libc::SYS_fcntl, arguments)?;
        Ok(OwnedFd::from_raw_fd(small(copy)?))
    }
}

/// Whether a file has an extended attribute with this value. False also when
/// it cannot be read.
#[must_use]
pub fn has_xattr(path: &Path, name: &CStr, value: &[u8]) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let mut buffer = [0_u8; 64];
    // SAFETY: both strings are valid, and the kernel writes at most
    // `buffer.len()` bytes into `buffer`.
    let length = unsafe {
        libc::getxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
    };
    usize::try_from(length).is_ok_and(|length| buffer.get(..length) == Some(value))
}
