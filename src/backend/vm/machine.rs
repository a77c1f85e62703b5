//! One machine as a cell wants it: its kernel, its files and its argument
//! vector.

use std::path::{Path, PathBuf};

use super::super::assets::artefact;
use super::super::launcher::order::{Monitor, Program, fd};
use super::super::{Assets, AssetsError};
use super::files::{Files, Root};
use super::trace::{TracePlan, Traced};
use super::{Accelerator, VmError};
use crate::payload::protocol::{ENV_CHANNEL, ENV_END, ENV_RUN, ENV_WORKLOAD};
use crate::record::{ArtefactFact, CellKey, Experiment, Workload};
use crate::spec::param_value;

/// The value of the parameter `kernel` for a guest without an operating system.
pub(super) const STUB: &str = "stub";

/// The value of the parameter `machine` for an arm64 guest.
pub(super) const FOREIGN: &str = "virt";

/// The serial port that is the payload's channel: the second one of a PC.
const GUEST_CHANNEL: &str = "/dev/ttyS1";

/// The same of an arm64 machine, whose console is of another kind.
const FOREIGN_CHANNEL: &str = "/dev/ttyS0";

/// Which of a host's builds of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Build {
    /// The usual one.
    Full,
    /// The distribution's small one for microvm: KVM only.
    Lean,
    /// The one for arm64 guests.
    Foreign,
}

impl Build {
    /// What the script that looks for it is told.
    fn words(self) -> &'static [&'static str] {
        match self {
            Self::Full => &[],
            Self::Lean => &["--qemu", "lean"],
            Self::Foreign => &["--arch", "aarch64"],
        }
    }

    /// Its name among the versions of a run.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Full => "qemu",
            Self::Lean => "qemu-lean",
            Self::Foreign => "qemu-aarch64",
        }
    }
}

/// A QEMU of this host.
#[derive(Clone, Debug)]
pub(super) struct Qemu {
    /// Its own version line.
    pub(super) version: String,
    /// Its executable.
    pub(super) path: PathBuf,
}

impl Qemu {
    /// Asks the script that knows where to look.
    pub(super) fn find(assets: &Assets, build: Build) -> Result<Self, VmError> {
        let words: Vec<String> = build.words().iter().map(|&word| word.to_owned()).collect();
        let text = assets.script("vm/qemu-version.sh", &words)?;
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
    lean: bool,
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
    traced: bool,
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
            lean: value("qemu") == "lean",
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
            traced: value("traced") == "yes",
        })
    }

    /// The same machine for an accelerator's trial boot: run to completion.
    pub(super) fn probing(&self) -> Self {
        Self { workload: Workload::Exit, purpose: "start", traced: false, ..self.clone() }
    }

    /// The same machine with a kernel that says all it has to say, and
    /// nothing besides.
    pub(super) fn verbose(&self) -> Self {
        Self { verbose: true, traced: false, ..self.clone() }
    }

    /// The same machine on the usual QEMU.
    pub(super) fn on_full_qemu(&self) -> Self {
        Self { lean: false, ..self.clone() }
    }

    /// The QEMU that runs it.
    pub(super) fn build(&self) -> Build {
        match () {
            () if self.is_foreign() => Build::Foreign,
            () if self.lean => Build::Lean,
            () => Build::Full,
        }
    }

    /// Whether it has the device by which a guest tells QEMU its code.
    pub(super) fn tells_code(&self) -> bool {
        self.build() == Build::Full
    }

    /// Whether its processor is another kind than an x86 host's.
    pub(super) fn is_foreign(&self) -> bool {
        self.kind == FOREIGN
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

    /// What the launcher makes an instance from: QEMU, the server of its
    /// files, and what a trace looks for.
    pub(super) fn monitor(
        &self,
        assets: &Assets,
        accelerator: Accelerator,
        run_id: &str,
    ) -> Result<Monitor, VmError> {
        let plan = self.trace(accelerator)?;
        let words = plan.words();
        let more: Vec<&str> = words.iter().map(String::as_str).collect();
        let program = self.program(assets, accelerator, run_id, &more)?;
        let server = self.server(assets, run_id)?;
        Ok(Monitor { program, server, tells_code: self.tells_code(), probes: plan.probes })
    }

    /// The marks that a traced machine shows; nothing for any other.
    pub(super) fn trace(&self, accelerator: Accelerator) -> Result<TracePlan, VmError> {
        if !self.traced {
            return Ok(TracePlan::default());
        }
        let guest = Traced {
            kernel: &self.files.kernel,
            has_initramfs: self.files.initrd.is_some(),
            accelerator,
        };
        TracePlan::of(&guest)
    }

    /// What serves the guest's root file system beside QEMU.
    pub(super) fn server(&self, assets: &Assets, run_id: &str) -> Result<Option<Program>, VmError> {
        let (Root::VirtioFs, Some(folder)) = (self.root, &self.files.root) else {
            return Ok(None);
        };
        let mut words = Words(vec!["--print".to_owned()]);
        words.pair("--root", &folder.display().to_string());
        words.pair("--fd", &fd::FILES.to_string());
        let argv = printed(assets, "vm/virtiofsd.sh", &words.0)?;
        let path = argv.first().cloned().unwrap_or_default().into();
        Ok(Some(Program { path, argv, env: environment(run_id), huge_pages: self.huge_pages }))
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
        let huge_pages = self.huge_pages;
        Ok(Program { path, argv, env: environment(run_id), huge_pages })
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
        if self.lean {
            words.pair("--qemu", "lean");
        }
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
        printed(assets, &format!("vm/{}.sh", self.kind), &words.0)
    }

    fn file_words(&self, words: &mut Words) {
        let text = |path: &Path| path.display().to_string();
        words.pair("--kernel", &text(&self.files.kernel));
        if let Some(initrd) = &self.files.initrd {
            words.pair("--initrd", &text(initrd));
        }
        if let Some(path) = &self.files.root {
            words.pair("--rootfs", self.root.as_str());
            if self.root == Root::VirtioFs {
                words.pair("--files-fd", &fd::FILES.to_string());
            } else {
                words.pair("--root", &text(path));
            }
        }
    }

    /// The payload's environment, and the loader's.
    fn append(&self) -> String {
        let channel = if self.is_foreign() { FOREIGN_CHANNEL } else { GUEST_CHANNEL };
        let mut append = format!(
            "{ENV_CHANNEL}={channel} {ENV_END}=debug-exit {ENV_WORKLOAD}={}",
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

/// The argument vector that a script prints.
fn printed(assets: &Assets, script: &str, words: &[String]) -> Result<Vec<String>, VmError> {
    let argv: Vec<String> = assets.script(script, words)?.lines().map(str::to_owned).collect();
    if argv.is_empty() { Err(VmError::NoArguments { script: script.to_owned() }) } else { Ok(argv) }
}

/// The whole environment of a program of this run.
fn environment(run_id: &str) -> Vec<String> {
    vec![format!("{ENV_RUN}={run_id}"), "PATH=/usr/bin:/bin".to_owned()]
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
