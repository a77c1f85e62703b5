//! What `doctor` wants to know about machines, without booting one.

use super::super::Assets;
use super::accelerator::{Accelerator, Cache, kvm_opens};
use super::machine::{Build, Machine, Qemu};
use crate::errors::chain;
use crate::host::{Finding, Inventory, Severity};
use crate::record::{BackendName, CellKey, Experiment, Params, Workload};

/// QEMU, guest kernels, and what is known of accelerators.
#[must_use]
pub fn inventory(assets: &Assets) -> Inventory {
    let qemu = Qemu::find(assets, Build::Full);
    let kernels = [("tuned", vec![]), ("distro", vec!["--distro"])].map(|(name, more)| {
        let mut arguments = vec!["--path".to_owned()];
        arguments.extend(more.into_iter().map(str::to_owned));
        let path = assets.script("guest/kernel.sh", &arguments);
        let script = assets.script_path("guest/kernel.sh");
        let reason = |error| format!("{} (the script is {})", chain(&error), script.display());
        (name.to_owned(), path.map(|path| path.trim().to_owned()).map_err(reason))
    });
    let extra = match &qemu {
        Ok(qemu) => vec![accelerator(assets, qemu)],
        Err(_) => Vec::new(),
    };
    let qemu = qemu.map(|qemu| qemu.version).map_err(|error| chain(&error));
    Inventory { qemu: Some(qemu), kernels: kernels.to_vec(), extra }
}

/// The remembered outcome of trial boots of the default machine.
fn accelerator(assets: &Assets, qemu: &Qemu) -> Finding {
    const FACT: &str = "accelerator";
    const EMULATED: &str = "machines run under software emulation: their processor time is some \
        ten times what KVM would need, and every chart says so";
    if let Err(reason) = kvm_opens() {
        let remedy = "enable virtualization in the firmware, load kvm_intel or kvm_amd, and join \
            the group kvm";
        return Finding::new(Severity::Warning, FACT, format!("tcg: {reason}"), EMULATED, remedy);
    }
    let cell = CellKey {
        experiment: Experiment::Startup,
        backend: BackendName::Vm,
        workload: Workload::Exit,
        params: Params::default(),
    };
    let known = Machine::of(&cell, assets, None)
        .and_then(|machine| Cache::new(assets.cache(), qemu, &machine))
        .ok()
        .and_then(|cache| cache.read());
    match known {
        None => Finding::new(
            Severity::Note,
            FACT,
            "/dev/kvm opens; no guest was booted yet",
            "not known whether KVM boots a real kernel here",
            "the first run with a machine finds out and remembers",
        ),
        Some(probe) if probe.best == Accelerator::Kvm => {
            Finding::ok(FACT, "kvm: it booted a real kernel")
        }
        Some(probe) => {
            let reason = probe.reason.unwrap_or_default();
            let remedy = "run on hardware, or in a machine with nested virtualization";
            Finding::new(Severity::Warning, FACT, format!("tcg: {reason}"), EMULATED, remedy)
        }
    }
}
