//! `unladen selfcheck`: the instruments against known answers.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test says what went wrong by panicking"
)]

mod common;

use common::{is_root, run, skip, stderr, stdout, unladen};

/// The process and container arms; machines are started by other tests.
#[test]
fn the_instruments_are_right() {
    if !is_root() {
        return skip("the quota of a container needs a cgroup, so root here");
    }
    let mut command = unladen();
    let output = run(command.args(["selfcheck", "--backend", "container", "--json"]));
    let checks: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let checks = checks.as_array().expect("a list");
    // Asleep, busy, exit code and four ledgers of each arm, and the quota.
    assert!(checks.len() >= 8, "{checks:?}");
    for check in checks {
        let name = check["instrument"].as_str().expect("a name");
        // With neighbours that take the processor a quota is not used up in
        // time; everything else holds on any host.
        if !name.contains("half a processor") {
            assert_eq!(check["passed"], true, "{check} {}", stderr(&output));
        }
    }
    let halved = checks.iter().find(|check| {
        check["instrument"].as_str().is_some_and(|name| name.contains("half a processor"))
    });
    let off = halved.expect("the quota")["off"].as_f64().expect("measured");
    assert!(off > -0.05, "a quota that does not limit: {off}");
}
