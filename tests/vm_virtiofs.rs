//! Guests whose root file system a process beside QEMU serves: it is the
//! instance's, is counted with it, and goes with it. Real machines.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stderr,
    reason = "tests"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{is_root, run, samples, skip, stderr, traces_of, unladen};

const SPEC: &str = r#"
[rounds]
startup = 2
memory = 2
[[cells]]
backend = "vm"
params = { accel = "tcg", rootfs = "virtiofs" }
startup = ["exit=7", "http"]
memory = ["pause"]
[[cells]]
backend = "vm"
params = { accel = "tcg", rootfs = "virtiofs", machine = "q35" }
startup = ["exit"]
[[cells]]
backend = "vm"
params = { accel = "tcg", rootfs = "virtiofs", machine = "q35", kernel = "distro", memory = "256M" }
startup = ["exit"]
"#;

/// Whether this host can serve a folder at all.
fn has_virtiofsd() -> bool {
    if !is_root() {
        skip("the older virtiofsd needs root");
        return false;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/vm/virtiofsd.sh");
    let output = run(Command::new(script).args(["--print", "--root", "/", "--fd", "7"]));
    if !output.status.success() {
        skip(&stderr(&output));
    }
    output.status.success()
}

/// By control group of a machine of this run: the names of its processes.
fn machines(run_id: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let group = read("cgroup");
        let ours = group.lines().find(|line| line.contains(&format!("unladen-{run_id}")));
        if let Some(line) = ours {
            found.entry(line.to_owned()).or_default().push(read("comm").trim().to_owned());
        }
    }
    found
}

#[test]
fn the_server_of_the_files_is_in_the_machines_cgroup_and_goes_with_it() {
    if !has_virtiofsd() {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let (spec, out) = (folder.path().join("spec.toml"), folder.path().join("out"));
    fs::write(&spec, SPEC).expect("spec");
    let mut command = unladen();
    command.args(["run", "--no-report", "--out"]).args([&out, &spec]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
    let mut seen: BTreeSet<usize> = BTreeSet::new();
    while child.try_wait().expect("waited").is_none() {
        std::thread::sleep(Duration::from_millis(20));
        if !out.join("manifest.json").exists() {
            continue;
        }
        for names in machines(&common::run_id(&out)).into_values() {
            if names.iter().any(|name| name.starts_with("qemu")) {
                seen.insert(names.iter().filter(|name| *name == "virtiofsd").count());
            }
        }
    }
    let id = common::run_id(&out);
    let output = child.wait_with_output().expect("ended");
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", stderr(&output));
    // The older one shuts a second process of itself up in the folder.
    assert!(seen.iter().any(|count| *count >= 1), "in a machine's cgroup: {seen:?}");
    assert!(traces_of(&id).is_empty(), "left behind: {:?}", traces_of(&id));
    let rows = samples(&out);
    if let Some(reason) = common::unprepared(&rows, "vm") {
        return skip(&reason);
    }
    let wrong: Vec<_> = rows.iter().filter(|row| row["outcome"] != "ok").collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let ready = |params: &str, metric: &str| {
        let wanted = |row: &&BTreeMap<String, String>| {
            row["params"].contains(params) && row["metric"] == metric
        };
        rows.iter().filter(wanted).count()
    };
    assert_eq!(ready("machine=microvm;rootfs=virtiofs", "startup.ready"), 4);
    assert_eq!(ready("machine=microvm;rootfs=virtiofs", "memory.pss"), 2);
    assert_eq!(ready("kernel=tuned;machine=q35;rootfs=virtiofs", "startup.gone"), 2);
    assert_eq!(ready("kernel=distro;machine=q35;memory=256M;rootfs=virtiofs", "startup.gone"), 2);
    let manifest = common::manifest(&out).to_string();
    assert!(manifest.contains("with its files served by:"), "the server's command is told");
}

/// Runs one machine with a server that does this; gives the row's detail.
fn with_server(body: &str) -> String {
    let folder = tempfile::tempdir().expect("folder");
    let server = folder.path().join("virtiofsd");
    let text = format!("#!/bin/sh\n[ \"$1\" = --help ] && exit 0\n{body}\n");
    common::write_program(&server, text.as_bytes());
    let (spec, out) = (folder.path().join("spec.toml"), folder.path().join("out"));
    let cell = "[rounds]\nstartup = 1\n[[cells]]\nbackend = \"vm\"\nparams = { accel = \"tcg\", \
        rootfs = \"virtiofs\" }\nstartup = [\"pause\"]\n";
    fs::write(&spec, cell).expect("spec");
    let mut command = unladen();
    command.args(["run", "--no-report", "--deadline", "4s", "--out"]).args([&out, &spec]);
    let output = run(command.env("UNLADEN_VIRTIOFSD", &server));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let id = common::run_id(&out);
    assert!(traces_of(&id).is_empty(), "left behind: {:?}", traces_of(&id));
    let rows = samples(&out);
    let failed: Vec<_> = rows.iter().filter(|row| row["backend"] == "vm").collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0]["outcome"], "failed");
    failed[0]["detail"].clone()
}

#[test]
fn a_server_that_fails_or_hangs_is_a_failed_row_and_nothing_stays() {
    if !has_virtiofsd() {
        return;
    }
    let detail = with_server("echo 'no such luck' >&2; exit 1");
    assert!(detail.contains("no such luck") || detail.contains("qemu-system"), "{detail}");
    assert!(detail.starts_with("start, waiting for "), "{detail}");
    let detail = with_server("exec sleep 1000");
    assert!(detail.contains("not within 4.0 s"), "{detail}");
}
