//! Compiles the payload, the loader, the guard and the stub guest: static programs without any library,
//! for the target of this build, so that the command can carry them inside
//! itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=src/payload");
    println!("cargo::rerun-if-changed=src/sys/spawn/guard");
    println!("cargo::rerun-if-changed=build.rs");
    fix_addresses();
    compile("src/payload/program/main.rs", "unladen-payload");
    compile("src/payload/loader/main.rs", "unladen-loader");
    compile("src/sys/spawn/guard/program.rs", "unladen-guard");
    if variable("CARGO_CFG_TARGET_ARCH") == "x86_64" {
        compile("src/payload/stub/program.rs", "unladen-stub");
        compile_foreign("src/payload/program/main.rs", "unladen-payload-aarch64");
    }
}

/// Compiles a program for another architecture, where the toolchain has its
/// `core`; else its file is empty, and what needs it says so.
fn compile_foreign(source: &str, name: &str) {
    const TARGET: &str = "aarch64-unknown-none";
    let out = PathBuf::from(variable("OUT_DIR")).join(name);
    let nothing =
        || fs::write(&out, []).unwrap_or_else(|error| panic!("cannot write {out:?}: {error}"));
    nothing();
    let mut asked = Command::new(variable("RUSTC"));
    let answer = asked.args(["--print", "target-libdir", "--target", TARGET]).output();
    let folder = answer.map(|answer| String::from_utf8_lossy(&answer.stdout).trim().to_owned());
    if !folder.is_ok_and(|folder| !folder.is_empty() && Path::new(&folder).is_dir()) {
        return;
    }
    let mut rustc = program(source, name, TARGET);
    // Its linker comes with the compiler and has a spelling of its own.
    let words = ["--build-id=none", "-znoseparate-code", "-znorelro", "--gc-sections"];
    rustc.args(words.map(|word| format!("-Clink-arg={word}"))).arg("-o").arg(&out);
    if !rustc.status().is_ok_and(|status| status.success()) {
        println!("cargo::warning=this build carries no payload for {TARGET}: {rustc:?} failed");
        nothing();
    }
}

/// The compiler with what all these programs have in common.
fn program(source: &str, name: &str, target: &str) -> Command {
    let mut rustc = Command::new(variable("RUSTC"));
    rustc
        .args([source, "--crate-name", &name.replace('-', "_")])
        .args(["--crate-type=bin", "--edition=2024", "--target", target])
        .args(["-Copt-level=s", "-Cpanic=abort", "-Crelocation-model=static", "-Cstrip=symbols"])
        .args(["-Cforce-unwind-tables=no", "-Ccodegen-units=1"]);
    rustc
}

/// Lets the linker decide at which address the commands run, instead of the
/// dynamic loader at each start: that is thousands of pointers to adjust in a
/// hundred pages to copy, a quarter of the time in which `container run` comes
/// to work. The price is that the address of the program itself is no secret;
/// those of its libraries, heap and stack are.
fn fix_addresses() {
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    // Where the C library is linked in, `rustc` asks for another kind.
    let dynamic = !features.split(',').any(|feature| feature == "crt-static");
    if variable("CARGO_CFG_TARGET_ENV") == "gnu" && dynamic {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}

/// Compiles a program without any library to a file of this name.
fn compile(source: &str, name: &str) {
    let out = PathBuf::from(variable("OUT_DIR")).join(name);
    let mut rustc = program(source, name, &variable("TARGET"));
    rustc
        .args(["-Clink-arg=-nostartfiles", "-Clink-arg=-nostdlib", "-Clink-arg=-static"])
        // The compiled `core` refers to the unwinder, which an aborting
        // program never calls.
        .arg("-Clink-arg=-Wl,--defsym=rust_eh_personality=0")
        // Without a build id and with one segment the same source gives the
        // same bytes, and as few pages as possible.
        .args(["-Clink-arg=-Wl,--build-id=none,-z,noseparate-code,-z,norelro,--gc-sections"])
        .arg("-o")
        .arg(&out);
    if variable("CARGO_CFG_TARGET_ENV") == "musl" {
        // This target brings start files of its own otherwise.
        rustc.arg("-Clink-self-contained=no");
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    let status = rustc.status().unwrap_or_else(|error| panic!("cannot run rustc: {error}"));
    assert!(status.success(), "compiling {source} failed: {rustc:?}");
}

/// A variable that cargo sets for build scripts.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("cargo did not set {name}: {error}"))
}
