//! Many containers, with the runtime in this very process: start-stop cycles
//! per second with one, two and four threads, the start with many idle
//! containers running against the start with none, and the kernel memory of
//! one idle container. `cargo bench --bench scale [-- cycles|crowd|memory]`;
//! needs root.
//!
//! `UNLADEN_SCALE` is the number of idle containers (1000 and, for memory,
//! 500 unless set).

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a bench prints its figures and says what went wrong by panicking"
)]

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use unladen::backend::Assets;
use unladen::container::cgroup::{Controller, CpuQuota, Group, Hierarchy, Limits, RunTree};
use unladen::container::seccomp::{Machine, default_profile};
use unladen::container::{
    CellOptions, Container, PAYLOAD_PATH, Plan, default_cell_spec, minimal_rootfs,
};
use unladen::host::RunId;
use unladen::payload::protocol::{ENV_CHANNEL, ENV_RUN, ENV_WORKLOAD};
use unladen::probe::kernel_memory;
use unladen::sys::aside::aside;
use unladen::sys::fdpass::stream_pair;
use unladen::sys::pidfd::PidFd;

/// How long throughput is measured.
const WINDOW: Duration = Duration::from_secs(5);
/// Starts per figure of a crowd.
const STARTS: usize = 40;
const LIMIT: Duration = Duration::from_secs(60);

/// A cell's container in a tree of its own.
struct Yard {
    tree: RunTree,
    plan: Plan,
    container: Container,
    next: u32,
}

impl Yard {
    fn new(workload: &str, network: bool) -> Self {
        let id = RunId::new(std::time::SystemTime::now()).expect("random bytes").to_string();
        let hierarchy = Hierarchy::detect(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
            .expect("the cgroups of this host");
        let tree = hierarchy.prepare(&id, &Controller::STANDARD).expect("a tree");
        let assets = Assets::unpack().expect("the cache folder is writable");
        let rootfs = minimal_rootfs(&assets.cache().join("rootfs"), &assets.payload())
            .expect("a root filesystem");
        let mut spec = default_cell_spec(&CellOptions {
            rootfs: &rootfs,
            arguments: vec![PAYLOAD_PATH.to_owned()],
            limits: Limits {
                memory: Some(128 << 20),
                pids: Some(64),
                cpu_quota: Some(CpuQuota { quota_us: 100_000, period_us: 100_000 }),
                ..Limits::default()
            },
            user_namespace: false,
            network,
            seccomp: Some(
                default_profile(&oci_spec::runtime::Capabilities::new(), Machine::native())
                    .expect("a filter"),
            ),
        });
        let environment = vec![
            format!("{ENV_CHANNEL}=fd:3"),
            format!("{ENV_WORKLOAD}={workload}"),
            format!("{ENV_RUN}={id}"),
        ];
        spec.process_mut().as_mut().expect("a process").set_env(Some(environment));
        let plan = Plan::from_spec(&spec, Path::new("/")).expect("a plan");
        // The suite's launcher runs from a sealed executable and needs no
        // guard of it, which this bench would.
        let container = Container::prepare(&plan).and_then(|container| container.guarded(false));
        let container = container.expect("a container");
        Self { tree, plan, container, next: 0 }
    }

    /// Starts a container; gives it when its first byte has arrived.
    fn start(&mut self) -> (PidFd, Group, std::os::unix::net::UnixStream) {
        self.next += 1;
        let name = format!("s{}", self.next);
        let group = self.tree.create(&name, self.plan.limits()).expect("a group");
        let (near, far) = stream_pair().expect("a socket");
        let child = self.container.launch(&group, &[(far.as_fd(), 3)]).expect("a container");
        drop(far);
        let mut near = std::os::unix::net::UnixStream::from(near);
        near.read_exact(&mut [0]).expect("it says that it runs");
        (child.pidfd, group, near)
    }

    /// Starts a container that stays, as the suite's launcher does.
    fn keep(&mut self) -> (PidFd, Group, OwnedFd) {
        let (pidfd, mut group, channel) = self.start();
        group.close_entrances();
        (pidfd.aside(), group, aside(channel.into()))
    }

    /// One start and stop, to the end of its cgroups.
    fn cycle(&mut self) {
        let (pidfd, mut group, _channel) = self.start();
        pidfd.wait(Some(LIMIT)).expect("waited").expect("it ends");
        group.remove(LIMIT).expect("its cgroups are removed");
    }

    fn end(&mut self, pidfd: &PidFd, group: &mut Group) {
        pidfd.kill_and_wait().expect("killed");
        group.remove(LIMIT).expect("its cgroups are removed");
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        self.tree.remove().expect("the tree is removed");
    }
}

/// Cycles per second of some threads, each with its own containers. A start
/// waits for the kernel now and then, so more threads than processors help.
fn cycles(network: bool) {
    for workers in [1, 2, 4] {
        let begun = Instant::now();
        let threads: Vec<_> = (0..workers)
            .map(|_| {
                std::thread::spawn(move || {
                    let mut yard = Yard::new("exit", network);
                    let begun = Instant::now();
                    let mut count = 0_u32;
                    while begun.elapsed() < WINDOW {
                        yard.cycle();
                        count += 1;
                    }
                    f64::from(count) / begun.elapsed().as_secs_f64()
                })
            })
            .collect();
        let rate: f64 = threads.into_iter().map(|thread| thread.join().expect("a worker")).sum();
        let kind = if network { "6 namespaces" } else { "without a network namespace" };
        println!("cycles, {kind}, {workers} threads: {rate:.0}/s ({:.1?})", begun.elapsed());
    }
}

/// Microseconds to the first byte, sorted.
fn starts(yard: &mut Yard) -> Vec<u128> {
    let mut all: Vec<u128> = (0..STARTS)
        .map(|_| {
            let begun = Instant::now();
            let (pidfd, mut group, _channel) = yard.start();
            let took = begun.elapsed().as_micros();
            yard.end(&pidfd, &mut group);
            took
        })
        .collect();
    all.sort_unstable();
    all
}

/// The start with none and with many running, one after the other twice.
fn crowd(size: usize) {
    for _ in 0..2 {
        let mut yard = Yard::new("pause", true);
        let alone = starts(&mut yard);
        let mut idle: Vec<_> = (0..size).map(|_| yard.keep()).collect();
        let crowded = starts(&mut yard);
        for (pidfd, group, _) in &mut idle {
            yard.end(pidfd, group);
        }
        let quarter = STARTS / 4;
        let ratio = |at: usize| crowded[at] as f64 / alone[at] as f64;
        println!(
            "start, us: alone p25 {} median {}; with {size} running p25 {} median {}; ratio {:.2} {:.2}",
            alone[quarter],
            alone[STARTS / 2],
            crowded[quarter],
            crowded[STARTS / 2],
            ratio(quarter),
            ratio(STARTS / 2),
        );
    }
}

/// Kernel memory per idle container from the host's own ledger.
fn memory(size: usize) {
    for network in [true, false, true, false] {
        let mut yard = Yard::new("pause", network);
        // Caches that the first ones fill are nobody's cost in particular.
        for _ in 0..50 {
            let (pidfd, mut group, _channel) = yard.start();
            yard.end(&pidfd, &mut group);
        }
        std::thread::sleep(Duration::from_secs(2));
        let before = kernel_memory().expect("/proc/meminfo");
        let mut idle: Vec<_> = (0..size).map(|_| yard.keep()).collect();
        std::thread::sleep(Duration::from_secs(2));
        let after = kernel_memory().expect("/proc/meminfo");
        for (pidfd, group, _) in &mut idle {
            yard.end(pidfd, group);
        }
        let kib = |part: &Result<u64, String>| *part.as_ref().expect("a part") as f64 / 1024.0;
        let parts: Vec<(&str, f64)> = before
            .iter()
            .map(|(part, before)| (part.as_str(), (kib(&after[part]) - kib(before)) / size as f64))
            .collect();
        let total: f64 = parts.iter().map(|(_, kib)| kib).sum();
        let kind = if network { "with" } else { "without" };
        println!("kernel memory, {kind} network namespace: {total:.0} KiB each ({parts:.0?})");
    }
}

fn main() {
    // `cargo test --benches` only wants to see that it starts.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let wanted = |name: &str| {
        let named = |argument: &&String| !argument.starts_with("--");
        arguments.iter().filter(named).all(|argument| argument == name)
    };
    let size = std::env::var("UNLADEN_SCALE").ok().and_then(|text| text.parse().ok());
    if arguments.iter().any(|argument| argument == "--test") {
        // Only whether it works.
        crowd(20);
        return memory(20);
    }
    if wanted("cycles") {
        cycles(true);
        cycles(false);
    }
    if wanted("crowd") {
        crowd(size.unwrap_or(1000));
    }
    if wanted("memory") {
        memory(size.unwrap_or(500));
    }
}
