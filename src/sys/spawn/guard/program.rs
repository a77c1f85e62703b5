//! `unladen-guard`: the few hundred bytes that stand between the launching
//! process's executable and a container's program (see `../guard.rs`).
//!
//! Its arguments are `REPORT:COUNT:STEP`, then COUNT paths, then the argument
//! vector of the program. It executes the first path that works, with its own
//! environment, or writes STEP and the error to the descriptor REPORT. It uses
//! no library, not even libc.

#![no_std]
#![no_main]

use core::arch::asm;

#[path = "../../../payload/entry.rs"]
#[macro_use]
mod entry;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const WRITE: usize = 1;
    pub const EXECVE: usize = 59;
    pub const FCNTL: usize = 72;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const WRITE: usize = 64;
    pub const EXECVE: usize = 221;
    pub const FCNTL: usize = 25;
    pub const EXIT_GROUP: usize = 94;
}

const ENOENT: isize = -2;
const EACCES: isize = -13;
const ENOTDIR: isize = -20;
const EINVAL: isize = -22;
const F_SETFD: usize = 2;
const FD_CLOEXEC: usize = 1;

start_at!(entry);

/// A system call with three arguments; a result below zero is `-errno`.
///
/// # Safety
/// The arguments must be right for the call.
#[cfg(target_arch = "x86_64")]
unsafe fn call(n: usize, args: [usize; 3]) -> isize {
    let result;
    // SAFETY: the x86-64 Linux convention; rcx and r11 are clobbered.
    unsafe {
        asm!("syscall", inlateout("rax") n as isize => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// A system call with three arguments; a result below zero is `-errno`.
///
/// # Safety
/// The arguments must be right for the call.
#[cfg(target_arch = "aarch64")]
unsafe fn call(n: usize, args: [usize; 3]) -> isize {
    let result;
    // SAFETY: the AArch64 Linux convention.
    unsafe {
        asm!("svc #0", in("x8") n, inlateout("x0") args[0] as isize => result,
            in("x1") args[1], in("x2") args[2], options(nostack));
    }
    result
}

/// Reads a decimal number and what ends it; moves on behind that.
///
/// # Safety
/// `at` must point into a NUL-terminated string.
unsafe fn decimal(at: &mut *const u8) -> usize {
    let mut value: usize = 0;
    loop {
        // SAFETY: every byte before this one was not NUL.
        let byte = unsafe { **at };
        if byte == 0 {
            return value;
        }
        // SAFETY: this byte is not NUL, so there is another.
        *at = unsafe { at.add(1) };
        if !byte.is_ascii_digit() {
            return value;
        }
        value = value.wrapping_mul(10).wrapping_add((byte - b'0') as usize);
    }
}

/// # Safety
/// `stack` must be the stack pointer at process entry: `argc`, the
/// arguments, a null, the environment, a null (System V ABI).
unsafe extern "C" fn entry(stack: *const usize) -> ! {
    // SAFETY: by the contract; places are checked against `argc` first.
    unsafe {
        let argc = *stack;
        let arguments = stack.add(1);
        let mut header = if argc > 0 { *arguments as *const u8 } else { c"".as_ptr().cast() };
        let report = decimal(&mut header);
        let count = decimal(&mut header);
        let step = decimal(&mut header);
        let mut last = EINVAL;
        // Somebody else started it: a container whose program is
        // `/proc/self/exe` gets here.
        if argc > 1 + count && count > 0 {
            call(number::FCNTL, [report, F_SETFD, FD_CLOEXEC]);
            last = execute(arguments, count, arguments.add(argc + 1));
            let message = [step as u32, (-last) as u32];
            call(number::WRITE, [report, message.as_ptr() as usize, size_of_val(&message)]);
        }
        exit(if last == ENOENT { 127 } else { 126 })
    }
}

/// Tries the paths; returns only with the error that says most.
///
/// # Safety
/// `arguments` and `environment` must be as the kernel gave them, with more
/// than `1 + count` arguments.
unsafe fn execute(arguments: *const usize, count: usize, environment: *const usize) -> isize {
    let mut last = ENOENT;
    let mut place = 0;
    while place < count {
        // SAFETY: all within the arguments, which end with a null.
        let error = unsafe {
            let path = *arguments.add(1 + place);
            let vector = arguments.add(1 + count) as usize;
            call(number::EXECVE, [path, vector, environment as usize])
        };
        if !matches!(error, ENOENT | ENOTDIR | EACCES) {
            return error;
        }
        // A program that exists and is refused says more than one that does
        // not exist.
        if last == ENOENT {
            last = error;
        }
        place += 1;
    }
    last
}

fn exit(code: usize) -> ! {
    // SAFETY: ends this process.
    unsafe {
        call(number::EXIT_GROUP, [code, 0, 0]);
    }
    loop {
        // SAFETY: the kernel kills the process for it, where a filter forbids
        // an orderly end.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            asm!("ud2");
        }
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        unsafe {
            asm!("udf #0");
        }
    }
}

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(101)
}
