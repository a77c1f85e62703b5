//! The spec of the suite's own containers.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Capabilities, Linux, LinuxCapabilities, LinuxCpu, LinuxIdMappingBuilder, LinuxMemory,
    LinuxNamespace, LinuxNamespaceType, LinuxPids, LinuxResources, LinuxSeccomp, Mount, Process,
    Root, Spec, User,
};

use super::cgroup::{CpuQuota, Limits};

/// What is hidden, and what is read-only, in `/proc` and `/sys`: after Docker's
/// defaults
/// (<https://github.com/moby/moby/blob/master/daemon/pkg/oci/defaults.go>).
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What differs between the suite's containers.
#[derive(Clone, Debug)]
pub struct CellOptions<'a> {
    /// The root filesystem, see [`super::minimal_rootfs`].
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
}

/// The spec of the suite's own minimal container: a read-only root, `/proc`
/// with the usual parts hidden, a minimal `/dev`, an empty `/tmp`, namespaces
/// for pids, mounts, names, inter-process communication, network and control
/// groups, no capability, no way to gain one, and the filter of the options.
#[must_use]
pub fn default_cell_spec(options: &CellOptions<'_>) -> Spec {
    let mut root = Root::default();
    root.set_path(options.rootfs.to_owned());
    root.set_readonly(Some(true));
    let mut spec = Spec::default();
    spec.set_root(Some(root));
    spec.set_hostname(Some("unladen".to_owned()));
    spec.set_mounts(Some(mounts()));
    spec.set_process(Some(process(options.arguments.clone())));
    spec.set_linux(Some(linux(options)));
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
    let mount = |destination: &str, kind: &str, options: &[&str]| {
        let mut mount = Mount::default();
        mount.set_destination(PathBuf::from(destination));
        mount.set_typ(Some(kind.to_owned()));
        mount.set_source(Some(PathBuf::from(kind)));
        mount.set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
        mount
    };
    vec![
        // Read-only, so that all instances can share it.
        mount("/dev", "tmpfs", &["nosuid", "noexec", "mode=755", "size=64k", "ro"]),
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
    ]
}

fn linux(options: &CellOptions<'_>) -> Linux {
    let mut kinds = vec![
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Network,
        LinuxNamespaceType::Cgroup,
    ];
    let mut linux = Linux::default();
    linux.set_uid_mappings(None);
    linux.set_gid_mappings(None);
    if options.user_namespace {
        kinds.push(LinuxNamespaceType::User);
        let map = |host: u32| {
            let map = LinuxIdMappingBuilder::default().host_id(host).container_id(0_u32);
            // Every field is there, so it is always built.
            map.size(1_u32).build().ok().map(|map| vec![map])
        };
        linux.set_uid_mappings(map(nix::unistd::geteuid().as_raw()));
        linux.set_gid_mappings(map(nix::unistd::getegid().as_raw()));
    }
    let namespace = |kind| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind);
        namespace
    };
    let texts = |list: &[&str]| Some(list.iter().map(|text| (*text).to_owned()).collect());
    linux.set_namespaces(Some(kinds.into_iter().map(namespace).collect()));
    linux.set_masked_paths(texts(&MASKED));
    linux.set_readonly_paths(texts(&READ_ONLY));
    linux.set_devices(None);
    linux.set_seccomp(options.seccomp.clone());
    linux.set_resources(Some(resources(&options.limits)));
    linux
}

/// Limits as a spec has them.
fn resources(limits: &Limits) -> LinuxResources {
    // A limit beyond what the format can say is none.
    let number = |value: u64| i64::try_from(value).unwrap_or(-1);
    let mut resources = LinuxResources::default();
    resources.set_devices(None);
    let mut memory = LinuxMemory::default();
    memory.set_limit(limits.memory.map(number));
    let both = limits.memory.zip(limits.swap).map(|(memory, swap)| memory.saturating_add(swap));
    memory.set_swap(both.map(number));
    resources.set_memory(Some(memory));
    if let Some(pids) = limits.pids {
        let mut limit = LinuxPids::default();
        limit.set_limit(number(pids));
        resources.set_pids(Some(limit));
    }
    let mut cpu = LinuxCpu::default();
    if let Some(CpuQuota { quota_us, period_us }) = limits.cpu_quota {
        cpu.set_quota(Some(number(quota_us)));
        cpu.set_period(Some(period_us));
    }
    cpu.set_shares(limits.cpu_weight.map(super::cgroup::weight_to_shares));
    resources.set_cpu(Some(cpu));
    resources
}
