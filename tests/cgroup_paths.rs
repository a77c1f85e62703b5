//! Groups at a path that an engine chose, found again by another process, and
//! limits that change while a group is in use.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod lab;

use std::fs;
use std::path::{Path, PathBuf};

use common::{is_root, skip as skipped};
use lab::{LIMIT, Lab};
use nix::sys::signal::Signal;
use unladen::container::cgroup::{
    Controller, CpuQuota, Group, GroupRecord, Hierarchy, Limits, UNLIMITED,
};
use unladen::sys::pidfd::Exit;

const MIB: u64 = 1024 * 1024;

fn detect() -> Hierarchy {
    Hierarchy::detect(Path::new("/proc"), Path::new("/sys/fs/cgroup")).expect("detected")
}

/// A path that nobody else uses.
fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("/unladen-path-{}-{name}/engine/one", std::process::id()))
}

/// Removes a group also when its test fails.
struct Gone(Group);

impl Drop for Gone {
    fn drop(&mut self) {
        // A test that fails says why itself.
        drop(self.0.kill_all());
        drop(self.0.remove(LIMIT));
    }
}

/// Every folder that carries a name of these tests, wherever it is.
fn traces(path: &Path) -> Vec<PathBuf> {
    let top = path.iter().nth(1).expect("a name").to_string_lossy().into_owned();
    let id = top.strip_prefix("unladen-").expect("the prefix");
    unladen::container::cgroup::find(&detect(), Some(id))
}

#[test]
fn a_path_is_made_found_again_and_removed() {
    if !is_root() {
        return skipped("the top of a hierarchy is root's");
    }
    let path = path("made");
    let limits = Limits { memory: Some(32 * MIB), pids: Some(9), ..Limits::default() };
    let mut guard = Gone(detect().group_at(&path, &limits).expect("made"));
    let group = &mut guard.0;
    assert!(group.remarks().is_empty(), "{:?}", group.remarks());
    for controller in [Controller::Memory, Controller::Pids, Controller::Freezer] {
        let folder = group.folder(controller).expect("there");
        assert!(folder.ends_with(path.strip_prefix("/").expect("absolute")), "{folder:?}");
    }
    let running = lab::plain_in(group, "echo ready; exec sleep 1000");
    group.signal(Signal::SIGTERM).expect("sent");
    running.finish(Exit::Signal(Signal::SIGTERM as i32));
    let running = lab::plain_in(group, "echo ready; exec sleep 1000");
    // As another process knows it: by what was written down, and by its path.
    let record = serde_json::to_string(&group.record()).expect("JSON");
    let record: GroupRecord = serde_json::from_str(&record).expect("the same");
    let again = Group::reopen(&record).expect("open");
    assert_eq!(again.processes().expect("read"), vec![running.child.pid]);
    let found = detect().open_group(&path).expect("there");
    assert_eq!(found.folders().len(), group.folders().len());
    found.freeze(LIMIT).expect("frozen");
    assert!(again.is_frozen().expect("asked"));
    // Somebody is in it, so it can be nobody else's.
    let error = detect().group_at(&path, &limits).expect_err("in use").to_string();
    assert!(error.contains("is in use") && error.contains(&running.child.pid.to_string()));
    found.kill_all().expect("killed");
    running.finish(Exit::Signal(Signal::SIGKILL as i32));
    group.remove(LIMIT).expect("removed");
    assert_eq!(traces(&path), Vec::<PathBuf>::new());
    let error = detect().open_group(&path).expect_err("gone").to_string();
    assert!(error.starts_with("there is no cgroup /unladen-path-"), "{error}");
}

#[test]
fn what_existed_before_stays() {
    if !is_root() {
        return skipped("the top of a hierarchy is root's");
    }
    let path = path("kept");
    let mut first = detect().group_at(&path, &Limits::default()).expect("made");
    let mut second = detect().group_at(&path, &Limits::default()).expect("taken up");
    second.remove(LIMIT).expect("nothing to remove");
    assert!(first.exists());
    let sibling = path.with_file_name("two");
    let mut third = detect().group_at(&sibling, &Limits::default()).expect("made");
    first.remove(LIMIT).expect("removed");
    assert!(third.exists(), "what the first made is in use by others");
    third.remove(LIMIT).expect("removed");
    // The folders above were the first's, and in use when it went.
    for folder in traces(&path) {
        fs::remove_dir(folder.join("engine")).expect("empty");
        fs::remove_dir(folder).expect("empty");
    }
}

#[test]
fn a_relative_path_goes_where_the_suites_own_groups_go() {
    let hierarchy = detect();
    let relative = PathBuf::from(format!("unladen-relative-{}", std::process::id()));
    let limits = Limits::default();
    let mut group = match hierarchy.group_at(&relative, &limits) {
        Ok(group) => group,
        Err(error) => panic!("{error}"),
    };
    if group.folders().is_empty() {
        return skipped("no cgroup can be made here");
    }
    lab::plain_in(&group, "echo ready").finish(Exit::Code(0));
    group.remove(LIMIT).expect("removed");
    assert!(!group.exists());
}

#[test]
fn limits_change_while_a_group_is_in_use() {
    let lab = Lab::new();
    if lab.lacks(Controller::Memory) || lab.lacks(Controller::Cpu) {
        return;
    }
    let limits = |memory, swap| Limits { memory, swap, ..Limits::default() };
    let group = lab.tree.create("one", &limits(Some(32 * MIB), Some(0))).expect("group");
    let running = lab::plain_in(&group, "echo ready; read word || true");
    let folder = group.folder(Controller::Memory).expect("memory");
    let now = || {
        let file = ["memory.max", "memory.limit_in_bytes"].map(|name| folder.join(name));
        let file = file.iter().find(|file| file.exists()).expect("a limit");
        fs::read_to_string(file).expect("read").trim().to_owned()
    };
    // Up, beyond the sum that was allowed before; and down again.
    for mib in [64, 16, 128, 24] {
        let remarks = group.update(&limits(Some(mib * MIB), Some(MIB))).expect("changed");
        assert!(remarks.is_empty(), "{remarks:?}");
        assert_eq!(now(), (mib * MIB).to_string());
    }
    let checked = Limits { memory_check: true, ..limits(Some(4096), None) };
    let error = group.update(&checked).expect_err("less than is used").to_string();
    assert!(error.contains("`memory.limit` of `4096`"), "{error}");
    assert_eq!(now(), (24 * MIB).to_string());
    group.update(&limits(Some(UNLIMITED), None)).expect("lifted");
    assert!(now() == "max" || now().parse::<u64>().expect("a number") > 1 << 60);
    for quota_us in [20_000, 90_000, UNLIMITED, 5_000] {
        let cpu_quota = Some(CpuQuota { quota_us, period_us: 50_000 });
        group.update(&Limits { cpu_quota, ..Limits::default() }).expect("changed");
    }
    let error = group.update(&Limits { cpus: Some("0".into()), ..Limits::default() });
    let error = error.expect_err("not in this group").to_string();
    assert!(error.starts_with("the cpuset controller is not available"), "{error}");
    running.finish(Exit::Code(0));
}

#[test]
fn raw_files_are_version_2_only() {
    let raw = |file: &str, value: &str| Limits {
        unified: [(file.to_owned(), value.to_owned())].into(),
        ..Limits::default()
    };
    let lab = Lab::with(&[Controller::Pids, Controller::Freezer]);
    if lab.lacks(Controller::Pids) {
        return;
    }
    let limits = raw("pids.max", "7");
    let result = lab.tree.create("one", &limits);
    let group = match lab.tree.folders().iter().any(|folder| folder.join("cgroup.events").exists())
    {
        true => result.expect("version 2"),
        false => {
            let error = result.expect_err("version 1").to_string();
            assert!(error.starts_with("`unified.pids.max` cannot be set with cgroup version 1"));
            let Some((_proc, hierarchy)) = lab::unified_only() else {
                return skipped("no cgroup version 2 is mounted");
            };
            let lab = Lab::on(hierarchy, &[Controller::Freezer]);
            let group = lab.tree.create("one", &raw("cgroup.max.depth", "3")).expect("group");
            let depth = group.folders()[0].join("cgroup.max.depth");
            assert_eq!(fs::read_to_string(depth).expect("read").trim(), "3");
            return;
        }
    };
    let file = group.folder(Controller::Pids).expect("pids").join("pids.max");
    assert_eq!(fs::read_to_string(file).expect("read").trim(), "7");
}

#[test]
fn huge_pages_are_limited_where_the_kernel_has_them() {
    let lab = Lab::with(&[Controller::Hugetlb]);
    if !Path::new("/sys/kernel/mm/hugepages").exists() {
        // Without them there is no controller either, and the group says so.
        let limits = Limits { hugepages: [("2MB".into(), 1)].into(), ..Limits::default() };
        let group = lab.tree.create("one", &limits).expect("group");
        assert!(group.remarks()[0].starts_with("no hugetlb limit"), "{:?}", group.remarks());
        return;
    }
    if lab.lacks(Controller::Hugetlb) {
        return;
    }
    let limits = Limits { hugepages: [("2MB".into(), 4 * MIB)].into(), ..Limits::default() };
    let group = lab.tree.create("one", &limits).expect("group");
    let folder = group.folder(Controller::Hugetlb).expect("hugetlb");
    let files = ["hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes"].map(|name| folder.join(name));
    let file = files.iter().find(|file| file.exists()).expect("a limit");
    assert_eq!(fs::read_to_string(file).expect("read").trim(), (4 * MIB).to_string());
    let limits = Limits { hugepages: [("3MB".into(), 1)].into(), ..Limits::default() };
    let error = lab.tree.create("two", &limits).expect_err("no such size").to_string();
    assert!(error.contains("hugetlb.3MB.") && error.contains("(hugetlb)"), "{error}");
}

/// A spec of the lab's with a mount of control groups, and with or without a
/// cgroup namespace.
fn with_cgroup_mount(lab: &Lab, script: &str, namespace: bool) -> oci_spec::runtime::Spec {
    use oci_spec::runtime::{LinuxNamespaceType, Mount};
    let options = lab.options("bash", script, Limits::default());
    let mut spec = lab::with_programs(unladen::container::default_cell_spec(&options));
    let mount = |destination: &str, kind: &str, options: &[&str]| {
        let mut mount = Mount::default();
        mount.set_destination(destination.into());
        mount.set_typ(Some(kind.to_owned()));
        mount.set_source(Some(kind.into()));
        mount.set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
        mount
    };
    let mounts = spec.mounts_mut().as_mut().expect("mounts");
    mounts.push(mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]));
    mounts.push(mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]));
    if !namespace {
        let linux = spec.linux_mut().as_mut().expect("linux");
        let namespaces = linux.namespaces_mut().as_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Cgroup);
    }
    spec
}

#[test]
fn a_container_sees_its_own_control_groups() {
    if !is_root() {
        return skipped("containers without a user namespace need root");
    }
    let lab = Lab::new();
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    // Its own processes are where it looks: the shell is among them.
    let script = "cd /sys/fs/cgroup; cat cgroup.procs memory/cgroup.procs 2>/dev/null | \
        grep -qx $$ && echo own; mkdir x memory/x 2>/dev/null && echo writable; \
        echo $(cut -d: -f3 /proc/self/cgroup | sort -u); ls";
    for namespace in [true, false] {
        if unified && !namespace {
            // One mount shows the whole tree, as with other runtimes.
            continue;
        }
        let mut spec = with_cgroup_mount(&lab, script, namespace);
        let path = path(&format!("mount-{namespace}"));
        spec.linux_mut().as_mut().expect("linux").set_cgroups_path(Some(path.clone()));
        let (mut output, writer) = std::io::pipe().expect("pipe");
        let null = fs::File::open("/dev/null").expect("null");
        let stdio = unladen::container::Stdio {
            input: std::os::fd::AsFd::as_fd(&null),
            output: std::os::fd::AsFd::as_fd(&writer),
            error: std::os::fd::AsFd::as_fd(&writer),
        };
        let exit = unladen::container::run(&spec, &lab.rootfs, &lab.id, &stdio);
        drop(writer);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut output, &mut text).expect("UTF-8");
        let exit = exit.unwrap_or_else(|error| panic!("{}", unladen::errors::chain(&error)));
        assert_eq!(exit, Exit::Code(0), "{text}");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("own"), "{text}");
        let places = lines.next().expect("a line");
        match namespace {
            true => assert!(places.split(' ').any(|place| place == "/"), "{text}"),
            // It is in the host's cgroup namespace, as it asked.
            false => assert!(places.contains(path.to_str().expect("UTF-8")), "{text}"),
        }
        if !unified {
            let seen: Vec<&str> = lines.collect();
            for name in fs::read_dir("/sys/fs/cgroup").expect("there").flatten() {
                let name = name.file_name().into_string().expect("UTF-8");
                assert!(name == "unified" || seen.contains(&name.as_str()), "{name}: {text}");
            }
        }
        assert_eq!(traces(&path), Vec::<PathBuf>::new());
    }
}
