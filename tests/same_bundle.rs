//! The same bundle under runc and under this crate's runtime: what a program
//! sees of its container is compared line by line, the verdict of the kernel
//! on every system call included, and so is what can be seen from outside.
//! Where the two may differ stands in one list, each entry with its reason.
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking")]

mod common;
mod lab;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{is_root, skip as skipped};
use lab::open_to_all;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, Mount, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType, Spec,
};
use unladen::container::cgroup::{CpuQuota, Limits};
use unladen::container::seccomp::{Machine, default_profile};
use unladen::container::{CellOptions, Stdio as Streams, default_cell_spec, run};

/// Where the two runtimes may differ: how a line begins, and why.
const MAY_DIFFER: &[(&str, &str)] = &[
    ("mount /dev/null root", "a device is a bind of the host's here, a node of its own in runc"),
    ("mount /dev/zero root", "likewise"),
    ("mount /dev/full root", "likewise"),
    ("mount /dev/random root", "likewise"),
    ("mount /dev/urandom root", "likewise"),
    ("mount /dev/tty root", "likewise"),
    ("cgroup ", "runc joins every hierarchy of version 1, this runtime those that it limits with"),
    ("parent death signal", "here a container does not outlive its launcher, unless it is told to"),
];

/// What both hide.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What is seen of a container.
#[derive(Debug)]
struct Seen {
    inside: Vec<String>,
    outside: Vec<String>,
}

/// A bundle with the inspector.
struct Bundle {
    folder: tempfile::TempDir,
    paths: Vec<String>,
}

impl Bundle {
    fn new(name: &str, change: impl FnOnce(&mut Spec)) -> Self {
        let folder = tempfile::Builder::new().prefix(&format!("unladen-same-{name}-")).tempdir();
        let folder = folder.expect("folder");
        // Another user has to get through.
        open_to_all(folder.path());
        let rootfs = folder.path().join("rootfs");
        for name in ["proc", "sys", "dev", "tmp"] {
            fs::create_dir_all(rootfs.join(name)).expect("made");
            open_to_all(&rootfs.join(name));
        }
        // runc before 1.1.8 gives a new /tmp the mode of the folder below it.
        let sticky = fs::Permissions::from_mode(0o1777);
        fs::set_permissions(rootfs.join("tmp"), sticky).expect("mode");
        open_to_all(&rootfs);
        lab::compile("inspector", &rootfs.join("inspector"));
        let options = CellOptions {
            rootfs: &rootfs,
            arguments: vec!["/inspector".to_owned()],
            limits: limits(),
            seccomp: Some(default_profile(&Capabilities::new(), Machine::native()).expect("one")),
            user_namespace: false,
            network: true,
        };
        let mut spec = default_cell_spec(&options);
        spec.set_mounts(Some(mounts()));
        if let Some(process) = spec.process_mut() {
            // runc adds one where there is none.
            process.set_env(Some(vec!["HOME=/".to_owned()]));
        }
        change(&mut spec);
        let linux = spec.linux().clone().expect("linux");
        assert_eq!(linux.masked_paths().as_deref(), Some(&MASKED.map(str::to_owned)[..]));
        let both = [linux.masked_paths(), linux.readonly_paths()];
        let paths: Vec<String> = both.into_iter().flatten().flatten().cloned().collect();
        if let Some(process) = spec.process_mut() {
            let program = std::iter::once("/inspector".to_owned());
            process.set_args(Some(program.chain(paths.iter().cloned()).collect()));
        }
        spec.save(folder.path().join("config.json")).expect("saved");
        Self { folder, paths }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The container's process, by the file that it executes.
    fn process(&self) -> Option<u32> {
        let own = fs::metadata(self.path().join("rootfs/inspector")).expect("there");
        fs::read_dir("/proc").expect("/proc").flatten().find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let exe = fs::metadata(entry.path().join("exe")).ok()?;
            ((exe.dev(), exe.ino()) == (own.dev(), own.ino())).then_some(pid)
        })
    }

    /// Runs it, looks at it from outside when it has said everything, and
    /// lets it end.
    fn seen(&self, start: impl FnOnce(PipeReader, PipeWriter) + Send + 'static) -> Seen {
        let (input, inlet) = std::io::pipe().expect("pipe");
        let (outlet, output) = std::io::pipe().expect("pipe");
        let runtime = std::thread::spawn(move || start(input, output));
        // Ends with the container at the latest.
        let lines = BufReader::new(outlet).lines().map(|line| line.expect("text"));
        let inside: Vec<String> = lines.take_while(|line| line != "end").collect();
        let outside = self.process().map(outside);
        drop(inlet);
        runtime.join().expect("the container ran");
        let outside = outside.unwrap_or_else(|| panic!("no process of it was found: {inside:?}"));
        Seen { inside, outside }
    }
}

fn limits() -> Limits {
    Limits {
        memory: Some(64 << 20),
        cpu_weight: Some(50),
        pids: Some(40),
        cpu_quota: Some(CpuQuota { quota_us: 150_000, period_us: 100_000 }),
        ..Limits::default()
    }
}

/// The mounts of `runc spec` but for the cgroups.
fn mounts() -> Vec<Mount> {
    let list: [(&str, &str, &[&str]); 7] = [
        ("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        (
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        ("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        ("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
    ];
    list.map(|(destination, kind, options)| {
        let mut mount = Mount::default();
        mount.set_destination(PathBuf::from(destination));
        mount.set_typ(Some(kind.to_owned()));
        mount.set_source(Some(PathBuf::from(kind)));
        mount.set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
        mount
    })
    .to_vec()
}

/// What is seen from outside: namespaces of its own, and the values of every
/// file of its control groups that the bundle sets.
fn outside(pid: u32) -> Vec<String> {
    let mut lines = Vec::new();
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let link = |who: &str| fs::read_link(format!("/proc/{who}/ns/{kind}")).expect("link");
        let own = link(&pid.to_string()) != link("self");
        lines.push(format!("namespace {kind} own={own}"));
    }
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroups");
    let paths: BTreeMap<&str, &str> = groups
        .lines()
        .filter_map(|line| line.split_once(':')?.1.split_once(':'))
        .flat_map(|(names, path)| names.split(',').map(move |name| (name, path)))
        .collect();
    let files: [(&str, &[&str]); 3] = [
        ("memory", &["memory.limit_in_bytes", "memory.max"]),
        ("pids", &["pids.max"]),
        ("cpu", &["cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares", "cpu.max", "cpu.weight"]),
    ];
    for (controller, names) in files {
        let unified = paths.get("").copied().unwrap_or_default();
        let folder = match paths.get(controller) {
            Some(path) => format!("/sys/fs/cgroup/{controller}{path}"),
            None => format!("/sys/fs/cgroup{unified}"),
        };
        for name in names {
            if let Ok(value) = fs::read_to_string(format!("{folder}/{name}")) {
                lines.push(format!("{name} {}", value.trim()));
            }
        }
    }
    lines
}

fn under_runc(bundle: &Bundle, id: &str) -> Seen {
    let state = bundle.path().join("state");
    let (path, id) = (bundle.path().to_owned(), id.to_owned());
    bundle.seen(move |input, output| {
        let errors = output.try_clone().expect("copied");
        let status = Command::new("runc")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin")
            .arg("--root")
            .arg(state)
            .args(["run", "--bundle"])
            .arg(path)
            .arg(id)
            .stdin(Stdio::from(OwnedFd::from(input)))
            .stdout(Stdio::from(OwnedFd::from(output)))
            .stderr(Stdio::from(OwnedFd::from(errors)))
            .status()
            .expect("runc starts");
        assert!(status.success(), "{status}");
    })
}

fn under_ours(bundle: &Bundle, id: &str) -> Seen {
    let (path, id) = (bundle.path().to_owned(), id.to_owned());
    bundle.seen(move |input, output| {
        let spec = Spec::load(path.join("config.json")).expect("loaded");
        let (input, output) = (input.as_fd(), output.as_fd());
        let exit = run(&spec, &path, &id, &Streams { input, output, error: output });
        assert!(exit.expect("it runs").success());
    })
}

/// What hides a path: `/dev/null`, here the host's and in runc the
/// container's, or an empty folder, here one without room and with all
/// restrictions.
fn hides(line: &str) -> bool {
    MASKED.iter().any(|path| {
        let rest = line.strip_prefix("mount ").and_then(|rest| rest.strip_prefix(path));
        rest.is_some_and(|rest| {
            rest.starts_with(" root=/null type=")
                || rest.starts_with(" root=/ type=tmpfs source=tmpfs ")
        })
    })
}

/// Lines that only one side has, but for those that may differ.
fn differences(runc: &[String], ours: &[String]) -> Vec<String> {
    let allowed =
        |line: &str| hides(line) || MAY_DIFFER.iter().any(|(start, _)| line.starts_with(start));
    let only = |these: &[String], those: &[String], who: &str| -> Vec<String> {
        let mut rest: Vec<&String> = those.iter().collect();
        these
            .iter()
            .filter(|line| match rest.iter().position(|other| other == line) {
                Some(at) => {
                    rest.remove(at);
                    false
                }
                None => !allowed(line),
            })
            .map(|line| format!("{who}: {line}"))
            .collect()
    };
    let mut all = only(runc, ours, "runc");
    all.extend(only(ours, runc, "ours"));
    // What belongs together stands together.
    all.sort_by(|a, b| a[6..].cmp(&b[6..]));
    all
}

/// Compares the two on one bundle.
fn compare(name: &str, change: impl FnOnce(&mut Spec)) {
    if !is_root() {
        return skipped("runc and containers without a user namespace need root");
    }
    if Command::new("runc").arg("--version").output().is_err() {
        return skipped("no runc; install it with: scripts/peers/setup.sh runc");
    }
    let bundle = Bundle::new(name, change);
    let id = format!("same-{name}-{}", std::process::id());
    let runc = under_runc(&bundle, &format!("{id}-runc"));
    let ours = under_ours(&bundle, &format!("{id}-ours"));
    // A comparison of two empty lists would find no difference.
    let facts = |seen: &Seen, start: &str| {
        seen.inside.iter().filter(|line| line.starts_with(start)).count()
    };
    for seen in [&runc, &ours] {
        assert!(facts(seen, "syscall ") > 400, "system calls were tried: {:?}", seen.inside);
        assert!(facts(seen, "mount /") > 5 && facts(seen, "file /dev") > 10);
        assert!(facts(seen, "path ") == bundle.paths.len());
        assert!(seen.outside.iter().any(|line| line.ends_with(" 67108864")), "{:?}", seen.outside);
    }
    let mut found = differences(&runc.inside, &ours.inside);
    found.extend(differences(&runc.outside, &ours.outside));
    assert!(found.is_empty(), "{name}: {} lines differ:\n{}", found.len(), found.join("\n"));
}

/// Docker's default set.
fn usual_capabilities() -> Capabilities {
    [
        Capability::AuditWrite,
        Capability::Chown,
        Capability::DacOverride,
        Capability::Fowner,
        Capability::Fsetid,
        Capability::Kill,
        Capability::Mknod,
        Capability::NetBindService,
        Capability::NetRaw,
        Capability::Setfcap,
        Capability::Setgid,
        Capability::Setpcap,
        Capability::Setuid,
        Capability::SysChroot,
    ]
    .into()
}

fn capabilities(permitted: Capabilities, inheritable: Capabilities) -> LinuxCapabilities {
    let mut all = LinuxCapabilities::default();
    all.set_bounding(Some(usual_capabilities()));
    all.set_effective(Some(permitted.clone()));
    all.set_permitted(Some(permitted));
    all.set_ambient(Some(inheritable.clone()));
    all.set_inheritable(Some(inheritable));
    all
}

fn file_limit(kind: PosixRlimitType, soft: u64, hard: u64) -> PosixRlimit {
    PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build().expect("complete")
}

#[test]
fn an_unprivileged_root_sees_the_same() {
    compare("plain", |_| {});
}

#[test]
fn usual_capabilities_limits_a_filter_and_a_writable_root_look_the_same() {
    compare("usual", |spec| {
        let filter = default_profile(&usual_capabilities(), Machine::native()).expect("resolved");
        if let Some(linux) = spec.linux_mut() {
            linux.set_seccomp(Some(filter));
        }
        if let Some(root) = spec.root_mut() {
            root.set_readonly(Some(false));
        }
        if let Some(process) = spec.process_mut() {
            process.set_capabilities(Some(capabilities(usual_capabilities(), Capabilities::new())));
            process
                .set_env(Some(["B=2", "HOME=/", "A=1", "PATH=/bin"].map(str::to_owned).to_vec()));
            process.set_cwd(PathBuf::from("/tmp"));
            process.set_oom_score_adj(Some(300));
            process.set_rlimits(Some(vec![
                file_limit(PosixRlimitType::RlimitNofile, 100, 200),
                file_limit(PosixRlimitType::RlimitCore, 0, 0),
            ]));
        }
    });
}

#[test]
fn another_user_with_groups_and_ambient_capabilities_sees_the_same() {
    compare("user", |spec| {
        let process = spec.process_mut().as_mut().expect("a process");
        let few: Capabilities = [Capability::NetBindService, Capability::Kill].into();
        process.set_capabilities(Some(capabilities(few.clone(), few)));
        let mut user = oci_spec::runtime::User::default();
        user.set_uid(1234);
        user.set_gid(2345);
        user.set_additional_gids(Some(vec![10, 3000]));
        user.set_umask(Some(0o027));
        process.set_user(user);
    });
}

#[test]
fn the_comparison_finds_a_difference() {
    let lines = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let runc = lines(&["a 1", "a 1", "syscall 5 1", "cgroup memory /x"]);
    assert!(differences(&runc, &runc).is_empty());
    let ours = lines(&["a 1", "syscall 5 38", "cgroup memory /"]);
    let found = differences(&runc, &ours);
    assert_eq!(found, ["runc: a 1", "runc: syscall 5 1", "ours: syscall 5 38"]);
}
