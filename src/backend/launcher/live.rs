//! One live instance as the launcher holds it: its first process, its
//! cgroup, and the ears on it.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use super::bare::Stamps;
use super::order::{Failure, fd};
use super::place::Network;
use super::qmp::Conversation;
use super::watch::{Goal, Source, Trouble, Watch};
use crate::container::cgroup::Group;
use crate::container::network::{Lease, Marked, Netns, Witness};
use crate::errors::chain;
use crate::payload::protocol::STOP;
use crate::payload::request;
use crate::record::Mark;
use crate::sys::clock::{Deadline, monotonic_ns};
use crate::sys::fdpass::stream_pair;
use crate::sys::pidfd::{Ended, Exit, PidFd};
use nix::unistd::Pid;

/// Time that the kernel may take to let go of an ended instance's cgroup.
pub(super) const REMOVAL: Duration = Duration::from_secs(10);

/// The same for many at once. The kernel destroys some tens of network
/// namespaces a second.
const REMOVAL_OF_MANY: Duration = Duration::from_secs(60);

/// Which kind of thing an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A plain process.
    Process,
    /// A container.
    Container,
    /// A virtual machine.
    Machine,
    /// A virtual machine of bare KVM.
    Bare,
    /// One whose guest goes on from a snapshot.
    Restored,
}

impl Kind {
    /// The marks that come before the proof of work, in order.
    fn marks(self) -> &'static [Mark] {
        match self {
            Self::Process | Self::Container => &[Mark::Spawned, Mark::Init, Mark::Ready],
            Self::Bare => &[
                Mark::Cloned,
                Mark::SetUp,
                Mark::KvmOpened,
                Mark::VmCreated,
                Mark::VmMemory,
                Mark::VcpuCreated,
                Mark::VmmReady,
                Mark::Kernel,
                Mark::Init,
                Mark::Ready,
            ],
            Self::Machine => {
                &[Mark::Spawned, Mark::VmmReady, Mark::Kernel, Mark::Init, Mark::Ready]
            }
            Self::Restored => &[Mark::Spawned, Mark::VmmReady, Mark::Resumed, Mark::Ready],
        }
    }

    /// The workload's exit code out of its first process's end: QEMU's
    /// isa-debug-exit device turns code N into 2N+1.
    pub(super) fn code(self, exit: Exit) -> Option<u8> {
        match (self, exit) {
            (Self::Machine | Self::Restored, Exit::Code(code)) if code & 1 == 1 => {
                u8::try_from(code >> 1).ok()
            }
            (Self::Machine | Self::Restored, _) | (_, Exit::Signal(_)) => None,
            (_, Exit::Code(code)) => u8::try_from(code).ok(),
        }
    }
}

/// Both ends of everything an instance is connected with.
pub(super) struct Wires {
    /// The launcher's ends.
    pub(super) ears: Vec<(Source, OwnedFd)>,
    /// The child's ends and the numbers that they get there.
    pub(super) child: Vec<(OwnedFd, i32)>,
}

impl Wires {
    /// Connects an instance of this kind.
    pub(super) fn new(kind: Kind, is_traced: bool, null: BorrowedFd<'_>) -> std::io::Result<Self> {
        // In the order in which an instance is heard on them: of two that can
        // be read at once, the first one is read and stamped first.
        let (mut ears, mut child) = (Vec::new(), Vec::new());
        let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC);
        if matches!(kind, Kind::Machine | Kind::Restored) {
            let (near, far) = stream_pair()?;
            ears.push((Source::Qmp, near));
            child.push((far, fd::QMP));
            let (read, write) = pipe()?;
            ears.push((Source::Console, read));
            child.push((write, fd::CONSOLE));
        }
        if is_traced {
            let (read, write) = pipe()?;
            ears.push((Source::Trace, read));
            child.push((write, fd::TRACE));
        }
        let (near, far) = stream_pair()?;
        ears.push((Source::Channel, near));
        child.push((far, fd::CHANNEL));
        let (read, write) = pipe()?;
        ears.push((Source::Stderr, read));
        child.push((null.try_clone_to_owned()?, 0));
        child.push((write.try_clone()?, 1));
        child.push((write, 2));
        Ok(Self { ears, child })
    }

    /// The child's ends for a second process, which has no more than the
    /// three ordinary ones.
    pub(super) fn ordinary(&self) -> Vec<(BorrowedFd<'_>, i32)> {
        let ordinary = self.child.iter().filter(|(_, number)| (0..=2).contains(number));
        ordinary.map(|(fd, number)| (fd.as_fd(), *number)).collect()
    }
}

/// A live instance.
pub(super) struct Live {
    pub(super) kind: Kind,
    pub(super) pidfd: PidFd,
    /// What serves a guest's root file system, until it is reaped.
    pub(super) server: Option<PidFd>,
    pub(super) group: Group,
    pub(super) watch: Watch,
    pub(super) pid: Pid,
    pub(super) network: Network,
    /// Its network namespace, once its end can be witnessed.
    pub(super) marked: Option<Marked>,
    /// The same held open until then, where it is not to live on: telling the
    /// witness takes a tenth of a millisecond, in which nothing of what it
    /// says would be heard.
    pub(super) netns: Option<Netns>,
    pub(super) lease: Option<Lease>,
    pub(super) refill: Option<u64>,
    /// What its own process stamps.
    pub(super) stamps: Option<Rc<Stamps>>,
    /// Whether its first process's exit code tells the workload's.
    pub(super) tells_code: bool,
}

impl Live {
    /// Waits for the goal; an instance in trouble is told as a failure and
    /// must then be removed.
    pub(super) fn wait(
        &mut self,
        goal: Goal,
        control: BorrowedFd<'_>,
        deadline: Duration,
    ) -> Result<(), Failure> {
        let until = Deadline::after(deadline);
        let result = self.watch.until(goal, self.pidfd.as_fd(), control, until);
        if let Some(stamps) = &self.stamps {
            stamps.add_to(&mut self.watch.timeline);
        }
        result.map_err(|trouble| self.failure(self.due(), self.explain(trouble, deadline)))
    }

    /// Has the guest saved, as the conversation says; it does not go on.
    pub(super) fn save(
        &mut self,
        conversation: Conversation,
        control: BorrowedFd<'_>,
        deadline: Duration,
    ) -> Result<(), Failure> {
        let until = Deadline::after(deadline);
        let watch = &mut self.watch;
        let result = watch
            .converse(conversation)
            .and_then(|()| watch.until(Goal::Saved, self.pidfd.as_fd(), control, until));
        result.map_err(|trouble| {
            let (why, words) = (self.explain(trouble, deadline), self.watch.last_words());
            let timeline = self.watch.timeline.clone();
            Failure { due: Mark::Ready, reason: format!("snapshot: {why}{words}"), timeline }
        })
    }

    /// Why a wait ended without its goal, in words.
    fn explain(&self, trouble: Trouble, deadline: Duration) -> String {
        let is_late = matches!(trouble, Trouble::Deadline);
        let mut told = trouble.told(deadline, || self.how_it_died());
        let ended = |server: &PidFd| server.wait_ended(Some(Duration::ZERO));
        if is_late && self.server.as_ref().is_some_and(|server| matches!(ended(server), Ok(true))) {
            told.push_str("; the server of its root file system has ended");
        }
        told
    }

    /// Waits until the first process has ended and is reaped, stamps that,
    /// and gives the workload's exit code.
    pub(super) fn exited(
        &mut self,
        control: BorrowedFd<'_>,
        deadline: Duration,
    ) -> Result<Option<u8>, Failure> {
        self.wait(Goal::Exited, control, deadline)?;
        match self.pidfd.wait(Some(Duration::ZERO)) {
            Ok(Some(Ended { exit, .. })) => {
                self.server_ended()?;
                self.watch.timeline.stamp(Mark::Exited, monotonic_ns());
                Ok(self.code(exit))
            }
            Ok(None) => Err(self.failure(Mark::Exited, "it did not end".to_owned())),
            Err(error) => Err(self.failure(Mark::Exited, format!("cannot reap it: {error}"))),
        }
    }

    /// The workload's exit code. A machine that cannot tell it by its own has
    /// ended in order all the same, and then what the guest announced stands.
    fn code(&self, exit: Exit) -> Option<u8> {
        match (self.tells_code, exit) {
            (true, _) => self.kind.code(exit),
            (false, Exit::Code(0)) => self.watch.result.map(|result| result.code),
            (false, _) => None,
        }
    }

    /// Waits until the server of its root file system has ended too, which it
    /// does by itself when the monitor is gone, and reaps it.
    fn server_ended(&mut self) -> Result<(), Failure> {
        let Some(server) = &self.server else { return Ok(()) };
        let told = match server.wait(Some(REMOVAL)) {
            Ok(Some(_)) => {
                self.server = None;
                return Ok(());
            }
            Ok(None) => "does not end".to_owned(),
            Err(error) => format!("cannot be reaped: {error}"),
        };
        Err(self.failure(Mark::Exited, format!("the server of its root file system {told}")))
    }

    /// Sees to it that the end of its network namespace will be witnessed.
    /// Where that cannot be, it will have no `gone`.
    pub(super) fn mark(&mut self, witness: &mut Result<Witness, String>) {
        if let (Ok(witness), None) = (witness, self.marked)
            && self.network != Network::Host
        {
            self.marked = witness.mark(self.pid).ok().flatten();
        }
    }

    /// Removes what the ended instance had on the host, and stamps that; then
    /// waits for what the kernel removes by itself.
    pub(super) fn gone(&mut self, witness: &mut Result<Witness, String>) -> Result<(), Failure> {
        self.remove()?;
        if let (Ok(witness), Some(netns)) = (&mut *witness, self.netns.take()) {
            self.marked = witness.mark_namespace(&netns).ok();
        }
        let removed = self.watch.timeline.at(Mark::Removed).unwrap_or_default();
        match (self.network, witness, self.marked) {
            (Network::Host, ..) => self.watch.timeline.stamp(Mark::Gone, removed),
            (_, Ok(witness), Some(marked)) => match witness.wait(marked, REMOVAL) {
                Ok(()) => self.watch.timeline.stamp(Mark::Gone, monotonic_ns()),
                Err(error) => return Err(self.failure(Mark::Gone, chain(&error))),
            },
            // Nobody saw it: no `gone` rather than a wrong one.
            _ => {}
        }
        Ok(())
    }

    /// What [`Self::gone`] does, for several at once. When one namespace
    /// remains, it is not known of any of them that it is gone.
    pub(super) fn all_gone(
        many: &[Self],
        witness: &mut Result<Witness, String>,
    ) -> Result<(), Failure> {
        let marked: Vec<Marked> = many.iter().filter_map(|live| live.marked).collect();
        let Some(first) = many.first() else { return Ok(()) };
        if let Ok(witness) = witness
            && !marked.is_empty()
        {
            let waited = witness.wait_all(&marked, REMOVAL_OF_MANY);
            waited.map_err(|error| first.failure(Mark::Gone, chain(&error)))?;
        }
        Ok(())
    }

    /// Removes its cgroup, unless that was done, and stamps that.
    pub(super) fn remove(&mut self) -> Result<(), Failure> {
        if self.watch.timeline.at(Mark::Removed).is_some() {
            return Ok(());
        }
        if let Err(error) = self.group.remove(REMOVAL) {
            return Err(self.failure(Mark::Removed, chain(&error)));
        }
        self.watch.timeline.stamp(Mark::Removed, monotonic_ns());
        Ok(())
    }

    /// Stamps `stop` and asks the payload to end with code 0.
    pub(super) fn ask_to_stop(&mut self) -> Result<(), Failure> {
        self.watch.timeline.stamp(Mark::Stop, monotonic_ns());
        self.ask_to_end(0)
    }

    /// Asks the payload to end with this code.
    pub(super) fn ask_to_end(&mut self, code: u8) -> Result<(), Failure> {
        let sent = match self.watch.channel() {
            Some(mut channel) => channel.write_all(&request(STOP, &[code])),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        sent.map_err(|error| self.failure(Mark::Exited, format!("cannot ask it to stop: {error}")))
    }

    /// Kills every process of the instance and removes all of it.
    pub(super) fn destroy(&mut self) {
        // Each of these may find nothing left to do. What remains in spite
        // of them is found again by `unladen clean` by its name.
        let _ = self.pidfd.kill_and_wait();
        let _ = self.group.kill_all();
        if let Some(server) = self.server.take() {
            let _ = server.kill_and_wait();
        }
        let _ = self.group.remove(REMOVAL);
    }

    /// A failure of this instance with everything that is known about it.
    pub(super) fn failure(&self, due: Mark, reason: String) -> Failure {
        self.watch.failure(due, &reason)
    }

    /// The mark that is due next.
    fn due(&self) -> Mark {
        let missing = |mark: &&Mark| self.watch.timeline.at(**mark).is_none();
        match self.kind.marks().iter().find(missing) {
            Some(mark) => *mark,
            None if self.watch.result.is_none() => Mark::Ready,
            None => Mark::Exited,
        }
    }

    /// The end of an instance that should have lived on.
    fn how_it_died(&self) -> String {
        match self.pidfd.wait(Some(Duration::ZERO)) {
            Ok(Some(Ended { exit: Exit::Code(code), .. })) => {
                format!("its first process ended with code {code}")
            }
            Ok(Some(Ended { exit: Exit::Signal(signal), .. })) => {
                format!("its first process was killed by signal {signal}")
            }
            Ok(None) | Err(_) => "its first process ended".to_owned(),
        }
    }
}
