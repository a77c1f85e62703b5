//! `run --precision`: start-up cells go on until their ratios are known.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test says what went wrong by panicking"
)]

mod common;

use std::path::Path;

use common::{manifest, run, samples, stderr, unladen};

/// Containers beside the null backend; how many rounds were run, and what the
/// command said.
fn rounds(dir: &Path, precision: &str, max_rounds: &str) -> (u32, String) {
    let mut command = unladen();
    command.args(["run", "quick", "--backend", "container", "--experiment", "startup"]);
    command.args(["--workload", "exit", "--rounds", "6", "--no-report"]);
    command.args(["--precision", precision, "--max-rounds", max_rounds]).arg("--out").arg(dir);
    let output = run(&mut command);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(manifest(dir)["state"], "complete");
    let rounds = samples(dir).iter().map(|row| row["round"].parse().expect("a number")).max();
    (rounds.expect("rows"), stderr(&output))
}

#[test]
fn a_run_ends_when_it_knows_enough_or_gives_up() {
    let dir = tempfile::tempdir().expect("folder");
    // Within a factor of two is soon known.
    let (enough, words) = rounds(&dir.path().join("rough"), "100%", "90");
    assert!((6..90).contains(&enough), "{enough} rounds: {words}");
    let (all, words) = rounds(&dir.path().join("fine"), "0.1%", "8");
    assert_eq!(all, 8);
    assert!(words.contains("not known as well as --precision asks for"), "{words}");
}
