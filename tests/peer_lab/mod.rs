//! A cache folder with daemons of a test's own, for tests of other systems.
#![allow(dead_code, reason = "not every test needs everything")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::common::{cache, is_root, skip, stderr, stdout, traces_of, unladen};

/// Every system that is measured here, and what setup.sh calls it.
pub const SYSTEMS: [(&str, &str); 12] = [
    ("unladen-oci", "unshare"),
    ("runc", "runc"),
    ("crun", "crun"),
    ("youki", "youki"),
    ("bwrap", "bwrap"),
    ("unshare", "unshare"),
    ("lxc", "lxc"),
    ("nspawn", "nspawn"),
    ("runsc", "runsc"),
    ("podman", "podman"),
    ("containerd", "containerd"),
    ("docker", "docker"),
];

/// A cache folder of the test's own, with daemons in it that nobody else
/// uses.
pub struct Lab {
    pub folder: tempfile::TempDir,
}

impl Lab {
    /// Nothing when a system is missing.
    pub fn new(daemons: &[&str]) -> Option<Self> {
        if !is_root() {
            skip("other systems are started as root");
            return None;
        }
        let lab = Self { folder: tempfile::tempdir().expect("folder") };
        let peers = lab.folder.path().join("unladen/peers");
        fs::create_dir_all(&peers).expect("made");
        // What was built once is used again.
        for entry in fs::read_dir(cache().join("peers")).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("youki-") {
                symlink(entry.path(), peers.join(entry.file_name())).expect("linked");
            }
        }
        let mut names: Vec<&str> = SYSTEMS.iter().map(|(_, name)| *name).collect();
        names.dedup();
        let check = lab.script("setup.sh", &[&["--check"][..], &names].concat());
        if !check.status.success() {
            let missing = stdout(&check).replace('\n', " ");
            skip(&format!("not installed: {missing}; scripts/peers/setup.sh installs them"));
            return None;
        }
        if !daemons.is_empty() {
            let started = lab.script("setup.sh", &[&["--start"][..], daemons].concat());
            assert!(started.status.success(), "{}", stderr(&started));
        }
        Some(lab)
    }

    pub fn script(&self, name: &str, words: &[&str]) -> Output {
        // Its output goes to a file: a daemon would keep a pipe open.
        let file = || tempfile::tempfile().expect("a file");
        let (out, err) = (file(), file());
        let status =
            Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/peers").join(name))
                .args(words)
                .env("XDG_CACHE_HOME", self.folder.path())
                .stdin(Stdio::null())
                .stdout(out.try_clone().expect("copied"))
                .stderr(err.try_clone().expect("copied"))
                .status()
                .expect("the script starts");
        let text = |mut file: fs::File| {
            use std::io::{Read, Seek};
            let mut text = Vec::new();
            file.rewind().and_then(|()| file.read_to_end(&mut text)).expect("read");
            text
        };
        Output { status, stdout: text(out), stderr: text(err) }
    }

    pub fn unladen(&self) -> Command {
        let mut command = unladen();
        command.env("XDG_CACHE_HOME", self.folder.path());
        command.env("XDG_CONFIG_HOME", self.folder.path().join("config"));
        command
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("written");
        path
    }

    /// The socket of a daemon of the lab.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join("unladen/peers/daemons").join(name).join("daemon.sock")
    }

    /// What a daemon still has, one a line.
    pub fn objects(&self) -> String {
        let socket = |name: &str| self.socket(name).display().to_string();
        let docker = format!("unix://{}", socket("docker-overlay2"));
        let ask = |words: &[&str]| {
            let output = Command::new(words[0]).args(&words[1..]).output().expect("starts");
            assert!(output.status.success(), "{words:?}: {}", stderr(&output));
            stdout(&output)
        };
        [
            ask(&["docker", "--host", &docker, "ps", "--all", "--quiet"]),
            ask(&["docker", "--host", &docker, "images", "--all", "--quiet"]),
            ask(&["docker", "--host", &docker, "volume", "ls", "--quiet"]),
            ask(&["ctr", "--address", &socket("containerd"), "namespaces", "list", "--quiet"]),
        ]
        .concat()
    }

    /// Everything of a run that is left on the host: what carries its id, and
    /// what systems keep elsewhere by names of their own.
    pub fn left(&self, run_id: &str) -> Vec<String> {
        let mut left = traces_of(run_id);
        let inside = self.folder.path().join("unladen/instances").join(run_id);
        let brief = PathBuf::from(format!("/run/unladen-{run_id}"));
        left.extend(
            [inside, brief]
                .iter()
                .filter(|path| path.exists())
                .map(|path| format!("folder {}", path.display())),
        );
        let locks =
            format!("/run/lxc/lock{}", self.folder.path().join("unladen/instances").display());
        let locks = Path::new(&locks).join(run_id);
        left.extend(locks.exists().then(|| format!("locks {}", locks.display())));
        // Shims and monitors have no variable of ours, but name the instance.
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&format!("unladen-{run_id}")) {
                left.push(format!("process {line}"));
            }
        }
        left
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let stopped = self.script("teardown.sh", &["--daemons"]);
        let folder = self.folder.path().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&folder)).collect();
        if !std::thread::panicking() {
            assert!(stopped.status.success(), "{}", stderr(&stopped));
            assert_eq!(left, Vec::<&str>::new(), "mounts of daemons");
            assert!(!self.folder.path().join("unladen/peers/daemons/containerd").exists());
        }
    }
}
