//! One machine as a cell wants it: its kernel, its files and its argument
//! vector.

use std::path::{Path, PathBuf};

use super::super::assets::artefact;
use super::super::launcher::order::{Program, fd};
use super::super::{Assets, AssetsError};
use super::files::{Files, Root};
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
    /// `microvm`, `q35` or `pc`.
    pub(super) kind: String,
    /// `tuned`, `distro` or `stub`.
    pub(super) kernel_kind: String,
    /// `auto`, or the name of a firmware.
    pub(super) firmware: String,
    /// What it is started from.
    pub(super) files: Files,
    root: Root,
    untuned: bool,
    devices: String,
    memory: String,
    cpus: String,
    purpose: &'static str,
    /// What its payload does.
    pub(super) workload: Workload,
    tsc_khz: Option<String>,
    verbose: bool,
    balloon: String,
    huge_pages: bool,
}

impl Machine {
    /// The machine of a cell.
    pub(super) fn of(
        cell: &CellKey,
        assets: &Assets,
        tsc_khz: Option<String>,
    ) -> Result<Self, VmError> {
        let value = |name: &str| param_value(cell, name).unwrap_or_default().to_owned();
        Ok(Self {
            kind: value("machine"),
            kernel_kind: value("kernel"),
            firmware: value("firmware"),
            files: Files::of(cell, assets)?,
            root: Root::of(cell),
            untuned: value("untuned") == "yes",
            devices: value("devices"),
            memory: value("memory"),
            cpus: value("cpus"),
            purpose: match cell.experiment {
                Experiment::Startup | Experiment::Minimum => "start",
                // An idle guest must not tick: what an instance costs while
                // nothing happens is the question.
                Experiment::Memory | Experiment::Density | Experiment::Scale | Experiment::Ksm => {
                    "density"
                }
            },
            workload: cell.workload,
            balloon: value("balloon"),
            huge_pages: value("thp") != "off",
            // Without the frequency the guest calibrates for itself, which
            // only takes longer.
            tsc_khz,
            verbose: false,
        })
    }

    /// The same machine for an accelerator's trial boot: run to completion.
    pub(super) fn probing(&self) -> Self {
        Self { workload: Workload::Exit, purpose: "start", ..self.clone() }
    }

    /// The same machine with a kernel that says all it has to say.
    pub(super) fn verbose(&self) -> Self {
        Self { verbose: true, ..self.clone() }
    }

    /// What tells apart machines that one accelerator boots and another does
    /// not.
    pub(super) fn family(&self) -> String {
        format!("{}-{}-{}", self.files.kernel.display(), self.kind, self.firmware)
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
        let name = format!("unladen-{run_id}");
        let fds =
            Descriptors { channel: fd::CHANNEL, console: Some(fd::CONSOLE), qmp: Some(fd::QMP) };
        let argv = self.argv(assets, accelerator, &name, &fds, more)?;
        let path = argv.first().cloned().unwrap_or_default().into();
        let env = vec![format!("{ENV_RUN}={run_id}"), "PATH=/usr/bin:/bin".to_owned()];
        let huge_pages = self.huge_pages;
        Ok(Program { path, argv, env, huge_pages })
    }

    /// QEMU's argument vector, as the machine's script spells it.
    pub(super) fn argv(
        &self,
        assets: &Assets,
        accelerator: Accelerator,
        name: &str,
        fds: &Descriptors,
        more: &[&str],
    ) -> Result<Vec<String>, VmError> {
        let mut words = Words(vec!["--print".to_owned()]);
        self.file_words(&mut words);
        words.pair("--memory", &self.memory);
        words.pair("--cpus", &self.cpus);
        words.pair("--name", name);
        words.pair("--append", &self.append());
        words.pair("--channel-fd", &fds.channel.to_string());
        if let Some(console) = fds.console {
            words.pair("--console-fd", &console.to_string());
        }
        if let Some(qmp) = fds.qmp {
            words.pair("--qmp-fd", &qmp.to_string());
        }
        if self.balloon != "off" {
            words.pair("--balloon", &self.balloon);
        }
        words.pair("--accel", accelerator.as_str());
        words.pair("--for", self.purpose);
        if let Some(khz) = &self.tsc_khz {
            words.pair("--tsc-khz", khz);
        }
        if self.firmware != "auto" {
            words.pair("--firmware", &self.firmware);
        }
        if self.devices != "none" {
            words.pair("--devices", &self.devices.replace('+', ","));
        }
        words.0.extend(more.iter().map(|&word| word.to_owned()));
        words.0.extend(self.untuned.then(|| "--untuned".to_owned()));
        words.0.extend(self.verbose.then(|| "--verbose-kernel".to_owned()));
        let script = format!("vm/{}.sh", self.kind);
        let printed = assets.script(&script, &words.0)?;
        let argv: Vec<String> = printed.lines().map(str::to_owned).collect();
        if argv.is_empty() { Err(VmError::NoArguments { script }) } else { Ok(argv) }
    }

    fn file_words(&self, words: &mut Words) {
        let text = |path: &Path| path.display().to_string();
        words.pair("--kernel", &text(&self.files.kernel));
        if let Some(initrd) = &self.files.initrd {
            words.pair("--initrd", &text(initrd));
        }
        if let Some(path) = &self.files.root {
            words.pair("--rootfs", self.root.as_str());
            words.pair("--root", &text(path));
        }
    }

    /// The payload's environment, and the loader's.
    fn append(&self) -> String {
        let mut append = format!(
            "{ENV_CHANNEL}={GUEST_CHANNEL} {ENV_END}=debug-exit {ENV_WORKLOAD}={}",
            self.workload
        );
        if self.files.loader && self.root != Root::Initramfs {
            append.push_str(" UNLADEN_ROOT=");
            append.push_str(self.root.as_str());
        }
        append
    }

    /// The files whose pages a cold start reads again. Firmware and shared
    /// libraries are not among them: what other programs use stays cached.
    pub(super) fn cold_files<'a>(&'a self, qemu: &'a Qemu) -> Vec<&'a Path> {
        let own = [self.files.initrd.as_deref(), self.files.root.as_deref()];
        let own = own.into_iter().flatten().filter(|path| path.is_file());
        [qemu.path.as_path(), &self.files.kernel].into_iter().chain(own).collect()
    }

    /// The files that take part.
    pub(super) fn artefacts(&self, qemu: &Qemu) -> Result<Vec<ArtefactFact>, AssetsError> {
        let mut facts = vec![
            artefact("qemu", &qemu.path)?,
            artefact(&format!("guest kernel {}", self.kernel_kind), &self.files.kernel)?,
        ];
        if let Some(initrd) = &self.files.initrd {
            facts.push(artefact("initramfs", initrd)?);
        }
        if let (Root::Disk, Some(image)) = (self.root, &self.files.root) {
            facts.push(artefact("root image", image)?);
        }
        Ok(facts)
    }
}

/// Descriptor numbers in QEMU.
pub(super) struct Descriptors {
    /// The payload's channel.
    pub(super) channel: i32,
    /// Where the console goes, if not to the terminal.
    pub(super) console: Option<i32>,
    /// The control socket.
    pub(super) qmp: Option<i32>,
}

/// Arguments of a script.
struct Words(Vec<String>);

impl Words {
    fn pair(&mut self, flag: &str, value: &str) {
        self.0.extend([flag.to_owned(), value.to_owned()]);
    }
}
