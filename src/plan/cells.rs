//! Which cells a run has: those of the spec that pass the filters, and the
//! null backend and its control where the spec forgot them.

use std::collections::BTreeSet;

use crate::record::{BackendName, CellKey, Experiment, Params};
use crate::spec::{Spec, SpecCell};

use super::{Filters, PlanError};

/// A cell of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedCell {
    /// The cell.
    pub key: CellKey,
    /// Trials, at least 1.
    pub rounds: u32,
    /// Trials when the run goes on until its ratios are known well enough; else
    /// the same.
    pub at_most: u32,
    /// Upper bound of live instances, where a trial has several.
    pub cap: Option<u32>,
    /// Milliseconds that the start of the newest may take in a density ladder.
    pub slo_ms: Option<u32>,
    /// Why it cannot run here; such a cell is in no round.
    pub skipped: Option<String>,
}

/// The cells of a run, in the order of the spec, added ones last.
///
/// Every experiment and workload gets a cell of the null backend (`process`),
/// whatever the filters say, since results are shown above null; and start-up
/// and memory get its control, since their noise floor is the ratio of the
/// two. A spec of mock cells gets neither: nothing of it is measured.
///
/// # Errors
///
/// When the filters leave nothing.
pub fn cells(spec: &Spec, filters: &Filters) -> Result<Vec<PlannedCell>, PlanError> {
    let mut chosen: Vec<PlannedCell> = spec
        .cells
        .iter()
        .filter(|cell| filters.match_cell(&cell.key))
        .map(|cell| planned(cell, filters))
        .collect();
    if chosen.is_empty() {
        return Err(PlanError::NothingMatches {
            spec: spec.name.clone(),
            filters: filters.to_string(),
            available: available(spec),
        });
    }
    if chosen.iter().all(|cell| cell.key.backend != BackendName::Mock) {
        add_null(&mut chosen, spec, filters);
        add_controls(&mut chosen, spec, filters);
    }
    Ok(chosen)
}

fn planned(cell: &SpecCell, filters: &Filters) -> PlannedCell {
    let rounds = filters.rounds.unwrap_or(cell.rounds);
    PlannedCell {
        key: cell.key.clone(),
        rounds,
        at_most: match filters.precision {
            Some(precision) if cell.key.experiment == Experiment::Startup => {
                precision.max_rounds.max(rounds)
            }
            _ => rounds,
        },
        cap: cell.cap,
        slo_ms: cell.slo_ms,
        skipped: None,
    }
}

/// Adds the null backend for each experiment and workload that lacks it, with
/// as many trials as the most repeated cell there.
fn add_null(chosen: &mut Vec<PlannedCell>, spec: &Spec, filters: &Filters) {
    for index in 0..chosen.len() {
        let cell = &chosen[index];
        // A process has no memory of its own to make smaller, and copies of
        // it have nothing to merge.
        if matches!(cell.key.experiment, Experiment::Minimum | Experiment::Ksm) {
            continue;
        }
        let key = CellKey {
            backend: BackendName::Process,
            params: Params::default(),
            ..cell.key.clone()
        };
        if chosen.iter().any(|other| other.key == key) {
            continue;
        }
        let alike = chosen.iter().filter(|other| {
            (other.key.experiment, other.key.workload) == (key.experiment, key.workload)
        });
        let rounds = alike.clone().map(|other| other.rounds).max().unwrap_or(cell.rounds);
        let at_most = alike.clone().map(|other| other.at_most).max().unwrap_or(cell.at_most);
        let cap = alike.clone().filter_map(|other| other.cap).max();
        let slo_ms = alike.filter_map(|other| other.slo_ms).max();
        let added = PlannedCell { key, rounds, at_most, cap, slo_ms, skipped: None };
        chosen.push(as_in_spec(added, spec, filters));
    }
}

/// Adds a control to the first null cell of each experiment without one.
fn add_controls(chosen: &mut Vec<PlannedCell>, spec: &Spec, filters: &Filters) {
    for experiment in [Experiment::Startup, Experiment::Memory] {
        let mut null = chosen.iter().filter(|cell| {
            cell.key.experiment == experiment && cell.key.backend == BackendName::Process
        });
        if null.clone().any(|cell| cell.key.params.get("control").is_some()) {
            continue;
        }
        if let Some(mut control) = null.next().cloned() {
            control.key.params.edit().insert("control".to_owned(), "1".to_owned());
            chosen.push(as_in_spec(control, spec, filters));
        }
    }
}

/// A cell that filters removed and the rules bring back keeps the trials that
/// the spec gives it.
fn as_in_spec(cell: PlannedCell, spec: &Spec, filters: &Filters) -> PlannedCell {
    let listed = spec.cells.iter().find(|listed| listed.key == cell.key);
    listed.map_or(cell, |listed| planned(listed, filters))
}

/// What a user can filter for.
fn available(spec: &Spec) -> String {
    let join = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
    let keys = || spec.cells.iter().map(|cell| &cell.key);
    format!(
        "experiments {}; backends {}; workloads {}",
        join(keys().map(|key| key.experiment.to_string()).collect()),
        join(keys().map(|key| key.backend.to_string()).collect()),
        join(keys().map(|key| key.workload.to_string()).collect()),
    )
}
