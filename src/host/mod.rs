//! What this machine is and in which state: facts for the manifest, findings
//! for `doctor`, conditions for charts, the guard that protects the machine
//! while it is filled, and the ids and times of runs.
//!
//! Everything is read from the kernel's file trees under a root folder, which
//! tests replace. A fact that cannot be read is recorded as `unavailable`
//! with its reason. Only `settings` changes anything, on request, and puts it
//! back; nothing here launches anything.

mod cgroups;
mod disturbance;
mod doctor;
mod facts;
mod guard;
mod kvm;
mod labels;
mod leftovers;
mod merging;
mod run_id;
mod settings;
mod source;

pub use cgroups::{CgroupLayout, CgroupVersion};
pub use disturbance::{Disturbance, disturbances};
pub use doctor::{Finding, Inventory, Severity, doctor};
pub use facts::{UNAVAILABLE, fact, facts, facts_at};
pub use guard::{Guard, Limit};
pub use kvm::KvmDevice;
pub use labels::{Difference, differences, is_lasting, labels};
pub use leftovers::{LeftoverCounters, Leftovers};
pub use merging::{Merged, Merging, MergingError, merged};
pub use run_id::{HostError, RunId, RunIdError, random_u64, utc};
pub use settings::{
    Applied, Change, Holder, Planned, Restored, Saved, Setting, Settings, SettingsError,
};

#[cfg(test)]
mod tests;
