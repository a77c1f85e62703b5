//! How long the rest of a run may take, and whether a budget allows it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::record::{BackendName, CellKey, Experiment};

/// Sum and count of durations.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: Duration,
    count: u32,
}

impl Mean {
    fn add(&mut self, duration: Duration) {
        self.sum += duration;
        self.count += 1;
    }

    fn get(&self) -> Option<Duration> {
        self.sum.checked_div(self.count)
    }
}

/// Learns how long trials take, and estimates those to come.
///
/// A cell that has not run yet is taken for the mean of its experiment and
/// backend, else of its experiment, else of everything: rough at first, right
/// after one round. Means, not medians, because times to come are a sum.
#[derive(Clone, Debug, Default)]
pub struct Eta {
    cells: BTreeMap<CellKey, Mean>,
    backends: BTreeMap<(Experiment, BackendName), Mean>,
    experiments: BTreeMap<Experiment, Mean>,
    all: Mean,
}

impl Eta {
    /// Learns from one trial, including all waiting around it.
    pub fn record(&mut self, key: &CellKey, duration: Duration) {
        self.cells.entry(key.clone()).or_default().add(duration);
        self.backends.entry((key.experiment, key.backend)).or_default().add(duration);
        self.experiments.entry(key.experiment).or_default().add(duration);
        self.all.add(duration);
    }

    /// Estimates the time of the given trials; `None` before the first trial.
    #[must_use]
    pub fn estimate<'a>(&self, trials: impl IntoIterator<Item = &'a CellKey>) -> Option<Duration> {
        trials.into_iter().map(|key| self.one(key)).sum()
    }

    fn one(&self, key: &CellKey) -> Option<Duration> {
        [
            self.cells.get(key),
            self.backends.get(&(key.experiment, key.backend)),
            self.experiments.get(&key.experiment),
            Some(&self.all),
        ]
        .into_iter()
        .flatten()
        .find_map(Mean::get)
    }
}

/// Whether another round may begin. Asked at the end of a round, since an
/// incomplete round compares nothing: it may begin when it is expected to end
/// within the budget, or, as long as nothing is known about it, when some of
/// the budget is left. Without a budget it always may.
#[must_use]
pub fn budget_allows(
    budget: Option<Duration>,
    elapsed: Duration,
    next_round: Option<Duration>,
) -> bool {
    budget.is_none_or(|budget| elapsed + next_round.unwrap_or_default() < budget)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(experiment: &str, backend: &str, workload: &str) -> CellKey {
        serde_json::from_value(serde_json::json!({
            "experiment": experiment, "backend": backend, "workload": workload, "params": ""
        }))
        .expect("valid key")
    }

    #[test]
    fn an_unseen_cell_is_taken_for_its_nearest_kin() {
        let second = Duration::from_secs;
        let mut eta = Eta::default();
        let known = key("startup", "vm", "exit");
        assert_eq!(eta.estimate([&known]), None);
        assert_eq!(eta.estimate([]), Some(Duration::ZERO));
        eta.record(&known, second(1));
        eta.record(&known, second(3));
        eta.record(&key("startup", "process", "exit"), second(5));
        eta.record(&key("memory", "vm", "pause"), second(11));
        let estimate =
            |experiment, backend, workload| eta.estimate([&key(experiment, backend, workload)]);
        assert_eq!(estimate("startup", "vm", "exit"), Some(second(2)));
        assert_eq!(estimate("startup", "vm", "pause"), Some(second(2)));
        assert_eq!(estimate("startup", "container", "pause"), Some(second(3)));
        assert_eq!(estimate("density", "vm", "pause"), Some(second(5)));
        assert_eq!(eta.estimate([&known, &known]), Some(second(4)));
    }

    #[test]
    fn a_round_begins_only_when_it_should_end_in_time() {
        let second = Duration::from_secs;
        assert!(budget_allows(None, second(1_000_000), None));
        assert!(budget_allows(Some(second(60)), second(59), None));
        assert!(!budget_allows(Some(second(60)), second(60), None));
        assert!(budget_allows(Some(second(60)), second(40), Some(second(19))));
        assert!(!budget_allows(Some(second(60)), second(40), Some(second(20))));
    }
}
