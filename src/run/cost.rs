//! What measuring itself costs: reading the clock, a message over each
//! channel, a reading of memory, and how far the null backend is from bare
//! loops that spawn the same program, with and without control groups.
//!
//! It gives values; what they mean for a run is for the reader to judge.

use std::ffi::CString;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sched::CloneFlags;

use crate::backend::{Backend, BackendError, Until};
use crate::container::cgroup::{Controller, Group, Hierarchy, Limits, RunTree};
use crate::errors::chain;
use crate::payload::protocol::{ENV_CHANNEL, ENV_WORKLOAD};
use crate::payload::{Decoder, Event, FILE_NAME};
use crate::probe;
use crate::record::{BackendName, CellKey, Experiment, Mark, Params, Workload};
use crate::sys::clock::monotonic_ns;
use crate::sys::fdpass::stream_pair;
use crate::sys::spawn::{self, Launch, Step};

/// Clock reads are timed in batches: one alone is about what a read costs.
const CLOCK_BATCH: u32 = 1000;
const CLOCK_BATCHES: usize = 100;
const PINGS: usize = 200;
const READINGS: usize = 50;
/// A multiple of the three ways, so that each is first equally often.
const SPAWNS: usize = 150;
/// Time that the payload of the bare loop may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// One cost: what was done, and each time that it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// What.
    pub what: String,
    /// Nanoseconds each; empty with a reason.
    pub values: Vec<f64>,
    /// Why there is no value.
    pub reason: Option<String>,
}

impl Cost {
    fn new(what: impl Into<String>, values: Result<Vec<f64>, String>) -> Self {
        let what = what.into();
        match values {
            Ok(values) => Self { what, values, reason: None },
            Err(reason) => Self { what, values: Vec::new(), reason: Some(reason) },
        }
    }
}

/// Name of the cost of a spawn without launcher and control groups.
pub const BARE: &str = "bare spawn, request to ready";
/// Name of the cost of a spawn without launcher, whose child joins control
/// groups as every instance does.
pub const PLACED: &str = "bare spawn into control groups, request to ready";
/// Name of the same through the null backend.
pub const NULL: &str = "null backend, request to ready";

/// Measures every cost that these backends allow. `payload` is the program of
/// the bare loops, `run_id` the one that the launcher was started with.
pub fn cost(backends: &mut [Box<dyn Backend>], payload: &Path, run_id: &str) -> Vec<Cost> {
    let mut costs = vec![Cost::new("clock read", Ok(clock()))];
    let mut null = None;
    // Somebody else's systems talk over the same channels.
    let own = |backend: &&mut Box<dyn Backend>| !matches!(backend.name(), BackendName::Peer(_));
    for backend in backends.iter_mut().filter(own) {
        costs.extend(live(backend.as_mut()));
        if backend.name() == BackendName::Process {
            null = Some(backend);
        }
    }
    if let Some(null) = null {
        costs.extend(spawns(null.as_mut(), payload, run_id));
    }
    costs
}

fn clock() -> Vec<f64> {
    let batch = |_| {
        let begun = monotonic_ns();
        for _ in 0..CLOCK_BATCH {
            std::hint::black_box(monotonic_ns());
        }
        (monotonic_ns() - begun) as f64 / f64::from(CLOCK_BATCH)
    };
    (0..CLOCK_BATCHES).map(batch).collect()
}

fn cell(backend: BackendName, workload: Workload) -> CellKey {
    CellKey { experiment: Experiment::Startup, backend, workload, params: Params::default() }
}

/// What an idle instance is asked over its channel, and the reading of its
/// memory.
fn live(backend: &mut dyn Backend) -> Vec<Cost> {
    let name = backend.name();
    let ping = format!("{name}: a question and its answer over the channel");
    let read = format!("{name}: one reading of memory");
    let (pings, readings) = match idle(backend) {
        Ok((pings, readings)) => (Ok(pings), Ok(readings)),
        Err(error) => (Err(chain(&error)), Err(chain(&error))),
    };
    vec![Cost::new(ping, pings), Cost::new(read, readings)]
}

fn idle(backend: &mut dyn Backend) -> Result<(Vec<f64>, Vec<f64>), BackendError> {
    let mut key = cell(backend.name(), Workload::Pause);
    if key.backend == BackendName::Vm {
        let machine = [("kernel", "tuned"), ("machine", "microvm")];
        key.params.edit().extend(machine.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    backend.versions()?;
    let prepared = backend.prepare(&key)?;
    let mut instance = backend.launch(&prepared, Until::Ready)?;
    let mut pings = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let begun = monotonic_ns();
        instance.ping()?;
        pings.push((monotonic_ns() - begun) as f64);
    }
    let source = instance.memory();
    let reading = |_| {
        let begun = monotonic_ns();
        std::hint::black_box(probe::memory(&source));
        (monotonic_ns() - begun) as f64
    };
    let readings = (0..READINGS).map(reading).collect();
    instance.stop()?;
    Ok((pings, readings))
}

/// One way to start the payload and to wait until it is ready.
type Way<'a> = Box<dyn FnMut() -> Result<f64, String> + 'a>;

/// The null backend and the two bare loops in turns, each of them first as
/// often as the others, so that whatever the host does meets all alike.
fn spawns(null: &mut dyn Backend, payload: &Path, run_id: &str) -> [Cost; 3] {
    let prepared = null.prepare(&cell(BackendName::Process, Workload::Exit));
    let prepared = prepared.map_err(|error| chain(&error));
    let mut placed = Placed::new(payload, run_id);
    let mut ways: [(&str, Way<'_>); 3] = [
        (
            BARE,
            Box::new(|| {
                bare_spawn(payload).map_err(|error| format!("{}: {error}", payload.display()))
            }),
        ),
        (PLACED, Box::new(|| placed.as_mut().map_err(|reason| reason.clone())?.spawn())),
        (
            NULL,
            Box::new(|| {
                let prepared = prepared.as_ref().map_err(Clone::clone)?;
                let instance = null.launch(prepared, Until::Gone).map_err(|error| chain(&error))?;
                let took = instance.timeline().between(Mark::Request, Mark::Ready);
                Ok(took.ok_or("no mark `ready`")? as f64)
            }),
        ),
    ];
    let mut values: [Result<Vec<f64>, String>; 3] = std::array::from_fn(|_| Ok(Vec::new()));
    for turn in 0..SPAWNS {
        for index in (0..3).map(|place| (turn + place) % 3) {
            if let Ok(list) = &mut values[index] {
                match (ways[index].1)() {
                    Ok(took) => list.push(took),
                    Err(reason) => values[index] = Err(reason),
                }
            }
        }
    }
    let mut costs = ways.iter().map(|(what, _)| *what).zip(values);
    std::array::from_fn(|_| {
        let (what, values) = costs.next().unwrap_or((NULL, Err("not measured".to_owned())));
        Cost::new(what, values)
    })
}

/// A bare loop whose children join control groups of the same depth and
/// controllers as every instance: the null backend without its launcher, its
/// messages, its session and its care for orphans.
struct Placed {
    tree: RunTree,
    command: spawn::Command,
    spawned: usize,
}

impl Placed {
    /// The groups are below the run's own folders, which the launcher removes
    /// at its end.
    fn new(payload: &Path, run_id: &str) -> Result<Self, String> {
        let tree = Hierarchy::detect(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
            .and_then(|hierarchy| hierarchy.prepare(run_id, &Controller::STANDARD))
            .map_err(|error| chain(&error))?;
        let text = |bytes: &[u8]| CString::new(bytes).map_err(|error| error.to_string());
        let command = spawn::Command::new(
            spawn::Program::Paths(vec![text(payload.as_os_str().as_bytes())?]),
            vec![text(FILE_NAME.as_bytes())?],
            vec![
                text(format!("{ENV_CHANNEL}=fd:0").as_bytes())?,
                text(format!("{ENV_WORKLOAD}={}", Workload::Exit).as_bytes())?,
            ],
            CloneFlags::empty(),
            vec![Step::JoinCgroups, Step::MapDescriptors],
        );
        Ok(Self { tree, command: command.map_err(|error| chain(&error))?, spawned: 0 })
    }

    fn spawn(&mut self) -> Result<f64, String> {
        self.spawned += 1;
        let name = format!("bare-{}", self.spawned);
        let mut group =
            self.tree.create(&name, &Limits::default()).map_err(|error| chain(&error))?;
        let took = self.spawn_in(&group);
        // One that hangs is not waited for.
        let killed = took.as_ref().err().map(|_| group.kill_all());
        let removed = group.remove(PATIENCE);
        let took = took?;
        killed.transpose().and(removed).map_err(|error| chain(&error))?;
        Ok(took)
    }

    fn spawn_in(&mut self, group: &Group) -> Result<f64, String> {
        let failed = |error: std::io::Error| error.to_string();
        let (near, far) = stream_pair().map_err(failed)?;
        let mut near = UnixStream::from(near);
        near.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let fds = [(far.as_fd(), 0)];
        let join = group.join_fds();
        let into_cgroup = group.into_cgroup();
        let launch = Launch { fds: &fds, join: &join, into_cgroup, ..Launch::default() };
        let begun = monotonic_ns();
        let child = self.command.spawn(&launch).map_err(|error| chain(&error))?;
        drop(far);
        until_ready(&mut near).map_err(failed)?;
        let took = (monotonic_ns() - begun) as f64;
        let ended = child.pidfd.wait(Some(PATIENCE)).map_err(|error| chain(&error))?;
        ended.map(|_| took).ok_or_else(|| "it did not end".to_owned())
    }
}

/// The standard library's way to start a program, from this very process, in
/// whatever cgroup it is in; the channel is the program's standard input.
fn bare_spawn(payload: &Path) -> std::io::Result<f64> {
    let (mut near, far) = UnixStream::pair()?;
    near.set_read_timeout(Some(PATIENCE))?;
    let mut command = Command::new(payload);
    command
        .arg0(FILE_NAME)
        .env_clear()
        .env(ENV_CHANNEL, "fd:0")
        .env(ENV_WORKLOAD, Workload::Exit.to_string())
        .stdin(Stdio::from(OwnedFd::from(far)));
    let begun = monotonic_ns();
    let mut child = command.spawn()?;
    // Its end of the channel, so that the program's is the only one.
    drop(command);
    let ready = until_ready(&mut near);
    let took = (monotonic_ns() - begun) as f64;
    if ready.is_err() {
        // One that hangs is not waited for.
        child.kill()?;
    }
    child.wait()?;
    ready.map(|()| took)
}

fn until_ready(channel: &mut UnixStream) -> std::io::Result<()> {
    let (mut decoder, mut buffer) = (Decoder::default(), [0; 256]);
    loop {
        let count = channel.read(&mut buffer)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if decoder.push(&buffer[..count]).contains(&Event::Ready) {
            return Ok(());
        }
    }
}
