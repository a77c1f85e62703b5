//! What the command line changes about a spec, and its form in the manifest.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::record::{BackendName, CellKey, Experiment, Workload};

use super::PlanError;

/// Filters and overrides of one run. An empty list lets everything pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Only these experiments.
    pub experiments: Vec<Experiment>,
    /// Only these backends (the null backend is always added).
    pub backends: Vec<BackendName>,
    /// Only these workloads.
    pub workloads: Vec<Workload>,
    /// Trials of every cell instead of what the spec says; at least 1.
    pub rounds: Option<u32>,
    /// Go on with start-up cells until their ratios are known well enough.
    pub precision: Option<Precision>,
}

/// When a run has measured enough: its start-up cells go on beyond the spec's
/// rounds until the interval of each ratio is narrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// How far an interval may reach from its ratio, in thousandths.
    pub thousandths: u32,
    /// Rounds after which it is given up, at least those of the spec.
    pub max_rounds: u32,
}

impl Precision {
    /// The same as a share: 0.05 for 5 %.
    #[must_use]
    pub fn share(self) -> f64 {
        f64::from(self.thousandths) / 1000.0
    }
}

/// As in the manifest: `50/1000 within 200`.
impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/1000 within {}", self.thousandths, self.max_rounds)
    }
}

impl FromStr for Precision {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (share, rounds) = text.split_once("/1000 within ").ok_or(())?;
        let number = |text: &str| text.parse().map_err(|_| ());
        Ok(Self { thousandths: number(share)?, max_rounds: number(rounds)? })
    }
}

impl Filters {
    /// Whether a cell passes.
    #[must_use]
    pub fn match_cell(&self, key: &CellKey) -> bool {
        passes(&self.experiments, &key.experiment)
            && passes(&self.backends, &key.backend)
            && passes(&self.workloads, &key.workload)
    }

    /// The form in the manifest's `overrides`; nothing where nothing is set.
    #[must_use]
    pub fn to_overrides(&self) -> BTreeMap<String, String> {
        let lists = [
            ("experiment", join(&self.experiments)),
            ("backend", join(&self.backends)),
            ("workload", join(&self.workloads)),
            ("rounds", self.rounds.map(|rounds| rounds.to_string()).unwrap_or_default()),
            ("precision", self.precision.map(|found| found.to_string()).unwrap_or_default()),
        ];
        lists
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| (name.to_owned(), text))
            .collect()
    }

    /// Reads the form in the manifest.
    ///
    /// # Errors
    ///
    /// At a name or value that this version does not know.
    pub fn from_overrides(overrides: &BTreeMap<String, String>) -> Result<Self, PlanError> {
        let mut filters = Self::default();
        for (name, text) in overrides {
            let known = match name.as_str() {
                "experiment" => words(text, experiment).map(|list| filters.experiments = list),
                "backend" => words(text, backend).map(|list| filters.backends = list),
                "workload" => words(text, |word| Workload::from_str(word).ok())
                    .map(|list| filters.workloads = list),
                "rounds" => text
                    .parse()
                    .ok()
                    .filter(|rounds| *rounds > 0)
                    .map(|rounds| filters.rounds = Some(rounds)),
                "precision" => text.parse().ok().map(|found| filters.precision = Some(found)),
                _ => None,
            };
            known.ok_or_else(|| PlanError::BadOverride {
                name: name.clone(),
                value: text.clone(),
            })?;
        }
        Ok(filters)
    }
}

/// As flags: `--experiment startup --rounds 3`.
impl fmt::Display for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, list) in self.to_overrides() {
            for value in list.split(',') {
                write!(f, "{separator}--{name} {value}")?;
                separator = " ";
            }
        }
        Ok(())
    }
}

fn passes<T: PartialEq>(allowed: &[T], value: &T) -> bool {
    allowed.is_empty() || allowed.contains(value)
}

fn join<T: fmt::Display>(list: &[T]) -> String {
    list.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

fn words<T>(text: &str, one: impl FnMut(&str) -> Option<T>) -> Option<Vec<T>> {
    text.split(',').map(one).collect()
}

fn experiment(name: &str) -> Option<Experiment> {
    Experiment::ALL.into_iter().find(|experiment| experiment.as_str() == name)
}

fn backend(name: &str) -> Option<BackendName> {
    name.parse().ok()
}
