//! Traced boots: the finer marks are there, in order, and what the trace
//! costs is told. Real machines.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stderr,
    reason = "tests"
)]

mod common;

use std::collections::BTreeMap;

use common::{measure, run, samples, skip, stderr, unladen};

type Row = BTreeMap<String, String>;

/// The values of a mark of one cell, by round.
fn mark(rows: &[Row], params: &str, mark: &str) -> Vec<f64> {
    let wanted = |row: &&Row| {
        row["params"] == params
            && row["metric"] == format!("startup.{mark}")
            && row["outcome"] == "ok"
    };
    rows.iter().filter(wanted).map(|row| row["value"].parse().expect("a number")).collect()
}

/// That each of these marks is there in every round and none runs backwards.
fn in_order(rows: &[Row], params: &str, marks: &[&str], rounds: usize) {
    let all: Vec<Vec<f64>> = marks.iter().map(|name| mark(rows, params, name)).collect();
    for (name, values) in marks.iter().zip(&all) {
        let told: Vec<_> = rows.iter().filter(|row| row["outcome"] != "ok").collect();
        assert_eq!(values.len(), rounds, "{params} {name}: {told:?}");
    }
    for round in 0..rounds {
        let times: Vec<f64> = all.iter().map(|values| values[round]).collect();
        assert!(times.is_sorted(), "{params} round {}: {times:?} of {marks:?}", round + 1);
    }
}

const MARKS: [&str; 9] = [
    "vmm_ready",
    "firmware",
    "kernel_entry",
    "start_kernel",
    "kernel",
    "populate_rootfs",
    "run_init",
    "init",
    "ready",
];

#[test]
fn a_traced_boot_has_finer_marks_and_its_twin_shows_what_they_cost() {
    let folder = tempfile::tempdir().expect("folder");
    let (spec, out) = (folder.path().join("spec.toml"), folder.path().join("out"));
    let text = r#"
[rounds]
startup = 6
[[cells]]
backend = "vm"
params = { accel = "tcg" }
startup = ["exit"]
[[cells]]
backend = "vm"
params = { accel = "tcg", traced = "yes" }
startup = ["exit"]
"#;
    std::fs::write(&spec, text).expect("spec");
    let output = run(unladen().arg("run").arg(&spec).arg("--out").arg(&out));
    let rows = samples(&out);
    if let Some(reason) = common::unprepared(&rows, "vm") {
        return skip(&reason);
    }
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let plain = "accel=tcg;kernel=tuned;machine=microvm";
    in_order(&rows, &format!("{plain};traced=yes"), &MARKS, 6);
    in_order(&rows, plain, &["vmm_ready", "kernel", "init", "ready"], 6);
    assert!(mark(&rows, plain, "firmware").is_empty(), "not traced");
    let page = std::fs::read_to_string(out.join("report/index.html")).expect("a page");
    let told = "How much tracing disturbs: until `ready`, vm-traced";
    let told_plainly = "How much tracing disturbs: until ready, vm-traced";
    assert!(page.contains(told) || page.contains(told_plainly), "the page says what it costs");
    assert!(page.contains("as long as without the trace"), "against the untraced cell");
}

#[test]
fn a_compressed_kernel_is_seen_to_unpack_and_a_foreign_one_by_its_words() {
    let rows = measure(
        r#"
[rounds]
startup = 1
[[cells]]
backend = "vm"
params = { accel = "tcg", traced = "yes", boot = "bzimage", machine = "q35" }
startup = ["exit"]
[[cells]]
backend = "vm"
params = { accel = "tcg", traced = "yes", untuned = "yes" }
startup = ["exit"]
"#,
    );
    if let Some(reason) = common::unprepared(&rows, "vm") {
        return skip(&reason);
    }
    let marks = [
        "vmm_ready",
        "firmware",
        "decompress",
        "kernel_entry",
        "start_kernel",
        "kernel",
        "populate_rootfs",
        "run_init",
        "init",
    ];
    in_order(&rows, "accel=tcg;boot=bzimage;kernel=tuned;machine=q35;traced=yes", &marks, 1);
    // Nobody knows the addresses of a kernel as it is shipped; the reason
    // stands where the mark would.
    let foreign = "accel=tcg;machine=q35;traced=yes;untuned=yes";
    let known: Vec<&str> = marks.into_iter().filter(|name| *name != "start_kernel").collect();
    in_order(&rows, foreign, &known, 1);
    let missing = |row: &&Row| row["params"] == foreign && row["outcome"] == "skipped";
    let missing: Vec<&Row> = rows.iter().filter(missing).collect();
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert_eq!(missing[0]["metric"], "startup.start_kernel");
    assert!(missing[0]["detail"].contains("System.map"), "{}", missing[0]["detail"]);
}

#[test]
fn what_cannot_be_traced_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().expect("folder");
    let spec = folder.path().join("spec.toml");
    for (params, experiment, why) in [
        ("traced = \"yes\", start = \"clone\"", "startup", "traced follows a boot"),
        ("traced = \"yes\", kernel = \"stub\"", "startup", "no phases to trace"),
        ("traced = \"yes\"", "memory", "traced is for start-up only"),
    ] {
        let text = format!(
            "[[cells]]\nbackend = \"vm\"\nparams = {{ {params} }}\n{experiment} = [\"exit\"]\n"
        );
        std::fs::write(&spec, text.replace("memory = [\"exit\"]", "memory = [\"pause\"]"))
            .expect("spec");
        let output = run(unladen().arg("run").arg(&spec).arg("--out").arg(folder.path().join("o")));
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(why), "{params}: {}", stderr(&output));
    }
}
