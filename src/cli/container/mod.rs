//! `unladen container run`: one container in the foreground, as other
//! runtimes run it.

mod args;
mod environment;
mod relay;
mod request;
mod terminal;

use nix::errno::Errno;

pub use self::args::{ContainerArgs, ContainerCommand, RunArgs};
use self::relay::Listener;
use self::request::Request;
use super::{Exit, print_line};
use crate::container::{BundleError, InstanceId, PlanError, RunError, Stdio, UserError, start};
use crate::errors::chain;
use crate::sys::pidfd;
use crate::sys::spawn::SpawnError;

/// Why a container did not run.
#[derive(Debug, thiserror::Error)]
enum ContainerError {
    #[error("{what} is not built in yet")]
    Missing { what: &'static str },
    #[error("cannot read the environment file {}", path.display())]
    EnvironmentFile { path: std::path::PathBuf, source: std::io::Error },
    #[error("{}:{line}: `{text}` has no name before the `=`", path.display())]
    EnvironmentLine { path: std::path::PathBuf, line: usize, text: String },
    #[error("there is no command to run: write it behind the options")]
    NoCommand,
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    User(#[from] UserError),
    #[error("cannot use the container's configuration")]
    Plan(#[from] PlanError),
    #[error("cannot print the configuration")]
    Json(#[from] serde_json::Error),
    #[error("cannot listen to signals")]
    Signals(#[source] Errno),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("cannot relay the terminal")]
    Terminal(#[source] Errno),
}

impl ContainerError {
    /// The exit code that tells own failures from those of the command, see
    /// [`Exit::CONTAINER_TABLE`].
    fn exit(&self) -> Exit {
        Exit::Container(match self {
            Self::Run(RunError::Start(SpawnError::Execute { source: Errno::ENOENT, .. })) => 127,
            Self::Run(RunError::Start(SpawnError::Execute { .. })) => 126,
            _ => Exit::CONTAINER_FAILED,
        })
    }
}

/// Carries out `container`.
pub(super) fn container(args: &ContainerArgs) -> Exit {
    let ContainerCommand::Run(args) = &args.command;
    run(args).unwrap_or_else(|error| {
        eprintln!("error: {}", chain(&error));
        error.exit()
    })
}

fn run(args: &RunArgs) -> Result<Exit, ContainerError> {
    let request = Request::new(args)?;
    if args.print_spec {
        let text = serde_json::to_string_pretty(&request.spec)?;
        // Who reads it may have seen enough.
        return Ok(print_line(&text).map_or(Exit::Container(Exit::CONTAINER_FAILED), |()| Exit::Ok));
    }
    let plan = request.plan()?;
    let id = InstanceId::own(0)?;
    // Before the start, so that none that comes meanwhile is lost.
    let listener = Listener::new().map_err(ContainerError::Signals)?;
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let stdio = {
        use std::os::fd::AsFd;
        Stdio { input: input.as_fd(), output: output.as_fd(), error: error.as_fd() }
    };
    let running = start(&plan, id.as_str(), &stdio)?;
    listener.until_end(running.pidfd()).map_err(ContainerError::Signals)?;
    Ok(match running.wait()? {
        pidfd::Exit::Code(code) => Exit::Container(u8::try_from(code).unwrap_or(u8::MAX)),
        pidfd::Exit::Signal(number) => Exit::Signal(number),
    })
}
