//! The set-up steps of a child, as values.
//!
//! A step is one thing that a child does to itself between its creation and
//! the execution of its program. What a step is for stands here; why steps
//! follow each other in a certain order stands where lists of them are made.

use std::ffi::{CStr, CString};

use nix::sched::CloneFlags;
use nix::sys::resource::Resource;
use nix::sys::signal::Signal;

/// A descriptor that the child itself opens and uses in later steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub usize);

/// A descriptor that was opened beforehand and belongs to the
/// [`Command`](super::Command).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(pub(super) usize);

/// Capabilities as bit sets; bit n is capability number n of
/// capabilities(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    /// What permission checks look at.
    pub effective: u64,
    /// What may be made effective.
    pub permitted: u64,
    /// What may survive `execve`.
    pub inheritable: u64,
}

/// How a process is scheduled: the fields of `struct sched_attr` of
/// sched_setattr(2), durations in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// `SCHED_*` number.
    pub policy: u32,
    /// `SCHED_FLAG_*` bits.
    pub flags: u64,
    /// Nice value of the policies without real time.
    pub nice: i32,
    /// Priority of the policies with real time.
    pub priority: u32,
    /// Running time of the deadline policy.
    pub runtime: u64,
    /// Deadline of the deadline policy.
    pub deadline: u64,
    /// Period of the deadline policy.
    pub period: u64,
}

/// Attributes of a mount, as bits `MOUNT_ATTR_*` of mount_setattr(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountAttributes {
    /// Bits to set.
    pub set: u64,
    /// Bits to clear first.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, or 0 to leave propagation alone.
    pub propagation: u64,
}

/// One instruction of a classic BPF program (`struct sock_filter`,
/// include/uapi/linux/filter.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// A system-call filter, ready to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its program, at most 4096 instructions.
    pub instructions: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*` of seccomp(2).
    pub flags: u32,
    /// Whether the clock may be read afterwards. If not, the time at which
    /// set-up was done is taken just before.
    pub permits_clock: bool,
    /// Whether a [guarded](super::Command::guarded) child works under it:
    /// `execveat`, `fcntl`, `write` and `exit_group` are allowed.
    pub permits_guard: bool,
}

/// A path in the child's own root, or beneath a filesystem that it mounted.
///
/// It is looked up without magic links (`RESOLVE_NO_MAGICLINKS` of openat2(2)),
/// so that no link to an open descriptor can lead out of the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The whole path, from the root.
    pub(super) path: CString,
    /// A mounted tree, and how many bytes of the path lead to it: the rest is
    /// looked up beneath it (`RESOLVE_IN_ROOT`), whatever happened meanwhile to
    /// the names above.
    beneath: Option<(Slot, usize)>,
}

impl Place {
    /// A path from the child's root.
    #[must_use]
    pub fn root(path: CString) -> Self {
        Self { path, beneath: None }
    }

    /// A path from the child's root whose first `skip` bytes, slash included,
    /// lead to the top of the tree in a slot.
    #[must_use]
    pub fn beneath(path: CString, slot: Slot, skip: usize) -> Self {
        // Out of range would be a path beneath nothing.
        let beneath = (skip < path.as_bytes().len()).then_some((slot, skip));
        Self { path, beneath }
    }

    /// The tree, and the path to look up.
    pub(super) fn split(&self) -> (Option<Slot>, &CStr) {
        match self.beneath {
            Some((slot, skip)) => (Some(slot), &self.path.as_c_str()[skip..]),
            None => (None, &self.path),
        }
    }
}

/// What to do about symbolic links on the way to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Follow them, within the root.
    Follow,
    /// Fail with `ELOOP`: where a link would make others believe that
    /// something is at a path while it is elsewhere.
    Refuse,
}

/// Something to be made in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory with a mode.
    Directory(u32),
    /// An empty file: a mount point for one.
    File,
    /// A symbolic link to this target.
    Symlink(CString),
    /// A device or FIFO.
    Special {
        /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`, with permissions.
        mode: u32,
        /// Major and minor number.
        device: (u32, u32),
        /// Its user and group.
        owner: (u32, u32),
    },
}

/// One thing that a child does to itself before it executes its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Becomes leader of a new session, so that no terminal of the caller and
    /// no signal to the caller's process group reaches it.
    NewSession,
    /// Becomes leader of a new process group in the caller's session, so that
    /// no signal to the caller's group reaches it.
    NewProcessGroup,
    /// Writes `0` to each of [`Launch::join`](super::Launch::join), the open
    /// `tasks` files of version 1 cgroups. A task that moves itself does not wait for the
    /// kernel's thread-group lock, whose grace period takes milliseconds.
    JoinCgroups,
    /// Writes a whole file under `/proc` in one call: id maps, settings. It
    /// fails when the file is not in a `procfs`.
    WriteFile {
        /// The file, which exists.
        path: CString,
        /// What to write.
        data: Vec<u8>,
    },
    /// Enters new namespaces that must not be made at creation, because
    /// something had to happen before.
    Unshare(CloneFlags),
    /// Enters an existing namespace.
    EnterNamespace {
        /// The namespace's file.
        namespace: Handle,
        /// Its kind, which the kernel checks.
        kind: CloneFlags,
    },
    /// Goes on in a second child, born into these new namespaces and into
    /// those that the first one has entered. It takes the place of the first
    /// one, which ends when the second has executed its program.
    BeBornAgain(CloneFlags),
    /// Changes a mount or, with `recursive`, everything beneath it too.
    SetMount {
        /// A path to the mount.
        path: CString,
        /// Whether what is mounted beneath is changed too.
        recursive: bool,
        /// What to change.
        attributes: MountAttributes,
    },
    /// Makes a detached copy of what is mounted at a path: a bind mount that
    /// is not attached yet.
    OpenTree {
        /// What to copy.
        path: CString,
        /// Whether what is mounted beneath is copied too.
        recursive: bool,
        /// Where to keep it.
        slot: Slot,
    },
    /// Changes a detached tree.
    SetTree {
        /// The tree.
        slot: Slot,
        /// Whether what is mounted beneath is changed too.
        recursive: bool,
        /// What to change.
        attributes: MountAttributes,
    },
    /// Attaches a detached tree at a path.
    AttachTree {
        /// The tree.
        slot: Slot,
        /// Where.
        target: CString,
    },
    /// Makes the top of a tree the working directory.
    EnterTree(Slot),
    /// Makes the working directory the root for a while (chroot(2)), so that
    /// no path of it leads out, and keeps the present one.
    BorrowRoot(Slot),
    /// Returns to the root that [`Step::BorrowRoot`] kept. The working
    /// directory is the borrowed one then.
    ReturnRoot(Slot),
    /// Makes the working directory the root, and stacks the old root on top
    /// of it: `pivot_root(".", ".")` of pivot_root(2).
    PivotRoot,
    /// Removes what is mounted on top of the working directory, after
    /// [`Step::PivotRoot`] the old root, so that no path leads back.
    DetachOldRoot,
    /// Mounts a new filesystem.
    Mount {
        /// Filesystem type.
        kind: CString,
        /// Source, by convention the type again for those without one.
        source: CString,
        /// Where.
        target: CString,
        /// `MS_*` flags of mount(2).
        flags: u64,
        /// Options of the filesystem.
        data: CString,
    },
    /// Makes a new filesystem that is not attached yet (fsopen(2)). What it
    /// shows are the namespaces that the child is in now.
    Filesystem {
        /// Filesystem type.
        kind: CString,
        /// Options: names, with a value or none.
        options: Vec<(CString, Option<CString>)>,
        /// `MOUNT_ATTR_*` of mount_setattr(2).
        attributes: u64,
        /// Where to keep it.
        slot: Slot,
        /// Where it will be, for messages.
        target: CString,
    },
    /// Attaches a detached tree in the child's root.
    Attach {
        /// The tree.
        slot: Slot,
        /// Where.
        place: Place,
        /// Whether there may be links on the way.
        links: Links,
        /// Whether it is a directory, as the place must be, then.
        folder: bool,
    },
    /// Makes something unless anything of this name exists.
    Make {
        /// Its path.
        place: Place,
        /// What it shall be.
        node: Node,
    },
    /// Opens a device, links refused, and makes sure that it is the one it
    /// should be.
    OpenDevice {
        /// Its path in the child's root.
        path: CString,
        /// Major and minor number of a character device.
        number: (u32, u32),
        /// Where to keep it.
        slot: Slot,
    },
    /// Hides a file behind the null device in a slot, or a directory behind
    /// an empty read-only one. A path that does not exist needs no hiding.
    Mask {
        /// What to hide.
        place: Place,
        /// The null device, from [`Step::OpenDevice`].
        null: Slot,
    },
    /// Makes a path and all beneath it read-only by binding it onto itself. A
    /// path that does not exist needs no guard.
    ProtectPath {
        /// What to protect.
        place: Place,
    },
    /// Sets the host name of the current UTS namespace.
    HostName(CString),
    /// Sets the NIS domain name of the current UTS namespace.
    DomainName(CString),
    /// Brings up interface 1, which is `lo` in every network namespace.
    LoopbackUp,
    /// Sets a resource limit.
    ResourceLimit {
        /// Which one.
        resource: Resource,
        /// Soft limit.
        soft: u64,
        /// Hard limit.
        hard: u64,
    },
    /// Removes capabilities from the bounding set, so that no program file
    /// can give them back.
    LimitBoundingSet {
        /// Those that stay.
        keep: u64,
        /// The highest capability number that this kernel knows.
        last: u32,
    },
    /// Keeps permitted capabilities over a change of user from 0 to another.
    KeepCapabilities,
    /// Sets the supplementary groups.
    SetGroups(Vec<u32>),
    /// Sets real, effective and saved group and then user.
    SetUser {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// Sets the capability sets of this process.
    SetCapabilities(CapabilitySets),
    /// Clears the ambient set, then raises these.
    SetAmbient(u64),
    /// Promises that no `execve` will ever grant privileges (prctl(2),
    /// `PR_SET_NO_NEW_PRIVS`).
    NoNewPrivileges,
    /// Loads a system-call filter. Without [`Step::NoNewPrivileges`] it takes
    /// `CAP_SYS_ADMIN` in the user namespace.
    Seccomp(Filter),
    /// Sets the execution domain (personality(2)).
    Personality(u64),
    /// Sets class and level of input and output (ioprio_set(2)).
    IoPriority(u32),
    /// Sets the scheduling policy (sched_setattr(2)).
    Scheduler(Scheduling),
    /// Sets the file mode creation mask.
    Umask(u32),
    /// Changes the working directory, and makes sure that it is in the
    /// child's own root.
    WorkingDirectory(CString),
    /// Asks the kernel to send this signal when the launching thread ends.
    /// Must follow every change of credentials, since those clear it.
    ParentDeathSignal(Signal),
    /// Puts [`Launch::fds`](super::Launch::fds) in their places, the terminal
    /// of [`Step::Terminal`] on 0, 1 and 2, and marks every other
    /// descriptor to be closed by `execve`. Slots, handles and cgroups cannot
    /// be used after it.
    MapDescriptors,
    /// Makes a pseudo-terminal in the `/dev/pts` that the child sees now,
    /// makes it the child's controlling terminal and, with
    /// [`Step::MapDescriptors`], its standard streams, and sends the master
    /// over [`Launch::terminal`](super::Launch::terminal). Needs
    /// [`Step::NewSession`] before it.
    Terminal {
        /// The user inside who gets it.
        owner: u32,
        /// Whether it is bound at `/dev/console`, where a file must exist.
        console: bool,
    },
    /// Takes away the right of others to trace the child and to look at its
    /// memory, program file and descriptors through `/proc`, as long as it
    /// has not executed its program (prctl(2), `PR_SET_DUMPABLE`). Its own
    /// files in `/proc` are then root's. Also keeps kernels before 5.16 from
    /// ending the launching process together with a child that a filter kills.
    Hide,
    /// Joins the session keyring of this name, a new one if there is none
    /// (keyctl(2)), so that the child does not have the keys of who made it.
    /// Kernels without keyrings have nothing to leave.
    SessionKeyring(CString),
    /// Joins a new session keyring without a name, for the same reason.
    OwnSessionKeyring,
    /// Tells the launching process that this point is reached, and waits for
    /// its answer. Only for [`Command::spawn_apart`](super::Command::spawn_apart).
    Pause(u8),
    /// Fails when there is no program that the child, as it now is, may
    /// execute. It is only looked for: what [`Step::AwaitStart`] would
    /// otherwise find out too late.
    FindProgram,
    /// Tells the launching process that everything is set up, and waits,
    /// for as long as it takes, for a byte from
    /// [`Launch::hold`](super::Launch::hold). Only for
    /// [`Command::spawn_apart`](super::Command::spawn_apart).
    AwaitStart,
    /// Gives up if the launching process has ended: then
    /// [`Step::ParentDeathSignal`] may have come too late.
    CheckParent,
}

impl Step {
    /// Whether the step needs descriptors that [`Step::MapDescriptors`] may
    /// replace.
    pub(super) fn uses_descriptors(&self) -> bool {
        matches!(
            self,
            Self::JoinCgroups
                | Self::EnterNamespace { .. }
                | Self::OpenTree { .. }
                | Self::SetTree { .. }
                | Self::AttachTree { .. }
                | Self::EnterTree(_)
                | Self::BorrowRoot(_)
                | Self::ReturnRoot(_)
                | Self::Filesystem { .. }
                | Self::Attach { .. }
                | Self::Make { place: Place { beneath: Some(_), .. }, .. }
                | Self::OpenDevice { .. }
                | Self::Mask { .. }
                | Self::ProtectPath { place: Place { beneath: Some(_), .. } }
                | Self::Terminal { .. }
        )
    }

    /// Whether the step waits for an answer of somebody else.
    pub(super) fn waits(&self) -> bool {
        matches!(self, Self::Pause(_) | Self::AwaitStart)
    }

    /// The slot that the step uses.
    pub(super) fn slot(&self) -> Option<Slot> {
        match self {
            Self::OpenTree { slot, .. }
            | Self::SetTree { slot, .. }
            | Self::AttachTree { slot, .. }
            | Self::Filesystem { slot, .. }
            | Self::Attach { slot, .. }
            | Self::OpenDevice { slot, .. }
            | Self::BorrowRoot(slot)
            | Self::ReturnRoot(slot)
            | Self::EnterTree(slot) => Some(*slot),
            _ => None,
        }
    }
}
