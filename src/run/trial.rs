//! One execution of one cell.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::settle::Waited;
use super::{Recorder, Workers};
use crate::backend::{
    Backend, BackendError, Failure, Instance, Prepared, Timeline, Until, make_cold,
};
use crate::errors::chain;
use crate::host::Guard;
use crate::payload::expected_result;
use crate::plan::PlannedCell;
use crate::record::{
    Clock, Experiment, Ledger, Mark, Merging, Metric, Outcome, Sample, Throughput,
};
use crate::sys::clock::Deadline;

/// The metric that stands for an experiment when there is no value at all.
#[must_use]
pub fn headline(experiment: Experiment) -> Metric {
    match experiment {
        Experiment::Startup => Metric::Startup(Mark::Ready),
        Experiment::Memory => Metric::Memory(Ledger::Pss),
        Experiment::Density => Metric::DensityInstances,
        Experiment::Minimum => Metric::Minimum,
        Experiment::Scale => Metric::Scale(Throughput::Start),
        Experiment::Ksm => Metric::Merging(Merging::After),
    }
}

/// Everything that a trial needs to know.
pub(super) struct Trial<'a> {
    pub(super) cell: &'a PlannedCell,
    pub(super) prepared: &'a Prepared,
    pub(super) clock: Clock,
    pub(super) round: u32,
    pub(super) number: u32,
    /// Time between two readings that must agree.
    pub(super) settle: Duration,
    pub(super) guard: &'a Guard,
    pub(super) stop: &'a AtomicBool,
    /// Where the steps of a ladder are kept until the trial is over.
    pub(super) recorder: RefCell<&'a mut dyn Recorder>,
    /// Makes backends for other threads, where there may be several.
    pub(super) workers: Option<&'a Workers>,
}

impl Trial<'_> {
    /// Runs the trial. A file that its instances read from is out of the page
    /// cache before: whoever reads it first is charged for it. It is let go
    /// again behind them, since the kernel keeps a removed control group for as
    /// long as there are pages that it was charged for.
    pub(super) fn run(&self, backend: &mut dyn Backend) -> Result<Vec<Sample>, BackendError> {
        let shared = self.prepared.shared.as_slice();
        make_cold(shared)?;
        let samples = self.measure(backend);
        // Pages that stay after all are found by the next trial of this file.
        drop(make_cold(shared));
        samples
    }

    fn measure(&self, backend: &mut dyn Backend) -> Result<Vec<Sample>, BackendError> {
        match self.cell.key.experiment {
            Experiment::Startup => self.startup(backend),
            Experiment::Memory => self.memory(backend),
            Experiment::Density => self.density(backend),
            Experiment::Minimum => self.minimum(backend),
            Experiment::Scale => self.scale(backend),
            Experiment::Ksm => self.ksm(backend),
        }
    }

    /// The most instances that the cell may have alive.
    pub(super) fn cap(&self) -> usize {
        usize::try_from(self.cell.cap.unwrap_or(1)).unwrap_or(usize::MAX)
    }

    /// Whether its instances are more than numbers.
    pub(super) fn is_real(&self) -> bool {
        self.clock == Clock::Monotonic
    }

    /// Keeps what a trial that goes on has measured so far.
    pub(super) fn keep(&self, samples: &[Sample]) {
        self.recorder.borrow_mut().keep(samples);
    }

    /// Starts an instance and checks its proof of work.
    pub(super) fn launch(
        &self,
        backend: &mut dyn Backend,
        until: Until,
    ) -> Result<Box<dyn Instance>, BackendError> {
        self.heed_signals()?;
        make_cold(&self.prepared.cold)?;
        let instance = backend.launch(self.prepared, until)?;
        let expected = expected_result(self.cell.key.workload);
        if instance.result() == expected {
            return Ok(instance);
        }
        let reason =
            format!("wrong proof of work: {:?} instead of {expected:?}", instance.result());
        Err(self.failure(instance.as_ref(), reason))
    }

    /// A failure of an instance that should be ready.
    pub(super) fn failure(&self, instance: &dyn Instance, reason: String) -> BackendError {
        Failure { due: Mark::Ready, reason, timeline: instance.timeline().clone() }.into()
    }

    /// Whether a signal asked for the end.
    pub(super) fn heed_signals(&self) -> Result<(), BackendError> {
        if self.stop.load(Ordering::Relaxed) { Err(BackendError::Interrupted) } else { Ok(()) }
    }

    /// Waits between two readings; a signal ends the wait at once.
    pub(super) fn pause(&self) -> Result<(), BackendError> {
        let deadline = Deadline::after(self.settle);
        while !deadline.passed() {
            if self.stop.load(Ordering::Relaxed) {
                return Err(BackendError::Interrupted);
            }
            std::thread::sleep(deadline.left().min(Duration::from_millis(50)));
        }
        Ok(())
    }

    /// A sample with a value.
    pub(super) fn ok(&self, metric: Metric, value: f64) -> Sample {
        let clock = match metric.unit() {
            crate::units::Unit::Nanoseconds => self.clock,
            _ => Clock::None,
        };
        self.sample(metric, clock, Some(value), Outcome::Ok, String::new())
    }

    /// How long the kernel took to free what the trial left.
    pub(super) fn settled_after(&self, waited: Waited) -> Sample {
        let mut sample = self.ok(Metric::SettleWait, waited.took as f64);
        if waited.left > 0 {
            sample.detail = format!("not waited for any longer: {} groups are left", waited.left);
        }
        sample
    }

    /// A value that could not be had although the trial went well.
    pub(super) fn missing(&self, metric: Metric, reason: String) -> Sample {
        self.sample(metric, Clock::None, None, Outcome::Skipped, reason)
    }

    /// The one sample of a trial that failed.
    pub(super) fn failed(&self, error: &BackendError) -> Sample {
        let metric = match (self.cell.key.experiment, error) {
            (Experiment::Startup, BackendError::Failed(failure)) => due(failure),
            (experiment, _) => headline(experiment),
        };
        self.sample(metric, Clock::None, None, Outcome::Failed, chain(error))
    }

    fn sample(
        &self,
        metric: Metric,
        clock: Clock,
        value: Option<f64>,
        outcome: Outcome,
        detail: String,
    ) -> Sample {
        let cell = self.cell.key.clone();
        let (round, trial) = (self.round, self.number);
        Sample { round, trial, step: None, cell, metric, clock, value, outcome, detail }
    }

    /// One sample for each of `marks` that the timeline holds.
    pub(super) fn marks(
        &self,
        timeline: &Timeline,
        from: Mark,
        metric: fn(Mark) -> Metric,
        marks: &[Mark],
    ) -> Vec<Sample> {
        marks
            .iter()
            .filter_map(|&mark| Some(self.ok(metric(mark), timeline.between(from, mark)? as f64)))
            .collect()
    }
}

/// The metric that a failed start or stop was due to give next.
fn due(failure: &Failure) -> Metric {
    match failure.due {
        Mark::Request | Mark::Stop => headline(Experiment::Startup),
        mark if failure.timeline.at(Mark::Stop).is_some() => Metric::Stop(mark),
        mark => Metric::Startup(mark),
    }
}
