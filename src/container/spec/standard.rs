//! The spec of an ordinary container, as people know it from Docker and
//! Podman.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxSeccomp, Mount, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType, Process, Spec, User,
};

use super::device::HostDevice;
use super::parts;
use super::user::Identity;
use crate::container::cgroup::{Limits, is_unified};
use crate::container::plan::BY_NUMBER as ALL_CAPABILITIES;

/// `PATH` of a command whose environment has none, as Docker sets it.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Capabilities of a command that runs as root: Docker's without those to make
/// device nodes, to write audit records and to make raw sockets, which is
/// Podman's default
/// (<https://github.com/containers/common/blob/main/pkg/config/default.go>).
const CAPABILITIES: [Capability; 11] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::NetBindService,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// Which network a container has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// A network of its own with nothing but the loopback interface.
    #[default]
    Loopback,
    /// The host's.
    Host,
}

/// Changes to the default capabilities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapabilityChange {
    /// Whether to begin with none instead of the default ones.
    pub drop_all: bool,
    /// Those that come on top.
    pub add: Vec<Capability>,
    /// Those that go.
    pub drop: Vec<Capability>,
}

impl CapabilityChange {
    /// What the command may have at most: its bounding set.
    #[must_use]
    pub fn apply(&self) -> Capabilities {
        let base: &[Capability] = if self.drop_all { &[] } else { &CAPABILITIES };
        let all = base.iter().chain(&self.add);
        all.copied().filter(|capability| !self.drop.contains(capability)).collect()
    }
}

/// What an ordinary container is made of.
#[derive(Clone, Debug, Default)]
pub struct StandardOptions {
    /// The root filesystem.
    pub rootfs: PathBuf,
    /// Whether nothing in it can be changed.
    pub readonly: bool,
    /// Program and arguments.
    pub arguments: Vec<String>,
    /// The whole environment, as `NAME=VALUE`.
    pub environment: Vec<String>,
    /// Where the command starts.
    pub working_directory: PathBuf,
    /// The host name inside.
    pub hostname: String,
    /// Whom the command runs as, inside.
    pub identity: Identity,
    /// Changes to the default capabilities.
    pub capabilities: CapabilityChange,
    /// Whether no program can ever gain privileges.
    pub no_new_privileges: bool,
    /// Limits of the control groups.
    pub limits: Limits,
    /// Limits of each process.
    pub resource_limits: Vec<PosixRlimit>,
    /// Adjustment of the kernel's choice whom to kill for lack of memory.
    pub oom_score_adj: Option<i32>,
    /// Mounts on top of the standard ones, see [`volume`] and [`temporary`].
    pub mounts: Vec<Mount>,
    /// Devices of the host. With a user namespace there cannot be any.
    pub devices: Vec<HostDevice>,
    /// The network.
    pub network: Network,
    /// A user namespace, in which the caller is [`StandardOptions::identity`].
    pub user_namespace: bool,
    /// The system call filter.
    pub seccomp: Option<LinuxSeccomp>,
    /// A terminal for the command.
    pub terminal: bool,
}

impl StandardOptions {
    /// Whether device nodes are guarded by rules of a control group. That is
    /// what other engines always do; it costs a start some 80 system calls
    /// with version 1. Here whatever may hold a foreign node is mounted
    /// `nodev`, which costs nothing, so rules are needed only by who can
    /// get around that, and for [`StandardOptions::devices`], which the
    /// container may not use in every way.
    #[must_use]
    pub fn has_device_rules(&self) -> bool {
        !self.devices.is_empty() || self.may_add_nodes()
    }

    /// Whether the command may make nodes in a new filesystem, or mount. In a
    /// user namespace the kernel lets nobody make one, or mount a filesystem
    /// that has some.
    fn may_add_nodes(&self) -> bool {
        let bounding = self.capabilities.apply();
        !self.user_namespace
            && [Capability::Mknod, Capability::SysAdmin].iter().any(|one| bounding.contains(one))
    }
}

/// The spec of an ordinary container: the filesystems and devices that the
/// OCI runtime specification asks for, hidden and protected paths, namespaces
/// of all kinds but user and time, few capabilities.
#[must_use]
pub fn standard_spec(options: &StandardOptions) -> Spec {
    let mut spec = Spec::default();
    spec.set_root(Some(parts::root(&options.rootfs, options.readonly)));
    spec.set_hostname(Some(options.hostname.clone()));
    spec.set_mounts(Some(mounts(options)));
    spec.set_process(Some(process(options)));
    let network = options.network != Network::Host;
    let user = options.user_namespace.then_some((options.identity.uid, options.identity.gid));
    let mut linux = parts::linux(&options.limits, network, user);
    linux.set_seccomp(options.seccomp.clone());
    if options.has_device_rules()
        && let Some(resources) = linux.resources_mut()
    {
        // Planning adds those that every container may use.
        let rules = options.devices.iter().map(|device| device.rule.clone());
        resources.set_devices(Some([parts::no_devices()].into_iter().chain(rules).collect()));
    }
    if !options.devices.is_empty() {
        let nodes = options.devices.iter().map(|device| device.node.clone());
        linux.set_devices(Some(nodes.collect()));
    }
    spec.set_linux(Some(linux));
    spec
}

fn process(options: &StandardOptions) -> Process {
    let Identity { uid, gid, groups, .. } = &options.identity;
    let mut user = User::default();
    user.set_uid(*uid).set_gid(*gid);
    if !groups.is_empty() && !options.user_namespace {
        user.set_additional_gids(Some(groups.clone()));
    }
    // Whatever the caller's is: a container shall not depend on it.
    user.set_umask(Some(0o022));
    let mut process = Process::default();
    process.set_terminal(Some(options.terminal));
    process.set_args(Some(options.arguments.clone()));
    process.set_env(Some(options.environment.clone()));
    process.set_cwd(options.working_directory.clone());
    process.set_user(user);
    process.set_capabilities(Some(capabilities(&options.capabilities, *uid)));
    let limits = &options.resource_limits;
    process.set_rlimits((!limits.is_empty()).then(|| limits.clone()));
    process.set_no_new_privileges(Some(options.no_new_privileges));
    process.set_oom_score_adj(options.oom_score_adj);
    process
}

/// Root has what it may have. Others begin with what was added by name, and
/// keep it over `execve`; the rest only bounds what programs can give them.
fn capabilities(change: &CapabilityChange, uid: u32) -> LinuxCapabilities {
    let bounding = change.apply();
    let none = || Some(Capabilities::new());
    let added = change.add.iter().copied().filter(|one| bounding.contains(one));
    let kept: Capabilities = if uid == 0 { Capabilities::new() } else { added.collect() };
    let held = if uid == 0 { bounding.clone() } else { kept.clone() };
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(bounding));
    sets.set_effective(Some(held.clone()));
    sets.set_permitted(Some(held));
    sets.set_inheritable(if kept.is_empty() { none() } else { Some(kept.clone()) });
    sets.set_ambient(Some(kept));
    sets
}

/// The standard mounts, then the others; one of those takes the place of a
/// standard one with the same destination.
fn mounts(options: &StandardOptions) -> Vec<Mount> {
    let standard = standard_mounts(options).into_iter().filter(|mount| {
        !options.mounts.iter().any(|other| other.destination() == mount.destination())
    });
    let mut others = options.mounts.clone();
    if !options.may_add_nodes() {
        for mount in &mut others {
            mount.options_mut().get_or_insert_default().push("rnodev".to_owned());
        }
    }
    // Outer ones first, or they would hide the inner ones.
    others.sort_by_key(|mount| mount.destination().components().count());
    standard.chain(others).collect()
}

/// Filesystems as the OCI runtime specification lists them for Linux
/// (<https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#default-filesystems>),
/// with the options that Docker gives them.
fn standard_mounts(options: &StandardOptions) -> Vec<Mount> {
    let mut terminals = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if !options.user_namespace {
        // The group `tty`, which a namespace with one group does not have.
        terminals.push("gid=5");
    }
    let plain = ["nosuid", "noexec", "nodev"];
    let mut mounts = vec![
        parts::mount("/proc", "proc", &plain),
        parts::mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        parts::mount("/dev/pts", "devpts", &terminals),
        parts::mount("/dev/mqueue", "mqueue", &plain),
        parts::mount(
            "/dev/shm",
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
    ];
    if options.user_namespace && options.network == Network::Host {
        // A new one belongs to the network namespace's owner.
        let words = ["rbind", "nosuid", "noexec", "nodev", "ro"];
        mounts.push(parts::bind("/sys", "none", Path::new("/sys"), words));
        return mounts;
    }
    mounts.push(parts::mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]));
    if is_unified() {
        let words = ["nosuid", "noexec", "nodev", "relatime", "ro"];
        mounts.push(parts::mount("/sys/fs/cgroup", "cgroup", &words));
    }
    mounts
}

/// A file or folder of the host inside the container, with what is mounted
/// below it, which is read-only too, then.
#[must_use]
pub fn volume(source: &Path, destination: &Path, readonly: bool) -> Mount {
    let words = ["rbind", "rprivate", if readonly { "rro" } else { "rw" }];
    parts::bind(destination, "bind", source, words)
}

/// An empty filesystem in memory. `words` are mount options that come after
/// Docker's for it: `noexec,nosuid,nodev`, open to all users.
#[must_use]
pub fn temporary(destination: &Path, words: &[String]) -> Mount {
    let own = words.iter().map(String::as_str).filter(|word| !word.is_empty());
    let words = ["noexec", "nosuid", "nodev", "mode=1777"].into_iter().chain(own);
    parts::bind(destination, "tmpfs", Path::new("tmpfs"), words)
}

/// The capabilities of a bit set; bit n is capability number n.
#[must_use]
pub fn capabilities_of(bits: u64) -> Vec<Capability> {
    let numbered = ALL_CAPABILITIES.into_iter().enumerate();
    numbered.filter(|(number, _)| bits >> number & 1 == 1).map(|(_, one)| one).collect()
}

/// A capability by name, as `NET_RAW`, `cap_net_raw` or anything between.
#[must_use]
pub fn capability(name: &str) -> Option<Capability> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    let spelled = |one: &Capability| one.to_string() == name;
    ALL_CAPABILITIES.into_iter().find(spelled)
}

/// A limit of each process by Docker's name for it, such as `nofile`.
#[must_use]
pub fn resource_limit(name: &str, soft: u64, hard: u64) -> Option<PosixRlimit> {
    let kind = match name {
        "as" => PosixRlimitType::RlimitAs,
        "core" => PosixRlimitType::RlimitCore,
        "cpu" => PosixRlimitType::RlimitCpu,
        "data" => PosixRlimitType::RlimitData,
        "fsize" => PosixRlimitType::RlimitFsize,
        "locks" => PosixRlimitType::RlimitLocks,
        "memlock" => PosixRlimitType::RlimitMemlock,
        "msgqueue" => PosixRlimitType::RlimitMsgqueue,
        "nice" => PosixRlimitType::RlimitNice,
        "nofile" => PosixRlimitType::RlimitNofile,
        "nproc" => PosixRlimitType::RlimitNproc,
        "rss" => PosixRlimitType::RlimitRss,
        "rtprio" => PosixRlimitType::RlimitRtprio,
        "rttime" => PosixRlimitType::RlimitRttime,
        "sigpending" => PosixRlimitType::RlimitSigpending,
        "stack" => PosixRlimitType::RlimitStack,
        _ => return None,
    };
    PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> StandardOptions {
        StandardOptions {
            rootfs: "/".into(),
            arguments: vec!["true".to_owned()],
            working_directory: "/".into(),
            hostname: "name".to_owned(),
            no_new_privileges: true,
            ..StandardOptions::default()
        }
    }

    fn destinations(options: &StandardOptions) -> Vec<String> {
        let list = mounts(options);
        list.iter().map(|mount| mount.destination().display().to_string()).collect()
    }

    #[test]
    fn a_standard_spec_can_be_planned() {
        let plan = crate::container::Plan::from_spec(&standard_spec(&options()), Path::new("/"));
        assert!(plan.is_ok(), "{plan:?}");
    }

    #[test]
    fn names_of_capabilities_are_read_in_any_spelling() {
        for name in ["NET_RAW", "cap_net_raw", "CAP_NET_RAW", "net_raw"] {
            assert_eq!(capability(name), Some(Capability::NetRaw), "{name}");
        }
        assert_eq!(capability("CAP_CHECKPOINT_RESTORE"), Some(Capability::CheckpointRestore));
        assert_eq!(capability("ALL"), None);
        assert_eq!(capability("NET-RAW"), None);
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let mut change = CapabilityChange::default();
        assert_eq!(change.apply().len(), 11);
        change.drop_all = true;
        change.add = vec![Capability::NetRaw, Capability::Kill];
        assert_eq!(change.apply().len(), 2);
        change.drop = vec![Capability::Kill];
        assert_eq!(change.apply(), Capabilities::from([Capability::NetRaw]));
    }

    #[test]
    fn foreign_device_nodes_are_of_no_use() {
        let mut options = options();
        options.mounts = vec![volume(Path::new("/a"), Path::new("/b"), true)];
        let nodev = |options: &StandardOptions| {
            let words = mounts(options).pop().and_then(|mount| mount.options().clone());
            words.is_some_and(|words| words.contains(&"rnodev".to_owned()))
        };
        let rules = |options: &StandardOptions| {
            let spec = standard_spec(options);
            let plan = crate::container::Plan::from_spec(&spec, Path::new("/")).expect("a plan");
            !plan.limits().devices.is_empty()
        };
        options.mounts[0].set_source(Some("/usr".into()));
        assert!(nodev(&options) && !rules(&options));
        options.capabilities.add = vec![Capability::Mknod];
        assert!(!nodev(&options));
        // Who is not root cannot set them, and plans none.
        assert_eq!(rules(&options), nix::unistd::geteuid().is_root());
        options.user_namespace = true;
        assert!(nodev(&options) && !rules(&options));
    }

    #[test]
    fn only_added_capabilities_reach_an_ordinary_user() {
        let change = CapabilityChange { add: vec![Capability::NetRaw], ..Default::default() };
        let root = capabilities(&change, 0);
        assert_eq!(root.permitted().as_ref().map(Capabilities::len), Some(12));
        assert_eq!(root.ambient().as_ref().map(Capabilities::len), Some(0));
        let user = capabilities(&change, 7);
        assert_eq!(user.bounding().as_ref().map(Capabilities::len), Some(12));
        for set in [user.permitted(), user.effective(), user.inheritable(), user.ambient()] {
            assert_eq!(set, &Some(Capabilities::from([Capability::NetRaw])));
        }
    }

    #[test]
    fn own_mounts_replace_standard_ones_and_outer_ones_come_first() {
        let mut options = options();
        options.mounts = vec![
            volume(Path::new("/a"), Path::new("/x/y"), true),
            temporary(Path::new("/x"), &[]),
            temporary(Path::new("/dev/shm"), &["size=1m".to_owned()]),
        ];
        let list = destinations(&options);
        assert_eq!(list.iter().filter(|path| *path == "/dev/shm").count(), 1);
        assert_eq!(list[list.len() - 3..], ["/x", "/x/y", "/dev/shm"]);
    }

    #[test]
    fn a_user_namespace_has_what_it_may_mount() {
        let mut options = options();
        options.user_namespace = true;
        options.identity.uid = 7;
        let spec = standard_spec(&options);
        let text = serde_json::to_string(&spec).expect("JSON");
        assert!(!text.contains("gid=5") && text.contains("\"containerID\":7"), "{text}");
        options.network = Network::Host;
        let sys =
            mounts(&options).into_iter().find(|mount| mount.destination() == Path::new("/sys"));
        assert_eq!(sys.and_then(|mount| mount.source().clone()), Some("/sys".into()));
    }
}
