//! Random starts, kills and stops of many containers at once, often by
//! killing their runner with SIGKILL: at the end nothing is left, and a
//! neighbour lives on.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test says what went wrong by panicking"
)]

mod common;
mod engine;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use common::{is_root, run, skip, stderr, unladen, wait_until};
use engine::{Engine, PATIENCE, cgroups_of, first_process, state_of};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Every sequence of starts, kills and stops is the same for one seed.
const SEED: u64 = 20_261_123;
const SEQUENCES: usize = 500;
/// Containers at a time.
const TOGETHER: usize = 8;

/// One container on its way.
struct Victim {
    child: Child,
    /// Its first process, if it was seen.
    inside: Option<u32>,
    runner: u32,
}

fn start(engine: &Engine, random: &mut ChaCha8Rng) -> Victim {
    let mut flags = vec!["--readonly"];
    if random.random_bool(0.5) {
        flags.extend(["--pids", "50"]);
    }
    if random.random_bool(0.3) {
        flags.extend(["--memory", "64M", "--cpus", "1"]);
    }
    if random.random_bool(0.2) {
        flags[0] = "--overlay";
    }
    if random.random_bool(0.1) {
        flags.push("--rootless");
    }
    let script = match random.random_range(0..4) {
        0 => "exit 3",
        1 => "trap 'exit 0' TERM; while :; do sleep 0.01; done",
        2 => "sleep 1000 & sleep 1000 & wait",
        _ => "exec sleep 1000",
    };
    let mut command = engine.sh(&flags, script);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("started");
    let runner = child.id();
    Victim { child, inside: None, runner }
}

/// A process that does not outlive a test that failed.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Something happens to it at some moment of its life.
fn strike(victim: &mut Victim, random: &mut ChaCha8Rng) {
    std::thread::sleep(Duration::from_micros(random.random_range(0..150_000)));
    victim.inside = first_process(victim.runner);
    let ended = |victim: &mut Victim| victim.child.try_wait().expect("asked").is_some();
    match random.random_range(0..6) {
        // The runner is killed at any moment, also before its container is there.
        0..=2 => drop(victim.child.kill()),
        3 if !ended(victim) => {
            engine::kill(victim.runner, "TERM");
            std::thread::sleep(Duration::from_millis(2));
            // A command that does not care is ended by its runner's end.
            drop(victim.child.kill());
        }
        4 if !ended(victim) => {
            engine::kill(victim.runner, "TSTP");
            std::thread::sleep(Duration::from_millis(1));
            drop(victim.child.kill());
        }
        _ => {
            if let Some(inside) = victim.inside.filter(|pid| state_of(*pid).is_some()) {
                // It may have ended since then, and its number is not given
                // to anybody else as long as its runner has not been reaped.
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(i32::try_from(inside).expect("a pid")),
                    nix::sys::signal::Signal::SIGKILL,
                );
            } else {
                drop(victim.child.kill());
            }
        }
    }
    victim.child.wait().expect("waited");
}

fn ids_of(folders: &[PathBuf]) -> BTreeSet<String> {
    let name =
        |folder: &PathBuf| folder.file_name().map(|name| name.to_string_lossy().into_owned());
    folders
        .iter()
        .filter_map(name)
        .filter_map(|name| name.strip_prefix("unladen-").map(str::to_owned))
        .collect()
}

#[test]
fn five_hundred_random_sequences_leave_nothing() {
    if !is_root() {
        return skip("control groups need root or delegation");
    }
    let engine = Engine::new();
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").expect("proc").lines().count();
    let files = (engine.files(), mounts());
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    // The neighbour lives from before the first to after the last.
    let mut command = engine.sh(&["--pids", "50", "--readonly"], "exec sleep 1000");
    let mut neighbour = Ended(command.spawn().expect("started"));
    let neighbour = &mut neighbour.0;
    assert!(wait_until(PATIENCE, || first_process(neighbour.id()).is_some()));
    let mut runners = BTreeSet::new();
    let mut insides = BTreeSet::new();
    for _ in 0..SEQUENCES.div_ceil(TOGETHER) {
        let seeds: Vec<u64> = (0..TOGETHER).map(|_| random.random()).collect();
        std::thread::scope(|scope| {
            let engine = &engine;
            let workers: Vec<_> = seeds
                .into_iter()
                .map(|seed| {
                    scope.spawn(move || {
                        let mut random = ChaCha8Rng::seed_from_u64(seed);
                        let mut victim = start(engine, &mut random);
                        strike(&mut victim, &mut random);
                        victim
                    })
                })
                .collect();
            for worker in workers {
                let victim = worker.join().expect("no panic");
                runners.insert(victim.runner);
                insides.extend(victim.inside);
            }
        });
    }
    assert!(insides.len() > SEQUENCES / 4, "only {} containers were seen", insides.len());
    // Processes die with their runner, a moment later. A number that somebody
    // else has by now is not one of ours: its root is the host's.
    let ours = |pid: &u32| {
        let root = std::fs::read_link(format!("/proc/{pid}/root"));
        state_of(*pid).is_some_and(|state| state != 'Z')
            && root.is_ok_and(|root| root != std::path::Path::new("/"))
    };
    assert!(wait_until(PATIENCE, || !insides.iter().any(ours)), "processes are left");
    let left: Vec<PathBuf> = runners.iter().flat_map(|runner| cgroups_of(*runner)).collect();
    for id in ids_of(&left) {
        let output = run(unladen().arg("clean").arg(&id));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    let left: Vec<PathBuf> = runners.iter().flat_map(|runner| cgroups_of(*runner)).collect();
    assert_eq!(left, Vec::<PathBuf>::new());
    // A sweep of everything dead would leave the neighbour alone.
    for id in ids_of(&cgroups_of(neighbour.id())) {
        assert_eq!(run(unladen().arg("clean").arg(&id)).status.code(), Some(0));
    }
    let inside = first_process(neighbour.id()).expect("the neighbour lives");
    assert!(!cgroups_of(neighbour.id()).is_empty());
    engine::kill(inside, "KILL");
    assert_eq!(neighbour.wait().expect("waited").code(), Some(137));
    assert_eq!(cgroups_of(neighbour.id()), Vec::<PathBuf>::new());
    assert_eq!((engine.files(), mounts()), files);
}
