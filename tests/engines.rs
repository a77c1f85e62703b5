//! Podman and Docker with `unladen-oci` in the place of their runtime: start,
//! execute, limit, stop, remove, and nothing is left. Each engine has folders
//! and sockets of its own; no registry is asked, the image is a tar archive of
//! one static program.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{is_root, skip, stderr, stdout, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);
const IMAGE: &str = "unladen-test/busybox:local";

/// Cgroups in which engines put all their containers, and which they leave.
fn parents(name: &str) -> BTreeSet<PathBuf> {
    let top = PathBuf::from("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(&top).expect("cgroups").flatten().map(|entry| entry.path());
    let places = hierarchies.chain([top.clone()]).map(|place| place.join(name));
    places.filter(|place| place.is_dir()).collect()
}

/// Removes a cgroup with those below it; what is in use stays.
fn remove_cgroup(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    // The kernel may not have done with those below it.
    wait_until(Duration::from_secs(5), || fs::remove_dir(folder).is_ok() || !folder.exists());
}

/// A folder with an image, and the words that call an engine.
struct Engine {
    folder: tempfile::TempDir,
    words: Vec<String>,
    variables: Vec<(String, String)>,
    daemon: Option<Child>,
    /// The name of its cgroup, and where there was one before.
    parents: (&'static str, BTreeSet<PathBuf>),
}

/// The path of a program of the host.
fn program(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
}

/// Whether the test can run: root, and these programs. What is missing is a
/// skip with its name.
fn lacks(programs: &[&str]) -> bool {
    if !is_root() {
        skip("engines with a runtime of their own need root here");
        return true;
    }
    let missing = programs.iter().find(|name| program(name).is_none());
    if let Some(name) = missing {
        skip(&format!("{name} is not installed (scripts/setup.sh --for test)"));
    }
    missing.is_some()
}

impl Engine {
    fn new(parent: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let rootfs = folder.path().join("rootfs");
        for name in ["bin", "dev", "proc", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(name)).expect("made");
        }
        let busybox = program("busybox").expect("looked for before");
        common::copy_program(&busybox, &rootfs.join("bin/busybox"));
        for name in ["sh", "cat", "sleep", "tail", "tty", "true"] {
            symlink("busybox", rootfs.join("bin").join(name)).expect("linked");
        }
        let mut archive =
            tar::Builder::new(fs::File::create(folder.path().join("image.tar")).expect("made"));
        archive.follow_symlinks(false);
        archive.append_dir_all(".", &rootfs).expect("packed");
        archive.finish().expect("packed");
        let parents = (parent, parents(parent));
        Self { folder, words: Vec::new(), variables: Vec::new(), daemon: None, parents }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Runs the engine; its exit code and both streams.
    fn call(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let (first, rest) = self.words.split_first().expect("an engine");
        let mut command = Command::new(first);
        command.args(rest).args(arguments).stdin(Stdio::null());
        // Podman's monitor leaves a file `oom` where it was started.
        command.current_dir(self.folder.path());
        command.envs(self.variables.iter().cloned());
        let output = command.output().expect("the engine starts");
        (output.status.code(), stdout(&output), stderr(&output))
    }

    /// A call that must work.
    fn must(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.call(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {out}{err}");
        out
    }

    /// Everything an engine does with a runtime.
    fn exercise(&self, runtime: &[&str]) {
        let name = format!("unladen-test-{}", std::process::id());
        self.must(&["import", &self.file("image.tar"), IMAGE]);
        let run = |more: &[&str]| {
            let all = [&["run"][..], runtime, &["--network", "none"], more].concat();
            self.call(&all)
        };
        let (code, out, err) = run(&["--rm", IMAGE, "sh", "-c", "echo inside; exit 7"]);
        assert_eq!((code, out.as_str()), (Some(7), "inside\n"), "{err}");
        // The exit codes that engines make of what the runtime says.
        let (code, out, err) = run(&["--rm", IMAGE, "nope"]);
        assert_eq!(code, Some(127), "{out}{err}");
        let limits = ["-m", "32m", "--cpus", "0.5", "--pids-limit", "16"];
        let detached = [&["-d", "--name", &name][..], &limits, &[IMAGE, "sleep", "600"]].concat();
        let (code, out, err) = run(&detached);
        assert_eq!(code, Some(0), "{out}{err}");
        self.look_inside(&name);
        // A limit that holds: the kernel kills who wants more.
        let hog = [&limits[..2], &["--rm", IMAGE, "tail", "-c", "200000000", "/dev/zero"]].concat();
        let (code, out, err) = run(&hog);
        assert_eq!(code, Some(137), "{out}{err}");
        self.must(&["pause", &name]);
        let status = self.must(&["inspect", "--format", "{{.State.Status}}", &name]);
        assert_eq!(status.trim(), "paused");
        self.must(&["unpause", &name]);
        self.must(&["stop", "-t", "1", &name]);
        self.must(&["rm", &name]);
    }

    /// One more process in the container, which reports its limits.
    fn look_inside(&self, name: &str) {
        let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes \
                      /sys/fs/cgroup/memory.max 2>/dev/null; \
                      cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; exit 9";
        let (code, out, err) = self.call(&["exec", name, "sh", "-c", script]);
        assert_eq!((code, out.as_str()), (Some(9), "33554432\n16\n"), "{err}");
        let (code, out, err) = self.call(&["exec", "-t", name, "tty"]);
        // Docker wants a terminal itself for this.
        let refused = err.contains("not a TTY");
        assert!(refused || (code == Some(0) && out.starts_with("/dev/pts/")), "{out}{err}");
    }

    /// No process, mount or state of a container.
    fn nothing_is_left(&self, states: &Path) {
        let path = self.folder.path().display().to_string();
        let left = || {
            let of = |entry: fs::DirEntry| {
                let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&words).replace('\0', " ")
            };
            let all = fs::read_dir("/proc").expect("proc").flatten().map(of);
            all.filter(|line| line.contains(&path) && !line.contains("dockerd"))
                .filter(|line| !line.starts_with("containerd "))
                .collect::<Vec<_>>()
        };
        assert!(wait_until(PATIENCE, || left().is_empty()), "{:?}", left());
        let states: Vec<_> = fs::read_dir(states)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        assert_eq!(states, Vec::<PathBuf>::new());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id()).unwrap_or(i32::MAX));
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = daemon.wait();
            // Docker leaves its own network namespace bound.
            let bound = self.folder.path().join("exec/netns/default");
            let _ = nix::mount::umount(&bound);
        }
        let (name, before) = &self.parents;
        for made in parents(name).difference(before) {
            remove_cgroup(made);
        }
    }
}

/// Limits that a process may have at most; engines try to raise theirs.
fn hard_limit(resource: nix::sys::resource::Resource, most: u64) -> u64 {
    nix::sys::resource::getrlimit(resource).map_or(most, |(_, hard)| hard.min(most))
}

#[test]
fn podman_uses_this_runtime() {
    if lacks(&["podman", "conmon", "busybox"]) {
        return;
    }
    use nix::sys::resource::Resource;
    let mut engine = Engine::new("libpod_parent");
    let files = hard_limit(Resource::RLIMIT_NOFILE, 4096);
    // Podman lowers its own to this number first.
    let processes = hard_limit(Resource::RLIMIT_NPROC, 32_768);
    let text = format!(
        "[containers]\n\
         default_ulimits = [\"nofile=1024:{files}\", \"nproc={processes}:{processes}\"]\n\
         log_driver = \"k8s-file\"\n\
         [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n"
    );
    fs::write(engine.file("containers.conf"), text).expect("written");
    engine.variables.push(("CONTAINERS_CONF".to_owned(), engine.file("containers.conf")));
    let podman = program("podman").expect("there").display().to_string();
    let mut words = vec![podman];
    for (option, folder) in [
        ("--root", "root"),
        ("--runroot", "run"),
        ("--tmpdir", "tmp"),
        ("--network-config-dir", "net"),
    ] {
        words.extend([option.to_owned(), engine.file(folder)]);
    }
    words.extend(
        ["--cgroup-manager=cgroupfs", "--events-backend=file", "--storage-driver=vfs", "--runtime"]
            .map(str::to_owned),
    );
    words.push(env!("CARGO_BIN_EXE_unladen-oci").to_owned());
    engine.words = words;
    engine.exercise(&[]);
    engine.nothing_is_left(Path::new("/no/such/folder"));
    // Podman hands no options to its own clean-up, so the states are where
    // they are without any.
    let list = Command::new(env!("CARGO_BIN_EXE_unladen-oci"))
        .args(["list", "--format", "json"])
        .output()
        .expect("ran");
    assert!(!stdout(&list).contains(&engine.file("")), "{}", stdout(&list));
}

#[test]
fn docker_uses_this_runtime() {
    if lacks(&["docker", "dockerd", "containerd", "runc", "busybox"]) {
        return;
    }
    let mut engine = Engine::new("docker");
    let socket = format!("unix://{}", engine.file("docker.sock"));
    let log = fs::File::create(engine.file("dockerd.log")).expect("made");
    let mut daemon = Command::new(program("dockerd").expect("there"));
    for (option, name) in
        [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "docker.pid")]
    {
        daemon.arg(option).arg(engine.file(name));
    }
    daemon.args(["--host", &socket, "--bridge=none", "--storage-driver", "vfs"]);
    daemon.args(["--iptables=false", "--ip6tables=false", "--ip-forward=false"]);
    daemon.args(["--ip-masq=false", "--exec-opt", "native.cgroupdriver=cgroupfs"]);
    daemon.arg("--add-runtime");
    daemon.arg(format!("unladen={}", env!("CARGO_BIN_EXE_unladen-oci")));
    let errors = log.try_clone().expect("copied");
    daemon.stdin(Stdio::null()).stdout(log).stderr(errors);
    engine.daemon = Some(daemon.spawn().expect("started"));
    let docker = program("docker").expect("there").display().to_string();
    engine.words = vec![docker, "--host".to_owned(), socket];
    let log = || fs::read_to_string(engine.file("dockerd.log")).unwrap_or_default();
    assert!(wait_until(PATIENCE, || engine.call(&["version"]).0 == Some(0)), "{}", log());
    engine.exercise(&["--runtime", "unladen"]);
    engine.nothing_is_left(Path::new(&engine.file("exec/runtime-runc/moby")));
}
