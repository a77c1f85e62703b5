//! The floor: a container made by hand, for one cell and one kind of host,
//! with as little as possible between the system calls and nothing of the
//! crate's own launching code. What the runtime takes beyond it is the price
//! of being a runtime.
//!
//! It does what the suite's default cell does, in the order of
//! [`Floor::launch`] and [`set_up`]: control groups with limits, namespaces,
//! a private copy of the root, `pivot_root`, devices, masks, loopback, no
//! capabilities, no way to gain any, a system-call filter that was compiled
//! beforehand. It has no messages, no choice and no
//! safety net: it is for nothing else.

use std::cell::UnsafeCell;
use std::ffi::{CStr, CString, c_char, c_int, c_long, c_ulong, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use nix::libc;
use unladen::sys::pidfd::PidFd;
use unladen::sys::spawn::Instruction;

pub mod start;

/// Bytes of the child's stack.
const STACK: usize = 64 * 1024;

const NAMESPACES: c_int = libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_PIDFD: u64 = 0x1000;

const MASKED: [&CStr; 12] = [
    c"/proc/acpi",
    c"/proc/asound",
    c"/proc/interrupts",
    c"/proc/kcore",
    c"/proc/keys",
    c"/proc/latency_stats",
    c"/proc/sched_debug",
    c"/proc/scsi",
    c"/proc/timer_list",
    c"/proc/timer_stats",
    c"/sys/devices/virtual/powercap",
    c"/sys/firmware",
];
const READ_ONLY: [&CStr; 5] =
    [c"/proc/bus", c"/proc/fs", c"/proc/irq", c"/proc/sys", c"/proc/sysrq-trigger"];
/// Name, major and minor number.
const DEVICES: [(&CStr, u32, u32); 6] = [
    (c"/dev/null", 1, 3),
    (c"/dev/zero", 1, 5),
    (c"/dev/full", 1, 7),
    (c"/dev/random", 1, 8),
    (c"/dev/urandom", 1, 9),
    (c"/dev/tty", 5, 0),
];
const LINKS: [(&CStr, &CStr); 4] = [
    (c"/proc/self/fd", c"/dev/fd"),
    (c"/proc/self/fd/0", c"/dev/stdin"),
    (c"/proc/self/fd/1", c"/dev/stdout"),
    (c"/proc/self/fd/2", c"/dev/stderr"),
];

/// One control group hierarchy of the run.
struct Branch {
    folder: OwnedFd,
    unified: bool,
    /// Files and what goes into them.
    limits: Vec<(CString, Vec<u8>)>,
}

/// Everything that is the same for all containers.
pub struct Floor {
    branches: Vec<Branch>,
    rootfs: CString,
    program: CString,
    environment: Vec<CString>,
    stack: Box<UnsafeCell<[u8; STACK]>>,
    last_capability: c_int,
    filter: Vec<Instruction>,
    number: u64,
}

/// A container that executes its program.
pub struct Running {
    pub process: PidFd,
    name: CString,
}

/// What the child needs, in memory that it shares with its parent.
struct Context<'a> {
    floor: &'a Floor,
    tasks: &'a [RawFd],
    fds: [RawFd; 4],
    arguments: [*const c_char; 2],
    environment: [*const c_char; 4],
    /// The step that failed and its error.
    failed: [AtomicI32; 2],
}

impl Floor {
    /// Prepares containers with a program of `rootfs` below the control
    /// groups of a run, one folder for each hierarchy.
    pub fn new(
        folders: &[&Path],
        rootfs: &Path,
        program: &str,
        environment: &[&str],
        filter: Vec<Instruction>,
    ) -> Self {
        let c = |text: &[u8]| CString::new(text).expect("no NUL");
        let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").expect("a number");
        Self {
            branches: folders.iter().map(|folder| Branch::open(folder)).collect(),
            rootfs: c(rootfs.as_os_str().as_bytes()),
            program: c(program.as_bytes()),
            environment: environment.iter().map(|text| c(text.as_bytes())).collect(),
            stack: Box::new(UnsafeCell::new([0; STACK])),
            last_capability: last.trim().parse().expect("a number"),
            filter,
            number: 0,
        }
    }

    /// Launches a container whose descriptors 0 to 3 are these, whose own
    /// numbers are higher.
    pub fn launch(&mut self, fds: [BorrowedFd<'_>; 4]) -> Result<Running, String> {
        self.number += 1;
        let name = CString::new(format!("floor-{}", self.number)).expect("no NUL");
        let mut entrances = Vec::with_capacity(self.branches.len());
        for branch in &self.branches {
            entrances.push(branch.make(&name)?);
        }
        let raw = |unified: bool| {
            let both = self.branches.iter().zip(&entrances);
            both.filter(move |(branch, _)| branch.unified == unified)
                .map(|(_, entrance)| entrance.as_raw_fd())
        };
        let tasks: Vec<RawFd> = raw(false).collect();
        let mut environment = [null(); 4];
        for (place, text) in environment.iter_mut().zip(&self.environment) {
            *place = text.as_ptr();
        }
        let context = Context {
            floor: self,
            tasks: &tasks,
            fds: fds.map(|fd| fd.as_raw_fd()),
            arguments: [self.program.as_ptr(), null()],
            environment,
            failed: [AtomicI32::new(0), AtomicI32::new(0)],
        };
        let process = self.clone_child(&context, raw(true).next())?;
        let [step, error] =
            [&context.failed[0], &context.failed[1]].map(|value| value.load(Relaxed));
        if error != 0 {
            let _ = process.wait(None);
            self.remove(&name);
            return Err(format!(
                "step {step} of the floor: {}",
                nix::errno::Errno::from_raw(error)
            ));
        }
        Ok(Running { process, name })
    }

    fn clone_child(&self, context: &Context<'_>, cgroup: Option<RawFd>) -> Result<PidFd, String> {
        let mut pidfd: c_int = -1;
        let flags = u64::from((libc::CLONE_VM | libc::CLONE_VFORK | NAMESPACES).cast_unsigned())
            | CLONE_PIDFD
            | CLONE_CLEAR_SIGHAND;
        let into = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
        // `struct clone_args` of clone3(2).
        let arguments: [u64; 11] = [
            flags | into,
            std::ptr::from_mut(&mut pidfd) as u64,
            0,
            0,
            libc::SIGCHLD as u64,
            // Both ends on a multiple of 16.
            (self.stack.get() as u64).next_multiple_of(16),
            (STACK - 16) as u64,
            0,
            0,
            0,
            u64::from(cgroup.unwrap_or(0).cast_unsigned()),
        ];
        // SAFETY: the child runs `child`, which makes only system calls and
        // never returns, on a stack of its own while this thread waits
        // (CLONE_VFORK); all signals are blocked meanwhile.
        let pid = unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            let pid = clone3(&arguments, child, std::ptr::from_ref(context).cast());
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
            pid
        };
        if pid < 0 {
            return Err(format!("clone3 of the floor: error {}", -pid));
        }
        // SAFETY: clone3 succeeded with CLONE_PIDFD: a fresh descriptor.
        Ok(PidFd::from_fd(unsafe { OwnedFd::from_raw_fd(pidfd) }))
    }

    /// Removes the control groups of a container that has ended.
    pub fn clean_up(&self, running: &Running) {
        self.remove(&running.name);
    }

    fn remove(&self, name: &CStr) {
        for branch in &self.branches {
            // The kernel lets go of a process a moment after it was reaped.
            for _ in 0..10_000 {
                // SAFETY: a valid descriptor and string.
                let result = unsafe {
                    libc::unlinkat(branch.folder.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR)
                };
                if result == 0 {
                    break;
                }
                std::thread::yield_now();
            }
        }
    }
}

impl Branch {
    fn open(folder: &Path) -> Self {
        let unified = folder.join("cgroup.controllers").exists();
        let here = |file: &str| folder.join(file).exists();
        let own = |file: &str, value: &str| {
            (CString::new(file).expect("no NUL"), value.as_bytes().to_vec())
        };
        // The limits of the bench's cell, in the spelling of either version.
        let limits = [
            ("memory.limit_in_bytes", "67108864"),
            ("pids.max", "32"),
            ("cpu.cfs_period_us", "100000"),
            ("cpu.cfs_quota_us", "100000"),
        ];
        let limits = if unified {
            vec![
                own("memory.max", "67108864"),
                own("pids.max", "32"),
                own("cpu.max", "100000 100000"),
            ]
        } else {
            limits
                .iter()
                .filter(|(file, _)| here(file))
                .map(|(file, value)| own(file, value))
                .collect()
        };
        // The root of a hierarchy lacks some of these files; a run's folder has them.
        let folder = std::fs::File::open(folder).expect("a folder of the run").into();
        Self { folder, unified, limits }
    }

    /// Makes a group and returns what a child joins it through.
    fn make(&self, name: &CStr) -> Result<OwnedFd, String> {
        let failed = |what: &str| format!("{what} of the floor: {}", nix::errno::Errno::last());
        let at = self.folder.as_raw_fd();
        // SAFETY: valid descriptors and strings throughout; each opened
        // descriptor is owned once.
        unsafe {
            if libc::mkdirat(at, name.as_ptr(), 0o755) != 0 {
                return Err(failed("mkdir"));
            }
            let folder = libc::openat(at, name.as_ptr(), libc::O_DIRECTORY | libc::O_CLOEXEC);
            if folder < 0 {
                return Err(failed("open"));
            }
            let folder = OwnedFd::from_raw_fd(folder);
            for (file, value) in &self.limits {
                let raw = libc::openat(
                    folder.as_raw_fd(),
                    file.as_ptr(),
                    libc::O_WRONLY | libc::O_CLOEXEC,
                );
                if raw < 0 {
                    return Err(failed("open a limit"));
                }
                let file = OwnedFd::from_raw_fd(raw);
                if libc::write(file.as_raw_fd(), value.as_ptr().cast(), value.len()) < 0 {
                    return Err(failed("write a limit"));
                }
            }
            if self.unified {
                return Ok(folder);
            }
            let tasks = libc::openat(
                folder.as_raw_fd(),
                c"tasks".as_ptr(),
                libc::O_WRONLY | libc::O_CLOEXEC,
            );
            if tasks < 0 { Err(failed("open tasks")) } else { Ok(OwnedFd::from_raw_fd(tasks)) }
        }
    }
}

/// The system call; the child goes on in `entry`.
///
/// # Safety
///
/// `arguments` names a stack that nobody uses; `entry` never returns.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(
    arguments: &[u64; 11],
    entry: extern "C" fn(*const c_void) -> !,
    context: *const c_void,
) -> i64 {
    let result: i64;
    // SAFETY: a plain system call in the parent; the child starts at the top
    // of its own stack and calls `entry` with nothing else in use.
    unsafe {
        std::arch::asm!(
            "syscall", "test rax, rax", "jnz 2f", "xor ebp, ebp",
            "mov rdi, {context}", "call {entry}", "ud2", "2:",
            context = in(reg) context, entry = in(reg) entry,
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") arguments.as_ptr(), in("rsi") size_of_val(arguments),
            out("rcx") _, out("r11") _,
        );
    }
    result
}

/// The system call; the child goes on in `entry`.
///
/// # Safety
///
/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(
    arguments: &[u64; 11],
    entry: extern "C" fn(*const c_void) -> !,
    context: *const c_void,
) -> i64 {
    let result: i64;
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "svc 0", "cbnz x0, 2f", "mov x29, xzr",
            "mov x0, {context}", "blr {entry}", "brk 1", "2:",
            context = in(reg) context, entry = in(reg) entry,
            in("x8") libc::SYS_clone3,
            inlateout("x0") arguments.as_ptr() as i64 => result,
            in("x1") size_of_val(arguments),
        );
    }
    result
}

/// The child's whole life before its program.
extern "C" fn child(context: *const c_void) -> ! {
    // SAFETY: the parent keeps the context while the child is in its memory.
    let context = unsafe { &*context.cast::<Context<'_>>() };
    // SAFETY: `set_up` finds valid strings and descriptors in the context.
    unsafe {
        if let Err((step, error)) = set_up(context) {
            context.failed[0].store(step, Relaxed);
            context.failed[1].store(error, Relaxed);
        }
        loop {
            libc::syscall(libc::SYS_exit_group, 127);
        }
    }
}

/// Counts steps and turns the result of a system call into one.
struct Steps(c_int);

impl Steps {
    fn done(&mut self, result: c_long) -> Result<c_long, (c_int, c_int)> {
        self.0 += 1;
        if result < 0 { Err((self.0, nix::errno::Errno::last_raw())) } else { Ok(result) }
    }
}

/// All steps, and the program; returns only with what went wrong.
///
/// # Safety
///
/// In a child of its own, which shares memory with a parent that waits.
#[allow(clippy::too_many_lines, reason = "a list without branches, to be read from top to bottom")]
unsafe fn set_up(context: &Context<'_>) -> Result<(), (c_int, c_int)> {
    let floor = context.floor;
    let none = null::<c_char>();
    let mut steps = Steps(0);
    // SAFETY: raw system calls with constant strings and those of the context.
    unsafe {
        for tasks in context.tasks {
            steps.done(libc::syscall(libc::SYS_write, *tasks, c"0".as_ptr(), 1))?;
        }
        steps.done(libc::syscall(libc::SYS_setsid))?;
        steps.done(libc::syscall(libc::SYS_unshare, libc::CLONE_NEWCGROUP))?;
        libc::syscall(libc::SYS_umask, 0);
        let mount = |source: *const c_char,
                     target: &CStr,
                     kind: *const c_char,
                     flags: c_ulong,
                     data: *const c_char| {
            libc::syscall(libc::SYS_mount, source, target.as_ptr(), kind, flags, data)
        };
        let here = c".";
        // The root: private, then a copy of the image's folder.
        steps.done(mount(none, c"/", none, libc::MS_REC | libc::MS_PRIVATE, none))?;
        let bind = libc::MS_BIND | libc::MS_REC;
        steps.done(mount(floor.rootfs.as_ptr(), &floor.rootfs, none, bind, none))?;
        steps.done(libc::syscall(libc::SYS_chdir, floor.rootfs.as_ptr()))?;
        steps.done(libc::syscall(libc::SYS_pivot_root, here.as_ptr(), here.as_ptr()))?;
        // Mounts.
        let tmpfs = c"tmpfs".as_ptr();
        let quiet = libc::MS_NOSUID | libc::MS_NOEXEC;
        let closed = quiet | libc::MS_NODEV;
        steps.done(mount(tmpfs, c"/dev", tmpfs, quiet, c"mode=755,size=64k".as_ptr()))?;
        for (name, major, minor) in DEVICES {
            let device = libc::makedev(major, minor);
            let mode = libc::S_IFCHR | 0o666;
            steps.done(libc::syscall(
                libc::SYS_mknodat,
                libc::AT_FDCWD,
                name.as_ptr(),
                mode,
                device,
            ))?;
        }
        for (target, name) in LINKS {
            steps.done(libc::syscall(
                libc::SYS_symlinkat,
                target.as_ptr(),
                libc::AT_FDCWD,
                name.as_ptr(),
            ))?;
        }
        let seal = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
        steps.done(mount(none, c"/dev", none, seal | quiet, none))?;
        steps.done(mount(none, c"/", none, seal, none))?;
        steps.done(mount(c"proc".as_ptr(), c"/proc", c"proc".as_ptr(), closed, none))?;
        let open = libc::MS_NOSUID | libc::MS_NODEV;
        steps.done(mount(tmpfs, c"/tmp", tmpfs, open, c"mode=1777".as_ptr()))?;
        steps.done(libc::syscall(libc::SYS_umount2, here.as_ptr(), libc::MNT_DETACH))?;
        // Name and network.
        steps.done(libc::syscall(libc::SYS_sethostname, c"unladen".as_ptr(), 7))?;
        steps.done(loopback())?;
        // Paths of the kernel.
        for path in READ_ONLY {
            if mount(path.as_ptr(), path, none, bind, none) == 0 {
                steps.done(mount(none, path, none, seal | closed, none))?;
            }
        }
        for path in MASKED {
            let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
            let folder = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags);
            if folder >= 0 {
                libc::syscall(libc::SYS_close, folder);
                let empty = c"size=0k,mode=755".as_ptr();
                steps.done(mount(tmpfs, path, tmpfs, closed | libc::MS_RDONLY, empty))?;
            } else if nix::errno::Errno::last_raw() == libc::ENOTDIR {
                steps.done(mount(c"/dev/null".as_ptr(), path, none, libc::MS_BIND, none))?;
            }
        }
        // Descriptors: those given are above all targets.
        for (target, source) in (0..).zip(context.fds) {
            steps.done(libc::syscall(libc::SYS_dup3, source, target, 0))?;
        }
        let flag = libc::CLOSE_RANGE_CLOEXEC;
        steps.done(libc::syscall(libc::SYS_close_range, 4, u32::MAX, flag))?;
        // Privileges.
        let prctl = |operation: c_int, argument: c_int| {
            libc::syscall(libc::SYS_prctl, operation, argument, 0, 0, 0)
        };
        steps.done(prctl(libc::PR_SET_NO_NEW_PRIVS, 1))?;
        for capability in 0..=floor.last_capability {
            steps.done(prctl(libc::PR_CAPBSET_DROP, capability))?;
        }
        steps.done(libc::syscall(libc::SYS_setgroups, 0, none))?;
        steps.done(libc::syscall(libc::SYS_setresgid, 0, 0, 0))?;
        steps.done(libc::syscall(libc::SYS_setresuid, 0, 0, 0))?;
        // `_LINUX_CAPABILITY_VERSION_3` and empty sets, see capset(2).
        let (header, data) = ([0x2008_0522_u32, 0], [0_u32; 6]);
        steps.done(libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()))?;
        steps.done(prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        steps.done(libc::syscall(libc::SYS_chdir, c"/".as_ptr()))?;
        // `struct sock_fprog`; the instructions have the layout of `sock_filter`.
        let filter = (floor.filter.len(), floor.filter.as_ptr());
        let program = libc::sock_fprog { len: filter.0 as u16, filter: filter.1.cast_mut().cast() };
        let load = libc::SECCOMP_SET_MODE_FILTER;
        steps.done(libc::syscall(libc::SYS_seccomp, load, 0, std::ptr::from_ref(&program)))?;
        let unblocked = 0_u64;
        let mask = std::ptr::from_ref(&unblocked);
        steps.done(libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, mask, none, 8))?;
        let (arguments, environment) = (context.arguments.as_ptr(), context.environment.as_ptr());
        steps.done(libc::syscall(
            libc::SYS_execve,
            floor.program.as_ptr(),
            arguments,
            environment,
        ))?;
    }
    Ok(())
}

/// Sets `IFF_UP` on interface 1, by netlink (rtnetlink(7)).
///
/// # Safety
///
/// As [`set_up`].
unsafe fn loopback() -> c_long {
    // A `nlmsghdr`, type RTM_NEWLINK (16) with NLM_F_REQUEST (1), and an
    // `ifinfomsg` of interface 1.
    let message: [u32; 8] = [32, 16 | 1 << 16, 1, 0, 0, 1, 1, 1];
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers but that to the message.
    unsafe {
        let socket = libc::syscall(libc::SYS_socket, libc::AF_NETLINK, kind, libc::NETLINK_ROUTE);
        if socket < 0 {
            return socket;
        }
        let sent = libc::syscall(libc::SYS_write, socket, message.as_ptr(), size_of_val(&message));
        libc::syscall(libc::SYS_close, socket);
        sent
    }
}
