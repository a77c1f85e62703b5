//! Where a container's terminal goes.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Process;

use super::error::LifecycleError;
use crate::sys::spawn::Terminal;

/// A connection to who takes the terminal.
#[derive(Debug)]
pub(super) struct Console {
    socket: UnixStream,
    rows: u16,
    columns: u16,
}

impl Console {
    /// Connects, if the process has a terminal.
    pub(super) fn connect(
        process: &Process,
        socket: Option<&Path>,
    ) -> Result<Option<Self>, LifecycleError> {
        let path = match (process.terminal().unwrap_or(false), socket) {
            (false, None) => return Ok(None),
            (true, Some(path)) => path,
            (true, None) => {
                return Err(LifecycleError::Usage(
                    "process.terminal needs a --console-socket, over which the terminal is sent",
                ));
            }
            (false, Some(_)) => {
                return Err(LifecycleError::Usage(
                    "--console-socket makes sense only with process.terminal",
                ));
            }
        };
        let failed = |path: PathBuf| move |source| LifecycleError::Console { path, source };
        let socket = UnixStream::connect(path).map_err(failed(path.to_owned()))?;
        let size = process.console_size();
        // What does not fit is not a size of a terminal.
        let number = |value: Option<u64>| value.and_then(|value| u16::try_from(value).ok());
        Ok(Some(Self {
            socket,
            rows: number(size.map(|size| size.height())).unwrap_or(0),
            columns: number(size.map(|size| size.width())).unwrap_or(0),
        }))
    }

    pub(super) fn terminal(&self) -> Terminal<'_> {
        Terminal { socket: self.socket.as_fd(), rows: self.rows, columns: self.columns }
    }
}
