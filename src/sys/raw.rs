//! Raw system calls without allocation, locks or buffered state, so that they
//! may also be made by a child that shares its parent's memory.

use nix::errno::Errno;
use nix::libc::{self, c_long};

/// Makes a system call. On failure the kernel's error is returned.
///
/// # Safety
///
/// Every argument must be valid for the call: pointers must point at memory
/// that the kernel may read or write as the call documents.
pub(super) unsafe fn call(number: c_long, arguments: [usize; 6]) -> Result<usize, Errno> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the caller vouches for the arguments. `libc::syscall` is a bare
    // trampoline that takes registers and sets `errno`.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    usize::try_from(result).map_err(|_| Errno::last())
}

/// A descriptor or other signed number as a system-call register.
#[allow(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "registers hold two's complement, and supported targets have 64 bits"
)]
pub(super) fn signed(value: impl Into<i64>) -> usize {
    let wide: i64 = value.into();
    wide as usize
}

/// An unsigned number of at most 32 bits as a system-call register.
pub(super) fn word(value: impl Into<u32>) -> usize {
    value.into() as usize
}

/// A result that is known to be a small number such as a descriptor.
pub(super) fn small(value: usize) -> Result<i32, Errno> {
    i32::try_from(value).map_err(|_| Errno::EOVERFLOW)
}
