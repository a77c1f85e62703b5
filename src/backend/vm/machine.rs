//! One machine as a cell wants it: its kernel, its files and its argument
//! vector.

use std::path::PathBuf;

use super::super::assets::artefact;
use super::super::launcher::order::{Program, fd};
use super::super::{Assets, AssetsError};
use super::{Accelerator, VmError};
use crate::payload::protocol::{ENV_CHANNEL, ENV_END, ENV_RUN, ENV_WORKLOAD};
use crate::record::{ArtefactFact, CellKey, Experiment, Workload};
use crate::spec::param_value;

/// The value of the parameter `kernel` for a guest without an operating system.
pub(super) const STUB: &str = "stub";

/// The serial port that is the payload's channel in every machine.
const GUEST_CHANNEL: &str = "/dev/ttyS1";

/// The QEMU of this host.
#[derive(Clone, Debug)]
pub(super) struct Qemu {
    /// Its own version line.
    pub(super) version: String,
    /// Its executable.
    pub(super) path: PathBuf,
}

impl Qemu {
    /// Asks the script that knows where to look.
    pub(super) fn find(assets: &Assets) -> Result<Self, VmError> {
        let text = assets.script("vm/qemu-version.sh", &[])?;
        let mut lines = text.lines();
        match (lines.next(), lines.next()) {
            (Some(version), Some(path)) if !version.is_empty() => {
                Ok(Self { version: version.to_owned(), path: path.into() })
            }
            _ => Err(VmError::NoVersion { answer: text.trim().to_owned() }),
        }
    }
}

/// One machine.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// `microvm` or `q35`.
    pub(super) kind: String,
    /// `tuned`, `distro` or `stub`.
    pub(super) kernel_kind: String,
    /// The kernel's file.
    pub(super) kernel: PathBuf,
    initrd: Option<PathBuf>,
    memory: String,
    cpus: String,
    purpose: &'static str,
    /// What its payload does.
    pub(super) workload: Workload,
    tsc_khz: Option<String>,
    balloon: String,
    huge_pages: bool,
}

impl Machine {
    /// The machine of a cell.
    pub(super) fn of(cell: &CellKey, assets: &Assets) -> Result<Self, VmError> {
        let value = |name: &str| param_value(cell, name).unwrap_or_default().to_owned();
        let kernel_kind = value("kernel");
        let mut arguments = vec!["--path".to_owned()];
        if kernel_kind == "distro" {
            arguments.push("--distro".to_owned());
        }
        let kernel = || {
            assets.script("guest/kernel.sh", &arguments).map_err(|source| {
                let flags = if kernel_kind == "distro" { " --distro" } else { "" };
                let script = format!("{}{flags}", assets.script_path("guest/kernel.sh").display());
                VmError::NoKernel { script, source }
            })
        };
        let (kernel, initrd) = match kernel_kind.as_str() {
            STUB => (assets.stub()?, None),
            _ => (kernel()?.trim().into(), Some(assets.initramfs()?)),
        };
        Ok(Self {
            kind: value("machine"),
            kernel_kind,
            kernel,
            initrd,
            memory: value("memory"),
            cpus: value("cpus"),
            purpose: match cell.experiment {
                Experiment::Startup | Experiment::Minimum => "start",
                // An idle guest must not tick: what an instance costs while
                // nothing happens is the question.
                Experiment::Memory | Experiment::Density => "density",
            },
            workload: cell.workload,
            balloon: value("balloon"),
            huge_pages: value("thp") != "off",
            // Without the frequency the guest calibrates for itself, which
            // only takes longer.
            tsc_khz: assets.script("vm/tsc-khz.sh", &[]).ok().map(|khz| khz.trim().to_owned()),
        })
    }

    /// The same machine for an accelerator's trial boot: run to completion.
    pub(super) fn probing(&self) -> Self {
        Self { workload: Workload::Exit, purpose: "start", ..self.clone() }
    }

    /// The same machine with a payload that waits for requests: one that
    /// ended at once could not be saved.
    pub(super) fn waiting(&self) -> Self {
        let workload = if self.workload.ends() { Workload::Pause } else { self.workload };
        Self { workload, ..self.clone() }
    }

    /// What the launcher executes; `more` flags are given to the script.
    pub(super) fn program(
        &self,
        assets: &Assets,
        accelerator: Accelerator,
        run_id: &str,
        more: &[&str],
    ) -> Result<Program, VmError> {
        let append = format!(
            "{ENV_CHANNEL}={GUEST_CHANNEL} {ENV_END}=debug-exit {ENV_WORKLOAD}={}",
            self.workload
        );
        let (channel, console, qmp) =
            (fd::CHANNEL.to_string(), fd::CONSOLE.to_string(), fd::QMP.to_string());
        let kernel = self.kernel.display().to_string();
        let initrd = self.initrd.as_ref().map(|path| path.display().to_string());
        let name = format!("unladen-{run_id}");
        let mut arguments = vec!["--print"];
        for (flag, value) in [
            ("--kernel", &kernel),
            ("--memory", &self.memory),
            ("--cpus", &self.cpus),
            ("--name", &name),
            ("--append", &append),
            ("--channel-fd", &channel),
            ("--console-fd", &console),
            ("--qmp-fd", &qmp),
            ("--balloon", &self.balloon),
        ] {
            arguments.extend([flag, value.as_str()]);
        }
        arguments.extend(["--accel", accelerator.as_str(), "--for", self.purpose]);
        if let Some(initrd) = &initrd {
            arguments.extend(["--initrd", initrd]);
        }
        if let Some(khz) = &self.tsc_khz {
            arguments.extend(["--tsc-khz", khz]);
        }
        arguments.extend(more);
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let script = format!("vm/{}.sh", self.kind);
        let printed = assets.script(&script, &arguments)?;
        let argv: Vec<String> = printed.lines().map(str::to_owned).collect();
        let path = argv.first().ok_or(VmError::NoArguments { script })?.into();
        let env = vec![format!("{ENV_RUN}={run_id}"), "PATH=/usr/bin:/bin".to_owned()];
        let huge_pages = self.huge_pages;
        Ok(Program { path, argv, env, huge_pages })
    }

    /// The files that take part.
    pub(super) fn artefacts(&self, qemu: &Qemu) -> Result<Vec<ArtefactFact>, AssetsError> {
        let mut facts = vec![
            artefact("qemu", &qemu.path)?,
            artefact(&format!("guest kernel {}", self.kernel_kind), &self.kernel)?,
        ];
        if let Some(initrd) = &self.initrd {
            facts.push(artefact("initramfs", initrd)?);
        }
        Ok(facts)
    }
}
