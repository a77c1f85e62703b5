//! What measuring itself costs: reading the clock, a message over each
//! channel, a reading of memory, and how far the null backend is from a bare
//! loop that spawns the same program.
//!
//! It gives values; what they mean for a run is for the reader to judge.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::backend::{Backend, BackendError, Until};
use crate::errors::chain;
use crate::payload::protocol::{ENV_CHANNEL, ENV_WORKLOAD};
use crate::payload::{Decoder, Event, FILE_NAME};
use crate::probe;
use crate::record::{BackendName, CellKey, Experiment, Mark, Params, Workload};
use crate::sys::clock::monotonic_ns;

/// Clock reads are timed in batches: one alone is about what a read costs.
const CLOCK_BATCH: u32 = 1000;
const CLOCK_BATCHES: usize = 100;
const PINGS: usize = 200;
const READINGS: usize = 50;
const SPAWNS: usize = 100;
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

/// Name of the cost of a spawn without launcher, cgroup and proof.
pub const BARE: &str = "bare spawn, request to ready";
/// Name of the same through the null backend.
pub const NULL: &str = "null backend, request to ready";

/// Measures every cost that these backends allow. `payload` is the program of
/// the bare loop.
pub fn cost(backends: &mut [Box<dyn Backend>], payload: &Path) -> Vec<Cost> {
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
        costs.extend(spawns(null.as_mut(), payload));
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

/// The null backend and the bare loop in turns, so that whatever the host
/// does meets both.
fn spawns(null: &mut dyn Backend, payload: &Path) -> [Cost; 2] {
    let (mut bare, mut through) = (Ok(Vec::new()), Ok(Vec::new()));
    let prepared = null.prepare(&cell(BackendName::Process, Workload::Exit));
    let prepared = prepared.map_err(|error| chain(&error));
    for _ in 0..SPAWNS {
        bare = bare.and_then(|mut values: Vec<f64>| {
            values.push(
                bare_spawn(payload).map_err(|error| format!("{}: {error}", payload.display()))?,
            );
            Ok(values)
        });
        through = through.and_then(|mut values: Vec<f64>| {
            let prepared = prepared.as_ref().map_err(Clone::clone)?;
            let instance = null.launch(prepared, Until::Gone).map_err(|error| chain(&error))?;
            let took = instance.timeline().between(Mark::Request, Mark::Ready);
            values.push(took.ok_or("no mark `ready`")? as f64);
            Ok(values)
        });
    }
    [Cost::new(BARE, bare), Cost::new(NULL, through)]
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
