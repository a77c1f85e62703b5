//! From an OCI runtime `Spec` to the steps that carry it out.
//!
//! A plan is pure data; nothing is made here. What the suite cannot do is
//! refused by the field's name, never left out.

mod identity;
mod limits;
mod mounts;
mod options;
mod overlay;
mod resources;
mod scratch;
mod supported;
#[cfg(test)]
mod tests;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

pub(super) use self::identity::BY_NUMBER;
use self::mounts::Mounts;
use self::scratch::Scratch;
pub(super) use self::supported::check as check_fields;
use super::cgroup::{Controller, Limits};
use super::seccomp::{self, SeccompError};
use crate::sys::spawn::{CLONE_NEWTIME, MountAttributes, Slot, Step, handle};

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
    rootfs: CString,
    /// Layers of an image over it; it is a mount point only, then.
    overlay: Option<overlay::Layers>,
    /// A writable layer over it.
    scratch: Option<Scratch>,
    namespaces: CloneFlags,
    id_maps: Option<IdMaps>,
    oom_score_adj: Option<i32>,
    mounts: Mounts,
    /// Names, loopback, masks: after all mounts.
    features: Vec<Step>,
    /// From the arrangement of descriptors to the end.
    identity: Vec<Step>,
}

/// One user and one group of the caller under the ids that they have inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IdMaps {
    pub(super) user: (u32, u32),
    pub(super) group: (u32, u32),
}

/// The slot of the root filesystem; binds follow.
const ROOT: Slot = Slot(0);

impl Plan {
    /// Reads a spec whose relative paths start at `bundle`.
    ///
    /// # Errors
    ///
    /// For a field or value that this runtime does not support, and for a
    /// root filesystem or bind source that does not exist.
    pub fn from_spec(spec: &Spec, bundle: &Path) -> Result<Self, PlanError> {
        supported::check(&serde_json::to_value(spec)?)?;
        let process = spec.process().as_ref().ok_or(PlanError::Missing {
            field: "process",
            reason: "there is nothing to execute",
        })?;
        let root = spec.root().as_ref().ok_or(PlanError::Missing {
            field: "root",
            reason: "a container needs a root filesystem",
        })?;
        let none = Linux::default();
        let linux = spec.linux().as_ref().unwrap_or(&none);
        let namespaces = namespaces(linux)?;
        let id_maps = resources::id_maps(linux, namespaces)?;
        let path = bundle.join(root.path());
        let rootfs = path.canonicalize().map_err(|source| PlanError::File {
            what: "the root filesystem",
            path,
            source,
        })?;
        let readonly = root.readonly().unwrap_or(false);
        let list = spec.mounts().as_deref().unwrap_or_default();
        let filter = linux.seccomp().as_ref().map(seccomp::compile).transpose()?;
        let mounts = Mounts::plan(list, &rootfs, bundle, readonly)?;
        let features = features(spec, linux, namespaces, &mounts)?;
        Ok(Self {
            program: identity::program(process)?,
            arguments: strings("process.args", process.args().as_deref().unwrap_or_default())?,
            environment: strings("process.env", process.env().as_deref().unwrap_or_default())?,
            limits: limits::limits(linux)?,
            rootfs: c_path("root.path", &rootfs)?,
            overlay: None,
            scratch: None,
            namespaces,
            id_maps,
            oom_score_adj: process.oom_score_adj(),
            mounts,
            features,
            identity: identity::steps(process, id_maps, filter)?,
        })
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
        let alone = self.namespaces.contains(CloneFlags::CLONE_NEWPID);
        let needed = |controller: &Controller| {
            self.limits.wants(*controller) || (!alone && *controller == Controller::Pids)
        };
        Controller::ALL.into_iter().filter(needed).collect()
    }

    /// Whether the process gets a terminal of its own.
    #[must_use]
    pub fn has_terminal(&self) -> bool {
        self.identity.iter().any(|step| matches!(step, Step::Terminal { .. }))
    }

    /// Whether instances get a user namespace of their own.
    #[must_use]
    pub fn has_user_namespace(&self) -> bool {
        self.id_maps.is_some()
    }

    /// Whether instances get a network namespace of their own.
    #[must_use]
    pub fn has_network_namespace(&self) -> bool {
        self.namespaces.contains(CloneFlags::CLONE_NEWNET)
    }

    /// The same plan for instances whose network namespace is made for them.
    pub(super) fn in_given_network(&self) -> Self {
        let mut plan = self.clone();
        plan.namespaces -= CloneFlags::CLONE_NEWNET;
        plan
    }

    /// The same plan for instances that find their network set up.
    pub(super) fn with_network_up(&self) -> Self {
        let mut plan = self.in_given_network();
        plan.features.retain(|step| *step != Step::LoopbackUp);
        plan
    }

    /// Namespaces that a child is born into when it sets up everything
    /// itself. The cgroup namespace is entered later.
    pub(super) fn birth(&self) -> CloneFlags {
        self.namespaces - CloneFlags::CLONE_NEWCGROUP
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
        let late = self.namespaces & CloneFlags::CLONE_NEWCGROUP;
        if !late.is_empty() {
            steps.push(Step::Unshare(late));
        }
        steps.extend(self.mounts.open_instance());
        steps.extend(self.pivot_steps());
        steps.extend(self.mounts.attach_instance());
        // Only now: in a user namespace the kernel allows a new /proc only as
        // long as another one is in sight (mount_too_revealing() in
        // fs/namespace.c). No path leads into the old root meanwhile.
        steps.push(Step::DetachOldRoot);
        steps.extend(self.closing_steps());
        steps
    }

    /// The steps that prepare a root once for many children, in a mount
    /// namespace of its own that no process lives in.
    pub(super) fn root_steps(&self) -> Vec<Step> {
        let mut steps = self.pivot_steps();
        steps.push(Step::DetachOldRoot);
        steps
    }

    /// From the host's mounts to the new root with all shared mounts, the old
    /// root still behind it.
    fn pivot_steps(&self) -> Vec<Step> {
        let private =
            MountAttributes { propagation: nix::libc::MS_PRIVATE, ..MountAttributes::default() };
        // The new namespace's mounts still belong to the host's peer groups:
        // first of all nothing may propagate there.
        let mut steps =
            vec![Step::SetMount { path: c"/".into(), recursive: true, attributes: private }];
        // Sources of binds are host paths: opened while those exist.
        match (&self.overlay, &self.scratch) {
            (Some(layers), _) => {
                steps.extend(self.mounts.open_static());
                steps.extend(layers.enter());
            }
            (None, Some(scratch)) => {
                steps.extend(scratch.open(&self.rootfs));
                steps.extend(self.mounts.open_static());
                steps.extend(scratch.enter(&self.rootfs));
            }
            (None, None) => {
                steps.extend([
                    Step::OpenTree { path: self.rootfs.clone(), recursive: true, slot: ROOT },
                    Step::SetTree { slot: ROOT, recursive: true, attributes: private },
                ]);
                steps.extend(self.mounts.open_static());
                steps.extend([
                    Step::AttachTree { slot: ROOT, target: self.rootfs.clone() },
                    Step::EnterTree(ROOT),
                ]);
            }
        }
        steps.push(Step::PivotRoot);
        steps.extend(self.overlay.iter().flat_map(overlay::Layers::folders));
        // All mount points are looked up from here on, where neither `..`
        // nor a link of the image can lead to the host.
        steps.extend(self.mounts.attach_static());
        steps
    }

    /// The steps of a child whose root was prepared: `namespace` is the first
    /// handle of its command.
    #[must_use]
    pub fn prepared_steps(&self) -> Vec<Step> {
        let mut steps = self.arrival_steps();
        steps.extend(self.mounts.open_instance());
        steps.push(Step::EnterNamespace { namespace: handle(0), kind: CloneFlags::CLONE_NEWNS });
        // A copy of the prepared root, in which this instance mounts its own;
        // and the cgroup namespace, after joining as in `direct_steps`.
        let late = CloneFlags::CLONE_NEWNS | (self.namespaces & CloneFlags::CLONE_NEWCGROUP);
        steps.push(Step::Unshare(late));
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
        let shared = self.scratch.is_none() && !writable;
        shared && self.id_maps.is_none() && in_first_user_namespace()
    }

    /// From birth on: what needs the host's files.
    fn arrival_steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some(maps) = &self.id_maps {
            // Until ids are mapped, the child owns nothing that it makes.
            // `setgroups` must be given up before an unprivileged caller may
            // map its group (user_namespaces(7)).
            let line = |(inside, outside): (u32, u32)| format!("{inside} {outside} 1").into_bytes();
            let file = |path: &std::ffi::CStr, data| Step::WriteFile { path: path.into(), data };
            steps.push(file(c"/proc/self/setgroups", b"deny".to_vec()));
            steps.push(file(c"/proc/self/uid_map", line(maps.user)));
            steps.push(file(c"/proc/self/gid_map", line(maps.group)));
        }
        // First of all that allocates: what follows is charged to the
        // instance and not to the launching process.
        steps.push(Step::JoinCgroups);
        steps.push(Step::NewSession);
        if let Some(value) = self.oom_score_adj {
            // The host's /proc is still there, the instance's not yet.
            let data = value.to_string().into_bytes();
            steps.push(Step::WriteFile { path: c"/proc/self/oom_score_adj".into(), data });
        }
        // Before it is where others could look at it, and after the last file
        // of its own in /proc, which this takes away from it.
        steps.push(Step::Hide);
        steps
    }

    /// From the last mount to the end.
    fn closing_steps(&self) -> Vec<Step> {
        let mut steps = self.features.clone();
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

/// The namespaces of a spec, all of them new.
fn namespaces(linux: &Linux) -> Result<CloneFlags, PlanError> {
    let mut all = CloneFlags::empty();
    for namespace in linux.namespaces().as_deref().unwrap_or_default() {
        all |= match namespace.typ() {
            LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
            LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
            LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
            LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
            LinuxNamespaceType::User => CloneFlags::CLONE_NEWUSER,
            LinuxNamespaceType::Pid => CloneFlags::CLONE_NEWPID,
            LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
            LinuxNamespaceType::Time => CLONE_NEWTIME,
        };
    }
    if !all.contains(CloneFlags::CLONE_NEWNS) {
        return Err(PlanError::Missing {
            field: "linux.namespaces[mount]",
            reason: "a root filesystem needs a mount namespace of its own",
        });
    }
    Ok(all)
}

/// Names, loopback, masks and read-only paths.
fn features(
    spec: &Spec,
    linux: &Linux,
    namespaces: CloneFlags,
    mounts: &Mounts,
) -> Result<Vec<Step>, PlanError> {
    let mut steps = Vec::new();
    for (field, name, make) in [
        ("hostname", spec.hostname(), Step::HostName as fn(CString) -> Step),
        ("domainname", spec.domainname(), Step::DomainName),
    ] {
        let Some(name) = name else { continue };
        if !namespaces.contains(CloneFlags::CLONE_NEWUTS) {
            return Err(PlanError::Value {
                field: field.to_owned(),
                value: name.clone(),
                reason: "it needs a uts namespace, or it would be the host's",
            });
        }
        steps.push(make(c_string(field, name)?));
    }
    if namespaces.contains(CloneFlags::CLONE_NEWNET) {
        steps.push(Step::LoopbackUp);
    }
    let readonly = linux.readonly_paths().as_deref().unwrap_or_default();
    for path in strings("linux.readonlyPaths", readonly)? {
        steps.push(Step::ProtectPath { path });
    }
    let masked = linux.masked_paths().as_deref().unwrap_or_default();
    if !masked.is_empty() && !mounts.has_own_devices() {
        return Err(PlanError::Missing {
            field: "mounts[/dev]",
            reason: "masked paths are hidden behind a /dev/null that must not come from the image",
        });
    }
    // After the read-only paths: those would otherwise show through.
    for path in strings("linux.maskedPaths", masked)? {
        steps.push(Step::Mask { path });
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
