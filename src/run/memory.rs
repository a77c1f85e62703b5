//! Memory: one idle instance, read by every ledger once it has settled, and
//! the processor time that it uses while nothing is asked of it; then several,
//! so that what one more costs has a slope.

use std::path::PathBuf;

use super::crowd::{Before, then};
use super::trial::Trial;
use crate::backend::{Backend, BackendError, Instance, Until};
use crate::probe::{self, CpuTime, Reading, Shape};
use crate::record::{BackendName, Charge, Ledger, Metric, Moment, Part, Sample, Workload};
use crate::spec::param_value;
use crate::units::Bytes;

/// Ledgers of a single instance; the host's own ledger is too noisy for one
/// and belongs to the ladder.
const LEDGERS: [Ledger; 6] =
    [Ledger::Pss, Ledger::Uss, Ledger::Rss, Ledger::Cgroup, Ledger::Peak, Ledger::Hwm];

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
        let before = Before::read();
        let mut instance = self.launch(backend, Until::Ready)?;
        let mut samples = Vec::with_capacity(2 * LEDGERS.len());
        samples.extend(self.configured());
        let mut reading = self.settled(&[instance.as_ref()])?;
        if matches!(self.cell.key.workload, Workload::Churn(_)) {
            samples.extend(self.ledgers(&reading, &RETURNED, Metric::Touched));
            samples.extend(self.guest_memory(instance.as_ref(), Moment::Worked));
            instance.release()?;
            if !reading.is_exact() {
                (0..RETURN_PAUSES).try_for_each(|_| self.pause())?;
            }
            reading = self.settled(&[instance.as_ref()])?;
        }
        samples.extend(self.ledgers(&reading, &LEDGERS, Metric::Memory));
        for kind in Charge::ALL.into_iter().filter(|_| !reading.is_exact()) {
            let bytes = reading.charge(kind).map(|bytes| bytes as f64);
            samples.push(self.value(Metric::Charge(kind), bytes));
        }
        if self.cell.key.workload == Workload::Pause && !reading.is_exact() {
            samples.push(match self.idle(instance.as_ref())? {
                Ok(busy) => self.ok(Metric::IdleCpu, busy),
                Err(reason) => self.missing(Metric::IdleCpu, reason),
            });
        }
        samples.extend(self.parts(instance.as_ref()));
        if let Some(daemons) = probe::daemons(&instance.memory()) {
            samples.extend(self.ledgers(&daemons, &DAEMONS, Metric::Daemon));
        }
        let moment = match self.cell.key.workload {
            Workload::Churn(_) => Moment::Returned,
            Workload::Touch(_) | Workload::Read(_) => Moment::Worked,
            _ => Moment::Booted,
        };
        samples.extend(self.guest_memory(instance.as_ref(), moment));
        // What is read must be the memory of something that lives.
        instance.ping()?;
        self.several(backend, instance, &before, &mut samples)?;
        Ok(samples)
    }

    /// Adds instances to the first one up to the cell's cap, reads all of them
    /// at each step, and ends them. A limit on the way is no failure.
    fn several(
        &self,
        backend: &mut dyn Backend,
        first: Box<dyn Instance>,
        before: &Before,
        samples: &mut Vec<Sample>,
    ) -> Result<(), BackendError> {
        let mut instances = vec![first];
        let mut limit = None;
        for step in memory_steps(self.cap()) {
            while limit.is_none() && instances.len() < step {
                match self.one_more(backend)? {
                    Ok(instance) => instances.push(instance),
                    Err(full) => limit = Some(full),
                }
            }
            if limit.is_none() {
                limit = self.all_answer(&mut instances)?.err();
            }
            if let Some(limit) = &limit {
                let reason = format!("ended at {} instances: {limit}", instances.len());
                let mut missing = self.missing(Metric::Memory(Ledger::Pss), reason);
                missing.step = u32::try_from(step).ok();
                samples.push(missing);
                break;
            }
            samples.extend(self.census(&instances, before)?);
        }
        match (self.stop_all(instances)?, limit, samples.last_mut()) {
            (Some(failure), None, _) => Err(failure.into()),
            (Some(failure), Some(_), Some(ended)) => {
                then(&mut ended.detail, &failure);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What the guest was given.
    fn configured(&self) -> Option<Sample> {
        let bytes = self.guest_size()?;
        Some(self.ok(Metric::Guest(Moment::Configured), bytes as f64))
    }

    /// Size of a machine's guest memory in bytes.
    fn guest_size(&self) -> Option<u64> {
        let key = &self.cell.key;
        let Bytes(bytes) = param_value(key, "memory")?.parse().ok()?;
        (key.backend == BackendName::Vm).then_some(bytes)
    }

    /// What of a machine's guest memory is resident.
    fn guest_memory(&self, instance: &dyn Instance, moment: Moment) -> Option<Sample> {
        let shape = self.shape()?;
        let rss = probe::parts(&instance.memory(), &shape);
        let rss = rss.map(|parts| parts[&Part::GuestRam].rss as f64);
        Some(self.value(Metric::Guest(moment), rss))
    }

    /// A reading as samples.
    pub(super) fn ledgers(
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

    /// What tells the mappings of a machine apart.
    fn shape(&self) -> Option<Shape> {
        let memory = self.guest_size()?;
        // Whatever file its command names is part of the guest.
        let images = self.prepared.command.iter().skip(1).map(PathBuf::from).collect();
        Some(Shape { memory, images })
    }

    /// What a virtual machine's memory consists of.
    fn parts(&self, instance: &dyn Instance) -> Vec<Sample> {
        let Some(shape) = self.shape() else { return Vec::new() };
        let parts = probe::parts(&instance.memory(), &shape);
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

    /// The processors that an instance keeps busy while nothing is asked of
    /// it, over one pause. Its memory has come to rest before, and with it what
    /// a kernel still does in the first second after its boot.
    fn idle(&self, instance: &dyn Instance) -> Result<Result<f64, String>, BackendError> {
        let read = || probe::cpu_time(&instance.memory());
        let before = read();
        self.pause()?;
        let busy = |before: CpuTime| {
            let busy = read()?.busy_since(&before);
            busy.ok_or_else(|| "no time went by between two readings".to_owned())
        };
        Ok(before.and_then(busy))
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
/// 1, 2, 4, 8, ... and the cap itself; none when there is only one.
fn memory_steps(cap: usize) -> Vec<usize> {
    if cap < 2 {
        return Vec::new();
    }
    let powers = std::iter::successors(Some(1_usize), |step| step.checked_mul(2));
    powers.take_while(|step| *step < cap).chain([cap]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_instances_are_read_at_powers_of_two() {
        assert_eq!(memory_steps(1), [0; 0]);
        assert_eq!(memory_steps(2), [1, 2]);
        assert_eq!(memory_steps(16), [1, 2, 4, 8, 16]);
        assert_eq!(memory_steps(20), [1, 2, 4, 8, 16, 20]);
    }
}
