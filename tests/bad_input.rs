//! Bad input and bad days: one clear error, a documented exit code, nothing
//! lost.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test says what went wrong by panicking"
)]

mod common;

use std::fs;
use std::path::Path;

use common::{manifest, run, samples, skip, stderr, stdout, unladen};

/// Runs a spec text and gives exit code and standard error.
fn run_spec(text: &str) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("folder");
    let spec = dir.path().join("spec.toml");
    fs::write(&spec, text).expect("written");
    let output = run(unladen().arg("run").arg(&spec).arg("--out").arg(dir.path().join("out")));
    let error = stderr(&output).replace(&dir.path().display().to_string(), "");
    (output.status.code(), error)
}

#[test]
fn a_misspelt_key_is_named_with_its_line_and_the_nearest_known_one() {
    let (code, error) =
        run_spec("[rounds]\nstartup = 3\n[[cells]]\nbackend = \"process\"\nstarup = [\"exit\"]\n");
    assert_eq!(code, Some(2), "{error}");
    for part in ["/spec.toml:5", "starup", "startup"] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
}

#[test]
fn unknown_names_are_refused_with_the_nearest_known_one() {
    for (text, parts) in [
        ("[[cells]]\nbackend = \"contaner\"\nstartup = [\"exit\"]\n", ["contaner", "container"]),
        ("[[cells]]\nbackend = \"process\"\nstartup = [\"exti\"]\n", ["exti", "exit"]),
        (
            "[[cells]]\nbackend = \"vm\"\nparams = { machin = \"q35\" }\nstartup = [\"exit\"]\n",
            ["machin", "machine"],
        ),
    ] {
        let (code, error) = run_spec(text);
        assert_eq!(code, Some(2), "{error}");
        for part in parts {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }
}

#[test]
fn wrong_use_ends_with_2_and_says_what_is_wrong() {
    for (arguments, part) in [
        (vec!["run", "smok"], "smoke"),
        (vec!["run", "no/such.toml"], "no/such.toml"),
        (vec!["run", "--rounds", "0"], "--rounds"),
        (vec!["run", "--budget", "soon"], "soon"),
        (vec!["run", "--backend", "podmann"], "podmann"),
        (vec!["run", "--resume", "/nonexistent/run"], "/nonexistent/run"),
        (vec!["report", "/nonexistent/run"], "/nonexistent/run"),
        (vec!["frobnicate"], "frobnicate"),
    ] {
        let output = run(unladen().args(&arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(part), "{arguments:?}: {}", stderr(&output));
        assert!(stdout(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn no_subcommand_prints_help_and_completions_print_scripts() {
    let output = run(&mut unladen());
    assert!(stderr(&output).contains("Usage"), "{}", stderr(&output));
    for shell in ["bash", "zsh", "fish"] {
        let output = run(unladen().args(["completions", shell]));
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("unladen"));
    }
    let help = stdout(&run(unladen().arg("--help")));
    for code in ["130", "143", "  3  "] {
        assert!(help.contains(code), "exit code {code} is not in --help");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_not_an_error() {
    use std::process::Stdio;
    let mut child =
        unladen().args(["completions", "zsh"]).stdout(Stdio::piped()).spawn().expect("started");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("ended").code(), Some(0));
}

const MOCK: &str = "[rounds]\nstartup = 2\n[[cells]]\nbackend = \"mock\"\n\
    params = { init = 1, ready = 2, exited = 3, gone = 4 }\nstartup = [\"exit\"]\n";

#[test]
fn an_output_folder_that_holds_something_is_not_touched() {
    let dir = tempfile::tempdir().expect("folder");
    fs::write(dir.path().join("mine.txt"), "mine").expect("written");
    fs::write(dir.path().join("spec.toml"), MOCK).expect("written");
    let output =
        run(unladen().arg("run").arg(dir.path().join("spec.toml")).arg("--out").arg(dir.path()));
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("--out"), "{}", stderr(&output));
    assert_eq!(fs::read(dir.path().join("mine.txt")).expect("kept"), b"mine");
    assert_eq!(fs::read_dir(dir.path()).expect("folder").count(), 2);
}

#[test]
fn a_damaged_results_folder_is_one_clear_error() {
    let dir = tempfile::tempdir().expect("folder");
    let spec = dir.path().join("spec.toml");
    fs::write(&spec, MOCK).expect("written");
    let out = dir.path().join("out");
    let output = run(unladen().arg("run").arg(&spec).arg("--out").arg(&out).arg("--no-report"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    let path = out.join("samples.csv");
    let good = fs::read_to_string(&path).expect("samples");
    fs::write(&path, good.replacen("mock,exit", "moch,exit", 1)).expect("damaged");
    let output = run(unladen().arg("report").arg(&out));
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("line 2"), "{}", stderr(&output));

    fs::write(&path, good).expect("mended");
    fs::write(out.join("manifest.json"), "{").expect("damaged");
    let output = run(unladen().arg("report").arg(&out));
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("manifest.json"), "{}", stderr(&output));
}

#[test]
fn a_full_disk_ends_the_run_and_keeps_what_is_stored() {
    // A file system of one small size, visible to this command only.
    if !common::is_root() {
        return skip("mounting a small file system needs root");
    }
    let dir = tempfile::tempdir().expect("folder");
    let spec = dir.path().join("spec.toml");
    fs::write(&spec, MOCK.replace("startup = 2", "startup = 2000")).expect("written");
    let small = dir.path().join("small");
    fs::create_dir(&small).expect("folder");
    let kept = dir.path().join("kept");
    let script = format!(
        "mount -t tmpfs -o size=256k small {small} && {unladen} run {spec} --no-report --out {small}/out; \
         code=$?; cp -r {small}/out {kept}; exit $code",
        small = small.display(),
        unladen = env!("CARGO_BIN_EXE_unladen"),
        spec = spec.display(),
        kept = kept.display(),
    );
    let output = run(std::process::Command::new("unshare").args(["--mount", "sh", "-c", &script]));
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(stderr(&output).contains("No space left"), "{}", stderr(&output));
    assert!(stderr(&output).contains("samples.csv"), "{}", stderr(&output));
    assert!(samples(&kept).len() > 100, "what was measured is lost");
}

#[test]
fn without_qemu_machine_cells_are_skipped_with_a_reason_and_the_rest_is_measured() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("out");
    let output = run(unladen()
        .env("UNLADEN_QEMU", "/nonexistent/qemu")
        .args(["run", "smoke", "--experiment", "startup", "--workload", "exit", "--no-report"])
        .args(["--rounds", "1", "--out"])
        .arg(&out));
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    check_skipped(&out, "vm", "/nonexistent/qemu");
    assert!(!common::values(&samples(&out), "process", "startup.ready").is_empty());
    let artefacts = manifest(&out)["artefacts"].clone();
    let roles: Vec<_> = artefacts.as_array().expect("a list").iter().map(|a| &a["role"]).collect();
    assert!(roles.iter().any(|role| *role == "payload"), "its hash is recorded: {artefacts}");
}

#[test]
fn without_a_guest_kernel_machine_cells_are_skipped_with_a_reason() {
    let dir = tempfile::tempdir().expect("folder");
    let out = dir.path().join("out");
    let output = run(unladen()
        .env("XDG_CACHE_HOME", dir.path().join("cache"))
        .args(["run", "smoke", "--experiment", "startup", "--workload", "exit", "--no-report"])
        .args(["--rounds", "1", "--out"])
        .arg(&out));
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    check_skipped(&out, "vm", "kernel");
}

/// Every cell of a backend is present as skipped, with this in its reason.
fn check_skipped(out: &Path, backend: &str, reason: &str) {
    let rows = samples(out);
    // The guest of a floor is no kernel, and inside the program.
    let of_backend: Vec<_> = rows
        .iter()
        .filter(|row| row["backend"] == backend && !row["params"].contains("kernel=stub"))
        .collect();
    assert!(!of_backend.is_empty());
    for row in of_backend {
        assert_eq!((row["outcome"].as_str(), row["value"].as_str()), ("skipped", ""));
        assert!(row["detail"].contains(reason), "{}", row["detail"]);
    }
    let manifest = manifest(out);
    let cells = manifest["cells"].as_array().expect("cells");
    assert!(cells.iter().any(|cell| cell["outcome"] == "skipped"));
}
