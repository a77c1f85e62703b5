//! One root filesystem and one `config.json` for every runtime that reads one.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxSeccomp, Spec};
use unladen::container::cgroup::{CpuQuota, Limits};
use unladen::container::seccomp::{Machine, compile, default_profile};
use unladen::container::{StandardOptions, standard_spec};

use crate::program;

/// What a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Ends at once.
    True,
    /// Sleeps 20 ms.
    Nap,
    /// Does nothing until it is killed.
    Pause,
    /// Ends at once, after a C library's start-up.
    Busybox,
}

impl Job {
    pub const ALL: [Self; 4] = [Self::True, Self::Nap, Self::Pause, Self::Busybox];

    pub fn name(self) -> &'static str {
        match self {
            Self::True => "true",
            Self::Nap => "nap",
            Self::Pause => "pause",
            Self::Busybox => "busybox",
        }
    }

    /// Program and arguments.
    pub fn arguments(self) -> Vec<String> {
        match self {
            Self::Busybox => vec!["/busybox".to_owned(), "true".to_owned()],
            other => vec![format!("/{}", other.name())],
        }
    }
}

/// Limits of every arm that can set any.
pub fn limits() -> Limits {
    Limits {
        memory: Some(64 << 20),
        pids: Some(32),
        cpu_quota: Some(CpuQuota { quota_us: 100_000, period_us: 100_000 }),
        ..Limits::default()
    }
}

/// What the runtimes are given; removed when dropped.
pub struct Bundles {
    folder: tempfile::TempDir,
}

impl Bundles {
    /// Writes everything into a folder of its own.
    pub fn write() -> Self {
        let folder = tempfile::Builder::new().prefix("unladen-runtimes-").tempdir();
        let bundles = Self { folder: folder.expect("a temporary folder") };
        let rootfs = bundles.rootfs();
        for name in ["proc", "sys", "dev", "tmp"] {
            fs::create_dir_all(rootfs.join(name)).expect("a folder of the root filesystem");
        }
        program::write_all(&rootfs).expect("the programs are written");
        if let Some(busybox) = busybox() {
            fs::copy(busybox, rootfs.join("busybox")).expect("busybox is copied");
        }
        for job in Job::ALL {
            let all = spec(&rootfs, job.arguments(), limits());
            let none = spec(&rootfs, job.arguments(), Limits::default());
            for (bundle, spec) in [(bundles.bundle(job), all), (bundles.unlimited(job), none)] {
                fs::create_dir_all(&bundle).expect("a bundle's folder");
                spec.save(bundle.join("config.json")).expect("config.json is written");
            }
        }
        let spec = spec(&rootfs, Job::True.arguments(), limits());
        fs::write(bundles.filter(), program_of(&profile(&spec))).expect("the filter is written");
        bundles
    }

    /// The system-call filter of the bundles as the kernel takes it, for
    /// those that do not read `config.json`.
    pub fn filter(&self) -> PathBuf {
        self.folder().join("filter.bpf")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn rootfs(&self) -> PathBuf {
        self.folder().join("rootfs")
    }

    pub fn bundle(&self, job: Job) -> PathBuf {
        self.folder().join(format!("bundle-{}", job.name()))
    }

    /// The same without limits.
    pub fn unlimited(&self, job: Job) -> PathBuf {
        self.folder().join(format!("bundle-{}-unlimited", job.name()))
    }

    /// Where a runtime keeps its own files.
    pub fn state(&self, arm: &str) -> PathBuf {
        let folder = self.folder().join(format!("state-{arm}"));
        fs::create_dir_all(&folder).expect("a state folder");
        folder
    }
}

/// The host's busybox, if it needs no shared library.
pub fn busybox() -> Option<PathBuf> {
    let path = crate::arms::find("busybox")?;
    let content = fs::read(&path).ok()?;
    // A dynamic program names its loader near the beginning.
    let head = &content[..content.len().min(4096)];
    let dynamic = head.windows(8).any(|bytes| bytes == b"ld-linux" || bytes == b"ld-musl-");
    (!dynamic).then_some(path)
}

/// An ordinary container, as `container run` makes it by default: the
/// filesystems, devices, hidden and protected paths that the OCI runtime
/// specification asks for, few capabilities, loopback; and limits on memory,
/// processes and processor time, if `limits` are those.
fn spec(rootfs: &Path, arguments: Vec<String>, limits: Limits) -> Spec {
    let mut options = StandardOptions {
        rootfs: rootfs.to_owned(),
        readonly: true,
        arguments,
        environment: vec!["PATH=/".to_owned(), "HOME=/".to_owned()],
        working_directory: PathBuf::from("/"),
        hostname: "unladen".to_owned(),
        no_new_privileges: true,
        limits,
        ..StandardOptions::default()
    };
    // The profile depends on the capabilities that the others give.
    options.seccomp = Some(profile(&standard_spec(&options)));
    standard_spec(&options)
}

/// A filter as an array of `struct sock_filter`.
fn program_of(profile: &LinuxSeccomp) -> Vec<u8> {
    let filter = compile(profile).expect("the default profile compiles");
    let bytes = filter.instructions.iter().flat_map(|instruction| {
        let [low, high] = instruction.code.to_ne_bytes();
        let operand = instruction.k.to_ne_bytes();
        [[low, high, instruction.jt, instruction.jf], operand].concat()
    });
    bytes.collect()
}

/// The default system-call filter for a spec's capabilities.
fn profile(spec: &Spec) -> LinuxSeccomp {
    let process = spec.process().as_ref();
    let sets = process.and_then(|process| process.capabilities().as_ref());
    let bounding = sets.and_then(|sets| sets.bounding().clone()).unwrap_or_default();
    default_profile(&bounding, Machine::native()).expect("the kernel's version is understood")
}
