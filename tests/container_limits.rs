//! Limits that `unladen container run` sets, and what becomes of them when
//! somebody kills it.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::too_many_lines,
    reason = "a test says what went wrong by panicking"
)]

mod common;
mod engine;

use std::fs;

use common::{is_root, skip, stderr, stdout, unladen, wait_until};
use engine::{Engine, PATIENCE, Talking, cgroups_of, first_process, may_limit, run, state_of};

#[test]
fn limits_are_set_and_gone_afterwards() {
    if !may_limit() {
        return skip("limits need a delegated cgroup");
    }
    let engine = Engine::new();
    let flags = ["--memory", "64M", "--swap", "0", "--cpus", "0.5", "--pids", "20"];
    let mut running = Talking::start(&mut engine.sh(&flags, "echo ready; sleep 1000"));
    assert_eq!(running.line(), "ready");
    let folders = cgroups_of(running.child.id());
    assert!(!folders.is_empty());
    let has = |names: [&str; 2], values: [&str; 2]| {
        let files = folders.iter().flat_map(|folder| names.map(|name| folder.join(name)));
        let texts: Vec<String> = files.filter_map(|file| fs::read_to_string(file).ok()).collect();
        assert!(texts.iter().any(|text| values.contains(&text.trim())), "{names:?}: {texts:?}");
    };
    has(["memory.max", "memory.limit_in_bytes"], ["67108864"; 2]);
    has(["pids.max"; 2], ["20"; 2]);
    has(["cpu.max", "cpu.cfs_quota_us"], ["50000 100000", "50000"]);
    let inside = first_process(running.child.id()).expect("it runs");
    engine::kill(inside, "KILL");
    let own = running.child.id();
    assert_eq!(running.end().status.code(), Some(137));
    assert_eq!(cgroups_of(own), Vec::<std::path::PathBuf>::new());
    // They bite: more processes than allowed, more memory than allowed.
    let output =
        run(&mut engine.sh(&["--pids", "5"], "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done"));
    assert_ne!(output.status.code(), Some(0));
    let hog = ["--memory", "16M", "--swap", "0"];
    let output =
        run(&mut engine.sh(&hog, "exec head -c 100000000 /dev/zero | tail -c 100000000 | wc -c"));
    assert!(!stdout(&output).contains("100000000"), "{} {}", stdout(&output), stderr(&output));
    let said = "unladen: the kernel killed a process of the container for lack of memory \
                (its limit: 16 MiB)\n";
    assert!(stderr(&output).ends_with(said), "{}", stderr(&output));
    // Who ends within the limit hears nothing of it.
    let output = run(&mut engine.sh(&hog, "kill -KILL $$; exit 3"));
    assert_eq!((output.status.code(), stderr(&output)), (Some(3), String::new()));
}

#[test]
fn killing_the_runner_kills_the_container_and_clean_removes_the_rest() {
    if !is_root() {
        // A session's cgroup is one run's at a time.
        return skip("limited containers side by side need root");
    }
    let engine = Engine::new();
    let start = || {
        let mut running =
            Talking::start(&mut engine.sh(&["--pids", "20"], "echo ready; sleep 1000"));
        assert_eq!(running.line(), "ready");
        running
    };
    let (mut killed, neighbour) = (start(), start());
    let inside = first_process(killed.child.id()).expect("it runs");
    killed.child.kill().expect("killed");
    let id = killed.child.id();
    killed.end();
    assert!(wait_until(PATIENCE, || state_of(inside).is_none_or(|state| state == 'Z')));
    let left = cgroups_of(id);
    assert!(!left.is_empty(), "nothing was left: has cleaning become automatic?");
    // Only by the names of these two, since other tests run at the same time.
    for own in [id, neighbour.child.id()] {
        let folder = cgroups_of(own).into_iter().next().expect("a cgroup");
        let top = folder.ancestors().find_map(|path| {
            let name = path.file_name()?.to_string_lossy().into_owned();
            name.strip_prefix("unladen-").map(str::to_owned)
        });
        let output = run(unladen().arg("clean").arg(top.expect("an id")));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    assert_eq!(cgroups_of(id), Vec::<std::path::PathBuf>::new());
    let inside = first_process(neighbour.child.id()).expect("the neighbour still runs");
    assert!(!cgroups_of(neighbour.child.id()).is_empty());
    engine::kill(inside, "KILL");
    assert_eq!(neighbour.end().status.code(), Some(137));
}
