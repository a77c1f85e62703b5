//! Memory: one idle instance, read by every ledger once it has settled, and
//! the processor time that it uses while nothing is asked of it.

use std::path::PathBuf;

use super::trial::Trial;
use crate::backend::{Backend, BackendError, Instance, Until};
use crate::probe::{self, CpuTime, Reading, Shape};
use crate::record::{BackendName, Ledger, Metric, Part, Sample, Workload};
use crate::spec::param_value;
use crate::units::Bytes;

/// Busy processors, or why they are not known.
type Idle = Result<f64, String>;

/// Ledgers of a single instance; the host's own ledger is too noisy for one
/// and belongs to the ladder.
const LEDGERS: [Ledger; 5] = [Ledger::Pss, Ledger::Uss, Ledger::Rss, Ledger::Cgroup, Ledger::Peak];

/// Ledgers of daemons, whose control groups may be anybody's.
const DAEMONS: [Ledger; 3] = [Ledger::Pss, Ledger::Uss, Ledger::Rss];

/// Readings until an instance must have settled; then the last one counts.
const SETTLE_READINGS: u32 = 6;

/// Ledgers that show what an instance gives back.
const RETURNED: [Ledger; 4] = [Ledger::Pss, Ledger::Uss, Ledger::Rss, Ledger::Cgroup];

/// Pauses after which the first of two readings may count when an instance has
/// given memory back. A guest reports free memory two seconds after it became
/// free (`PAGE_REPORTING_DELAY` in mm/page_reporting.c).
const RETURN_PAUSES: u32 = 4;

impl Trial<'_> {
    /// Starts an instance, waits until its memory no longer moves, and reads it.
    pub(super) fn memory(&self, backend: &mut dyn Backend) -> Result<Vec<Sample>, BackendError> {
        let mut instance = self.launch(backend, Until::Ready)?;
        let mut samples = Vec::with_capacity(2 * LEDGERS.len());
        let (mut reading, mut idle) = self.at_rest(&[instance.as_ref()])?;
        if matches!(self.cell.key.workload, Workload::Churn(_)) {
            samples.extend(self.ledgers(&reading, &RETURNED, Metric::Touched));
            instance.release()?;
            if !reading.is_exact() {
                (0..RETURN_PAUSES).try_for_each(|_| self.pause())?;
            }
            (reading, idle) = self.at_rest(&[instance.as_ref()])?;
        }
        samples.extend(self.ledgers(&reading, &LEDGERS, Metric::Memory));
        samples.extend(idle.map(|idle| match idle {
            Ok(busy) => self.ok(Metric::IdleCpu, busy),
            Err(reason) => self.missing(Metric::IdleCpu, reason),
        }));
        samples.extend(self.parts(instance.as_ref()));
        if let Some(daemons) = probe::daemons(&instance.memory()) {
            samples.extend(self.ledgers(&daemons, &DAEMONS, Metric::Daemon));
        }
        // What is read must be the memory of something that lives.
        instance.ping()?;
        instance.stop()?;
        Ok(samples)
    }

    /// A reading as samples.
    fn ledgers(
        &self,
        reading: &Reading,
        ledgers: &[Ledger],
        metric: fn(Ledger) -> Metric,
    ) -> Vec<Sample> {
        let sample = |&ledger: &Ledger| match reading.get(ledger) {
            Ok(bytes) => self.ok(metric(ledger), bytes as f64),
            Err(reason) => self.missing(metric(ledger), reason),
        };
        ledgers.iter().map(sample).collect()
    }

    /// What a virtual machine's memory consists of.
    fn parts(&self, instance: &dyn Instance) -> Vec<Sample> {
        let key = &self.cell.key;
        let memory = param_value(key, "memory").and_then(|text| text.parse().ok());
        let (BackendName::Vm, Some(Bytes(memory))) = (key.backend, memory) else {
            return Vec::new();
        };
        // Whatever file its command names is part of the guest.
        let images = self.prepared.command.iter().skip(1).map(PathBuf::from).collect();
        let parts = probe::parts(&instance.memory(), &Shape { memory, images });
        let values = |part| match &parts {
            Ok(parts) => {
                let size = parts.get(&part).copied().unwrap_or_default();
                [(Ledger::Pss, Ok(size.pss)), (Ledger::Rss, Ok(size.rss))]
            }
            Err(reason) => [Ledger::Pss, Ledger::Rss].map(|ledger| (ledger, Err(reason.clone()))),
        };
        let all = Part::ALL.into_iter().flat_map(|part| {
            values(part).map(|(ledger, value)| (Metric::Part(part, ledger), value))
        });
        all.map(|(metric, value)| match value {
            Ok(bytes) => self.ok(metric, bytes as f64),
            Err(reason) => self.missing(metric, reason),
        })
        .collect()
    }

    /// The sum over instances, once two readings agree.
    pub(super) fn settled(&self, instances: &[&dyn Instance]) -> Result<Reading, BackendError> {
        self.at_rest(instances).map(|(reading, _)| reading)
    }

    /// The same with the processors that the first instance kept busy between
    /// the last two readings, when it was at rest; `None` for the mock.
    fn at_rest(
        &self,
        instances: &[&dyn Instance],
    ) -> Result<(Reading, Option<Idle>), BackendError> {
        let read =
            || Reading::sum(instances.iter().map(|instance| probe::memory(&instance.memory())));
        let mut before = read();
        if before.is_exact() {
            return Ok((before, None));
        }
        let mut idle = None;
        for _ in 0..SETTLE_READINGS {
            // Reading memory may hold the instance up; this time is without.
            let begun = cpu_time(instances);
            self.pause()?;
            idle = cpu_time(instances).zip(begun).map(|(end, begun)| busy(begun?, end?));
            let now = read();
            if now.agrees_with(&before) {
                return Ok((now, idle));
            }
            before = now;
        }
        Ok((before, idle))
    }
}

/// What the first instance has run.
fn cpu_time(instances: &[&dyn Instance]) -> Option<Result<CpuTime, String>> {
    instances.first().map(|instance| probe::cpu_time(&instance.memory()))
}

/// The processors kept busy from one moment to another.
fn busy(begun: CpuTime, end: CpuTime) -> Idle {
    end.busy_since(&begun).ok_or_else(|| "no time went by between two readings".to_owned())
}
