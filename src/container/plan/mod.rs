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
mod steps;
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
pub(super) use self::options::names as mount_options;
use self::scratch::Scratch;
pub(super) use self::supported::{Refusal, check as check_fields};
use super::cgroup::{Controller, Limits};
use super::seccomp::{self, SeccompError};
use crate::sys::namespace::in_first_user_namespace;
use crate::sys::spawn::Step;

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

impl Plan {
    /// Reads a spec whose relative paths start at `bundle`.
    ///
    /// # Errors
    ///
    /// For a field or value that this runtime does not support, and for a
    /// root filesystem or bind source that does not exist.
    pub fn from_spec(spec: &Spec, bundle: &Path) -> Result<Self, PlanError> {
        let text = serde_json::to_string(spec)?;
        check_fields(&mut serde_json::Deserializer::from_str(&text)).map_err(|refusal| {
            match refusal {
                Refusal::Field(error) => error,
                Refusal::Input(error) => error.into(),
            }
        })?;
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
