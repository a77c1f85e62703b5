//! An arm64 guest on a host that is none, and a container's attempt to run
//! the same program. Real machines.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stderr,
    reason = "tests"
)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use common::{measure, run, skip, stderr, unladen};

type Row = BTreeMap<String, String>;

/// Whether this host has all that an arm64 guest needs.
fn can_boot() -> bool {
    if unladen::payload::EXECUTABLE_AARCH64.is_none() {
        skip("built without a payload for arm64: rustup target add aarch64-unknown-none");
        return false;
    }
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    for (script, words) in [
        ("guest/kernel.sh", &["--path", "--distro", "--arch", "aarch64"][..]),
        ("vm/qemu-version.sh", &["--arch", "aarch64"]),
    ] {
        let output = run(Command::new(scripts.join(script)).args(words));
        if !output.status.success() {
            skip(&stderr(&output));
            return false;
        }
    }
    true
}

#[test]
fn an_arm64_guest_proves_its_work_where_a_container_cannot_begin() {
    if !can_boot() {
        return;
    }
    let rows = measure(
        r#"
[rounds]
startup = 1
memory = 1
[[cells]]
backend = "vm"
params = { machine = "virt", memory = "256M" }
startup = ["exit=7", "http", "touch=16"]
memory = ["pause"]
[[cells]]
backend = "container"
params = { arch = "aarch64" }
startup = ["exit"]
"#,
    );
    let guest: Vec<&Row> = rows.iter().filter(|row| row["params"].contains("virt")).collect();
    let wrong: Vec<_> = guest.iter().filter(|row| row["outcome"] != "ok").collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    for (workload, metric) in [
        ("exit=7", "startup.kernel"),
        ("exit=7", "startup.init"),
        ("exit=7", "startup.gone"),
        ("touch=16", "startup.ready"),
        ("http", "http.answer"),
        ("pause", "memory.pss"),
    ] {
        let found = guest.iter().any(|row| row["workload"] == workload && row["metric"] == metric);
        assert!(found, "{workload} {metric}");
    }
    let at = |metric: &str| -> f64 {
        let row = guest.iter().find(|row| row["workload"] == "exit=7" && row["metric"] == metric);
        row.expect("a row")["value"].parse().expect("a number")
    };
    // The banner, not the last words, is the kernel's sign of life.
    assert!(at("startup.vmm_ready") < at("startup.kernel"));
    assert!(at("startup.kernel") < at("startup.init"));
    let container: Vec<&Row> = rows.iter().filter(|row| row["params"] == "arch=aarch64").collect();
    if Path::new("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists() {
        return skip("this host emulates arm64 programs: qemu-aarch64 is registered");
    }
    assert_eq!(container.len(), 1, "{container:?}");
    assert_eq!(container[0]["outcome"], "skipped");
    let detail = &container[0]["detail"];
    assert!(detail.contains("a container has its host's kernel and processor"), "{detail}");
    assert!(detail.contains("Exec format error") || detail.contains("ENOEXEC"), "{detail}");
}

#[test]
fn its_exit_code_is_told_in_the_foreground_too() {
    if !can_boot() {
        return;
    }
    let output =
        run(unladen().args(["vm", "run", "--machine", "virt", "--memory", "256M", "--", "exit=9"]));
    assert_eq!(output.status.code(), Some(9), "{}", stderr(&output));
}
