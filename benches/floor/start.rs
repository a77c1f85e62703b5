//! From request to the payload's first instruction, in this very process: the
//! floor, and this crate's containers.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use oci_spec::runtime::Capabilities;
use unladen::backend::Assets;
use unladen::container::cgroup::{Controller, CpuQuota, Hierarchy, Limits, RunTree};
use unladen::container::seccomp::{Machine, compile, default_profile};
use unladen::container::{
    CellOptions, Container, PAYLOAD_PATH, Plan, PrepareError, default_cell_spec, minimal_rootfs,
};
use unladen::payload::protocol::{ENV_CHANNEL, ENV_WORKLOAD, INIT};
use unladen::sys::clock::monotonic_ns;
use unladen::sys::pidfd::PidFd;

use super::Floor;

/// No container of this bench takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a container is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By hand.
    Floor,
    /// By the crate, each instance setting up everything itself.
    Direct,
    /// By the crate, with a root that was prepared once.
    Prepared,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Floor, Self::Direct, Self::Prepared];

    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor, by hand",
            Self::Direct => "unladen, direct",
            Self::Prepared => "unladen, prepared",
        }
    }
}

/// The three, ready. Its control groups are removed when it is dropped.
pub struct Starts {
    tree: RunTree,
    floor: Floor,
    direct: Container,
    prepared: Container,
    null: OwnedFd,
    number: u64,
}

impl Starts {
    /// Prepares containers of the suite's default cell.
    pub fn new(run_id: &str) -> Result<Self, String> {
        let assets = Assets::unpack().map_err(|error| chain(&error))?;
        let rootfs =
            minimal_rootfs(assets.cache(), &assets.payload()).map_err(|error| chain(&error))?;
        let hierarchy = Hierarchy::detect(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
            .map_err(|error| chain(&error))?;
        let tree =
            hierarchy.prepare(run_id, &Controller::STANDARD).map_err(|error| chain(&error))?;
        let channel = format!("{ENV_CHANNEL}=fd:3");
        let workload = format!("{ENV_WORKLOAD}=exit");
        let profile = default_profile(&Capabilities::new(), Machine::native())
            .map_err(|error| chain(&error))?;
        let filter = compile(&profile).map_err(|error| chain(&error))?.instructions;
        let options = CellOptions {
            rootfs: &rootfs,
            arguments: vec![PAYLOAD_PATH.to_owned()],
            limits: limits(),
            seccomp: Some(profile),
            user_namespace: false,
            network: true,
        };
        let mut spec = default_cell_spec(&options);
        if let Some(process) = spec.process_mut() {
            process.set_env(Some(vec![channel.clone(), workload.clone()]));
        }
        let plan = Plan::from_spec(&spec, &rootfs).map_err(|error| chain(&error))?;
        let null = File::open("/dev/null").map_err(|error| chain(&error))?;
        let environment = [channel.as_str(), workload.as_str()];
        let floor = Floor::new(&tree.folders(), &rootfs, PAYLOAD_PATH, &environment, filter);
        Ok(Self {
            floor,
            direct: exposed(Container::prepare_direct(&plan))?,
            prepared: exposed(Container::prepare(&plan))?,
            null: above_targets(null.as_fd())?,
            tree,
            number: 0,
        })
    }

    /// Starts one, and removes it. Returns the time from the request to the
    /// payload's first byte, in nanoseconds.
    pub fn start(&mut self, kind: Kind) -> Result<u64, String> {
        let (mut own, theirs) = UnixStream::pair().map_err(|error| chain(&error))?;
        let theirs = above_targets(theirs.as_fd())?;
        own.set_read_timeout(Some(PATIENCE)).map_err(|error| chain(&error))?;
        let null = self.null.as_fd();
        let fds = [null, null, null, theirs.as_fd()];
        self.number += 1;
        let request = monotonic_ns();
        if kind == Kind::Floor {
            let running = self.floor.launch(fds)?;
            let init = first_byte(&mut own);
            let ended = end(&running.process);
            self.floor.clean_up(&running);
            return ended.and(init).map(|init| init - request);
        }
        let container = if kind == Kind::Direct { &mut self.direct } else { &mut self.prepared };
        let group = self.tree.create(&format!("start-{}", self.number), container.limits());
        let mut group = group.map_err(|error| chain(&error))?;
        let numbered: [(BorrowedFd<'_>, i32); 4] = std::array::from_fn(|n| (fds[n], n as i32));
        let child = container.launch(&group, &numbered).map_err(|error| chain(&error));
        let init = child.as_ref().map(|_| first_byte(&mut own)).unwrap_or(Err(String::new()));
        let ended = child.and_then(|child| end(&child.pidfd));
        let removed = group.remove(PATIENCE).map_err(|error| chain(&error));
        ended.and(removed).and(init).map(|init| init - request)
    }
}

impl Drop for Starts {
    fn drop(&mut self) {
        if let Err(error) = self.tree.remove() {
            let _ = writeln!(std::io::stderr(), "not removed: {}", chain(&error));
        }
    }
}

/// A container as the suite's launcher prepares it, which runs from a sealed
/// executable and needs no guard of it; this bench is not sealed.
fn exposed(prepared: Result<Container, PrepareError>) -> Result<Container, String> {
    prepared.and_then(|container| container.guarded(false)).map_err(|error| chain(&error))
}

/// Limits of the cell, those that the floor has too.
fn limits() -> Limits {
    Limits {
        memory: Some(64 << 20),
        pids: Some(32),
        cpu_quota: Some(CpuQuota { quota_us: 100_000, period_us: 100_000 }),
        ..Limits::default()
    }
}

/// A copy of a descriptor with a number that is no target in the child.
fn above_targets(fd: BorrowedFd<'_>) -> Result<OwnedFd, String> {
    let copy = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(10))
        .map_err(|error| chain(&error))?;
    // SAFETY: `fcntl` has just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// When the first byte came.
fn first_byte(stream: &mut UnixStream) -> Result<u64, String> {
    let mut byte = [0];
    stream.read_exact(&mut byte).map_err(|error| format!("no mark: {error}"))?;
    let now = monotonic_ns();
    if byte[0] == INIT { Ok(now) } else { Err(format!("an unknown mark {}", byte[0])) }
}

/// Waits for the end of the payload, which must be a good one.
fn end(process: &PidFd) -> Result<(), String> {
    match process.wait(Some(PATIENCE)) {
        Ok(Some(ended)) if ended.exit.success() => Ok(()),
        Ok(Some(ended)) => Err(format!("the payload ended with {}", ended.exit)),
        Ok(None) => {
            let _ = process.kill_and_wait();
            Err(format!("the payload did not end within {PATIENCE:?}"))
        }
        Err(error) => Err(error.to_string()),
    }
}
