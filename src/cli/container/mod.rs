//! `unladen container run`: one container in the foreground, as other
//! runtimes run it.

mod args;
mod environment;
mod relay;
mod request;
mod terminal;

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;

use clap::{Args, FromArgMatches};
use nix::errno::Errno;
use nix::sys::signal::Signal;

pub use self::args::{ContainerArgs, ContainerCommand, Net, RunArgs};
use self::relay::Listener;
use self::request::Request;
use self::terminal::caller_size;
use super::{Exit, print_line, say, scope};
use crate::container::seccomp::ProfileError;
use crate::container::{
    BundleError, DeviceError, InstanceId, Plan, PlanError, RunError, Running, Stdio, Streams,
    UserError, start, start_on_bridge,
};
use crate::errors::chain;
use crate::sys::spawn::{SpawnError, Terminal};
use crate::sys::terminal::WindowSize;
use crate::sys::{fdpass, pidfd};
use crate::units::Bytes;

/// Why a container did not run.
#[derive(Debug, thiserror::Error)]
enum ContainerError {
    #[error("cannot use the system call filter")]
    Seccomp(#[from] ProfileError),
    #[error("cannot read the environment file {}", path.display())]
    EnvironmentFile { path: std::path::PathBuf, source: io::Error },
    #[error("{}:{line}: `{text}` has no name before the `=`", path.display())]
    EnvironmentLine { path: std::path::PathBuf, line: usize, text: String },
    #[error("there is no command to run: write it behind the options")]
    NoCommand,
    #[error(
        "--device needs root and no user namespace: there no device node can be made, and no rule \
         of a control group can say what may be done with it"
    )]
    DevicesNeedRoot,
    #[error("cannot give the container a device")]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Image(#[from] crate::image::ImageError),
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
    Terminal(#[source] io::Error),
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
    run(args)
}

/// The arguments of a correct `container run`, without the parser of the whole
/// command line, which takes longer to build than this one to do its work.
/// Whatever is wrong, or asks for help, is left to the whole one.
pub(super) fn short_cut(words: impl Iterator<Item = OsString>) -> Option<RunArgs> {
    let mut words = words.skip(1);
    if words.next()? != "container" {
        return None;
    }
    let words: Vec<OsString> = words.collect();
    if words.first()? != "run" {
        return None;
    }
    let parser = RunArgs::augment_args(clap::Command::new("run"));
    RunArgs::from_arg_matches(&parser.try_get_matches_from(words).ok()?).ok()
}

/// Carries out `container run`.
pub(super) fn run(args: &RunArgs) -> Exit {
    try_run(args).unwrap_or_else(|error| {
        eprintln!("error: {}", chain(&error));
        error.exit()
    })
}

fn try_run(args: &RunArgs) -> Result<Exit, ContainerError> {
    let request = Request::new(args)?;
    if args.print_spec {
        let text = request.text()?;
        // Who reads it may have seen enough.
        return Ok(print_line(&text).map_or(Exit::Container(Exit::CONTAINER_FAILED), |()| Exit::Ok));
    }
    let plan = request.plan()?;
    scope::enter_if_needed(&plan.controllers());
    let id = InstanceId::own(0)?;
    // Before the start, so that none that comes meanwhile is lost.
    let listener = Listener::new().map_err(ContainerError::Signals)?;
    let begin: Begin = if args.net == Net::Bridge { start_on_bridge } else { start };
    let running = if plan.has_terminal() {
        with_terminal(&plan, &id, &listener, (begin, request.window()))?
    } else {
        plainly(&plan, &id, &listener, begin)?
    };
    let ended = running.finish()?;
    if ended.killed_for_memory {
        say(&format!(
            "the kernel killed a process of the container for lack of memory (its limit: {})",
            memory_limit(&plan)
        ));
    }
    Ok(match ended.exit {
        pidfd::Exit::Code(code) => Exit::Container(u8::try_from(code).unwrap_or(u8::MAX)),
        pidfd::Exit::Signal(number) => Exit::Signal(number),
    })
}

fn memory_limit(plan: &Plan) -> String {
    // Without one of its own, that of a group above was reached.
    plan.limits()
        .memory
        .map_or_else(|| "none of its own".to_owned(), |limit| Bytes(limit).to_string())
}

/// Either way of starting a container.
type Begin = fn(&Plan, &str, &Streams<'_>) -> Result<Running, RunError>;

/// Says where the host reaches the container, which nobody could guess.
fn tell_address(running: &Running) {
    if let Some(address) = running.address() {
        say(&format!("the container's address is {address}"));
    }
}

/// The command has this process's own streams.
fn plainly(
    plan: &Plan,
    id: &InstanceId,
    listener: &Listener,
    begin: Begin,
) -> Result<Running, ContainerError> {
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let stdio = Stdio { input: input.as_fd(), output: output.as_fd(), error: error.as_fd() };
    let running = begin(plan, id.as_str(), &Streams::Given(stdio))?;
    tell_address(&running);
    listener.until_end(running.pidfd()).map_err(ContainerError::Signals)?;
    Ok(running)
}

/// The command has a terminal of its own, whose other side is here.
fn with_terminal(
    plan: &Plan,
    id: &InstanceId,
    listener: &Listener,
    (begin, size): (Begin, Option<WindowSize>),
) -> Result<Running, ContainerError> {
    let (own, theirs) = fdpass::message_pair().map_err(ContainerError::Terminal)?;
    let WindowSize { rows, columns } = size.unwrap_or_else(caller_size);
    let terminal = Terminal { socket: theirs.as_fd(), rows, columns };
    let running = begin(plan, id.as_str(), &Streams::Terminal(terminal))?;
    tell_address(&running);
    drop(theirs);
    let relayed = fdpass::receive(&own)
        .and_then(|message| {
            let master = message.and_then(|(_, fds)| fds.into_iter().next());
            master.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        })
        .and_then(|master| Ok(listener.until_end_with_terminal(running.pidfd(), master)?));
    if let Err(error) = relayed {
        // Without anybody at its terminal the command would wait for ever.
        let _ = running.pidfd().kill(Signal::SIGKILL);
        let _ = running.wait();
        return Err(ContainerError::Terminal(error));
    }
    Ok(running)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn short(words: &[&str]) -> Option<RunArgs> {
        short_cut(words.iter().map(OsString::from))
    }

    #[test]
    fn the_short_cut_understands_what_the_whole_parser_does() {
        for line in [
            "unladen container run --bundle b",
            "unladen container run --rootfs r -m 64M -- /bin/sh -c x",
            "unladen container run --image i:latest --net none -v /a:/b:ro -e A=b --user 1:2 -t x -y",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let short = short(&words).expect("understood");
            let Ok(Cli { command: Command::Container(whole) }) = Cli::try_parse_from(&words) else {
                panic!("{line}");
            };
            let ContainerCommand::Run(whole) = whole.command;
            assert_eq!(format!("{short:?}"), format!("{whole:?}"));
        }
    }

    #[test]
    fn help_and_mistakes_are_left_to_the_whole_parser() {
        for line in [
            "unladen",
            "unladen container",
            "unladen container run",
            "unladen container run --help",
            "unladen container run -h",
            "unladen container run --bundle b --memory 1M",
            "unladen container --bundle b run",
            "unladen --json container run --bundle b",
            "unladen run --bundle b",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(short(&words).is_none(), "{line}");
        }
    }
}
