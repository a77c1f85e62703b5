//! Makers of OCI runtime specs: from a cell of the suite, and from what a
//! person asks for on a command line.
//!
//! They decide what is asked for; whether and how it is carried out is the
//! plan's business.

mod cell;
mod device;
mod parts;
mod standard;
mod user;

pub use self::cell::{CellOptions, default_cell_spec};
pub use self::device::{DeviceError, HostDevice, host_device};
pub use self::standard::{
    CapabilityChange, DEFAULT_PATH, Network, StandardOptions, capabilities_of, capability,
    resource_limit, standard_spec, temporary, volume,
};
pub use self::user::{Identity, UserError, find_user, identify};
