//! The command: arguments in, exit code out. The only module that prints.
//!
//! Data goes to standard output, progress and warnings to standard error.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the layer that prints")]

mod args;
mod capacity;
mod clean;
mod compare;
mod container;
mod cost;
mod doctor;
mod exit;
mod image;
mod list;
pub mod oci;
mod progress;
mod run;
mod scope;
mod selfcheck;
mod signals;
mod systems;
mod tune;
mod values;
mod vm;

use std::io::{self, Write};
use std::path::Path;

use clap::{CommandFactory, Parser};

use self::args::{Cli, Command};
pub use self::exit::Exit;
use crate::backend::launcher::ServeError;
use crate::backend::{AssetsError, BackendError, LauncherError};
use crate::errors::chain;
use crate::plan::PlanError;
use crate::report::ReportError;
use crate::run::RunError;
use crate::spec::SpecError;
use crate::store::StoreError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Systems(#[from] crate::spec::systems::SystemsError),
    #[error(transparent)]
    UnknownBackend(#[from] systems::UnknownBackend),
    #[error(transparent)]
    Socket(#[from] systems::BadSocket),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error(transparent)]
    Host(#[from] crate::host::HostError),
    #[error(transparent)]
    Settings(#[from] crate::host::SettingsError),
    #[error(transparent)]
    Assets(#[from] AssetsError),
    #[error(transparent)]
    Launcher(#[from] LauncherError),
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Leftovers(#[from] crate::backend::leftovers::LeftoverError),
    #[error(transparent)]
    Compare(#[from] compare::CompareError),
    #[error(transparent)]
    Image(#[from] crate::image::ImageError),
    #[error(transparent)]
    Foreground(Box<crate::backend::ForegroundError>),
    #[error("run {run} does not tell memory and processors of its host: give --memory and --cpus")]
    NoHost { run: String },
    #[error("interrupted by a signal")]
    Interrupted,
    #[error("cannot catch signals")]
    Signals(#[source] io::Error),
    #[error("cannot find this program's own file")]
    Executable(#[source] io::Error),
    #[error("cannot make a temporary folder")]
    Temporary(#[source] io::Error),
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

impl CliError {
    /// The exit code that says whose fault it is.
    fn exit(&self) -> Exit {
        match self {
            Self::Spec(_) | Self::Plan(_) | Self::Compare(_) | Self::NoHost { .. } => Exit::Usage,
            Self::Systems(_) | Self::UnknownBackend(_) | Self::Socket(_) => Exit::Usage,
            Self::Image(error) if error.is_input() => Exit::Usage,
            Self::Store(error) if error.is_input() => Exit::Usage,
            Self::Assets(_) | Self::Serve(_) => Exit::HostLacks,
            _ => Exit::Broken,
        }
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> Exit {
    if let Some(args) = container::short_cut(std::env::args_os()) {
        return container::run(&args);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    tune::recover(&cli.command);
    match dispatch(cli.command) {
        Ok(exit) => exit,
        // A reader that has seen enough, such as `head`, is not an error.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            error.exit()
        }
    }
}

/// Prints what is wrong with the command line, or the help that was asked for.
fn refuse(error: &clap::Error) -> Exit {
    // Who cannot be told anything still gets the code.
    let _ = error.print();
    match (error.use_stderr(), std::env::args_os().nth(1)) {
        (false, _) => Exit::Ok,
        // Here 2 could be the command's own.
        (true, Some(command)) if command == "container" || command == "vm" => {
            Exit::Container(Exit::CONTAINER_FAILED)
        }
        (true, _) => Exit::Usage,
    }
}

fn dispatch(command: Command) -> Result<Exit, CliError> {
    match command {
        Command::Doctor(args) => doctor::doctor(args.json),
        Command::Tune(args) => tune::tune(&args),
        Command::List(args) => list::list(&args),
        Command::Run(args) => run::run(&args),
        Command::Selfcheck(args) if args.cost => cost::cost(&args),
        Command::Selfcheck(args) => selfcheck::selfcheck(args),
        Command::Report(args) => {
            show_report(&args.run, args.out.as_deref())?;
            Ok(Exit::Ok)
        }
        Command::Container(args) => Ok(container::container(&args)),
        Command::Vm(args) => Ok(vm::vm(&args)),
        Command::Compare(args) => compare::compare(&args),
        Command::Cost(args) => capacity::capacity(&args),
        Command::Image(args) => image::image(&args.command),
        Command::Clean(args) => clean::clean(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "unladen", &mut script);
            print_bytes(&script)
        }
        Command::Man => {
            let mut page = Vec::new();
            let manual = clap_mangen::Man::new(Cli::command());
            manual.render(&mut page).map_err(CliError::Output)?;
            print_bytes(&page)
        }
        Command::Launcher { run_id, harness } => {
            let served = crate::backend::launcher::serve(&run_id);
            tune::after_harness(harness);
            served?;
            Ok(Exit::Ok)
        }
    }
}

/// Makes summary, figures and page of the run in `dir`, there or in a folder
/// of their own, and prints the table.
fn show_report(dir: &Path, out: Option<&Path>) -> Result<(), CliError> {
    let run = crate::store::read_run(dir)?;
    let (manifest, samples) = (&run.manifest, &run.samples);
    let report = match out {
        None => crate::report::write_run_folder(dir, manifest, samples)?,
        Some(out) => crate::report::write_report(out, out, manifest, samples)?,
    };
    print_line(&crate::report::terminal_table(&report.summary).to_string())?;
    let missing = crate::report::missing_lines(&report.summary);
    for line in missing.into_iter().chain(crate::report::remark_lines(&report.summary)) {
        print_line(&line)?;
    }
    print_line(&format!("page: {}", report.page.display()))?;
    Ok(())
}

/// Something for a person, on standard error.
fn say(text: &str) {
    eprintln!("unladen: {text}");
}

/// A line of data on standard output.
fn print_line(text: &str) -> Result<(), CliError> {
    print_bytes(format!("{text}\n").as_bytes()).map(drop)
}

fn print_bytes(bytes: &[u8]) -> Result<Exit, CliError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(CliError::Output)?;
    Ok(Exit::Ok)
}
