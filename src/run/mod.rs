//! The loop: every cell of the plan, round by round, each trial proved and
//! turned into samples at once.
//!
//! It decides nothing about order (the plan did), writes no file (a
//! [`Recorder`] does) and prints nothing (an [`Observer`] may).

mod cost;
mod crowd;
mod density;
mod flight;
mod ksm;
mod memory;
mod minimum;
mod scale;
mod settle;
mod startup;
mod trial;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use cost::{BARE, Cost, NULL, PLACED, cost};
use trial::Trial;
pub use trial::headline;

use crate::backend::{Accelerator, Backend, BackendError, LauncherError, Prepared};
use crate::errors::chain;
use crate::host::{Guard, LeftoverCounters};
use crate::plan::{Eta, Plan, PlannedCell, budget_allows};
use crate::record::{ArtefactFact, CellFact, Clock, Outcome, Sample, Version};
use crate::sys::clock::monotonic_ns;

/// Why a run ended before its plan.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Samples could not be stored.
    #[error("cannot store the samples of round {round}, {cell}")]
    Record {
        /// The round.
        round: u32,
        /// The cell.
        cell: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The launcher cannot be used any more.
    #[error("the run cannot go on")]
    Launcher(#[from] LauncherError),
}

/// Takes the samples of each trial as soon as it is over.
pub trait Recorder {
    /// Stores all samples of one trial, or none.
    ///
    /// # Errors
    /// When they could not be stored; the run then ends.
    fn record(
        &mut self,
        samples: &[Sample],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

    /// Keeps samples of a trial that is not over, in case it never will be.
    /// What cannot be kept is no reason to end the trial.
    fn keep(&mut self, _samples: &[Sample]) {}

    /// Whether everything stored so far suffices. Asked between two rounds,
    /// once all rounds are over that are run in any case.
    fn suffices(&self) -> bool {
        false
    }
}

/// Makes the backends of a run once more, with a launcher of their own: for
/// the worker of this number, in whose thread they stay. An accelerator that
/// is known need not be probed for again.
pub type Workers =
    dyn Fn(u32, Option<Accelerator>) -> Result<Vec<Box<dyn Backend>>, String> + Send + Sync;

/// Is told how the run goes.
pub trait Observer {
    /// A trial begins.
    fn started(&mut self, cell: usize, round: u32);
    /// A trial is over; `remaining` estimates the time of all trials to come.
    fn finished(&mut self, cell: usize, round: u32, samples: &[Sample], remaining: Duration);
}

/// How a run ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every trial was tried.
    Complete,
    /// A signal asked for the end.
    Interrupted,
    /// The time budget was spent at a round's end.
    Budget,
    /// What was measured after a round suffices.
    Precise,
}

/// A cell as this host can run it.
#[derive(Debug)]
enum State {
    /// It can be launched by the backend of this index.
    Ready { backend: usize, prepared: Prepared },
    /// It cannot be run here, for this reason.
    Skipped(String),
}

/// A prepared run.
pub struct Campaign {
    cells: Vec<PlannedCell>,
    backends: Vec<Box<dyn Backend>>,
    states: Vec<State>,
    guard: Guard,
    leftovers: LeftoverCounters,
    stop: Arc<AtomicBool>,
    settle: Duration,
    eta: Eta,
    workers: Option<Arc<Workers>>,
}

impl Campaign {
    /// Makes every cell ready. `stop` ends the run between two trials.
    ///
    /// # Errors
    /// When the launcher fails; a cell that cannot run is not an error.
    pub fn prepare(
        cells: Vec<PlannedCell>,
        mut backends: Vec<Box<dyn Backend>>,
        guard: Guard,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, RunError> {
        let mut states = Vec::with_capacity(cells.len());
        for cell in &cells {
            if let Some(reason) = &cell.skipped {
                states.push(State::Skipped(reason.clone()));
                continue;
            }
            if stop.load(Ordering::Relaxed) {
                states.push(State::Skipped("interrupted by a signal".to_owned()));
                continue;
            }
            states.push(prepare(cell, &mut backends)?);
        }
        let (settle, eta) = (Duration::from_secs(1), Eta::default());
        let leftovers = LeftoverCounters::new(Path::new("/"));
        let workers = None;
        Ok(Self { cells, backends, states, guard, leftovers, stop, settle, eta, workers })
    }

    /// Gives it a way to have several launchers, for many starts at once.
    #[must_use]
    pub fn with_workers(mut self, workers: Arc<Workers>) -> Self {
        self.workers = Some(workers);
        self
    }

    /// The cells that cannot run here, by index and with the reason.
    #[must_use]
    pub fn unavailable(&self) -> Vec<(usize, String)> {
        let reason = |(index, state): (usize, &State)| match state {
            State::Skipped(reason) => Some((index, reason.clone())),
            State::Ready { .. } => None,
        };
        self.states.iter().enumerate().filter_map(reason).collect()
    }

    /// What is known about each cell before the first trial.
    #[must_use]
    pub fn cells(&self) -> Vec<CellFact> {
        let fact = |(cell, state): (&PlannedCell, &State)| {
            let (outcome, detail, command, accelerator) = match state {
                State::Ready { prepared, .. } => (
                    Outcome::Ok,
                    prepared.remarks.join("; "),
                    prepared.command.clone(),
                    prepared.accelerator.map(|kind| kind.as_str().to_owned()),
                ),
                State::Skipped(reason) => (Outcome::Skipped, reason.clone(), Vec::new(), None),
            };
            let (cell, rounds) = (cell.key.clone(), cell.rounds);
            CellFact { cell, rounds, outcome, detail, command, accelerator }
        };
        self.cells.iter().zip(&self.states).map(fact).collect()
    }

    /// Versions of all backends that can run a cell.
    pub fn versions(&mut self) -> Vec<Version> {
        let mut all = Vec::new();
        for backend in self.used_backends() {
            for version in self.backends[backend].versions().unwrap_or_default() {
                if !all.contains(&version) {
                    all.push(version);
                }
            }
        }
        all
    }

    /// Files that take part.
    #[must_use]
    pub fn artefacts(&self) -> Vec<ArtefactFact> {
        self.used_backends().into_iter().flat_map(|at| self.backends[at].artefacts()).collect()
    }

    fn used_backends(&self) -> BTreeSet<usize> {
        let used = |state: &State| match state {
            State::Ready { backend, .. } => Some(*backend),
            State::Skipped(_) => None,
        };
        self.states.iter().filter_map(used).collect()
    }

    /// Runs all trials that are not in `done` (pairs of round, from 1, and
    /// cell index). Cells that cannot run get one skipped sample, in round 0.
    ///
    /// # Errors
    /// When samples cannot be stored or the launcher fails. All samples of
    /// earlier trials are stored by then.
    pub fn execute(
        &mut self,
        plan: &Plan,
        done: &BTreeSet<(u32, usize)>,
        budget: Option<Duration>,
        recorder: &mut dyn Recorder,
        observer: &mut dyn Observer,
    ) -> Result<Ending, RunError> {
        let begun = monotonic_ns();
        let mut done = done.clone();
        self.record_skipped(plan, &done, recorder)?;
        for (round, order) in (1..).zip(&plan.order) {
            if round > plan.sure_rounds() && recorder.suffices() {
                return Ok(Ending::Precise);
            }
            let ahead = order.iter().filter(|&&cell| !done.contains(&(round, cell)));
            let next = self.eta.estimate(ahead.map(|&cell| &self.cells[cell].key));
            let spent = Duration::from_nanos(monotonic_ns() - begun);
            if round > 1 && !budget_allows(budget, spent, next) {
                return Ok(Ending::Budget);
            }
            for (position, &cell) in order.iter().enumerate() {
                if done.contains(&(round, cell)) {
                    continue;
                }
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(Ending::Interrupted);
                }
                observer.started(cell, round);
                let started = monotonic_ns();
                let number = number(&plan.order, round, position);
                let Some(samples) = self.trial(cell, round, number, recorder)? else {
                    return Ok(Ending::Interrupted);
                };
                self.store(recorder, round, cell, &samples)?;
                done.insert((round, cell));
                let took = Duration::from_nanos(monotonic_ns() - started);
                self.eta.record(&self.cells[cell].key, took);
                let left = plan.remaining(&done).map(|(_, cell)| &self.cells[cell].key);
                let remaining = self.eta.estimate(left).unwrap_or_default();
                observer.finished(cell, round, &samples, remaining);
            }
        }
        Ok(Ending::Complete)
    }

    /// Runs one trial; `None` when a signal ended it.
    fn trial(
        &mut self,
        cell: usize,
        round: u32,
        number: u32,
        recorder: &mut dyn Recorder,
    ) -> Result<Option<Vec<Sample>>, RunError> {
        let (backend, prepared) = match &self.states[cell] {
            State::Ready { backend, prepared } => (backend, prepared),
            // It could be run when the run began; now it is resumed.
            State::Skipped(reason) => {
                let reason = format!("cannot run any more: {reason}");
                let at = (round, number);
                return Ok(Some(vec![self.without_value(cell, at, Outcome::Failed, &reason)]));
            }
        };
        let trial = Trial {
            cell: &self.cells[cell],
            prepared,
            clock: self.backends[*backend].clock(),
            round,
            number,
            settle: self.settle,
            guard: &self.guard,
            stop: &self.stop,
            recorder: RefCell::new(recorder),
            workers: self.workers.as_deref(),
        };
        let before = self.leftovers.read();
        let result = trial.run(self.backends[*backend].as_mut());
        // A mock leaves nothing.
        let waited = (trial.clock == Clock::Monotonic)
            .then(|| settle::wait(&self.leftovers, &before, &self.stop));
        match result {
            Ok(mut samples) => {
                samples.extend(waited.map(|waited| trial.settled_after(waited)));
                Ok(Some(samples))
            }
            Err(BackendError::Interrupted) => Ok(None),
            Err(BackendError::Unmeasured(reason)) => {
                let metric = headline(trial.cell.key.experiment);
                Ok(Some(vec![trial.missing(metric, reason)]))
            }
            Err(BackendError::Launcher(error)) => Err(error.into()),
            Err(error) => Ok(Some(vec![trial.failed(&error)])),
        }
    }

    /// One row for each cell of which the plan has no trial.
    fn record_skipped(
        &self,
        plan: &Plan,
        done: &BTreeSet<(u32, usize)>,
        recorder: &mut dyn Recorder,
    ) -> Result<(), RunError> {
        for (index, state) in self.states.iter().enumerate() {
            let planned = plan.order.iter().flatten().any(|cell| *cell == index);
            if let (State::Skipped(reason), false) = (state, planned || done.contains(&(0, index)))
            {
                let sample = self.without_value(index, (0, 0), Outcome::Skipped, reason);
                self.store(recorder, 0, index, &[sample])?;
            }
        }
        Ok(())
    }

    /// The row of a trial that could not be tried.
    fn without_value(
        &self,
        cell: usize,
        (round, trial): (u32, u32),
        outcome: Outcome,
        reason: &str,
    ) -> Sample {
        let cell = self.cells[cell].key.clone();
        Sample {
            round,
            trial,
            step: None,
            metric: headline(cell.experiment),
            cell,
            clock: Clock::None,
            value: None,
            outcome,
            detail: reason.to_owned(),
        }
    }

    fn store(
        &self,
        recorder: &mut dyn Recorder,
        round: u32,
        cell: usize,
        samples: &[Sample],
    ) -> Result<(), RunError> {
        let name = || self.cells[cell].key.to_string();
        if samples.is_empty() {
            return Ok(());
        }
        recorder.record(samples).map_err(|source| RunError::Record { round, cell: name(), source })
    }
}

/// The trial's position in the whole plan, from 1: the same whether the run
/// was interrupted or not.
fn number(order: &[Vec<usize>], round: u32, position: usize) -> u32 {
    let before = usize::try_from(round).unwrap_or(usize::MAX) - 1;
    let earlier: usize = order.iter().take(before).map(Vec::len).sum();
    u32::try_from(earlier + position + 1).unwrap_or(u32::MAX)
}

/// Finds the cell's backend and has it prepare the cell.
fn prepare(cell: &PlannedCell, backends: &mut [Box<dyn Backend>]) -> Result<State, RunError> {
    let wanted = cell.key.backend;
    let Some(index) = backends.iter().position(|backend| backend.name() == wanted) else {
        return Ok(State::Skipped(format!("backend {wanted} is not available in this run")));
    };
    let backend = &mut backends[index];
    let result = match backend.versions() {
        Ok(_) => backend.prepare(&cell.key),
        Err(error) => Err(error),
    };
    match result {
        Ok(prepared) => Ok(State::Ready { backend: index, prepared }),
        Err(BackendError::Launcher(error)) => Err(error.into()),
        Err(error) => Ok(State::Skipped(chain(&error))),
    }
}
