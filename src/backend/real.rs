//! What all real backends share: launching through the launcher, and the
//! channel to a live instance.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::launcher::Launcher;
use super::launcher::order::{Answer, Failure, Launched, Order, Recipe};
use super::{
    Accelerator, Assets, Backend, BackendError, Instance, LauncherError, MemorySource, Prepared,
    Timeline, Until, container::Container, kvm_bare::KvmBare, peers::Peer, process::Process,
    vm::Vm,
};
use crate::payload::protocol::{self, HTTP_BODY, WorkResult};
use crate::payload::{Decoder, Event, request};
use crate::record::Mark;
use crate::spec::systems;
use crate::sys::clock::{Deadline, monotonic_ns};

/// Time that a live instance may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Time that each of many instances adds to what their end may take until they
/// are killed: they share the processors.
const MORE_FOR_EACH: Duration = Duration::from_millis(250);

/// Time that the end of many instances may take, with the removal of all that
/// they had.
const STOP_MANY: Duration = Duration::from_secs(120);

/// The launcher, shared by the backends of one run, and the numbers that it
/// has given out.
#[derive(Clone, Debug)]
pub struct Real {
    launcher: Rc<RefCell<Launcher>>,
    counters: Rc<RefCell<Counters>>,
    deadline: Option<Duration>,
}

#[derive(Debug, Default)]
struct Counters {
    templates: u32,
    instances: u32,
}

/// The real backends of one run.
#[derive(Debug)]
pub struct RealBackends {
    /// The null backend.
    pub process: Process,
    /// Our own container runtime.
    pub container: Container,
    /// Machines of bare KVM.
    pub kvm_bare: KvmBare,
    /// QEMU.
    pub vm: Vm,
    /// Somebody else's systems.
    pub peers: Vec<Peer>,
}

impl RealBackends {
    /// Makes the backends around one launcher. `deadline` is the time that an
    /// instance may take until it is ready, instead of its backend's own;
    /// `accelerator` is what machines get whose cells name none, instead of
    /// the best that boots.
    #[must_use]
    pub fn new(
        launcher: Launcher,
        assets: &Rc<Assets>,
        run_id: &str,
        deadline: Option<Duration>,
        accelerator: Option<Accelerator>,
    ) -> Self {
        Self::with_sockets(launcher, assets, run_id, deadline, accelerator, &BTreeMap::new())
    }

    /// The same, with daemons of the user's: the sockets of some systems, by
    /// their names.
    #[must_use]
    pub fn with_sockets(
        launcher: Launcher,
        assets: &Rc<Assets>,
        run_id: &str,
        deadline: Option<Duration>,
        accelerator: Option<Accelerator>,
        sockets: &BTreeMap<String, PathBuf>,
    ) -> Self {
        let real = Real {
            launcher: Rc::new(RefCell::new(launcher)),
            counters: Rc::new(RefCell::new(Counters::default())),
            deadline,
        };
        Self {
            process: Process::new(real.clone(), Rc::clone(assets), run_id),
            container: Container::new(real.clone(), Rc::clone(assets), run_id),
            kvm_bare: KvmBare::new(real.clone()),
            vm: Vm::new(real.clone(), Rc::clone(assets), run_id, accelerator),
            peers: systems::known()
                .all()
                .filter_map(|system| {
                    let socket = sockets.get(&system.name).cloned();
                    Peer::new(system, real.clone(), Rc::clone(assets), run_id, socket)
                })
                .collect(),
        }
    }

    /// The backends as trait objects, in the order of
    /// [`crate::record::BackendName::ALL`], then somebody else's.
    #[must_use]
    pub fn boxed(self) -> Vec<Box<dyn Backend>> {
        let mut all: Vec<Box<dyn Backend>> = vec![
            Box::new(self.process),
            Box::new(self.container),
            Box::new(self.kvm_bare),
            Box::new(self.vm),
        ];
        all.extend(self.peers.into_iter().map(|peer| Box::new(peer) as Box<dyn Backend>));
        all
    }
}

impl Real {
    /// How long an instance may take until it is ready: the user's word, or
    /// the backend's `usual` time.
    pub(super) fn deadline(&self, usual: Duration) -> Duration {
        self.deadline.unwrap_or(usual)
    }

    /// Has the launcher resolve a recipe; gives the template's number and
    /// what the host cannot give.
    pub(super) fn prepare(&self, recipe: Recipe) -> Result<(u32, Vec<String>), BackendError> {
        let patience = match &recipe {
            // A guest is started and saved, each within its deadline.
            Recipe::Restored { snapshot, .. } => Duration::from_millis(snapshot.deadline_ms) * 2,
            _ => Duration::ZERO,
        };
        self.prepare_within(recipe, patience)
    }

    /// The same for a recipe that takes up to `patience` to resolve.
    pub(super) fn prepare_within(
        &self,
        recipe: Recipe,
        patience: Duration,
    ) -> Result<(u32, Vec<String>), BackendError> {
        let template = {
            let mut counters = self.counters.borrow_mut();
            counters.templates += 1;
            counters.templates
        };
        let order = Order::Prepare { template, recipe };
        match self.order(&order, patience)?.0 {
            Answer::Prepared { remarks } => Ok((template, remarks)),
            answer => Err(unexpected(&order, &answer)),
        }
    }

    /// Has the launcher start an instance.
    pub(super) fn launch(
        &self,
        prepared: &Prepared,
        until: Until,
    ) -> Result<Box<dyn Instance>, BackendError> {
        Ok(Box::new(self.start(prepared, until, Duration::ZERO)?))
    }

    /// The same, as what it is; its removal may take `more` time than that of
    /// our own instances.
    pub(super) fn start(
        &self,
        prepared: &Prepared,
        until: Until,
        more: Duration,
    ) -> Result<RealInstance, BackendError> {
        let name = {
            let mut counters = self.counters.borrow_mut();
            counters.instances += 1;
            format!("i{}", counters.instances)
        };
        let deadline = prepared.deadline;
        let order = Order::Launch {
            template: prepared.template,
            instance: name.clone(),
            until,
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        };
        let (answer, fds) = self.order(&order, deadline + more)?;
        let Answer::Launched(launched) = answer else {
            return Err(unexpected(&order, &answer));
        };
        let channel = fds.into_iter().next().map(UnixStream::from);
        Ok(RealInstance {
            real: self.clone(),
            alive: until == Until::Ready,
            name,
            launched,
            channel,
            decoder: Decoder::default(),
            pings: 0,
            more,
        })
    }

    fn order(
        &self,
        order: &Order,
        patience: Duration,
    ) -> Result<(Answer, Vec<std::os::fd::OwnedFd>), BackendError> {
        match self.launcher.borrow_mut().order(order, patience) {
            Ok((Answer::Failed(failure), _)) => Err(failure.into()),
            Ok((Answer::Refused { reason }, _)) => Err(BackendError::Unavailable(reason)),
            Err(LauncherError::Interrupted) => Err(BackendError::Interrupted),
            other => Ok(other?),
        }
    }
}

fn unexpected(order: &Order, answer: &Answer) -> BackendError {
    BackendError::Launcher(LauncherError::Unexpected {
        order: format!("{order:?}"),
        answer: format!("{answer:?}"),
    })
}

/// An instance that the launcher holds.
pub(super) struct RealInstance {
    real: Real,
    name: String,
    alive: bool,
    launched: Launched,
    channel: Option<UnixStream>,
    decoder: Decoder,
    pings: u64,
    more: Duration,
}

impl RealInstance {
    /// The words by which its processes are known, and its cgroup folders.
    pub(super) fn places(&self) -> (Vec<String>, Vec<PathBuf>) {
        (self.launched.words.clone(), self.launched.cgroups.clone())
    }

    /// A failure of a live instance.
    fn failure(&self, reason: String) -> BackendError {
        let timeline = self.launched.timeline.clone();
        Failure { due: Mark::Stop, reason, timeline }.into()
    }

    /// Sends a request and gives the first event that comes back, with the
    /// nanoseconds it took.
    fn exchange(&mut self, kind: u8, body: &[u8]) -> Result<(Event, u64), BackendError> {
        let Some(channel) = self.channel.as_mut() else {
            return Err(self.failure("it has no channel".to_owned()));
        };
        let mut ask = || -> std::io::Result<(Event, u64)> {
            let deadline = Deadline::after(ANSWER_DEADLINE);
            let sent = monotonic_ns();
            channel.write_all(&request(kind, body))?;
            let mut buffer = [0; 4096];
            loop {
                let left = deadline.left().max(Duration::from_micros(1));
                channel.set_read_timeout(Some(left))?;
                let n = channel.read(&mut buffer)?;
                if n == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                if let Some(event) = self.decoder.push(&buffer[..n]).into_iter().next() {
                    return Ok((event, monotonic_ns() - sent));
                }
            }
        };
        let answer = ask();
        answer.map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
                self.failure(format!("no answer within {} s", ANSWER_DEADLINE.as_secs()))
            }
            std::io::ErrorKind::UnexpectedEof
            | std::io::ErrorKind::BrokenPipe
            | std::io::ErrorKind::ConnectionReset => {
                self.failure("its channel is closed: the payload died".to_owned())
            }
            _ => self.failure(format!("its channel failed: {error}")),
        })
    }
}

impl Instance for RealInstance {
    fn timeline(&self) -> &Timeline {
        &self.launched.timeline
    }

    fn result(&self) -> WorkResult {
        let (count, checksum, code) = self.launched.result;
        WorkResult { count, checksum, code }
    }

    fn memory(&self) -> MemorySource {
        let cgroups: Vec<PathBuf> = self.launched.cgroups.clone();
        MemorySource::Kernel { pid: self.launched.pid, cgroups }
    }

    fn refill(&self) -> Option<u64> {
        self.launched.refill
    }

    fn ping(&mut self) -> Result<(), BackendError> {
        self.pings += 1;
        let nonce = self.pings ^ 0x5EED_0000_0000_0000;
        match self.exchange(protocol::PING, &nonce.to_le_bytes())? {
            (Event::Pong(back), _) if back == nonce => Ok(()),
            (event, _) => Err(self.failure(format!("answered a ping with {event:?}"))),
        }
    }

    fn http(&mut self) -> Result<u64, BackendError> {
        let ask = b"GET / HTTP/1.1\r\nHost: unladen\r\n\r\n";
        let (event, took) = self.exchange(protocol::DATA, ask)?;
        let Event::Reply(bytes) = event else {
            return Err(self.failure(format!("answered a request with {event:?}")));
        };
        let text = String::from_utf8_lossy(&bytes);
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
        if text.starts_with("HTTP/1.1 200 OK\r\n") && body == Some(HTTP_BODY) {
            Ok(took)
        } else {
            Err(self.failure(format!("answered a request with {text:?}")))
        }
    }

    fn release(&mut self) -> Result<(), BackendError> {
        match self.exchange(protocol::RELEASE, &[])? {
            (Event::Reply(bytes), _) if bytes.is_empty() => Ok(()),
            (event, _) => {
                Err(self.failure(format!("gave its memory back with the answer {event:?}")))
            }
        }
    }

    fn stop(mut self: Box<Self>) -> Result<Timeline, BackendError> {
        self.alive = false;
        // An end of a connection holds the other one's network namespace.
        self.channel = None;
        let order = Order::Stop { instance: self.name.clone(), deadline_ms: 10_000 };
        let (answer, _) = self.real.order(&order, Duration::from_secs(10) + self.more)?;
        let Answer::Stopped(stopped) = answer else {
            return Err(unexpected(&order, &answer));
        };
        let mut timeline = self.launched.timeline.clone();
        stopped.timeline.marks().for_each(|(mark, at)| timeline.stamp(mark, at));
        Ok(timeline)
    }

    fn give_up(&mut self) -> Option<String> {
        self.alive.then(|| {
            self.alive = false;
            self.name.clone()
        })
    }

    fn stop_with(
        mut self: Box<Self>,
        mut others: Vec<Box<dyn Instance>>,
    ) -> Result<(), BackendError> {
        let rest = others.iter_mut().filter_map(|other| other.give_up());
        let instances: Vec<String> = self.give_up().into_iter().chain(rest).collect();
        let deadline =
            ANSWER_DEADLINE + MORE_FOR_EACH * u32::try_from(instances.len()).unwrap_or(0);
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let order = Order::StopMany { instances, deadline_ms };
        match self.real.order(&order, STOP_MANY)?.0 {
            Answer::StoppedMany { failure: None } => Ok(()),
            Answer::StoppedMany { failure: Some(failure) } => Err(failure.into()),
            answer => Err(unexpected(&order, &answer)),
        }
    }
}

impl Drop for RealInstance {
    fn drop(&mut self) {
        if self.alive {
            let order = Order::Kill { instance: self.name.clone() };
            // Nobody is left to be told; the launcher removes it in any case
            // when it ends.
            drop(self.real.order(&order, Duration::from_secs(10) + self.more));
        }
    }
}
