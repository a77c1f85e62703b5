//! `manifest.json`: everything about a run that is not a sample.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CellKey, Outcome};

/// How far a run came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Still measuring, or killed before it could say otherwise.
    Running,
    /// Stopped by a signal or a budget; `--resume` continues it.
    Interrupted,
    /// Every trial of the plan was tried.
    Complete,
}

/// A named fact about the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFact {
    /// Stable name such as `cpu.model` or `kernel.release`.
    pub name: String,
    /// The value as text.
    pub value: String,
}

/// A file that took part in the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtefactFact {
    /// What it is: `payload`, `guest kernel tuned`, `initramfs`, `qemu`.
    pub role: String,
    /// File name without its folder.
    pub name: String,
    /// SHA-256 of its content in hexadecimal.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A program's version as it says it itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// What has this version: `unladen`, `qemu`, `container runtime`.
    pub name: String,
    /// The version text.
    pub version: String,
}

/// One cell of the plan and what was known about it before the first trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellFact {
    /// The cell.
    pub cell: CellKey,
    /// Trials planned.
    pub rounds: u32,
    /// `Skipped` when this host cannot run it.
    pub outcome: Outcome,
    /// Why it is skipped, or a remark such as a limit that could not be set.
    pub detail: String,
    /// The exact command or steps that the backend carries out, one a line.
    pub command: Vec<String>,
    /// Accelerator of a VM cell: `tcg` or `kvm`.
    pub accelerator: Option<String>,
}

/// What a backend does and does not do beside isolating, in words for a reader
/// who wants to know what is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Does {
    /// Control groups that it joins, and limits that it sets.
    pub cgroup: String,
    /// System-call filter.
    pub seccomp: String,
    /// Network.
    pub network: String,
    /// What becomes of the output.
    pub logging: String,
    /// What lives on beside instances.
    pub daemon: String,
    /// Anything else.
    pub remark: String,
}

/// The manifest of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`super::SCHEMA_VERSION`] of the program that wrote it.
    pub schema: u32,
    /// Id of the run; every process, cgroup and file of the run carries it.
    pub run_id: String,
    /// How far it came.
    pub state: RunState,
    /// Start in UTC, RFC 3339 with seconds.
    pub started: String,
    /// End in UTC, when it has ended.
    pub ended: Option<String>,
    /// The command line.
    pub argv: Vec<String>,
    /// Name of the spec: a profile or a file name.
    pub spec_name: String,
    /// The spec's whole text.
    pub spec_text: String,
    /// Filters and overrides of the command line that shaped the plan.
    pub overrides: BTreeMap<String, String>,
    /// Seed of the order.
    pub seed: u64,
    /// Every cell of the spec.
    pub cells: Vec<CellFact>,
    /// What each backend of the run does and does not do, by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub does: BTreeMap<String, Does>,
    /// Order of trials: per round, indices into `cells`.
    pub order: Vec<Vec<usize>>,
    /// The host before the first trial.
    pub host_before: Vec<HostFact>,
    /// The host after the last trial.
    pub host_after: Vec<HostFact>,
    /// Conditions that every chart must carry, such as `TCG (software emulation)`.
    pub labels: Vec<String>,
    /// Versions of all that ran.
    pub versions: Vec<Version>,
    /// Files that took part.
    pub artefacts: Vec<ArtefactFact>,
    /// Host settings that the run changed (and restored).
    pub settings_changed: Vec<HostFact>,
    /// What went wrong or was remarkable, in order.
    pub warnings: Vec<String>,
}
