//! The container runtime, usable without the rest of the suite.

pub mod cgroup;
