//! Hostile programs in a container as `unladen container run` makes it: each
//! attack fails, each guard that stands against it stops it alone, and without
//! them it succeeds, so that each test would notice if its guard were gone.
//!
//! `cargo test --test container_hostile -- --nocapture` shows the set as a
//! table.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod hostile_set;
mod lab;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::{is_root, skip as skipped};
use hostile_set::scene::{Stage, Way};
use hostile_set::table::Finding;
use hostile_set::{Guard, Outcome, Row, Stop, rows};
use unladen::sys::pidfd::Exit;

/// The program of the attacks, where somebody has compiled it already.
fn program() -> Option<PathBuf> {
    std::env::var_os("HOSTILE").map(PathBuf::from)
}

/// Attacks of which the whole is tried here, guards on and off.
#[test]
fn every_attack_fails_and_succeeds_without_its_guards() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let mut stage = Stage::new(program());
    let rows = rows::all();
    let mut wrong = Vec::new();
    let mut findings: Vec<Finding<'_>> =
        rows.iter().map(|row| examine(&mut stage, row, &mut wrong)).collect();
    let rootless = rootless_results(&stage, &mut wrong);
    for finding in &mut findings {
        finding.rootless = rootless.get(finding.row.name).cloned();
        if finding.rootless.is_none() {
            wrong.push(format!("{}: nothing was said without root", finding.row.name));
        }
    }
    show(&findings);
    assert!(wrong.is_empty(), "{} of the results are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Tries one attack with all guards, with each alone, and with none.
fn examine<'a>(stage: &mut Stage, row: &'a Row, wrong: &mut Vec<String>) -> Finding<'a> {
    let mut complain = |what: &str, outcome: &Outcome| {
        wrong.push(format!("{}: {what}: {outcome} {outcome:?}", row.name));
    };
    let known: Vec<Stop> = row.guards.iter().map(|(_, stop)| *stop).collect();
    let guarded = stage.attempt(row, Way::Direct, &[]);
    let prepared = stage.attempt(row, Way::Prepared, &[]);
    for (way, outcome) in [("all guards", &guarded), ("all guards, prepared", &prepared)] {
        let absent = row.lacking.map(|(errno, _)| Stop::Refused(errno));
        if !outcome.stop().is_some_and(|stop| known.contains(&stop) || absent == Some(stop)) {
            complain(way, outcome);
        }
    }
    let every: Vec<Guard> = row.guards.iter().map(|(guard, _)| *guard).collect();
    let missing = every.iter().any(|guard| match guard {
        Guard::Without(capability) => !hostile_set::scene::may_give(*capability),
        _ => false,
    });
    if missing {
        let exception = Some("this host's root has not the capability either");
        let alone = row.guards.iter().map(|_| None).collect();
        return Finding { row, open: guarded.clone(), guarded, alone, exception, rootless: None };
    }
    let open = stage.attempt(row, Way::Direct, &every);
    let lacking = row.lacking.filter(|(errno, _)| open.stop() == Some(Stop::Refused(*errno)));
    if lacking.is_none() && open.stop().is_some() {
        complain("no guards", &open);
    }
    let mut alone = Vec::new();
    for (guard, expected) in &row.guards {
        // A kernel that lacks the feature refuses before some guards do.
        let others: Vec<Guard> = every.iter().copied().filter(|other| other != guard).collect();
        let outcome = stage.attempt(row, Way::Direct, &others);
        let shown = lacking.is_none() || outcome.stop() != open.stop();
        if shown && outcome.stop() != Some(*expected) {
            complain(&format!("{guard} alone"), &outcome);
        }
        alone.push(shown.then_some(outcome));
    }
    let exception = lacking.map(|(_, reason)| reason);
    Finding { row, guarded, alone, open, exception, rootless: None }
}

fn show(findings: &[Finding<'_>]) {
    eprintln!("{:<46} {:<28} without them", "attack", "with all guards");
    for finding in findings {
        for line in finding.lines() {
            eprintln!("{line}");
        }
    }
    let exceptions: Vec<_> = findings
        .iter()
        .filter_map(|finding| Some(format!("{} ({})", finding.row.name, finding.exception?)))
        .collect();
    let guards: usize = findings.iter().map(|finding| finding.row.guards.len()).sum();
    eprintln!("{} attacks, {guards} guards", findings.len());
    eprintln!("{} cannot succeed on this host: {}", exceptions.len(), exceptions.join("; "));
}

/// The results of an ordinary user, by the attack's name: from a copy of this
/// test that runs as one.
fn rootless_results(stage: &Stage, wrong: &mut Vec<String>) -> BTreeMap<String, (String, String)> {
    let folder = tempfile::tempdir().expect("folder");
    let copy = lab::own_copy(folder.path());
    let arguments = ["setpriv", "--reuid=64321", "--regid=64321", "--clear-groups", "env"];
    let arguments = arguments.iter().copied().map(String::from).chain([
        format!("HOSTILE={}", stage.program().display()),
        copy.display().to_string(),
        "--exact".to_owned(),
        "attacks_of_an_ordinary_user_fail".to_owned(),
        "--nocapture".to_owned(),
    ]);
    let (exit, output) = lab::host_program("/usr/bin/setpriv", arguments);
    if exit != Exit::Code(0) {
        wrong.push(format!("as an ordinary user:\n{output}"));
    }
    let found = output.lines().filter_map(|line| {
        let mut parts = line.strip_prefix("@@ ")?.split(" | ").map(str::to_owned);
        Some((parts.next()?, (parts.next()?, parts.next()?)))
    });
    found.collect()
}

/// The part of the test above that has no privileges.
#[test]
fn attacks_of_an_ordinary_user_fail() {
    if is_root() {
        // The test above runs this one as an ordinary user.
        return;
    }
    let mut stage = Stage::new(program());
    let mut wrong = Vec::new();
    for row in &rows::all() {
        let guarded = stage.attempt(row, Way::Rootless, &[]);
        if guarded.stop().is_none() {
            wrong.push(format!("{}: {guarded:?}", row.name));
        }
        let alone = row.rootless.map(|stops| {
            let every: Vec<Guard> = row.guards.iter().map(|(guard, _)| *guard).collect();
            let alone = stage.attempt(row, Way::Rootless, &every);
            if alone.stop().is_some() != stops {
                wrong.push(format!("{}: user namespace alone: {alone:?}", row.name));
            }
            alone.to_string()
        });
        eprintln!("@@ {} | {guarded} | {}", row.name, alone.as_deref().unwrap_or("-"));
    }
    assert!(wrong.is_empty(), "{} of the results are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
