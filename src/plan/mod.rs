//! From a spec to the trials of a run and their order. Pure: the same spec,
//! filters, seed and list of what cannot run here give the same plan.
//!
//! A round executes every cell once, in fresh random order, so that drift of
//! the host falls on all cells alike. Density ladders fill the machine, so
//! they have rounds of their own, spread evenly among the others.

mod cells;
mod eta;
mod filters;

pub use cells::{PlannedCell, cells};
pub use eta::{Eta, budget_allows};
pub use filters::{Filters, Precision};

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::record::{Manifest, Outcome};
use crate::spec::{Spec, SpecError};

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The filters leave no cell.
    #[error("no cell of spec {spec} matches {filters}; it has {available}")]
    NothingMatches {
        /// The spec.
        spec: String,
        /// The filters as flags.
        filters: String,
        /// What the spec has to offer.
        available: String,
    },
    /// A stored override that is not one of ours.
    #[error(
        "cannot continue the run: its manifest has the override {name} = \"{value}\", which this version does not know"
    )]
    BadOverride {
        /// Name of the override.
        name: String,
        /// Its text.
        value: String,
    },
    /// The stored spec is not valid for this version.
    #[error("cannot continue the run: the spec in its manifest is not valid for this version")]
    StoredSpec(#[source] SpecError),
    /// The stored plan is not what its spec says.
    #[error("cannot continue the run: {0}; its manifest was changed or another version wrote it")]
    StoredPlan(String),
}

/// The trials of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Seed of the order.
    pub seed: u64,
    /// Every cell, also those that cannot run here.
    pub cells: Vec<PlannedCell>,
    /// Per round, the indices into `cells` in the order of their trials.
    pub order: Vec<Vec<usize>>,
}

impl Plan {
    /// Plans the cells that can run: `unavailable` lists the others by index
    /// and reason (an index beyond the cells is ignored).
    #[must_use]
    pub fn new(mut cells: Vec<PlannedCell>, unavailable: &[(usize, String)], seed: u64) -> Self {
        for (index, reason) in unavailable {
            if let Some(cell) = cells.get_mut(*index) {
                cell.skipped = Some(reason.clone());
            }
        }
        let order = order(&cells, seed);
        Self { seed, cells, order }
    }

    /// The plan of a run that was begun, from its manifest alone.
    ///
    /// # Errors
    ///
    /// When the manifest does not agree with itself or with this version.
    pub fn resume(manifest: &Manifest) -> Result<Self, PlanError> {
        let spec =
            Spec::parse(&manifest.spec_name, &manifest.spec_text).map_err(PlanError::StoredSpec)?;
        let mut cells = cells(&spec, &Filters::from_overrides(&manifest.overrides)?)?;
        if cells.len() != manifest.cells.len() {
            let (have, want) = (manifest.cells.len(), cells.len());
            let what = format!("it lists {have} cells where its spec asks for {want}");
            return Err(PlanError::StoredPlan(what));
        }
        for (cell, fact) in cells.iter_mut().zip(&manifest.cells) {
            if cell.key != fact.cell || cell.rounds != fact.rounds {
                let what = format!("it lists `{}` where its spec has `{}`", fact.cell, cell.key);
                return Err(PlanError::StoredPlan(what));
            }
            cell.skipped = (fact.outcome == Outcome::Skipped).then(|| fact.detail.clone());
        }
        if let Some(index) = manifest.order.iter().flatten().find(|index| **index >= cells.len()) {
            let what = format!("its order names cell {index} of {}", cells.len());
            return Err(PlanError::StoredPlan(what));
        }
        Ok(Self { seed: manifest.seed, cells, order: manifest.order.clone() })
    }

    /// The trials still to be made, as round (from 1) and index of the cell,
    /// in order; `done` holds those that are stored.
    pub fn remaining<'a>(
        &'a self,
        done: &'a BTreeSet<(u32, usize)>,
    ) -> impl Iterator<Item = (u32, usize)> + 'a {
        (1..)
            .zip(&self.order)
            .flat_map(|(round, cells)| cells.iter().map(move |cell| (round, *cell)))
            .filter(|trial| !done.contains(trial))
    }

    /// Rounds that are run in any case; those after them only until the ratios
    /// are known well enough.
    #[must_use]
    pub fn sure_rounds(&self) -> u32 {
        let ladders = self
            .cells
            .iter()
            .filter(|cell| cell.skipped.is_none() && cell.key.experiment.is_ladder());
        let ladders = ladders.map(|cell| cell.rounds as usize).max().unwrap_or(0);
        u32::try_from(sure_rounds(&self.cells) + ladders).unwrap_or(u32::MAX)
    }

    /// Number of trials in all.
    #[must_use]
    pub fn trials(&self) -> usize {
        self.order.iter().map(Vec::len).sum()
    }
}

/// Draws the order of every round from one stream of random numbers.
fn order(cells: &[PlannedCell], seed: u64) -> Vec<Vec<usize>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut rounds_of = |ladders: bool| {
        let mine: Vec<(usize, u32)> = cells
            .iter()
            .enumerate()
            .filter(|(_, cell)| cell.skipped.is_none())
            .filter(|(_, cell)| cell.key.experiment.is_ladder() == ladders)
            .map(|(index, cell)| (index, cell.at_most))
            .collect();
        let rounds = mine.iter().map(|(_, rounds)| *rounds).max().unwrap_or(0);
        let mut order = Vec::new();
        for round in 1..=rounds {
            let mut trials: Vec<usize> = mine
                .iter()
                .filter(|(_, rounds)| *rounds >= round)
                .map(|(index, _)| *index)
                .collect();
            trials.shuffle(&mut rng);
            order.push(trials);
        }
        order
    };
    let mut single = rounds_of(false);
    let ladders = rounds_of(true);
    // What may not be needed comes after everything else.
    let more = single.split_off(single.len().min(sure_rounds(cells)));
    let mut all = spread(single, ladders);
    all.extend(more);
    all
}

/// Rounds of start-up and memory cells that are run in any case.
fn sure_rounds(cells: &[PlannedCell]) -> usize {
    let single =
        cells.iter().filter(|cell| cell.skipped.is_none() && !cell.key.experiment.is_ladder());
    single.map(|cell| cell.rounds as usize).max().unwrap_or(0)
}

/// Puts the `few` evenly between the `many`, the first one not at the start
/// and the last one not at the end.
fn spread(many: Vec<Vec<usize>>, few: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
    let (many_len, few_len) = (many.len(), few.len());
    let mut few = few.into_iter().enumerate().peekable();
    let mut all = Vec::with_capacity(many_len + few_len);
    for (before, round) in many.into_iter().chain([Vec::new()]).enumerate() {
        // The k-th of n (from 0) belongs after (2k+1)/2n of the others.
        while let Some((_, ladder)) = few.next_if(|(k, _)| {
            before == many_len || (2 * k + 1) * many_len / (2 * few_len) <= before
        }) {
            all.push(ladder);
        }
        if before < many_len {
            all.push(round);
        }
    }
    all
}

#[cfg(test)]
mod tests;
