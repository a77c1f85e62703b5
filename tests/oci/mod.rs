//! A bundle and `unladen-oci` on it.
#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

/// Nothing in these tests takes this long, however loaded the host.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A bundle, unless containers cannot be made here: the test is over then.
macro_rules! bundle {
    ($($script:expr)?) => {
        if $crate::common::is_root() {
            $crate::oci::Bundle::new([$($script,)? "exec sleep 60"][0])
        } else {
            return $crate::common::skip(
                "root is needed to make cgroups and hooks at absolute paths",
            );
        }
    };
}
pub(crate) use bundle;

/// A bundle whose container has the host's programs, with states and control
/// groups of its own. Whatever a failing test leaves is removed.
pub struct Bundle {
    folder: tempfile::TempDir,
    cgroup: String,
}

impl Bundle {
    pub fn new(script: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("unladen.test-{}-{number}", std::process::id());
        let folder = tempfile::tempdir().expect("folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("changed");
        let rootfs = folder.path().join("rootfs");
        for name in ["usr", "proc", "sys", "dev", "tmp"] {
            fs::create_dir_all(rootfs.join(name)).expect("made");
        }
        for name in ["bin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), rootfs.join(name)).expect("linked");
        }
        let bundle = Self { folder, cgroup };
        bundle.write(&bundle.config(script));
        bundle
    }

    fn config(&self, script: &str) -> Value {
        let mount = |to: &str, kind: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
        let kinds = ["pid", "mount", "ipc", "uts", "network", "cgroup"];
        let namespaces: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
        json!({
            "ociVersion": "1.0.2",
            "annotations": {"org.example": "yes"},
            "hostname": "box",
            "root": {"path": "rootfs"},
            "process": {
                "args": ["sh", "-c", script],
                "env": ["PATH=/usr/bin"],
                "cwd": "/",
                "user": {"uid": 0, "gid": 0},
                "noNewPrivileges": true,
                "capabilities": {},
            },
            "mounts": [
                {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
                mount("/proc", "proc", &[]),
                mount("/dev", "tmpfs", &["nosuid", "mode=755"]),
                mount("/dev/pts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620"]),
            ],
            "linux": {
                "namespaces": namespaces,
                "cgroupsPath": format!("/{}/inner", self.cgroup),
                "maskedPaths": ["/proc/kcore"],
                "readonlyPaths": ["/proc/sys"],
            },
        })
    }

    fn write(&self, config: &Value) {
        fs::write(self.file("config.json"), config.to_string()).expect("written");
    }

    pub fn change(&mut self, change: impl FnOnce(&mut Value)) {
        let text = fs::read_to_string(self.file("config.json")).expect("read");
        let mut config = serde_json::from_str(&text).expect("JSON");
        change(&mut config);
        self.write(&config);
    }

    pub fn write_rootfs(&self, name: &str, content: &[u8]) {
        crate::common::write_program(&self.folder.path().join("rootfs").join(name), content);
    }

    /// The bundle's folder.
    pub fn path(&self) -> String {
        self.file("").trim_end_matches('/').to_owned()
    }

    pub fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub fn state_file(&self, id: &str) -> String {
        self.file(&format!("states/{id}/state.json"))
    }

    /// The command with a root of its own.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_unladen-oci"));
        command.arg("--root").arg(self.file("states")).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command; its exit code and all it says. Through files, since a
    /// created container keeps its streams open.
    pub fn oci(&self, arguments: &[&str]) -> (i32, String) {
        let mut said = tempfile::tempfile().expect("file");
        let both = || said.try_clone().expect("copied");
        let status = self
            .command(arguments)
            .stdout(both())
            .stderr(both())
            .status()
            .expect("the command starts");
        let mut text = String::new();
        std::io::Seek::rewind(&mut said).expect("rewound");
        std::io::Read::read_to_string(&mut said, &mut text).expect("UTF-8");
        (status.code().expect("an exit code"), text)
    }

    /// Runs a command that must work.
    pub fn must(&self, arguments: &[&str]) -> String {
        let (code, text) = self.oci(arguments);
        assert_eq!(code, 0, "{arguments:?}: {text}");
        text
    }

    /// Runs a command that must fail, and returns what it says.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let (code, text) = self.oci(arguments);
        assert_eq!(code, 1, "{arguments:?}: {text}");
        text
    }

    /// Creates a container that writes into a file.
    pub fn create(&self, id: &str) {
        self.create_with(&[], id);
    }

    /// The same with more options.
    pub fn create_with(&self, options: &[&str], id: &str) {
        let output = fs::File::create(self.file("output")).expect("made");
        let path = self.path();
        let mut command = self.command(&["create", "--bundle", &path]);
        command.args(options).arg(id);
        let errors = fs::File::create(self.file("errors")).expect("made");
        let status = command.stdout(output).stderr(errors).status().expect("the command starts");
        let said = fs::read_to_string(self.file("errors")).expect("UTF-8");
        assert!(status.success(), "{said}");
    }

    /// Creates and starts a container.
    pub fn launch(&self, id: &str) {
        self.create(id);
        self.must(&["start", id]);
    }

    /// Waits for the end of a container's process.
    pub fn stops(&self, id: &str) {
        let stopped = || self.state(id)["status"] == "stopped";
        assert!(crate::common::wait_until(PATIENCE, stopped), "{}", self.state(id));
    }

    /// Deletes the last container, of which nothing may be left.
    pub fn is_deleted(&self, id: &str) {
        self.must(&["delete", id]);
        self.nothing_is_left();
    }

    /// The same with one that may still run.
    pub fn ends_by_force(&self, id: &str) {
        self.must(&["delete", "--force", id]);
        self.nothing_is_left();
    }

    /// What a created container has written.
    pub fn output(&self) -> String {
        fs::read_to_string(self.file("output")).unwrap_or_default()
    }

    pub fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.must(&["state", id])).expect("JSON")
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let mut tops = vec![PathBuf::from("/sys/fs/cgroup")];
        tops.extend(
            fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten().map(|entry| entry.path()),
        );
        tops.into_iter().map(|top| top.join(&self.cgroup)).filter(|path| path.exists()).collect()
    }

    /// Neither states nor cgroups nor mounts.
    pub fn nothing_is_left(&self) {
        let states: Vec<_> = fs::read_dir(self.file("states"))
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        assert_eq!(states, Vec::<PathBuf>::new());
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("proc");
        assert!(!mounts.contains(&self.path()), "{mounts}");
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        for id in ["c", "d"] {
            let _ = self.command(&["delete", "--force", id]).status();
        }
    }
}

/// Whether a process runs: a zombie does not.
pub fn runs(pid: i32) -> bool {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    text.is_ok_and(|text| !text.contains(") Z "))
}
