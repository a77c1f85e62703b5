//! Instances that read one file: containers share it in the host's page cache,
//! a machine keeps a copy in its guest's memory. Real instances.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests"
)]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{is_root, measure, run, samples, skip, stderr, unladen, unprepared};

const MIB: f64 = 1024.0 * 1024.0;

type Row = BTreeMap<String, String>;

const SPEC: &str = r#"
[rounds]
memory = 1
[[cells]]
backend = "container"
memory = ["pause", "read=32"]
memory_cap = 4
[[cells]]
backend = "vm"
params = { accel = "tcg", thp = "off", rootfs = "virtio-blk" }
memory = ["pause", "read=32"]
memory_cap = 2
[[cells]]
backend = "vm"
params = { accel = "tcg", thp = "off", start = "clone" }
memory = ["pause", "read=32"]
memory_cap = 2
"#;

/// Roots of other kinds, one with the loader before the payload.
const ROOTS: &str = r#"
[rounds]
memory = 1
[[cells]]
backend = "vm"
params = { accel = "tcg", rootfs = "9p" }
memory = ["read=8"]
[[cells]]
backend = "vm"
params = { accel = "tcg", machine = "q35", kernel = "distro", memory = "256M", rootfs = "virtio-blk" }
memory = ["read=8"]
[[cells]]
backend = "vm"
params = { accel = "tcg" }
memory = ["read=8"]
"#;

/// Values of a cell's metric by the number of instances.
fn by_step(rows: &[Row], cell: (&str, &str, &str), metric: &str) -> Vec<(u32, f64)> {
    let (backend, params, workload) = cell;
    let of_cell = |row: &Row| {
        row["backend"] == backend && row["params"] == params && row["workload"] == workload
    };
    common::by_step(rows, of_cell, metric)
}

/// MiB that one more instance adds, from the first to the last step.
fn slope(rows: &[Row], cell: (&str, &str, &str), metric: &str) -> f64 {
    let points = by_step(rows, cell, metric);
    let (first, last) = (points.first().expect("steps"), points.last().expect("steps"));
    assert!(last.0 > first.0, "{cell:?} {metric}: {points:?}");
    (last.1 - first.1) / f64::from(last.0 - first.0) / MIB
}

#[test]
fn containers_share_what_they_read_and_machines_do_not() {
    if !is_root() {
        return skip("the cgroups of containers need root here");
    }
    let rows = measure(SPEC);
    let container = |workload| ("container", "", workload);
    let idle = slope(&rows, container("pause"), "memory.cgroup");
    let read = slope(&rows, container("read=32"), "memory.cgroup");
    println!("container: {idle:.2} MiB idle, {read:.2} MiB after reading");
    assert!(read - idle < 8.0, "one more container holds no copy: {idle} to {read}");
    // It was read by the first of them, and it is there once, exactly.
    for (step, bytes) in by_step(&rows, container("read=32"), "memory.charge.file") {
        assert!((32.0..36.0).contains(&(bytes / MIB)), "{step}: charged {bytes}");
    }
    let cached = by_step(&rows, container("read=32"), "memory.file.cached");
    let expected = [1, 2, 4].map(|step| (step, 32.0 * MIB));
    assert_eq!(cached, expected, "the host's page cache");
    let pss = slope(&rows, container("read=32"), "memory.pss");
    assert!(pss < 1.0, "PSS does not see what is read and not mapped: {pss}");
    if let Some(reason) = unprepared(&rows, "vm") {
        return skip(&reason);
    }
    let params = "accel=tcg;kernel=tuned;machine=microvm;";
    let disk = format!("{params}rootfs=virtio-blk;thp=off");
    let machine = |workload| ("vm", disk.as_str(), workload);
    let idle = slope(&rows, machine("pause"), "memory.cgroup");
    let read = slope(&rows, machine("read=32"), "memory.cgroup");
    println!("vm: {idle:.1} MiB idle, {read:.1} MiB after reading");
    assert!(read - idle > 24.0, "each holds its own: {idle} to {read}");
    let image = by_step(&rows, machine("read=32"), "memory.file.cached");
    let held: Vec<f64> = image.iter().map(|(_, bytes)| bytes / MIB).collect();
    assert!(held.len() == 2 && held.iter().all(|mib| (32.0..48.0).contains(mib)), "{held:?}");
    // The snapshot has the file, and all clones map it.
    let clone =
        |workload| ("vm", "accel=tcg;kernel=tuned;machine=microvm;start=clone;thp=off", workload);
    let idle = slope(&rows, clone("pause"), "memory.cgroup");
    let read = slope(&rows, clone("read=32"), "memory.cgroup");
    println!("clones: {idle:.1} MiB idle, {read:.1} MiB after reading");
    assert!(read - idle < 8.0, "one more clone holds no copy: {idle} to {read}");
    assert!(rows.iter().all(|row| row["outcome"] != "failed"), "a trial failed");
}

#[test]
fn every_kind_of_root_has_the_file() {
    let rows = measure(ROOTS);
    let tuned = "accel=tcg;kernel=tuned;machine=microvm";
    for params in [
        format!("{tuned};rootfs=9p"),
        "accel=tcg;kernel=distro;machine=q35;memory=256M;rootfs=virtio-blk".to_owned(),
        tuned.to_owned(),
    ] {
        let of: Vec<&Row> = rows.iter().filter(|row| row["params"] == params).collect();
        if let Some(row) = of.iter().find(|row| row["round"] == "0") {
            skip(&row["detail"]);
            continue;
        }
        // Each proved what it had read.
        assert!(of.iter().all(|row| row["outcome"] != "failed"), "{of:?}");
        let read = of.iter().any(|row| row["metric"] == "memory.pss" && row["outcome"] == "ok");
        assert!(read, "{params}: {of:?}");
    }
}

/// Runs one cell of processes with a cache folder of its own.
fn processes(cache: &Path, out: &Path) -> Vec<Row> {
    let spec = cache.join("spec.toml");
    let text = "[rounds]\nmemory = 1\n[[cells]]\nbackend = \"process\"\nmemory = [\"read=1\"]\n";
    fs::write(&spec, text).expect("spec");
    let mut command = unladen();
    command.args(["run", "--no-report", "--out"]).args([out, &spec]);
    let output = run(command.env("XDG_CACHE_HOME", cache));
    assert!(out.join("samples.csv").exists(), "{}", stderr(&output));
    samples(out)
}

#[test]
fn a_file_that_is_not_what_it_should_be_is_no_proof_of_work() {
    // Beside the command: /tmp may be in memory, where no page can be let go.
    let beside = Path::new(env!("CARGO_BIN_EXE_unladen")).parent().expect("folder");
    let folder = tempfile::tempdir_in(beside).expect("folder");
    let rows = processes(folder.path(), &folder.path().join("first"));
    assert!(!common::values(&rows, "process", "memory.pss").is_empty(), "{rows:?}");
    let file = folder.path().join("unladen/data/read-1");
    let data = File::options().write(true).open(file).expect("the file");
    data.write_all_at(&[0; 8], 200 * 4096).expect("damaged");
    let rows = processes(folder.path(), &folder.path().join("second"));
    let failed: Vec<&Row> = rows.iter().filter(|row| row["outcome"] == "failed").collect();
    assert!(!failed.is_empty(), "{rows:?}");
    assert!(failed.iter().all(|row| row["detail"].contains("proof of work")), "{failed:?}");
}
