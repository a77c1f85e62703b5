//! What the harness asks of the launcher, and what it answers: one message
//! each way per order.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use super::super::Timeline;
use crate::record::Mark;

/// Descriptor numbers that every child finds.
pub mod fd {
    /// The channel to the harness.
    pub const CHANNEL: i32 = 3;
    /// A machine's console: the write end of a pipe.
    pub const CONSOLE: i32 = 4;
    /// A machine monitor's control socket.
    pub const QMP: i32 = 5;
    /// The saved state of a machine that goes on from a snapshot.
    pub const STATE: i32 = 6;
    /// Between a machine and the server of its root file system: the
    /// connection in the one, the listening socket in the other.
    pub const FILES: i32 = 7;
    /// Where a traced machine reports what it translates: the write end of a
    /// pipe.
    pub const TRACE: i32 = 8;
}

/// How to make the instances of one cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Recipe {
    /// A program without isolation, in a cgroup of the same depth and
    /// controllers as everything else.
    Process(Program),
    /// A container from an OCI runtime spec.
    Container {
        /// The spec; its process is started with the channel as descriptor 3.
        spec: Box<Spec>,
        /// The folder that relative paths of the spec refer to.
        bundle: PathBuf,
        /// Whether its network namespace has an interface on the run's bridge.
        bridge: bool,
        /// Whether network namespace and cgroup are made before the request.
        pooled: bool,
    },
    /// A virtual machine monitor.
    Machine(Monitor),
    /// A guest of a few instructions in a machine of bare KVM, made by a copy
    /// of the launcher.
    Bare {
        /// The guest: an ELF file for x86-64.
        image: Vec<u8>,
        /// Bytes of memory that the machine gets.
        memory: NonZeroUsize,
    },
    /// Somebody else's system.
    Peer(Box<PeerRecipe>),
    /// The same, whose guest goes on from a snapshot.
    Restored {
        /// What waits for the saved state.
        program: Program,
        /// What is started cold, once, and then saved.
        source: Program,
        /// What is saved where.
        snapshot: Snapshot,
        /// As in [`Monitor`], of both.
        tells_code: bool,
    },
}

/// How the payload of somebody else's system reaches the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerChannel {
    /// A socket that it inherits under this number.
    Inherited(i32),
    /// A socket that it connects to.
    Connected,
    /// A socket that is its command's standard input and output.
    Streams,
}

/// How to start, stop and remove the instances of somebody else's system. In
/// all words and files `{id}`, `{files}`, `{socket}` and `{cgroup}` stand for
/// what differs between instances.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeerRecipe {
    /// Folder of the run's instances. The launcher makes it, and removes it
    /// at its end.
    pub folder: PathBuf,
    /// Another one with a short name, for sockets.
    pub brief: PathBuf,
    /// Folder of the system's own files in this run, below that.
    pub state: PathBuf,
    /// How its payload is heard.
    pub channel: PeerChannel,
    /// The command of an instance.
    pub start: Vec<String>,
    /// Whether the command leaves the instance behind when it ends.
    pub detached: bool,
    /// Commands that remove an instance.
    pub delete: Vec<Vec<String>>,
    /// Commands that are carried out once, before the first instance.
    pub load: Vec<Vec<String>>,
    /// Commands that undo them at the end of the run.
    pub unload: Vec<Vec<String>>,
    /// The whole environment of all these commands, as `NAME=value`.
    pub env: Vec<String>,
    /// Files of each instance: names and texts.
    pub files: Vec<(String, String)>,
    /// Folders that the system leaves behind at the end of the run.
    pub leaves: Vec<PathBuf>,
    /// The system-call filter, and the descriptor on which it is read.
    pub filter: Option<(PathBuf, i32)>,
    /// Whether commands must not see a version 2 tree beside version 1
    /// cgroups.
    pub hide_unified: bool,
    /// Whether instances have a network namespace of their own.
    pub network: bool,
}

/// A virtual machine monitor with all that belongs to its instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Monitor {
    /// The monitor itself.
    pub program: Program,
    /// What serves the guest's root file system, as a second process of the
    /// instance.
    pub server: Option<Program>,
    /// Whether its own exit code tells the workload's; else only the guest
    /// does.
    pub tells_code: bool,
    /// Marks that a traced guest shows, and how; empty without a trace.
    pub probes: Vec<(Mark, Probe)>,
}

/// How it is seen that a guest has come to a mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// The monitor translates the instruction at this address of the guest
    /// for the first time.
    Address(u64),
    /// The guest's console says this.
    Words(String),
}

/// The files of a machine's snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Folder of all snapshots of the run. The launcher makes it, and
    /// removes it at its end.
    pub folder: PathBuf,
    /// Which of them, unique in the run.
    pub name: String,
    /// Whether the guest's memory is a file that machines map; else it is
    /// part of the state, and each reads its own copy.
    pub mapped: bool,
    /// Whether this QEMU can save to and load from a file by its name.
    pub files: bool,
    /// The code with which a guest is told to end after its first answer,
    /// for a workload that runs to completion.
    pub ends: Option<u8>,
    /// Milliseconds until the cold guest must be ready, and then saved.
    pub deadline_ms: u64,
}

impl Snapshot {
    /// The file with the guest's memory, for a mapped one.
    #[must_use]
    pub fn memory_file(&self) -> PathBuf {
        self.folder.join(format!("{}.memory", self.name))
    }

    /// The file with the state of its devices.
    #[must_use]
    pub fn state_file(&self) -> PathBuf {
        self.folder.join(format!("{}.state", self.name))
    }
}

/// A program to execute on the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Program {
    /// The executable file.
    pub path: PathBuf,
    /// Its arguments, the first one being its own name.
    pub argv: Vec<String>,
    /// Its whole environment as `NAME=value`.
    pub env: Vec<String>,
    /// Whether it may have transparent huge pages, where the host gives them.
    pub huge_pages: bool,
}

/// Up to which mark a launch runs before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Until {
    /// The workload is ready and has proved its work; the instance lives on.
    Ready,
    /// The workload ran to completion and everything of it is removed.
    Gone,
}

/// An order from the harness.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Resolve a recipe into a template, outside any timed window.
    Prepare {
        /// Number by which launches name it.
        template: u32,
        /// The recipe.
        recipe: Recipe,
    },
    /// Start an instance.
    Launch {
        /// Which template.
        template: u32,
        /// Name of the instance, unique in the run.
        instance: String,
        /// When to answer.
        until: Until,
        /// Milliseconds after which the instance is killed.
        deadline_ms: u64,
    },
    /// Ask an instance to end over its channel, and wait until it is gone.
    Stop {
        /// Which instance.
        instance: String,
        /// Milliseconds after which it is killed.
        deadline_ms: u64,
    },
    /// Ask several instances to end, and wait until all of them are gone.
    StopMany {
        /// Which instances.
        instances: Vec<String>,
        /// Milliseconds after which each is killed.
        deadline_ms: u64,
    },
    /// Kill an instance and remove all of it.
    Kill {
        /// Which instance.
        instance: String,
    },
}

/// The launcher's answer to an order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The template exists.
    Prepared {
        /// What this host cannot give its instances, such as a limit.
        remarks: Vec<String>,
    },
    /// The instance reached the mark; its channel comes with the message
    /// when it lives on.
    Launched(Launched),
    /// The instance is gone.
    Stopped(Stopped),
    /// The instances are gone.
    StoppedMany {
        /// What the first of them did that did not end in order.
        failure: Option<Failure>,
    },
    /// The instance failed, and everything of it is removed.
    Failed(Failure),
    /// The order could not be tried.
    Refused {
        /// Why.
        reason: String,
    },
}

/// A successful launch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launched {
    /// Its marks so far.
    pub timeline: Timeline,
    /// Its proof of work: count, checksum and exit code.
    pub result: (u64, u64, u8),
    /// Process id of its first process on the host.
    pub pid: i32,
    /// Its cgroup folders, the memory controller's first.
    pub cgroups: Vec<PathBuf>,
    /// Exit code of its workload, when it ran to completion.
    pub exit: Option<u8>,
    /// Nanoseconds that it took to make what it took from the pool.
    pub refill: Option<u64>,
    /// Words in the command lines of processes that belong to it, for
    /// somebody else's system.
    #[serde(default)]
    pub words: Vec<String>,
}

/// A successful stop.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stopped {
    /// The marks from `stop` to `gone`.
    pub timeline: Timeline,
    /// Exit code of its workload.
    pub exit: Option<u8>,
}

/// An instance that did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    /// The mark that was due next.
    pub due: Mark,
    /// What happened instead, with the last lines of its console.
    pub reason: String,
    /// The marks that it did reach.
    pub timeline: Timeline,
}
