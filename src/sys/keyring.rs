//! The session keyring (session-keyring(7)): keys that a process inherits and
//! that no namespace divides.
//!
//! It neither adds nor reads keys.

use nix::errno::Errno;
use nix::libc;

use super::raw::call;

/// `KEYCTL_JOIN_SESSION_KEYRING` of linux/keyctl.h.
const JOIN_SESSION_KEYRING: usize = 1;

/// Gives the calling thread, and the processes that it will make, a new session
/// keyring without keys in place of the inherited one.
///
/// # Errors
///
/// `EDQUOT` where the user has as many keys as `/proc/sys/kernel/keys/maxkeys`
/// says. Where the kernel has no keyrings, or a filter forbids their use, there
/// is nothing to leave.
pub fn leave_session() -> Result<(), Errno> {
    join_session(0)
}

/// Joins the session keyring whose name is at this address, or a new one
/// without a name if it is 0.
pub(super) fn join_session(name: usize) -> Result<(), Errno> {
    // SAFETY: the name is null, or a string that the caller keeps.
    match unsafe { call(libc::SYS_keyctl, [JOIN_SESSION_KEYRING, name, 0, 0, 0, 0]) } {
        // EPERM is what the filter of a container around this process answers.
        Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The serial number of this thread's session keyring: `KEYCTL_GET_KEYRING_ID`
    /// (0) of `KEY_SPEC_SESSION_KEYRING` (-3), not made if there is none.
    fn serial() -> Result<usize, Errno> {
        let keyring = super::super::raw::signed(-3);
        // SAFETY: no pointers.
        unsafe { call(libc::SYS_keyctl, [0, keyring, 0, 0, 0, 0]) }
    }

    #[test]
    fn the_session_keyring_is_another_one_then() {
        let (before, between, after) = std::thread::spawn(|| {
            leave_session().expect("left");
            let before = serial();
            leave_session().expect("left");
            (before, serial(), serial())
        })
        .join()
        .expect("no panic");
        if before == Err(Errno::ENOSYS) || before == Err(Errno::EPERM) {
            // Nothing was inherited either.
            return;
        }
        assert!(before.is_ok());
        assert_ne!(before, between);
        assert_eq!(between, after);
    }
}
