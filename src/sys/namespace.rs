//! What a namespace's file says about itself (ioctl_nsfs(2)), which one a socket
//! is in, and whether the ids of this process are those of the host.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sched::CloneFlags;

use super::raw::{call, signed, small};

/// `NS_GET_NSTYPE`, Linux 4.11.
const GET_TYPE: usize = 0xb703;

/// `SIOCGSKNS` of include/uapi/linux/sockios.h, Linux 4.10.
const OF_SOCKET: usize = 0x894c;

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

/// The network namespace of a socket. One that was accepted is in that of
/// whoever connected (`unix_stream_connect` in net/unix/af_unix.c), also when
/// nothing else of it lives any more.
///
/// # Errors
///
/// `EPERM` without `CAP_NET_ADMIN` there.
pub fn network_of(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let arguments = [signed(socket.as_raw_fd()), OF_SOCKET, 0, 0, 0, 0];
    // SAFETY: this request has no argument.
    let file = unsafe { call(libc::SYS_ioctl, arguments).and_then(small)? };
    // SAFETY: the kernel has just made this descriptor for us, closed on exec
    // (`open_related_ns` in fs/nsfs.c).
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

/// Whether this process is in the user namespace of the host: all ids are
/// mapped to themselves (user_namespaces(7)). When in doubt it is not.
#[must_use]
pub fn in_first_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}
