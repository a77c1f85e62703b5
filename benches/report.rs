//! One million samples: how long summary, figures and page take, and how much
//! memory at most. `cargo bench --bench report`. Fails beyond 5 s or 500 MB.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench says what went wrong by panicking, and prints what it measured"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use unladen::record::{
    BackendName, CellFact, CellKey, Experiment, Manifest, Outcome, RunState, SCHEMA_VERSION,
};
use unladen::{report, stats::Summary, store};

/// Rounds of each of the ten cells, with ten marks in a trial: a million
/// samples, or a thousandth of them where it is only tried (`-- --test`).
fn rounds() -> u32 {
    if is_tried() { 10 } else { 10_000 }
}

/// Whether cargo only wants to know that this works.
fn is_tried() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

const SECONDS: f64 = 5.0;
const BYTES: u64 = 500_000_000;

const ARMS: [(BackendName, &str, f64); 5] = [
    (BackendName::Process, "", 1.0),
    (BackendName::Process, "control=1", 1.0),
    (BackendName::Container, "", 4.0),
    (BackendName::Container, "userns=yes", 5.0),
    (BackendName::Vm, "kernel=tuned;machine=microvm", 900.0),
];
const METRICS: [&str; 10] = [
    "startup.cgroup",
    "startup.cloned",
    "startup.set_up",
    "startup.spawned",
    "startup.init",
    "startup.ready",
    "startup.exited",
    "startup.removed",
    "startup.gone",
    "settle.wait",
];

fn cells() -> Vec<(CellKey, f64)> {
    let workloads = ["exit", "exit=7"];
    let cell = |(backend, params, scale): (BackendName, &str, f64), workload: &str| {
        let key = CellKey {
            experiment: Experiment::Startup,
            backend,
            workload: workload.parse().expect("a workload"),
            params: params.parse().expect("parameters"),
        };
        (key, scale)
    };
    workloads.iter().flat_map(|workload| ARMS.map(|arm| cell(arm, workload))).collect()
}

/// The rows as the store writes them; its `append_trial` syncs each trial to
/// the disk, which is not what is measured here.
fn rows(cells: &[(CellKey, f64)], run_id: &str, to: &mut dyn Write) {
    let mut noise = ChaCha8Rng::seed_from_u64(1);
    let mut trial = 0;
    for round in 1..=rounds() {
        for (cell, scale) in cells {
            trial += 1;
            for (place, metric) in METRICS.iter().enumerate() {
                let spread = 1.0 + f64::from(noise.next_u32()) / f64::from(u32::MAX) / 20.0;
                let value = (1e5 * scale * (place + 1) as f64 * spread).round();
                let CellKey { backend, workload, params, .. } = cell;
                writeln!(
                    to,
                    "{run_id},{round},{trial},{},,startup,{backend},{workload},{params},{metric},ns,\
                     monotonic,{value},ok,",
                    METRICS.len()
                )
                .expect("written");
            }
        }
    }
}

fn manifest(cells: &[(CellKey, f64)]) -> Manifest {
    let fact = |(cell, _): &(CellKey, f64)| CellFact {
        cell: cell.clone(),
        rounds: rounds(),
        outcome: Outcome::Ok,
        detail: String::new(),
        command: vec!["unladen-payload".to_owned()],
        accelerator: None,
    };
    Manifest {
        schema: SCHEMA_VERSION,
        run_id: "20260102-030405-abcdef".to_owned(),
        state: RunState::Complete,
        started: "2026-01-02T03:04:05Z".to_owned(),
        ended: Some("2026-01-02T04:04:05Z".to_owned()),
        argv: vec!["unladen".to_owned(), "run".to_owned()],
        spec_name: "made up".to_owned(),
        spec_text: String::new(),
        overrides: BTreeMap::new(),
        seed: 1,
        cells: cells.iter().map(fact).collect(),
        order: (1..=rounds()).map(|_| (0..cells.len()).collect()).collect(),
        host_before: Vec::new(),
        host_after: Vec::new(),
        labels: Vec::new(),
        versions: Vec::new(),
        artefacts: Vec::new(),
        settings_changed: Vec::new(),
        does: BTreeMap::new(),
        warnings: Vec::new(),
    }
}

/// The most memory that this process ever had resident, in bytes.
fn peak() -> u64 {
    let status = procfs::process::Process::myself().and_then(|process| process.status());
    1024 * status.expect("status").vmhwm.expect("VmHWM")
}

/// Writes the run's folder in a process of its own: what is measured then
/// begins, as `unladen report` does, with nothing in memory.
fn write(dir: &std::path::Path) {
    let cells = cells();
    let manifest = manifest(&cells);
    drop(store::RunWriter::create(dir, &manifest).expect("a folder"));
    let file = File::options().append(true).open(dir.join("samples.csv")).expect("opened");
    let mut file = BufWriter::new(file);
    rows(&cells, &manifest.run_id, &mut file);
    file.flush().expect("written");
}

fn main() {
    if let Some(dir) = std::env::var_os("UNLADEN_BENCH_WRITE") {
        return write(dir.as_ref());
    }
    let dir = tempfile::tempdir().expect("folder");
    let run = dir.path().join("run");
    let mut writer = std::process::Command::new(std::env::current_exe().expect("own file"));
    writer.args(std::env::args_os().skip(1)).env("UNLADEN_BENCH_WRITE", &run);
    let status = writer.status().expect("started");
    assert!(status.success(), "the samples could not be written");

    let begun = Instant::now();
    let data = store::read_run(&run).expect("read");
    println!(
        "read:            {:6.2} s, peak {} MB",
        begun.elapsed().as_secs_f64(),
        peak() / 1_000_000
    );
    let summarised = Instant::now();
    let summary = Summary::build(&data.manifest, &data.samples);
    println!("summary alone:   {:6.2} s", summarised.elapsed().as_secs_f64());
    let samples = usize::try_from(rounds()).expect("few") * 100;
    assert_eq!((data.samples.len(), summary.cells.len()), (samples, 10));
    drop(summary);
    let reported = Instant::now();
    report::write_run_folder(&run, &data.manifest, &data.samples).expect("a report");
    let seconds = reported.elapsed().as_secs_f64();
    let peak = peak();
    println!("summary and page:{seconds:6.2} s, peak {} MB", peak / 1_000_000);
    if is_tried() {
        return;
    }
    assert!(seconds < SECONDS, "{seconds:.2} s is more than {SECONDS} s");
    assert!(peak < BYTES, "{peak} bytes are more than {BYTES}");
}
