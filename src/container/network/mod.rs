//! Networks of containers, made over netlink: a run's own bridge with a
//! private IPv4 network, and an interface on it for each instance.
//!
//! An instance's network namespace is made by the launching thread, which is
//! in it when it makes the child and goes home again
//! ([`NetworkedContainer`](super::NetworkedContainer)): the child is born
//! in it and needs neither a descriptor nor a privilege there. Set-up by the
//! child itself would not be faster, since every message has to be handled
//! before the program starts either way, and two `setns` are a few
//! microseconds beside several hundred for a namespace and a pair of
//! interfaces. The pair's inner end is made in the namespace at once; moving it
//! there afterwards waits for grace periods of the kernel, tens of milliseconds.
//!
//! What is deliberately not done: no forwarding, no address translation, no
//! firewall rule, no setting of the host is touched. Instances reach the host
//! and each other, not the Internet; and a host whose firewall drops what comes
//! from unknown interfaces keeps doing so (replies to the host's own
//! connections come through with the usual rules). No IPv6 beyond what the
//! kernel gives each interface by itself.
//!
//! ```no_run
//! use unladen::container::network::Bridge;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut bridge = Bridge::create("a-run-id")?;
//! let instance = bridge.attach()?;
//! println!("http://{}/", instance.lease.address());
//! // `NetworkedContainer::launch(&group, &fds, &instance.netns)`, and at the end:
//! drop(instance.netns);
//! bridge.release(instance.lease, std::time::Duration::from_secs(10))?;
//! bridge.remove()?;
//! # Ok(())
//! # }
//! ```

mod bridge;
mod namespace;
mod netlink;
mod subnet;
mod sweep;
mod witness;

use std::io;

pub use self::bridge::{Attachment, Bridge, Lease};
pub use self::namespace::{Inside, Netns};
pub use self::subnet::Subnet;
pub use self::sweep::{find, remove_links};
pub use self::witness::{Marked, Witness};

/// Why a network could not be had.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A network namespace.
    #[error("cannot {operation}{}", hint(source))]
    Namespace {
        /// What was tried.
        operation: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("cannot {operation}{}", hint(source))]
    Netlink {
        /// What was tried, with its object.
        operation: String,
        /// The cause.
        source: io::Error,
    },
    /// Every network that was tried is in use.
    #[error(
        "cannot find a free private network: {tried} of them overlap with routes or addresses of \
         this host, the last one {last}"
    )]
    NoSubnet {
        /// How many were tried.
        tried: usize,
        /// One of them.
        last: String,
    },
    /// Every address is given out.
    #[error("the network {subnet} of bridge {bridge} has no free address")]
    Full {
        /// The bridge.
        bridge: String,
        /// Its network.
        subnet: Subnet,
    },
    /// The kernel did not destroy something in time.
    #[error("{what} still exists after {seconds:.1} s")]
    Remains {
        /// What it is.
        what: String,
        /// How long it was waited for.
        seconds: f64,
    },
    /// The interfaces of this host cannot be listed.
    #[error("cannot list the interfaces in {}", folder.display())]
    List {
        /// The folder, `/sys/class/net` as a rule.
        folder: std::path::PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// What a user can do about it.
fn hint(error: &io::Error) -> &'static str {
    use nix::libc;
    match error.raw_os_error() {
        Some(libc::EPERM) => "; networks need root (CAP_NET_ADMIN and CAP_SYS_ADMIN)",
        Some(libc::EOPNOTSUPP) => "; does this kernel have the modules bridge and veth?",
        Some(libc::ENOSPC) => "; a limit under /proc/sys/user is reached",
        Some(libc::EXFULL) => "; the bridge has no free port",
        _ => "",
    }
}
