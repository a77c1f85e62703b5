//! Layouts of hosts, as folders: where the cgroups of a run would go.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// A host made of folders.
struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    /// A host with these lines of `/proc/self/mountinfo` (without the first
    /// fields) and `/proc/self/cgroup`.
    fn new(mounts: &[&str], own: &[&str]) -> Self {
        let host = Self { folder: tempfile::tempdir().expect("folder") };
        let lines = mounts.iter().enumerate();
        let mounts: String =
            lines.map(|(index, line)| format!("{index} 1 0:{index} {line}\n")).collect();
        host.write("proc/self/mountinfo", &mounts);
        host.write(
            "proc/self/cgroup",
            &own.iter().map(|line| format!("{line}\n")).collect::<String>(),
        );
        // This process, its parent 10, and 10's parent 1.
        let caller = std::process::id();
        host.write(&format!("proc/{caller}/stat"), &format!("{caller} (a) b) S 10 0"));
        host.write("proc/10/stat", "10 (sh) S 1 0");
        host.write("proc/1/stat", "1 (init) S 0 0");
        host.write("proc/99/stat", "99 (other) S 1 0");
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("below")).expect("made");
        fs::write(path, content).expect("written");
    }

    /// A cgroup of version 2 that is not the root.
    fn cgroup(&self, path: &str, controllers: &str, processes: &[u32]) {
        let list: String = processes.iter().map(|pid| format!("{pid}\n")).collect();
        self.write(&format!("sys/{path}/cgroup.controllers"), controllers);
        self.write(&format!("sys/{path}/cgroup.procs"), &list);
        self.write(&format!("sys/{path}/cgroup.events"), "populated 1\n");
    }

    fn detect(&self) -> Hierarchy {
        Hierarchy::detect(&self.path("proc"), &self.path("sys")).expect("detected")
    }

    /// The place for a controller, below the mounted root.
    fn place(&self, controller: Controller) -> Result<(Version, String), String> {
        match self.detect().availability(controller) {
            Availability::Usable { version, below } => {
                let below = below.strip_prefix(self.path("sys")).expect("below the root");
                Ok((version, below.display().to_string()))
            }
            Availability::Unusable(reason) => {
                Err(reason.replace(&self.path("sys").display().to_string(), "ROOT"))
            }
        }
    }
}

const UNIFIED: &str = "/ /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";

#[test]
fn version_1_goes_below_the_callers_own_cgroup() {
    let host = Host::new(
        &[
            "/ /sys/fs/cgroup/cpu,cpuacct rw shared:1 - cgroup cgroup rw,cpu,cpuacct",
            "/ /sys/fs/cgroup/memory rw shared:2 - cgroup cgroup rw,memory",
            "/ /sys/fs/cgroup/systemd rw shared:3 - cgroup cgroup rw,name=systemd",
            "/ /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw",
        ],
        &["4:memory:/job/7", "3:cpu,cpuacct:/", "1:name=systemd:/", "0::/"],
    );
    host.write("sys/cpu,cpuacct/cgroup.procs", "");
    host.write("sys/memory/job/7/cgroup.procs", "");
    host.write("sys/unified/cgroup.controllers", "hugetlb\n");
    host.write("sys/unified/cgroup.procs", "");
    assert_eq!(host.place(Controller::Memory), Ok((Version::V1, "memory/job/7".to_owned())));
    assert_eq!(host.place(Controller::Cpu), Ok((Version::V1, "cpu,cpuacct".to_owned())));
    // Version 2 can always stop its processes.
    assert_eq!(host.place(Controller::Freezer), Ok((Version::V2, "unified".to_owned())));
    let reason = host.place(Controller::Pids).expect_err("not there");
    assert_eq!(reason, "ROOT/unified was not given the pids controller (it has: hugetlb)");
    assert_eq!(
        host.detect().describe(),
        "hybrid: v1 (memory cpu cpuacct), v2 (hugetlb devices freezer)"
    );
}

#[test]
fn inside_a_container_only_what_is_mounted_counts() {
    let host = Host::new(
        &["/docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"],
        &["4:memory:/docker/abc/deep", "3:pids:/docker/abc"],
    );
    host.write("sys/memory/deep/cgroup.procs", "");
    assert_eq!(host.place(Controller::Memory), Ok((Version::V1, "memory/deep".to_owned())));
    let reason = host.place(Controller::Pids).expect_err("not mounted");
    assert!(reason.contains("no mounted cgroup hierarchy"), "{reason}");
}

#[test]
fn the_root_of_version_2_may_have_processes_and_children() {
    let host = Host::new(&[UNIFIED], &["0::/"]);
    host.write("sys/cgroup.controllers", "cpu memory pids");
    host.write("sys/cgroup.procs", "1\n99\n");
    assert_eq!(host.place(Controller::Memory), Ok((Version::V2, String::new())));
}

#[test]
fn a_session_of_root_gets_its_cgroups_beside_itself() {
    if !nix::unistd::geteuid().is_root() {
        // Then the folders count as delegated, which is the next test.
        return;
    }
    let host = Host::new(&[UNIFIED], &["0::/user.slice/session-1.scope"]);
    host.cgroup("user.slice", "cpu memory pids", &[]);
    host.cgroup("user.slice/session-1.scope", "memory pids", &[10, std::process::id()]);
    assert_eq!(host.place(Controller::Memory), Ok((Version::V2, "user.slice".to_owned())));
    host.cgroup("user.slice", "cpu memory pids", &[99]);
    let reason = host.place(Controller::Memory).expect_err("occupied");
    assert!(reason.starts_with("ROOT/user.slice holds processes itself; start"), "{reason}");
}

#[test]
fn the_visible_top_is_used_when_only_relatives_must_step_aside() {
    let host = Host::new(&[UNIFIED], &["0::/"]);
    let caller = std::process::id();
    host.cgroup("", "cpu memory pids", &[1, 10, caller]);
    assert_eq!(host.place(Controller::Pids), Ok((Version::V2, String::new())));
    host.cgroup("", "cpu memory pids", &[1, 10, caller, 99]);
    let reason = host.place(Controller::Pids).expect_err("a stranger");
    assert!(reason.contains("did not start (99); start unladen as root"), "{reason}");
}

#[test]
fn damaged_files_are_named() {
    let host = Host::new(&[], &["what is this"]);
    let error = Hierarchy::detect(&host.path("proc"), &host.path("sys")).expect_err("damaged");
    assert!(error.to_string().contains("proc/self/cgroup does not hold"), "{error}");
    let error = Hierarchy::detect(Path::new("/no/such"), &host.path("sys")).expect_err("missing");
    assert_eq!(error.to_string(), "cannot read /no/such/self/cgroup");
}

#[test]
fn a_controller_that_is_missing_is_a_remark_and_only_if_wanted() {
    let host = Host::new(&[], &["0::/"]);
    let tree = host.detect().prepare("7", &Controller::STANDARD).expect("nothing to do");
    assert_eq!(tree.missing().len(), 3);
    let limits = Limits { memory: Some(1), ..Limits::default() };
    let group = tree.create("one", &limits).expect("nothing to do");
    assert_eq!(group.remarks().len(), 1);
    assert!(group.remarks()[0].starts_with("no memory limit: no mounted cgroup"));
    assert!(!group.exists() && group.join_fds().is_empty() && group.into_cgroup().is_none());
    let error = group.memory_usage().expect_err("unavailable").to_string();
    assert!(error.starts_with("the memory controller is not available: no mounted"), "{error}");
}
