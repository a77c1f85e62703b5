//! Signals that a process does not want to hear of.

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal, signal};

/// Ignores a signal from now on; children made by [`crate::sys::spawn`] get
/// its default back.
///
/// # Errors
/// For signals that cannot be ignored.
pub fn ignore(number: Signal) -> Result<(), Errno> {
    // SAFETY: ignoring a signal runs no handler.
    unsafe { signal(number, SigHandler::SigIgn) }.map(drop)
}

/// The signals that this process ignores, as bits: bit 0 is signal 1.
#[must_use]
pub fn ignored() -> u64 {
    super::spawn::ignored_signals()
}
