//! The few system calls that the payload makes, without a C library.

use core::arch::asm;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const MMAP: usize = 9;
    pub const MUNMAP: usize = 11;
    pub const IOCTL: usize = 16;
    pub const NANOSLEEP: usize = 35;
    pub const SOCKET: usize = 41;
    pub const CONNECT: usize = 42;
    pub const REBOOT: usize = 169;
    pub const IOPERM: usize = 173;
    pub const CLOCK_GETTIME: usize = 228;
    pub const EXIT_GROUP: usize = 231;
    pub const OPENAT: usize = 257;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const MMAP: usize = 222;
    pub const MUNMAP: usize = 215;
    pub const IOCTL: usize = 29;
    pub const NANOSLEEP: usize = 101;
    pub const CLOCK_GETTIME: usize = 113;
    pub const REBOOT: usize = 142;
    pub const SOCKET: usize = 198;
    pub const CONNECT: usize = 203;
    pub const EXIT_GROUP: usize = 94;
    pub const OPENAT: usize = 56;
}

/// A system call with six arguments; a result below zero is `-errno`.
///
/// # Safety
/// The arguments must be right for the call: pointers valid for what the
/// kernel does with them.
#[cfg(target_arch = "x86_64")]
pub unsafe fn call(n: usize, args: [usize; 6]) -> isize {
    let result;
    // SAFETY: the x86-64 Linux convention; rcx and r11 are clobbered.
    unsafe {
        asm!("syscall", inlateout("rax") n as isize => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// A system call with six arguments; a result below zero is `-errno`.
///
/// # Safety
/// The arguments must be right for the call: pointers valid for what the
/// kernel does with them.
#[cfg(target_arch = "aarch64")]
pub unsafe fn call(n: usize, args: [usize; 6]) -> isize {
    let result;
    // SAFETY: the AArch64 Linux convention.
    unsafe {
        asm!("svc #0", in("x8") n, inlateout("x0") args[0] as isize => result,
            in("x1") args[1], in("x2") args[2], in("x3") args[3],
            in("x4") args[4], in("x5") args[5], options(nostack));
    }
    result
}

/// Interrupted by a signal: try again.
const EINTR: isize = -4;

/// Writes all of `bytes`; false when the other side is gone.
pub fn write_all(fd: i32, bytes: &[u8]) -> bool {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &bytes[done..];
        // SAFETY: `rest` is valid for reading its length.
        let n = unsafe {
            call(number::WRITE, [fd as usize, rest.as_ptr() as usize, rest.len(), 0, 0, 0])
        };
        match n {
            EINTR => {}
            n if n <= 0 => return false,
            n => done += n as usize,
        }
    }
    true
}

/// Reads some bytes; `None` at the end of the stream or on an error.
pub fn read(fd: i32, buffer: &mut [u8]) -> Option<usize> {
    loop {
        // SAFETY: `buffer` is valid for writing its length.
        let n = unsafe {
            call(number::READ, [fd as usize, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0])
        };
        match n {
            EINTR => {}
            n if n <= 0 => return None,
            n => return Some(n as usize),
        }
    }
}

/// Opens `path` (which ends in NUL) for reading and writing.
pub fn open(path: &[u8]) -> Option<i32> {
    const O_RDWR_NOCTTY: usize = 0o2 | 0o400;
    open_with(path, O_RDWR_NOCTTY)
}

/// Opens `path` (which ends in NUL) for reading.
pub fn open_to_read(path: &[u8]) -> Option<i32> {
    open_with(path, 0)
}

fn open_with(path: &[u8], flags: usize) -> Option<i32> {
    const AT_FDCWD: isize = -100;
    if path.last() != Some(&0) {
        return None;
    }
    // SAFETY: `path` is NUL-terminated.
    let fd = unsafe {
        call(number::OPENAT, [AT_FDCWD as usize, path.as_ptr() as usize, flags, 0, 0, 0])
    };
    (fd >= 0).then_some(fd as i32)
}

/// Connects to the stream socket at a path (unix(7)).
pub fn connect(path: &[u8]) -> Option<i32> {
    const AF_UNIX: u16 = 1;
    const SOCK_STREAM: usize = 1;
    /// The kernel's `struct sockaddr_un`.
    #[repr(C)]
    struct Address {
        family: u16,
        path: [u8; 108],
    }
    let mut address = Address { family: AF_UNIX, path: [0; 108] };
    // One byte stays zero.
    address.path[..107].get_mut(..path.len())?.copy_from_slice(path);
    // SAFETY: no pointers.
    let fd = unsafe { call(number::SOCKET, [AF_UNIX as usize, SOCK_STREAM, 0, 0, 0, 0]) };
    let fd = usize::try_from(fd).ok()?;
    let len = size_of::<Address>();
    // SAFETY: `address` is valid for reading its length.
    let done = unsafe { call(number::CONNECT, [fd, &raw const address as usize, len, 0, 0, 0]) };
    (done == 0).then_some(fd as i32)
}

/// Sets a terminal to raw bytes: no echo, no line, no translation.
pub fn set_raw(fd: i32) {
    const TCSETS: usize = 0x5402;
    /// The kernel's `struct termios` (asm-generic/termbits.h).
    #[repr(C)]
    struct Termios {
        flags: [u32; 4],
        line: u8,
        cc: [u8; 19],
    }
    // 115200 baud, 8 bits, receiver on, modem lines ignored.
    const CONTROL: u32 = 0o10002 | 0o60 | 0o200 | 0o4000;
    let mut termios = Termios { flags: [0, 0, CONTROL, 0], line: 0, cc: [0; 19] };
    termios.cc[6] = 1; // VMIN: a read returns with the first byte.
    // SAFETY: TCSETS reads one `struct termios`. On something that is no
    // terminal it fails, and nothing needs to be set.
    unsafe {
        call(number::IOCTL, [fd as usize, TCSETS, &raw const termios as usize, 0, 0, 0]);
    }
}

/// Waits until a terminal has sent all that was written to it.
pub fn drain(fd: i32) {
    const TCSBRK: usize = 0x5409;
    // SAFETY: with 1 as its argument (tcdrain) TCSBRK takes no memory.
    unsafe { call(number::IOCTL, [fd as usize, TCSBRK, 1, 0, 0, 0]) };
}

/// Fresh anonymous memory of `len` bytes, or `None` when there is none.
pub fn map(len: usize) -> Option<*mut u8> {
    const READ_WRITE: usize = 1 | 2;
    const PRIVATE_ANONYMOUS: usize = 2 | 0x20;
    // SAFETY: a new anonymous mapping touches no memory in use.
    let at = unsafe { call(number::MMAP, [0, len, READ_WRITE, PRIVATE_ANONYMOUS, usize::MAX, 0]) };
    // Addresses of user space are positive; an error is -1 to -4095.
    (at > 0).then_some(at as *mut u8)
}

/// Gives memory back to the kernel.
///
/// # Safety
/// `start` and `len` must be those of a mapping that nobody uses any more.
pub unsafe fn unmap(start: *mut u8, len: usize) -> bool {
    // SAFETY: the caller vouches for the mapping.
    unsafe { call(number::MUNMAP, [start as usize, len, 0, 0, 0, 0]) == 0 }
}

/// A clock of the kernel.
#[derive(Clone, Copy)]
pub enum Clock {
    /// Time that goes on while the payload sleeps.
    Monotonic = 1,
    /// CPU time that the payload has used.
    OwnCpu = 2,
}

/// The kernel's `struct timespec`.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// What a clock shows, in nanoseconds; 0 when it cannot be read, which no
/// kernel that runs this refuses.
pub fn now(clock: Clock) -> u64 {
    let mut now = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: the kernel writes one `struct timespec`.
    unsafe { call(number::CLOCK_GETTIME, [clock as usize, &raw mut now as usize, 0, 0, 0, 0]) };
    now.seconds as u64 * 1_000_000_000 + now.nanoseconds as u64
}

/// Sleeps for so many nanoseconds, or until a signal.
pub fn sleep(nanoseconds: u64) {
    let time = Timespec {
        seconds: (nanoseconds / 1_000_000_000) as i64,
        nanoseconds: (nanoseconds % 1_000_000_000) as i64,
    };
    // SAFETY: the kernel reads one `struct timespec`.
    unsafe { call(number::NANOSLEEP, [&raw const time as usize, 0, 0, 0, 0, 0]) };
}

/// Ends the process.
pub fn exit(code: u8) -> ! {
    loop {
        // SAFETY: exit_group takes one number and does not return.
        unsafe { call(number::EXIT_GROUP, [code as usize, 0, 0, 0, 0, 0]) };
    }
}

/// What becomes of a machine that ends, for reboot(2).
#[derive(Clone, Copy)]
pub enum Down {
    /// It is reset.
    Restart = 0x0123_4567,
    /// It is switched off.
    PowerOff = 0x4321_fedc,
}

/// Ends the machine; returns only when that is not permitted.
pub fn reboot(down: Down) {
    const MAGIC_1: usize = 0xfee1_dead;
    const MAGIC_2: usize = 0x2812_1969;
    // SAFETY: reboot takes four numbers.
    unsafe { call(number::REBOOT, [MAGIC_1, MAGIC_2, down as usize, 0, 0, 0]) };
}

/// Writes `code` to QEMU's isa-debug-exit device, which ends the machine.
/// Returns when the port is not accessible or no device listens.
#[cfg(target_arch = "x86_64")]
pub fn debug_exit(port: u16, code: u8) {
    // SAFETY: ioperm takes three numbers; `out` to a port without a device
    // does nothing, and without the permission it is not executed.
    unsafe {
        if call(number::IOPERM, [port as usize, 1, 1, 0, 0, 0]) == 0 {
            asm!("out dx, al", in("dx") port, in("al") code, options(nostack, nomem));
        }
    }
}

/// This architecture has no I/O ports; the machine is reset instead.
#[cfg(target_arch = "aarch64")]
pub fn debug_exit(_port: u16, _code: u8) {}
