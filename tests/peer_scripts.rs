//! What `scripts/peers/setup.sh` makes on a host is what `teardown.sh`
//! removes, and nothing else: with a package manager that only writes down
//! what it is told, in a mount namespace in which a program is missing.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{is_root, skip, stderr, stdout};

/// A package manager with the words of Arch's, whose packages are lines of a
/// file. With `runc` comes a `helper`, and the program that was hidden; one
/// that is in `needed` cannot be removed.
const PACMAN: &str = r#"#!/bin/sh
cd "$UNLADEN_TEST_FOLDER" || exit 9
case $1 in
-T) grep -qxF "$2" installed ;;
-Qq) cat installed ;;
--sync) shift 3; printf '%s\n' "$@" helper >>installed; umount "$UNLADEN_TEST_PROGRAM" ;;
--remove)
    shift 2
    for name; do ! grep -qxF "$name" needed || exit 1; done
    for name; do sed -i "/^$name\$/d" installed; done ;;
*) exit 9 ;;
esac
"#;

struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { folder: tempfile::tempdir().expect("folder") };
        host.write("os-release", "ID=arch\n");
        host.write("installed", "before\n");
        host.write("needed", "");
        fs::create_dir(host.path("bin")).expect("made");
        common::write_program(&host.path("bin/pacman"), PACMAN.as_bytes());
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A command on this host, in which `program` is hidden.
    fn run(&self, program: &Path, script: &str, words: &[&str]) -> Output {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/peers");
        let path = std::env::var("PATH").expect("a path");
        Command::new("unshare")
            .args(["--mount", "sh", "-c"])
            .arg("mount --bind /dev/null \"$UNLADEN_TEST_PROGRAM\" && exec \"$@\"")
            .arg("sh")
            .arg(scripts.join(script))
            .args(words)
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("UNLADEN_TEST_FOLDER", self.folder.path())
            .env("UNLADEN_TEST_PROGRAM", program)
            .env("UNLADEN_OS_RELEASE", self.path("os-release"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .stdin(Stdio::null())
            .output()
            .expect("unshare starts")
    }
}

#[test]
fn packages_are_removed_only_when_asked_and_only_those_that_setup_installed() {
    let places = ["/usr/sbin/runc", "/usr/bin/runc"].map(Path::new);
    let Some(runc) = places.into_iter().find(|path| path.exists()) else {
        return skip("no runc to hide; install it with: scripts/peers/setup.sh runc");
    };
    if !is_root() {
        return skip("hiding a program needs root");
    }
    let host = Host::new();
    let check = host.run(runc, "setup.sh", &["--check", "runc"]);
    assert_eq!(check.status.code(), Some(3), "{}", stderr(&check));
    assert_eq!(host.read("installed"), "before\n", "a check installs nothing");
    let setup = host.run(runc, "setup.sh", &["runc"]);
    assert!(setup.status.success(), "{}", stderr(&setup));
    assert_eq!(host.read("installed"), "before\nrunc\nhelper\n");
    let teardown = |words: &[&str]| host.run(runc, "teardown.sh", words);
    // Without being asked it leaves them alone, and does not forget them.
    let plain = teardown(&[]);
    assert!(plain.status.success() && stdout(&plain).is_empty(), "{}", stderr(&plain));
    assert!(stderr(&plain).contains("--packages"), "{}", stderr(&plain));
    let dry = teardown(&["--packages", "--dry-run"]);
    assert_eq!(stdout(&dry), "package helper\npackage runc\n", "{}", stderr(&dry));
    assert_eq!(host.read("installed"), "before\nrunc\nhelper\n");
    // One that something needs by now stays, and is known the next time.
    host.write("needed", "helper\n");
    let some = teardown(&["--packages"]);
    assert_eq!(some.status.code(), Some(3), "{}", stderr(&some));
    assert_eq!(host.read("installed"), "before\nhelper\n");
    host.write("needed", "");
    let rest = teardown(&["--packages"]);
    assert!(rest.status.success(), "{}", stderr(&rest));
    assert_eq!(host.read("installed"), "before\n");
    assert!(!host.path("cache/unladen/peers").exists());
    let again = teardown(&["--packages"]);
    assert!(again.status.success() && stdout(&again).is_empty(), "{}", stderr(&again));
}

#[test]
fn folders_are_removed_only_below_the_scripts_own() {
    let folder = tempfile::tempdir().expect("folder");
    let peers = folder.path().join("unladen/peers");
    let (built, other) = (peers.join("youki-0"), peers.join("other"));
    let (draft, outside) = (peers.join(".draft.x"), folder.path().join("outside"));
    for made in [&built, &other, &draft, &outside] {
        fs::create_dir_all(made).expect("made");
    }
    let record = format!(
        "folder {}\nfolder {}\nfolder {}/../../outside\npackage unladen-no-such-package\n",
        built.display(),
        outside.display(),
        peers.display()
    );
    fs::write(peers.join("record"), record).expect("written");
    let teardown = |arguments: &[&str]| {
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/peers/teardown.sh"))
            .env("XDG_CACHE_HOME", folder.path())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("it starts")
    };
    let dry = teardown(&["--dry-run"]);
    assert_eq!(stdout(&dry), format!("folder {}\n", built.display()), "{}", stderr(&dry));
    assert!(built.exists());
    let wrong = teardown(&["--daemons", "--packages"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", stderr(&wrong));
    let real = teardown(&[]);
    assert!(real.status.success(), "{}", stderr(&real));
    assert!(!built.exists() && !draft.exists() && other.exists() && outside.exists());
    assert!(!peers.join("record").exists());
}
