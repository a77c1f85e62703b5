//! Reading a `config.json`: what other tools generate is understood, what
//! cannot be carried out is named, and nothing makes it panic.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod lab;

use std::path::Path;

use lab::Lab;
use lab::bundle::{config, plan_of, recorded};
use proptest::prelude::*;
use serde_json::{Value, json};
use unladen::container::{Plan, parse_config};
use unladen::errors::chain;

#[test]
fn what_other_tools_generate_is_understood() {
    for (name, mut config) in recorded() {
        config["process"]["terminal"] = json!(false);
        let text = serde_json::to_vec_pretty(&config).expect("JSON");
        if let Err(error) = parse_config(&text, Path::new(&name)) {
            panic!("{}", chain(&error));
        }
    }
}

#[test]
fn every_field_that_cannot_be_carried_out_is_named() {
    let lab = Lab::new();
    let refused = [
        ("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt.closID"),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND"}), "linux.memoryPolicy.mode"),
        ("/linux/netDevices", json!({"eth0": {"name": "x"}}), "linux.netDevices.eth0.name"),
        ("/linux/mountLabel", json!("label"), "linux.mountLabel"),
        ("/linux/rootfsPropagation", json!("shared"), "linux.rootfsPropagation"),
        ("/linux/rootfsPropagation", json!("unbindable"), "linux.rootfsPropagation"),
        (
            "/linux/sysctl",
            json!({"kernel.core_pattern": "|/x"}),
            "linux.sysctl.kernel.core_pattern",
        ),
        ("/linux/timeOffsets", json!({"boottime": {"secs": 1}}), "linux.namespaces[time]"),
        ("/linux/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]), "user"),
        ("/linux/devices", json!([{"path": "/dev/x", "type": "a"}]), "linux.devices[0].type"),
        ("/linux/devices", json!([{"path": "dev/x", "type": "p"}]), "linux.devices[0].path"),
        ("/linux/maskedPaths", json!(["proc/keys"]), "linux.maskedPaths[0]"),
        ("/linux/personality", json!({"domain": "LINUX", "flags": ["x"]}), "personality.flags"),
        ("/mounts/0/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]), "mounts[0]"),
        ("/mounts/0/options", json!(["idmap"]), "mounts[0].options"),
        ("/mounts/0/destination", json!("/a/../b"), "mounts[0].destination"),
        ("/mounts/0/type", json!("nfs"), "mounts[0]"),
        ("/process/commandLine", json!("x"), "process.commandLine"),
        ("/process/user/username", json!("x"), "process.user.username"),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 9}), "ioPriority"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/windows", json!({"layerFolders": ["x"]}), "windows"),
        ("/vm", json!({"kernel": {"path": "/x"}}), "vm"),
        ("/solaris", json!({"milestone": "x"}), "solaris"),
        ("/zos", json!({"namespaces": [{"type": "pid"}]}), "zos"),
        ("/unheardOf", json!(1), "unheardOf"),
    ];
    for (pointer, value, named) in refused {
        let config = config(&lab, "true", |config| {
            let (above, name) = pointer.rsplit_once('/').expect("a path");
            config.pointer_mut(above).expect("there")[name] = value.clone();
            if name == "type" {
                config["mounts"][0]["options"] = json!([]);
            }
        });
        let error = plan_of(&config, &lab).map(drop).expect_err(pointer);
        assert!(error.contains(named), "{pointer}: {error}");
    }
}

/// Any JSON.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        prop_oneof![Just("/"), Just("/../x"), Just("\u{0}"), Just("rbind"), Just("mount")]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-zA-Z]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// All places in a document.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(name, below)| pointers(below, &format!("{at}/{name}"), all));
        }
        Value::Array(list) => {
            for (index, below) in list.iter().enumerate() {
                pointers(below, &format!("{at}/{index}"), all);
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is changed in a configuration, the result is a plan or an
    /// error with words.
    #[test]
    fn changed_configurations_never_panic(
        which in 0..4_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_json()), 1..4),
    ) {
        let (_, mut config) = recorded().swap_remove(which);
        for (place, value) in changes {
            let mut all = Vec::new();
            pointers(&config, "", &mut all);
            let pointer: &String = place.get(&all);
            *config.pointer_mut(pointer).expect("there") = value;
        }
        let folder = std::env::temp_dir();
        let result = parse_config(config.to_string().as_bytes(), Path::new("config.json"))
            .map_err(|error| chain(&error))
            .and_then(|spec| Plan::from_spec(&spec, &folder).map_err(|error| chain(&error)))
            .map(|plan| plan.direct_steps().len());
        prop_assert!(result.map_or_else(|error| !error.is_empty(), |steps| steps > 0));
    }

    /// Nor does text that is no configuration at all.
    #[test]
    fn text_never_panics(text in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(parse_config(&text, Path::new("config.json")).is_err());
    }
}
