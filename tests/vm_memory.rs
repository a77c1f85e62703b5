//! Where a virtual machine's memory goes, what it gives back, and with how
//! little it becomes ready. Real machines.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests"
)]

mod common;

use std::collections::BTreeMap;

use common::measure;

const MIB: f64 = 1024.0 * 1024.0;

type Row = BTreeMap<String, String>;

const WORK: &str = r#"
[rounds]
memory = 1
[[cells]]
backend = "vm"
params = { accel = "tcg" }
memory = ["pause"]
[[cells]]
backend = "vm"
params = { accel = "tcg", thp = "off" }
memory = ["pause"]
[[cells]]
backend = "vm"
params = { accel = "tcg", memory = "256M", balloon = "reporting" }
memory = ["churn=128"]
[[cells]]
backend = "vm"
params = { accel = "tcg", memory = "256M" }
memory = ["churn=128"]
[[cells]]
backend = "container"
params = { memory = "256M" }
memory = ["churn=128"]"#;

/// The one value of a metric of a cell.
fn value(rows: &[Row], backend: &str, params: &str, workload: &str, metric: &str) -> f64 {
    let cell = |row: &&Row| {
        row["backend"] == backend && row["params"] == params && row["workload"] == workload
    };
    let rows: Vec<&Row> = rows.iter().filter(cell).collect();
    let found = rows.iter().find(|row| row["metric"] == metric && row["outcome"] == "ok");
    let found = found.unwrap_or_else(|| panic!("no {metric} of {backend} {params}: {rows:#?}"));
    found["value"].parse().expect("a number")
}

#[test]
fn memory_splits_into_parts_and_freed_memory_comes_back_with_reporting() {
    let rows = measure(WORK);
    let plain = "accel=tcg;kernel=tuned;machine=microvm";
    let part = |name: &str, ledger: &str| {
        value(&rows, "vm", plain, "pause", &format!("memory.part.{name}.{ledger}"))
    };
    for ledger in ["rss", "pss"] {
        let whole = value(&rows, "vm", plain, "pause", &format!("memory.{ledger}"));
        let names = ["guest_ram", "translation", "vmm", "text", "image"];
        let sum: f64 = names.iter().map(|name| part(name, ledger)).sum();
        println!(
            "{ledger}: {:?} MiB of {:.1}",
            names.map(|n| (n, part(n, ledger) / MIB)),
            whole / MIB
        );
        assert!((sum / whole - 1.0).abs() < 0.02, "{ledger}: parts {sum}, whole {whole}");
        for name in names {
            assert!(part(name, ledger) > 0.0, "{name} by {ledger}");
        }
    }
    assert!(part("guest_ram", "rss") > 4.0 * MIB, "a kernel runs in it");
    assert!(part("guest_ram", "rss") <= 128.0 * MIB, "not more than the guest has");
    let small_pages = "accel=tcg;kernel=tuned;machine=microvm;thp=off";
    let without = value(&rows, "vm", small_pages, "pause", "memory.rss");
    let with = value(&rows, "vm", plain, "pause", "memory.rss");
    println!(
        "RSS with huge pages as the host has them {:.1}, without {:.1} MiB",
        with / MIB,
        without / MIB
    );
    assert!(without <= with * 1.02, "small pages waste nothing");

    let idle = value(&rows, "vm", plain, "pause", "idle.cpu");
    println!("idle: {:.2} % of a processor", 100.0 * idle);
    assert!((0.0..1.0).contains(&idle), "a machine that waits is not busy: {idle}");

    let returned = |backend: &str, params: &str| {
        let touched = value(&rows, backend, params, "churn=128", "memory.touched.rss");
        let after = value(&rows, backend, params, "churn=128", "memory.rss");
        assert!(touched > 128.0 * MIB, "the work was resident: {touched}");
        (touched - after) / (128.0 * MIB)
    };
    let reporting =
        returned("vm", "accel=tcg;balloon=reporting;kernel=tuned;machine=microvm;memory=256M");
    let kept = returned("vm", "accel=tcg;kernel=tuned;machine=microvm;memory=256M");
    let container = returned("container", "memory=256M");
    println!(
        "returned of freed: reporting {reporting:.2}, none {kept:.2}, container {container:.2}"
    );
    assert!(reporting >= 0.8, "free-page reporting gave back {reporting}");
    assert!(kept < 0.1, "without it a machine keeps what it has: {kept}");
    assert!(container > 0.95, "a container's memory is the host's: {container}");
}

#[test]
fn the_smallest_memory_is_found_and_too_little_is_no_failure() {
    let rows = measure(
        r#"
[[cells]]
backend = "vm"
params = { accel = "tcg", memory = "64M" }
minimum = ["pause"]
[[cells]]
backend = "container"
params = { memory = "16M" }
minimum = ["pause"]
"#,
    );
    let cells = [
        ("vm", "accel=tcg;kernel=tuned;machine=microvm;memory=64M", 64.0),
        ("container", "memory=16M", 16.0),
    ];
    for (backend, params, most) in cells {
        let smallest = value(&rows, backend, params, "pause", "memory.minimum") / MIB;
        let row = rows.iter().find(|row| row["backend"] == backend).expect("a row");
        println!("{backend}: {smallest} MiB; {}", row["detail"]);
        assert!(smallest > 0.0 && smallest < most, "{backend}: {smallest} MiB");
        assert!(row["detail"].starts_with(&format!("{most}M ready; ")), "{}", row["detail"]);
        assert!(row["detail"].contains(" not ("), "a size that was too small: {}", row["detail"]);
    }
    assert!(rows.iter().all(|row| row["outcome"] != "failed"), "{rows:#?}");
}
