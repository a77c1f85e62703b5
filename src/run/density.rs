//! Density: a ladder of live instances. At each step every instance answers,
//! the newest one's start is recorded, and memory is read at the same moment
//! as the count. A ladder ends at a limit that has a name.

use std::time::Duration;

use super::crowd::{Before, Crowd, Full, SLOW_IN_A_ROW, then};
use super::trial::Trial;
use crate::backend::{Backend, BackendError, Failure};
use crate::record::{Mark, Metric, Sample};

/// A ladder that is being climbed.
struct Ladder {
    before: Before,
    instances: Crowd,
    samples: Vec<Sample>,
    /// The most instances of which every one answered.
    alive: usize,
    /// The first that did not end in order.
    late: Option<Failure>,
}

impl Trial<'_> {
    /// Climbs the ladder to its cap or to the first limit that is hit.
    pub(super) fn density(&self, backend: &mut dyn Backend) -> Result<Vec<Sample>, BackendError> {
        let cap = self.cap();
        let (before, instances) = (Before::read(), Vec::new());
        let mut ladder = Ladder { before, instances, samples: Vec::new(), alive: 0, late: None };
        let mut limit = None;
        for step in steps(cap) {
            let full = match self.climb(backend, &mut ladder.instances, step)? {
                Ok(()) => self.stand(&mut ladder)?.err(),
                Err(full) => Some(full),
            };
            if let Some(full) = full {
                self.refine(&mut ladder, &full)?;
                limit = Some(full);
                break;
            }
        }
        let late = self.stop_all(ladder.instances)?;
        let mut result = self.ok(Metric::DensityInstances, ladder.alive as f64);
        result.detail = limit.map_or_else(|| format!("cap of {cap}"), |limit| limit.to_string());
        // They lived and answered; how they ended is another matter.
        if let Some(failure) = ladder.late.or(late) {
            then(&mut result.detail, &failure);
        }
        ladder.samples.push(result);
        Ok(ladder.samples)
    }

    /// Adds instances until there are `step`.
    fn climb(
        &self,
        backend: &mut dyn Backend,
        instances: &mut Crowd,
        step: usize,
    ) -> Result<Result<(), Full>, BackendError> {
        let bound = self.cell.slo_ms.map(|ms| Duration::from_millis(ms.into()));
        while instances.len() < step {
            match self.one_more(backend)? {
                Ok(instance) => instances.push(instance),
                Err(full) => return Ok(Err(full)),
            }
            if let Some(full) = bound.and_then(|bound| slow(instances, bound)) {
                return Ok(Err(full));
            }
        }
        Ok(Ok(()))
    }

    /// Has all of them answer, and reads them.
    fn stand(&self, ladder: &mut Ladder) -> Result<Result<(), Full>, BackendError> {
        if let Err(silent) = self.all_answer(&mut ladder.instances)? {
            return Ok(Err(silent));
        }
        let mut samples = self.census(&ladder.instances, &ladder.before)?;
        samples.extend(self.standing(&ladder.instances));
        self.keep(&samples);
        ladder.samples.extend(samples);
        ladder.alive = ladder.instances.len();
        Ok(Ok(()))
    }

    /// Finds the most instances that all answer, between the last step and
    /// what hit the limit.
    fn refine(&self, ladder: &mut Ladder, full: &Full) -> Result<(), BackendError> {
        let mut top = ladder.instances.len();
        if let Full::Slow { .. } = full {
            // Those that were too slow do not count.
            top = top.saturating_sub(SLOW_IN_A_ROW);
        }
        if let Full::Silent { number, .. } = full {
            // The silent one and all that came after it.
            top = top.min(number - 1);
        }
        while top > ladder.alive {
            let late = self.stop_all(ladder.instances.split_off(top))?;
            ladder.late = ladder.late.take().or(late);
            match self.stand(ladder)? {
                Ok(()) => break,
                Err(Full::Silent { number, .. }) => top = number - 1,
                Err(_) => break,
            }
        }
        Ok(())
    }
}

/// Whether the newest starts all took longer than `bound`.
fn slow(instances: &Crowd, bound: Duration) -> Option<Full> {
    let took = |index: usize| {
        let line = instances[index].timeline();
        Duration::from_nanos(line.between(Mark::Request, Mark::Ready).unwrap_or_default())
    };
    let first = instances.len().checked_sub(SLOW_IN_A_ROW)?;
    let all = (first..instances.len()).all(|index| took(index) > bound);
    all.then(|| Full::Slow { took: took(instances.len() - 1), bound })
}

/// 1, 2, 3, 4, 6, 8, 12, 16, ... and the cap itself: the powers of two and
/// what lies half-way, so that short ladders too have the five steps from
/// which a slope has an interval.
pub(super) fn steps(cap: usize) -> Vec<usize> {
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
