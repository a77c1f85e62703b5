//! Many starts at once. Each worker is a thread with a launcher of its own,
//! so that no worker waits for another's start.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::Workers;
use super::scale::ended;
use super::trial::Trial;
use crate::backend::{Accelerator, Backend, BackendError, Prepared, Until};
use crate::errors::chain;
use crate::host::Guard;
use crate::payload::expected_result;
use crate::record::{CellKey, Mark, Metric, Sample, Throughput};
use crate::sys::clock::{Deadline, monotonic_ns};

/// Workers that start and stop in a closed loop.
const FLIGHTS: [u32; 4] = [1, 2, 4, 8];
/// Workers that take turns at starts that are due at a steady rate.
const ARRIVALS: u32 = 8;
/// Shares of the best closed-loop rate at which starts are due.
const LOADS: [f64; 2] = [0.25, 0.5];
/// How long each is measured, at least.
const WINDOW: Duration = Duration::from_secs(3);
/// And at least as long as so many starts take one worker.
const LEAST_STARTS: u32 = 4;
/// But no longer than this.
const LONGEST: Duration = Duration::from_secs(30);

/// What all workers of one flight share.
struct Flight<'a> {
    key: &'a CellKey,
    accelerator: Option<Accelerator>,
    workers: &'a Workers,
    guard: &'a Guard,
    stop: &'a std::sync::atomic::AtomicBool,
    pace: Pace,
    /// Every worker is ready, or has failed.
    ready: Barrier,
    /// The next start that is due.
    next: AtomicU32,
    /// When the flight began; set by the first worker to leave the barrier.
    began: std::sync::OnceLock<u64>,
}

/// When a worker starts the next instance.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pace {
    /// As soon as its last one is gone.
    Closed,
    /// At its turn in a steady stream of so many per second.
    Open(u32),
}

/// A worker's own backends, and the cell made ready on one of them.
struct Own {
    backends: Vec<Box<dyn Backend>>,
    at: usize,
    prepared: Prepared,
}

/// What one worker did.
#[derive(Default)]
struct Log {
    /// From request, or from when it was due, to ready.
    ready: Vec<u64>,
    /// From when it was due to its request.
    late: Vec<u64>,
    stops: u32,
    /// From the beginning to its last instance's end.
    took: u64,
}

impl Trial<'_> {
    /// Starts and stops per second by several workers, and starts at a steady
    /// rate.
    pub(super) fn flights(&self) -> Result<Vec<Sample>, BackendError> {
        let Some(workers) = self.workers.filter(|_| self.is_real()) else {
            return Ok(Vec::new());
        };
        let mut samples = Vec::new();
        let mut window = WINDOW;
        let mut best: f64 = 0.0;
        for count in FLIGHTS {
            self.heed_signals()?;
            match self.flight(workers, count, Pace::Closed, window) {
                Ok(logs) => {
                    let (found, rate) = self.closed(count, &logs);
                    if count == 1 {
                        window = window_for(rate);
                    }
                    best = best.max(rate);
                    self.keep(&found);
                    samples.extend(found);
                }
                Err(reason) => {
                    let metric = Metric::Scale(Throughput::FlightStarts);
                    let mut missing = [self.missing(metric, reason)];
                    self.at_step(&mut missing, count as usize);
                    samples.extend(missing);
                    return Ok(samples);
                }
            }
        }
        for load in LOADS {
            self.heed_signals()?;
            let rate = per_second(best * load);
            let found = match self.flight(workers, ARRIVALS, Pace::Open(rate), window) {
                Ok(logs) => self.open(rate, &logs),
                Err(reason) => {
                    let metric = Metric::Scale(Throughput::OpenReady);
                    let mut missing = vec![self.missing(metric, reason)];
                    self.at_step(&mut missing, rate as usize);
                    missing
                }
            };
            self.keep(&found);
            samples.extend(found);
            if rate == 1 {
                break;
            }
        }
        Ok(samples)
    }

    /// One flight of `count` workers.
    fn flight(
        &self,
        workers: &Workers,
        count: u32,
        pace: Pace,
        window: Duration,
    ) -> Result<Vec<Log>, String> {
        let flight = Flight {
            key: &self.cell.key,
            accelerator: self.prepared.accelerator,
            workers,
            guard: self.guard,
            stop: self.stop,
            pace,
            ready: Barrier::new(count as usize),
            next: AtomicU32::new(0),
            began: std::sync::OnceLock::new(),
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..count)
                .map(|number| {
                    let flight = &flight;
                    scope.spawn(move || flight.work(number, window))
                })
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.map(|log| log.map_err(|_| "a worker panicked".to_owned())?).collect()
        })
    }

    /// Samples of a closed loop, and its starts per second.
    fn closed(&self, count: u32, logs: &[Log]) -> (Vec<Sample>, f64) {
        let rate = |done: fn(&Log) -> usize| -> f64 {
            let each = logs.iter().filter(|log| log.took > 0);
            each.map(|log| done(log) as f64 / (log.took as f64 / 1e9)).sum()
        };
        let starts = rate(|log| log.ready.len());
        let stops = rate(|log| log.stops as usize);
        let mut samples = vec![
            self.ok(Metric::Scale(Throughput::FlightStarts), starts),
            self.ok(Metric::Scale(Throughput::FlightStops), stops),
        ];
        let ready = logs.iter().flat_map(|log| &log.ready);
        samples.extend(median(ready).map(|took| self.scaled(Throughput::FlightReady, took)));
        self.at_step(&mut samples, count as usize);
        (samples, starts)
    }

    /// Samples of starts at a steady rate: every one, since what matters
    /// there is the tail.
    fn open(&self, rate: u32, logs: &[Log]) -> Vec<Sample> {
        let ready = logs.iter().flat_map(|log| &log.ready);
        let late = logs.iter().flat_map(|log| &log.late);
        let mut samples: Vec<Sample> = ready
            .map(|took| self.scaled(Throughput::OpenReady, *took))
            .chain(late.map(|took| self.scaled(Throughput::OpenLate, *took)))
            .collect();
        self.at_step(&mut samples, rate as usize);
        samples
    }
}

/// The lower median: a closed loop has no tail that means anything.
fn median<'a>(values: impl Iterator<Item = &'a u64>) -> Option<u64> {
    let mut values: Vec<u64> = values.copied().collect();
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// Long enough for some starts, where one worker makes `rate` a second.
fn window_for(rate: f64) -> Duration {
    if rate <= 0.0 {
        return LONGEST;
    }
    Duration::from_secs_f64((f64::from(LEAST_STARTS) / rate).min(LONGEST.as_secs_f64())).max(WINDOW)
}

/// A rate as a whole number, at least one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive number of starts; the cast saturates"
)]
fn per_second(rate: f64) -> u32 {
    (rate.round() as u32).max(1)
}

impl Flight<'_> {
    /// One worker from its own launcher to its last instance.
    fn work(&self, number: u32, window: Duration) -> Result<Log, String> {
        let made = self.make(number);
        self.ready.wait();
        let began = *self.began.get_or_init(monotonic_ns);
        let Own { mut backends, at, prepared } = made?;
        let mut log = Log::default();
        let until = Deadline::after(window);
        while !until.passed() && !self.stop.load(Ordering::Relaxed) {
            let due = match self.pace {
                Pace::Closed => None,
                Pace::Open(rate) => match self.turn(began, rate, window) {
                    Some(due) => Some(due),
                    None => break,
                },
            };
            self.guard.check().map_err(|limit| limit.to_string())?;
            self.once(backends[at].as_mut(), &prepared, due, &mut log)
                .map_err(|error| chain(&error))?;
            log.took = monotonic_ns() - began;
        }
        Ok(log)
    }

    fn make(&self, number: u32) -> Result<Own, String> {
        let mut backends = (self.workers)(number, self.accelerator)?;
        let at = backends.iter().position(|backend| backend.name() == self.key.backend);
        let at = at.ok_or_else(|| format!("backend {} is not there", self.key.backend))?;
        let prepared = backends[at].versions().and_then(|_| backends[at].prepare(self.key));
        Ok(Own { backends, at, prepared: prepared.map_err(|error| chain(&error))? })
    }

    /// Waits for the worker's next turn, and gives the moment it is due.
    fn turn(&self, began: u64, rate: u32, window: Duration) -> Option<u64> {
        let index = u64::from(self.next.fetch_add(1, Ordering::Relaxed));
        let offset = index * 1_000_000_000 / u64::from(rate);
        if Duration::from_nanos(offset) >= window {
            return None;
        }
        let due = began + offset;
        let now = monotonic_ns();
        if due > now {
            std::thread::sleep(Duration::from_nanos(due - now));
        }
        Some(due)
    }

    /// One start and stop.
    fn once(
        &self,
        backend: &mut dyn Backend,
        prepared: &Prepared,
        due: Option<u64>,
        log: &mut Log,
    ) -> Result<(), BackendError> {
        let instance = backend.launch(prepared, Until::Ready)?;
        if instance.result() != expected_result(self.key.workload) {
            let reason = format!("wrong proof of work: {:?}", instance.result());
            return Err(BackendError::Unavailable(reason));
        }
        let line = instance.timeline();
        let request = line.at(Mark::Request).unwrap_or_default();
        let ready = line.at(Mark::Ready).unwrap_or_default();
        log.ready.push(ready.saturating_sub(due.unwrap_or(request)));
        log.late.extend(due.map(|due| request.saturating_sub(due)));
        let line = instance.stop()?;
        log.stops += u32::from(ended(&line).is_some());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_hold_some_starts_and_end() {
        assert_eq!(window_for(500.0), WINDOW);
        assert_eq!(window_for(0.5), Duration::from_secs(8));
        assert_eq!(window_for(0.01), LONGEST);
        assert_eq!(window_for(0.0), LONGEST);
    }

    #[test]
    fn rates_are_whole_and_medians_are_of_the_middle() {
        assert_eq!((per_second(0.2), per_second(2.6), per_second(400.4)), (1, 3, 400));
        assert_eq!(median([5, 1, 9].iter()), Some(5));
        assert_eq!(median([4, 1, 9, 2].iter()), Some(2));
        assert_eq!(median([].iter()), None);
    }
}
