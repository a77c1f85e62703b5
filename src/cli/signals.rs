//! SIGINT and SIGTERM end a run in order: a flag between trials, and a
//! readable descriptor that ends a wait.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use super::exit::Exit;

/// The signals that end a run, caught.
#[derive(Debug)]
pub struct Signals {
    /// Becomes true with the first signal.
    pub stop: Arc<AtomicBool>,
    which: Arc<AtomicUsize>,
    readable: UnixStream,
}

impl Signals {
    /// Catches the signals. A second one ends the process at once; the
    /// launcher then cleans up.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn catch() -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let which = Arc::new(AtomicUsize::new(0));
        let (readable, writable) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM] {
            let status = i32::from(Exit::Signal(signal).code());
            flag::register_conditional_shutdown(signal, status, Arc::clone(&stop))?;
            flag::register(signal, Arc::clone(&stop))?;
            let number = usize::try_from(signal).unwrap_or_default();
            flag::register_usize(signal, Arc::clone(&which), number)?;
            low_level::pipe::register(signal, writable.try_clone()?)?;
        }
        Ok(Self { stop, which, readable })
    }

    /// A descriptor that becomes readable with the first signal.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        Ok(self.readable.try_clone()?.into())
    }

    /// How a run that was ended by a signal exits.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let signal = i32::try_from(self.which.load(Ordering::Relaxed)).unwrap_or(SIGINT);
        Exit::Signal(if signal == 0 { SIGINT } else { signal })
    }
}
