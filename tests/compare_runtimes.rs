//! The comparison with other runtimes, for real: every one of them that can
//! be had completes its rounds, the table and the file say so, and nothing of
//! any of them is left.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use common::{is_root, skip as skipped, stderr, stdout};

/// Everything that the comparison knows.
const PEERS: [&str; 5] = ["runc", "crun", "youki", "bwrap", "unshare"];
/// Arms that are always there.
const OWN: [&str; 8] = [
    "unladen",
    "unladen-again",
    "unladen-no-limits",
    "spawn",
    "spawn-nap",
    "floor-by-hand",
    "unladen-direct",
    "unladen-prepared",
];
const ROUNDS: usize = 3;
/// Now and then its `run` waits for ever for a program that has ended; that
/// it is killed then and reported is a part of what is tested.
const KNOWN_TO_HANG: &str = "youki";

fn script(name: &str) -> Command {
    let mut command =
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name));
    command.stdin(std::process::Stdio::null());
    command
}

/// The bench, in the profile in which it is built for tests.
fn comparison(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["bench", "--quiet", "--locked", "--profile", "dev", "--bench", "runtimes", "--"])
        .args(arguments)
        .output()
        .expect("cargo starts")
}

#[test]
fn every_runtime_completes_its_rounds_and_leaves_nothing() {
    if !is_root() {
        return skipped("most runtimes need root to set limits");
    }
    let check = script("peers/setup.sh")
        .args(["--check", "runc", "crun", "bwrap", "unshare", "youki"])
        .output()
        .expect("the script starts");
    if !check.status.success() {
        skipped(&format!("not installed: {}; see scripts/peers/setup.sh", stdout(&check)));
    }
    let missing: BTreeSet<String> = stdout(&check).lines().map(str::to_owned).collect();
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("runtimes.csv");
    let rounds = ROUNDS.to_string();
    let file_name = file.to_str().expect("text");
    // A loaded host must not make a slow one look like one that hangs.
    let options = ["--rounds", &rounds, "--seed", "7", "--deadline", "30", "--out", file_name];
    let output = comparison(&options);
    let (text, errors) = (stdout(&output), stderr(&output));
    // 1 stands for trials that failed, of which there may be those of KNOWN_TO_HANG.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{text}\n{errors}");
    let mut expected: BTreeSet<String> = OWN.map(str::to_owned).into();
    expected.extend(PEERS.map(str::to_owned).into_iter().filter(|name| !missing.contains(name)));
    let mut reader = csv::Reader::from_path(&file).expect("the file");
    let rows: Vec<BTreeMap<String, String>> =
        reader.deserialize().map(|row| row.expect("a row")).collect();
    let measured: BTreeSet<String> = rows.iter().map(|row| row["backend"].clone()).collect();
    assert_eq!(measured, expected, "{text}\n{errors}");
    for name in &expected {
        let own: Vec<_> = rows.iter().filter(|row| row["backend"] == *name).collect();
        assert_eq!(own.len(), ROUNDS, "{name}");
        let (good, bad): (Vec<_>, Vec<_>) = own.iter().partition(|row| row["outcome"] == "ok");
        assert!(!good.is_empty(), "{name} never worked: {bad:?}");
        let hung = |row: &&&BTreeMap<String, String>| row["detail"].starts_with("did not end");
        let excused = bad.iter().filter(hung).count();
        assert!(bad.len() == if name == KNOWN_TO_HANG { excused } else { 0 }, "{name}: {bad:?}");
        for row in good {
            let value: u64 = row["value"].parse().expect("a time");
            // Ten microseconds to a minute: a time and not an error in units.
            assert!((10_000..60_000_000_000).contains(&value), "{row:?}");
            assert_eq!(row["unit"], "ns");
        }
    }
    for name in PEERS.iter().filter(|name| !missing.contains(**name)) {
        let start = format!("| {name} ");
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(&start)).collect();
        // Once for what it does, once for how long it takes.
        assert_eq!(lines.len(), 2, "{name}: {text}");
        assert!(lines[0].contains("pid"), "{name} was looked at: {}", lines[0]);
        assert!(lines[1].ends_with(&format!(" of {ROUNDS} |")), "{}", lines[1]);
    }
    assert!(!errors.contains("left behind"), "{errors}");
    let run_id = rows[0]["run_id"].as_str();
    assert_eq!(common::traces_of(run_id), Vec::<String>::new());
    let state = folder_names(Path::new("/run")).into_iter().filter(|name| name.contains(run_id));
    assert_eq!(state.collect::<Vec<_>>(), Vec::<String>::new());
}

fn folder_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn scripts_say_how_they_are_used() {
    for name in ["compare-runtimes.sh", "peers/setup.sh", "peers/teardown.sh"] {
        let help = script(name).arg("--help").output().expect("the script starts");
        assert!(help.status.success() && stdout(&help).contains(name), "{name}");
        let wrong = script(name).arg("--no-such-flag").output().expect("the script starts");
        assert_eq!(wrong.status.code(), Some(2), "{name}");
    }
    let wrong = script("peers/setup.sh").arg("nobody").output().expect("the script starts");
    assert_eq!(wrong.status.code(), Some(2));
    for arguments in [["--rounds", "0"], ["--job", "sleep"], ["--deadline", "x"]] {
        let wrong = script("compare-runtimes.sh").args(arguments).output().expect("it starts");
        assert_eq!(wrong.status.code(), Some(2), "{arguments:?}");
    }
}
