//! `doctor`: what on this host prevents, limits or blurs a measurement, and
//! what to do about it. Data only; the command layer prints it.

mod access;
mod condition;
mod why;

use std::path::Path;

use serde::Serialize;

use crate::record::HostFact;

use super::facts::facts;

/// How much a finding matters, most harmless first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing when reading the numbers.
    Note,
    /// Numbers are less reliable, or a part cannot be measured as intended.
    Warning,
    /// A backend cannot run.
    Blocker,
}

/// A fact with its effect and its remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: `KVM`, `memory controller`.
    pub fact: String,
    /// What was found.
    pub value: String,
    /// Why it is looked at, whatever its value.
    pub why: String,
    /// How much it matters.
    pub severity: Severity,
    /// What it does to a measurement; empty when all is well.
    pub effect: String,
    /// What to do about it; empty when there is nothing to do.
    pub remedy: String,
    /// How much it was found to matter, with where; empty when nobody has
    /// published a figure that we know of.
    pub evidence: String,
}

impl Finding {
    /// All is well.
    #[must_use]
    pub fn ok(fact: &str, value: impl Into<String>) -> Self {
        Self::new(Severity::Ok, fact, value, "", "")
    }

    /// Something to say.
    #[must_use]
    pub fn new(
        severity: Severity,
        fact: &str,
        value: impl Into<String>,
        effect: &str,
        remedy: &str,
    ) -> Self {
        Self {
            fact: fact.to_owned(),
            value: value.into(),
            why: why::why(fact).to_owned(),
            severity,
            effect: effect.to_owned(),
            remedy: remedy.to_owned(),
            evidence: String::new(),
        }
    }

    /// With a published figure and its source.
    #[must_use]
    pub fn with_evidence(mut self, evidence: &str) -> Self {
        evidence.clone_into(&mut self.evidence);
        self
    }
}

/// What later modules know about the programs that a run needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Version of the QEMU that would be used, or why there is none; absent
    /// when nobody looked.
    pub qemu: Option<Result<String, String>>,
    /// Guest kernels (`tuned`, `distro`) with their version, or why there is
    /// none.
    pub kernels: Vec<(String, Result<String, String>)>,
    /// Further findings, such as that of an accelerator tried with a real
    /// kernel.
    pub extra: Vec<Finding>,
}

/// Looks at this host. `out` is the folder into which a run would write.
/// Blockers first, then warnings, notes and what is well.
#[must_use]
pub fn doctor(inventory: &Inventory, out: &Path) -> Vec<Finding> {
    let root = nix::unistd::geteuid().is_root();
    let mut found = findings(Path::new("/"), &facts(), root, inventory);
    found.push(condition::disk(out));
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

/// The findings about the host below `root`, for a user who is root or not.
pub(super) fn findings(
    root: &Path,
    facts: &[HostFact],
    is_root: bool,
    inventory: &Inventory,
) -> Vec<Finding> {
    let mut found = programs(inventory);
    found.extend(access::findings(root, is_root));
    found.extend(condition::findings(facts));
    found.extend(inventory.extra.iter().cloned());
    found
}

fn programs(inventory: &Inventory) -> Vec<Finding> {
    let qemu = inventory.qemu.iter().map(|qemu| match qemu {
        Ok(version) => Finding::ok("QEMU", version),
        Err(reason) => Finding::new(
            Severity::Blocker,
            "QEMU",
            reason,
            "no virtual machine can be measured",
            "install it: `apt install qemu-system-x86` (Debian, Ubuntu), \
             `dnf install qemu-system-x86-core` (Fedora)",
        ),
    });
    let kernels = inventory.kernels.iter().map(|(name, kernel)| {
        let fact = format!("guest kernel {name}");
        let option = if name == "distro" { " --distro" } else { "" };
        match kernel {
            Ok(version) => Finding::ok(&fact, version),
            Err(reason) => Finding::new(
                Severity::Warning,
                &fact,
                reason,
                &format!("virtual machines with kernel={name} are skipped"),
                &format!("run the script `guest/kernel.sh{option}`; what it makes is kept"),
            ),
        }
    });
    qemu.chain(kernels).collect()
}
