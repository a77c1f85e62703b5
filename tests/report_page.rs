//! The page of a run in a real browser.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test says what went wrong by panicking"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{run, skip, stderr, stdout, unladen};

const SPEC: &str = r#"
[rounds]
startup = 7
memory = 6
density = 1
[[cells]]
backend = "mock"
params = { spawned = 100000, init = 200000, ready = 250000, exited = 300000, gone = 400000, drift = 1000, pss = 65536, uss = 32768, rss = 262144, cgroup = 65536, peak = 131072 }
startup = ["exit"]
memory = ["pause"]
density = ["pause"]
density_cap = 8
[[cells]]
backend = "mock"
params = { init = 500000000, ready = 600000000, exited = 610000000, gone = 620000000, fail_every = 4 }
startup = ["exit"]
"#;

fn browser() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = |name: &&str| run(Command::new("which").arg(name)).status.success();
    names.into_iter().find(found).map(PathBuf::from)
}

/// A page as the browser sees it after its scripts have run.
fn dom(browser: &Path, page: &Path) -> String {
    let profile = tempfile::tempdir().expect("folder");
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60"]).arg(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update"]);
    command.args(["--disable-sync", "--virtual-time-budget=2000", "--dump-dom"]);
    // Whatever the page asks the network for must fail, and be seen.
    command.arg("--host-resolver-rules=MAP * ~NOTFOUND");
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    let output = run(command.arg(format!("file://{}", page.display())));
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

#[test]
fn the_page_stands_alone_and_shows_everything() {
    let Some(browser) = browser() else {
        return skip("no browser: install chromium");
    };
    let dir = tempfile::tempdir().expect("folder");
    let spec = dir.path().join("spec.toml");
    fs::write(&spec, SPEC).expect("written");
    let out = dir.path().join("out");
    let output = run(unladen().arg("run").arg(&spec).arg("--out").arg(&out));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stdout(&output).contains("index.html"), "{}", stdout(&output));

    // Moved alone to another place, the page must still be whole.
    let alone = dir.path().join("alone.html");
    fs::copy(out.join("report/index.html"), &alone).expect("copied");
    let page = dom(&browser, &alone);
    for part in ["<svg", "startup.ready", "memory.pss", "density", "told to fail", "mock"] {
        assert!(page.contains(part), "{part} is not on the page");
    }
    assert!(page.matches("<svg").count() >= 4, "four figures");
    for forbidden in ["src=\"http", "href=\"http://", "url(http", "@import"] {
        assert!(!page.contains(forbidden), "the page loads something: {forbidden}");
    }
    for figure in fs::read_dir(out.join("report/figures")).expect("figures").flatten() {
        assert!(figure.metadata().expect("size").len() > 1000, "{:?}", figure.path());
    }
}

#[test]
fn a_report_can_be_made_again_elsewhere_from_a_folder_alone() {
    let dir = tempfile::tempdir().expect("folder");
    let spec = dir.path().join("spec.toml");
    fs::write(&spec, SPEC).expect("written");
    let out = dir.path().join("out");
    run(unladen().arg("run").arg(&spec).args(["--no-report", "--out"]).arg(&out));
    assert!(!out.join("summary.json").exists(), "--no-report makes none");

    let sent = dir.path().join("sent");
    fs::create_dir(&sent).expect("folder");
    for file in ["manifest.json", "samples.csv"] {
        fs::copy(out.join(file), sent.join(file)).expect("copied");
    }
    let made = |target: &Path| {
        let output = run(unladen().arg("report").arg(&sent).arg("-o").arg(target));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        fs::read(target.join("summary.json")).expect("summary")
    };
    let first = made(&dir.path().join("a"));
    let second = made(&dir.path().join("b"));
    assert_eq!(first, second, "the same samples give the same summary");
}
