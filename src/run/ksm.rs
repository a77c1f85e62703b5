//! Merging of equal pages: what several machines cost before and after the
//! kernel has merged what they have in common. It changes settings of the
//! host for its time, so no profile has it.

use std::path::Path;
use std::time::Duration;

use super::crowd::{Before, Crowd, then};
use super::trial::Trial;
use crate::backend::{Backend, BackendError};
use crate::errors::chain;
use crate::host::{Merged, Merging, Settings};
use crate::record::{Ledger, Merging as What, Metric, Sample};
use crate::sys::clock::{Deadline, monotonic_ns};

/// The longest that the kernel is given.
const LONGEST: Duration = Duration::from_secs(120);
/// A page has to be seen unchanged twice before it is merged.
const SCANS: u64 = 3;
/// Merging is over when a second adds less than this share.
const STILL: f64 = 0.01;

impl Trial<'_> {
    /// Starts as many as the cell's cap, reads them, merges, reads again.
    pub(super) fn ksm(&self, backend: &mut dyn Backend) -> Result<Vec<Sample>, BackendError> {
        let before = Before::read();
        let mut crowd: Crowd = Vec::new();
        let mut limit = None;
        while crowd.len() < self.cap() && limit.is_none() {
            match self.one_more(backend)? {
                Ok(instance) => crowd.push(instance),
                Err(full) => limit = Some(full),
            }
        }
        let result = match limit {
            None => self.merge(&mut crowd, &before),
            Some(full) => Err(BackendError::Unmeasured(format!(
                "only {} of {} could be started: {full}",
                crowd.len(),
                self.cap()
            ))),
        };
        match (result, self.stop_all(crowd)?) {
            (Ok(_), Some(failure)) => Err(failure.into()),
            (Err(BackendError::Unmeasured(mut reason)), Some(failure)) => {
                then(&mut reason, &failure);
                Err(BackendError::Unmeasured(reason))
            }
            (result, _) => result,
        }
    }

    fn merge(&self, crowd: &mut Crowd, before: &Before) -> Result<Vec<Sample>, BackendError> {
        let unmeasured = |reason: String| BackendError::Unmeasured(reason);
        let first = self.pss(crowd, before)?;
        let settings = Settings::of_host().map_err(|error| unmeasured(chain(&error)))?;
        let begun = monotonic_ns();
        let merging = Merging::begin(settings, Path::new("/"));
        let merging = merging.map_err(|error| unmeasured(chain(&error)))?;
        let start = merging.merged().map_err(unmeasured)?;
        let (end, complete) = self.wait(&merging, start)?;
        let took = monotonic_ns() - begun;
        // Before the settings are back: so nothing moves meanwhile.
        if let Err(silent) = self.all_answer(crowd)? {
            return Err(unmeasured(silent.to_string()));
        }
        let last = self.pss(crowd, before)?;
        merging.end().map_err(|error| unmeasured(chain(&error)))?;
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
        let page = page.ok().flatten().unwrap_or(4096) as f64;
        let saved = end.sharing as f64 - start.sharing as f64;
        let mut took = self.ok(Metric::Merging(What::Took), took as f64);
        if !complete {
            took.detail = format!("not waited for any longer than {} s", LONGEST.as_secs());
        }
        let mut samples = vec![
            self.value(Metric::Merging(What::Before), first),
            self.value(Metric::Merging(What::After), last),
            self.ok(Metric::Merging(What::Saved), saved * page),
            took,
        ];
        let count = crowd.len();
        samples[0].detail = format!("{count} instances");
        Ok(samples)
    }

    /// Waits until merging finds nothing more; whether it came to that.
    fn wait(&self, merging: &Merging, start: Merged) -> Result<(Merged, bool), BackendError> {
        let deadline = Deadline::after(LONGEST);
        let read = || merging.merged().map_err(BackendError::Unmeasured);
        let mut last = start;
        loop {
            self.pause()?;
            let now = read()?;
            let added = now.sharing.abs_diff(last.sharing) as f64;
            let still = added <= STILL * now.sharing as f64;
            if now.full_scans >= start.full_scans + SCANS && still {
                return Ok((now, true));
            }
            if deadline.passed() {
                return Ok((now, false));
            }
            last = now;
        }
    }

    fn pss(&self, crowd: &Crowd, before: &Before) -> Result<Result<f64, String>, BackendError> {
        let census = self.census(crowd, before)?;
        let found = census.into_iter().find(|sample| sample.metric == Metric::Memory(Ledger::Pss));
        Ok(found.map_or_else(
            || Err("PSS was not read".to_owned()),
            |sample| sample.value.ok_or(sample.detail),
        ))
    }
}
