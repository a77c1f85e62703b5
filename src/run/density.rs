//! Density: a ladder of live instances. At each step every instance answers,
//! the newest one's start is recorded, and memory is read at the same moment
//! as the count.

use super::trial::Trial;
use crate::backend::{Backend, BackendError, Instance, Until};
use crate::errors::chain;
use crate::probe;
use crate::record::{Ledger, Mark, Metric, Sample};

/// Ledgers that are read at each step.
const LEDGERS: [Ledger; 4] = [Ledger::Pss, Ledger::Uss, Ledger::Rss, Ledger::Cgroup];

/// What ended a ladder, and how many instances were alive and answering then.
struct End {
    alive: usize,
    limit: String,
}

impl Trial<'_> {
    /// Climbs the ladder to its cap or to the first limit that is hit.
    pub(super) fn density(&self, backend: &mut dyn Backend) -> Result<Vec<Sample>, BackendError> {
        let cap = usize::try_from(self.cell.density_cap.unwrap_or(1)).unwrap_or(usize::MAX);
        let host = probe::host_memory();
        let mut instances: Vec<Box<dyn Instance>> = Vec::new();
        let mut samples = Vec::new();
        let mut end = End { alive: 0, limit: format!("cap of {cap}") };
        for step in steps(cap) {
            match self.climb(backend, &mut instances, step) {
                Ok(()) => {}
                Err(BackendError::Interrupted) => return Err(BackendError::Interrupted),
                Err(BackendError::Launcher(error)) => return Err(error.into()),
                Err(limit) => {
                    end.limit = chain(&limit);
                    break;
                }
            }
            end.alive = step;
            samples.extend(self.step(&instances, step, &host)?);
        }
        for instance in instances.into_iter().rev() {
            match instance.stop() {
                // Where an instance was the limit, it may not stop in order.
                Err(BackendError::Failed(_)) if end.alive < cap => {}
                other => drop(other?),
            }
        }
        let mut result = self.ok(Metric::DensityInstances, end.alive as f64);
        result.detail = end.limit;
        samples.push(result);
        Ok(samples)
    }

    /// Adds instances until there are `step`, then has all of them answer.
    /// What goes wrong here is the ladder's limit.
    fn climb(
        &self,
        backend: &mut dyn Backend,
        instances: &mut Vec<Box<dyn Instance>>,
        step: usize,
    ) -> Result<(), BackendError> {
        while instances.len() < step {
            self.guard.check().map_err(|limit| BackendError::Unavailable(limit.to_string()))?;
            instances.push(self.launch(backend, Until::Ready)?);
        }
        instances.iter_mut().try_for_each(|instance| instance.ping())
    }

    /// The samples of one step.
    fn step(
        &self,
        instances: &[Box<dyn Instance>],
        step: usize,
        host_before: &Result<u64, String>,
    ) -> Result<Vec<Sample>, BackendError> {
        let all: Vec<&dyn Instance> = instances.iter().map(AsRef::as_ref).collect();
        let reading = self.settled(&all)?;
        let mut samples = Vec::new();
        for ledger in LEDGERS {
            samples.push(match reading.get(ledger) {
                Ok(bytes) => self.ok(Metric::Memory(ledger), bytes as f64),
                Err(reason) => self.missing(Metric::Memory(ledger), reason),
            });
        }
        if !reading.is_exact() {
            samples.push(match (host_before, probe::host_memory()) {
                (Ok(before), Ok(now)) => {
                    self.ok(Metric::Memory(Ledger::Host), now as f64 - *before as f64)
                }
                (Err(reason), _) => self.missing(Metric::Memory(Ledger::Host), reason.clone()),
                (_, Err(reason)) => self.missing(Metric::Memory(Ledger::Host), reason),
            });
        }
        let newest = instances.last().map(|instance| instance.timeline());
        if let Some(took) = newest.and_then(|line| line.between(Mark::Request, Mark::Ready)) {
            samples.push(self.ok(Metric::DensityStart, took as f64));
        }
        for sample in &mut samples {
            sample.step = u32::try_from(step).ok();
        }
        Ok(samples)
    }
}

/// 1, 2, 3, 4, 6, 8, 12, 16, ... and the cap itself: the powers of two and
/// what lies half-way, so that short ladders too have the five steps from
/// which a slope has an interval.
fn steps(cap: usize) -> Vec<usize> {
    let powers = std::iter::successors(Some(1_usize), |step| step.checked_mul(2));
    let mut steps: Vec<usize> = powers
        .flat_map(|power| [power, power + power / 2])
        .take_while(|step| *step < cap)
        .collect();
    steps.dedup();
    steps.push(cap);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ladder_climbs_and_ends_at_its_cap() {
        assert_eq!(steps(1), [1]);
        assert_eq!(steps(2), [1, 2]);
        assert_eq!(steps(8), [1, 2, 3, 4, 6, 8]);
        assert_eq!(steps(10), [1, 2, 3, 4, 6, 8, 10]);
        assert_eq!(steps(64), [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]);
    }
}
