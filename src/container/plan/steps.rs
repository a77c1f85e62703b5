//! From a plan to lists of steps: for a child that sets up everything itself,
//! for a root that many share, and for a child of such a root.

use nix::sched::CloneFlags;

use super::namespaces::IdMaps;
use super::options::NO_DEVICES;
use super::{Plan, overlay};
use crate::sys::namespace::in_first_user_namespace;
use crate::sys::spawn::{MountAttributes, Slot, Step, handle};

/// The slot of the root filesystem; other mounts follow.
const ROOT: Slot = Slot(0);
/// The mask for new files of a process that names none, as runc and crun have
/// it; until then it makes that mount points are the same whoever launches.
const UMASK: u32 = 0o022;

impl Plan {
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
    pub(in crate::container) fn birth(&self) -> CloneFlags {
        if self.is_born_again() { CloneFlags::empty() } else { self.new_namespaces() }
    }

    /// Namespaces that a child is born into when its root was prepared.
    pub(in crate::container) fn birth_prepared(&self) -> CloneFlags {
        self.birth() - CloneFlags::CLONE_NEWNS
    }

    /// The steps of a child that sets up everything itself.
    #[must_use]
    pub fn direct_steps(&self) -> Vec<Step> {
        let mut steps = self.opening_steps();
        steps.extend(self.enter_steps());
        steps.extend(self.mounts.attach_static());
        steps.extend(self.mounts.attach_instance());
        steps.extend(self.closing_steps());
        steps
    }

    /// The same with a step in between at which everything is mounted, and
    /// the old root still there. To mount, the child goes into its root all
    /// the same: see [`Plan::enter_steps`] for what would happen otherwise.
    pub(super) fn direct_steps_around(&self, before_pivot: Step) -> Vec<Step> {
        let old_root = Slot(self.mounts.slots() + 1);
        let mut steps = self.opening_steps();
        steps.extend(self.tree_steps());
        steps.push(Step::BorrowRoot(old_root));
        steps.extend(self.overlay.iter().flat_map(overlay::Layers::folders));
        steps.extend(self.mounts.attach_unsealed());
        steps.extend([Step::ReturnRoot(old_root), before_pivot]);
        steps.extend([Step::PivotRoot, Step::DetachOldRoot]);
        // A hook may add to what the container sees read-only.
        steps.extend(self.mounts.seals(true));
        steps.extend(self.mounts.seals(false));
        steps.extend(self.closing_steps());
        steps
    }

    /// From birth until everything from the host is open.
    fn opening_steps(&self) -> Vec<Step> {
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
        steps
    }

    /// The steps that prepare a root once for many children, in a mount
    /// namespace of its own that no process lives in.
    pub(in crate::container) fn root_steps(&self) -> Vec<Step> {
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
        let mut steps = self.tree_steps();
        steps.extend([Step::PivotRoot, Step::DetachOldRoot]);
        steps.extend(self.overlay.iter().flat_map(overlay::Layers::folders));
        steps
    }

    /// Puts the container's root in its place and makes it the working
    /// directory.
    fn tree_steps(&self) -> Vec<Step> {
        match (&self.overlay, &self.scratch) {
            (Some(layers), _) => layers.enter(),
            (None, Some(scratch)) => scratch.enter(&self.rootfs, self.root_has_devices),
            (None, None) => vec![
                Step::AttachTree { slot: ROOT, target: self.rootfs.clone() },
                Step::EnterTree(ROOT),
            ],
        }
    }

    /// The steps of a child whose root was prepared: its mount namespace is the
    /// first handle of its command after those of `Plan::joined`.
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
    pub(in crate::container) fn can_be_prepared(&self) -> bool {
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
    pub(in crate::container) fn borrows_cgroup_namespace(&self) -> bool {
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
