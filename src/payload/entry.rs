//! The first instructions of a program without a C library.

/// Makes `_start` hand the kernel's initial stack to a function, which gets
/// its address and never returns.
///
/// Layout of the stack at entry: `argc`, `argv[argc]`, null, `envp[..]`,
/// null (System V ABI, AMD64 supplement, section 3.4.1; AArch64 likewise).
macro_rules! start_at {
    ($entry:path) => {
        #[cfg(target_arch = "x86_64")]
        core::arch::global_asm!(
            ".globl _start",
            "_start:",
            "xor ebp, ebp",
            "mov rdi, rsp",
            "and rsp, -16",
            "call {entry}",
            "ud2",
            entry = sym $entry,
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
            entry = sym $entry,
        );
    };
}
