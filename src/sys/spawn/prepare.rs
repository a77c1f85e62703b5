//! Preparing a mount namespace that no process lives in.

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use nix::libc;
use nix::sched::CloneFlags;

use super::child::{Context, Report};
use super::descriptors::Places;
use super::{Launch, Program, SpawnError, Step, perform, slots};
use crate::sys::raw::{call, signed, small};

/// Makes a mount namespace, as a copy of the caller's, and carries out `steps`
/// in it. It lives as long as the descriptor (or a process in it) does.
///
/// The work is done by a thread that ends before this returns: a thread may
/// enter a mount namespace alone, and takes its own root and working directory
/// along. The caller's are not changed.
///
/// # Errors
///
/// Naming the step, as for a child; nothing is left then.
pub fn mount_namespace(steps: &[Step]) -> Result<OwnedFd, SpawnError> {
    let build = || build(steps);
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new()
            .name("unladen-mounts".to_owned())
            .spawn_scoped(scope, build)
            .map_err(SpawnError::Thread)?;
        builder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What the thread does.
fn build(steps: &[Step]) -> Result<OwnedFd, SpawnError> {
    let namespaces = CloneFlags::CLONE_NEWNS;
    nix::sched::unshare(namespaces).map_err(|source| SpawnError::Clone { namespaces, source })?;
    // Opened now, since `/proc` is out of sight when the root has changed.
    let namespace = open_own_namespace().map_err(SpawnError::Namespace)?;
    let places = Places::new(&[]).map_err(SpawnError::Target)?;
    let slots = slots(steps);
    let result = carry_out(steps, &slots, &places);
    for slot in slots {
        let fd = slot.load(Relaxed);
        if fd >= 0 {
            // SAFETY: a step of this call opened it; nobody else knows it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    result.map(|()| namespace)
}

fn carry_out(steps: &[Step], slots: &[AtomicI32], places: &Places) -> Result<(), SpawnError> {
    let report = Report::default();
    let context = Context {
        steps,
        handles: &[],
        slots,
        launch: &Launch::default(),
        places,
        parent: AtomicI32::new(-1),
        program: &Program::Paths(Vec::new()),
        guarded: false,
        program_fd: AtomicI32::new(-1),
        arguments: std::ptr::null(),
        environment: std::ptr::null(),
        ignored_signals: 0,
        second_stack: None,
        trace: &[],
        channel: AtomicI32::new(-1),
        far_end: -1,
        start: AtomicI32::new(-1),
        started: AtomicI32::new(-1),
        terminal: AtomicI32::new(-1),
        report: &report,
    };
    for (index, step) in steps.iter().enumerate() {
        perform::step(step, &context).map_err(|source| SpawnError::Step {
            index,
            step: step.to_string(),
            source,
        })?;
    }
    Ok(())
}

/// The mount namespace of this thread.
fn open_own_namespace() -> Result<OwnedFd, Errno> {
    let path = c"/proc/thread-self/ns/mnt".as_ptr() as usize;
    let flags = signed(libc::O_RDONLY | libc::O_CLOEXEC);
    // SAFETY: a valid path; the kernel returns a fresh descriptor that nobody
    // else owns.
    unsafe {
        let arguments = [signed(libc::AT_FDCWD), path, flags, 0, 0, 0];
        let fd = call(libc::SYS_openat, arguments)?;
        Ok(OwnedFd::from_raw_fd(small(fd)?))
    }
}
