//! Hooks of `unladen-oci`: their order, what they are told, what they see, and
//! what becomes of the container when one fails.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod oci;

use std::fs;

use oci::bundle;
use serde_json::{Value, json};

/// A hook that writes its name and the status it was given, and whether it
/// is in the host's uts namespace.
fn hook(name: &str, log: &str) -> Value {
    let own = fs::read_link("/proc/self/ns/uts").expect("proc");
    let script = format!(
        "read state; case $state in *'\"id\":\"c\"'*) ;; *) exit 9;; esac; \
         s=${{state##*'\"status\":\"'}}; \
         [ $(readlink /proc/self/ns/uts) = '{}' ] && w=host || w=inside; \
         echo $1 ${{s%%'\"'*}} $w $EXTRA >>{log}",
        own.display()
    );
    json!({"path": "/bin/sh", "args": ["sh", "-c", script, "sh", name], "env": ["EXTRA=x", "PATH=/usr/bin"]})
}

#[test]
fn hooks_run_in_their_order_with_the_state_in_their_namespaces() {
    let mut lab = bundle!("echo program >>/log/hooks");
    fs::create_dir(lab.file("log")).expect("made");
    let host = lab.file("log/hooks");
    let mut hooks = serde_json::Map::new();
    for name in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        hooks.insert(name.to_owned(), json!([hook(name, &host)]));
    }
    let inside = hook("startContainer", "/log/hooks");
    hooks.insert("startContainer".to_owned(), json!([inside]));
    let source = lab.file("log");
    lab.change(|config| {
        config["hooks"] = Value::Object(hooks);
        config["mounts"].as_array_mut().expect("mounts").push(json!({
            "destination": "/log", "type": "bind", "source": source, "options": ["rbind", "rw"],
        }));
    });
    lab.create("c");
    let log = || fs::read_to_string(&host).unwrap_or_default();
    let made = "prestart creating host x\ncreateRuntime creating host x\n\
                createContainer creating inside x\n";
    assert_eq!(log(), made);
    lab.must(&["start", "c"]);
    lab.stops("c");
    lab.must(&["delete", "c"]);
    let text = log();
    let rest: Vec<&str> = text.strip_prefix(made).expect("the same").lines().collect();
    assert_eq!(rest[0], "startContainer created inside x");
    // The program runs beside the hooks that follow its start.
    let mut middle = [rest[1], rest[2]];
    middle.sort_unstable();
    assert_eq!(middle, ["poststart running host x", "program"]);
    assert_eq!(rest[3..], ["poststop stopped host x"]);
    lab.nothing_is_left();
}

#[test]
fn a_hook_that_fails_or_hangs_ends_the_container() {
    let mut lab = bundle!();
    for (name, hook, words, at_start) in [
        ("createRuntime", json!({"path": "/bin/false"}), "/bin/false failed: exit code 1", false),
        ("createContainer", json!({"path": "/no/such"}), "could not be run", false),
        (
            "prestart",
            json!({"path": "/bin/sleep", "args": ["sleep", "600"], "timeout": 1}),
            "did not end within 1 s",
            false,
        ),
        ("startContainer", json!({"path": "/bin/false"}), "failed: exit code 1", true),
        ("poststart", json!({"path": "/bin/false"}), "failed: exit code 1", true),
    ] {
        lab.change(|config| config["hooks"] = json!({name: [hook]}));
        if at_start {
            lab.create("c");
            let error = lab.fails(&["start", "c"]);
            assert!(error.contains(words), "{error}");
            lab.stops("c");
            lab.must(&["delete", "c"]);
        } else {
            let error = lab.fails(&["create", "--bundle", &lab.path(), "c"]);
            assert!(error.contains(words) && error.contains(name), "{error}");
        }
        lab.nothing_is_left();
    }
    lab.change(|config| config["hooks"] = json!({"poststop": [{"path": "/bin/false"}]}));
    lab.create("c");
    let said = lab.must(&["delete", "c"]);
    assert!(said.contains("warning: the poststop hook /bin/false failed"), "{said}");
    lab.nothing_is_left();
}

#[test]
fn hooks_before_the_root_changes_see_the_mounts_and_may_add_to_them() {
    let mut lab = bundle!("cat /data/file /tmp/file; (echo x >/refused) 2>/dev/null; echo $?");
    fs::create_dir(lab.file("data")).expect("made");
    fs::write(lab.file("data/file"), "data\n").expect("written");
    let (source, rootfs, log) = (lab.file("data"), lab.file("rootfs"), lab.file("seen"));
    let script = |name: &str, script: &str| {
        let script = format!("set -e; exec >>{log} 2>&1; echo {name}; {script}");
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
    };
    // In the runtime's namespaces, where what is mounted is not in sight but
    // through the process; and in the container's, at the root's path.
    let outside = format!(
        "read state || :; pid=${{state##*'\"pid\":'}}; pid=${{pid%%[!0-9]*}}; \
         test ! -e {rootfs}/data/file; cat /proc/$pid/root/{rootfs}/data/file"
    );
    let inside = format!(
        "cat {rootfs}/data/file; test -c {rootfs}/dev/null; mount -t tmpfs more {rootfs}/tmp; \
         echo added >{rootfs}/tmp/file"
    );
    lab.change(|config| {
        config["hooks"] = json!({
            "prestart": script("prestart", &outside),
            "createRuntime": script("createRuntime", &outside),
            "createContainer": script("createContainer", &inside),
        });
        config["root"]["readonly"] = json!(true);
        config["mounts"].as_array_mut().expect("mounts").push(json!({
            "destination": "/data", "type": "bind", "source": source, "options": ["rbind", "ro"],
        }));
    });
    lab.create("c");
    let seen = fs::read_to_string(&log).expect("written");
    assert_eq!(seen, "prestart\ndata\ncreateRuntime\ndata\ncreateContainer\ndata\n");
    lab.must(&["start", "c"]);
    lab.stops("c");
    // The root is read-only all the same.
    assert_eq!(lab.output(), "data\nadded\n2\n");
    assert!(!std::path::Path::new(&lab.file("rootfs/tmp/file")).exists());
    lab.is_deleted("c");
}
