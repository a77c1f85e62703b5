//! What the standard library does not offer about files.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

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
