//! What a namespace's file says about itself (ioctl_nsfs(2)).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sched::CloneFlags;

use super::raw::{call, signed, small};

/// `NS_GET_NSTYPE`, Linux 4.11.
const GET_TYPE: usize = 0xb703;

/// The kind of a namespace.
///
/// # Errors
///
/// `ENOTTY` when the file is no namespace.
pub fn kind(file: BorrowedFd<'_>) -> Result<CloneFlags, Errno> {
    let arguments = [signed(file.as_raw_fd()), GET_TYPE, 0, 0, 0, 0];
    // SAFETY: this request has no argument.
    let flag = unsafe { call(libc::SYS_ioctl, arguments).and_then(small)? };
    Ok(CloneFlags::from_bits_retain(flag))
}
