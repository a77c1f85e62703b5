//! One root filesystem and one `config.json` for every runtime that reads one.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Mount, Spec};
use unladen::container::cgroup::{CpuQuota, Limits};
use unladen::container::{CellOptions, default_cell_spec};

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
            let bundle = bundles.bundle(job);
            fs::create_dir_all(&bundle).expect("a bundle's folder");
            let spec = spec(&rootfs, job.arguments());
            spec.save(bundle.join("config.json")).expect("config.json is written");
        }
        bundles
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

/// The container: namespaces, mounts, masks and read-only paths of the
/// suite's own cell plus what `runc spec` mounts besides, Docker's default
/// capabilities, limits on memory, processes and processor time.
fn spec(rootfs: &Path, arguments: Vec<String>) -> Spec {
    let options = CellOptions { rootfs, arguments, limits: limits(), user_namespace: false };
    let mut spec = default_cell_spec(&options);
    spec.set_mounts(Some(mounts()));
    if let Some(process) = spec.process_mut() {
        process.set_capabilities(Some(capabilities()));
        process.set_env(Some(vec!["PATH=/".to_owned()]));
    }
    spec
}

/// The mounts of `runc spec`, but for that of the cgroups, which a hybrid host
/// shows in a way of its own in each runtime.
fn mounts() -> Vec<Mount> {
    let list: [(&str, &str, &[&str]); 7] = [
        ("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
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

/// Docker's default set
/// (<https://docs.docker.com/engine/containers/run/#runtime-privilege-and-linux-capabilities>).
fn capabilities() -> LinuxCapabilities {
    let set: Capabilities = [
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
    .into();
    let mut all = LinuxCapabilities::default();
    all.set_bounding(Some(set.clone()));
    all.set_effective(Some(set.clone()));
    all.set_permitted(Some(set));
    all.set_inheritable(Some(Capabilities::new()));
    all.set_ambient(Some(Capabilities::new()));
    all
}
