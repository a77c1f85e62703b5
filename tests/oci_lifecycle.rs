//! `unladen-oci` as an engine calls it: every command, every transition, and
//! what must not be possible. With real containers, as root.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod oci;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::wait_until;
use oci::{PATIENCE, bundle};
use serde_json::{Value, json};

#[test]
fn a_container_goes_through_its_life_and_leaves_nothing() {
    let lab = bundle!("echo begun; read line; echo $line; trap 'exit 3' TERM; sleep 60 & wait");
    lab.create_with(&["--pid-file", &lab.file("pid")], "c");
    let state = lab.state("c");
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], "c");
    assert_eq!(state["bundle"], lab.path());
    assert_eq!(state["ociVersion"], "1.0.2");
    assert_eq!(state["annotations"]["org.example"], "yes");
    let pid = fs::read_to_string(lab.file("pid")).expect("a pid file");
    assert_eq!(pid, state["pid"].to_string());
    assert_eq!(lab.output(), "", "its program does not run yet");
    lab.must(&["start", "c"]);
    assert!(wait_until(PATIENCE, || lab.output() == "begun\n\n"), "{}", lab.output());
    assert_eq!(lab.state("c")["status"], "running");
    lab.must(&["kill", "c", "TERM"]);
    lab.stops("c");
    assert_eq!(lab.state("c")["pid"], 0);
    lab.is_deleted("c");
}

#[test]
fn what_does_not_fit_to_the_status_is_refused_and_changes_nothing() {
    let lab = bundle!();
    lab.create("c");
    let error = lab.fails(&["create", "--bundle", &lab.path(), "c"]);
    assert!(error.contains("`c` already exists"), "{error}");
    assert!(lab.fails(&["resume", "c"]).contains("it is created"));
    lab.must(&["start", "c"]);
    assert!(lab.fails(&["start", "c"]).contains("cannot start container `c`: it is running"));
    assert!(lab.fails(&["delete", "c"]).contains("--force"));
    assert_eq!(lab.state("c")["status"], "running");
    assert!(lab.fails(&["kill", "c", "NOPE"]).contains("`NOPE` is not a signal"));
    lab.must(&["kill", "c", "9"]);
    lab.stops("c");
    assert!(lab.fails(&["kill", "c", "KILL"]).contains("container not running"));
    // After its end this is what engines do to be sure.
    lab.must(&["kill", "--all", "c", "KILL"]);
    for command in [&["start", "c"][..], &["pause", "c"], &["update", "--pids-limit", "9", "c"]] {
        assert!(lab.fails(command).contains("it is stopped"), "{command:?}");
    }
    assert!(lab.fails(&["exec", "c", "true"]).contains("cannot execute in container `c`"));
    lab.must(&["delete", "c"]);
    for command in [
        &["state", "c"][..],
        &["start", "c"],
        &["kill", "c", "KILL"],
        &["delete", "c"],
        &["exec", "c", "true"],
        &["ps", "c"],
        &["pause", "c"],
        &["resume", "c"],
        &["update", "--pids-limit", "9", "c"],
        &["events", "--stats", "c"],
    ] {
        assert!(lab.fails(command).contains("container `c` does not exist"), "{command:?}");
    }
    lab.must(&["delete", "--force", "c"]);
    for name in ["a/b", "..", ".", "", "a b"] {
        let error = lab.fails(&["create", "--bundle", &lab.path(), name]);
        assert!(error.contains("is not usable"), "{error}");
    }
    lab.nothing_is_left();
}

#[test]
fn a_created_container_can_be_killed_and_deleted() {
    let lab = bundle!();
    lab.create("c");
    // Its process has no handlers and is the first of its pid namespace.
    lab.must(&["kill", "c", "TERM"]);
    lab.stops("c");
    lab.must(&["delete", "c"]);
    lab.create("c");
    lab.must(&["delete", "c"]);
    lab.launch("c");
    lab.ends_by_force("c");
}

#[test]
fn engines_find_errors_in_the_log() {
    let lab = bundle!();
    let log = lab.file("log.json");
    lab.fails(&["--log", &log, "--log-format", "json", "start", "nobody"]);
    let text = fs::read_to_string(&log).expect("a log");
    let line: Value = serde_json::from_str(text.trim()).expect("one line of JSON");
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().expect("text").contains("does not exist"), "{line}");
    assert!(line["time"].as_str().expect("text").ends_with('Z'), "{line}");
    let log = lab.file("log.text");
    lab.fails(&["--log", &log, "state", "nobody"]);
    assert!(fs::read_to_string(&log).expect("a log").contains("level=error msg=\"container"));
    for refused in [["--systemd-cgroup", "list"], ["--cgroup-manager=systemd", "list"]] {
        assert!(lab.fails(&refused).contains("--cgroup-manager=cgroupfs"));
    }
    lab.must(&["--rootless=false", "--debug", "--cgroup-manager", "cgroupfs", "list"]);
}

#[test]
fn a_program_that_is_not_there_is_said_before_the_start() {
    let mut lab = bundle!();
    for (program, words) in [
        ("nope", "exec: \"nope\": executable file not found in $PATH"),
        ("/nope", "exec: \"/nope\": no such file or directory"),
        ("/proc/version", "exec: \"/proc/version\": permission denied"),
    ] {
        lab.change(|config| config["process"]["args"] = json!([program]));
        let error = lab.fails(&["create", "--bundle", &lab.path(), "c"]);
        assert!(error.contains(words), "{error}");
        lab.nothing_is_left();
    }
    // What only the kernel can tell is said by `start`.
    lab.write_rootfs("broken", b"\x7fELFnot");
    lab.change(|config| config["process"]["args"] = json!(["/broken"]));
    lab.create("c");
    let error = lab.fails(&["start", "c"]);
    assert!(error.contains("exec: \"/broken\": exec format error"), "{error}");
    lab.ends_by_force("c");
}

#[test]
fn run_is_all_of_it_with_the_programs_exit_code() {
    let lab = bundle!("exit 7");
    let (code, _) = lab.oci(&["run", "--bundle", &lab.path(), "c"]);
    assert_eq!(code, 7);
    lab.nothing_is_left();
    let lab = bundle!("kill -9 $$");
    lab.must(&["run", "--detach", "--bundle", &lab.path(), "c"]);
    lab.ends_by_force("c");
}

#[test]
fn a_number_that_went_to_somebody_else_is_never_signalled() {
    let lab = bundle!();
    lab.launch("c");
    let true_state = fs::read_to_string(lab.state_file("c")).expect("state");
    let mut state: Value = serde_json::from_str(&true_state).expect("JSON");
    let pid = i32::try_from(state["process"]["pid"].as_i64().expect("number")).expect("small");
    state["process"]["started"] = json!(1);
    fs::write(lab.state_file("c"), state.to_string()).expect("written");
    assert_eq!(lab.state("c")["status"], "stopped");
    assert!(lab.fails(&["kill", "c", "KILL"]).contains("container not running"));
    assert!(oci::runs(pid));
    let mut other_boot: Value = serde_json::from_str(&true_state).expect("JSON");
    other_boot["boot"] = json!("another");
    fs::write(lab.state_file("c"), other_boot.to_string()).expect("written");
    assert_eq!(lab.state("c")["status"], "stopped");
    fs::write(lab.state_file("c"), true_state).expect("written");
    assert_eq!(lab.state("c")["status"], "running");
    lab.ends_by_force("c");
}

#[test]
fn a_damaged_state_is_named_and_can_be_removed() {
    let lab = bundle!();
    let folder = Path::new(&lab.state_file("c")).parent().expect("folder").to_owned();
    fs::create_dir_all(&folder).expect("made");
    for content in ["", "{", "{\"version\": 1}"] {
        fs::write(lab.state_file("c"), content).expect("written");
        for command in [&["state", "c"][..], &["start", "c"], &["kill", "c"], &["delete", "c"]] {
            let error = lab.fails(command);
            assert!(
                error.contains("state.json is damaged; `delete --force` removes it"),
                "{error}"
            );
        }
    }
    // It does not hide the others.
    lab.create("d");
    let said = lab.must(&["list", "--format", "json"]);
    assert!(said.contains("warning: the state of container `c`"), "{said}");
    assert!(said.contains("\"id\":\"d\""), "{said}");
    assert_eq!(lab.must(&["list", "--quiet"]).lines().last(), Some("d"));
    lab.must(&["delete", "--force", "c"]);
    assert!(!folder.exists());
    lab.is_deleted("d");
}

#[test]
fn of_many_who_create_the_same_name_one_does() {
    let lab = bundle!();
    let created: usize = std::thread::scope(|scope| {
        let one = || lab.oci(&["create", "--bundle", &lab.path(), "c"]).0;
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(one)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .filter(|code| *code == 0)
            .count()
    });
    assert_eq!(created, 1);
    lab.ends_by_force("c");
}

#[test]
fn a_create_that_is_killed_leaves_what_delete_removes() {
    let mut lab = bundle!();
    let at = lab.file("at");
    let script = format!("echo here >{at}; exec sleep 600");
    for name in ["createRuntime", "createContainer"] {
        lab.change(|config| {
            config["hooks"] = json!({name: [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
        });
        let _ = fs::remove_file(&at);
        let path = lab.path();
        let mut child = lab
            .command(&["create", "--bundle", &path, "c"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        assert!(wait_until(PATIENCE, || Path::new(&at).exists()));
        assert_eq!(lab.state("c")["status"], "creating");
        let pid = i32::try_from(lab.state("c")["pid"].as_i64().expect("number")).expect("small");
        child.kill().expect("killed");
        child.wait().expect("reaped");
        // Without its creator it ends by itself.
        assert!(wait_until(PATIENCE, || !oci::runs(pid)));
        assert_eq!(lab.state("c")["status"], "stopped");
        lab.ends_by_force("c");
    }
}

#[test]
fn a_paused_container_makes_no_progress_and_dies_when_it_is_killed() {
    let lab = bundle!("while :; do echo x; sleep 0.01; done");
    lab.launch("c");
    assert!(wait_until(PATIENCE, || !lab.output().is_empty()));
    lab.must(&["pause", "c"]);
    assert_eq!(lab.state("c")["status"], "paused");
    let before = lab.output().len();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(lab.output().len(), before);
    lab.must(&["resume", "c"]);
    assert!(wait_until(PATIENCE, || lab.output().len() > before));
    lab.must(&["pause", "c"]);
    lab.must(&["kill", "c", "KILL"]);
    lab.stops("c");
    lab.must(&["delete", "c"]);
    lab.launch("c");
    lab.must(&["pause", "c"]);
    lab.ends_by_force("c");
}

#[test]
fn limits_are_read_back_after_an_update() {
    let mut lab = bundle!();
    lab.change(|config| {
        config["linux"]["resources"] =
            json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 32}});
    });
    lab.launch("c");
    let stats =
        || -> Value { serde_json::from_str(&lab.must(&["events", "--stats", "c"])).expect("JSON") };
    let before = stats();
    assert_eq!(before["type"], "stats");
    assert_eq!(before["data"]["memory"]["usage"]["limit"], 64 << 20);
    assert_eq!(before["data"]["pids"]["limit"], 32);
    assert!(before["data"]["cpu"]["usage"]["total"].as_u64().expect("number") > 0);
    lab.must(&["update", "--memory", "33554432", "c"]);
    fs::write(lab.file("r.json"), r#"{"pids": {"limit": 7}}"#).expect("written");
    lab.must(&["update", "--resources", &lab.file("r.json"), "c"]);
    let after = stats();
    assert_eq!(after["data"]["memory"]["usage"]["limit"], 32 << 20);
    assert_eq!(after["data"]["pids"]["limit"], 7);
    lab.ends_by_force("c");
}

#[test]
fn without_a_pid_namespace_all_processes_are_found_by_their_cgroup() {
    let mut lab = bundle!("sleep 600 & sleep 600 & echo two; wait");
    lab.change(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    lab.launch("c");
    assert!(wait_until(PATIENCE, || lab.output() == "two\n"));
    let pids: Vec<i32> = serde_json::from_str(&lab.must(&["ps", "-f", "json", "c"])).expect("JSON");
    assert_eq!(pids.len(), 3);
    lab.must(&["kill", "--all", "c", "TERM"]);
    assert!(wait_until(PATIENCE, || pids.iter().all(|pid| !oci::runs(*pid))));
    lab.must(&["delete", "c"]);
    // And delete ends whoever is left.
    lab.launch("c");
    lab.ends_by_force("c");
}

#[test]
fn the_runtime_describes_itself() {
    let lab = bundle!();
    let version = lab.must(&["--version"]);
    assert!(version.starts_with("unladen-oci version ") && version.contains("\nspec: 1."));
    let features: Value = serde_json::from_str(&lab.must(&["features"])).expect("JSON");
    assert_eq!(features["linux"]["cgroup"]["systemd"], false);
    assert!(features["hooks"].as_array().expect("list").len() == 6);
    let made = lab.file("made");
    fs::create_dir_all(format!("{made}/rootfs")).expect("made");
    lab.must(&["spec", "--bundle", &made]);
    assert!(lab.fails(&["spec", "--bundle", &made]).contains("cannot make"));
    unladen::container::read_config(&Path::new(&made).join("config.json")).expect("a spec");
    assert!(lab.fails(&["create", "--no-pivot", "c"]).contains("--no-pivot is not supported"));
}
