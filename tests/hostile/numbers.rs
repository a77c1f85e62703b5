//! Numbers of system calls that the C library has no function for.

use std::ffi::c_long;

macro_rules! numbers {
    ($($name:ident $x86:literal $arm:literal)*) => {$(
        #[cfg(target_arch = "x86_64")]
        pub const $name: c_long = $x86;
        #[cfg(target_arch = "aarch64")]
        pub const $name: c_long = $arm;
    )*};
}

numbers! {
    ACCT 163 89
    ADD_KEY 248 217
    ADJTIMEX 159 171
    BPF 321 280
    FANOTIFY_INIT 300 262
    GETTIMEOFDAY 96 169
    INIT_MODULE 175 105
    IO_URING_SETUP 425 425
    KCMP 312 272
    KEXEC_LOAD 246 104
    KEYCTL 250 219
    PERF_EVENT_OPEN 298 241
    PERSONALITY 135 92
    PIVOT_ROOT 155 41
    PROCESS_VM_READV 310 270
    QUOTACTL 179 60
    REBOOT 169 142
    SETTIMEOFDAY 164 170
    SWAPON 167 224
    SYSLOG 103 116
    USERFAULTFD 323 282
}

/// Only where the processor has ports.
#[cfg(target_arch = "x86_64")]
pub const IOPL: c_long = 172;
#[cfg(target_arch = "aarch64")]
pub const IOPL: c_long = -1;
