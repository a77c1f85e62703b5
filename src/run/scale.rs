//! Scale: the start of the next instance beside many that are running, the
//! end of all of them, and many starts at once.

use super::crowd::{Crowd, Full};
use super::trial::Trial;
use crate::backend::{Backend, BackendError, Timeline};
use crate::record::{Mark, Metric, Sample, Throughput};
use crate::sys::clock::monotonic_ns;

/// Starts for each number of running instances.
const STARTS: usize = 10;

impl Trial<'_> {
    /// The next start beside none, 10, 100, ... running instances; then starts
    /// and stops by several workers at once, and starts at a steady rate.
    pub(super) fn scale(&self, backend: &mut dyn Backend) -> Result<Vec<Sample>, BackendError> {
        let mut samples = self.flights()?;
        let mut crowd: Crowd = Vec::new();
        let mut limited = false;
        for step in crowds(self.cap()) {
            let mut found = match self.beside(backend, &mut crowd, step)? {
                Ok(found) => found,
                Err(full) => {
                    let reason = format!("ended beside {} instances: {full}", crowd.len());
                    let mut missing = self.missing(Metric::Scale(Throughput::Start), reason);
                    missing.step = u32::try_from(step).ok();
                    samples.push(missing);
                    limited = true;
                    break;
                }
            };
            self.at_step(&mut found, step);
            self.keep(&found);
            samples.extend(found);
        }
        samples.extend(self.destroy(crowd, limited)?);
        Ok(samples)
    }

    /// Starts and stops the next instance, some times, with `step` running.
    fn beside(
        &self,
        backend: &mut dyn Backend,
        crowd: &mut Crowd,
        step: usize,
    ) -> Result<Result<Vec<Sample>, Full>, BackendError> {
        while crowd.len() < step {
            match self.one_more(backend)? {
                Ok(instance) => crowd.push(instance),
                Err(full) => return Ok(Err(full)),
            }
        }
        if let Err(silent) = self.all_answer(crowd)? {
            return Ok(Err(silent));
        }
        let mut samples = Vec::with_capacity(2 * STARTS);
        for _ in 0..STARTS {
            let next = match self.one_more(backend)? {
                Ok(next) => next,
                Err(full) => return Ok(Err(full)),
            };
            let took = next.timeline().between(Mark::Request, Mark::Ready);
            samples.extend(took.map(|took| self.scaled(Throughput::Start, took)));
            let took = ended(&next.stop()?);
            samples.extend(took.map(|took| self.scaled(Throughput::Stop, took)));
        }
        Ok(Ok(samples))
    }

    /// Ends all of a crowd and times that. One that does not end in order is a
    /// failure, unless something was at its `limit` anyway: then there is only
    /// no time.
    fn destroy(&self, crowd: Crowd, limited: bool) -> Result<Option<Sample>, BackendError> {
        let count = crowd.len();
        let begun = monotonic_ns();
        let late = self.stop_all(crowd)?;
        let took = monotonic_ns() - begun;
        let mut sample = match late {
            Some(failure) if !limited => return Err(failure.into()),
            Some(failure) => {
                let reason = format!("not all ended in order: {}", failure.reason);
                [self.missing(Metric::Scale(Throughput::Destroy), reason)]
            }
            None if count == 0 || !self.is_real() => return Ok(None),
            None => [self.scaled(Throughput::Destroy, took)],
        };
        self.at_step(&mut sample, count);
        Ok(sample.into_iter().next())
    }

    pub(super) fn scaled(&self, what: Throughput, nanoseconds: u64) -> Sample {
        self.ok(Metric::Scale(what), nanoseconds as f64)
    }
}

/// From stop to the end of everything that is known to have ended.
pub(super) fn ended(timeline: &Timeline) -> Option<u64> {
    [Mark::Gone, Mark::Removed, Mark::Exited]
        .into_iter()
        .find_map(|mark| timeline.between(Mark::Stop, mark))
}

/// 0, 10, 100, ... and the cap itself.
fn crowds(cap: usize) -> Vec<usize> {
    let powers = std::iter::successors(Some(10_usize), |step| step.checked_mul(10));
    std::iter::once(0).chain(powers.take_while(|step| *step < cap)).chain([cap]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crowds_grow_tenfold_up_to_the_cap() {
        assert_eq!(crowds(1), [0, 1]);
        assert_eq!(crowds(10), [0, 10]);
        assert_eq!(crowds(1000), [0, 10, 100, 1000]);
        assert_eq!(crowds(4000), [0, 10, 100, 1000, 4000]);
    }
}
