//! Real guests that fail: each becomes a failed row with its stage and its
//! console's telling lines, within a deadline, and the boot is repeated once
//! with all messages. A wrapper around QEMU spoils one argument each.

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

use common::{run, run_id, samples, skip, stderr, stdout, traces_of, unladen};

const AGAIN: &str = "repeated with all messages of its kernel: ";

/// The real QEMU, when there is one and a guest kernel too.
fn qemu() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (script, flag) in [("guest/kernel.sh", Some("--path")), ("vm/qemu-version.sh", None)] {
        let output = run(Command::new(root.join("scripts").join(script)).args(flag));
        if !output.status.success() {
            return Err(stderr(&output));
        }
        if let (None, Some(path)) = (flag, stdout(&output).lines().nth(1)) {
            return Ok(path.into());
        }
    }
    Err("no QEMU".to_owned())
}

/// A QEMU that goes through its arguments first: `body` may change `$1`.
fn spoiled(dir: &Path, qemu: &Path, body: &str) -> PathBuf {
    let path = dir.join("qemu");
    let text = format!(
        "#!/bin/bash\n[ \"$1\" = --version ] && exec {0} --version\nargs=()\n\
         while (($#)); do\n{body}\nargs+=(\"$1\"); shift; done\nexec {0} \"${{args[@]}}\"\n",
        qemu.display()
    );
    common::write_program(&path, text.as_bytes());
    path
}

/// Runs one machine with parameters and a spoiled QEMU; gives its row's
/// detail, or `None` when it had to be skipped.
fn failure(params: &str, deadline: &str, body: &str) -> Option<String> {
    let qemu = match qemu() {
        Ok(qemu) => qemu,
        Err(reason) => {
            skip(&reason);
            return None;
        }
    };
    let dir = tempfile::tempdir().expect("folder");
    let spec = dir.path().join("spec.toml");
    let text = format!(
        "[rounds]\nstartup = 1\n[[cells]]\nbackend = \"vm\"\n\
         params = {{ accel = \"tcg\"{params} }}\nstartup = [\"exit\"]\n"
    );
    fs::write(&spec, text).expect("written");
    let out = dir.path().join("out");
    let output = run(unladen()
        .env("UNLADEN_QEMU", spoiled(dir.path(), &qemu, body))
        .env("SPOILED", dir.path())
        .args(["run", "--no-report", "--deadline", deadline, "--out"])
        .arg(&out)
        .arg(&spec));
    let rows = samples(&out);
    let machine: Vec<_> = rows.iter().filter(|row| row["backend"] == "vm").collect();
    assert_eq!(machine.len(), 1, "{}", stderr(&output));
    let detail = machine[0]["detail"].clone();
    if machine[0]["outcome"] == "skipped" {
        skip(&detail);
        return None;
    }
    assert_eq!(machine[0]["outcome"], "failed", "{detail}");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(machine[0]["value"].is_empty());
    assert!(detail.chars().count() < 3000, "{} is no detail any more", detail.len());
    let id = run_id(&out);
    assert!(traces_of(&id).is_empty(), "left behind: {:?}", traces_of(&id));
    Some(detail)
}

fn contains(detail: &str, parts: &[&str]) {
    for part in parts {
        assert!(detail.contains(part), "{part} is not in: {detail}");
    }
}

#[test]
fn a_file_that_is_no_kernel_is_told_by_qemu() {
    let body = "[ \"$1\" = -kernel ] && { args+=(\"$1\" /etc/passwd); shift 2; continue; }";
    if let Some(detail) = failure("", "30s", body) {
        // Its monitor may have greeted before QEMU looked at the file, or not.
        contains(&detail, &["start, waiting for ", "code 1", "stderr: ", AGAIN]);
    }
}

#[test]
fn a_corrupt_initramfs_is_a_panic_with_its_cause() {
    let body = "[ \"$1\" = -initrd ] && { head -c 50000 /dev/zero | tr '\\0' x >$SPOILED/broken; \
                args+=(\"$1\" $SPOILED/broken); shift 2; continue; }";
    if let Some(detail) = failure("", "30s", body) {
        contains(
            &detail,
            &["waiting for init", "Kernel panic", AGAIN, "Initramfs unpacking failed"],
        );
    }
}

#[test]
fn a_corrupt_disk_image_is_a_panic_of_the_root_file_system() {
    let body = "case $1 in if=none,id=root*) truncate -s 4M $SPOILED/broken; \
                set -- \"${1%file=*}file=$SPOILED/broken\" \"${@:2}\";; esac";
    if let Some(detail) = failure(", rootfs = \"virtio-blk\"", "30s", body) {
        contains(&detail, &["waiting for init", "Unable to mount root fs", AGAIN]);
    }
}

#[test]
fn a_kernel_without_the_driver_of_its_root_is_told() {
    // The disk is there, but on no bus of this guest.
    let body = "case $1 in virtio-blk-device*) shift; unset 'args[-1]'; continue;; esac";
    if let Some(detail) = failure(", rootfs = \"virtio-blk\"", "30s", body) {
        contains(&detail, &["waiting for init", "Cannot open root device", AGAIN]);
    }
}

#[test]
fn an_init_that_hangs_ends_at_the_deadline() {
    // Without a channel that the guest could open the payload ends at once;
    // with a console that is full the kernel itself waits.
    let body = "[ \"$1\" = -append ] && { args+=(\"$1\" \"$2 rdinit=/nothing panic=0\"); shift 2; \
                continue; }";
    if let Some(detail) = failure("", "4s", body) {
        contains(&detail, &["waiting for init: not within 4.0 s", "Kernel panic", AGAIN]);
    }
}

#[test]
fn too_little_memory_is_told() {
    if let Some(detail) = failure(", memory = \"32M\", kernel = \"distro\"", "4s", "") {
        contains(&detail, &["start, waiting for ", AGAIN]);
    }
}

#[test]
fn a_qemu_that_is_killed_while_it_boots_is_told_with_the_signal() {
    let body = "[ \"$1\" = -append ] && { (sleep 0.15; kill -9 $$) & }";
    if let Some(detail) = failure("", "30s", body) {
        contains(&detail, &["start, waiting for ", "killed by signal 9"]);
    }
}

#[test]
fn a_workload_that_stops_the_machine_early_is_told() {
    // Without its device the guest resets itself, and QEMU ends with code 0.
    let body = "case $1 in isa-debug-exit*) shift; unset 'args[-1]'; continue;; esac";
    if let Some(detail) = failure("", "30s", body) {
        contains(&detail, &["end, waiting for exited", "announced exit code Some(0)"]);
    }
}

#[test]
fn a_machine_by_hand_ends_with_the_code_of_its_workload() {
    if let Err(reason) = qemu() {
        return skip(&reason);
    }
    let output = run(unladen().args(["vm", "run", "--accel", "tcg", "--", "exit=7"]));
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert!(stdout(&output).contains("Linux version"), "{}", stdout(&output));
    let wrong = run(unladen().args(["vm", "run", "--accel", "tcg", "--kernel", "/etc/passwd"]));
    assert_eq!(wrong.status.code(), Some(125));
    let refused = run(unladen().args(["vm", "run", "--untuned", "--machine", "microvm"]));
    assert_eq!(refused.status.code(), Some(125));
    assert!(
        stderr(&refused).contains("untuned is QEMU's machine q35 or pc"),
        "{}",
        stderr(&refused)
    );
}
