//! `unladen vm run`: one machine in the foreground.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::SystemTime;

use clap::{Args, Subcommand};

use super::args::AccelArg;
use super::{CliError, Exit, print_line, say};
use crate::backend::{Assets, ForegroundError, Launcher, RealBackends, Wish};
use crate::errors::chain;
use crate::host::RunId;
use crate::record::{BackendName, CellKey, Experiment, Workload};
use crate::spec::{Problem, checked_params};

/// Arguments of `vm`.
#[derive(Debug, Args)]
pub struct VmArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: VmCommand,
}

/// What can be done with machines by hand.
#[derive(Debug, Subcommand)]
pub enum VmCommand {
    /// Boot one: its console on the terminal, its workload's exit code as own
    Run(VmRunArgs),
}

/// Arguments of `vm run`. The values are those of the parameters that
/// `unladen list` shows.
#[derive(Debug, Args)]
#[command(after_long_help = "Exit codes: the workload's own, or
  125  wrong use, or the machine could not be booted or did not end as its workload announced
  130  ended by Ctrl-C

Examples:
  unladen vm run -- exit=7
  unladen vm run --machine q35 --kernel distro --verbose
  unladen vm run --untuned --print")]
pub struct VmRunArgs {
    /// microvm, q35 or pc
    #[arg(long)]
    pub machine: Option<String>,
    /// tuned, distro, or a kernel's file (a path with a /)
    #[arg(long)]
    pub kernel: Option<String>,
    /// vmlinux or bzimage
    #[arg(long)]
    pub boot: Option<String>,
    /// qboot, seabios or ovmf
    #[arg(long)]
    pub firmware: Option<String>,
    /// Guest memory, such as 128M
    #[arg(long)]
    pub memory: Option<String>,
    /// Virtual processors
    #[arg(long)]
    pub cpus: Option<String>,
    /// none, net, rng or net+rng
    #[arg(long)]
    pub devices: Option<String>,
    /// initramfs, virtio-blk, 9p or virtiofs
    #[arg(long)]
    pub rootfs: Option<String>,
    /// Nothing of our advice: QEMU's defaults with the distribution's kernel
    #[arg(long)]
    pub untuned: bool,
    /// Accelerator
    #[arg(long, value_enum, default_value_t)]
    pub accel: AccelArg,
    /// The kernel says all it has to say
    #[arg(long)]
    pub verbose: bool,
    /// Only print QEMU's argument vector, one element a line
    #[arg(long)]
    pub print: bool,
    /// What the payload does, such as exit=7 or touch=64
    #[arg(last = true, default_value = "exit")]
    pub workload: Workload,
}

impl VmRunArgs {
    /// The machine as a cell of a run.
    fn wish(&self) -> Result<Wish, Problem> {
        let file = self.kernel.as_deref().filter(|name| name.contains('/')).map(PathBuf::from);
        let kernel = self.kernel.as_deref().filter(|_| file.is_none());
        let given: Vec<(&str, &str)> = [
            ("machine", self.machine.as_deref()),
            ("kernel", kernel),
            ("boot", self.boot.as_deref()),
            ("firmware", self.firmware.as_deref()),
            ("memory", self.memory.as_deref()),
            ("cpus", self.cpus.as_deref()),
            ("devices", self.devices.as_deref()),
            ("rootfs", self.rootfs.as_deref()),
            ("untuned", self.untuned.then_some("yes")),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
        let params = checked_params(BackendName::Vm, &given)?;
        let (experiment, workload) = (Experiment::Startup, self.workload);
        let cell = CellKey { experiment, backend: BackendName::Vm, workload, params };
        Ok(Wish { cell, kernel: file, verbose: self.verbose })
    }
}

/// Carries out `vm`.
pub(super) fn vm(args: &VmArgs) -> Exit {
    let VmCommand::Run(args) = &args.command;
    let wish = match args.wish() {
        Ok(wish) => wish,
        Err(problem) => {
            eprintln!("error: {problem}");
            return Exit::Container(Exit::CONTAINER_FAILED);
        }
    };
    boot(args, &wish).unwrap_or_else(|error| {
        eprintln!("error: {}", chain(&error));
        Exit::Container(Exit::CONTAINER_FAILED)
    })
}

fn boot(args: &VmRunArgs, wish: &Wish) -> Result<Exit, CliError> {
    let foreground = {
        let assets = Rc::new(Assets::unpack()?);
        let executable = std::env::current_exe().map_err(CliError::Executable)?;
        let run_id = RunId::new(SystemTime::now())?.to_string();
        // Only trial boots of accelerators need it.
        let launcher = Launcher::start(&executable, &run_id, None)?;
        let mut backends = RealBackends::new(launcher, &assets, &run_id, None, args.accel.into());
        backends.vm.foreground(wish)?
    };
    if args.print {
        print_line(&foreground.argv.join("\n"))?;
        return Ok(Exit::Ok);
    }
    if let Some(reason) = &foreground.reason {
        say(&format!("accelerator {}: {reason}", foreground.accelerator.as_str()));
    }
    Ok(match foreground.run()? {
        Ok(code) => Exit::Container(code),
        Err(signal) => Exit::Signal(signal),
    })
}

impl From<ForegroundError> for CliError {
    fn from(error: ForegroundError) -> Self {
        Self::Foreground(Box::new(error))
    }
}
