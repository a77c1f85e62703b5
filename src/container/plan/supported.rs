//! Which fields of a spec this runtime carries out.
//!
//! The spec is looked through as JSON, so that a field that a newer version of
//! the format has is refused by name too, instead of being ignored.

use serde_json::Value;

use super::PlanError;

/// Fields that are carried out; `[]` stands for any index and a `*` at the end
/// for everything below.
const SUPPORTED: &[&str] = &[
    "ociVersion",
    // Metadata by definition.
    "annotations.*",
    "hostname",
    "domainname",
    "root.path",
    "root.readonly",
    "mounts[].destination",
    "mounts[].type",
    "mounts[].source",
    "mounts[].options[]",
    // Of the paths and arguments of programs; who carries them out is
    // `lifecycle`, others refuse them.
    "hooks.*",
    "process.terminal",
    "process.consoleSize.height",
    "process.consoleSize.width",
    "process.args[]",
    "process.env[]",
    "process.cwd",
    "process.user.uid",
    "process.user.gid",
    "process.user.umask",
    "process.user.additionalGids[]",
    "process.capabilities.bounding[]",
    "process.capabilities.effective[]",
    "process.capabilities.inheritable[]",
    "process.capabilities.permitted[]",
    "process.capabilities.ambient[]",
    "process.rlimits[].type",
    "process.rlimits[].hard",
    "process.rlimits[].soft",
    "process.noNewPrivileges",
    "process.apparmorProfile",
    "process.selinuxLabel",
    "process.ioPriority.class",
    "process.ioPriority.priority",
    "process.scheduler.policy",
    "process.scheduler.nice",
    "process.scheduler.priority",
    "process.scheduler.flags[]",
    "process.scheduler.runtime",
    "process.scheduler.deadline",
    "process.scheduler.period",
    // For programs that join a container later; by definition without effect
    // on its first one.
    "process.execCPUAffinity.initial",
    "process.execCPUAffinity.final",
    "process.oomScoreAdj",
    "linux.devices[].path",
    "linux.devices[].type",
    "linux.devices[].major",
    "linux.devices[].minor",
    "linux.devices[].fileMode",
    "linux.devices[].uid",
    "linux.devices[].gid",
    "linux.namespaces[].type",
    "linux.namespaces[].path",
    "linux.personality.domain",
    "linux.personality.flags[]",
    "linux.sysctl.*",
    "linux.timeOffsets.monotonic.secs",
    "linux.timeOffsets.monotonic.nanosecs",
    "linux.timeOffsets.boottime.secs",
    "linux.timeOffsets.boottime.nanosecs",
    "linux.uidMappings[].containerID",
    "linux.uidMappings[].hostID",
    "linux.uidMappings[].size",
    "linux.gidMappings[].containerID",
    "linux.gidMappings[].hostID",
    "linux.gidMappings[].size",
    "linux.cgroupsPath",
    "linux.rootfsPropagation",
    "linux.maskedPaths[]",
    "linux.readonlyPaths[]",
    "linux.seccomp.defaultAction",
    "linux.seccomp.defaultErrnoRet",
    "linux.seccomp.architectures[]",
    "linux.seccomp.flags[]",
    "linux.seccomp.syscalls[].names[]",
    "linux.seccomp.syscalls[].action",
    "linux.seccomp.syscalls[].errnoRet",
    "linux.seccomp.syscalls[].args[].*",
    // Not: the kernel memory of version 1, which newer kernels ignore.
    "linux.resources.memory.limit",
    "linux.resources.memory.reservation",
    "linux.resources.memory.swap",
    "linux.resources.memory.swappiness",
    "linux.resources.memory.disableOOMKiller",
    "linux.resources.memory.checkBeforeUpdate",
    "linux.resources.pids.limit",
    "linux.resources.cpu.shares",
    "linux.resources.cpu.quota",
    "linux.resources.cpu.burst",
    "linux.resources.cpu.period",
    "linux.resources.cpu.realtimeRuntime",
    "linux.resources.cpu.realtimePeriod",
    "linux.resources.cpu.cpus",
    "linux.resources.cpu.mems",
    "linux.resources.cpu.idle",
    "linux.resources.blockIO.weight",
    "linux.resources.blockIO.weightDevice[].major",
    "linux.resources.blockIO.weightDevice[].minor",
    "linux.resources.blockIO.weightDevice[].weight",
    "linux.resources.blockIO.throttleReadBpsDevice[].major",
    "linux.resources.blockIO.throttleReadBpsDevice[].minor",
    "linux.resources.blockIO.throttleReadBpsDevice[].rate",
    "linux.resources.blockIO.throttleWriteBpsDevice[].major",
    "linux.resources.blockIO.throttleWriteBpsDevice[].minor",
    "linux.resources.blockIO.throttleWriteBpsDevice[].rate",
    "linux.resources.blockIO.throttleReadIOPSDevice[].major",
    "linux.resources.blockIO.throttleReadIOPSDevice[].minor",
    "linux.resources.blockIO.throttleReadIOPSDevice[].rate",
    "linux.resources.blockIO.throttleWriteIOPSDevice[].major",
    "linux.resources.blockIO.throttleWriteIOPSDevice[].minor",
    "linux.resources.blockIO.throttleWriteIOPSDevice[].rate",
    "linux.resources.hugepageLimits[].pageSize",
    "linux.resources.hugepageLimits[].limit",
    "linux.resources.devices[].allow",
    "linux.resources.devices[].type",
    "linux.resources.devices[].major",
    "linux.resources.devices[].minor",
    "linux.resources.devices[].access",
    "linux.resources.unified.*",
];

/// Fields of the OCI runtime specification 1.3
/// (<https://github.com/opencontainers/runtime-spec/tree/v1.3.0/schema>) that
/// this runtime does not carry out. Without a value, or with one that says what
/// is the case anyway (`false`, an empty text or list), they are no harm.
const NOT_CARRIED_OUT: &[&str] = &[
    "solaris.*",
    "windows.*",
    "vm.*",
    "zos.*",
    "process.commandLine",
    "process.user.username",
    "mounts[].uidMappings.*",
    "mounts[].gidMappings.*",
    "linux.intelRdt.*",
    "linux.memoryPolicy.*",
    "linux.mountLabel",
    "linux.netDevices.*",
    "linux.resources.*",
    "linux.seccomp.*",
];

/// Refuses the first field that is not supported.
pub(in crate::container) fn check(spec: &Value) -> Result<(), PlanError> {
    version(spec.get("ociVersion"))?;
    let propagation = spec.pointer("/linux/rootfsPropagation").and_then(Value::as_str);
    match propagation {
        None | Some("" | "private" | "rprivate" | "slave" | "rslave") => {}
        Some(value) => {
            return Err(PlanError::Value {
                field: "linux.rootfsPropagation".to_owned(),
                value: value.to_owned(),
                reason: "this runtime lets no mount of a container reach the host: private, \
                         rprivate, slave or rslave",
            });
        }
    }
    look(spec, "", "")
}

/// Versions are those of Semantic Versioning 2.0, in which all with the same
/// first number say the same with the same fields; new fields are refused by
/// their names.
fn version(value: Option<&Value>) -> Result<(), PlanError> {
    let text = value.and_then(Value::as_str).ok_or(PlanError::Missing {
        field: "ociVersion",
        reason: "it says what the other fields mean",
    })?;
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<Option<u32>> = core.split('.').map(|part| part.parse().ok()).collect();
    match numbers.as_slice() {
        [Some(1), Some(_), Some(_)] => Ok(()),
        _ => Err(PlanError::Value {
            field: "ociVersion".to_owned(),
            value: text.to_owned(),
            reason: "this runtime knows version 1.x.y",
        }),
    }
}

/// Walks down; `shape` is `path` with `[]` for every index.
fn look(value: &Value, path: &str, shape: &str) -> Result<(), PlanError> {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                let join = |above: &str| {
                    if above.is_empty() { name.clone() } else { format!("{above}.{name}") }
                };
                look(field, &join(path), &join(shape))?;
            }
            Ok(())
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                look(item, &format!("{path}[{index}]"), &format!("{shape}[]"))?;
            }
            Ok(())
        }
        _ if SUPPORTED.iter().any(|known| covers(known, shape)) => Ok(()),
        _ if !is_known(shape) => Err(PlanError::Unknown { field: path.to_owned() }),
        Value::Null | Value::Bool(false) | Value::Object(_) | Value::Array(_) => Ok(()),
        Value::String(text) if text.is_empty() => Ok(()),
        _ => Err(PlanError::Unsupported { field: path.to_owned() }),
    }
}

/// Whether a pattern is for this field.
fn covers(known: &str, shape: &str) -> bool {
    match known.strip_suffix(".*") {
        Some(above) => shape
            .strip_prefix(above)
            .is_some_and(|rest| rest.starts_with('.') || rest.starts_with('[')),
        None => known == shape,
    }
}

/// Whether the specification has this field, or fields below it.
fn is_known(shape: &str) -> bool {
    SUPPORTED.iter().chain(NOT_CARRIED_OUT).any(|known| {
        let below = || known.strip_prefix(shape).is_some_and(|rest| rest.starts_with(['.', '[']));
        // An empty `mounts: []` or `linux: {}`.
        covers(known, shape) || shape.is_empty() || below()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(key: &str, value: Value) -> Value {
        let mut spec = json!({"ociVersion": "1.0.2"});
        spec[key] = value;
        spec
    }

    fn refused(value: &Value) -> String {
        check(value).expect_err("refused").to_string()
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (key, value, field) in [
            ("linux", json!({"intelRdt": {"closID": "x"}}), "linux.intelRdt.closID"),
            ("windows", json!({"layerFolders": ["x"]}), "windows.layerFolders[0]"),
            ("vm", json!({"kernel": {"path": "/x"}}), "vm.kernel.path"),
            ("solaris", json!({"milestone": "x"}), "solaris.milestone"),
            ("linux", json!({"seccomp": {"listenerPath": "/x"}}), "linux.seccomp.listenerPath"),
        ] {
            let error = refused(&with(key, value));
            assert_eq!(error, format!("`{field}` is not supported by this runtime"));
        }
    }

    #[test]
    fn what_says_nothing_is_no_harm() {
        for (key, value) in [
            ("process", json!({"terminal": false, "args": ["x"], "apparmorProfile": ""})),
            ("hooks", json!({"prestart": []})),
            ("vm", json!({})),
            ("mounts", json!([])),
            ("linux", Value::Null),
            ("linux", json!({"intelRdt": null, "resources": {}})),
            ("annotations", json!({"brandNew": "x"})),
        ] {
            assert_eq!(check(&with(key, value)).map_err(|error| error.to_string()), Ok(()));
        }
    }

    #[test]
    fn fields_nobody_knows_are_refused_whatever_they_say() {
        for (key, value, field) in [
            ("brandNew", json!(false), "brandNew"),
            ("brandNew", json!({}), "brandNew"),
            ("process", json!({"argz": null}), "process.argz"),
            ("mounts", json!([{"destination": "/x", "idmap": []}]), "mounts[0].idmap"),
            ("annotation", json!({"a": "b"}), "annotation.a"),
            (
                "process",
                json!({"capabilities": {"ambients": ["x"]}}),
                "process.capabilities.ambients[0]",
            ),
        ] {
            let error = refused(&with(key, value));
            assert!(error.starts_with(&format!("`{field}` is not a field of")), "{error}");
        }
    }

    #[test]
    fn versions_and_propagation_are_checked() {
        for version in ["1.0.0", "1.0.2-dev", "1.2.1", "1.3.0+build"] {
            assert!(check(&json!({"ociVersion": version})).is_ok(), "{version}");
        }
        for version in ["2.0.0", "1", "1.0", "0.9.0", "1.x.0", ""] {
            let error = refused(&json!({"ociVersion": version}));
            assert!(error.starts_with("`ociVersion` cannot be"), "{version}: {error}");
        }
        assert!(refused(&json!({})).starts_with("`ociVersion` is missing"));
        assert!(refused(&json!({"ociVersion": 1})).starts_with("`ociVersion` is missing"));
        let shared = json!({"ociVersion": "1.0.0", "linux": {"rootfsPropagation": "shared"}});
        assert!(refused(&shared).contains("`shared`"));
    }
}
