//! Entry point: from the kernel's initial stack to [`crate::run`].
//!
//! Layout of the stack at entry: `argc`, `argv[argc]`, null, `envp[..]`,
//! null (System V ABI, AMD64 supplement, section 3.4.1; AArch64 likewise).

use core::ffi::c_char;

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {entry}",
    "ud2",
    entry = sym entry,
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, xzr",
    "mov x30, xzr",
    "mov x0, sp",
    "bl {entry}",
    "brk #1",
    entry = sym entry,
);

/// The environment that the kernel handed over.
#[derive(Clone, Copy)]
pub struct Environment {
    first: *const *const c_char,
}

impl Environment {
    /// The kernel's own list, for a program that becomes another.
    #[allow(dead_code, reason = "the payload stays what it is")]
    pub fn pointers(self) -> *const *const c_char {
        self.first
    }

    /// The value of the variable `name`.
    pub fn get(self, name: &str) -> Option<&'static [u8]> {
        let mut at = self.first;
        loop {
            // SAFETY: `at` walks the kernel's envp array and stops at its null.
            let entry = unsafe { *at };
            if entry.is_null() {
                return None;
            }
            // SAFETY: an entry of envp is a NUL-terminated string that lives
            // as long as the process.
            let text = unsafe { core::ffi::CStr::from_ptr(entry) }.to_bytes();
            if let Some(value) =
                text.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
            {
                return Some(value);
            }
            // SAFETY: the entry was not the terminating null.
            at = unsafe { at.add(1) };
        }
    }
}

/// Finds the environment above the arguments and runs the payload.
///
/// # Safety
/// `stack` must be the stack pointer at process entry.
unsafe extern "C" fn entry(stack: *const usize) -> ! {
    // SAFETY: by the contract, `argc` stands first, then `argc` pointers and
    // a null, then the environment.
    let environment = unsafe {
        let argc = *stack;
        Environment { first: stack.add(argc + 2).cast() }
    };
    crate::run(environment)
}
