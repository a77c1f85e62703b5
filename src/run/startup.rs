//! Start-up: one instance from request to gone.

use super::trial::Trial;
use crate::backend::{Backend, BackendError, Instance, Timeline, Until};
use crate::record::{Mark, Metric, Sample, Workload};

/// Marks of a start, in the order of time.
const STARTING: [Mark; 19] = [
    Mark::Cgroup,
    Mark::Cloned,
    Mark::SetUp,
    Mark::Spawned,
    Mark::KvmOpened,
    Mark::VmCreated,
    Mark::VmMemory,
    Mark::VcpuCreated,
    Mark::VmmReady,
    Mark::Resumed,
    Mark::Firmware,
    Mark::Decompress,
    Mark::KernelEntry,
    Mark::StartKernel,
    Mark::Kernel,
    Mark::PopulateRootfs,
    Mark::RunInit,
    Mark::Init,
    Mark::Ready,
];

/// Marks of an end.
const ENDING: [Mark; 3] = [Mark::Exited, Mark::Removed, Mark::Gone];

/// Why an instance that ended in order has no `gone`.
const UNSEEN: &str = "the destruction of its network namespace could not be witnessed: that needs \
                      root, and an instance that can be looked at before it ends";

/// Why a traced mark is missing that should be there.
const UNTRACED: &str = "the trace did not show it";

impl Trial<'_> {
    /// Runs a workload to completion, or until it is ready and then stops it.
    pub(super) fn startup(&self, backend: &mut dyn Backend) -> Result<Vec<Sample>, BackendError> {
        if self.cell.key.workload.ends() {
            let instance = self.launch(backend, Until::Gone)?;
            let all = [STARTING.as_slice(), ENDING.as_slice()].concat();
            let timeline = instance.timeline();
            let mut samples = self.marks(timeline, Mark::Request, Metric::Startup, &all);
            samples.extend(self.untraced(timeline));
            samples.extend(self.unseen(timeline, Metric::Startup(Mark::Gone)));
            samples.extend(self.refill(instance.as_ref()));
            return Ok(samples);
        }
        let mut instance = self.launch(backend, Until::Ready)?;
        let answer = match self.cell.key.workload {
            Workload::Http => Some(instance.http()?),
            _ => None,
        };
        let refill = self.refill(instance.as_ref());
        let timeline = instance.stop()?;
        let mut samples = self.marks(&timeline, Mark::Request, Metric::Startup, &STARTING);
        samples.extend(self.untraced(&timeline));
        samples.extend(self.marks(&timeline, Mark::Stop, Metric::Stop, &ENDING));
        samples.extend(self.unseen(&timeline, Metric::Stop(Mark::Gone)));
        samples.extend(refill);
        samples.extend(answer.map(|took| self.ok(Metric::HttpAnswer, took as f64)));
        Ok(samples)
    }

    /// The marks that a traced cell does not show, with the reasons.
    fn untraced(&self, timeline: &Timeline) -> Vec<Sample> {
        let missing = self.prepared.traced.iter().filter(|(mark, _)| timeline.at(*mark).is_none());
        let sample = |(mark, reason): &(Mark, Option<String>)| {
            let reason = reason.clone().unwrap_or_else(|| UNTRACED.to_owned());
            self.missing(Metric::Startup(*mark), reason)
        };
        missing.map(sample).collect()
    }

    /// The reason for a `gone` that is missing.
    fn unseen(&self, timeline: &Timeline, metric: Metric) -> Option<Sample> {
        let unseen = timeline.at(Mark::Gone).is_none() && timeline.at(Mark::Removed).is_some();
        unseen.then(|| self.missing(metric, UNSEEN.to_owned()))
    }

    /// What a place in the pool had cost.
    fn refill(&self, instance: &dyn Instance) -> Option<Sample> {
        instance.refill().map(|took| self.ok(Metric::PoolRefill, took as f64))
    }
}
