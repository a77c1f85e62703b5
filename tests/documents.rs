//! Documents that could drift from behaviour are held against it.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test says what went wrong by panicking"
)]

mod common;

use std::fs;
use std::path::Path;

use common::{run, stdout, unladen};

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("README.md")
}

#[test]
fn the_readme_lists_exactly_the_exit_codes_that_help_lists() {
    let help = stdout(&run(unladen().arg("--help")));
    let codes = help.split("Exit codes:").nth(1).expect("a table");
    let codes: Vec<String> = codes
        .lines()
        .filter_map(|line| line.trim().split_once("  "))
        .map(|(code, meaning)| format!("| {code} | {meaning} |"))
        .collect();
    assert!(codes.len() >= 8, "{codes:?}");
    let readme = readme();
    for row in &codes {
        assert!(readme.contains(row), "the README lacks: {row}");
    }
}

#[test]
fn every_command_of_the_readme_exists() {
    let help = stdout(&run(unladen().arg("--help")));
    let readme = readme();
    let commands: Vec<&str> = readme
        .lines()
        .filter_map(|line| line.trim().strip_prefix("unladen "))
        .filter_map(|rest| rest.split_whitespace().next())
        .collect();
    assert!(commands.len() >= 7, "{commands:?}");
    for command in commands {
        assert!(help.contains(&format!("  {command}")), "`unladen {command}` is not in --help");
    }
}

#[test]
fn every_file_that_the_readme_links_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut links = 0;
    for part in readme().split("](").skip(1) {
        let target = part.split(')').next().unwrap_or_default();
        if target.starts_with("http") || target.starts_with('#') {
            continue;
        }
        links += 1;
        assert!(root.join(target).exists(), "the README links {target}, which does not exist");
    }
    assert!(links >= 4, "only {links} links were seen");
}

#[test]
fn the_results_readme_names_every_column() {
    let dir = tempfile::tempdir().expect("folder");
    let spec = dir.path().join("spec.toml");
    fs::write(
        &spec,
        "[rounds]\nstartup = 1\n[[cells]]\nbackend = \"mock\"\nparams = { ready = 1 }\nstartup = [\"exit\"]\n",
    )
    .expect("written");
    let out = dir.path().join("out");
    run(unladen().arg("run").arg(&spec).arg("--no-report").arg("--out").arg(&out));
    let header = fs::read_to_string(out.join("samples.csv")).expect("samples");
    let schema =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("results/README.md"))
            .expect("schema");
    for column in header.lines().next().expect("a header").split(',') {
        assert!(schema.contains(&format!("`{column}`")), "results/README.md lacks `{column}`");
    }
}

#[test]
fn each_script_explains_itself_and_refuses_what_it_does_not_know() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut checked = 0;
    for folder in [scripts.clone(), scripts.join("guest"), scripts.join("vm")] {
        for entry in fs::read_dir(folder).expect("folder").flatten() {
            let path = entry.path();
            let text = fs::read_to_string(&path).unwrap_or_default();
            if !text.starts_with("#!") {
                continue;
            }
            checked += 1;
            let help = run(std::process::Command::new(&path).arg("--help"));
            assert_eq!(help.status.code(), Some(0), "{}", path.display());
            assert!(!help.stdout.is_empty(), "{} --help says nothing", path.display());
            let wrong = run(std::process::Command::new(&path).arg("--frobnicate"));
            assert_eq!(wrong.status.code(), Some(2), "{}", path.display());
            assert!(common::stderr(&wrong).contains("--frobnicate"), "{}", path.display());
            assert!(wrong.stdout.is_empty(), "{} mixes data and messages", path.display());
        }
    }
    assert!(checked >= 8, "only {checked} scripts were seen");
}

#[test]
fn the_reference_page_is_made_from_the_reference_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().expect("folder");
    let output =
        run(unladen().arg("report").arg(root.join("results/reference")).arg("-o").arg(out.path()));
    assert_eq!(output.status.code(), Some(0), "{}", common::stderr(&output));
    let same = |a: &Path, b: &Path| {
        assert!(
            fs::read(a).expect("made") == fs::read(b).expect("recorded"),
            "{} is not what `unladen report results/reference -o report/reference` makes",
            b.display()
        );
    };
    let recorded = root.join("report/reference");
    same(&out.path().join("index.html"), &recorded.join("index.html"));
    for figure in fs::read_dir(out.path().join("figures")).expect("figures").flatten() {
        same(&figure.path(), &recorded.join("figures").join(figure.file_name()));
    }
    for summary in ["summary.json", "summary.csv"] {
        same(&out.path().join(summary), &root.join("results/reference").join(summary));
    }
}

/// The methodology claims a test for each known mistake: it must be there.
#[test]
fn every_test_that_the_methodology_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("report/METHODOLOGY.md")).expect("METHODOLOGY.md");
    let rows: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.strip_suffix("` |")?.rsplit_once("`: `"))
        .filter_map(|(before, name)| Some((before.rsplit_once('`')?.1, name)))
        .collect();
    assert!(rows.len() >= 13, "{rows:?}");
    for (file, name) in rows {
        let source = fs::read_to_string(root.join(file)).unwrap_or_default();
        let at = source.find(&format!("fn {name}()"));
        let before = &source[..at.unwrap_or_else(|| panic!("{file} has no test {name}"))];
        assert!(before.trim_end().ends_with("#[test]"), "{file}: {name} is no test");
    }
}
