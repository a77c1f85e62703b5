//! Ways to isolate, behind one trait: a plain process, our own container
//! runtime, QEMU virtual machines, and a mock with exact timings.
//!
//! A backend turns a cell into a recipe; the launcher, a small process of
//! its own, carries recipes out and stamps the marks. Nothing here decides
//! what to measure.

mod assets;
mod cold;
mod container;
mod data;
mod kvm_bare;
pub mod launcher;
pub mod leftovers;
mod mock;
pub(crate) mod peers;
mod process;
mod real;
mod timeline;
mod vm;

use std::path::PathBuf;
use std::time::Duration;

pub use assets::{Assets, AssetsError};
pub use cold::make_cold;
pub use launcher::order::{Failure, Until};
pub use launcher::{Launcher, LauncherError};
pub use mock::Mock;
pub use real::{Real, RealBackends};
pub use timeline::Timeline;
pub use vm::{Accelerator, Foreground, ForegroundError, VmError, Wish, inventory};

use crate::payload::protocol::WorkResult;
use crate::record::{ArtefactFact, BackendName, CellKey, Clock, Ledger, Mark, Version};

/// Why a backend could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// This host cannot run the cell.
    #[error("{0}")]
    Unavailable(String),
    /// The instance failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The condition that a trial is about could not be brought about, so
    /// that there is nothing to measure.
    #[error("{0}")]
    Unmeasured(String),
    /// The launcher cannot be used.
    #[error(transparent)]
    Launcher(#[from] LauncherError),
    /// A signal asked the run to end.
    #[error("interrupted by a signal")]
    Interrupted,
}

/// A cell made ready: everything that does not belong into a timed window.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Number of the launcher's template.
    pub template: u32,
    /// The command or steps carried out, one a line, for the report.
    pub command: Vec<String>,
    /// What this host could not give the cell, such as a limit.
    pub remarks: Vec<String>,
    /// The accelerator of a machine.
    pub accelerator: Option<Accelerator>,
    /// How long an instance may take to its next mark.
    pub deadline: Duration,
    /// Files that must be out of the page cache before each start.
    pub cold: Vec<PathBuf>,
    /// The host's file from which all instances read what their workload reads,
    /// if it reads one: it itself, or the image of a disk or of a file system in
    /// memory that it is in. Its pages must be out of the page cache when a
    /// trial begins, so that it is an instance that reads it.
    pub shared: Option<PathBuf>,
    /// Marks that a traced cell is about, and why one of them cannot be had.
    pub traced: Vec<(Mark, Option<String>)>,
}

impl Prepared {
    /// A cell of this template with nothing special about it.
    #[must_use]
    pub fn new(template: u32, deadline: Duration) -> Self {
        Self {
            template,
            command: Vec::new(),
            remarks: Vec::new(),
            accelerator: None,
            deadline,
            cold: Vec::new(),
            shared: None,
            traced: Vec::new(),
        }
    }
}

/// Where the memory of an instance can be read.
#[derive(Clone, Debug, PartialEq)]
pub enum MemorySource {
    /// From the kernel: all processes in these cgroup folders (the memory
    /// controller's first), or this one process when there are none.
    Kernel {
        /// First process of the instance.
        pid: i32,
        /// Its cgroup folders.
        cgroups: Vec<PathBuf>,
    },
    /// From the kernel: these processes, wherever they are.
    Processes {
        /// Every process that exists because of the instance.
        pids: Vec<i32>,
        /// The control groups of the memory controller that hold all of them,
        /// or why there are none.
        groups: Result<Vec<PathBuf>, String>,
        /// The daemons that the instance shares with others.
        daemons: Vec<i32>,
    },
    /// Exact values of the mock.
    Exact(Vec<(Ledger, f64)>),
}

/// A way to isolate.
pub trait Backend {
    /// Its name.
    fn name(&self) -> BackendName;

    /// The clock that its marks are stamped on.
    fn clock(&self) -> Clock {
        Clock::Monotonic
    }

    /// What runs and in which version. A backend whose version cannot be
    /// read is not measured.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] with the reason and a remedy.
    fn versions(&mut self) -> Result<Vec<Version>, BackendError>;

    /// The files that took part so far.
    fn artefacts(&self) -> Vec<ArtefactFact> {
        Vec::new()
    }

    /// Makes a cell ready.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] when this host cannot run it.
    fn prepare(&mut self, cell: &CellKey) -> Result<Prepared, BackendError>;

    /// Starts an instance and waits for `until`.
    ///
    /// # Errors
    /// [`BackendError::Failed`] when the instance failed; all of it is removed.
    fn launch(
        &mut self,
        prepared: &Prepared,
        until: Until,
    ) -> Result<Box<dyn Instance>, BackendError>;
}

/// One running (or completed) thing.
pub trait Instance {
    /// Its marks so far.
    fn timeline(&self) -> &Timeline;

    /// Its proof of work.
    fn result(&self) -> WorkResult;

    /// Where its memory can be read.
    fn memory(&self) -> MemorySource;

    /// Nanoseconds that it took to make, before the request, what the
    /// instance took from a pool.
    fn refill(&self) -> Option<u64> {
        None
    }

    /// Asks whether it lives, and waits for the answer.
    ///
    /// # Errors
    /// [`BackendError::Failed`] when it does not answer in time.
    fn ping(&mut self) -> Result<(), BackendError>;

    /// Sends an HTTP request for `/` and checks the whole answer; gives the
    /// nanoseconds from the first byte sent to the last one received.
    ///
    /// # Errors
    /// [`BackendError::Failed`] when the answer is late or wrong.
    fn http(&mut self) -> Result<u64, BackendError>;

    /// Has it give back the memory of its work.
    ///
    /// # Errors
    /// [`BackendError::Failed`] when it holds none or does not answer.
    fn release(&mut self) -> Result<(), BackendError>;

    /// Ends it and waits until it is gone; the marks from `stop` on are
    /// added to its timeline.
    ///
    /// # Errors
    /// [`BackendError::Failed`] when it had to be killed.
    fn stop(self: Box<Self>) -> Result<Timeline, BackendError>;

    /// Gives up the name under which the launcher knows it, if that is where
    /// it lives: whoever takes the name has to end it.
    fn give_up(&mut self) -> Option<String> {
        None
    }

    /// Ends it and `others`, all of one backend, and waits until all are gone.
    /// What each of them waits for, it waits for together with the others.
    ///
    /// # Errors
    /// [`BackendError::Failed`] when one had to be killed; all are gone.
    fn stop_with(self: Box<Self>, others: Vec<Box<dyn Instance>>) -> Result<(), BackendError> {
        let mut result = self.stop().map(drop);
        for other in others {
            result = result.and(other.stop().map(drop));
        }
        result
    }
}
