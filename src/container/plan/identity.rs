//! What a container's process may do and who it is.

use std::ffi::CString;

use nix::sys::resource::Resource;
use nix::sys::signal::Signal;
use oci_spec::runtime::{Capabilities, Capability, Linux, PosixRlimitType, Process};

use super::namespaces::IdMaps;
use super::{PlanError, c_path, c_string, scheduling};
use crate::sys::spawn::{CapabilitySets, Filter, Step};

/// Where a program without a slash is looked for when the environment does
/// not say (execvp(3) uses these for privileged and other users alike).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Capabilities in the order of their numbers (include/uapi/linux/capability.h).
pub(in crate::container) const BY_NUMBER: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// The steps from the arrangement of descriptors to the end.
pub(super) fn steps(
    process: &Process,
    linux: &Linux,
    maps: Option<&IdMaps>,
    filter: Option<Filter>,
) -> Result<Vec<Step>, PlanError> {
    // With no_new_privs anybody may load a filter, so it comes last and judges
    // nothing but the program. Without, it takes CAP_SYS_ADMIN.
    let locked = process.no_new_privileges() == Some(true);
    let (early, last) = if locked { (None, filter) } else { (filter, None) };
    // Before the limit on open files could be in the way.
    let mut steps = vec![Step::MapDescriptors];
    // Raising a hard limit needs a capability that is about to go.
    steps.extend(limits(process));
    steps.extend(scheduling::steps(process, linux)?);
    if locked {
        steps.push(Step::NoNewPrivileges);
    }
    steps.extend(credentials(process, maps, early)?);
    if let Some(mask) = process.user().umask() {
        steps.push(Step::Umask(mask));
    }
    // The kernel forgets the signal at every change of credentials.
    steps.push(Step::ParentDeathSignal(Signal::SIGKILL));
    steps.push(Step::CheckParent);
    // With the final user: a directory that it may not enter is an error.
    steps.push(Step::WorkingDirectory(c_path("process.cwd", process.cwd())?));
    steps.extend(last.map(Step::Seccomp));
    Ok(steps)
}

/// User, groups and capabilities.
fn credentials(
    process: &Process,
    maps: Option<&IdMaps>,
    filter: Option<Filter>,
) -> Result<Vec<Step>, PlanError> {
    let user = process.user();
    let (uid, gid) = (user.uid(), user.gid());
    let groups = user.additional_gids().clone().unwrap_or_default();
    if [uid, gid].iter().chain(&groups).any(|id| *id == u32::MAX) {
        return Err(PlanError::Value {
            field: "process.user".to_owned(),
            value: u32::MAX.to_string(),
            reason: "to the kernel it means to keep the user that is",
        });
    }
    let capabilities = process.capabilities().as_ref();
    let set = |get: fn(&oci_spec::runtime::LinuxCapabilities) -> &Option<Capabilities>| {
        capabilities.and_then(|all| get(all).as_ref()).map_or(0, bits)
    };
    let permitted = set(|all| all.permitted());
    // Needs CAP_SETPCAP: before the other sets shrink.
    let keep = set(|all| all.bounding());
    let mut steps = vec![Step::LimitBoundingSet { keep, last: last_capability() }];
    if let Some(maps) = maps {
        let missing = groups.iter().find(|group| !maps.have(uid, **group));
        if let Some(group) = missing.or((!maps.have(uid, gid)).then_some(&gid)) {
            return Err(PlanError::Value {
                field: "process.user".to_owned(),
                value: format!("{uid}:{group}"),
                reason: "the mappings of the user namespace do not have this user and group",
            });
        }
    }
    if let Some(IdMaps::Own { .. }) = maps {
        // Who may not call setgroups cannot have groups.
        if !groups.is_empty() {
            return Err(PlanError::Value {
                field: "process.user.additionalGids".to_owned(),
                value: format!("{groups:?}"),
                reason: "a user namespace with one group has no others",
            });
        }
    } else {
        if uid != 0 && permitted != 0 {
            steps.push(Step::KeepCapabilities);
        }
        // A user namespace that exists may forbid it; see `Plan::arrival_steps`.
        if maps != Some(&IdMaps::Joined) || !groups.is_empty() {
            steps.push(Step::SetGroups(groups));
        }
    }
    // The change of user and the sets after it may take away CAP_SYS_ADMIN.
    // What they need must be allowed by the filter, as under runc.
    steps.extend(filter.map(Step::Seccomp));
    steps.push(Step::SetUser { uid, gid });
    // After the change of user, which needs capabilities itself.
    steps.push(Step::SetCapabilities(CapabilitySets {
        effective: set(|all| all.effective()),
        permitted,
        inheritable: set(|all| all.inheritable()),
    }));
    // The kernel grants only what is permitted and inheritable; what cannot be
    // granted is no error (config.md of the OCI runtime specification,
    // "Linux Process"), and `crun spec` itself writes such sets.
    let ambient = set(|all| all.ambient()) & permitted & set(|all| all.inheritable());
    if ambient != 0 {
        // Must be permitted and inheritable by now.
        steps.push(Step::SetAmbient(ambient));
    }
    Ok(steps)
}

/// A set of capabilities as bits.
fn bits(set: &Capabilities) -> u64 {
    BY_NUMBER
        .iter()
        .enumerate()
        .filter(|(_, capability)| set.contains(capability))
        .fold(0, |bits, (number, _)| bits | 1 << number)
}

/// The highest capability number of this kernel; the highest known one when
/// it does not say.
fn last_capability() -> u32 {
    std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(40)
}

fn limits(process: &Process) -> Vec<Step> {
    process
        .rlimits()
        .as_deref()
        .unwrap_or_default()
        .iter()
        .map(|limit| Step::ResourceLimit {
            resource: resource(limit.typ()),
            soft: limit.soft(),
            hard: limit.hard(),
        })
        .collect()
}

/// The kernel's name of a limit.
fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => Resource::RLIMIT_RTTIME,
    }
}

/// The paths at which the program may be, inside the container.
pub(super) fn program(process: &Process) -> Result<Vec<CString>, PlanError> {
    let name = process.args().as_ref().and_then(|args| args.first()).ok_or(PlanError::Missing {
        field: "process.args",
        reason: "there is nothing to execute",
    })?;
    if name.contains('/') {
        return Ok(vec![c_string("process.args[0]", name)?]);
    }
    let path = process
        .env()
        .as_deref()
        .unwrap_or_default()
        .iter()
        .find_map(|variable| variable.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    path.split(':')
        .map(|folder| {
            let folder = if folder.is_empty() { "." } else { folder };
            c_string("process.args[0]", &format!("{folder}/{name}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_numbers_are_the_kernels() {
        // Numbers as capability.h has them.
        for (capability, number) in [
            (Capability::Chown, 0),
            (Capability::NetBindService, 10),
            (Capability::SysAdmin, 21),
            (Capability::AuditWrite, 29),
            (Capability::CheckpointRestore, 40),
        ] {
            assert_eq!(bits(&Capabilities::from([capability])), 1 << number, "{capability}");
        }
    }
}
