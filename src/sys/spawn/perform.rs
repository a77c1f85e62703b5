//! Carrying out one step, in the child: see `child` for the rules.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::sys::resource::Resource;

use super::child::{Context, prctl};
use super::{
    CapabilitySets, Filter, Handle, Instruction, MountAttributes, Program, Scheduling, Slot, Step,
    filesystem, paths, terminal, wait,
};
use crate::sys::keyring;
use crate::sys::raw::{call, signed, small, word};

const OPEN_TREE_CLONE: u32 = 1;
const OPEN_TREE_CLOEXEC: u32 = libc::O_CLOEXEC.cast_unsigned();
pub(super) const AT_RECURSIVE: u32 = 0x8000;
pub(super) const AT_EMPTY_PATH: u32 = libc::AT_EMPTY_PATH.cast_unsigned();
pub(super) const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
pub(super) const MOUNT_ATTR_RDONLY: u64 = 1;

/// Carries out one step.
pub(super) fn step(step: &Step, context: &Context<'_>) -> Result<(), Errno> {
    match step {
        Step::NewSession => simple(libc::SYS_setsid, [0; 3]),
        Step::NewProcessGroup => simple(libc::SYS_setpgid, [0; 3]),
        Step::JoinCgroups => join_cgroups(context),
        Step::WriteFile { path, data } => write_file(path, data),
        Step::Unshare(flags) => simple(libc::SYS_unshare, [signed(flags.bits()), 0, 0]),
        Step::EnterNamespace { namespace, kind } => {
            simple(libc::SYS_setns, [handle(context, *namespace)?, signed(kind.bits()), 0])
        }
        Step::SetMount { path, recursive, attributes } => {
            set_attributes(signed(libc::AT_FDCWD), path, flag(*recursive), attributes)
        }
        Step::OpenTree { path, recursive, slot } => open_tree(context, path, *recursive, *slot),
        Step::SetTree { slot, recursive, attributes } => {
            let flags = AT_EMPTY_PATH | flag(*recursive);
            set_attributes(signed(slot_fd(context, *slot)?), c"", flags, attributes)
        }
        Step::AttachTree { slot, target } => move_mount(slot_fd(context, *slot)?, target),
        Step::EnterTree(slot) => simple(libc::SYS_fchdir, [signed(slot_fd(context, *slot)?), 0, 0]),
        Step::BorrowRoot(slot) => keep(context, *slot, paths::borrow_root()?),
        Step::ReturnRoot(slot) => paths::return_root(slot_fd(context, *slot)?),
        Step::PivotRoot => simple(libc::SYS_pivot_root, [pointer(c"."), pointer(c"."), 0]),
        Step::DetachOldRoot => {
            simple(libc::SYS_umount2, [pointer(c"."), signed(libc::MNT_DETACH), 0])
        }
        Step::Mount { kind, source, target, flags, data } => {
            mount(source, target, Some(kind), *flags, data)
        }
        Step::Filesystem { kind, options, attributes, slot, .. } => {
            keep(context, *slot, filesystem::make(kind, options, *attributes)?)
        }
        Step::Attach { slot, place, links, folder } => {
            let flags = if *folder { libc::O_DIRECTORY } else { 0 };
            paths::attach(context, slot_fd(context, *slot)?, place, flags, *links)
        }
        Step::Make { place, node } => paths::make(context, place, node),
        Step::OpenDevice { path, number, slot } => {
            keep(context, *slot, paths::open_device(path, *number)?)
        }
        Step::Mask { place, null } => paths::mask(context, place, slot_fd(context, *null)?),
        Step::ProtectPath { place } => paths::protect(context, place),
        _ => identity_step(step, context),
    }
}

/// Carries out a step that is about the process rather than its files.
fn identity_step(step: &Step, context: &Context<'_>) -> Result<(), Errno> {
    match step {
        Step::HostName(name) => name_call(libc::SYS_sethostname, name),
        Step::DomainName(name) => name_call(libc::SYS_setdomainname, name),
        Step::LoopbackUp => loopback_up(),
        Step::ResourceLimit { resource, soft, hard } => resource_limit(*resource, *soft, *hard),
        Step::LimitBoundingSet { keep, last } => limit_bounding_set(*keep, *last),
        Step::KeepCapabilities => prctl(libc::PR_SET_KEEPCAPS, 1).map(drop),
        Step::SetGroups(groups) => {
            simple(libc::SYS_setgroups, [groups.len(), groups.as_ptr() as usize, 0])
        }
        Step::SetUser { uid, gid } => {
            simple(libc::SYS_setresgid, [word(*gid); 3])?;
            simple(libc::SYS_setresuid, [word(*uid); 3])
        }
        Step::SetCapabilities(sets) => set_capabilities(sets),
        Step::SetAmbient(set) => set_ambient(*set),
        Step::Hide => prctl(libc::PR_SET_DUMPABLE, 0).map(drop),
        Step::NoNewPrivileges => prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map(drop),
        Step::Seccomp(filter) => load_filter(filter),
        Step::Umask(mask) => simple(libc::SYS_umask, [word(*mask), 0, 0]),
        Step::WorkingDirectory(path) => paths::working_directory(path),
        Step::Personality(domain) => personality(*domain),
        // 1 is IOPRIO_WHO_PROCESS, 0 the caller.
        Step::IoPriority(value) => simple(libc::SYS_ioprio_set, [1, 0, word(*value)]),
        Step::Scheduler(how) => set_scheduler(how),
        Step::ParentDeathSignal(signal) => {
            prctl(libc::PR_SET_PDEATHSIG, signed(*signal as i32)).map(drop)
        }
        Step::MapDescriptors => map_descriptors(context),
        Step::CheckParent => check_parent(context),
        Step::Terminal { owner, console } => terminal::make(context, *owner, *console),
        Step::SessionKeyring(name) => keyring::join_session(pointer(name)),
        Step::OwnSessionKeyring => keyring::join_session(0),
        Step::Pause(number) => wait::pause(context, *number),
        Step::FindProgram => find_program(context),
        Step::AwaitStart => wait::await_start(context),
        // Every step is in one of the two functions; the tests run them all.
        _ => Err(Errno::ENOSYS),
    }
}

/// A system call with up to three arguments.
pub(super) fn simple(number: c_long, arguments: [usize; 3]) -> Result<(), Errno> {
    let [a, b, c] = arguments;
    // SAFETY: the pointers passed in this file are to strings and values that
    // the parent keeps, or to locals that outlive the call.
    unsafe { call(number, [a, b, c, 0, 0, 0]).map(drop) }
}

/// A string as an argument.
pub(super) fn pointer(string: &CStr) -> usize {
    string.as_ptr() as usize
}

/// The flag for a change of a whole tree.
pub(super) fn flag(recursive: bool) -> u32 {
    if recursive { AT_RECURSIVE } else { 0 }
}

/// The number of a prepared descriptor.
fn handle(context: &Context<'_>, handle: Handle) -> Result<usize, Errno> {
    context.handles.get(handle.0).map(|fd| signed(fd.as_raw_fd())).ok_or(Errno::EBADF)
}

/// The number of a descriptor that an earlier step opened.
pub(super) fn slot_fd(context: &Context<'_>, slot: Slot) -> Result<RawFd, Errno> {
    context.slots.get(slot.0).map(|fd| fd.load(Relaxed)).ok_or(Errno::EBADF)
}

/// Writes `0`, which means the writer itself, to every `tasks` file.
fn join_cgroups(context: &Context<'_>) -> Result<(), Errno> {
    for tasks in context.launch.join {
        write_all(tasks.as_raw_fd(), b"0")?;
    }
    Ok(())
}

/// Writes in one call; the kernel files that this is for never write less.
fn write_all(fd: RawFd, data: &[u8]) -> Result<(), Errno> {
    simple(libc::SYS_write, [signed(fd), data.as_ptr() as usize, data.len()])
}

/// Opens a file relative to the working directory.
pub(super) fn open(path: &CStr, flags: i32, mode: u32) -> Result<RawFd, Errno> {
    let flags = signed(flags | libc::O_CLOEXEC);
    let arguments = [signed(libc::AT_FDCWD), pointer(path), flags, word(mode), 0, 0];
    // SAFETY: the path is a valid string.
    unsafe { call(libc::SYS_openat, arguments).and_then(small) }
}

pub(super) fn close(fd: RawFd) {
    // Closing a descriptor of its own can fail only for unwritten data, of
    // which there is none.
    let _ = simple(libc::SYS_close, [signed(fd), 0, 0]);
}

/// Every file that a step writes to is in `/proc`; what only looks like it must
/// not swallow a setting (the CVE-2019-16884 class).
fn write_file(path: &CStr, data: &[u8]) -> Result<(), Errno> {
    let fd = open(path, libc::O_WRONLY, 0)?;
    let result = paths::expect_procfs(fd).and_then(|()| write_all(fd, data));
    close(fd);
    result
}

pub(super) fn mount(
    source: &CStr,
    target: &CStr,
    kind: Option<&CStr>,
    flags: u64,
    data: &CStr,
) -> Result<(), Errno> {
    let kind = kind.map_or(0, pointer);
    let flags = usize::try_from(flags).map_err(|_| Errno::EINVAL)?;
    let arguments = [pointer(source), pointer(target), kind, flags, pointer(data), 0];
    // SAFETY: all strings are valid.
    unsafe { call(libc::SYS_mount, arguments).map(drop) }
}

/// `mount_setattr`, Linux 5.12.
pub(super) fn set_attributes(
    directory: usize,
    path: &CStr,
    flags: u32,
    attributes: &MountAttributes,
) -> Result<(), Errno> {
    let values = [attributes.set, attributes.clear, attributes.propagation, 0];
    let values_at = values.as_ptr() as usize;
    let arguments = [directory, pointer(path), word(flags), values_at, size_of_val(&values), 0];
    // SAFETY: `values` has the layout of `struct mount_attr`: four u64.
    unsafe { call(libc::SYS_mount_setattr, arguments).map(drop) }
}

/// `open_tree` with a copy, Linux 5.2.
pub(super) fn clone_tree(directory: usize, path: &CStr, flags: u32) -> Result<RawFd, Errno> {
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags;
    let arguments = [directory, pointer(path), word(flags), 0, 0, 0];
    // SAFETY: the path is a valid string.
    unsafe { call(libc::SYS_open_tree, arguments).and_then(small) }
}

fn open_tree(context: &Context<'_>, path: &CStr, recursive: bool, slot: Slot) -> Result<(), Errno> {
    keep(context, slot, clone_tree(signed(libc::AT_FDCWD), path, flag(recursive))?)
}

/// Keeps a descriptor for later steps.
fn keep(context: &Context<'_>, slot: Slot, fd: RawFd) -> Result<(), Errno> {
    let place: &AtomicI32 = context.slots.get(slot.0).ok_or(Errno::EBADF)?;
    place.store(fd, Relaxed);
    Ok(())
}

pub(super) fn move_mount(tree: RawFd, target: &CStr) -> Result<(), Errno> {
    let flags = word(MOVE_MOUNT_F_EMPTY_PATH);
    let arguments = [signed(tree), pointer(c""), signed(libc::AT_FDCWD), pointer(target), flags, 0];
    // SAFETY: both paths are valid strings.
    unsafe { call(libc::SYS_move_mount, arguments).map(drop) }
}

fn map_descriptors(context: &Context<'_>) -> Result<(), Errno> {
    let others = [
        &context.parent,
        &context.program_fd,
        &context.channel,
        &context.start,
        &context.started,
        &context.terminal,
    ];
    // A child of its own memory may wait for long, and must not keep open
    // meanwhile what its parent had open.
    context.places.arrange(&others, context.channel.load(Relaxed) >= 0)?;
    terminal::take_streams(context)
}

/// Whether one of the program's paths leads to a file that may be executed.
fn find_program(context: &Context<'_>) -> Result<(), Errno> {
    let Program::Paths(paths) = context.program else { return Ok(()) };
    let mut last = Errno::ENOENT;
    for path in paths {
        match executable(path) {
            Ok(()) => return Ok(()),
            // One that exists and is refused says more.
            Err(error) if last == Errno::ENOENT => last = error,
            Err(_) => {}
        }
    }
    Err(last)
}

/// `faccessat2` (Linux 5.8) asks with the effective ids and capabilities.
fn executable(path: &CStr) -> Result<(), Errno> {
    if let Ok(folder) = open(path, libc::O_PATH | libc::O_DIRECTORY, 0) {
        close(folder);
        return Err(Errno::EACCES);
    }
    let effective = signed(libc::AT_EACCESS);
    let arguments = [signed(libc::AT_FDCWD), pointer(path), signed(libc::X_OK), effective, 0, 0];
    // SAFETY: the path is a valid string.
    match unsafe { call(libc::SYS_faccessat2, arguments) } {
        // Older than the call, or a filter that is: the execution will tell.
        Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        other => other.map(drop),
    }
}

/// `sethostname` and its like take a length.
fn name_call(number: c_long, name: &CString) -> Result<(), Errno> {
    simple(number, [pointer(name), name.as_bytes().len(), 0])
}

/// `struct rlimit64` is two u64.
fn resource_limit(resource: Resource, soft: u64, hard: u64) -> Result<(), Errno> {
    let limits = [soft, hard];
    let arguments = [0, word(resource as u32), limits.as_ptr() as usize, 0, 0, 0];
    // SAFETY: `limits` is valid for reading; the old limits are not asked for.
    unsafe { call(libc::SYS_prlimit64, arguments).map(drop) }
}

fn limit_bounding_set(keep: u64, last: u32) -> Result<(), Errno> {
    for number in (0..=last.min(63)).filter(|number| keep >> number & 1 == 0) {
        prctl(libc::PR_CAPBSET_DROP, word(number))?;
    }
    Ok(())
}

/// `capset` with `_LINUX_CAPABILITY_VERSION_3`: each set in two halves.
fn set_capabilities(sets: &CapabilitySets) -> Result<(), Errno> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let half = |shift: u32| {
        // Keeps the lower 32 bits.
        let cut = |set: u64| u32::try_from(set >> shift & 0xffff_ffff).unwrap_or(0);
        [cut(sets.effective), cut(sets.permitted), cut(sets.inheritable)]
    };
    let data = [half(0), half(32)];
    simple(libc::SYS_capset, [header.as_ptr() as usize, data.as_ptr() as usize, 0])
}

fn set_ambient(set: u64) -> Result<(), Errno> {
    let ambient = |operation: i32, number: usize| {
        let arguments = [signed(libc::PR_CAP_AMBIENT), signed(operation), number, 0, 0, 0];
        // SAFETY: no pointers.
        unsafe { call(libc::SYS_prctl, arguments).map(drop) }
    };
    ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    for number in (0..64_u32).filter(|number| set >> number & 1 == 1) {
        ambient(libc::PR_CAP_AMBIENT_RAISE, word(number))?;
    }
    Ok(())
}

/// The kernel's `struct sock_fprog`.
#[repr(C)]
struct FilterProgram {
    length: u16,
    instructions: *const Instruction,
}

fn load_filter(filter: &Filter) -> Result<(), Errno> {
    let length = u16::try_from(filter.instructions.len()).map_err(|_| Errno::EINVAL)?;
    let program = FilterProgram { length, instructions: filter.instructions.as_ptr() };
    let program = std::ptr::from_ref(&program) as usize;
    let mode = word(libc::SECCOMP_SET_MODE_FILTER);
    let arguments = [mode, word(filter.flags), program, 0, 0, 0];
    // SAFETY: `program` names `length` instructions that the parent keeps.
    match unsafe { call(libc::SYS_seccomp, arguments)? } {
        0 => Ok(()),
        // With TSYNC: the number of a thread that could not follow.
        _ => Err(Errno::ESRCH),
    }
}

/// `personality` returns what was before, which may look like an error.
fn personality(domain: u64) -> Result<(), Errno> {
    simple(libc::SYS_personality, [usize::try_from(domain).map_err(|_| Errno::EINVAL)?, 0, 0])
}

/// `struct sched_attr` in its first version: 48 bytes.
fn set_scheduler(how: &Scheduling) -> Result<(), Errno> {
    const BYTES: u32 = 48;
    let pair = |low: u32, high: u32| {
        let (a, b) = (low.to_ne_bytes(), high.to_ne_bytes());
        u64::from_ne_bytes([a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]])
    };
    let attributes = [
        pair(BYTES, how.policy),
        how.flags,
        pair(how.nice.cast_unsigned(), how.priority),
        how.runtime,
        how.deadline,
        how.period,
    ];
    simple(libc::SYS_sched_setattr, [0, attributes.as_ptr() as usize, 0])
}

/// Fails when the launching process has ended. By `getppid` one cannot tell
/// in a pid namespace, where it is always 0.
fn check_parent(context: &Context<'_>) -> Result<(), Errno> {
    let mut entry =
        libc::pollfd { fd: context.parent.load(Relaxed), events: libc::POLLIN, revents: 0 };
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let entry = std::ptr::from_mut(&mut entry) as usize;
    let arguments = [entry, 1, std::ptr::from_ref(&now) as usize, 0, 0, 0];
    // SAFETY: one valid `pollfd`, a valid time and no signal mask.
    match unsafe { call(libc::SYS_ppoll, arguments) } {
        Ok(0) => Ok(()),
        Ok(_) => Err(Errno::ESRCH),
        Err(error) => Err(error),
    }
}

/// The netlink message "set the flag `IFF_UP` of interface 1", as a
/// `nlmsghdr` and an `ifinfomsg` in words of 32 bits.
fn loopback_message() -> [u32; 8] {
    const LENGTH: u32 = 32;
    const UP: u32 = libc::IFF_UP.cast_unsigned();
    // Type and flags share a word, the first in the lower address.
    let kind = libc::RTM_NEWLINK.to_ne_bytes();
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK).unwrap_or(0).to_ne_bytes();
    let kind_and_flags = u32::from_ne_bytes([kind[0], kind[1], flags[0], flags[1]]);
    [LENGTH, kind_and_flags, 1, 0, 0, 1, UP, UP]
}

/// Brings up `lo` by netlink, which is about half as expensive as the two
/// `ioctl`s, and reads the kernel's answer.
fn loopback_up() -> Result<(), Errno> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    let arguments = [signed(libc::AF_NETLINK), signed(kind), signed(libc::NETLINK_ROUTE), 0, 0, 0];
    // SAFETY: no pointers.
    let socket = unsafe { call(libc::SYS_socket, arguments).and_then(small)? };
    let message = loopback_message();
    let mut answer = [0_u32; 64];
    let at = message.as_ptr() as usize;
    let result =
        simple(libc::SYS_write, [signed(socket), at, size_of_val(&message)]).and_then(|()| {
            // The answer is an `nlmsgerr` behind its `nlmsghdr`: its fifth word
            // is 0 or a negated error.
            let at = answer.as_mut_ptr() as usize;
            simple(libc::SYS_read, [signed(socket), at, size_of_val(&answer)])
        });
    close(socket);
    result?;
    match answer[4].cast_signed() {
        0 => Ok(()),
        error => Err(Errno::from_raw(error.wrapping_neg())),
    }
}
