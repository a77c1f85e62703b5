//! What a namespace's file says about itself (ioctl_nsfs(2)), and whether the
//! ids of this process are those of the host.

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

/// Whether this process is in the user namespace of the host: all ids are
/// mapped to themselves (user_namespaces(7)). When in doubt it is not.
#[must_use]
pub fn in_first_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}
