//! Entering the namespaces of a container that exists.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

use crate::sys::pidfd::PidFd;
use crate::sys::spawn::{CLONE_NEWTIME, Child, Command, Launch, SpawnError, Step, handle};

/// Names in `/proc/<pid>/ns`, and what `setns` calls them. The user namespace
/// comes first in what the kernel does, whatever the order of the bits.
const KINDS: [(&str, CloneFlags); 8] = [
    ("user", CloneFlags::CLONE_NEWUSER),
    ("mnt", CloneFlags::CLONE_NEWNS),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("net", CloneFlags::CLONE_NEWNET),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("time", CLONE_NEWTIME),
    ("pid", CloneFlags::CLONE_NEWPID),
];

/// The way into a container's namespaces, by a descriptor of its first
/// process: all at once, and never those of a stranger who got its number.
#[derive(Debug)]
pub(super) struct Entrance {
    process: OwnedFd,
    /// Those in which the container is and the caller is not.
    kinds: CloneFlags,
    /// Whether the caller has entered the user namespace for good.
    stays: bool,
    /// What follows once the descriptors are arranged: who the process is.
    pub(super) identity: Vec<Step>,
}

impl Entrance {
    /// Looks which namespaces differ from the caller's.
    pub(super) fn new(pid: i32, process: &PidFd, identity: Vec<Step>) -> Result<Self, Errno> {
        let mut kinds = CloneFlags::empty();
        for (name, flag) in KINDS {
            let own = inode(&PathBuf::from(format!("/proc/self/ns/{name}")));
            let theirs = inode(&PathBuf::from(format!("/proc/{pid}/ns/{name}")));
            match (own, theirs) {
                // A kernel without this kind.
                (None, None) => {}
                (_, None) => return Err(Errno::ESRCH),
                (own, theirs) if own == theirs => {}
                _ => kinds |= flag,
            }
        }
        let process = process.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
        let mut entrance = Self { process, kinds, identity, stays: false };
        if kinds.contains(CloneFlags::CLONE_NEWUSER) && !nix::unistd::geteuid().is_root() {
            entrance.enter_user()?;
        }
        Ok(entrance)
    }

    /// Without privileges, power over the other namespaces comes only with the
    /// user namespace that owns them, which this process must then enter
    /// itself, once and for all (the kernel wants it to have one thread). The
    /// processes in there must not look at it.
    fn enter_user(&mut self) -> Result<(), Errno> {
        nix::sys::prctl::set_dumpable(false)?;
        setns(&self.process, CloneFlags::CLONE_NEWUSER)?;
        self.kinds -= CloneFlags::CLONE_NEWUSER;
        self.stays = true;
        Ok(())
    }

    /// The descriptor that [`Entrance::steps`] use, for
    /// [`Command::with_handles`].
    pub(super) fn handle(&self) -> std::io::Result<OwnedFd> {
        self.process.try_clone()
    }

    /// The steps of a child, whose first handle is the container's process. Its
    /// root and working directory are the container's then.
    pub(super) fn steps(&self) -> Vec<Step> {
        let kinds = self.kinds - CloneFlags::CLONE_NEWPID;
        // From here on a process of the container could look at this one.
        let mut steps = vec![Step::Hide];
        if !kinds.is_empty() {
            steps.push(Step::EnterNamespace { namespace: handle(0), kind: kinds });
        }
        steps
    }

    /// Launches a child that carries out [`Entrance::steps`] among others.
    /// A process cannot move into a pid namespace, only its children can be
    /// born there, so the calling thread's children are for that moment.
    pub(super) fn launch(
        &self,
        command: &mut Command,
        launch: &Launch<'_>,
    ) -> Result<Child, SpawnError> {
        let pid_namespace = CloneFlags::CLONE_NEWPID;
        let refused = |source| SpawnError::Clone { namespaces: pid_namespace, source };
        if !self.kinds.contains(pid_namespace) {
            return command.spawn_apart(launch, |_, _| Ok(()));
        }
        let own = std::fs::File::open("/proc/thread-self/ns/pid")
            .map_err(|error| refused(Errno::from_raw(error.raw_os_error().unwrap_or(0))))?;
        setns(&self.process, pid_namespace).map_err(refused)?;
        let launched = command.spawn_apart(launch, |_, _| Ok(()));
        match setns(own, pid_namespace) {
            // There is no way back; the caller has nothing to launch any more
            // but for this container.
            Err(Errno::EPERM) if self.stays => {}
            other => other.map_err(refused)?,
        }
        launched
    }
}

/// What tells one namespace from another.
fn inode(path: &std::path::Path) -> Option<u64> {
    path.metadata().ok().map(|meta| meta.ino())
}
