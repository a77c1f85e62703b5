//! Limits of this process.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Allows this process, and whatever it starts, as many open files as its
/// hard limit says: the soft one is often 1024, so that programs that use
/// select(2) do not meet a higher number, which ours do not.
///
/// # Errors
/// What the kernel says.
pub fn all_descriptors() -> nix::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
}
