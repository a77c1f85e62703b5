//! Entry point: from the kernel's initial stack to [`crate::run`].

use core::ffi::c_char;

#[path = "../entry.rs"]
#[macro_use]
mod entry;

start_at!(entry);

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
