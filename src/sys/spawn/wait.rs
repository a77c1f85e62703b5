//! Waiting for others, in a child that has memory of its own: see `child` for
//! the rules and `apart` for the other side.

use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use nix::libc;

use super::child::Context;
use super::perform::{close, simple};
use crate::sys::raw::{call, signed};

/// What the child sends when it has nothing left to do but to wait for
/// its start; no [`Step::Pause`](super::Step::Pause) may have this number.
pub(super) const SET_UP: u8 = u8::MAX;

/// Tells the launching process, and waits for its answer.
pub(super) fn pause(context: &Context<'_>, number: u8) -> Result<(), Errno> {
    let channel = context.channel.load(Relaxed);
    say(channel, number)?;
    match hear(channel)? {
        // It has ended, or gives up.
        None => Err(Errno::ECANCELED),
        Some(_) => Ok(()),
    }
}

/// Tells the launching process that all is done, forgets it, and waits.
pub(super) fn await_start(context: &Context<'_>) -> Result<(), Errno> {
    let start = context.start.load(Relaxed);
    if start < 0 {
        return Err(Errno::EBADF);
    }
    let channel = context.channel.load(Relaxed);
    say(channel, SET_UP)?;
    drop_fd(&context.channel);
    match hear(start)? {
        None => Err(Errno::ECANCELED),
        Some(_) => Ok(()),
    }
}

/// Tells who started the child, if anybody waits for it, why it could not
/// execute its program: the step's index and the error, as 32-bit numbers.
pub(super) fn say_failure(context: &Context<'_>, error: Errno) {
    let started = context.started.load(Relaxed);
    if started < 0 {
        return;
    }
    let step = u32::try_from(context.report.step.load(Relaxed)).unwrap_or(u32::MAX);
    let message = [step, (error as i32).cast_unsigned()];
    // Who does not listen does not hear it.
    let at = message.as_ptr() as usize;
    let _ = simple(libc::SYS_write, [signed(started), at, size_of_val(&message)]);
}

fn drop_fd(fd: &AtomicI32) {
    close(fd.load(Relaxed));
    fd.store(-1, Relaxed);
}

fn say(fd: i32, byte: u8) -> Result<(), Errno> {
    simple(libc::SYS_write, [signed(fd), std::ptr::from_ref(&byte) as usize, 1])
}

/// One byte, or nothing at the end. `EPIPE` cannot come as a signal: all are
/// blocked.
fn hear(fd: i32) -> Result<Option<u8>, Errno> {
    let mut byte = 0_u8;
    loop {
        let arguments = [signed(fd), std::ptr::from_mut(&mut byte) as usize, 1, 0, 0, 0];
        // SAFETY: one byte is valid for writing.
        match unsafe { call(libc::SYS_read, arguments) } {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(byte)),
        }
    }
}
