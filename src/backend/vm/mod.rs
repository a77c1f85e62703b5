//! QEMU virtual machines. The scripts under `scripts/vm` know QEMU's
//! spelling; this backend asks them once per cell for an argument vector,
//! which the launcher then executes itself.

mod accelerator;
mod inventory;
mod machine;
pub(super) mod snapshot;

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

pub use accelerator::{Accelerator, VmError};
pub use inventory::inventory;
use machine::Machine;
use snapshot::{Guests, Start};

use super::kvm_bare::only_exit;
use super::launcher::order::Recipe;
use super::process::own_version;
use super::{Assets, Backend, BackendError, Instance, Prepared, Real, Until};
use crate::payload::stub;
use crate::record::{ArtefactFact, BackendName, CellKey, Version};
use crate::spec::param_value;

/// Time that a guest may take until its workload is ready. A software
/// emulated distribution kernel takes some two seconds on an idle host.
const DEADLINE: Duration = Duration::from_secs(60);

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
    qemu: Option<machine::Qemu>,
    accelerators: HashMap<String, accelerator::Probe>,
    artefacts: Vec<ArtefactFact>,
    /// Cells prepared so far.
    prepared: u32,
}

impl Vm {
    pub(super) fn new(real: Real, assets: Rc<Assets>, run_id: &str) -> Self {
        let run_id = run_id.to_owned();
        let (accelerators, artefacts) = (HashMap::new(), Vec::new());
        Self { real, assets, run_id, qemu: None, accelerators, artefacts, prepared: 0 }
    }

    /// QEMU's path and version, asked for once.
    fn qemu(&mut self) -> Result<machine::Qemu, BackendError> {
        if self.qemu.is_none() {
            self.qemu = Some(machine::Qemu::find(&self.assets).map_err(unavailable)?);
        }
        self.qemu.clone().ok_or_else(|| BackendError::Unavailable("no QEMU".to_owned()))
    }

    /// The accelerator that a cell gets: the one it names, or the best one
    /// that boots its kernel here.
    fn accelerator(&mut self, machine: &Machine) -> Result<accelerator::Probe, BackendError> {
        let key = format!("{}-{}", machine.kernel_kind, machine.kind);
        if let Some(known) = self.accelerators.get(&key) {
            return Ok(known.clone());
        }
        let qemu = self.qemu()?;
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

    /// One boot to the end of the `exit` workload; gives the time it took.
    fn trial_boot(
        &mut self,
        machine: &Machine,
        accelerator: Accelerator,
        deadline: Duration,
    ) -> Result<Duration, BackendError> {
        let program =
            machine.program(&self.assets, accelerator, &self.run_id, &[]).map_err(unavailable)?;
        let (template, remarks) = self.real.prepare(Recipe::Machine(program))?;
        let accelerator = Some(accelerator);
        let prepared = Prepared { template, command: Vec::new(), remarks, accelerator, deadline };
        let instance = self.real.launch(&prepared, Until::Gone)?;
        let taken = instance
            .timeline()
            .between(crate::record::Mark::Request, crate::record::Mark::Gone)
            .unwrap_or_default();
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
        let qemu = self.qemu()?;
        Ok(vec![own_version("unladen"), Version { name: "qemu".to_owned(), version: qemu.version }])
    }

    fn artefacts(&self) -> Vec<ArtefactFact> {
        self.artefacts.clone()
    }

    fn prepare(&mut self, cell: &CellKey) -> Result<Prepared, BackendError> {
        let qemu = self.qemu()?;
        let machine = Machine::of(cell, &self.assets).map_err(unavailable)?;
        let is_stub = machine.kernel_kind == machine::STUB;
        if is_stub && (cell.workload != stub::WORKLOAD || Start::of(cell) != Start::Cold) {
            return Err(only_exit());
        }
        let accelerator = match param_value(cell, "accel") {
            // A floor that cannot be had is no failure of the run.
            Some("kvm") if is_stub => match self.accelerator(&machine)? {
                accelerator::Probe { best: Accelerator::Kvm, .. } => Accelerator::Kvm,
                accelerator::Probe { reason, .. } => {
                    return Err(BackendError::Unavailable(reason.unwrap_or_default()));
                }
            },
            Some("kvm") => Accelerator::Kvm,
            Some("tcg") => Accelerator::Tcg,
            _ => self.accelerator(&machine.probing())?.best,
        };
        for fact in machine.artefacts(&qemu).map_err(unavailable)? {
            if !self.artefacts.contains(&fact) {
                self.artefacts.push(fact);
            }
        }
        self.prepared += 1;
        let deadline = self.real.deadline(DEADLINE);
        let guests = Guests {
            machine: &machine,
            qemu: &qemu,
            assets: &self.assets,
            accelerator,
            run_id: &self.run_id,
            deadline,
        };
        let (recipe, command) =
            guests.recipe(Start::of(cell), self.prepared).map_err(unavailable)?;
        let (template, remarks) = self.real.prepare(recipe)?;
        let accelerator = Some(accelerator);
        Ok(Prepared { template, command, remarks, accelerator, deadline })
    }

    fn launch(
        &mut self,
        prepared: &Prepared,
        until: Until,
    ) -> Result<Box<dyn Instance>, BackendError> {
        self.real.launch(prepared, until)
    }
}
