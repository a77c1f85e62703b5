//! From an OCI runtime `Spec` to the steps that carry it out.
//!
//! A plan is pure data; nothing is made here. What the suite cannot do is
//! refused by the field's name, never left out.

mod cgroup_mounts;
mod devices;
mod held;
mod identity;
mod limits;
mod mounts;
mod namespaces;
mod options;
mod overlay;
mod scheduling;
mod scratch;
mod settings;
mod supported;
#[cfg(test)]
mod tests;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use oci_spec::runtime::{Linux, Process, Spec};

use self::cgroup_mounts::View;
pub(super) use self::held::{BEFORE_PIVOT, Joining, SET_UP};
pub(super) use self::identity::BY_NUMBER;
pub(super) use self::limits::limits as limits_of;
use self::mounts::{Mounts, Request};
use self::namespaces::Namespaces;
pub(super) use self::namespaces::{IdMaps, Joined};
use self::options::NO_DEVICES;
pub(super) use self::options::names as mount_options;
use self::scratch::Scratch;
pub(super) use self::supported::{Refusal, check as check_fields};
use super::cgroup::{Controller, Limits};
use super::seccomp::{self, SeccompError};
use crate::sys::spawn::{MountAttributes, Slot, Step, handle};

/// Why a spec cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The runtime does not have this feature.
    #[error("`{field}` is not supported by this runtime")]
    Unsupported {
        /// Path of the field in `config.json`.
        field: String,
    },
    /// The specification has no such field, as far as this runtime knows.
    #[error(
        "`{field}` is not a field of the OCI runtime specification that this runtime knows; \
         free metadata belongs in `annotations`"
    )]
    Unknown {
        /// Path of the field in `config.json`.
        field: String,
    },
    /// The runtime supports the field but not this value.
    #[error("`{field}` cannot be `{value}`: {reason}")]
    Value {
        /// Path of the field in `config.json`.
        field: String,
        /// Its value.
        value: String,
        /// What it could be.
        reason: &'static str,
    },
    /// A field without which nothing can be started.
    #[error("`{field}` is missing: {reason}")]
    Missing {
        /// Path of the field in `config.json`.
        field: &'static str,
        /// What it is needed for.
        reason: &'static str,
    },
    /// A text with a NUL byte, which no system call takes.
    #[error("`{field}` contains a NUL byte")]
    Nul {
        /// Path of the field in `config.json`.
        field: String,
    },
    /// A file or folder of the bundle.
    #[error("cannot find {what} {}", path.display())]
    File {
        /// What it is.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The system-call filter.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// The spec could not be looked through.
    #[error("cannot look through the spec")]
    Json(#[from] serde_json::Error),
}

/// Everything that is to happen, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Candidates for the program, tried in order.
    pub(super) program: Vec<CString>,
    pub(super) arguments: Vec<CString>,
    pub(super) environment: Vec<CString>,
    pub(super) limits: Limits,
    cgroups_path: Option<PathBuf>,
    rootfs: CString,
    /// Layers of an image over it; it is a mount point only, then.
    overlay: Option<overlay::Layers>,
    /// A writable layer over it.
    scratch: Option<Scratch>,
    namespaces: Namespaces,
    id_maps: Option<IdMaps>,
    oom_score_adj: Option<i32>,
    /// Whose terminal is made, if one is.
    terminal: Option<u32>,
    hooks: bool,
    /// Whether each instance leaves the session keyring of its maker.
    own_keyring: bool,
    /// Files of `/proc` that are written from inside the namespaces.
    settings: Vec<Step>,
    mounts: Mounts,
    /// Whether the root receives what the host mounts in it later.
    root_receives: bool,
    /// Whether device nodes in the root, if it is a folder, are of use.
    root_has_devices: bool,
    /// Names, loopback, masks: after all mounts.
    features: Vec<Step>,
    /// From the arrangement of descriptors to the end.
    identity: Vec<Step>,
}

/// The slot of the root filesystem; other mounts follow.
const ROOT: Slot = Slot(0);
/// The mask for new files of a process that names none, as runc and crun have
/// it; until then it makes that mount points are the same whoever launches.
const UMASK: u32 = 0o022;

impl Plan {
    /// Reads a spec whose relative paths start at `bundle`.
    ///
    /// # Errors
    ///
    /// For a field or value that this runtime does not support, and for a
    /// root filesystem or bind source that does not exist.
    pub fn from_spec(spec: &Spec, bundle: &Path) -> Result<Self, PlanError> {
        let text = serde_json::to_string(spec)?;
        check_fields(&mut serde_json::Deserializer::from_str(&text)).map_err(
            |refusal| match refusal {
                Refusal::Field(error) => error,
                Refusal::Input(error) => error.into(),
            },
        )?;
        Self::from_checked(spec, bundle)
    }

    /// As [`Plan::from_spec`], for a spec whose fields are known to be among
    /// those that are carried out.
    pub(super) fn from_checked(spec: &Spec, bundle: &Path) -> Result<Self, PlanError> {
        let process = spec.process().as_ref().ok_or(PlanError::Missing {
            field: "process",
            reason: "there is nothing to execute",
        })?;
        let root = spec.root().as_ref().ok_or(PlanError::Missing {
            field: "root",
            reason: "a container needs a root filesystem",
        })?;
        // The crate's own default has namespaces.
        let none: Linux = serde_json::from_value(serde_json::json!({}))?;
        let linux = spec.linux().as_ref().unwrap_or(&none);
        let namespaces = Namespaces::read(linux)?;
        let id_maps = IdMaps::read(linux, &namespaces, process)?;
        let path = bundle.join(root.path());
        let rootfs = path.canonicalize().map_err(|source| PlanError::File {
            what: "the root filesystem",
            path,
            source,
        })?;
        let bound = id_maps.is_some() || !in_first_user_namespace();
        let mounts = Mounts::plan(&Request {
            mounts: spec.mounts().as_deref().unwrap_or_default(),
            devices: &devices::devices(linux.devices().as_deref().unwrap_or_default(), bound)?,
            rootfs: &rootfs,
            bundle,
            readonly: root.readonly().unwrap_or(false),
            view: View::of(&namespaces),
            cwd: process.cwd(),
            console: process.terminal().unwrap_or(false),
        })?;
        Self::assemble(spec, process, linux, (namespaces, id_maps, &rootfs, mounts))
    }

    /// Puts the parts together.
    fn assemble(
        spec: &Spec,
        process: &Process,
        linux: &Linux,
        parts: (Namespaces, Option<IdMaps>, &Path, Mounts),
    ) -> Result<Self, PlanError> {
        let (namespaces, id_maps, rootfs, mounts) = parts;
        let filter = linux.seccomp().as_ref().map(seccomp::compile).transpose()?;
        let propagation = linux.rootfs_propagation().as_deref();
        Ok(Self {
            program: identity::program(process)?,
            arguments: strings("process.args", process.args().as_deref().unwrap_or_default())?,
            environment: strings("process.env", process.env().as_deref().unwrap_or_default())?,
            limits: limits::limits(linux)?,
            cgroups_path: linux.cgroups_path().clone().filter(|path| !path.as_os_str().is_empty()),
            rootfs: c_path("root.path", rootfs)?,
            oom_score_adj: process.oom_score_adj(),
            settings: settings::steps(linux, process, &namespaces)?,
            features: features(spec, linux, &namespaces, &mounts)?,
            identity: identity::steps(process, linux, id_maps.as_ref(), filter)?,
            overlay: None,
            scratch: None,
            namespaces,
            id_maps,
            terminal: process.terminal().unwrap_or(false).then(|| process.user().uid()),
            hooks: held::has_hooks(spec),
            own_keyring: false,
            mounts,
            root_receives: matches!(propagation, Some("slave" | "rslave")),
            root_has_devices: true,
        })
    }

    /// Where the spec wants the container's control groups, for
    /// [`Hierarchy::group_at`](super::cgroup::Hierarchy::group_at).
    #[must_use]
    pub fn cgroups_path(&self) -> Option<&Path> {
        self.cgroups_path.as_deref()
    }

    /// The limits that the spec asks for.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The controllers that a container of this plan needs: those of its
    /// limits; and one to find its processes by, where no pid namespace ends
    /// them together.
    #[must_use]
    pub fn controllers(&self) -> Vec<Controller> {
        let alone = self.namespaces.new.contains(CloneFlags::CLONE_NEWPID);
        let needed = |controller: &Controller| {
            self.limits.wants(*controller) || (!alone && *controller == Controller::Pids)
        };
        Controller::ALL.into_iter().filter(needed).collect()
    }

    /// Whether instances get a user namespace of their own.
    #[must_use]
    pub fn has_user_namespace(&self) -> bool {
        self.id_maps.is_some()
    }

    /// Whether instances get a network namespace of their own.
    #[must_use]
    pub fn has_network_namespace(&self) -> bool {
        self.namespaces.new.contains(CloneFlags::CLONE_NEWNET)
    }

    /// The same plan for instances that each get a session keyring of their
    /// own instead of their maker's. That counts against the maker's quota of
    /// keys, which is 200 for an ordinary user (`/proc/sys/kernel/keys`): who
    /// starts many better leaves the keyring once, see
    /// [`leave_session`](crate::sys::keyring::leave_session).
    #[must_use]
    pub fn with_own_keyring(&self) -> Self {
        Self { own_keyring: true, ..self.clone() }
    }

    /// The same plan for instances whose network namespace is made for them.
    pub(super) fn in_given_network(&self) -> Self {
        let mut plan = self.clone();
        plan.namespaces.new -= CloneFlags::CLONE_NEWNET;
        plan.namespaces.joined.retain(|other| other.kind != CloneFlags::CLONE_NEWNET);
        plan
    }

    /// The same plan for instances that find their network set up.
    pub(super) fn with_network_up(&self) -> Self {
        let mut plan = self.in_given_network();
        plan.features.retain(|step| *step != Step::LoopbackUp);
        plan
    }

    /// The same plan without the use of device nodes that may be in the root
    /// filesystem: it is mounted `nodev`, as that of an image always is, see
    /// [`Plan::with_overlay`]. (A spec has no field for this.)
    #[must_use]
    pub fn without_devices_in_root(mut self) -> Self {
        self.root_has_devices = false;
        self
    }

    /// Namespaces that exist and that an instance enters: their handles come
    /// first, in this order, but after that of a cgroup namespace to come back
    /// to, see [`Plan::borrows_cgroup_namespace`].
    pub(super) fn joined(&self) -> &[Joined] {
        &self.namespaces.joined
    }

    /// Ids of a user namespace that somebody outside must make for each
    /// instance: its handle comes after those of [`Plan::joined`].
    pub(super) fn ranges(&self) -> Option<&IdMaps> {
        self.id_maps.as_ref().filter(|maps| matches!(maps, IdMaps::Ranges { .. }))
    }

    /// Whether an instance is the second child of two: the first one enters
    /// namespaces that only children born there are in (pid namespaces), or
    /// that must own what is made with the second (user namespaces).
    fn is_born_again(&self) -> bool {
        self.namespaces.joins(CloneFlags::CLONE_NEWPID)
            || match &self.id_maps {
                None => false,
                Some(IdMaps::Own { .. }) => !self.namespaces.joined.is_empty(),
                Some(IdMaps::Ranges { .. } | IdMaps::Joined) => true,
            }
    }

    /// New namespaces of the child that executes the program. The cgroup
    /// namespace is entered later, and one with ranges of ids exists already.
    fn new_namespaces(&self) -> CloneFlags {
        let made = self.ranges().map_or(CloneFlags::empty(), |_| CloneFlags::CLONE_NEWUSER);
        self.namespaces.new - CloneFlags::CLONE_NEWCGROUP - made
    }

    /// Namespaces that a child is born into when it sets up everything
    /// itself.
    pub(super) fn birth(&self) -> CloneFlags {
        if self.is_born_again() { CloneFlags::empty() } else { self.new_namespaces() }
    }

    /// Namespaces that a child is born into when its root was prepared.
    pub(super) fn birth_prepared(&self) -> CloneFlags {
        self.birth() - CloneFlags::CLONE_NEWNS
    }

    /// The steps of a child that sets up everything itself.
    #[must_use]
    pub fn direct_steps(&self) -> Vec<Step> {
        let mut steps = self.arrival_steps();
        // A cgroup namespace shows as its root the cgroup that its creator
        // is in at that moment: after joining.
        let late = self.namespaces.new & CloneFlags::CLONE_NEWCGROUP;
        if !late.is_empty() {
            steps.push(Step::Unshare(late));
        }
        // What each instance has for itself is made now too: in a user
        // namespace the kernel allows a new /proc only as long as another one
        // is in sight (mount_too_revealing() in fs/namespace.c).
        let mut open = self.open_steps();
        open.extend(self.mounts.open_instance());
        steps.extend(self.with_change_of_user(open));
        steps.extend(self.enter_steps());
        steps.extend(self.mounts.attach_static());
        steps.extend(self.mounts.attach_instance());
        steps.extend(self.closing_steps());
        steps
    }

    /// The steps that prepare a root once for many children, in a mount
    /// namespace of its own that no process lives in.
    pub(super) fn root_steps(&self) -> Vec<Step> {
        let mut steps = vec![Step::Umask(UMASK)];
        steps.extend(self.open_steps());
        steps.extend(self.enter_steps());
        steps.extend(self.mounts.attach_static());
        steps
    }

    /// Opens what comes from the host.
    fn open_steps(&self) -> Vec<Step> {
        let flow = |receives| MountAttributes {
            propagation: if receives { nix::libc::MS_SLAVE } else { nix::libc::MS_PRIVATE },
            ..MountAttributes::default()
        };
        // The new namespace's mounts still belong to the host's peer groups:
        // first of all nothing may propagate there.
        let all = flow(self.root_receives || self.mounts.receive());
        let mut root = flow(self.root_receives);
        root.set |= if self.root_has_devices { 0 } else { NO_DEVICES };
        let mut steps =
            vec![Step::SetMount { path: c"/".into(), recursive: true, attributes: all }];
        match (&self.overlay, &self.scratch) {
            (Some(_), _) => {}
            (None, Some(scratch)) => steps.extend(scratch.open(&self.rootfs)),
            (None, None) => steps.extend([
                Step::OpenTree { path: self.rootfs.clone(), recursive: true, slot: ROOT },
                Step::SetTree { slot: ROOT, recursive: true, attributes: root },
            ]),
        }
        steps.extend(self.mounts.open_static());
        steps
    }

    /// From the host's root to the container's. The old root goes at once:
    /// while it is stacked on the new one, `/..` leads to it, and so does
    /// every link of the image that contains that (follow_dotdot() in
    /// fs/namei.c ends at what is mounted on the root).
    fn enter_steps(&self) -> Vec<Step> {
        let mut steps = match (&self.overlay, &self.scratch) {
            (Some(layers), _) => layers.enter(),
            (None, Some(scratch)) => scratch.enter(&self.rootfs, self.root_has_devices),
            (None, None) => vec![
                Step::AttachTree { slot: ROOT, target: self.rootfs.clone() },
                Step::EnterTree(ROOT),
            ],
        };
        steps.extend([Step::PivotRoot, Step::DetachOldRoot]);
        steps.extend(self.overlay.iter().flat_map(overlay::Layers::folders));
        steps
    }

    /// The steps of a child whose root was prepared: its mount namespace is the
    /// first handle of its command after those of [`Plan::joined`].
    #[must_use]
    pub fn prepared_steps(&self) -> Vec<Step> {
        let mut steps = self.arrival_steps();
        // The cgroup namespace comes after joining, as in `direct_steps`: with
        // the next one, unless a mount shows what is in it.
        let mut late = self.namespaces.new & CloneFlags::CLONE_NEWCGROUP;
        if !late.is_empty() && self.mounts.show_cgroups() {
            steps.push(Step::Unshare(late));
            late = CloneFlags::empty();
        }
        steps.extend(self.mounts.open_instance());
        let namespace = handle(self.handles());
        steps.push(Step::EnterNamespace { namespace, kind: CloneFlags::CLONE_NEWNS });
        // A copy of the prepared root, in which this instance mounts its own.
        steps.push(Step::Unshare(CloneFlags::CLONE_NEWNS | late));
        steps.extend(self.mounts.attach_instance());
        steps.extend(self.closing_steps());
        steps
    }

    /// Whether [`Plan::prepared_steps`] can work: a writable layer belongs to
    /// one instance, a user namespace of an
    /// instance has no power over a mount namespace that is older than itself,
    /// and inside a user namespace of somebody else the host's `/proc` must
    /// stay in sight, see [`Plan::direct_steps`].
    pub(super) fn can_be_prepared(&self) -> bool {
        // What one instance writes no other may see.
        let writable = self.overlay.as_ref().is_some_and(overlay::Layers::is_writable)
            && !self.mounts.root_is_sealed();
        let shared = self.scratch.is_none()
            && !writable
            && !self.is_born_again()
            && !self.borrows_cgroup_namespace();
        shared && self.id_maps.is_none() && in_first_user_namespace()
    }

    /// Whether the very first handle of the command must be the cgroup
    /// namespace into which the child is born: it leaves it for a while.
    pub(super) fn borrows_cgroup_namespace(&self) -> bool {
        self.mounts.borrow_cgroup_namespace()
    }

    /// How many handles namespaces take that exist before any instance.
    fn handles(&self) -> usize {
        usize::from(self.borrows_cgroup_namespace()) + self.namespaces.joined.len()
    }

    /// From birth on: what needs the host's files.
    fn arrival_steps(&self) -> Vec<Step> {
        let mut steps = vec![Step::Umask(UMASK)];
        let again = self.is_born_again();
        if !again {
            steps.extend(self.map_own_ids());
        }
        // First of all that allocates: what follows is charged to the
        // instance and not to the launching process.
        steps.push(Step::JoinCgroups);
        if !again {
            steps.push(Step::NewSession);
        }
        if self.own_keyring {
            steps.push(Step::OwnSessionKeyring);
        }
        if let Some(value) = self.oom_score_adj {
            // The host's /proc is still there, the instance's not yet.
            let data = value.to_string().into_bytes();
            steps.push(Step::WriteFile { path: c"/proc/self/oom_score_adj".into(), data });
        }
        if self.namespaces.joins(CloneFlags::CLONE_NEWPID) {
            // Who is there already could reach this process's program and
            // descriptors (the CVE-2019-5736 class).
            steps.push(Step::Hide);
        }
        if self.id_maps == Some(IdMaps::Joined) && nix::unistd::geteuid().is_root() {
            // Inside it may be forbidden to give up the host's groups.
            steps.push(Step::SetGroups(Vec::new()));
        }
        let first = usize::from(self.borrows_cgroup_namespace());
        let joined = self.namespaces.joined.iter().enumerate();
        steps.extend(joined.map(|(index, joined)| Step::EnterNamespace {
            namespace: handle(first + index),
            kind: joined.kind,
        }));
        if self.ranges().is_some() {
            let namespace = handle(self.handles());
            steps.push(Step::EnterNamespace { namespace, kind: CloneFlags::CLONE_NEWUSER });
        }
        if again {
            steps.push(Step::BeBornAgain(self.new_namespaces()));
            steps.extend(self.map_own_ids());
            steps.push(Step::NewSession);
        }
        steps.extend(self.settings.iter().cloned());
        // Before it is where others could look at it, and after the last file
        // of its own in /proc, which this takes away from it.
        steps.push(Step::Hide);
        steps
    }

    /// Until ids are mapped, the child owns nothing that it makes.
    fn map_own_ids(&self) -> Vec<Step> {
        let Some(IdMaps::Own { user, group }) = self.id_maps else { return Vec::new() };
        // `setgroups` must be given up before an unprivileged caller may
        // map its group (user_namespaces(7)).
        let line = |(inside, outside): (u32, u32)| format!("{inside} {outside} 1").into_bytes();
        let file = |path: &std::ffi::CStr, data| Step::WriteFile { path: path.into(), data };
        vec![
            file(c"/proc/self/setgroups", b"deny".to_vec()),
            file(c"/proc/self/uid_map", line(user)),
            file(c"/proc/self/gid_map", line(group)),
        ]
    }

    /// In a user namespace that somebody else made, the child is still the
    /// user of the host, who may open the host's files but is nobody inside:
    /// filesystems, whose root belongs to their maker, come after the change.
    fn with_change_of_user(&self, open: Vec<Step>) -> Vec<Step> {
        let Some(maps @ (IdMaps::Ranges { .. } | IdMaps::Joined)) = &self.id_maps else {
            return open;
        };
        let (uid, gid) = maps.set_up_as();
        let made: Vec<Slot> = open
            .iter()
            .filter_map(|step| match step {
                Step::Filesystem { slot, .. } => Some(*slot),
                _ => None,
            })
            .collect();
        let (late, mut steps): (Vec<Step>, Vec<Step>) =
            open.into_iter().partition(|step| match step {
                Step::Filesystem { .. } => true,
                Step::SetTree { slot, .. } => made.contains(slot),
                _ => false,
            });
        steps.push(Step::SetUser { uid, gid });
        steps.extend(late);
        steps
    }

    /// From the last mount to the end.
    fn closing_steps(&self) -> Vec<Step> {
        let mut steps = self.terminal_steps();
        steps.extend(self.features.iter().cloned());
        steps.extend(self.identity.iter().cloned());
        steps
    }
}

/// Whether this process is in the user namespace of the host: all ids are
/// mapped to themselves. When in doubt it is not.
fn in_first_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// Names, loopback, masks and read-only paths.
fn features(
    spec: &Spec,
    linux: &Linux,
    namespaces: &Namespaces,
    mounts: &Mounts,
) -> Result<Vec<Step>, PlanError> {
    let mut steps = Vec::new();
    for (field, name, make) in [
        ("hostname", spec.hostname(), Step::HostName as fn(CString) -> Step),
        ("domainname", spec.domainname(), Step::DomainName),
    ] {
        let Some(name) = name else { continue };
        if !namespaces.apart(CloneFlags::CLONE_NEWUTS) {
            return Err(PlanError::Value {
                field: field.to_owned(),
                value: name.clone(),
                reason: "it needs a uts namespace, or it would be the host's",
            });
        }
        steps.push(make(c_string(field, name)?));
    }
    if namespaces.new.contains(CloneFlags::CLONE_NEWNET) {
        steps.push(Step::LoopbackUp);
    }
    let readonly = linux.readonly_paths().as_deref().unwrap_or_default();
    for (index, path) in readonly.iter().enumerate() {
        let place = mounts.place(&format!("linux.readonlyPaths[{index}]"), Path::new(path))?;
        steps.push(Step::ProtectPath { place });
    }
    let masked = linux.masked_paths().as_deref().unwrap_or_default();
    let null = mounts.null_slot();
    if !masked.is_empty() {
        // Whatever the image or a mount put there instead would not hide
        // anything (the CVE-2025-31133 class).
        let number = (1, 3);
        steps.push(Step::OpenDevice { path: c"/dev/null".into(), number, slot: null });
    }
    // After the read-only paths: those would otherwise show through.
    for (index, path) in masked.iter().enumerate() {
        let place = mounts.place(&format!("linux.maskedPaths[{index}]"), Path::new(path))?;
        steps.push(Step::Mask { place, null });
    }
    Ok(steps)
}

/// A text as a system call takes it.
fn c_string(field: &str, text: &str) -> Result<CString, PlanError> {
    CString::new(text).map_err(|_| PlanError::Nul { field: field.to_owned() })
}

/// A path as a system call takes it.
fn c_path(field: &str, path: &Path) -> Result<CString, PlanError> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| PlanError::Nul { field: field.to_owned() })
}

/// Several texts.
fn strings(field: &str, texts: &[String]) -> Result<Vec<CString>, PlanError> {
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| c_string(&format!("{field}[{index}]"), text))
        .collect()
}
