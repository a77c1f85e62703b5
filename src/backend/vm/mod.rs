//! QEMU virtual machines. The scripts under `scripts/vm` know QEMU's
//! spelling; this backend asks them once per cell for an argument vector,
//! which the launcher then executes itself.

mod accelerator;
mod clock;
mod files;
mod foreground;
mod inventory;
mod machine;
pub(super) mod snapshot;
mod trace;

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

pub use accelerator::{Accelerator, VmError};
pub(super) use files::guest_kernel;
pub use foreground::{Foreground, ForegroundError, Wish};
pub use inventory::inventory;
use machine::{Build, Machine};
pub(super) use snapshot::run_folders;
use snapshot::{Guests, Start};

use super::cold::cold_files;
use super::kvm_bare::only_exit;
use super::launcher::order::Recipe;
use super::process::own_version;
use super::{Assets, Backend, BackendError, Failure, Instance, Prepared, Real, Until};
use crate::payload::stub;
use crate::record::{ArtefactFact, BackendName, CellKey, Experiment, Mark, Version};
use crate::spec::param_value;

/// Time that a guest may take until its workload is ready. A software
/// emulated distribution kernel takes some two seconds on an idle host.
const DEADLINE: Duration = Duration::from_secs(60);

/// Most characters of what a repeated boot said.
const MESSAGE: usize = 1000;
/// Why an arm64 guest is emulated.
const FOREIGN_KVM: &str = "its processor is arm64 and this host's is x86-64";
/// Least time for a trial boot under KVM.
const PATIENCE: Duration = Duration::from_secs(2);

/// The same for the stub: where KVM has to emulate much, the firmware alone
/// takes seconds, and it comes to its end all the same.
const STUB_PATIENCE: Duration = Duration::from_secs(15);

/// QEMU as a backend.
#[derive(Debug)]
pub struct Vm {
    real: Real,
    assets: Rc<Assets>,
    run_id: String,
    /// Each once a cell needs it.
    qemus: Vec<(Build, machine::Qemu)>,
    accelerators: HashMap<String, accelerator::Probe>,
    /// What every cell gets that names none.
    wanted: Option<Accelerator>,
    /// The host's clock, once it was asked for.
    tsc_khz: Option<Option<String>>,
    artefacts: Vec<ArtefactFact>,
    /// Cells prepared so far.
    prepared: u32,
    /// By template: what a failed boot is repeated from, once.
    repeats: HashMap<u32, (Machine, Accelerator)>,
}

impl Vm {
    pub(super) fn new(
        real: Real,
        assets: Rc<Assets>,
        run_id: &str,
        wanted: Option<Accelerator>,
    ) -> Self {
        Self {
            real,
            assets,
            run_id: run_id.to_owned(),
            qemus: Vec::new(),
            accelerators: HashMap::new(),
            wanted,
            tsc_khz: None,
            artefacts: Vec::new(),
            prepared: 0,
            repeats: HashMap::new(),
        }
    }

    /// A QEMU's path and version, asked for once.
    fn qemu(&mut self, build: Build) -> Result<machine::Qemu, BackendError> {
        if let Some((_, qemu)) = self.qemus.iter().find(|(known, _)| *known == build) {
            return Ok(qemu.clone());
        }
        let qemu = machine::Qemu::find(&self.assets, build).map_err(unavailable)?;
        self.qemus.push((build, qemu.clone()));
        Ok(qemu)
    }

    /// The machine of a cell.
    fn machine(&mut self, cell: &CellKey) -> Result<Machine, BackendError> {
        let khz = self.tsc_khz.get_or_insert_with(|| clock::tsc_khz(&self.assets)).clone();
        Machine::of(cell, &self.assets, khz).map_err(unavailable)
    }

    /// The accelerator that a cell gets: the one it names, or the best one
    /// that boots its kernel here.
    fn accelerator(&mut self, machine: &Machine) -> Result<accelerator::Probe, BackendError> {
        let key = machine.family();
        if let Some(known) = self.accelerators.get(&key) {
            return Ok(known.clone());
        }
        let qemu = self.qemu(Build::Full)?;
        let cached =
            accelerator::Cache::new(self.assets.cache(), &qemu, machine).map_err(unavailable)?;
        let probe = match cached.read() {
            Some(probe) => probe,
            None => {
                let probe = self.probe(machine)?;
                cached.write(&probe);
                probe
            }
        };
        self.accelerators.insert(key, probe.clone());
        Ok(probe)
    }

    /// The accelerator of a cell: its own word, the user's, or the best.
    fn chosen(
        &mut self,
        cell: &CellKey,
        machine: &Machine,
    ) -> Result<accelerator::Probe, BackendError> {
        let is_stub = machine.kernel_kind == machine::STUB;
        if machine.is_foreign() {
            return match param_value(cell, "accel") {
                Some("kvm") => Err(BackendError::Unavailable(FOREIGN_KVM.to_owned())),
                _ => Ok(accelerator::Probe::tcg(FOREIGN_KVM.to_owned())),
            };
        }
        if machine.build() == Build::Lean {
            return self.for_lean(machine);
        }
        match (param_value(cell, "accel"), self.wanted) {
            // A floor that cannot be had is no failure of the run.
            (Some("kvm"), _) if is_stub => match self.accelerator(machine)? {
                probe if probe.best == Accelerator::Kvm => Ok(probe),
                probe => Err(BackendError::Unavailable(probe.reason.unwrap_or_default())),
            },
            (Some("kvm"), _) | (Some("auto"), Some(Accelerator::Kvm)) => {
                Ok(accelerator::Probe::kvm())
            }
            (Some("tcg"), _) | (Some("auto"), Some(Accelerator::Tcg)) => {
                Ok(accelerator::Probe::tcg("it was asked for".to_owned()))
            }
            _ => self.accelerator(&machine.probing()),
        }
    }

    /// KVM, if the usual QEMU boots this machine's kernel with it.
    fn for_lean(&mut self, machine: &Machine) -> Result<accelerator::Probe, BackendError> {
        let probe = match self.wanted {
            Some(Accelerator::Tcg) => accelerator::Probe::tcg("tcg was asked for".to_owned()),
            _ => self.accelerator(&machine.on_full_qemu().probing())?,
        };
        match probe.reason {
            None => Ok(probe),
            Some(reason) => Err(BackendError::Unavailable(format!(
                "the lean build of QEMU knows KVM only: {reason}"
            ))),
        }
    }

    /// Boots the cell's own kernel under each accelerator, with a deadline.
    fn probe(&mut self, machine: &Machine) -> Result<accelerator::Probe, BackendError> {
        let tcg = self.trial_boot(machine, Accelerator::Tcg, self.real.deadline(DEADLINE))?;
        if let Err(reason) = accelerator::kvm_opens() {
            return Ok(accelerator::Probe::tcg(reason));
        }
        let least = if machine.kernel_kind == machine::STUB { STUB_PATIENCE } else { PATIENCE };
        let patience = tcg.saturating_mul(3).max(least);
        match self.trial_boot(machine, Accelerator::Kvm, patience) {
            Ok(_) => Ok(accelerator::Probe::kvm()),
            Err(BackendError::Failed(failure)) => Ok(accelerator::Probe::tcg(format!(
                "the guest kernel does not boot under KVM within {:.1} s: {}",
                patience.as_secs_f64(),
                failure.reason
            ))),
            Err(other) => Err(other),
        }
    }

    /// A failed boot with what the same boot says when its kernel may say
    /// everything. Done once for each cell, outside the measurement.
    fn explained(
        &mut self,
        prepared: &Prepared,
        mut failure: Failure,
    ) -> Result<BackendError, BackendError> {
        let Some((machine, accelerator)) = self.repeats.remove(&prepared.template) else {
            return Ok(failure.into());
        };
        let monitor = machine.verbose().monitor(&self.assets, accelerator, &self.run_id);
        let (template, _) = self.real.prepare(Recipe::Machine(monitor.map_err(unavailable)?))?;
        let again = Prepared { template, ..prepared.clone() };
        let said = match self.real.launch(&again, Until::Ready) {
            Ok(_) => "this time it started".to_owned(),
            Err(BackendError::Failed(again)) => again.reason,
            Err(other) => return Err(other),
        };
        failure.reason.push_str("; repeated with all messages of its kernel: ");
        failure.reason.push_str(&cut(&said, MESSAGE));
        Ok(failure.into())
    }

    /// One boot to the end of the `exit` workload; gives the time it took.
    fn trial_boot(
        &mut self,
        machine: &Machine,
        accelerator: Accelerator,
        deadline: Duration,
    ) -> Result<Duration, BackendError> {
        let monitor =
            machine.monitor(&self.assets, accelerator, &self.run_id).map_err(unavailable)?;
        let (template, remarks) = self.real.prepare(Recipe::Machine(monitor))?;
        let accelerator = Some(accelerator);
        let prepared = Prepared { remarks, accelerator, ..Prepared::new(template, deadline) };
        let instance = self.real.launch(&prepared, Until::Gone)?;
        let taken = instance.timeline().between(Mark::Request, Mark::Gone).unwrap_or_default();
        Ok(Duration::from_nanos(taken))
    }
}

fn unavailable(error: impl Into<VmError>) -> BackendError {
    BackendError::Unavailable(crate::errors::chain(&error.into()))
}

impl Backend for Vm {
    fn name(&self) -> BackendName {
        BackendName::Vm
    }

    fn versions(&mut self) -> Result<Vec<Version>, BackendError> {
        self.qemu(Build::Full)?;
        let of_qemu = self.qemus.iter().map(|(build, qemu)| Version {
            name: build.name().to_owned(),
            version: qemu.version.clone(),
        });
        Ok(std::iter::once(own_version("unladen")).chain(of_qemu).collect())
    }

    fn artefacts(&self) -> Vec<ArtefactFact> {
        self.artefacts.clone()
    }

    fn prepare(&mut self, cell: &CellKey) -> Result<Prepared, BackendError> {
        let machine = self.machine(cell)?;
        let qemu = self.qemu(machine.build())?;
        let is_stub = machine.kernel_kind == machine::STUB;
        if is_stub && (cell.workload != stub::WORKLOAD || Start::of(cell) != Start::Cold) {
            return Err(only_exit());
        }
        let probe = self.chosen(cell, &machine)?;
        let accelerator = probe.best;
        for fact in machine.artefacts(&qemu).map_err(unavailable)? {
            if !self.artefacts.contains(&fact) {
                self.artefacts.push(fact);
            }
        }
        self.prepared += 1;
        let deadline = self.real.deadline(DEADLINE);
        let cold = cold_files(cell, &machine.cold_files(&qemu));
        let start = Start::of(cell);
        // What goes on from a snapshot has read its file before it was saved.
        let shared = machine.shared_file().filter(|_| start == Start::Cold);
        if !cold.is_empty() && param_value(cell, "start") != Some("cold") {
            let reason = "cache=cold is for guests that boot: the memory of a clone is never cold";
            return Err(BackendError::Unavailable(reason.to_owned()));
        }
        let guests = Guests {
            machine: &machine,
            qemu: &qemu,
            assets: &self.assets,
            accelerator,
            run_id: &self.run_id,
            deadline,
        };
        let (recipe, command) = guests.recipe(start, self.prepared).map_err(unavailable)?;
        let traced = machine.trace(accelerator).map_err(unavailable)?.marks();
        let (template, mut remarks) = self.real.prepare(recipe)?;
        remarks.extend(probe.reason.map(|reason| format!("software emulation: {reason}")));
        // At the end of a ladder a failure is a result, and no time to repeat.
        let measured_once = !cell.experiment.is_ladder() && cell.experiment != Experiment::Minimum;
        if measured_once && !is_stub && start == Start::Cold {
            self.repeats.insert(template, (machine, accelerator));
        }
        Ok(Prepared {
            command,
            remarks,
            accelerator: Some(accelerator),
            cold,
            shared,
            traced,
            ..Prepared::new(template, deadline)
        })
    }

    fn launch(
        &mut self,
        prepared: &Prepared,
        until: Until,
    ) -> Result<Box<dyn Instance>, BackendError> {
        match self.real.launch(prepared, until) {
            Err(BackendError::Failed(failure)) if failure.timeline.at(Mark::Ready).is_none() => {
                Err(self.explained(prepared, failure)?)
            }
            other => other,
        }
    }
}

/// Cuts a text to so many characters.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}
