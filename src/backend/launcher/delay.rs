//! A hook for tests of the suite itself: containers that are slower by a known
//! share, so that a comparison has a true difference to find. Runs under it
//! say so in their manifest.

use std::collections::HashMap;
use std::time::Duration;

use super::order::Launched;
use crate::record::Mark;
use crate::sys::clock::Deadline;

/// Environment variable: by how many per cent the start of a container is
/// delayed. `10@2` delays those of the second template only, by so much of
/// what the containers of the others take: those that are delayed wait longer
/// for a processor, too, and would drive their own delay up.
pub const ENV_DELAY: &str = "UNLADEN_TEST_DELAY_PERCENT";

/// What undelayed starts of each template take, and the share that is added.
#[derive(Debug)]
pub(super) struct Delay {
    share: f64,
    /// The one template that is delayed; all of them if none is named.
    only: Option<u32>,
    /// Times from `request` to `ready`, in nanoseconds, in rising order: on a
    /// busy host their mean lies far above their median, and it is the
    /// medians that are compared.
    usual: HashMap<u32, Vec<f64>>,
    added: Duration,
}

impl Delay {
    /// None unless the variable is set.
    pub(super) fn from_environment() -> Option<Self> {
        let text = std::env::var(ENV_DELAY).ok()?;
        let (percent, only) = match text.split_once('@') {
            Some((percent, template)) => (percent, Some(template.parse().ok()?)),
            None => (text.as_str(), None),
        };
        let percent: f64 = percent.parse().ok()?;
        let (share, added) = (percent / 100.0, Duration::ZERO);
        (share > 0.0).then(|| Self { share, only, usual: HashMap::new(), added })
    }

    /// Decides by how much the next start of a template is delayed: nothing
    /// until one has been seen.
    pub(super) fn choose(&mut self, template: u32) {
        let share = if self.only.is_none_or(|only| only == template) { self.share } else { 0.0 };
        let model = self.model(template);
        let usual = self.usual.get(&model);
        let median = usual.and_then(|times| times.get(times.len() / 2)).copied().unwrap_or(0.0);
        self.added = Duration::try_from_secs_f64(share * median / 1e9).unwrap_or_default();
    }

    /// Spends the time, in the timed window.
    pub(super) fn spend(&self) {
        let deadline = Deadline::after(self.added);
        while !deadline.passed() {
            std::hint::spin_loop();
        }
    }

    /// Under which number the times are kept that a template is delayed by:
    /// its own, or, where only one is delayed, that of all others.
    fn model(&self, template: u32) -> u32 {
        self.only.map_or(template, |_| 0)
    }

    /// Learns from a start what it would have taken without the delay.
    pub(super) fn learn(&mut self, template: u32, launched: &Launched) {
        if self.only == Some(template) {
            return;
        }
        if let Some(took) = launched.timeline.between(Mark::Request, Mark::Ready) {
            let times = self.usual.entry(self.model(template)).or_default();
            let undelayed = took as f64 - self.added.as_nanos() as f64;
            times.insert(times.partition_point(|time| *time < undelayed), undelayed);
        }
    }
}
