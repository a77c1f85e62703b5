//! What the specs of this crate have in common.

use std::path::{Path, PathBuf};

use nix::unistd::{getegid, geteuid};
use oci_spec::runtime::{
    Linux, LinuxCpu, LinuxDeviceCgroup, LinuxIdMapping, LinuxIdMappingBuilder, LinuxMemory,
    LinuxNamespace, LinuxNamespaceType, LinuxPids, LinuxResources, Mount, Root,
};

use crate::container::cgroup::{CpuQuota, Limits, weight_to_shares};

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

/// The namespaces of every container; user and network ones come on top.
const NAMESPACES: [LinuxNamespaceType; 5] = [
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Uts,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Cgroup,
];

/// The root filesystem.
pub(super) fn root(path: &Path, readonly: bool) -> Root {
    let mut root = Root::default();
    root.set_path(path.to_owned());
    root.set_readonly(Some(readonly));
    root
}

/// One mount of a filesystem that has no source.
pub(super) fn mount(destination: &str, kind: &str, options: &[&str]) -> Mount {
    bind(destination, kind, Path::new(kind), options.iter().copied())
}

/// One mount.
pub(super) fn bind<'a>(
    destination: impl Into<PathBuf>,
    kind: &str,
    source: &Path,
    options: impl IntoIterator<Item = &'a str>,
) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(destination.into());
    mount.set_typ(Some(kind.to_owned()));
    mount.set_source(Some(source.to_owned()));
    mount.set_options(Some(options.into_iter().map(str::to_owned).collect()));
    mount
}

/// What every container has: namespaces, with the caller as `user` of one of
/// its own if wanted; limits; hidden and protected paths.
pub(super) fn linux(limits: &Limits, network: bool, user: Option<(u32, u32)>) -> Linux {
    let mut kinds = NAMESPACES.to_vec();
    if network {
        kinds.push(LinuxNamespaceType::Network);
    }
    let mut linux = Linux::default();
    linux.set_uid_mappings(None);
    linux.set_gid_mappings(None);
    if let Some((uid, gid)) = user {
        kinds.push(LinuxNamespaceType::User);
        linux.set_uid_mappings(id_map(uid, geteuid().as_raw()));
        linux.set_gid_mappings(id_map(gid, getegid().as_raw()));
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
    linux.set_seccomp(None);
    linux.set_resources(Some(resources(limits)));
    linux
}

/// One id of the host under the number that it has inside.
/// A rule against every device.
pub(super) fn no_devices() -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(false).set_typ(None).set_access(Some("rwm".to_owned()));
    rule
}

fn id_map(inside: u32, host: u32) -> Option<Vec<LinuxIdMapping>> {
    let map = LinuxIdMappingBuilder::default().host_id(host).container_id(inside);
    // Every field is there, so it is always built.
    map.size(1_u32).build().ok().map(|map| vec![map])
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
    cpu.set_shares(limits.cpu_weight.map(weight_to_shares).or(limits.cpu_shares));
    resources.set_cpu(Some(cpu));
    resources
}
