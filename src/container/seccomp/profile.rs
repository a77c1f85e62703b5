//! Profiles: specs of filters with conditions on capabilities, architecture
//! and kernel, in the format that Docker and Podman share
//! (<https://docs.docker.com/engine/security/seccomp/>). A plain `linux.seccomp`
//! object of the OCI runtime specification is one too.
//!
//! `default.json` is the default profile of the containers/common project,
//! version 0.50.1 (Apache-2.0,
//! <https://github.com/containers/common/blob/v0.50.1/pkg/seccomp/seccomp.json>),
//! as Debian 12 ships it in `golang-github-containers-common`, unchanged. Of it
//! [`default_profile`] leaves out `keyctl`, as Docker does: no namespace divides
//! keys, so that root in a container would have those of the host's root.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg,
    LinuxSeccompFilterFlag, LinuxSyscall,
};
use serde::Deserialize;

use super::Machine;

/// The default profile.
const DEFAULT: &str = include_str!("default.json");

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file cannot be read.
    #[error("cannot read the seccomp profile {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no profile.
    #[error("cannot understand the seccomp profile {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Its architectures are given in both ways.
    #[error("a seccomp profile has either `archMap` or `architectures`, not both")]
    Architectures,
    /// An error is given by its name only.
    #[error("`{field}` of the seccomp profile needs the number beside the name `{name}`")]
    ErrnoName {
        /// The missing field.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// A kernel version or the name of an architecture.
    #[error("`{field}` of the seccomp profile cannot be `{value}`")]
    Value {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
    },
}

/// The file's content.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    default_errno: Option<String>,
    arch_map: Option<Vec<WireArch>>,
    architectures: Option<Vec<Arch>>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<PathBuf>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<WireSyscall>>,
}

/// An architecture and those that run under it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireArch {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireSyscall {
    #[serde(default)]
    names: Vec<String>,
    /// An older spelling, for one name.
    name: Option<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    errno: Option<String>,
    args: Option<Vec<LinuxSeccompArg>>,
    /// For people.
    #[serde(rename = "comment")]
    _comment: Option<String>,
    includes: Option<WireCondition>,
    excludes: Option<WireCondition>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireCondition {
    #[serde(default)]
    caps: Vec<Capability>,
    #[serde(default)]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// What the conditions of a profile are about.
struct Situation<'a> {
    capabilities: &'a Capabilities,
    machine: Machine,
    kernel: (u32, u32),
}

/// The default profile for a container whose bounding set is `capabilities`,
/// on `machine` and on the kernel that runs.
///
/// # Errors
///
/// When the kernel's version cannot be understood.
pub fn default_profile(
    capabilities: &Capabilities,
    machine: Machine,
) -> Result<LinuxSeccomp, ProfileError> {
    let mut profile = parse(DEFAULT, Path::new("default.json"), capabilities, machine)?;
    let mut entries = profile.syscalls().clone();
    for entry in entries.iter_mut().flatten() {
        // Keys of a user are in reach of all of the user's processes
        // (`KEY_SPEC_USER_KEYRING` in keyctl(2)). Requesting and adding keys
        // is not in the profile anyway.
        let names = entry.names().iter().filter(|name| *name != "keyctl").cloned().collect();
        entry.set_names(names);
    }
    profile.set_syscalls(entries);
    Ok(profile)
}

/// Reads a profile, or a plain OCI seccomp object, from a file, for a
/// container whose bounding set is `capabilities`, on this machine.
///
/// # Errors
///
/// When it cannot be read or understood.
pub fn read_profile(
    path: &Path,
    capabilities: &Capabilities,
) -> Result<LinuxSeccomp, ProfileError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ProfileError::Read { path: path.to_owned(), source })?;
    parse(&text, path, capabilities, Machine::native())
}

fn parse(
    text: &str,
    path: &Path,
    capabilities: &Capabilities,
    machine: Machine,
) -> Result<LinuxSeccomp, ProfileError> {
    let wire: Wire = serde_json::from_str(text)
        .map_err(|source| ProfileError::Parse { path: path.to_owned(), source })?;
    let release = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let kernel = version("uname", &release)?;
    resolve(wire, &Situation { capabilities, machine, kernel })
}

/// The plain spec of a profile.
fn resolve(wire: Wire, situation: &Situation<'_>) -> Result<LinuxSeccomp, ProfileError> {
    let mut seccomp = LinuxSeccomp::default();
    seccomp.set_default_action(wire.default_action);
    seccomp.set_default_errno_ret(number(
        "defaultErrnoRet",
        wire.default_errno_ret,
        wire.default_errno,
    )?);
    if wire.arch_map.is_some() && wire.architectures.is_some() {
        return Err(ProfileError::Architectures);
    }
    let architectures = match wire.arch_map {
        Some(map) => Some(architectures(map, situation.machine)?),
        None => wire.architectures,
    };
    seccomp.set_architectures(architectures);
    seccomp.set_flags(wire.flags);
    seccomp.set_listener_path(wire.listener_path);
    seccomp.set_listener_metadata(wire.listener_metadata);
    let mut syscalls = Vec::new();
    for entry in wire.syscalls.unwrap_or_default() {
        if applies(&entry, situation)? {
            syscalls.push(syscall(entry)?);
        }
    }
    seccomp.set_syscalls(Some(syscalls));
    Ok(seccomp)
}

/// A number that may have its name beside it.
fn number(
    field: &'static str,
    number: Option<u32>,
    name: Option<String>,
) -> Result<Option<u32>, ProfileError> {
    match (number, name) {
        (None, Some(name)) if !name.is_empty() => Err(ProfileError::ErrnoName { field, name }),
        (number, _) => Ok(number),
    }
}

/// The architectures that run on a machine.
fn architectures(map: Vec<WireArch>, machine: Machine) -> Result<Vec<Arch>, ProfileError> {
    let native = machine.to_spec().to_string();
    map.into_iter()
        .filter(|entry| entry.architecture == native)
        .flat_map(|entry| {
            std::iter::once(entry.architecture).chain(entry.sub_architectures.into_iter().flatten())
        })
        .map(|name| {
            Arch::from_str(&name)
                .map_err(|_| ProfileError::Value { field: "archMap", value: name.clone() })
        })
        .collect()
}

fn syscall(entry: WireSyscall) -> Result<LinuxSyscall, ProfileError> {
    let mut names = entry.names;
    names.extend(entry.name);
    let mut syscall = LinuxSyscall::default();
    syscall.set_names(names);
    syscall.set_action(entry.action);
    syscall.set_errno_ret(number("errnoRet", entry.errno_ret, entry.errno)?);
    syscall.set_args(entry.args.filter(|args| !args.is_empty()));
    Ok(syscall)
}

/// Whether an entry holds: all that it includes, nothing that it excludes.
fn applies(entry: &WireSyscall, situation: &Situation<'_>) -> Result<bool, ProfileError> {
    let machine = go_name(situation.machine);
    if let Some(only) = &entry.includes {
        let old = match &only.min_kernel {
            Some(text) => situation.kernel < version("minKernel", text)?,
            None => false,
        };
        let elsewhere = !only.arches.is_empty() && !only.arches.iter().any(|name| name == machine);
        if old || elsewhere || !only.caps.iter().all(|cap| situation.capabilities.contains(cap)) {
            return Ok(false);
        }
    }
    if let Some(not) = &entry.excludes {
        let new = match &not.min_kernel {
            Some(text) => situation.kernel >= version("minKernel", text)?,
            None => false,
        };
        let here = not.arches.iter().any(|name| name == machine);
        if new || here || not.caps.iter().any(|cap| situation.capabilities.contains(cap)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The names that profiles use are those of the Go language.
fn go_name(machine: Machine) -> &'static str {
    match machine {
        Machine::X86_64 | Machine::X32 => "amd64",
        Machine::X86 => "386",
        Machine::Aarch64 => "arm64",
        Machine::Arm => "arm",
    }
}

/// The first two numbers of a kernel version such as `6.1.0-13-amd64`.
fn version(field: &'static str, text: &str) -> Result<(u32, u32), ProfileError> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(ProfileError::Value { field, value: text.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resolved(
        profile: &serde_json::Value,
        capabilities: &[Capability],
        machine: Machine,
        kernel: (u32, u32),
    ) -> Result<Vec<String>, ProfileError> {
        let wire = serde_json::from_value(profile.clone()).expect("a profile");
        let capabilities = capabilities.iter().copied().collect();
        let situation = Situation { capabilities: &capabilities, machine, kernel };
        let seccomp = resolve(wire, &situation)?;
        let list = seccomp.syscalls().clone().expect("a list");
        Ok(list.iter().flat_map(|entry| entry.names().clone()).collect())
    }

    #[test]
    fn conditions_are_resolved() {
        let entry = |name: &str, includes: serde_json::Value, excludes: serde_json::Value| {
            json!({"names": [name], "action": "SCMP_ACT_ALLOW",
                   "includes": includes, "excludes": excludes})
        };
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            entry("always", json!({}), json!(null)),
            entry("both", json!({"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}), json!({})),
            entry("neither", json!({}), json!({"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]})),
            entry("arm", json!({"arches": ["arm", "arm64"]}), json!({})),
            entry("not_arm", json!({}), json!({"arches": ["arm", "arm64"]})),
            entry("new", json!({"minKernel": "4.8"}), json!({})),
            entry("old", json!({}), json!({"minKernel": "4.8"})),
        ]});
        use Capability::{Bpf, SysAdmin};
        for (capabilities, machine, kernel, expected) in [
            (vec![], Machine::X86_64, (4, 8), vec!["always", "neither", "not_arm", "new"]),
            (vec![Bpf], Machine::X86_64, (4, 10), vec!["always", "not_arm", "new"]),
            (vec![SysAdmin, Bpf], Machine::Aarch64, (3, 19), vec!["always", "both", "arm", "old"]),
        ] {
            let names = resolved(&profile, &capabilities, machine, kernel).expect("resolved");
            assert_eq!(names, expected);
        }
    }

    #[test]
    fn a_plain_object_is_a_profile_and_a_misspelt_one_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("profile.json");
        let plain = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}]});
        std::fs::write(&file, plain.to_string()).expect("written");
        let seccomp = read_profile(&file, &Capabilities::new()).expect("read");
        assert_eq!(serde_json::to_value(&seccomp).expect("JSON"), plain);
        std::fs::write(&file, r#"{"defaultAction": "SCMP_ACT_ALLOW", "sycalls": []}"#)
            .expect("written");
        let error = read_profile(&file, &Capabilities::new()).expect_err("refused");
        let text = crate::errors::chain(&error);
        assert!(text.contains("profile.json") && text.contains("sycalls"), "{text}");
        let missing = read_profile(&folder.path().join("none"), &Capabilities::new());
        assert!(missing.expect_err("refused").to_string().ends_with("/none"));
    }

    #[test]
    fn what_cannot_be_resolved_is_named() {
        let refused = |profile: serde_json::Value| {
            let none = &[];
            resolved(&profile, none, Machine::X86_64, (6, 1)).expect_err("refused").to_string()
        };
        let both = json!({"defaultAction": "SCMP_ACT_ALLOW", "archMap": [], "architectures": []});
        assert!(refused(both).contains("not both"));
        let named = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "EPERM"});
        assert!(refused(named).contains("`EPERM`"));
        let kernel = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": [], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}}]});
        assert!(refused(kernel).contains("`minKernel`"));
    }

    #[test]
    fn the_default_profile_covers_the_architectures_of_both_machines() {
        let names = |machine| {
            let profile = default_profile(&Capabilities::new(), machine).expect("resolved");
            profile.architectures().clone().expect("a list")
        };
        use Arch::{ScmpArchAarch64, ScmpArchArm, ScmpArchX32, ScmpArchX86, ScmpArchX86_64};
        assert_eq!(names(Machine::X86_64), [ScmpArchX86_64, ScmpArchX86, ScmpArchX32]);
        assert_eq!(names(Machine::Aarch64), [ScmpArchAarch64, ScmpArchArm]);
    }
}
