//! What is written down: metrics, cells, samples and the manifest of a run.
//!
//! These types are the contract between measuring and reporting. Everything
//! after a run works from files made of them; nothing here measures.

mod cell;
mod manifest;
mod metric;
mod peer;
mod sample;
mod split;

pub use cell::{BackendName, CellKey, Experiment, Params, ParamsError, Workload, WorkloadError};
pub use manifest::{ArtefactFact, CellFact, Does, HostFact, Manifest, RunState, Version};
pub use metric::{Ledger, Mark, Metric, MetricError, Part};
pub use peer::{PeerName, PeerNameError};
pub use sample::{Clock, Outcome, Sample};
pub use split::{Charge, HostCount, KernelPart, Merging, Moment, Throughput};

/// Version of every file format in a run's folder. It rises when a column or
/// a field changes its meaning; readers refuse a version they do not know.
pub const SCHEMA_VERSION: u32 = 1;
