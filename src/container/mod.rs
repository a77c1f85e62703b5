//! The container runtime, usable without the rest of the suite.
//!
//! Its one input is an OCI runtime `Spec`, from a [`Bundle`] or made by the
//! caller. [`Plan::from_spec`] turns it into steps or refuses it by the name of
//! a field; [`Container::prepare`] does
//! beforehand whatever does not differ between instances; and
//! [`Container::launch`] starts one, in a [`cgroup::Group`]:
//!
//! ```no_run
//! use std::path::Path;
//! use unladen::container::cgroup::{Controller, Hierarchy};
//! use unladen::container::{Bundle, Container};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let plan = Bundle::load(Path::new("bundle"))?.plan()?;
//! let hierarchy = Hierarchy::detect(Path::new("/proc"), Path::new("/sys/fs/cgroup"))?;
//! let mut tree = hierarchy.prepare("example", &Controller::STANDARD)?;
//! let group = tree.create("first", plan.limits())?;
//! let mut container = Container::prepare(&plan)?;
//! let child = container.launch(&group, &[])?;
//! child.pidfd.wait(None)?;
//! tree.remove()?;
//! # Ok(())
//! # }
//! ```
//!
//! [`run()`] does all of that once; it refuses a spec with hooks.
//! [`lifecycle`] divides it into the commands of an OCI runtime, which runs
//! them.

mod bundle;
pub mod cgroup;
pub mod lifecycle;
pub mod network;
mod plan;
mod rootfs;
mod run;
mod runtime;
pub mod seccomp;
mod spec;

/// The capabilities that a spec may name, in the order of their numbers.
#[must_use]
pub fn all_capabilities() -> &'static [oci_spec::runtime::Capability] {
    &plan::BY_NUMBER
}

/// The mount options that a spec may use, besides those that are handed to
/// the filesystem.
#[must_use]
pub fn mount_options() -> Vec<String> {
    plan::mount_options()
}

pub use self::bundle::{Bundle, BundleError, parse_config, read_config};
pub use self::plan::{Plan, PlanError};
pub use self::rootfs::{PAYLOAD_PATH, RootfsError, minimal_rootfs, rootfs_with};
pub use self::run::{
    Ended, InstanceId, RunError, Running, Stdio, Streams, run, start, start_on_bridge,
};
pub use self::runtime::{Container, HeldContainer, LaunchError, NetworkedContainer, PrepareError};
pub use self::spec::{
    CapabilityChange, CellOptions, DEFAULT_PATH, DeviceError, HostDevice, Identity, Network,
    StandardOptions, UserError, capabilities_of, capability, default_cell_spec, find_user,
    host_device, identify, resource_limit, standard_spec, temporary, volume,
};
