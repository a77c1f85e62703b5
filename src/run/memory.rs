//! Memory: one idle instance, read by every ledger once it has settled.

use super::trial::Trial;
use crate::backend::{Backend, BackendError, Instance, Until};
use crate::probe::{self, Reading};
use crate::record::{Ledger, Metric, Sample};

/// Ledgers of a single instance; the host's own ledger is too noisy for one
/// and belongs to the ladder.
const LEDGERS: [Ledger; 5] = [Ledger::Pss, Ledger::Uss, Ledger::Rss, Ledger::Cgroup, Ledger::Peak];

/// Readings until an instance must have settled; then the last one counts.
const SETTLE_READINGS: u32 = 6;

impl Trial<'_> {
    /// Starts an instance, waits until its memory no longer moves, and reads it.
    pub(super) fn memory(&self, backend: &mut dyn Backend) -> Result<Vec<Sample>, BackendError> {
        let mut instance = self.launch(backend, Until::Ready)?;
        let reading = self.settled(&[instance.as_ref()])?;
        // What is read must be the memory of something that lives.
        instance.ping()?;
        let mut samples = Vec::with_capacity(LEDGERS.len());
        for ledger in LEDGERS {
            samples.push(match reading.get(ledger) {
                Ok(bytes) => self.ok(Metric::Memory(ledger), bytes as f64),
                Err(reason) => self.missing(Metric::Memory(ledger), reason),
            });
        }
        instance.stop()?;
        Ok(samples)
    }

    /// The sum over instances, once two readings agree.
    pub(super) fn settled(&self, instances: &[&dyn Instance]) -> Result<Reading, BackendError> {
        let read =
            || Reading::sum(instances.iter().map(|instance| probe::memory(&instance.memory())));
        let mut before = read();
        if before.is_exact() {
            return Ok(before);
        }
        for _ in 0..SETTLE_READINGS {
            self.pause()?;
            let now = read();
            if now.agrees_with(&before) {
                return Ok(now);
            }
            before = now;
        }
        Ok(before)
    }
}
