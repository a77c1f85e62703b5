//! `unladen` measures, on the reader's own machine, what a virtual machine
//! and a container really cost: start-up, memory and density of the same
//! static payload in a plain process, in a container made by this crate's own
//! runtime, and in QEMU virtual machines.
//!
//! Modules stand in pipeline order; each uses only those before it:
//! `units`, `errors`, `record`, `sys`, `host`, `spec`, `plan`, `payload`, `image`,
//! `container`, `backend`, `probe`, `run`, `store`, `stats`, `claims`,
//! `chart`, `report`, `cli`.

pub mod backend;
pub mod chart;
pub mod claims;
pub mod cli;
pub mod container;
pub mod errors;
pub mod host;
pub mod image;
pub mod payload;
pub mod plan;
pub mod probe;
pub mod record;
pub mod report;
pub mod run;
pub mod spec;
pub mod stats;
pub mod store;
pub mod sys;
pub mod units;
