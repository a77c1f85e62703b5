//! `unladen compare` as a user and as a job of continuous integration call it.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test says what went wrong by panicking"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{run, stderr, stdout, unladen};

fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results/reference")
}

/// A copy of the reference run as another one, in which the values of lines
/// that hold `what` are `factor` times as large.
fn changed(dir: &Path, what: &str, factor: f64) -> PathBuf {
    fs::create_dir_all(dir).expect("made");
    let manifest = fs::read_to_string(reference().join("manifest.json")).expect("manifest");
    let old = common::run_id(&reference());
    let new = "20270101-000000-abcdef";
    fs::write(dir.join("manifest.json"), manifest.replace(&old, new)).expect("written");
    let samples = fs::read_to_string(reference().join("samples.csv")).expect("samples");
    let lines = samples.lines().map(|line| {
        if !line.contains(what) {
            return line.replace(&old, new);
        }
        let mut fields: Vec<String> = line.split(',').map(str::to_owned).collect();
        if let Ok(value) = fields[12].parse::<f64>() {
            fields[12] = format!("{:.0}", value * factor);
        }
        fields.join(",").replace(&old, new)
    });
    let text: String = lines.map(|line| line + "\n").collect();
    fs::write(dir.join("samples.csv"), text).expect("written");
    dir.to_owned()
}

fn compare(base: &Path, new: &Path, flags: &[&str]) -> Output {
    run(unladen().arg("compare").arg(base).arg(new).args(flags))
}

#[test]
fn a_regression_is_an_exit_code_only_when_asked_for() {
    let dir = tempfile::tempdir().expect("folder");
    let slow = changed(&dir.path().join("slow"), "startup,container,exit,,startup.ready", 8.0);
    let flag = "--fail-on-regression";
    let found = compare(&reference(), &slow, &[]);
    assert_eq!(found.status.code(), Some(0), "{}", stderr(&found));
    let text = stdout(&found);
    let line = text.lines().find(|line| line.contains("startup.ready")).expect("the cell");
    assert!(line.contains("startup container exit") && line.contains("slower by"), "{line}");
    assert_eq!(compare(&reference(), &slow, &[flag]).status.code(), Some(4));
    assert_eq!(compare(&reference(), &slow, &[flag, "--threshold", "900%"]).status.code(), Some(0));
    assert_eq!(compare(&slow, &reference(), &[flag]).status.code(), Some(0), "faster is fine");
}

#[test]
fn differing_facts_come_first() {
    let dir = tempfile::tempdir().expect("folder");
    let other = changed(&dir.path().join("other"), "nothing", 1.0);
    let manifest = fs::read_to_string(other.join("manifest.json")).expect("manifest");
    let manifest = manifest.replace("\"value\": \"madvise\"", "\"value\": \"always\"");
    fs::write(other.join("manifest.json"), manifest).expect("written");
    let text = stdout(&compare(&reference(), &other, &[]));
    let differs = text.find("differs: memory.thp: madvise -> always").expect("named");
    assert!(differs < text.find("verdict").expect("a table"), "{text}");
}

#[test]
fn unlike_runs_are_refused_and_can_be_insisted_on() {
    let dir = tempfile::tempdir().expect("folder");
    let other = changed(&dir.path().join("other"), "nothing", 1.0);
    let mut manifest = common::manifest(&other);
    let cells = manifest["cells"].as_array_mut().expect("cells");
    let mut more = cells.last().expect("cells").clone();
    more["cell"] = cells[0]["cell"].clone();
    more["cell"]["backend"] = "container".into();
    more["cell"]["workload"] = "touch=7".into();
    cells.push(more);
    fs::write(other.join("manifest.json"), manifest.to_string()).expect("written");
    let refused = compare(&reference(), &other, &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("did not measure the same cells"), "{}", stderr(&refused));
    let insisted = compare(&reference(), &other, &["--any-spec"]);
    assert_eq!(insisted.status.code(), Some(0), "{}", stderr(&insisted));
    let text = stdout(&insisted);
    assert!(text.contains("touch=7: not in the plan of the base"), "{text}");
}

#[test]
fn sets_of_runs_and_arms_of_one_run() {
    let dir = tempfile::tempdir().expect("folder");
    for (side, factor) in [("base", 1.0), ("new", 8.0)] {
        for number in ["1", "2"] {
            let what = "startup,container,exit,,startup.ready";
            changed(&dir.path().join(side).join(number), what, factor);
        }
    }
    let (base, new) = (dir.path().join("base"), dir.path().join("new"));
    let found = compare(&base, &new, &["--json", "--fail-on-regression"]);
    assert_eq!(found.status.code(), Some(4), "{}", stderr(&found));
    let json: serde_json::Value = serde_json::from_str(&stdout(&found)).expect("JSON");
    assert_eq!(json["base"].as_array().expect("runs").len(), 2);
    let change = json["changes"]
        .as_array()
        .expect("changes")
        .iter()
        .find(|change| change["label"] == "container" && change["metric"] == "startup.ready")
        .expect("the cell");
    assert_eq!(change["verdict"]["kind"], "slower");
    assert_eq!(change["base_n"], 30);

    let mut arms = unladen();
    arms.arg("compare").arg(reference()).args(["--arms", "vm tuned microvm", "container"]);
    let found = run(&mut arms);
    assert_eq!(found.status.code(), Some(0), "{}", stderr(&found));
    assert!(stdout(&found).contains("startup.gone"), "{}", stdout(&found));
    let mut unknown = unladen();
    unknown.arg("compare").arg(reference()).args(["--arms", "vm", "container"]);
    let refused = run(&mut unknown);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("`vm tuned microvm`"), "{}", stderr(&refused));
}

#[test]
fn a_folder_without_runs_is_one_clear_error() {
    let dir = tempfile::tempdir().expect("folder");
    for path in [dir.path().to_owned(), dir.path().join("missing")] {
        let refused = compare(&path, &reference(), &[]);
        assert_eq!(refused.status.code(), Some(2));
        let text = stderr(&refused);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(&path.display().to_string()), "{text}");
    }
}

/// What the workflow in `.github` calls, with one program as both revisions
/// and with one that has become slower.
#[test]
fn the_regression_script_measures_in_turns() {
    let dir = tempfile::tempdir().expect("folder");
    let spec = dir.path().join("spec.toml");
    let cell = |control: &str, init: u32| {
        format!(
            "[[cells]]\nbackend = \"{control}\"\n\
             params = {{ init = {init}, ready = {init}5, exited = {init}6, gone = {init}7 }}\n\
             startup = [\"exit\"]\n"
        )
    };
    fs::write(&spec, format!("title = \"t\"\n[rounds]\nstartup = 6\n{}", cell("mock", 10)))
        .expect("written");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/regression.sh");
    let out = dir.path().join("out");
    let mut command = Command::new(&script);
    command.args(["--runs", "2", "--spec"]).arg(&spec).arg("--out").arg(&out);
    let found = run(command.args([env!("CARGO_BIN_EXE_unladen"), env!("CARGO_BIN_EXE_unladen")]));
    assert_eq!(found.status.code(), Some(0), "{}", stderr(&found));
    assert!(stdout(&found).contains("startup mock"), "{}", stdout(&found));
    for side in ["base/1", "base/2", "new/1", "new/2"] {
        assert!(out.join(side).join("samples.csv").is_file(), "{side}");
    }
    let again = run(&mut command);
    assert_eq!(again.status.code(), Some(2), "{}", stderr(&again));
    let workflow = Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/workflows/regression.yml");
    assert!(fs::read_to_string(workflow).expect("workflow").contains("scripts/regression.sh"));
}

#[test]
fn slopes_that_repeat_and_slopes_that_do_not() {
    let dir = tempfile::tempdir().expect("folder");
    let same = changed(&dir.path().join("same"), "nothing", 1.0);
    let found = compare(&reference(), &same, &["--slopes"]);
    assert_eq!(found.status.code(), Some(0), "{}", stderr(&found));
    let text = stdout(&found);
    let line = text.lines().find(|line| line.contains("density container pause")).expect("a cell");
    assert!(line.contains("pss") && line.contains("yes"), "{line}");
    // One ledger of one cell costs five times as much for each more.
    let other = changed(
        &dir.path().join("other"),
        "density,vm,pause,kernel=tuned;machine=q35,memory.cgroup",
        5.0,
    );
    let found = compare(&reference(), &other, &["--slopes", "--json"]);
    assert_eq!(found.status.code(), Some(4), "{}", stderr(&found));
    let json: serde_json::Value = serde_json::from_str(&stdout(&found)).expect("JSON");
    let apart = json.as_array().expect("slopes").iter();
    let apart: Vec<_> = apart.filter(|slope| slope["repeats"]["kind"] == "no").collect();
    assert_eq!(apart.len(), 1, "{apart:?}");
    assert_eq!(apart[0]["ledger"], "cgroup");
    assert_eq!(apart[0]["cell"]["params"], "kernel=tuned;machine=q35");
    let many = compare(dir.path(), &reference(), &["--slopes"]);
    assert_eq!(many.status.code(), Some(2), "two runs on one side: {}", stderr(&many));
}
