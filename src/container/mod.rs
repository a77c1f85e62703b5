//! The container runtime, usable without the rest of the suite.
//!
//! Its one input is an OCI runtime `Spec`. [`Plan::from_spec`] turns it into
//! steps or refuses it by the name of a field; [`Container::prepare`] does
//! beforehand whatever does not differ between instances; and
//! [`Container::launch`] starts one, in a [`cgroup::Group`]:
//!
//! ```no_run
//! use std::path::Path;
//! use unladen::container::cgroup::{Controller, Hierarchy};
//! use unladen::container::{Container, Plan};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let spec = oci_spec::runtime::Spec::load("bundle/config.json")?;
//! let plan = Plan::from_spec(&spec, Path::new("bundle"))?;
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
//! [`run()`] does all of that once. Images,
//! seccomp filters, terminals and hooks are not here (yet); a spec that asks
//! for them is refused.

pub mod cgroup;
pub mod network;
mod plan;
mod rootfs;
mod run;
mod runtime;
mod spec;

pub use self::plan::{Plan, PlanError};
pub use self::rootfs::{PAYLOAD_PATH, RootfsError, minimal_rootfs};
pub use self::run::{RunError, Stdio, run};
pub use self::runtime::{Container, HeldContainer, LaunchError, NetworkedContainer, PrepareError};
pub use self::spec::{CellOptions, default_cell_spec};
