//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::container::ContainerArgs;
use super::exit::Exit;
use super::image::ImageArgs;
use super::values::{duration, engine_socket, percent, share, thousandths};
use super::vm::VmArgs;
use crate::backend::Accelerator;
use crate::host::Setting;
use crate::record::{BackendName, Experiment, Ledger, Workload};
use crate::units::Bytes;

/// What do a virtual machine and a container really cost on this machine?
///
/// Starts the same static payload as a plain process, in a container made by
/// this program's own runtime, and in QEMU virtual machines; measures
/// start-up, memory and density; and draws the comparison.
#[derive(Debug, Parser)]
#[command(name = "unladen", version, after_long_help = Exit::help(), arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check the instruments: work of known cost through the real pipeline
    Selfcheck(SelfcheckArgs),
    /// Check this host: each fact, why it matters, its effect, and the remedy
    Doctor(JsonArgs),
    /// Change host settings so that measurements are steadier, or put them back
    Tune(TuneArgs),
    /// List backends, profiles, experiments and workloads, and what cannot run here
    List(ListArgs),
    /// Measure: a profile or a spec file
    Run(RunArgs),
    /// Make summary, figures and page again from a run's folder
    Report(ReportArgs),
    /// Run commands in containers of this program's own runtime
    Container(ContainerArgs),
    /// Boot a virtual machine by hand
    Vm(VmArgs),
    /// Compare two runs, two sets of runs, or two arms of one run
    Compare(CompareArgs),
    /// How many instances fit a host, and what a thousand of them cost
    Cost(CostArgs),
    /// Keep images for containers: import, list, remove
    Image(ImageArgs),
    /// Remove what a killed run may have left behind
    Clean(CleanArgs),
    /// Print a shell completion script
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(hide = true)]
    Man,
    /// The process that starts and stops instances; not for people
    #[command(name = crate::backend::launcher::SUBCOMMAND, hide = true)]
    Launcher {
        /// Id of the run.
        run_id: String,
        /// The process that it works for.
        harness: u32,
    },
}

/// Output for programs.
#[derive(Debug, Args)]
pub struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Ask for machines with this accelerator
    #[arg(long, value_enum, default_value_t)]
    pub accel: AccelArg,
    /// Describe more systems in this file
    /// (default: ~/.config/unladen/backends.toml, if there is one)
    #[arg(long, value_name = "FILE")]
    pub backends: Option<PathBuf>,
}

/// Arguments of `tune`.
#[derive(Debug, Args)]
#[command(after_long_help = "Without --apply or --restore, says what would be changed and why.
What the settings were is kept on disk before the first one changes. A run with
`unladen run --tune` changes them for its own time only.")]
pub struct TuneArgs {
    /// Change the settings until --restore or the next start of the host
    #[arg(long, conflicts_with = "restore")]
    pub apply: bool,
    /// Put everything back as it was
    #[arg(long)]
    pub restore: bool,
    /// Only this setting (repeatable; default: all but smt)
    #[arg(long, value_enum, value_name = "NAME", conflicts_with = "restore")]
    pub only: Vec<SettingArg>,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Another place for /proc and /sys, for tests
    #[arg(long, value_name = "DIR", hide = true, default_value = "/")]
    pub root: PathBuf,
}

/// A host setting on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SettingArg {
    /// How the clock follows the load: performance.
    Governor,
    /// Clocks above the nominal one: off.
    Turbo,
    /// Transparent huge pages: madvise.
    Thp,
    /// Kernel samepage merging: stopped.
    Ksm,
    /// Several threads per core: off.
    Smt,
}

impl From<SettingArg> for Setting {
    fn from(arg: SettingArg) -> Self {
        match arg {
            SettingArg::Governor => Self::Governor,
            SettingArg::Turbo => Self::Turbo,
            SettingArg::Thp => Self::Thp,
            SettingArg::Ksm => Self::Ksm,
            SettingArg::Smt => Self::Smt,
        }
    }
}

/// Arguments of `selfcheck`.
#[derive(Debug, Args)]
pub struct SelfcheckArgs {
    /// Only this backend (repeatable)
    #[arg(long, value_enum)]
    pub backend: Vec<BackendArg>,
    /// Measure what measuring costs instead: clock, channels, probes, launcher
    #[arg(long)]
    pub cost: bool,
    /// Keep the measurements in this folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A profile (smoke, quick, many, full) or the path of a spec file
    #[arg(default_value = "quick", conflicts_with = "resume")]
    pub spec: String,
    /// Only this experiment (repeatable)
    #[arg(long, value_enum, conflicts_with = "resume")]
    pub experiment: Vec<ExperimentArg>,
    /// Only this backend, such as container or runc (repeatable)
    #[arg(long, value_name = "NAME", conflicts_with = "resume")]
    pub backend: Vec<BackendName>,
    /// Only this workload, such as `exit` or `touch=64` (repeatable)
    #[arg(long, conflicts_with = "resume")]
    pub workload: Vec<Workload>,
    /// Trials per cell, instead of what the spec says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000), conflicts_with = "resume")]
    pub rounds: Option<u32>,
    /// Go on with start-up trials until each ratio is known to within this, such as 5%
    #[arg(long, value_name = "PERCENT", value_parser = thousandths, conflicts_with = "resume")]
    pub precision: Option<u32>,
    /// With --precision: give up after so many rounds
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000), conflicts_with = "resume", requires = "precision")]
    pub max_rounds: u32,
    /// Stop at the end of the round in which this time is spent, such as 90s or 3m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub budget: Option<Duration>,
    /// Time that an instance may take until it is ready, such as 90s
    /// (default: 60s for machines, 30s for everything else)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub deadline: Option<Duration>,
    /// Accelerator of machines whose cells name none: the best that boots a
    /// real kernel here, or this one
    #[arg(long, value_enum, default_value_t)]
    pub accel: AccelArg,
    /// Seed of the order of trials (default: random, stored in the manifest)
    #[arg(long, value_name = "N", conflicts_with = "resume")]
    pub seed: Option<u64>,
    /// Folder for the results (default: results/RUN-ID)
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    pub out: Option<PathBuf>,
    /// Continue the interrupted run in this folder
    #[arg(long, value_name = "DIR")]
    pub resume: Option<PathBuf>,
    /// Make no figures and no page
    #[arg(long)]
    pub no_report: bool,
    /// Change host settings for the time of the run, as `unladen tune` would
    #[arg(long)]
    pub tune: bool,
    /// Describe more systems in this file
    /// (default: ~/.config/unladen/backends.toml, if there is one)
    #[arg(long, value_name = "FILE")]
    pub backends: Option<PathBuf>,
    /// Use this daemon of yours for a system (repeatable); nothing in it is
    /// touched that does not carry the run's id
    #[arg(long, value_name = "NAME=SOCKET", value_parser = engine_socket)]
    pub engine_socket: Vec<(String, PathBuf)>,
}

impl RunArgs {
    /// A run of a shipped spec without a report, into a folder.
    pub(super) fn of(spec: &str, backend: Vec<BackendArg>, out: PathBuf) -> Self {
        Self {
            spec: spec.to_owned(),
            experiment: Vec::new(),
            backend: backend.into_iter().map(BackendName::from).collect(),
            backends: None,
            engine_socket: Vec::new(),
            workload: Vec::new(),
            rounds: None,
            precision: None,
            max_rounds: 1,
            budget: None,
            deadline: None,
            accel: AccelArg::Auto,
            seed: None,
            out: Some(out),
            resume: None,
            no_report: true,
            tune: false,
        }
    }
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Folder of a run
    pub run: PathBuf,
    /// Folder for summary, figures and page (default: the run's own)
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Arguments of `compare`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  unladen compare results/main results/branch --fail-on-regression
      two runs, or two folders with several runs each
  unladen compare results/reference --arms 'container userns=yes' container
      two arms of one run, round by round")]
pub struct CompareArgs {
    /// Folder of a run, or of several runs, to compare with
    pub base: PathBuf,
    /// Folder of the new run, or of several
    #[arg(required_unless_present = "arms", conflicts_with = "arms")]
    pub new: Option<PathBuf>,
    /// Compare two arms of the one run, named as in its table
    #[arg(long, num_args = 2, value_names = ["ARM", "WITH"])]
    pub arms: Option<Vec<String>>,
    /// Exit with code 4 when something is certainly worse than before
    #[arg(long)]
    pub fail_on_regression: bool,
    /// Ignore regressions that may be no larger than this
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    pub threshold: f64,
    /// Compare the cells that both have, although the runs were not of the same spec
    #[arg(long)]
    pub any_spec: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `cost`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  unladen cost results/reference
      idle instances on the host that the run was made on
  unladen cost results/reference --memory 64G --cpus 16 --each-memory 32M --each-cpus 0.05 --host-cost 200
      with a workload of 32 MiB and a twentieth of a processor, on a host for 200 a month")]
pub struct CostArgs {
    /// Folder of a run with a density ladder, or with memory cells of several instances
    pub run: PathBuf,
    /// Memory of the host, such as 64G (default: of the run's own host)
    #[arg(long, value_name = "SIZE", value_parser = super::capacity::size)]
    pub memory: Option<Bytes>,
    /// Processors of the host (default: of the run's own host)
    #[arg(long, value_name = "N", value_parser = super::capacity::positive)]
    pub cpus: Option<f64>,
    /// Share of the memory that is kept free
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = share)]
    pub reserve: f64,
    /// Memory that the workload needs in each instance, beyond the idle one
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = super::capacity::size)]
    pub each_memory: Bytes,
    /// Processors that the workload of each instance uses on average, such as 0.05
    #[arg(long, value_name = "N", default_value = "0", value_parser = super::capacity::positive)]
    pub each_cpus: f64,
    /// What the host costs a month, in any currency
    #[arg(long, value_name = "PRICE", value_parser = super::capacity::positive)]
    pub host_cost: Option<f64>,
    /// Ledger of memory (default: the largest whose slope is known)
    #[arg(long, value_enum)]
    pub ledger: Option<LedgerArg>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A ledger on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LedgerArg {
    /// Shared pages divided by their users.
    Pss,
    /// What the memory cgroup is charged.
    Cgroup,
    /// Growth of the host's memory in use.
    Host,
}

impl From<LedgerArg> for Ledger {
    fn from(arg: LedgerArg) -> Self {
        match arg {
            LedgerArg::Pss => Self::Pss,
            LedgerArg::Cgroup => Self::Cgroup,
            LedgerArg::Host => Self::Host,
        }
    }
}

/// Arguments of `clean`.
#[derive(Debug, Args)]
pub struct CleanArgs {
    /// Only this run (default: every run that is not alive)
    pub run_id: Option<String>,
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
}

/// An experiment on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ExperimentArg {
    /// One instance from request to gone.
    Startup,
    /// One idle instance, read by every ledger.
    Memory,
    /// A ladder of live instances.
    Density,
    /// The smallest memory with which an instance becomes ready.
    Minimum,
    /// Starts and stops beside many others, and many at once.
    Scale,
    /// What merging equal pages gains; changes host settings for its time.
    Ksm,
}

impl From<ExperimentArg> for Experiment {
    fn from(arg: ExperimentArg) -> Self {
        match arg {
            ExperimentArg::Startup => Self::Startup,
            ExperimentArg::Memory => Self::Memory,
            ExperimentArg::Density => Self::Density,
            ExperimentArg::Minimum => Self::Minimum,
            ExperimentArg::Scale => Self::Scale,
            ExperimentArg::Ksm => Self::Ksm,
        }
    }
}

/// An accelerator on the command line.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum AccelArg {
    /// The best that boots a real kernel here.
    #[default]
    Auto,
    /// The processor itself.
    Kvm,
    /// Software emulation.
    Tcg,
}

impl From<AccelArg> for Option<Accelerator> {
    fn from(arg: AccelArg) -> Self {
        match arg {
            AccelArg::Auto => None,
            AccelArg::Kvm => Some(Accelerator::Kvm),
            AccelArg::Tcg => Some(Accelerator::Tcg),
        }
    }
}

/// A backend on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum BackendArg {
    /// A plain child process: the null backend.
    Process,
    /// Our own container runtime.
    Container,
    /// A QEMU virtual machine.
    Vm,
}

impl From<BackendArg> for BackendName {
    fn from(arg: BackendArg) -> Self {
        match arg {
            BackendArg::Process => Self::Process,
            BackendArg::Container => Self::Container,
            BackendArg::Vm => Self::Vm,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
