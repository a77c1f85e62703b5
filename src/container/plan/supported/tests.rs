use serde_json::{Value, json};

use super::*;

fn check(spec: &Value) -> Result<(), PlanError> {
    super::check(spec).map_err(|refusal| match refusal {
        Refusal::Field(error) => error,
        Refusal::Input(error) => error.into(),
    })
}

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
        // One name, not a path.
        ("process.cwd", json!("/"), "process.cwd"),
        ("linux.devices[]", json!("/"), "linux.devices[]"),
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
