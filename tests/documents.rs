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

/// The runs that are recorded in the repository.
fn recorded_runs() -> Vec<String> {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    let runs = fs::read_dir(results).expect("results").flatten();
    let named = runs.map(|entry| entry.file_name().into_string().expect("a name"));
    named.filter(|name| ["reference", "crowd", "peers"].contains(&name.as_str())).collect()
}

#[test]
fn the_recorded_pages_are_made_from_the_recorded_runs() {
    const SUMMARIES: [&str; 2] = ["summary.json", "summary.csv"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let runs = recorded_runs();
    assert!(runs.contains(&"reference".to_owned()), "{runs:?}");
    for name in runs {
        let (run_folder, page) =
            (root.join("results").join(&name), root.join("report").join(&name));
        let made = tempfile::tempdir().expect("folder");
        let bless = std::env::var_os("UNLADEN_BLESS").is_some();
        let out = if bless { page.as_path() } else { made.path() };
        if bless {
            drop(fs::remove_dir_all(&page));
        }
        let output = run(unladen().arg("report").arg(&run_folder).arg("-o").arg(out));
        assert_eq!(output.status.code(), Some(0), "{}", common::stderr(&output));
        if bless {
            for summary in SUMMARIES {
                fs::rename(out.join(summary), run_folder.join(summary)).expect("moved");
            }
            continue;
        }
        let same = |a: &Path, b: &Path| {
            assert!(
                fs::read(a).expect("made") == fs::read(b).expect("recorded"),
                "{} is not what `unladen report results/{name} -o report/{name}` makes: look at \
                 it, then record it with UNLADEN_BLESS=1",
                b.display()
            );
        };
        same(&out.join("index.html"), &page.join("index.html"));
        for figure in fs::read_dir(out.join("figures")).expect("figures").flatten() {
            same(&figure.path(), &page.join("figures").join(figure.file_name()));
        }
        for summary in SUMMARIES {
            same(&out.join(summary), &run_folder.join(summary));
        }
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
