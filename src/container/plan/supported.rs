//! Which fields of a spec this runtime carries out.
//!
//! The spec is looked through as JSON, so that a field that a newer version of
//! the format has is refused by name too, instead of being ignored.

use serde_json::Value;

use super::PlanError;

/// Fields that are carried out; `[]` stands for any index and `*` for
/// everything below.
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
    "process.args[]",
    "process.env[]",
    "process.cwd",
    "process.user.uid",
    "process.user.gid",
    "process.user.umask",
    "process.user.additionalGids[]",
    "process.capabilities.*",
    "process.rlimits[].*",
    "process.noNewPrivileges",
    "process.oomScoreAdj",
    "linux.namespaces[].type",
    "linux.uidMappings[].*",
    "linux.gidMappings[].*",
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
    "linux.resources.memory.limit",
    "linux.resources.memory.swap",
    "linux.resources.pids.limit",
    "linux.resources.cpu.shares",
    "linux.resources.cpu.quota",
    "linux.resources.cpu.period",
];

/// Refuses the first field that is not supported.
pub(super) fn check(spec: &Value) -> Result<(), PlanError> {
    let version = spec.get("ociVersion").and_then(Value::as_str).unwrap_or_default();
    if !version.starts_with("1.") {
        return Err(PlanError::Value {
            field: "ociVersion".to_owned(),
            value: version.to_owned(),
            reason: "this runtime knows version 1",
        });
    }
    let propagation = spec.pointer("/linux/rootfsPropagation").and_then(Value::as_str);
    if let Some(value) = propagation
        && !matches!(value, "" | "private" | "rprivate")
    {
        return Err(PlanError::Value {
            field: "linux.rootfsPropagation".to_owned(),
            value: value.to_owned(),
            reason: "mounts of this runtime are always private",
        });
    }
    look(spec, "", "")
}

/// Walks down; `shape` is `path` with `[]` for every index.
fn look(value: &Value, path: &str, shape: &str) -> Result<(), PlanError> {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let join = |above: &str| {
                    if above.is_empty() { name.clone() } else { format!("{above}.{name}") }
                };
                look(field, &join(path), &join(shape))?;
            }
            Ok(())
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                look(item, &format!("{path}[{index}]"), &format!("{shape}[]"))?;
            }
            Ok(())
        }
        // Says what is the case anyway: `terminal: false`.
        Value::Null | Value::Bool(false) => Ok(()),
        _ if SUPPORTED.iter().any(|known| matches(known, shape)) => Ok(()),
        _ => Err(PlanError::Unsupported { field: path.to_owned() }),
    }
}

fn matches(known: &str, shape: &str) -> bool {
    match known.strip_suffix('*') {
        Some(above) => shape.starts_with(above),
        None => known == shape,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(value: &Value) -> String {
        check(value).expect_err("refused").to_string()
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let with = |key: &str, value: Value| {
            let mut spec = json!({"ociVersion": "1.0.2"});
            spec[key] = value;
            spec
        };
        assert!(check(&with("process", json!({"terminal": false, "args": ["x"]}))).is_ok());
        assert!(check(&with("hooks", json!({"prestart": []}))).is_ok());
        for (key, value, field) in [
            ("process", json!({"terminal": true}), "process.terminal"),
            ("hooks", json!({"poststop": [{"path": "/x"}]}), "hooks.poststop[0].path"),
            ("linux", json!({"seccomp": {"listenerPath": "/x"}}), "linux.seccomp.listenerPath"),
            (
                "linux",
                json!({"namespaces": [{"type": "net", "path": "/x"}]}),
                "linux.namespaces[0].path",
            ),
            ("linux", json!({"sysctl": {"net.x": "1"}}), "linux.sysctl.net.x"),
            ("brandNew", json!(1), "brandNew"),
        ] {
            let error = refused(&with(key, value));
            assert_eq!(error, format!("`{field}` is not supported by this runtime"));
        }
    }

    #[test]
    fn versions_and_propagation_are_checked() {
        assert!(refused(&json!({"ociVersion": "2.0.0"})).contains("ociVersion"));
        let shared = json!({"ociVersion": "1.0.0", "linux": {"rootfsPropagation": "shared"}});
        assert!(refused(&shared).contains("`shared`"));
    }
}
