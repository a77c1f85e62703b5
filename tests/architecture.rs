//! The direction of the code: a module uses only those before it in the
//! pipeline, and only `sys` is unsafe.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test says what went wrong by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules in pipeline order.
const PIPELINE: [&str; 19] = [
    "units",
    "errors",
    "record",
    "sys",
    "host",
    "spec",
    "plan",
    "payload",
    "image",
    "container",
    "backend",
    "probe",
    "run",
    "store",
    "stats",
    "claims",
    "chart",
    "report",
    "cli",
];

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The files of a module with their texts.
fn sources(module: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let single = root.join(format!("{module}.rs"));
    if single.is_file() {
        files.push(single);
    }
    if root.join(module).is_dir() {
        rust_files(&root.join(module), &mut files);
    }
    let text = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("text");
        (path, text)
    };
    files.into_iter().map(text).collect()
}

/// Names that follow `crate::` in a text, also within `use crate::{a, b}`.
fn used_modules(text: &str) -> Vec<String> {
    let mut used = Vec::new();
    for part in text.split("crate::").skip(1) {
        let names: Vec<&str> = match part.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or("").split(',').collect(),
            None => vec![part],
        };
        for name in names {
            let name = name.trim();
            let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            used.push(name[..end.unwrap_or(name.len())].to_owned());
        }
    }
    used
}

#[test]
fn modules_use_only_those_before_them() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (place, module) in PIPELINE.iter().enumerate() {
        for (path, text) in sources(module) {
            // The payload's program is a crate of its own.
            if path.components().any(|part| part.as_os_str() == "program") {
                continue;
            }
            for used in used_modules(&text) {
                checked += 1;
                let later = PIPELINE.iter().position(|name| *name == used);
                if later.is_some_and(|later| later > place) {
                    wrong.push(format!("{}: uses crate::{used}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 100, "only {checked} uses were seen: is the reader broken?");
}

#[test]
fn every_module_stands_in_the_pipeline() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let text = fs::read_to_string(root.join("lib.rs")).expect("text");
    for line in text.lines() {
        if let Some(module) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';'))
        {
            assert!(PIPELINE.contains(&module), "{module} has no place in the pipeline");
        }
    }
}

#[test]
fn only_the_system_call_layer_and_the_payload_are_unsafe() {
    for module in PIPELINE.iter().filter(|module| **module != "sys") {
        for (path, text) in sources(module) {
            // Programs of their own, compiled without this crate.
            let own = ["program", "loader", "stub"];
            let in_payload =
                path.components().any(|part| own.iter().any(|own| part.as_os_str() == *own));
            let mut lines = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
            let guilty = lines.any(|line| line.contains("unsafe {") || line.contains("unsafe fn"));
            assert!(in_payload || !guilty, "{} is unsafe", path.display());
        }
    }
}
