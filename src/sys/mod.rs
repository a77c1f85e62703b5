//! The system-call layer, and the only module with `unsafe` code: making
//! processes, waiting for them, and descriptors.
//!
//! It knows nothing about containers, virtual machines or measurements: it
//! carries out what it is told and reports which call failed.

pub mod aside;
pub mod bpf;
pub mod cached;
pub mod clock;
pub mod executable;
pub mod fdpass;
pub mod file;
pub mod fork;
pub mod keyring;
#[cfg(target_arch = "x86_64")]
pub mod kvm;
pub mod limits;
pub mod namespace;
pub mod pidfd;
mod raw;
pub mod signals;
pub mod spawn;
pub mod terminal;
pub mod tsc;
