//! A pseudo-terminal for a child, made by the child itself in the devpts that
//! its program will see: see `child` for the rules.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use nix::libc;

use super::Terminal;
use super::child::Context;
use super::perform::{close, move_mount, open, pointer, simple};
use crate::sys::raw::{call, signed, small, word};

/// The multiplexer of the devpts instance at `/dev/pts`; `/dev/ptmx` may be
/// another instance's.
const MULTIPLEXER: &CStr = c"/dev/pts/ptmx";
/// `DEVPTS_SUPER_MAGIC` of statfs(2).
const DEVPTS: i64 = 0x1cd1;
/// `OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH`.
const CLONE_OF_FD: u32 = 1 | libc::O_CLOEXEC.cast_unsigned() | libc::AT_EMPTY_PATH.cast_unsigned();

/// Makes the terminal; its other side becomes the child's standard streams in
/// `take_streams`.
pub(super) fn make(context: &Context<'_>, owner: u32, console: bool) -> Result<(), Errno> {
    // `Command` refuses to launch without one.
    let terminal = context.launch.terminal.ok_or(Errno::ENOTTY)?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let master = open(MULTIPLEXER, flags, 0)?;
    let result = set_up(master, &terminal, owner, console);
    close(master);
    context.terminal.store(result?, Relaxed);
    Ok(())
}

/// From an open multiplexer to the terminal's side, which is returned.
fn set_up(
    master: RawFd,
    terminal: &Terminal<'_>,
    owner: u32,
    console: bool,
) -> Result<RawFd, Errno> {
    must_be_devpts(master)?;
    // Who reads it expects a descriptor that waits.
    simple(libc::SYS_fcntl, [signed(master), signed(libc::F_SETFL), signed(libc::O_RDWR)])?;
    let unlocked = 0_i32;
    let unlocked_at = std::ptr::from_ref(&unlocked) as usize;
    control(master, libc::TIOCSPTLCK, unlocked_at)?;
    let peer_flags = signed(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
    // By descriptor, since a path could lead to something else.
    let peer = small(control(master, libc::TIOCGPTPEER, peer_flags)?)?;
    let size = libc::winsize {
        ws_row: terminal.rows,
        ws_col: terminal.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    control(peer, libc::TIOCSWINSZ, std::ptr::from_ref(&size) as usize)?;
    // The group stays as the mount's `gid=` option wants it.
    simple(libc::SYS_fchown, [signed(peer), word(owner), word(u32::MAX)])?;
    control(peer, libc::TIOCSCTTY, 0)?;
    if console {
        bind(peer)?;
    }
    send(terminal.socket.as_raw_fd(), master)?;
    Ok(peer)
}

/// Refuses what only looks like the multiplexer.
fn must_be_devpts(master: RawFd) -> Result<(), Errno> {
    // Larger than the kernel's `struct statfs`, whose first word is the type.
    let mut status = [0_i64; 32];
    simple(libc::SYS_fstatfs, [signed(master), status.as_mut_ptr() as usize, 0])?;
    if status[0] == DEVPTS { Ok(()) } else { Err(Errno::ENOTTY) }
}

fn control(fd: RawFd, request: libc::Ioctl, argument: usize) -> Result<usize, Errno> {
    // SAFETY: `argument` is a number or points at what the request reads, as
    // the callers above pass it.
    unsafe { call(libc::SYS_ioctl, [signed(fd), request_word(request), argument, 0, 0, 0]) }
}

/// The C library types requests differently by platform.
fn request_word(request: libc::Ioctl) -> usize {
    // All requests here are below 2^31.
    usize::try_from(request).unwrap_or(0)
}

/// Binds the terminal at `/dev/console`.
fn bind(peer: RawFd) -> Result<(), Errno> {
    let arguments = [signed(peer), pointer(c""), word(CLONE_OF_FD), 0, 0, 0];
    // SAFETY: the path is a valid string.
    let tree = unsafe { call(libc::SYS_open_tree, arguments).and_then(small)? };
    let result = move_mount(tree, c"/dev/console");
    close(tree);
    result
}

/// A control message with one descriptor, see cmsg(3).
#[repr(C)]
struct OneDescriptor {
    header: libc::cmsghdr,
    fd: RawFd,
    padding: u32,
}

/// Sends the master with its name, as `SCM_RIGHTS` of unix(7).
fn send(socket: RawFd, master: RawFd) -> Result<(), Errno> {
    let name = MULTIPLEXER.to_bytes();
    let mut data = libc::iovec { iov_base: name.as_ptr().cast_mut().cast(), iov_len: name.len() };
    // SAFETY: plain data for which all zeroes is a valid value.
    let (mut message, mut control) =
        unsafe { (std::mem::zeroed::<libc::msghdr>(), std::mem::zeroed::<OneDescriptor>()) };
    control.fd = master;
    control.header.cmsg_level = libc::SOL_SOCKET;
    control.header.cmsg_type = libc::SCM_RIGHTS;
    // The types of lengths differ between C libraries; both values are small.
    #[allow(clippy::useless_conversion, reason = "the type differs between C libraries")]
    {
        let length = size_of::<libc::cmsghdr>() + size_of::<RawFd>();
        control.header.cmsg_len = length.try_into().map_err(|_| Errno::EOVERFLOW)?;
        message.msg_iovlen = 1_u8.into();
        message.msg_controllen =
            size_of::<OneDescriptor>().try_into().map_err(|_| Errno::EOVERFLOW)?;
    }
    message.msg_iov = &raw mut data;
    message.msg_control = (&raw mut control).cast();
    let at = (&raw const message) as usize;
    simple(libc::SYS_sendmsg, [signed(socket), at, signed(libc::MSG_NOSIGNAL)])
}

/// Puts the terminal, if there is one, on the standard streams.
pub(super) fn take_streams(context: &Context<'_>) -> Result<(), Errno> {
    let peer = context.terminal.load(Relaxed);
    if peer < 0 {
        return Ok(());
    }
    for stream in 0..3_i32 {
        simple(libc::SYS_dup3, [signed(peer), signed(stream), 0])?;
    }
    close(peer);
    context.terminal.store(-1, Relaxed);
    Ok(())
}
