//! The size of a terminal's window.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;

/// Size of a window in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowSize {
    /// Height.
    pub rows: u16,
    /// Width.
    pub columns: u16,
}

impl WindowSize {
    /// The size of a terminal.
    ///
    /// # Errors
    ///
    /// `ENOTTY` for what is none.
    pub fn of(terminal: impl AsFd) -> Result<Self, Errno> {
        let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        let terminal = terminal.as_fd().as_raw_fd();
        // SAFETY: the kernel writes one `winsize`, which `size` is.
        Errno::result(unsafe { libc::ioctl(terminal, libc::TIOCGWINSZ, &raw mut size) })?;
        Ok(Self { rows: size.ws_row, columns: size.ws_col })
    }

    /// Gives a terminal this size; the programs in its foreground are told
    /// by `SIGWINCH` if it is another one than before.
    ///
    /// # Errors
    ///
    /// `ENOTTY` for what is none.
    pub fn apply(self, terminal: impl AsFd) -> Result<(), Errno> {
        let size =
            libc::winsize { ws_row: self.rows, ws_col: self.columns, ws_xpixel: 0, ws_ypixel: 0 };
        let terminal = terminal.as_fd().as_raw_fd();
        // SAFETY: the kernel reads one `winsize`, which `size` is.
        Errno::result(unsafe { libc::ioctl(terminal, libc::TIOCSWINSZ, &raw const size) }).map(drop)
    }
}
