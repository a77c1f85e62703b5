//! From a `config.json` to a running container: what other tools generate
//! runs, and what it asks for is the case inside.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod lab;

use std::fs;

use common::{is_root, skip as skipped};
use lab::bundle::{both_ways, config, outputs, plan_of, recorded};
use lab::{Lab, Running};
use serde_json::{Value, json};
use unladen::container::Container;
use unladen::container::cgroup::Limits;
use unladen::errors::chain;
use unladen::sys::pidfd::Exit;

#[test]
fn recorded_bundles_run() {
    if !is_root() {
        return skipped("some of the recorded containers have no user namespace");
    }
    for (name, mut config) in recorded() {
        let lab = Lab::new();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] =
            json!(["/bin/bash", "-c", "echo $(hostname) $(id -u); ls /dev"]);
        config["process"]["env"] = json!(["PATH=/usr/bin"]);
        config["root"]["path"] = json!(lab.rootfs);
        let programs = json!({"destination": "/usr", "type": "bind", "source": "/usr",
                              "options": ["rbind", "ro"]});
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        // Of the host's control groups other tests say more.
        mounts.retain(|mount| mount["type"] != "cgroup");
        mounts.push(programs);
        let plan = plan_of(&config, &lab).unwrap_or_else(|error| panic!("{name}: {error}"));
        let group = lab.tree.create("one", &Limits::default()).expect("group");
        for (way, mut container) in both_ways(&plan) {
            let (exit, output) = lab::output(&mut container, &group);
            assert_eq!(exit, Exit::Code(0), "{name} {way}: {output}");
            let host = config["hostname"].as_str().expect("a name");
            assert!(output.starts_with(&format!("{host} 0\n")), "{name} {way}: {output}");
            for device in ["mqueue", "null", "ptmx", "pts", "shm", "stdin"] {
                assert!(output.lines().any(|line| line == device), "{name} {way}: {output}");
            }
        }
    }
}

#[test]
fn what_a_configuration_asks_for_is_the_case_inside() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    let script = "
        cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shmmni
        cat /proc/sys/kernel/domainname
        pwd; umask
        stat -c '%a %u %g %t:%T %F' /dev/mine /dev/pipe
        uname -m; ionice -p $$; cut -d' ' -f19 /proc/self/stat
        ulimit -n
        grep -c ' /data/deep .*ro,nosuid' /proc/self/mountinfo
        (: > /data/deep/file) 2>/dev/null || echo refused
    ";
    let folder = tempfile::tempdir().expect("folder");
    let config = config(&lab, script, |config| {
        config["linux"]["sysctl"] =
            json!({"net.ipv4.ip_default_ttl": "99", "kernel/shmmni": "1234"});
        config["domainname"] = json!("example");
        config["linux"]["personality"] = json!({"domain": "LINUX32"});
        config["linux"]["devices"] = json!([
            {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640,
             "uid": 7, "gid": 8},
            {"path": "/dev/pipe", "type": "p"},
        ]);
        config["process"]["cwd"] = json!("/tmp/made/here");
        config["process"]["user"]["umask"] = json!(0o27);
        config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
        config["process"]["scheduler"] = json!({"policy": "SCHED_OTHER", "nice": 5});
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 200, "hard": 300}]);
        config["mounts"].as_array_mut().expect("list").push(json!({
            "destination": "/data/deep", "type": "bind", "source": folder.path(),
            "options": ["rbind", "rro", "rnosuid", "rprivate"],
        }));
    });
    let output = outputs(&lab, &config);
    let expected = [
        "99",
        "1234",
        "example",
        "/tmp/made/here",
        "0027",
        "640 7 8 1:3 character special file",
        "666 0 0 0:0 fifo",
        "i686",
        "idle",
        "5",
        "200",
        "1",
        "refused",
    ];
    assert_eq!(output.lines().map(str::trim).collect::<Vec<_>>(), expected, "{output}");
}

/// The kernel's release as two numbers.
fn kernel() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").expect("proc");
    let mut numbers = text.split('.').map(|part| part.parse().expect("a number"));
    (numbers.next().expect("major"), numbers.next().expect("minor"))
}

#[test]
fn clocks_have_their_offsets_where_the_kernel_can() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    let offsets = |offsets: Value| {
        config(&lab, "tail -1 /proc/self/timens_offsets | tr -s ' '", |config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("list");
            namespaces.push(json!({"type": "time"}));
            config["linux"]["timeOffsets"] = offsets;
        })
    };
    assert_eq!(outputs(&lab, &offsets(json!({}))).trim(), "boottime 0 0");
    let some = offsets(json!({"boottime": {"secs": 1000, "nanosecs": 5}}));
    if kernel() >= (6, 2) {
        assert_eq!(outputs(&lab, &some).trim(), "boottime 1000 5");
    } else {
        let plan = plan_of(&some, &lab).expect("a plan");
        let group = lab.tree.create("one", &Limits::default()).expect("group");
        for (way, mut container) in both_ways(&plan) {
            let error = container.launch(&group, &[]).expect_err(way).to_string();
            assert!(error.contains("; Linux before 6.2 has a new process"), "{way}: {error}");
        }
    }
}

#[test]
fn ranges_of_ids_are_mapped_by_somebody_outside() {
    if !is_root() {
        return skipped("without root ranges come from /etc/subuid, which is the host's");
    }
    let lab = Lab::new();
    lab::open_to_all(lab.rootfs.parent().expect("a parent"));
    let script = "id -u; id -G; tr -s ' ' < /proc/self/uid_map; touch /tmp/x; stat -c %u /tmp/x; \
                  cat /proc/self/setgroups";
    let config = config(&lab, script, |config| {
        config["linux"]["namespaces"].as_array_mut().expect("list").push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        config["process"]["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9]});
    });
    let output = outputs(&lab, &config);
    let lines: Vec<&str> = output.lines().map(str::trim).collect();
    assert_eq!(lines, ["7", "8 9", "0 100000 1000", "7", "allow"], "{output}");
    let mut unmapped = config;
    unmapped["process"]["user"]["uid"] = json!(5000);
    let error = plan_of(&unmapped, &lab).expect_err("refused");
    assert!(error.starts_with("`process.user` cannot be `5000:"), "{error}");
}

#[test]
fn existing_namespaces_are_entered_after_their_kind_was_checked() {
    if !is_root() {
        return skipped("namespaces of others can be entered by root only");
    }
    let lab = Lab::new();
    let wait = "echo ready; read word || true";
    let host = config(&lab, wait, |config| {
        config["hostname"] = json!("first");
        config["linux"]["namespaces"].as_array_mut().expect("list").push(json!({"type": "user"}));
    });
    let plan = plan_of(&host, &lab).expect("a plan");
    let group = lab.tree.create("one", &Limits::default()).expect("group");
    let running = Running::launch(&mut Container::prepare(&plan).expect("ready"), &group);
    let file = |kind: &str| format!("/proc/{}/ns/{kind}", running.child.pid);
    let inside = |kind: &str| fs::read_link(file(kind)).expect("link").display().to_string();
    let joining = |kinds: &[(&str, &str)], script: &str| {
        config(&lab, script, |config| {
            config.as_object_mut().expect("object").remove("hostname");
            let list = config["linux"]["namespaces"].as_array_mut().expect("list");
            for (kind, name) in kinds {
                list.retain(|entry| entry["type"] != *kind);
                list.push(json!({"type": kind, "path": file(name)}));
            }
            if kinds.iter().any(|(kind, _)| *kind == "user") {
                config["linux"].as_object_mut().expect("object").remove("uidMappings");
                config["linux"].as_object_mut().expect("object").remove("gidMappings");
            }
        })
    };
    let simple = [("network", "net"), ("uts", "uts"), ("ipc", "ipc")];
    let show = "hostname; for kind in net uts ipc pid user; do readlink /proc/self/ns/$kind; done";
    let lines = |kinds: &[(&str, &str)], script| {
        let plan = plan_of(&joining(kinds, script), &lab).expect("a plan");
        let mut lines = both_ways(&plan).map(|(way, mut container)| {
            let (exit, output) = lab::output(&mut container, &group);
            assert_eq!(exit, Exit::Code(0), "{way}: {output}");
            output.lines().map(str::to_owned).collect::<Vec<_>>()
        });
        // New namespaces are others each time.
        assert_eq!(lines[0].len(), lines[1].len());
        std::mem::take(&mut lines[1])
    };
    let found = lines(&simple, show);
    assert_eq!(found[..4], ["first".to_owned(), inside("net"), inside("uts"), inside("ipc")]);
    assert_ne!(found[4], inside("pid"));
    let all = [&simple[..], &[("pid", "pid"), ("user", "user")]].concat();
    let found = lines(&all, show);
    assert_eq!(found[4..], [inside("pid"), inside("user")]);
    let found = lines(&[("pid", "pid")], "kill -0 1 2>/dev/null; echo $? $(($$ > 1))");
    assert_eq!(found, ["0 1"]);

    let wrong = joining(&[("network", "uts")], "true");
    let plan = plan_of(&wrong, &lab).expect("a plan");
    let error = chain(&Container::prepare(&plan).expect_err("refused"));
    assert!(error.contains("namespaces["), "{error}");
    assert!(error.contains("CLONE_NEWUTS"), "{error}");
    let error = plan_of(&joining(&[("mount", "mnt")], "true"), &lab).expect_err("refused");
    assert!(error.contains("mount namespace"), "{error}");
    running.finish(Exit::Code(0));
}
