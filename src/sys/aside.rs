//! Descriptors that are kept for long, out of the way of those that are not.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, fcntl};

/// The first of the numbers for descriptors that are kept.
const FIRST: RawFd = 256;

/// Gives a descriptor that is kept for long, such as one for each of a
/// thousand children, a high number, so that it does not cost the children
/// that come after it: [`Command::spawn`](super::spawn::Command::spawn) gives
/// a child a copy of its parent's descriptors only up to the highest that it
/// needs. Where that cannot be it stays what it is.
#[must_use]
pub fn aside(fd: OwnedFd) -> OwnedFd {
    if fd.as_raw_fd() >= FIRST {
        return fd;
    }
    match fcntl(fd.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(FIRST)) {
        // SAFETY: the call succeeded, so this is a fresh descriptor that
        // nobody else owns.
        Ok(moved) => unsafe { OwnedFd::from_raw_fd(moved) },
        Err(_) => fd,
    }
}
