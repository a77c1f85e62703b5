//! The four memory routines that compiled code calls and that a C library
//! would have brought (`memcpy` and relatives; see rustc's `core` docs).

/// Copies `n` bytes forwards.
///
/// # Safety
/// As for C's `memcpy`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: by the contract both ranges hold `n` bytes; the direction flag
    // is clear in every function (System V ABI).
    unsafe {
        core::arch::asm!("rep movsb", inout("rcx") n => _, inout("rdi") to => _,
            inout("rsi") from => _, options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    for i in 0..n {
        // SAFETY: by the contract both ranges hold `n` bytes. Volatile, lest
        // the compiler turn this loop into a call of itself.
        unsafe { to.add(i).write_volatile(from.add(i).read()) };
    }
    to
}

/// Copies `n` bytes between ranges that may overlap.
///
/// # Safety
/// As for C's `memmove`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    if (to as usize) < (from as usize) {
        // SAFETY: a forward copy is right when the target starts first.
        return unsafe { memcpy(to, from, n) };
    }
    let mut i = n;
    while i > 0 {
        i -= 1;
        // SAFETY: by the contract both ranges hold `n` bytes.
        unsafe { to.add(i).write_volatile(from.add(i).read()) };
    }
    to
}

/// Fills `n` bytes.
///
/// # Safety
/// As for C's `memset`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, n: usize) -> *mut u8 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: by the contract the range holds `n` bytes; the direction flag
    // is clear in every function (System V ABI).
    unsafe {
        core::arch::asm!("rep stosb", inout("rcx") n => _, inout("rdi") to => _,
            in("al") value as u8, options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    for i in 0..n {
        // SAFETY: by the contract the range holds `n` bytes.
        unsafe { to.add(i).write_volatile(value as u8) };
    }
    to
}

/// Compares `n` bytes.
///
/// # Safety
/// As for C's `memcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    let mut i = 0;
    while i < n {
        // SAFETY: by the contract both ranges hold `n` bytes.
        let (x, y) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
        i += 1;
    }
    0
}

/// Compares `n` bytes for equality.
///
/// # Safety
/// As for `memcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(a, b, n) }
}

/// Length of a NUL-terminated string.
///
/// # Safety
/// As for C's `strlen`.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut n = 0;
    // SAFETY: by the contract a NUL comes.
    while unsafe { text.add(n).read_volatile() } != 0 {
        n += 1;
    }
    n
}
