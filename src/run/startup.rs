//! Start-up: one instance from request to gone.

use super::trial::Trial;
use crate::backend::{Backend, BackendError, Until};
use crate::record::{Mark, Metric, Sample, Workload};

/// Marks of a start, in the order of time.
const STARTING: [Mark; 8] = [
    Mark::Cgroup,
    Mark::Cloned,
    Mark::SetUp,
    Mark::Spawned,
    Mark::VmmReady,
    Mark::Kernel,
    Mark::Init,
    Mark::Ready,
];

/// Marks of an end.
const ENDING: [Mark; 2] = [Mark::Exited, Mark::Gone];

impl Trial<'_> {
    /// Runs a workload to completion, or until it is ready and then stops it.
    pub(super) fn startup(&self, backend: &mut dyn Backend) -> Result<Vec<Sample>, BackendError> {
        if self.cell.key.workload.ends() {
            let instance = self.launch(backend, Until::Gone)?;
            let all = [STARTING.as_slice(), ENDING.as_slice()].concat();
            return Ok(self.marks(instance.timeline(), Mark::Request, Metric::Startup, &all));
        }
        let mut instance = self.launch(backend, Until::Ready)?;
        let answer = match self.cell.key.workload {
            Workload::Http => Some(instance.http()?),
            _ => None,
        };
        let timeline = instance.stop()?;
        let mut samples = self.marks(&timeline, Mark::Request, Metric::Startup, &STARTING);
        samples.extend(self.marks(&timeline, Mark::Stop, Metric::Stop, &ENDING));
        samples.extend(answer.map(|took| self.ok(Metric::HttpAnswer, took as f64)));
        Ok(samples)
    }
}
