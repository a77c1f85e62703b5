//! Namespaces of a spec: new ones, existing ones, and the ids of users in them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Process};

use super::PlanError;
use crate::sys::spawn::{CLONE_NEWTIME, IdMap};

/// A namespace that exists and is to be entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::container) struct Joined {
    /// Its kind.
    pub(in crate::container) kind: CloneFlags,
    /// Its file.
    pub(in crate::container) path: PathBuf,
    /// Path of the field in `config.json`.
    pub(in crate::container) field: String,
}

/// The namespaces of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Namespaces {
    /// Those that every instance gets anew.
    pub(super) new: CloneFlags,
    /// Those that exist already, the user namespace last: entering it gives
    /// up power over the others.
    pub(super) joined: Vec<Joined>,
}

impl Namespaces {
    /// Reads the namespaces of a spec.
    pub(super) fn read(linux: &Linux) -> Result<Self, PlanError> {
        let mut all = Self { new: CloneFlags::empty(), joined: Vec::new() };
        let mut seen = CloneFlags::empty();
        let list = linux.namespaces().as_deref().unwrap_or_default();
        for (index, namespace) in list.iter().enumerate() {
            let kind = flag(namespace.typ());
            let field = format!("linux.namespaces[{index}]");
            if seen.contains(kind) {
                return Err(PlanError::Value {
                    field: format!("{field}.type"),
                    value: namespace.typ().to_string(),
                    reason: "a container is in one namespace of each kind",
                });
            }
            seen |= kind;
            match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => all.join(kind, path, field)?,
                _ => all.new |= kind,
            }
        }
        if !all.new.contains(CloneFlags::CLONE_NEWNS) {
            return Err(PlanError::Missing {
                field: "linux.namespaces[mount]",
                reason: "a root filesystem needs a mount namespace of its own",
            });
        }
        all.joined.sort_by_key(|other| order(other.kind));
        Ok(all)
    }

    fn join(&mut self, kind: CloneFlags, path: &Path, field: String) -> Result<(), PlanError> {
        let reason = match kind {
            CloneFlags::CLONE_NEWNS => {
                "the root of a container cannot change in a mount namespace that others are in"
            }
            CLONE_NEWTIME => {
                "a process enters an existing time namespace only with memory of its own \
                 (timens_install() in kernel/time/namespace.c)"
            }
            _ if !path.is_absolute() => "it must be an absolute path",
            _ => {
                self.joined.push(Joined { kind, path: path.to_owned(), field });
                return Ok(());
            }
        };
        let value = path.display().to_string();
        Err(PlanError::Value { field: format!("{field}.path"), value, reason })
    }

    /// Whether the container is in another namespace of this kind than this
    /// process: what it changes there is not the host's.
    pub(super) fn apart(&self, kind: CloneFlags) -> bool {
        self.new.contains(kind)
            || self.joined.iter().any(|other| other.kind == kind && !is_own(other))
    }

    /// Whether an existing namespace of this kind is entered.
    pub(super) fn joins(&self, kind: CloneFlags) -> bool {
        self.joined.iter().any(|other| other.kind == kind)
    }
}

/// The flag of a kind.
fn flag(kind: LinuxNamespaceType) -> CloneFlags {
    match kind {
        LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
        LinuxNamespaceType::User => CloneFlags::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => CloneFlags::CLONE_NEWPID,
        LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
        LinuxNamespaceType::Time => CLONE_NEWTIME,
    }
}

/// Root enters what belongs to the host as long as it may. Who has no
/// privileges has them only inside the user namespace.
fn order(kind: CloneFlags) -> u8 {
    let user_first = !nix::unistd::geteuid().is_root();
    match kind {
        CloneFlags::CLONE_NEWUSER if user_first => 0,
        CloneFlags::CLONE_NEWUSER => 2,
        _ => 1,
    }
}

/// Whether a namespace is this process's own. When in doubt it is.
fn is_own(joined: &Joined) -> bool {
    let name = match joined.kind {
        CloneFlags::CLONE_NEWNET => "net",
        CloneFlags::CLONE_NEWIPC => "ipc",
        CloneFlags::CLONE_NEWUTS => "uts",
        _ => return true,
    };
    let number = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino()));
    match (number(&joined.path), number(&Path::new("/proc/self/ns").join(name))) {
        (Ok(theirs), Ok(own)) => theirs == own,
        _ => true,
    }
}

/// The users and groups inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::container) enum IdMaps {
    /// One user and one group of the caller, under the ids that they have
    /// inside: a child may map them itself, also without privileges.
    Own {
        /// Inside and outside.
        user: (u32, u32),
        /// Inside and outside.
        group: (u32, u32),
    },
    /// Ranges, which somebody outside must map.
    Ranges {
        /// Of users.
        users: Vec<IdMap>,
        /// Of groups.
        groups: Vec<IdMap>,
    },
    /// Those of an existing user namespace.
    Joined,
}

impl IdMaps {
    /// Reads the mappings of a spec.
    pub(super) fn read(
        linux: &Linux,
        namespaces: &Namespaces,
        process: &Process,
    ) -> Result<Option<Self>, PlanError> {
        let users = linux.uid_mappings().as_deref().unwrap_or_default();
        let groups = linux.gid_mappings().as_deref().unwrap_or_default();
        let none = users.is_empty() && groups.is_empty();
        if namespaces.joins(CloneFlags::CLONE_NEWUSER) {
            let given = PlanError::Value {
                field: "linux.uidMappings".to_owned(),
                value: text(users),
                reason: "a user namespace that exists has its mappings",
            };
            return if none { Ok(Some(Self::Joined)) } else { Err(given) };
        }
        if !namespaces.new.contains(CloneFlags::CLONE_NEWUSER) {
            let missing = PlanError::Missing {
                field: "linux.namespaces[user]",
                reason: "id mappings need a user namespace",
            };
            return if none { Ok(None) } else { Err(missing) };
        }
        let uid = nix::unistd::geteuid().as_raw();
        let gid = nix::unistd::getegid().as_raw();
        if none {
            // As crun does, whose own `spec --rootless` names none.
            let user = process.user();
            return Ok(Some(Self::Own { user: (user.uid(), uid), group: (user.gid(), gid) }));
        }
        if let (Some(user), Some(group)) = (single(users, uid), single(groups, gid)) {
            return Ok(Some(Self::Own { user, group }));
        }
        Ok(Some(Self::Ranges {
            users: ranges("linux.uidMappings", users)?,
            groups: ranges("linux.gidMappings", groups)?,
        }))
    }

    /// The user and group as which a child in ranges sets itself up.
    pub(super) fn set_up_as(&self) -> (u32, u32) {
        let first = |maps: &[IdMap]| {
            let zero = maps.iter().any(|map| map.inside == 0);
            if zero { 0 } else { maps.first().map_or(0, |map| map.inside) }
        };
        match self {
            Self::Ranges { users, groups } => (first(users), first(groups)),
            _ => (0, 0),
        }
    }

    /// Whether a user and a group exist inside, as far as is known.
    pub(super) fn have(&self, uid: u32, gid: u32) -> bool {
        let within = |maps: &[IdMap], id: u32| {
            maps.iter().any(|map| id.checked_sub(map.inside).is_some_and(|n| n < map.count))
        };
        match self {
            Self::Own { user, group } => (uid, gid) == (user.0, group.0),
            Self::Ranges { users, groups } => within(users, uid) && within(groups, gid),
            Self::Joined => true,
        }
    }
}

/// The id inside and outside, if it is the caller's own and the only one.
fn single(maps: &[LinuxIdMapping], own: u32) -> Option<(u32, u32)> {
    match maps {
        [map] if map.size() == 1 && map.host_id() == own => Some((map.container_id(), own)),
        _ => None,
    }
}

/// The kernel takes 340 lines (user_namespaces(7)).
fn ranges(field: &str, maps: &[LinuxIdMapping]) -> Result<Vec<IdMap>, PlanError> {
    let fits = |map: &LinuxIdMapping| {
        let end = |start: u32| start.checked_add(map.size());
        map.size() > 0 && end(map.container_id()).is_some() && end(map.host_id()).is_some()
    };
    if maps.is_empty() || maps.len() > 340 || !maps.iter().all(fits) {
        return Err(PlanError::Value {
            field: field.to_owned(),
            value: text(maps),
            reason: "users and groups each need 1 to 340 ranges of at least one id",
        });
    }
    let map = |map: &LinuxIdMapping| IdMap {
        inside: map.container_id(),
        outside: map.host_id(),
        count: map.size(),
    };
    Ok(maps.iter().map(map).collect())
}

fn text(maps: &[LinuxIdMapping]) -> String {
    maps.iter()
        .map(|map| format!("{} {} {}", map.container_id(), map.host_id(), map.size()))
        .collect::<Vec<_>>()
        .join(", ")
}
