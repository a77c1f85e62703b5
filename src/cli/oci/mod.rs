//! `unladen-oci`: the command line of an OCI runtime, for engines and for the
//! same bundle under several runtimes. What the commands do is
//! [`crate::container::lifecycle`]; here are words in and words out.
//!
//! Exit codes are runc's: 0, 1 when something failed, and those of `run` and
//! `exec` are the program's (128 and the number for a signal).

mod args;
mod describe;
mod log;
mod processes;
mod requests;
mod signals;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use self::args::{Cli, Command};
use self::log::Log;
use crate::container::BundleError;
use crate::container::lifecycle::{Lifecycle, LifecycleError};
use crate::errors::chain;
use crate::sys::pidfd::Exit;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum OciError {
    #[error(transparent)]
    Lifecycle(#[from] LifecycleError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("{0}")]
    Usage(String),
    #[error("cannot {action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is not what it should be", path.display())]
    Syntax {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot hand on descriptor {number}")]
    Descriptor {
        number: i32,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot pass on signals")]
    Signals(#[source] nix::errno::Errno),
    #[error("cannot wait for the process")]
    Wait(#[source] nix::errno::Errno),
    #[error("cannot write JSON")]
    Json(#[source] serde_json::Error),
    #[error("cannot write to standard output")]
    Output(#[source] std::io::Error),
}

impl OciError {
    /// For `map_err` on a file operation.
    fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.version {
        return finish(None, describe::version());
    }
    let mut log = match Log::open(cli.log.as_deref(), cli.log_format) {
        Ok(log) => log,
        Err(error) => {
            let path = cli.log.unwrap_or_default();
            eprintln!("unladen-oci: error: cannot open the log {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    };
    let result = dispatch(&cli, &mut log);
    finish(Some(&mut log), result)
}

/// The exit code, after what there is to say.
fn finish(log: Option<&mut Log>, result: Result<u8, OciError>) -> ExitCode {
    match (result, log) {
        (Ok(code), _) => ExitCode::from(code),
        (Err(OciError::Output(error)), _) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        (Err(error), Some(log)) => {
            log.error(&chain(&error));
            ExitCode::FAILURE
        }
        (Err(error), None) => {
            eprintln!("unladen-oci: error: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: &Cli, log: &mut Log) -> Result<u8, OciError> {
    if cli.systemd_cgroup || cli.cgroup_manager != "cgroupfs" {
        return Err(OciError::Usage(
            "this runtime makes cgroups itself and does not ask systemd: use \
             `--cgroup-manager=cgroupfs` with Podman, and \
             `--exec-opt native.cgroupdriver=cgroupfs` with dockerd"
                .to_owned(),
        ));
    }
    let containers = Lifecycle::new(&cli.root.clone().unwrap_or_else(default_root));
    let Some(command) = &cli.command else {
        // Nothing was asked for; what could be is the answer.
        return describe::help(&mut Cli::command());
    };
    match command {
        Command::Create(args) => requests::create(&containers, args).map(|()| 0),
        Command::Start { id } => Ok(containers.start(id).map(|()| 0)?),
        Command::Run { create, detach, keep } => {
            requests::run(&containers, create, *detach, *keep, log)
        }
        Command::State { id } => describe::json(&containers.state(id)?),
        Command::Kill { all, id, signal } => {
            let number = signals::parse(signal)
                .ok_or_else(|| OciError::Usage(format!("`{signal}` is not a signal")))?;
            Ok(containers.kill(id, number, *all).map(|()| 0)?)
        }
        Command::Delete { force, id } => requests::delete(&containers, id, *force, log),
        Command::Exec(args) => requests::exec(&containers, args),
        Command::List { format, quiet } => describe::list(&containers, *format, *quiet, log),
        Command::Ps { format, id, options } => processes::list(&containers, id, *format, options),
        Command::Pause { id } => Ok(containers.pause(id).map(|()| 0)?),
        Command::Resume { id } => Ok(containers.resume(id).map(|()| 0)?),
        Command::Update(args) => requests::update(&containers, args),
        Command::Events { id, .. } => describe::line(&containers.statistics(id)?),
        Command::Features => describe::features(),
        Command::Spec { bundle } => describe::spec(bundle),
    }
}

/// Where states are when nobody says so: gone with the boot.
fn default_root() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty());
    match runtime {
        Some(path) if !nix::unistd::geteuid().is_root() => PathBuf::from(path).join("unladen-oci"),
        _ => PathBuf::from("/run/unladen-oci"),
    }
}

/// The exit code of a process as shells have it.
fn exit_code(exit: Exit) -> u8 {
    match exit {
        Exit::Code(code) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
        Exit::Signal(number) => u8::try_from(number).map_or(u8::MAX, |n| n.saturating_add(128)),
    }
}
