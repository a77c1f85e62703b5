//! The launcher: a small single-threaded process that starts and stops every
//! instance on request, and the harness's handle to it.
//!
//! Launching from a process of its own keeps the harness's threads and heap
//! out of the timed window, and ties clean-up to one place: when the harness
//! dies in whatever way, the launcher sees its socket close and removes
//! everything of the run.

mod bare;
mod console;
mod delay;
mod live;
pub mod order;
pub(super) mod peer;
mod place;
mod qmp;
mod server;
mod snapshot;
mod start;
mod template;
mod trace;
mod watch;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub use delay::ENV_DELAY;
use nix::poll::{PollFd, PollFlags, poll};
use order::{Answer, Order};
pub use server::{ServeError, serve};

use crate::sys::clock::Deadline;
use crate::sys::{executable, fdpass};

/// Name of the hidden subcommand under which the executable is a launcher.
pub const SUBCOMMAND: &str = "__launcher";

/// Time beyond an order's own deadline after which the launcher itself is
/// taken to be stuck.
const GRACE: Duration = Duration::from_secs(10);

/// Why the launcher cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    /// It could not be started.
    #[error("cannot start the launcher `{executable}`")]
    Start {
        /// The executable.
        executable: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its socket failed.
    #[error("cannot talk to the launcher")]
    Talk(#[source] io::Error),
    /// It ended without an answer.
    #[error("the launcher ended without an answer to {order}")]
    Ended {
        /// The order it was working on.
        order: String,
    },
    /// It did not answer in time.
    #[error("the launcher did not answer to {order} within {seconds} s")]
    Stuck {
        /// The order it was working on.
        order: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// It answered something that does not fit the order.
    #[error("the launcher answered to {order}: {answer}")]
    Unexpected {
        /// The order.
        order: String,
        /// The answer.
        answer: String,
    },
    /// A signal asked the run to end while an answer was awaited.
    #[error("interrupted by a signal")]
    Interrupted,
}

/// The harness's handle to its launcher. Dropping it ends the launcher and
/// with it every instance.
#[derive(Debug)]
pub struct Launcher {
    socket: Option<OwnedFd>,
    interrupt: Option<OwnedFd>,
    child: Child,
}

impl Launcher {
    /// Starts a launcher for the run `run_id`. `path` leads to the
    /// `unladen` command; a readable `interrupt` descriptor ends every wait.
    ///
    /// # Errors
    /// [`LauncherError::Start`].
    pub fn start(
        path: &Path,
        run_id: &str,
        interrupt: Option<OwnedFd>,
    ) -> Result<Self, LauncherError> {
        let start =
            |source| LauncherError::Start { executable: path.display().to_string(), source };
        let (near, far) = fdpass::message_pair().map_err(start)?;
        // Sealed once here, so that no launch has to protect the executable.
        let sealed = executable::sealed(path).map_err(start)?;
        let child = Command::new(format!("/proc/self/fd/{}", sealed.as_raw_fd()))
            .arg0(path)
            // Whose launcher it is, for `leftovers`.
            .args([SUBCOMMAND, run_id, &std::process::id().to_string()])
            // The socket is its standard input: the one descriptor that
            // needs no number to be agreed on.
            .stdin(Stdio::from(far))
            .stdout(Stdio::null())
            // A terminal's Ctrl-C must reach the harness alone, which then
            // ends the launcher in order.
            .process_group(0)
            .spawn()
            .map_err(start)?;
        Ok(Self { socket: Some(near), interrupt, child })
    }

    /// Sends an order and waits for its answer, at most `patience`.
    ///
    /// # Errors
    /// When the launcher is gone, stuck, or a signal came.
    pub fn order(
        &mut self,
        order: &Order,
        patience: Duration,
    ) -> Result<(Answer, Vec<OwnedFd>), LauncherError> {
        let ended = || LauncherError::Ended { order: describe(order) };
        let socket = self.socket.as_ref().ok_or_else(ended)?;
        let bytes = serde_json::to_vec(order).map_err(|error| LauncherError::Talk(error.into()))?;
        fdpass::send(socket, &bytes, &[]).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => ended(),
            _ => LauncherError::Talk(error),
        })?;
        self.await_answer(order, patience + GRACE)?;
        let (bytes, fds) =
            fdpass::receive(socket).map_err(LauncherError::Talk)?.ok_or_else(ended)?;
        let answer = serde_json::from_slice(&bytes)
            .map_err(|error| LauncherError::Talk(io::Error::from(error)))?;
        Ok((answer, fds))
    }

    /// Waits until the socket is readable.
    fn await_answer(&self, order: &Order, patience: Duration) -> Result<(), LauncherError> {
        let deadline = Deadline::after(patience);
        let mut sources: Vec<BorrowedFd<'_>> = Vec::with_capacity(2);
        sources.extend(self.socket.as_ref().map(AsFd::as_fd));
        sources.extend(self.interrupt.as_ref().map(AsFd::as_fd));
        let mut fds: Vec<PollFd<'_>> =
            sources.into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        while !deadline.passed() {
            match poll(&mut fds, deadline.poll_timeout()) {
                Err(nix::errno::Errno::EINTR) | Ok(0) => {}
                Err(error) => return Err(LauncherError::Talk(error.into())),
                // An answer that is there is taken before a signal is heeded.
                Ok(_) if fds[0].any().unwrap_or(false) => return Ok(()),
                Ok(_) => return Err(LauncherError::Interrupted),
            }
        }
        Err(LauncherError::Stuck { order: describe(order), seconds: patience.as_secs() })
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // Closing the socket tells it to remove everything and end. Only
        // when it does not is it killed; its children die with it, and
        // `unladen clean` removes the rest.
        drop(self.socket.take());
        let deadline = Deadline::after(Duration::from_secs(30));
        while matches!(self.child.try_wait(), Ok(None)) {
            if deadline.passed() {
                drop(self.child.kill());
                drop(self.child.wait());
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A short name of an order for messages.
fn describe(order: &Order) -> String {
    match order {
        Order::Prepare { template, .. } => format!("prepare template {template}"),
        Order::Launch { instance, .. } => format!("launch {instance}"),
        Order::Stop { instance, .. } => format!("stop {instance}"),
        Order::StopMany { instances, .. } => format!("stop {} instances", instances.len()),
        Order::Kill { instance } => format!("kill {instance}"),
    }
}
