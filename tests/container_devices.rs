//! Devices in a container that `unladen container run` makes: those of the
//! host that were given to it, and none besides.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::too_many_lines,
    reason = "a test says what went wrong by panicking"
)]

mod common;
mod engine;

use std::process::Command;

use common::{is_root, skip, stderr, stdout};
use engine::{Engine, fine, run};

#[test]
fn device_nodes_of_others_are_of_no_use() {
    if !is_root() {
        return skip("device nodes need root");
    }
    let engine = Engine::new();
    let folder = tempfile::tempdir().expect("folder");
    for place in [&engine.rootfs(), folder.path()] {
        let made = run(Command::new("mknod").arg(place.join("node")).args(["c", "1", "5"]));
        assert!(made.status.success(), "{}", stderr(&made));
    }
    let volume = format!("{}:/volume", folder.path().display());
    let script = "for node in /node /volume/node /dev/zero; do head -c 1 $node | wc -c; done 2>&1";
    for mode in [&[][..], &["--overlay"], &["--readonly"], &["--rootless"]] {
        let flags = [&["-v", &volume][..], mode].concat();
        let seen = fine(engine.sh(&flags, script));
        assert_eq!(seen.matches("Permission denied").count(), 2, "{mode:?}: {seen}");
        assert_eq!(seen.lines().last(), Some("1"), "{mode:?}: {seen}");
    }
    // Who may make nodes can only make those that any container has.
    let script = "for number in '1 5' '1 1'; do rm -f /tmp/node; mknod /tmp/node c $number; \
                  head -c 1 /tmp/node | wc -c; done 2>&1";
    let flags = ["--cap-add", "MKNOD", "--cap-add", "SYS_RAWIO", "--tmpfs", "/tmp:dev"];
    let seen = fine(engine.sh(&flags, script));
    assert_eq!(seen.lines().next(), Some("1"), "{seen}");
    assert!(seen.contains("not permitted"), "{seen}");
}

#[test]
fn a_device_comes_with_the_rights_that_were_given() {
    if !is_root() {
        return skip("device nodes need root");
    }
    let engine = Engine::new();
    // A device that no container has by itself; opening it to write asks for
    // no capability.
    let script = "stat -c '%t:%T' /dev/my/log; (: >>/dev/my/log) 2>/dev/null && echo writable; \
                  mknod /tmp/node c 1 11 2>/dev/null && echo made; echo x >/dev/null && echo null";
    let seen = |rights: &str| {
        let device = format!("/dev/kmsg:/dev/my/log{rights}");
        let flags = ["--device", &device, "--cap-add", "MKNOD", "--tmpfs", "/tmp:dev"];
        fine(engine.sh(&flags, script))
    };
    assert_eq!(seen(""), "1:b\nwritable\nmade\nnull\n");
    assert_eq!(seen(":w"), "1:b\nwritable\nnull\n");
    assert_eq!(seen(":r"), "1:b\nnull\n");
    assert_eq!(seen(":rm"), "1:b\nmade\nnull\n");
    // Where the host has it, with the host's owner and mode.
    let host = run(Command::new("stat").args(["-c", "%a %u %g", "/dev/kmsg"]));
    let same = fine(engine.sh(&["--device", "/dev/kmsg"], "stat -c '%a %u %g' /dev/kmsg"));
    assert_eq!(same, stdout(&host));
}

#[test]
fn what_cannot_be_given_as_a_device_is_named() {
    if !is_root() {
        return skip("device nodes need root");
    }
    let engine = Engine::new();
    for (device, part) in [
        ("/dev/nothing", "/dev/nothing"),
        ("/usr", "/usr is no device, but a folder"),
        ("/dev/kmsg:/kmsg", "only below /dev"),
    ] {
        let device = if device == "/usr" { "/usr:/dev/usr" } else { device };
        let output = run(engine.sh(&["--device", device], "true"));
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(125), "{device}: {error}");
        assert!(error.contains(part), "{device}: {error}");
    }
}
