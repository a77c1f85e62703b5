//! Architectures as a filter sees them: their audit numbers, and the names and
//! numbers of their system calls.

use std::str::FromStr;

use oci_spec::runtime::Arch;
use syscalls::{aarch64, arm, x86, x86_64};

/// Set in the number of every x32 call (`__X32_SYSCALL_BIT`,
/// arch/x86/include/uapi/asm/unistd.h).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// The x32 calls with a number of their own, in order from 512 on
/// (arch/x86/entry/syscalls/syscall_64.tbl, the lines marked `x32`).
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// x86-64 calls that x32 does not have at all (the lines marked `64` there
/// without an `x32` counterpart).
const X32_NONE: [&str; 11] = [
    "_sysctl",
    "create_module",
    "epoll_ctl_old",
    "epoll_wait_old",
    "get_kernel_syms",
    "get_thread_area",
    "nfsservctl",
    "query_module",
    "set_thread_area",
    "uselib",
    "vserver",
];

/// Calls of 32-bit Arm beyond the table (arch/arm/include/uapi/asm/unistd.h).
const ARM_PRIVATE: [(&str, u32); 5] = [
    ("breakpoint", 0xf_0001),
    ("cacheflush", 0xf_0002),
    ("usr26", 0xf_0003),
    ("usr32", 0xf_0004),
    ("set_tls", 0xf_0005),
];

/// What `socketcall` does on i386, by its first argument
/// (include/uapi/linux/net.h).
const SOCKETCALL: [&str; 20] = [
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];

/// What `ipc` does on i386, by its first argument (include/uapi/linux/ipc.h).
const IPC: [(&str, u64); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// An architecture whose system calls a filter can judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Machine {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86, which a 64-bit kernel runs too.
    X86,
    /// x86-64 with 32-bit pointers: the same audit number as x86-64.
    X32,
    /// 64-bit Arm.
    Aarch64,
    /// 32-bit Arm, which many 64-bit kernels run too.
    Arm,
}

impl Machine {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::X86_64, Self::X86, Self::X32, Self::Aarch64, Self::Arm];

    /// The one that this program is built for.
    #[must_use]
    pub const fn native() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// The one that a spec means; `None` for those that this runtime does not
    /// know.
    #[must_use]
    pub fn from_spec(arch: Arch) -> Option<Self> {
        match arch {
            Arch::ScmpArchNative => Some(Self::native()),
            Arch::ScmpArchX86_64 => Some(Self::X86_64),
            Arch::ScmpArchX86 => Some(Self::X86),
            Arch::ScmpArchX32 => Some(Self::X32),
            Arch::ScmpArchAarch64 => Some(Self::Aarch64),
            Arch::ScmpArchArm => Some(Self::Arm),
            _ => None,
        }
    }

    /// Its name in a spec.
    #[must_use]
    pub const fn to_spec(self) -> Arch {
        match self {
            Self::X86_64 => Arch::ScmpArchX86_64,
            Self::X86 => Arch::ScmpArchX86,
            Self::X32 => Arch::ScmpArchX32,
            Self::Aarch64 => Arch::ScmpArchAarch64,
            Self::Arm => Arch::ScmpArchArm,
        }
    }

    /// What stands in the `arch` field of `struct seccomp_data`
    /// (`AUDIT_ARCH_*`, include/uapi/linux/audit.h).
    #[must_use]
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments have 64 bits; else only their lower half is looked
    /// at, as libseccomp does.
    #[must_use]
    pub const fn wide(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
    }

    /// The number of a system call, as it stands in `struct seccomp_data`.
    #[must_use]
    pub fn number(self, name: &str) -> Option<u32> {
        let number = |id: i32| u32::try_from(id).ok();
        match self {
            Self::X86_64 => number(x86_64::Sysno::from_str(name).ok()?.id()),
            Self::X86 => number(x86::Sysno::from_str(name).ok()?.id()),
            Self::X32 => x32(name),
            // Two spellings of one call: the kernel's and the older one.
            Self::Aarch64 if name == "newfstatat" => number(aarch64::Sysno::fstatat.id()),
            Self::Aarch64 => number(aarch64::Sysno::from_str(name).ok()?.id()),
            Self::Arm if name == "sync_file_range2" => number(arm::Sysno::arm_sync_file_range.id()),
            Self::Arm => match ARM_PRIVATE.iter().find(|(private, _)| *private == name) {
                Some((_, private)) => Some(*private),
                None => number(arm::Sysno::from_str(name).ok()?.id()),
            },
        }
    }

    /// The call through which this one can be reached too, and what its first
    /// argument is then: `socketcall` and `ipc` of i386.
    pub(super) fn multiplexed(self, name: &str) -> Option<(u32, u64)> {
        if self != Self::X86 {
            return None;
        }
        if let Some((_, first)) = IPC.iter().find(|(other, _)| *other == name) {
            return Some((self.number("ipc")?, *first));
        }
        let place = SOCKETCALL.iter().position(|other| *other == name)?;
        Some((self.number("socketcall")?, place as u64 + 1))
    }
}

/// The number of an x32 call.
fn x32(name: &str) -> Option<u32> {
    if let Some(place) = X32_OWN.iter().position(|own| *own == name) {
        return Some(X32_BIT | 512 | u32::try_from(place).ok()?);
    }
    if X32_NONE.contains(&name) {
        return None;
    }
    u32::try_from(x86_64::Sysno::from_str(name).ok()?.id()).ok().map(|number| X32_BIT | number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        // As the kernel's tables have them.
        for (machine, name, number) in [
            (Machine::X86_64, "read", Some(0)),
            (Machine::X86_64, "execveat", Some(322)),
            (Machine::X86_64, "socketcall", None),
            (Machine::X86, "socketcall", Some(102)),
            (Machine::X86, "clock_gettime64", Some(403)),
            (Machine::X32, "read", Some(0x4000_0000)),
            (Machine::X32, "rt_sigaction", Some(0x4000_0200)),
            (Machine::X32, "pwritev2", Some(0x4000_0223)),
            (Machine::X32, "uselib", None),
            (Machine::Aarch64, "newfstatat", Some(79)),
            (Machine::Aarch64, "open", None),
            (Machine::Arm, "set_tls", Some(0xf_0005)),
            (Machine::Arm, "sync_file_range2", Some(341)),
            (Machine::Arm, "no_such_call", None),
        ] {
            assert_eq!(machine.number(name), number, "{machine:?} {name}");
        }
        assert_eq!(Machine::X86.multiplexed("socket"), Some((102, 1)));
        assert_eq!(Machine::X86.multiplexed("sendmmsg"), Some((102, 20)));
        assert_eq!(Machine::X86.multiplexed("shmctl"), Some((117, 24)));
        assert_eq!(Machine::X86_64.multiplexed("socket"), None);
    }

    #[test]
    fn machines_and_spec_names_correspond() {
        for machine in Machine::ALL {
            assert_eq!(Machine::from_spec(machine.to_spec()), Some(machine));
        }
        assert_eq!(Machine::from_spec(Arch::ScmpArchNative), Some(Machine::native()));
        assert_eq!(Machine::from_spec(Arch::ScmpArchMips), None);
    }
}
