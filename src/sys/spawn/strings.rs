//! Argument and environment vectors in the form that `execve` takes.

use std::ffi::{CString, c_char};

/// Strings with a null-terminated array of pointers to them, built once.
#[derive(Debug)]
pub(super) struct StringArray {
    /// Owns what `pointers` points at; never changed afterwards.
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl StringArray {
    pub(super) fn new(strings: Vec<CString>) -> Self {
        let pointers = strings
            .iter()
            .map(|string| string.as_ptr())
            .chain(std::iter::once(std::ptr::null()))
            .collect();
        Self { strings, pointers }
    }

    pub(super) fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }

    pub(super) fn strings(&self) -> &[CString] {
        &self.strings
    }
}

// SAFETY: the pointers refer to heap memory owned by `strings`, which nothing
// changes after construction, so any thread may read through them.
unsafe impl Send for StringArray {}
// SAFETY: as above; there is no interior mutability.
unsafe impl Sync for StringArray {}
