//! A child with memory of its own (a copy, made by the kernel page by page
//! when either writes), so that its parent goes on at once and may end before
//! it.
//!
//! What it reports is in memory that both share; when it has something to
//! report it says so over a socket, whose closing by `execve` is the news
//! that the program was executed.

use std::io::{Read, Write};
use std::ops::Deref;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use super::child::Report;
use super::guard::Guard;
use super::wait::SET_UP;
use super::{Child, Command, Launch, SpawnError, Step, follow};
use crate::sys::fdpass::stream_pair;

/// What a child that was told to start says when it could not execute its
/// program, through [`Hold::started`](super::Hold::started).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// The step that failed; the number of steps stands for the execution.
    pub step: u32,
    /// The kernel's error.
    pub error: Errno,
}

impl StartFailure {
    /// Reads what [`Hold::started`](super::Hold::started) gave; nothing for
    /// the end of the file, which is success, or a message that was cut short.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (step, rest) = bytes.split_first_chunk()?;
        let (error, _) = rest.split_first_chunk()?;
        let error = Errno::from_raw(i32::from_ne_bytes(*error));
        Some(Self { step: u32::from_ne_bytes(*step), error })
    }
}

/// A report in memory that the child of a `clone` without `CLONE_VM` shares.
struct SharedReport(NonNull<Report>);

impl SharedReport {
    fn new() -> Result<Self, Errno> {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's
        // choice touches no existing memory. It is page-aligned, larger than
        // a `Report`, and all zeroes, which is a valid one.
        unsafe {
            let base = libc::mmap(
                std::ptr::null_mut(),
                size_of::<Report>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            if base == libc::MAP_FAILED {
                return Err(Errno::last());
            }
            NonNull::new(base.cast()).map(Self).ok_or(Errno::EFAULT)
        }
    }
}

impl Deref for SharedReport {
    type Target = Report;

    fn deref(&self) -> &Report {
        // SAFETY: valid until `drop`; only atomics are in it, so that the
        // child may write meanwhile.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedReport {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `new` mapped, in this process only.
        unsafe {
            libc::munmap(self.0.as_ptr().cast(), size_of::<Report>());
        }
    }
}

impl Command {
    /// Launches a child with memory of its own, and returns when it has
    /// executed its program, or when it waits in [`Step::AwaitStart`].
    ///
    /// At each [`Step::Pause`] the child waits while `at_pause` is called with
    /// the step's number and the child. When that fails, or this process
    /// ends, the child ends too.
    ///
    /// It costs about a tenth of a millisecond more than [`Command::spawn`]
    /// from a small process, and much more from a large one.
    ///
    /// # Errors
    ///
    /// See [`SpawnError`], and whatever `at_pause` fails with. The child is
    /// reaped then.
    pub fn spawn_apart<E: From<SpawnError>>(
        &mut self,
        launch: &Launch<'_>,
        at_pause: impl FnMut(u8, &Child) -> Result<(), E>,
    ) -> Result<Child, E> {
        let channel = |action| move |source| SpawnError::Channel { action, source };
        if launch.hold.is_none() && self.steps.contains(&Step::AwaitStart) {
            return Err(SpawnError::Unfit("a step waits for a start and nobody can").into());
        }
        let report = SharedReport::new().map_err(channel("map shared memory"))?;
        let (near, far) = stream_pair()
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
            .map_err(channel("make a socket"))?;
        let guard = self.guard(launch)?;
        let child = self.clone_apart(launch, &report, &near, far, guard.as_ref())?;
        match converse(near, &child, at_pause) {
            Ok(()) => match self.failure_apart(&report) {
                None => {
                    if let Some(source) = guard.and_then(Guard::outcome) {
                        let _ = child.pidfd.wait(None);
                        let program = self.program_name();
                        return Err(SpawnError::Execute { program, source }.into());
                    }
                    Ok(Child {
                        begun: report.begun.load(Relaxed),
                        set_up: report.set_up.load(Relaxed),
                        ..child
                    })
                }
                Some(error) => {
                    // It has said that it gives up, or was killed.
                    let _ = child.pidfd.wait(None);
                    Err(error.into())
                }
            },
            Err(error) => {
                // The first error is the one that says why.
                let _ = child.pidfd.kill_and_wait();
                Err(error)
            }
        }
    }

    fn clone_apart(
        &mut self,
        launch: &Launch<'_>,
        report: &Report,
        near: &OwnedFd,
        far: OwnedFd,
        guard: Option<&Guard<'_>>,
    ) -> Result<Child, SpawnError> {
        let places = self.places(launch, guard)?;
        let parent = self.parent_pidfd()?;
        self.make_user_namespace()?;
        let mut context = self.context(parent, launch, &places, report, &[]).guarded(guard);
        context.far_end = near.as_raw_fd();
        context.channel.store(far.as_raw_fd(), Relaxed);
        let cloned = self.clone_child(&context, 0);
        self.forget_user_namespace();
        let (mut pid, mut pidfd) = cloned?;
        drop(far);
        if self.second_stack.is_some() {
            // The first child ends as soon as there is a second one.
            let _ = pidfd.wait(None);
            (pid, pidfd) = follow(pid, pidfd, report)?;
        }
        Ok(Child { pid: Pid::from_raw(pid), pidfd, begun: 0, set_up: 0, trace: Vec::new() })
    }

    /// As `failure`, but for a child that waits to be started.
    fn failure_apart(&self, report: &Report) -> Option<SpawnError> {
        let waits = self.steps.get(report.step.load(Relaxed)) == Some(&Step::AwaitStart);
        if waits && report.errno.load(Relaxed) == 0 { None } else { self.failure(report) }
    }
}

/// Answers the child until it needs no answers any more: it waits for its
/// start, has executed its program, or has ended.
fn converse<E: From<SpawnError>>(
    near: OwnedFd,
    child: &Child,
    mut at_pause: impl FnMut(u8, &Child) -> Result<(), E>,
) -> Result<(), E> {
    let mut near = UnixStream::from(near);
    let failed = |action| {
        move |error: std::io::Error| SpawnError::Channel {
            action,
            source: Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    };
    loop {
        let mut byte = [0];
        match near.read(&mut byte) {
            Ok(0) => return Ok(()),
            Ok(_) if byte == [SET_UP] => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            // Ended with an answer unread.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(failed("read")(error).into()),
        }
        at_pause(byte[0], child)?;
        near.write_all(&[0]).map_err(failed("answer"))?;
    }
}
