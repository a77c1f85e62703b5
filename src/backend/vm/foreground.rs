//! One machine in the foreground: its console is the terminal, and its
//! workload's exit code is told twice, in-band and by QEMU. It measures
//! nothing.

use std::ffi::{CString, NulError};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::sched::CloneFlags;
use nix::sys::signal::Signal;

use super::super::BackendError;
use super::super::launcher::order::{Program, fd};
use super::machine::Descriptors;
use super::{Accelerator, Vm, unavailable};
use crate::payload::{Decoder, Event};
use crate::record::CellKey;
use crate::sys::fdpass::{listening_pair, stream_pair};
use crate::sys::pidfd::{Ended, Exit};
use crate::sys::signals;
use crate::sys::spawn::{self, Command, CommandError, Launch, SpawnError, Step};

/// What is to be booted.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The machine, as a cell of a run.
    pub cell: CellKey,
    /// Another kernel than the cell's.
    pub kernel: Option<PathBuf>,
    /// Whether its kernel says all it has to say.
    pub verbose: bool,
}

/// Why a machine did not run, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ForegroundError {
    /// An argument holds a NUL byte.
    #[error("an argument holds a NUL byte")]
    Nul(#[from] NulError),
    /// The child cannot be prepared.
    #[error("cannot prepare QEMU's process")]
    Command(#[from] CommandError),
    /// QEMU cannot be started.
    #[error("cannot start QEMU `{path}`")]
    Spawn {
        /// Its file.
        path: String,
        /// Why.
        #[source]
        source: SpawnError,
    },
    /// A system call failed.
    #[error("cannot {0}")]
    Io(&'static str, #[source] io::Error),
    /// The payload says what went wrong.
    #[error("the payload in the guest says: {0}")]
    Payload(String),
    /// The machine ended before its workload did.
    #[error(
        "the guest ended before its workload said a word: QEMU {how}; --verbose shows all messages \
         of its kernel"
    )]
    Silent {
        /// How QEMU ended.
        how: String,
    },
    /// The two ways of telling the code contradict each other.
    #[error("the workload announced exit code {announced} and QEMU {how}")]
    Contradiction {
        /// In-band.
        announced: u8,
        /// How QEMU ended.
        how: String,
    },
}

/// A machine ready to be booted in the foreground.
#[derive(Debug)]
pub struct Foreground {
    /// QEMU's argument vector.
    pub argv: Vec<String>,
    /// What executes the guest.
    pub accelerator: Accelerator,
    /// Why it is not KVM.
    pub reason: Option<String>,
    program: Program,
    /// What serves its root file system.
    server: Option<Program>,
    /// Whether QEMU's exit code tells the workload's.
    tells_code: bool,
}

/// Time that a file server may take to see that its machine is gone.
const SERVER_END: Duration = Duration::from_secs(10);

impl Vm {
    /// Makes a machine ready for the foreground.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] when this host cannot run it.
    pub fn foreground(&mut self, wish: &Wish) -> Result<Foreground, BackendError> {
        let mut machine = self.machine(&wish.cell)?;
        if let Some(kernel) = &wish.kernel {
            machine.files.kernel.clone_from(kernel);
        }
        let probe = self.chosen(&wish.cell, &machine)?;
        if wish.verbose {
            machine = machine.verbose();
        }
        let fds = Descriptors { channel: fd::CHANNEL, console: None, qmp: None };
        let argv = machine
            .argv(&self.assets, probe.best, &format!("unladen-{}", self.run_id), &fds, &[])
            .map_err(unavailable)?;
        let path = argv.first().cloned().unwrap_or_default().into();
        let env = std::env::vars_os()
            .filter_map(|(name, value)| {
                Some(format!("{}={}", name.into_string().ok()?, value.into_string().ok()?))
            })
            .collect();
        let program = Program { path, argv: argv.clone(), env, huge_pages: true };
        let server = machine.server(&self.assets, &self.run_id).map_err(unavailable)?;
        let (accelerator, reason) = (probe.best, probe.reason);
        let tells_code = machine.tells_code();
        Ok(Foreground { argv, accelerator, reason, program, server, tells_code })
    }
}

impl Foreground {
    /// Boots it and waits for its end; gives the workload's exit code, or the
    /// signal that ended QEMU in order.
    ///
    /// # Errors
    /// When QEMU cannot be started, or the guest did not end as its workload
    /// announced.
    pub fn run(self) -> Result<Result<u8, i32>, ForegroundError> {
        let (near, far) =
            stream_pair().map_err(|error| ForegroundError::Io("make a socket", error))?;
        // A terminal's Ctrl-C reaches QEMU too, which gives the terminal back.
        signals::ignore(Signal::SIGINT)
            .map_err(|error| ForegroundError::Io("ignore SIGINT", error.into()))?;
        let (server, connection) = self.serve_files()?.unzip();
        let mut fds = vec![(far.as_fd(), fd::CHANNEL)];
        fds.extend(connection.iter().map(|connection| (connection.as_fd(), fd::FILES)));
        let child = start(&self.program, &fds)?;
        drop((far, connection));
        let heard = listen(near)?;
        let ended = child.pidfd.wait(None);
        let exit =
            match ended.map_err(|error| ForegroundError::Io("wait for QEMU", error.into()))? {
                Some(Ended { exit, .. }) => exit,
                None => return Err(ForegroundError::Silent { how: "is still there".to_owned() }),
            };
        if let Some(server) = server {
            let failed = |error: nix::errno::Errno| {
                ForegroundError::Io("wait for the file server", error.into())
            };
            if server.pidfd.wait(Some(SERVER_END)).map_err(failed)?.is_none() {
                server.pidfd.kill_and_wait().map_err(failed)?;
            }
        }
        verdict(heard?, exit, self.tells_code)
    }

    /// Starts the server of its files, if there is one, and gives the
    /// connection to it.
    fn serve_files(&self) -> Result<Option<(spawn::Child, OwnedFd)>, ForegroundError> {
        let Some(program) = &self.server else { return Ok(None) };
        let (listening, connected) =
            listening_pair().map_err(|error| ForegroundError::Io("make a socket", error))?;
        let child = start(program, &[(listening.as_fd(), fd::FILES)])?;
        Ok(Some((child, connected)))
    }
}

/// Starts a program on this terminal with more descriptors.
fn start(
    program: &Program,
    more: &[(BorrowedFd<'_>, i32)],
) -> Result<spawn::Child, ForegroundError> {
    let strings = |texts: &[String]| -> Result<Vec<CString>, NulError> {
        texts.iter().map(|text| CString::new(text.as_str())).collect()
    };
    let path = CString::new(program.path.as_os_str().as_bytes())?;
    let mut command = Command::new(
        spawn::Program::Paths(vec![path]),
        strings(&program.argv)?,
        strings(&program.env)?,
        CloneFlags::empty(),
        vec![
            // QEMU ends in order and gives the terminal back.
            Step::ParentDeathSignal(Signal::SIGTERM),
            Step::MapDescriptors,
            Step::CheckParent,
        ],
    )?;
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let fds = [&[(stdin.as_fd(), 0), (stdout.as_fd(), 1), (stderr.as_fd(), 2)], more].concat();
    command.spawn(&Launch { fds: &fds, ..Launch::default() }).map_err(|source| {
        ForegroundError::Spawn { path: program.path.display().to_string(), source }
    })
}

/// Hears the payload until QEMU closes the channel: the exit code that it
/// announces, or its complaint.
fn listen(channel: OwnedFd) -> Result<Result<Option<u8>, ForegroundError>, ForegroundError> {
    let mut channel = File::from(channel);
    let (mut decoder, mut announced) = (Decoder::default(), None);
    let mut buffer = [0; 4096];
    loop {
        let n = match channel.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            other => other.map_err(|error| ForegroundError::Io("read from the guest", error))?,
        };
        if n == 0 {
            return Ok(Ok(announced));
        }
        for event in decoder.push(&buffer[..n]) {
            match event {
                Event::Result(result) => announced = Some(result.code),
                Event::Error(text) => return Ok(Err(ForegroundError::Payload(text))),
                _ => {}
            }
        }
    }
}

/// Weighs what the payload announced against QEMU's own end.
fn verdict(
    announced: Option<u8>,
    exit: Exit,
    tells_code: bool,
) -> Result<Result<u8, i32>, ForegroundError> {
    let how = || match exit {
        Exit::Code(code) => format!("ended with code {code}"),
        Exit::Signal(signal) => format!("was killed by signal {signal}"),
    };
    let Some(announced) = announced else {
        return Err(ForegroundError::Silent { how: how() });
    };
    match exit {
        Exit::Code(0) if !tells_code => Ok(Ok(announced)),
        // isa-debug-exit: 2N+1 for code N.
        Exit::Code(code) if code == 2 * i32::from(announced) + 1 => Ok(Ok(announced)),
        // Told to end from outside, by a terminal's Ctrl-C or a signal.
        Exit::Code(0) => Ok(Err(Signal::SIGINT as i32)),
        Exit::Signal(signal) => Ok(Err(signal)),
        Exit::Code(_) => Err(ForegroundError::Contradiction { announced, how: how() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_telling_a_code_must_agree() {
        assert!(matches!(verdict(Some(7), Exit::Code(15), true), Ok(Ok(7))));
        assert!(matches!(verdict(Some(0), Exit::Code(1), true), Ok(Ok(0))));
        assert!(matches!(verdict(Some(0), Exit::Code(0), true), Ok(Err(2))));
        assert!(matches!(
            verdict(Some(7), Exit::Code(1), true),
            Err(ForegroundError::Contradiction { announced: 7, .. })
        ));
        // A machine without the device says no more than that it ended.
        assert!(matches!(verdict(Some(7), Exit::Code(0), false), Ok(Ok(7))));
        assert!(matches!(verdict(Some(7), Exit::Signal(9), false), Ok(Err(9))));
        assert!(matches!(verdict(None, Exit::Code(1), true), Err(ForegroundError::Silent { .. })));
    }
}
