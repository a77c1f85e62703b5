//! Made-up runs and noise for tests. No test depends on the machine.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::record::{
    ArtefactFact, CellFact, CellKey, Clock, HostFact, Manifest, Metric, Outcome, RunState,
    SCHEMA_VERSION, Sample, Version,
};

/// Random numbers from a seed.
pub(crate) struct Noise(ChaCha8Rng);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Between 0 and 1, both excluded.
    pub(crate) fn uniform(&mut self) -> f64 {
        (f64::from(self.0.next_u32()) + 0.5) / 4_294_967_296.0
    }

    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Around 1, with the given spread of its logarithm.
    pub(crate) fn lognormal(&mut self, spread: f64) -> f64 {
        (spread * self.normal()).exp()
    }
}

/// A cell from `experiment backend workload params`.
pub(crate) fn key(text: &str) -> CellKey {
    let parts: Vec<&str> = text.split(' ').collect();
    let name = |index: usize| serde_json::Value::String(parts[index].to_owned());
    CellKey {
        experiment: serde_json::from_value(name(0)).expect("experiment"),
        backend: serde_json::from_value(name(1)).expect("backend"),
        workload: parts[2].parse().expect("workload"),
        params: parts.get(3).unwrap_or(&"").parse().expect("params"),
    }
}

/// A measured value.
pub(crate) fn ok(cell: &CellKey, round: u32, metric: &str, value: f64) -> Sample {
    Sample {
        round,
        trial: round,
        step: None,
        cell: cell.clone(),
        metric: metric.parse().expect("metric"),
        clock: Clock::Mock,
        value: Some(value),
        outcome: Outcome::Ok,
        detail: String::new(),
    }
}

/// A failed trial.
pub(crate) fn failed(cell: &CellKey, round: u32, metric: &str, why: &str) -> Sample {
    Sample {
        value: None,
        outcome: Outcome::Failed,
        detail: why.to_owned(),
        ..ok(cell, round, metric, 0.0)
    }
}

/// A value of a density ladder.
pub(crate) fn at_step(cell: &CellKey, round: u32, step: u32, metric: &str, value: f64) -> Sample {
    Sample { step: Some(step), ..ok(cell, round, metric, value) }
}

/// A manifest of these cells.
pub(crate) fn manifest(cells: &[CellKey], rounds: u32) -> Manifest {
    let fact = |cell: &CellKey| CellFact {
        cell: cell.clone(),
        rounds,
        outcome: Outcome::Ok,
        detail: String::new(),
        command: vec![format!("unladen-payload {}", cell.workload)],
        accelerator: cell.params.get("accel").map(str::to_owned),
    };
    let host =
        |name: &str, value: &str| HostFact { name: name.to_owned(), value: value.to_owned() };
    Manifest {
        schema: SCHEMA_VERSION,
        run_id: "20260102-030405-abcd".to_owned(),
        state: RunState::Complete,
        started: "2026-01-02T03:04:05Z".to_owned(),
        ended: Some("2026-01-02T03:07:05Z".to_owned()),
        argv: ["unladen", "run", "quick", "--out", "a b"].map(str::to_owned).to_vec(),
        spec_name: "quick".to_owned(),
        spec_text: "[[cell]]\nbackend = \"process\"\n".to_owned(),
        overrides: std::collections::BTreeMap::new(),
        seed: 42,
        cells: cells.iter().map(fact).collect(),
        order: Vec::new(),
        host_before: vec![host("cpu.model", "Example CPU 3000"), host("load.1", "0.10")],
        host_after: vec![host("cpu.model", "Example CPU 3000"), host("load.1", "1.90")],
        labels: vec!["TCG (software emulation)".to_owned(), "nested".to_owned()],
        versions: vec![Version { name: "qemu".to_owned(), version: "9.9.9".to_owned() }],
        artefacts: vec![ArtefactFact {
            role: "payload".to_owned(),
            name: "unladen-payload".to_owned(),
            sha256: "ab".repeat(32),
            bytes: 9_000,
        }],
        settings_changed: Vec::new(),
        does: std::collections::BTreeMap::new(),
        warnings: Vec::new(),
    }
}

/// The arms of [`realistic`]: parameters and how their times and bytes compare.
const ARMS: [(&str, &str, f64, f64); 5] = [
    ("process", "", 0.11e6, 0.02),
    ("process", "control=1", 0.11e6, 0.02),
    ("container", "", 1.1e6, 0.05),
    ("vm", "accel=tcg;kernel=tuned;machine=microvm", 420e6, 32.0),
    ("vm", "accel=tcg;kernel=tuned;machine=q35", 690e6, 38.0),
];

/// A run like a real one: five arms and one skipped, four workloads at
/// start-up, memory and a density ladder, with a few failed trials.
pub(crate) fn realistic(rounds: u32) -> (Manifest, Vec<Sample>) {
    let mut noise = Noise::new(1);
    let mut cells = Vec::new();
    let mut samples = Vec::new();
    for workload in ["exit", "pause", "touch=64", "http"] {
        for (backend, params, ready, _) in ARMS {
            let cell = key(&format!("startup {backend} {workload} {params}"));
            (1..=rounds).for_each(|round| startup(&mut samples, &mut noise, &cell, round, ready));
            cells.push(cell);
        }
    }
    for (backend, params, _, mib) in ARMS {
        let cell = key(&format!("memory {backend} pause {params}"));
        (1..=rounds).for_each(|round| memory(&mut samples, &mut noise, &cell, round, mib));
        cells.push(cell);
        if params != "control=1" {
            let cell = key(&format!("density {backend} pause {params}"));
            density(&mut samples, &mut noise, &cell, mib);
            cells.push(cell);
        }
    }
    let skipped = key("startup vm exit accel=kvm;kernel=tuned;machine=microvm");
    cells.push(skipped.clone());
    let mut manifest = manifest(&cells, rounds);
    let fact = manifest.cells.last_mut().expect("cells");
    fact.outcome = Outcome::Skipped;
    fact.detail = "the guest never reached init under KVM within 9 s".to_owned();
    fact.rounds = 0;
    samples.push(Sample {
        round: 0,
        trial: 0,
        value: None,
        outcome: Outcome::Skipped,
        detail: fact.detail.clone(),
        ..ok(&skipped, 0, "startup.ready", 0.0)
    });
    (manifest, samples)
}

fn startup(samples: &mut Vec<Sample>, noise: &mut Noise, cell: &CellKey, round: u32, ready: f64) {
    let vm = ready > 1e8;
    if vm && round == 7 && cell.workload.to_string() == "http" {
        samples.push(ok(cell, round, "startup.spawned", 61_000.0));
        samples.push(failed(cell, round, "startup.kernel", "no output within 10 s"));
        return;
    }
    let scale = noise.lognormal(0.05) * if round == 3 { 1.8 } else { 1.0 };
    let mut push = |metric: &str, at: f64| samples.push(ok(cell, round, metric, at.round()));
    let work = if cell.workload.to_string() == "touch=64" { 9e6 } else { 0.0 };
    let end = ready * scale + work;
    let spawned = (if vm { 90_000.0 } else { 45_000.0 }) * noise.lognormal(0.04);
    push("startup.spawned", spawned);
    if vm {
        push("startup.vmm_ready", 0.09 * ready * scale);
        push("startup.kernel", 0.21 * ready * scale);
        push("startup.init", 0.96 * ready * scale);
    } else {
        push("startup.init", spawned + (ready * scale - spawned).max(1e4) * 0.9);
    }
    push("startup.ready", end.max(spawned + 3e4));
    let exit = if vm { 2.1e6 } else { 60_000.0 } * noise.lognormal(0.1);
    let gone = exit + if ready < 1e6 { 9_000.0 } else { 350_000.0 } * noise.lognormal(0.2);
    if cell.workload.to_string() == "exit" {
        let ready = end.max(spawned + 3e4);
        push("startup.exited", ready + exit);
        push("startup.gone", ready + gone);
    } else {
        push("stop.exited", exit);
        push("stop.gone", gone);
    }
    if cell.workload.to_string() == "http" {
        push("http.answer", if vm { 300_000.0 } else { 21_000.0 } * noise.lognormal(0.1));
    }
}

fn memory(samples: &mut Vec<Sample>, noise: &mut Noise, cell: &CellKey, round: u32, mib: f64) {
    let shares = [("pss", 1.0), ("uss", 0.8), ("rss", 1.3), ("cgroup", 1.15), ("peak", 1.4)];
    for (ledger, share) in shares {
        let metric = format!("memory.{ledger}");
        if ledger == "cgroup" && mib < 0.03 {
            samples.push(Sample {
                value: None,
                outcome: Outcome::Skipped,
                detail: "the memory controller is not delegated".to_owned(),
                ..ok(cell, round, &metric, 0.0)
            });
        } else {
            let bytes = mib * share * 1_048_576.0 * noise.lognormal(0.01);
            samples.push(ok(cell, round, &metric, (bytes / 4096.0).ceil() * 4096.0));
        }
    }
}

fn density(samples: &mut Vec<Sample>, noise: &mut Noise, cell: &CellKey, mib: f64) {
    let top = if mib > 1.0 { 8 } else { 64 };
    let start = if mib > 1.0 { 430e6 } else { mib * 2.2e7 };
    let mut step = 1;
    while step <= top {
        for (ledger, share, fixed) in [("pss", 1.0, 0.3), ("cgroup", 1.15, 0.1), ("host", 1.3, 5.0)]
        {
            let bytes =
                (f64::from(step) * mib * share * noise.lognormal(0.01) + fixed) * 1_048_576.0;
            samples.push(at_step(cell, 1, step, &format!("memory.{ledger}"), bytes.round()));
        }
        let start = start * (1.0 + f64::from(step) / 40.0) * noise.lognormal(0.03);
        samples.push(at_step(cell, 1, step, "density.start", start.round()));
        step *= 2;
    }
    samples.push(Sample {
        detail: if mib > 1.0 { "memory floor" } else { "cap of the spec" }.to_owned(),
        ..at_step(cell, 1, top, "density.instances", f64::from(top))
    });
}

/// The metric of a name, for short tests.
pub(crate) fn metric(name: &str) -> Metric {
    name.parse().expect("metric")
}
