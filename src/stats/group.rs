//! Sorts samples into cells, metrics and trials. It computes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::summary::Reason;
use crate::record::{CellFact, CellKey, Manifest, Metric, Outcome, Sample};

/// Different reasons kept per cell and metric.
const MAX_REASONS: usize = 3;

/// Round and position of a trial; ordered as the run was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TrialId {
    pub(crate) trial: u32,
    pub(crate) round: u32,
}

/// Values of one metric (at one step).
#[derive(Debug, Default)]
pub(crate) struct Series {
    pub(crate) values: Vec<(TrialId, f64)>,
    pub(crate) skipped: usize,
    pub(crate) reasons: Vec<Reason>,
}

/// Everything that the samples say about one cell.
#[derive(Debug)]
pub(crate) struct CellData<'a> {
    pub(crate) key: &'a CellKey,
    pub(crate) fact: Option<&'a CellFact>,
    pub(crate) series: BTreeMap<(Place, Option<u32>), Series>,
    pub(crate) tried: BTreeSet<TrialId>,
    pub(crate) failed: BTreeSet<TrialId>,
    pub(crate) reasons: Vec<Reason>,
    pub(crate) limits: Vec<Reason>,
}

/// A metric at its place in the order of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    position: usize,
    pub(crate) metric: Metric,
}

impl Place {
    pub(crate) fn of(metric: Metric) -> Self {
        let position = Metric::all().position(|other| other == metric).unwrap_or(usize::MAX);
        Self { position, metric }
    }
}

impl<'a> CellData<'a> {
    fn new(key: &'a CellKey, fact: Option<&'a CellFact>) -> Self {
        Self {
            key,
            fact,
            series: BTreeMap::new(),
            tried: BTreeSet::new(),
            failed: BTreeSet::new(),
            reasons: Vec::new(),
            limits: Vec::new(),
        }
    }

    /// Values of a metric outside of density steps.
    pub(crate) fn values(&self, metric: Metric) -> &[(TrialId, f64)] {
        self.series.get(&(Place::of(metric), None)).map_or(&[], |series| &series.values)
    }

    fn add(&mut self, sample: &Sample, place: Place) {
        let id = TrialId { trial: sample.trial, round: sample.round };
        // The highest count is a result of the whole ladder, not of a step.
        let step = sample.step.filter(|_| sample.metric != Metric::DensityInstances);
        let series = self.series.entry((place, step)).or_default();
        let value = sample.value.filter(|value| value.is_finite());
        match (sample.outcome, value) {
            (Outcome::Ok, Some(value)) => {
                series.values.push((id, value));
                self.tried.insert(id);
                if sample.metric == Metric::DensityInstances && !sample.detail.is_empty() {
                    note(&mut self.limits, &sample.detail);
                }
            }
            (Outcome::Skipped, _) => {
                series.skipped += 1;
                note(&mut series.reasons, &sample.detail);
                note(&mut self.reasons, &sample.detail);
            }
            (Outcome::Ok | Outcome::Failed, _) => {
                let why = match sample.detail.as_str() {
                    "" => "no value and no reason were recorded",
                    detail => detail,
                };
                note(&mut series.reasons, why);
                note(&mut self.reasons, &format!("{}: {why}", sample.metric));
                self.tried.insert(id);
                self.failed.insert(id);
            }
        }
    }
}

/// Counts a reason, keeping the first few different ones.
fn note(reasons: &mut Vec<Reason>, text: &str) {
    if let Some(known) = reasons.iter_mut().find(|reason| reason.text == text) {
        known.count += 1;
    } else if reasons.len() < MAX_REASONS {
        reasons.push(Reason { text: text.to_owned(), count: 1 });
    }
}

/// The cells of the plan in its order, then cells that only samples know.
pub(crate) fn cells<'a>(manifest: &'a Manifest, samples: &'a [Sample]) -> Vec<CellData<'a>> {
    let mut cells: Vec<CellData<'a>> = Vec::new();
    let mut known: HashMap<&CellKey, usize> = HashMap::new();
    for fact in &manifest.cells {
        known.entry(&fact.cell).or_insert_with(|| {
            cells.push(CellData::new(&fact.cell, Some(fact)));
            cells.len() - 1
        });
    }
    let places: HashMap<Metric, Place> =
        Metric::all().map(|metric| (metric, Place::of(metric))).collect();
    for sample in samples {
        let index = *known.entry(&sample.cell).or_insert_with(|| {
            cells.push(CellData::new(&sample.cell, None));
            cells.len() - 1
        });
        let place = places.get(&sample.metric).copied().unwrap_or_else(|| Place::of(sample.metric));
        cells[index].add(sample, place);
    }
    for cell in &mut cells {
        if let Some(fact) = cell.fact
            && !fact.detail.is_empty()
            && fact.outcome != Outcome::Ok
            && cell.reasons.iter().all(|reason| reason.text != fact.detail)
        {
            cell.reasons.insert(0, Reason { text: fact.detail.clone(), count: 1 });
        }
        for series in cell.series.values_mut() {
            series.values.sort_by_key(|(id, _)| *id);
        }
    }
    cells
}
