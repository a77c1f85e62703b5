//! Making a filesystem that is attached later, in the child: see `child` for
//! the rules. Linux 5.2.

use std::ffi::{CStr, CString};
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::libc;

use super::perform::{close, pointer};
use crate::sys::raw::{call, signed, small, word};

const CLOSE_ON_EXEC: u32 = 1;
const SET_FLAG: u32 = 0;
const SET_STRING: u32 = 1;
const CREATE: u32 = 6;

/// Makes a filesystem and returns its detached mount.
pub(super) fn make(
    kind: &CStr,
    options: &[(CString, Option<CString>)],
    attributes: u64,
) -> Result<RawFd, Errno> {
    // SAFETY: the type is a valid string.
    let context = unsafe {
        call(libc::SYS_fsopen, [pointer(kind), word(CLOSE_ON_EXEC), 0, 0, 0, 0]).and_then(small)?
    };
    let mount = configure(context, options).and_then(|()| {
        let attributes = usize::try_from(attributes).map_err(|_| Errno::EINVAL)?;
        let arguments = [signed(context), word(CLOSE_ON_EXEC), attributes, 0, 0, 0];
        // SAFETY: no pointers.
        unsafe { call(libc::SYS_fsmount, arguments).and_then(small) }
    });
    close(context);
    mount
}

fn configure(context: RawFd, options: &[(CString, Option<CString>)]) -> Result<(), Errno> {
    for (name, value) in options {
        match value {
            Some(value) => configure_one(context, SET_STRING, pointer(name), pointer(value))?,
            None => configure_one(context, SET_FLAG, pointer(name), 0)?,
        }
    }
    configure_one(context, CREATE, 0, 0)
}

fn configure_one(context: RawFd, command: u32, name: usize, value: usize) -> Result<(), Errno> {
    let arguments = [signed(context), word(command), name, value, 0, 0];
    // SAFETY: name and value are valid strings or null, as the command wants.
    unsafe { call(libc::SYS_fsconfig, arguments).map(drop) }
}
