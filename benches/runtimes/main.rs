//! This project's container command beside other runtimes: the same program,
//! the same root filesystem and, for those that read one, the same
//! `config.json`, started in random order in each round of one run.
//! `scripts/compare-runtimes.sh`, or `cargo bench --bench runtimes`.
//!
//! Measured is the whole command, from the call that makes its process to the
//! moment when it is reaped; and, beside it, what happens inside a program
//! that uses this crate: from the request to the payload's first instruction,
//! against a container made by hand.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a bench says what went wrong by panicking, and prints what it found"
)]

mod arms;
mod bundle;
#[path = "../floor/mod.rs"]
mod floor;
mod leftovers;
mod measure;
mod observe;
mod program;
mod results;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Parser;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use unladen::host::RunId;

use self::arms::{Arm, CONTROL, OURS, SPAWN, SPAWN_NAP, UNLIMITED};
use self::bundle::{Bundles, Job};
use self::floor::start::{Kind, Starts};
use self::measure::{External, Taken};
use self::results::{Line, Row, Trials};

/// Compares container runtimes on this host
#[derive(Debug, Parser)]
#[command(name = "runtimes")]
struct Options {
    /// Trials of each arm
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
    /// What the containers run: `true`, three instructions without a C library, or `busybox`
    #[arg(long, default_value = "true", value_parser = ["true", "busybox"])]
    job: String,
    /// Another build of this project's command to measure
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_unladen"))]
    unladen: PathBuf,
    /// Only these runtimes (repeatable)
    #[arg(long = "only", value_name = "NAME")]
    only: Vec<String>,
    /// Seed of the order, and of the intervals (default: random)
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds that one command may take
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    deadline: u64,
    /// Write every trial to this file, with the columns of a run's samples.csv
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Only try each arm once (cargo passes this with `cargo bench -- --test`)
    #[arg(long, hide = true)]
    test: bool,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
    /// Passed by cargo: the names of benches to run
    #[arg(hide = true)]
    filter: Option<String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.filter.as_ref().is_some_and(|filter| !"runtimes".contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: the comparison needs root, since most of its runtimes do for limits");
        return ExitCode::from(3);
    }
    let rounds = if options.test { 1 } else { options.rounds };
    let run_id = RunId::new(SystemTime::now()).expect("random bytes").to_string();
    let seed = options.seed.unwrap_or_else(|| unladen::host::random_u64().expect("random bytes"));
    let (mut arms, missing) = arms::all(&options.unladen);
    if !options.only.is_empty() {
        let always = [OURS, CONTROL, UNLIMITED, SPAWN, SPAWN_NAP];
        arms.retain(|arm| {
            always.contains(&arm.name) || options.only.iter().any(|name| name == arm.name)
        });
    }
    for (name, reason) in &missing {
        eprintln!("skipped: {name}: {reason}");
    }
    let job = if options.job == "busybox" { Job::Busybox } else { Job::True };
    if job == Job::Busybox && bundle::busybox().is_none() {
        eprintln!("no static busybox on this host; install it with: scripts/setup.sh --for test");
        return ExitCode::from(3);
    }
    let mut comparison = Comparison {
        deadline: Duration::from_secs(options.deadline),
        bundles: Bundles::write(),
        run_id,
        seed,
        job,
        arms,
        rows: Vec::new(),
        trials: BTreeMap::new(),
    };
    comparison.describe();
    comparison.measure(rounds);
    comparison.report();
    if let Some(out) = &options.out {
        let written = results::write(out, &comparison.run_id, &comparison.rows);
        written.unwrap_or_else(|error| panic!("cannot write {}: {error}", out.display()));
    }
    comparison.finish()
}

/// One comparison.
struct Comparison {
    run_id: String,
    seed: u64,
    job: Job,
    deadline: Duration,
    bundles: Bundles,
    arms: Vec<Arm>,
    rows: Vec<Row>,
    trials: BTreeMap<&'static str, Trials>,
}

/// Something that is measured once in each round.
#[derive(Clone, Copy)]
enum Cell {
    /// The arm of this index.
    Command(usize),
    Start(Kind),
}

impl Comparison {
    /// Says what will be measured, and looks once at what each arm does.
    fn describe(&self) {
        println!("run {}, seed {}, job `{}`", self.run_id, self.seed, self.job.name());
        println!("\nWhat each arm does, as seen from outside in a container of it:\n");
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header([
            "",
            "version",
            "namespaces",
            "cgroups",
            "mounts",
            "seccomp filters",
            "no_new_privs",
            "capabilities",
            "processes beside it",
        ]);
        for arm in self
            .arms
            .iter()
            .filter(|arm| arm.name != CONTROL && arm.job != Some(Job::Nap) || arm.name == "youki")
        {
            let id = format!("{}-{}-look", self.run_id, slug(arm.name));
            match observe::look(arm, &self.bundles, &id, self.deadline) {
                Ok(seen) => table.add_row([
                    arm.name.to_owned(),
                    arm.version.clone(),
                    list(&seen.namespaces),
                    list(&seen.cgroups),
                    seen.mounts.to_string(),
                    seen.filters.to_string(),
                    if seen.no_new_privileges { "yes" } else { "no" }.to_owned(),
                    seen.capabilities.to_string(),
                    seen.beside.to_string(),
                ]),
                Err(reason) => table.add_row([arm.name.to_owned(), arm.version.clone(), reason]),
            };
        }
        println!("{table}");
        for arm in self.arms.iter().filter(|arm| !arm.remark.is_empty()) {
            println!("\n{}: {}", arm.name, arm.remark);
        }
    }

    /// All rounds: every cell once in each, in a fresh random order.
    fn measure(&mut self, rounds: u32) {
        let mut starts = match Starts::new(&format!("{}-in", self.run_id)) {
            Ok(starts) => Some(starts),
            Err(reason) => {
                println!("\nno starts within a program: {reason}");
                None
            }
        };
        let mut cells: Vec<Cell> = (0..self.arms.len()).map(Cell::Command).collect();
        if starts.is_some() {
            cells.extend(Kind::ALL.map(Cell::Start));
        }
        let mut order = ChaCha8Rng::seed_from_u64(self.seed);
        let mut trial = 0;
        // Round 0 fills caches and is not counted.
        for round in 0..=rounds {
            cells.shuffle(&mut order);
            for cell in &cells {
                trial += 1;
                let (name, metric, taken) = match (*cell, &mut starts) {
                    (Cell::Command(index), _) => {
                        let arm = &self.arms[index];
                        (arm.name, "startup.exited", self.run(arm, round))
                    }
                    (Cell::Start(kind), Some(starts)) => {
                        (kind.name(), "startup.init", starts.start(kind))
                    }
                    (Cell::Start(_), None) => continue,
                };
                if round == 0 {
                    continue;
                }
                let workload = self.workload(*cell).to_owned();
                let params = String::new();
                let backend = slug(name);
                let row =
                    Row { round, trial, backend, workload, params, metric, taken: taken.clone() };
                self.rows.push(row);
                self.trials.entry(name).or_default().insert(round, taken);
            }
        }
    }

    fn workload(&self, cell: Cell) -> &'static str {
        match cell {
            Cell::Command(index) => self.arms[index].job(self.job).name(),
            Cell::Start(_) => "exit",
        }
    }

    /// One container of one arm.
    fn run(&self, arm: &Arm, round: u32) -> Taken {
        let id = format!("{}-{}-{round}", self.run_id, slug(arm.name));
        let mut external = External::of(arm, &self.bundles, arm.job(self.job), &id);
        let taken = external.run(self.deadline);
        if taken.is_err()
            && let Some(command) = arm.clean_up(&self.bundles, &id)
        {
            // What it says does not matter: what is left is looked for at the end.
            let _ = External::new(&command, arm.hide_unified).run(self.deadline);
        }
        taken
    }

    /// The tables.
    fn report(&self) {
        let none = Trials::new();
        let of = |name: &str| self.trials.get(name).unwrap_or(&none);
        // What a nap costs a plain process, beyond a program that ends at once.
        let nap = results::median_of(of(SPAWN_NAP))
            .zip(results::median_of(of(SPAWN)))
            .map_or(0.0, |(nap, plain)| nap - plain);
        let less = |arm: &Arm| {
            if arm.job == Some(Job::Nap) && arm.name != SPAWN_NAP { nap } else { 0.0 }
        };
        let lines: Vec<Line<'_>> = self
            .arms
            .iter()
            .map(|arm| Line { name: arm.name, trials: of(arm.name), less: less(arm) })
            .collect();
        println!("\nThe whole command, from the call that makes its process until it is reaped:\n");
        println!("{}", results::table(&lines, of(OURS), OURS, self.seed));
        if self.arms.iter().any(|arm| less(arm) > 0.0) {
            println!("\nSubtracted from arms whose program naps: {:.3} ms.", nap / 1e6);
        }
        let kinds: Vec<Line<'_>> = Kind::ALL
            .iter()
            .map(|kind| Line { name: kind.name(), trials: of(kind.name()), less: 0.0 })
            .collect();
        let floor = Kind::Floor.name();
        println!("\nWithin a program, from the request to the payload's first instruction:\n");
        println!("{}", results::table(&kinds, of(floor), "floor", self.seed));
        for (name, trials) in &self.trials {
            print!("{}", results::failures(name, trials));
        }
    }

    /// Looks for what is left, and says how it went.
    fn finish(self) -> ExitCode {
        let left = leftovers::find(&self.run_id, self.bundles.folder());
        for thing in &left {
            eprintln!("left behind: {thing}");
        }
        leftovers::remove(&left);
        let failed = self.rows.iter().any(|row| row.taken.is_err());
        ExitCode::from(u8::from(failed || !left.is_empty()))
    }
}

/// A name without spaces and commas.
fn slug(name: &str) -> String {
    name.replace(", ", "-").replace(' ', "-")
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}
