//! Several live instances at once: starting one more under the guard, and
//! reading all of them at one moment.

use std::collections::BTreeMap;
use std::time::Duration;

use super::trial::Trial;
use crate::backend::{Backend, BackendError, Failure, Instance, Until};
use crate::errors::chain;
use crate::host::Limit;
use crate::probe;
use crate::record::{Charge, HostCount, KernelPart, Ledger, Mark, Metric, Sample};

/// Ledgers that are read of several instances.
const LEDGERS: [Ledger; 4] = [Ledger::Pss, Ledger::Uss, Ledger::Rss, Ledger::Cgroup];

/// Several live instances, in the order of their starts.
pub(super) type Crowd = Vec<Box<dyn Instance>>;

/// Why there is not one more instance.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum Full {
    /// The guard of the host forbids it.
    #[error(transparent)]
    Guard(#[from] Limit),
    /// It could not be started: something ran out, or it failed.
    #[error("{}: {reason}", out_of(reason))]
    Start {
        /// What happened.
        reason: String,
    },
    /// Starts became too slow.
    #[error(
        "start latency: {SLOW_IN_A_ROW} starts in a row took longer than {bound:?}, the last {took:.1?}"
    )]
    Slow {
        /// How long the last one took.
        took: Duration,
        /// How long it might take.
        bound: Duration,
    },
    /// One does not answer.
    #[error("liveness: instance {number} of {of} does not answer: {reason}")]
    Silent {
        /// Which, from 1 in the order of starts.
        number: usize,
        /// How many there were.
        of: usize,
        /// What happened.
        reason: String,
    },
}

/// How many are ended at once: the kernel announces the end of so many network
/// namespaces without losing one.
const AT_ONCE: usize = 64;

/// One slow start may be the host's doing.
pub(super) const SLOW_IN_A_ROW: usize = 3;

/// What ran out, by the words of the kernel's error (errno(3)): the launcher
/// is another process and tells its errors as text.
fn out_of(reason: &str) -> &'static str {
    let words = [
        ("Too many open files", "file descriptors"),
        ("EMFILE", "file descriptors"),
        ("ENFILE", "file descriptors"),
        ("Resource temporarily unavailable", "process ids"),
        ("EAGAIN", "process ids"),
        ("No space left on device", "control groups or namespaces"),
        ("ENOSPC", "control groups or namespaces"),
        ("Cannot allocate memory", "memory"),
        ("ENOMEM", "memory"),
    ];
    words.into_iter().find(|(word, _)| reason.contains(word)).map_or("start", |(_, name)| name)
}

/// The host before the first instance: growth is counted from here.
pub(super) struct Before {
    memory: Result<u64, String>,
    kernel: Result<BTreeMap<KernelPart, Result<u64, String>>, String>,
}

impl Before {
    pub(super) fn read() -> Self {
        Self { memory: probe::host_memory(), kernel: probe::kernel_memory() }
    }
}

/// Adds to what ended a ladder that an instance then did not end in order.
pub(super) fn then(ended: &mut String, late: &Failure) {
    ended.push_str("; then ");
    ended.push_str(&late.reason);
}

impl Trial<'_> {
    /// Starts one more, unless something is full.
    ///
    /// # Errors
    ///
    /// Only what ends the run; everything else is the answer.
    pub(super) fn one_more(
        &self,
        backend: &mut dyn Backend,
    ) -> Result<Result<Box<dyn Instance>, Full>, BackendError> {
        if let Err(limit) = self.guard.check() {
            return Ok(Err(limit.into()));
        }
        match self.launch(backend, Until::Ready) {
            Ok(instance) => Ok(Ok(instance)),
            Err(error @ (BackendError::Interrupted | BackendError::Launcher(_))) => Err(error),
            Err(other) => Ok(Err(Full::Start { reason: chain(&other) })),
        }
    }

    /// Has every instance answer.
    pub(super) fn all_answer(
        &self,
        instances: &mut Crowd,
    ) -> Result<Result<(), Full>, BackendError> {
        let of = instances.len();
        for (number, instance) in (1..).zip(instances) {
            self.heed_signals()?;
            match instance.ping() {
                Ok(()) => {}
                Err(error @ (BackendError::Interrupted | BackendError::Launcher(_))) => {
                    return Err(error);
                }
                Err(other) => return Ok(Err(Full::Silent { number, of, reason: chain(&other) })),
            }
        }
        Ok(Ok(()))
    }

    /// Ends the instances, the newest first, and gives the first failure of
    /// those that did not end in order: they had to be killed, and are gone as
    /// well. At the end of a ladder that may be what it ended at; the caller
    /// has to say so in any case.
    ///
    /// # Errors
    ///
    /// Only what ends the run.
    pub(super) fn stop_all(&self, mut instances: Crowd) -> Result<Option<Failure>, BackendError> {
        let mut late = None;
        while !instances.is_empty() {
            let mut some = instances.split_off(instances.len().saturating_sub(AT_ONCE));
            let Some(first) = some.pop() else { break };
            match first.stop_with(some) {
                // The others are ended all the same.
                Err(BackendError::Failed(failure)) => late = late.or(Some(failure)),
                other => other?,
            }
        }
        Ok(late)
    }

    /// All ledgers of all instances together, at one moment.
    pub(super) fn census(
        &self,
        instances: &Crowd,
        before: &Before,
    ) -> Result<Vec<Sample>, BackendError> {
        let all: Vec<&dyn Instance> = instances.iter().map(AsRef::as_ref).collect();
        let reading = self.settled(&all)?;
        let mut samples = self.ledgers(&reading, &LEDGERS, Metric::Memory);
        if !reading.is_exact() {
            for kind in Charge::ALL {
                let bytes = reading.charge(kind).map(|bytes| bytes as f64);
                samples.push(self.value(Metric::Charge(kind), bytes));
            }
            samples.extend(self.growth(before));
            samples.extend(self.file_cached());
        }
        self.at_step(&mut samples, instances.len());
        Ok(samples)
    }

    /// What the host's page cache holds of the file that the instances read.
    fn file_cached(&self) -> Option<Sample> {
        let cached = probe::cached(self.prepared.shared.as_ref()?);
        Some(self.value(Metric::FileCached, cached.map(|bytes| bytes as f64)))
    }

    /// What the host's memory in use has grown by.
    fn growth(&self, before: &Before) -> Vec<Sample> {
        let grown = |before: &Result<u64, String>, now: Result<u64, String>| {
            Ok(now? as f64 - before.clone()? as f64)
        };
        let host = grown(&before.memory, probe::host_memory());
        let mut samples = vec![self.value(Metric::Memory(Ledger::Host), host)];
        let now = probe::kernel_memory();
        for part in KernelPart::ALL {
            let of = |all: &Result<BTreeMap<_, Result<u64, String>>, String>| {
                all.clone().and_then(|parts| parts[&part].clone())
            };
            let value = grown(&of(&before.kernel), of(&now));
            samples.push(self.value(Metric::Kernel(part), value));
        }
        samples
    }

    /// What the host has of things that may run out, and the newest's start.
    pub(super) fn standing(&self, instances: &Crowd) -> Vec<Sample> {
        let mut samples = Vec::new();
        let newest = instances.last().map(|instance| instance.timeline());
        if let Some(took) = newest.and_then(|line| line.between(Mark::Request, Mark::Ready)) {
            samples.push(self.ok(Metric::DensityStart, took as f64));
        }
        if self.is_real() {
            let counts = probe::host_counts();
            let count = |kind: HostCount| self.value(Metric::Host(kind), counts[&kind].clone());
            samples.extend(HostCount::ALL.into_iter().map(count));
        }
        self.at_step(&mut samples, instances.len());
        samples
    }

    /// A value, or the reason why there is none.
    pub(super) fn value(&self, metric: Metric, value: Result<f64, String>) -> Sample {
        match value {
            Ok(value) => self.ok(metric, value),
            Err(reason) => self.missing(metric, reason),
        }
    }

    /// Says of samples how many instances there were.
    pub(super) fn at_step(&self, samples: &mut [Sample], step: usize) {
        for sample in samples {
            sample.step = u32::try_from(step).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_out_is_named() {
        let name = |reason: &str| Full::Start { reason: reason.to_owned() }.to_string();
        for (reason, limit) in [
            ("start: pipe: Too many open files (os error 24)", "file descriptors: "),
            ("clone3: EAGAIN: Try again", "process ids: "),
            ("mkdir: No space left on device (os error 28)", "control groups or namespaces: "),
            ("mmap: Cannot allocate memory (os error 12)", "memory: "),
            ("its first process ended with code 1", "start: "),
        ] {
            let text = name(reason);
            assert!(text.starts_with(limit) && text.ends_with(reason), "{text}");
        }
        let bound = Duration::from_millis(500);
        let slow = Full::Slow { took: Duration::from_millis(812), bound }.to_string();
        assert_eq!(
            slow,
            "start latency: 3 starts in a row took longer than 500ms, the last 812.0ms"
        );
        let silent = Full::Silent { number: 3, of: 8, reason: "no answer".to_owned() };
        assert_eq!(silent.to_string(), "liveness: instance 3 of 8 does not answer: no answer");
    }
}
