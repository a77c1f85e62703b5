//! The system calls that only the loader makes. Each gives the kernel's
//! error number.

use core::ffi::CStr;

use crate::start::Environment;
use crate::syscall::call;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const EXECVE: usize = 59;
    pub const CHDIR: usize = 80;
    pub const CHROOT: usize = 161;
    pub const MOUNT: usize = 165;
    pub const FINIT_MODULE: usize = 313;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const MOUNT: usize = 40;
    pub const CHDIR: usize = 49;
    pub const CHROOT: usize = 51;
    pub const EXECVE: usize = 221;
    pub const FINIT_MODULE: usize = 273;
}

/// The module is there already.
const EEXIST: u16 = 17;

/// What a call gave: a number, or the error.
fn result(value: isize) -> Result<i32, u16> {
    if value < 0 { Err(value.unsigned_abs() as u16) } else { Ok(value as i32) }
}

/// Loads a module without parameters.
pub fn load_module(fd: i32) -> Result<(), u16> {
    // SAFETY: the parameters are an empty NUL-terminated text.
    let loaded =
        unsafe { call(number::FINIT_MODULE, [fd as usize, c"".as_ptr() as usize, 0, 0, 0, 0]) };
    match result(loaded) {
        Ok(_) | Err(EEXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Mounts for reading only, except that devices can be written to in any
/// case.
pub fn mount(source: &CStr, target: &CStr, kind: &CStr, data: &CStr) -> Result<(), u16> {
    const READ_ONLY: usize = 1;
    let texts = [source, target, kind].map(|text| text.as_ptr() as usize);
    // SAFETY: all four are NUL-terminated.
    let mounted = unsafe {
        let data = data.as_ptr() as usize;
        call(number::MOUNT, [texts[0], texts[1], texts[2], READ_ONLY, data, 0])
    };
    result(mounted).map(|_| ())
}

/// Makes a folder the root and the current folder.
pub fn change_root(folder: &CStr) -> Result<(), u16> {
    // SAFETY: both take one NUL-terminated path.
    let (entered, rooted) = unsafe {
        let entered = call(number::CHDIR, [folder.as_ptr() as usize, 0, 0, 0, 0, 0]);
        (entered, call(number::CHROOT, [c".".as_ptr() as usize, 0, 0, 0, 0, 0]))
    };
    result(entered).and_then(|_| result(rooted)).map(|_| ())
}

/// Becomes a program with this environment; returns the error.
pub fn execute(path: &CStr, environment: Environment) -> u16 {
    let argv = [path.as_ptr(), core::ptr::null()];
    // SAFETY: both lists end in a null and hold NUL-terminated texts.
    let executed = unsafe {
        let envp = environment.pointers() as usize;
        call(number::EXECVE, [path.as_ptr() as usize, argv.as_ptr() as usize, envp, 0, 0, 0])
    };
    result(executed).err().unwrap_or(0)
}
