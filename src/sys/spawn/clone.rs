//! `clone3` onto a stack of its own.
//!
//! Linux 5.7 is needed for `CLONE_INTO_CGROUP`, 5.5 for
//! `CLONE_CLEAR_SIGHAND`, 5.3 for the call itself.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::AtomicI32;

use nix::errno::Errno;
use nix::libc;

/// Bytes that a child may use. Set-up needs about two KiB in an optimised
/// build and four times that in an unoptimised one.
const STACK_BYTES: usize = 128 * 1024;
/// Bytes below the stack that fault when touched, a multiple of every page size.
const GUARD_BYTES: usize = 64 * 1024;

/// The stack of a child, with a guard area below it. It is reused by one
/// launch after the other.
#[derive(Debug)]
pub(super) struct Stack {
    base: NonNull<c_void>,
}

impl Stack {
    /// Maps a stack.
    pub(super) fn new() -> Result<Self, Errno> {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's
        // choice touches no existing memory; the second call changes the
        // protection of its lowest part only.
        unsafe {
            let base = libc::mmap(
                std::ptr::null_mut(),
                GUARD_BYTES + STACK_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE,
                -1,
                0,
            );
            if base == libc::MAP_FAILED {
                return Err(Errno::last());
            }
            let stack = Self { base: NonNull::new(base).ok_or(Errno::EFAULT)? };
            Errno::result(libc::mprotect(base, GUARD_BYTES, libc::PROT_NONE))?;
            Ok(stack)
        }
    }

    /// Lowest usable address.
    fn lowest(&self) -> u64 {
        (self.base.as_ptr() as usize + GUARD_BYTES) as u64
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `new` mapped. No child uses it: a
        // launch returns only after its child has left the shared memory.
        unsafe {
            libc::munmap(self.base.as_ptr(), GUARD_BYTES + STACK_BYTES);
        }
    }
}

// SAFETY: the mapping belongs to the value, not to a thread.
unsafe impl Send for Stack {}
// SAFETY: a shared reference gives no access to the memory.
unsafe impl Sync for Stack {}

/// The kernel's `struct clone_args` up to `CLONE_INTO_CGROUP`.
#[repr(C, align(8))]
#[derive(Debug, Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// The pid and the pidfd of a new child.
pub(super) struct Cloned {
    pub(super) pid: i32,
    pub(super) pidfd: i32,
}

/// Makes a child that runs `entry(context)` on `stack`, in the caller's own
/// memory, while the calling thread is suspended until the child has executed
/// a program or exited.
///
/// # Safety
///
/// `entry` must never return and never unwind, must make only
/// async-signal-safe calls, and must be able to use `context` while other
/// threads of this process go on. All signals must be blocked, since a handler
/// that ran in the child would act on the parent's memory.
pub(super) unsafe fn clone_onto(
    stack: &Stack,
    flags: u64,
    cgroup: Option<u64>,
    parent_tid: Option<&AtomicI32>,
    entry: extern "C" fn(*const c_void) -> !,
    context: *const c_void,
) -> Result<Cloned, Errno> {
    let mut pidfd: i32 = -1;
    let sibling = flags & libc::CLONE_PARENT as u64 != 0;
    let arguments = CloneArguments {
        flags,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        parent_tid: parent_tid.map_or(0, |at| at.as_ptr() as u64),
        // A child of the same parent ends with the same signal as its maker.
        exit_signal: if sibling { 0 } else { libc::SIGCHLD as u64 },
        stack: stack.lowest(),
        stack_size: STACK_BYTES as u64,
        cgroup: cgroup.unwrap_or(0),
        ..CloneArguments::default()
    };
    // SAFETY: `arguments` is valid and names a private stack whose upper end
    // is 16-byte aligned; the caller vouches for `entry` and `context`.
    let result = unsafe { enter(&arguments, entry, context) };
    match i32::try_from(result) {
        Ok(pid) if pid > 0 => Ok(Cloned { pid, pidfd }),
        Ok(negative) => Err(Errno::from_raw(-negative)),
        Err(_) => Err(Errno::EOVERFLOW),
    }
}

/// The system call; the child continues in `entry` and never comes back here.
#[cfg(target_arch = "x86_64")]
unsafe fn enter(
    arguments: &CloneArguments,
    entry: extern "C" fn(*const c_void) -> !,
    context: *const c_void,
) -> i64 {
    let result: i64;
    // SAFETY: in the parent this is a plain system call that clobbers rax, rcx
    // and r11. In the child (result 0) the kernel has set rsp to the top of
    // the new stack; nothing of the parent's frame is used, and `entry` does
    // not return.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, {context}",
            "call {entry}",
            "ud2",
            "2:",
            context = in(reg) context,
            entry = in(reg) entry,
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") std::ptr::from_ref(arguments),
            in("rsi") size_of::<CloneArguments>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    result
}

/// The system call; the child continues in `entry` and never comes back here.
#[cfg(target_arch = "aarch64")]
unsafe fn enter(
    arguments: &CloneArguments,
    entry: extern "C" fn(*const c_void) -> !,
    context: *const c_void,
) -> i64 {
    let result: i64;
    // SAFETY: as on x86_64; the kernel preserves all registers but x0.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, {context}",
            "blr {entry}",
            "brk 1",
            "2:",
            context = in(reg) context,
            entry = in(reg) entry,
            in("x8") libc::SYS_clone3,
            inlateout("x0") std::ptr::from_ref(arguments) as i64 => result,
            in("x1") size_of::<CloneArguments>(),
        );
    }
    result
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("unladen makes processes with clone3 in assembly for x86_64 and aarch64 only");
