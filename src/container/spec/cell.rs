//! The spec of the suite's own containers.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Capabilities, LinuxCapabilities, LinuxSeccomp, Mount, Process, Spec, User,
};

use super::parts;
use crate::container::cgroup::Limits;

/// What differs between the suite's containers.
#[derive(Clone, Debug)]
pub struct CellOptions<'a> {
    /// The root filesystem, see [`minimal_rootfs`](crate::container::minimal_rootfs).
    pub rootfs: &'a Path,
    /// Program and arguments.
    pub arguments: Vec<String>,
    /// Limits, which the group of each instance gets.
    pub limits: Limits,
    /// Its system-call filter, if any.
    pub seccomp: Option<LinuxSeccomp>,
    /// A user namespace with the caller as its root. Without privileges
    /// there is no container without one.
    pub user_namespace: bool,
    /// A network namespace of its own; else the host's network.
    pub network: bool,
}

/// The spec of the suite's own minimal container: a read-only root, `/proc`
/// with the usual parts hidden, a minimal `/dev`, an empty `/tmp`, namespaces
/// for pids, mounts, names, inter-process communication and control groups, no
/// capability, no way to gain one, and the network and filter of the options.
#[must_use]
pub fn default_cell_spec(options: &CellOptions<'_>) -> Spec {
    let mut spec = Spec::default();
    spec.set_root(Some(parts::root(options.rootfs, true)));
    spec.set_hostname(Some("unladen".to_owned()));
    spec.set_mounts(Some(mounts()));
    spec.set_process(Some(process(options.arguments.clone())));
    let user = options.user_namespace.then_some((0, 0));
    let mut linux = parts::linux(&options.limits, options.network, user);
    linux.set_seccomp(options.seccomp.clone());
    spec.set_linux(Some(linux));
    spec
}

fn process(arguments: Vec<String>) -> Process {
    let none = || Some(Capabilities::new());
    let mut capabilities = LinuxCapabilities::default();
    capabilities.set_bounding(none());
    capabilities.set_effective(none());
    capabilities.set_inheritable(none());
    capabilities.set_permitted(none());
    capabilities.set_ambient(none());
    let mut process = Process::default();
    process.set_args(Some(arguments));
    process.set_env(Some(Vec::new()));
    process.set_cwd(PathBuf::from("/"));
    process.set_user(User::default());
    process.set_capabilities(Some(capabilities));
    process.set_rlimits(None);
    process.set_no_new_privileges(Some(true));
    process
}

fn mounts() -> Vec<Mount> {
    vec![
        // Read-only, so that all instances can share it.
        parts::mount("/dev", "tmpfs", &["nosuid", "noexec", "mode=755", "size=64k", "ro"]),
        parts::mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        parts::mount("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
    ]
}
