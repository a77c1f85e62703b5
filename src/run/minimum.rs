//! Smallest memory: with how little an instance still becomes ready, found by
//! bisection. A size that does not suffice is an answer and no failure.

use std::time::Duration;

use super::trial::Trial;
use crate::backend::{Backend, BackendError, Prepared, Until};
use crate::payload::expected_result;
use crate::record::{BackendName, Mark, Metric, Sample};
use crate::spec::param_value;
use crate::sys::clock::Deadline;
use crate::units::{Bytes, MIB};

/// Time for one trial; what was found by then counts, and the detail says so.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many times as long as with the first size an instance may take: one
/// with too little memory may hang without a word.
const SLOWER: u32 = 3;

/// Least time that an instance is given.
const LEAST: Duration = Duration::from_secs(2);

/// Between what is too little and what suffices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    too_little: u64,
    enough: u64,
    step: u64,
}

impl Bounds {
    /// The next size to try, a multiple of the step, until the bounds are
    /// neighbours.
    fn next(self) -> Option<u64> {
        let steps = (self.enough - self.too_little) / self.step;
        (steps > 1).then(|| self.too_little + steps / 2 * self.step)
    }
}

impl Trial<'_> {
    /// Bisects between nothing and the cell's own memory.
    pub(super) fn minimum(&self, backend: &mut dyn Backend) -> Result<Vec<Sample>, BackendError> {
        let key = &self.cell.key;
        let enough = param_value(key, "memory").and_then(|text| text.parse().ok());
        let Some(Bytes(enough)) = enough else {
            let reason =
                format!("backend {} has no memory of its own to make smaller", key.backend);
            return Err(BackendError::Unavailable(reason));
        };
        // A machine's memory comes in whole MiB, a cgroup's limit in pages.
        let step = if key.backend == BackendName::Container { 64 * 1024 } else { MIB };
        let mut bounds = Bounds { too_little: 0, enough, step };
        // If this fails, the trial does.
        let took = self.becomes_ready(backend, self.prepared)?;
        let patience = took.saturating_mul(SLOWER).max(LEAST);
        let begun = Deadline::after(PATIENCE);
        let mut tried = vec![format!("{} ready", size(enough))];
        while let Some(bytes) = bounds.next() {
            if begun.passed() {
                tried.push(format!("out of time after {} s", PATIENCE.as_secs()));
                break;
            }
            match self.suffices(backend, bytes, patience)? {
                Ok(()) => {
                    bounds.enough = bytes;
                    tried.push(format!("{} ready", size(bytes)));
                }
                Err(reason) => {
                    bounds.too_little = bytes;
                    tried.push(format!("{} not ({reason})", size(bytes)));
                }
            }
        }
        let mut sample = self.ok(Metric::Minimum, bounds.enough as f64);
        sample.detail = tried.join("; ");
        Ok(vec![sample])
    }

    /// Whether an instance with so much memory becomes ready, or why not.
    fn suffices(
        &self,
        backend: &mut dyn Backend,
        bytes: u64,
        patience: Duration,
    ) -> Result<Result<(), String>, BackendError> {
        let mut key = self.cell.key.clone();
        key.params.0.insert("memory".to_owned(), size(bytes));
        let prepared = backend.prepare(&key)?;
        let deadline = prepared.deadline.min(patience);
        match self.becomes_ready(backend, &Prepared { deadline, ..prepared }) {
            Ok(_) => Ok(Ok(())),
            // Its first words say where it stood, all others were the guest's.
            Err(BackendError::Failed(failure)) => {
                Ok(Err(failure.reason.split(';').next().unwrap_or_default().to_owned()))
            }
            Err(other) => Err(other),
        }
    }

    /// Starts an instance, has it prove its work, and ends it; gives the time
    /// until it was ready.
    fn becomes_ready(
        &self,
        backend: &mut dyn Backend,
        prepared: &Prepared,
    ) -> Result<Duration, BackendError> {
        self.heed_signals()?;
        let mut instance = backend.launch(prepared, Until::Ready)?;
        let expected = expected_result(self.cell.key.workload);
        if instance.result() != expected {
            let reason = format!("wrong proof of work: {:?}", instance.result());
            return Err(self.failure(instance.as_ref(), reason));
        }
        instance.ping()?;
        let took = instance.timeline().between(Mark::Request, Mark::Ready).unwrap_or_default();
        instance.stop()?;
        Ok(Duration::from_nanos(took))
    }
}

/// A size as a parameter spells it, short and exact.
fn size(bytes: u64) -> String {
    if bytes.is_multiple_of(MIB) {
        format!("{}M", bytes / MIB)
    } else {
        format!("{}K", bytes / 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All sizes that a bisection tries, and its result.
    fn bisect(enough: u64, step: u64, needed: u64) -> (Vec<u64>, u64) {
        let mut bounds = Bounds { too_little: 0, enough, step };
        let mut tried = Vec::new();
        while let Some(bytes) = bounds.next() {
            tried.push(bytes);
            if bytes >= needed {
                bounds.enough = bytes;
            } else {
                bounds.too_little = bytes;
            }
        }
        (tried, bounds.enough)
    }

    #[test]
    fn a_bisection_finds_the_smallest_step_that_suffices() {
        for needed in 1..=128 {
            let (tried, found) = bisect(128 * MIB, MIB, needed * MIB);
            assert_eq!(found, needed * MIB);
            assert!(tried.len() <= 7, "{tried:?}");
            assert!(tried.iter().all(|bytes| bytes.is_multiple_of(MIB)));
        }
        let (_, found) = bisect(128 * MIB, 64 * 1024, 300 * 1024);
        assert_eq!(found, 320 * 1024);
    }

    #[test]
    fn sizes_read_back() {
        for bytes in [64 * 1024, MIB, MIB + 64 * 1024, 128 * MIB] {
            assert_eq!(size(bytes).parse(), Ok(Bytes(bytes)));
        }
    }
}
