//! Whether the ledgers agree about what one more instance costs, and what
//! lies between them.
//!
//! PSS sees what processes have mapped. A control group is also charged for
//! kernel memory and page cache; the host holds also what no group is charged
//! for. So each can only be larger than the one before, and the differences
//! have names.

use serde::{Deserialize, Serialize};

use super::group::CellData;
use super::slope::{Line, theil_sen};
use super::summary::Marginal;
use crate::record::{Charge, KernelPart, Ledger, Metric};

/// Slopes that differ by no more than this share agree; beyond it the page
/// shows all of them and what is not explained.
pub const AGREE: f64 = 0.2;

/// What one more instance adds to a part of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartSlope {
    /// The part: `memory.charge.*` of the control group, `memory.kernel.*` of
    /// the host.
    pub metric: Metric,
    /// Its line over the number of instances.
    pub line: Line,
}

/// The slopes of one cell against each other, in bytes for one more instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossCheck {
    /// By PSS.
    pub pss: f64,
    /// By what the control groups are charged.
    pub cgroup: Option<f64>,
    /// By the host's memory in use; absent where its interval holds zero, so
    /// that it is lost in what others did meanwhile.
    pub host: Option<f64>,
    /// Charged and not mapped: kernel memory and page cache.
    pub charged_unmapped: Option<f64>,
    /// In use on the host and charged to no group.
    pub uncharged: Option<f64>,
    /// What the differences consist of.
    pub parts: Vec<PartSlope>,
    /// Of `charged_unmapped`, what kernel memory and charges in advance do not
    /// account for.
    pub residue_cgroup: Option<f64>,
    /// Of the host's slope beyond PSS, what its kernel memory does not account
    /// for; absent where the host's slope is lost in what others did.
    pub residue_host: Option<f64>,
    /// Whether neighbouring ledgers differ by at most [`AGREE`].
    pub agree: bool,
    /// The same in words.
    pub text: String,
}

/// Compares a cell's slopes; absent without one by PSS.
pub(super) fn cross_check(cell: &CellData<'_>, marginals: &[Marginal]) -> Option<CrossCheck> {
    let slope = |ledger| {
        let found = marginals.iter().find(|marginal| marginal.ledger == ledger)?;
        found.line.map(|line| line.slope)
    };
    let pss = slope(Ledger::Pss)?;
    let (cgroup, host) = (slope(Ledger::Cgroup), resolved(marginals, Ledger::Host));
    let parts = parts(cell);
    let part = |metric| parts.iter().find(|part| part.metric == metric).map(|part| part.line.slope);
    let kernel: Vec<f64> =
        KernelPart::ALL.into_iter().filter_map(|kind| part(Metric::Kernel(kind))).collect();
    let charged_unmapped = cgroup.map(|cgroup| cgroup - pss);
    let kernel_of_group = part(Metric::Charge(Charge::Kernel))
        .map(|kernel| kernel + part(Metric::Charge(Charge::Advance)).unwrap_or(0.0));
    let all_kernel = (kernel.len() == KernelPart::ALL.len()).then(|| kernel.iter().sum::<f64>());
    let near = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= AGREE * a.abs().max(b.abs()),
        _ => true,
    };
    let mut check = CrossCheck {
        pss,
        cgroup,
        host,
        charged_unmapped,
        uncharged: host.zip(cgroup.or(Some(pss))).map(|(host, other)| host - other),
        residue_cgroup: charged_unmapped.zip(kernel_of_group).map(|(more, kernel)| more - kernel),
        residue_host: host.zip(all_kernel).map(|(host, kernel)| host - pss - kernel),
        parts,
        agree: near(Some(pss), cgroup) && near(cgroup.or(Some(pss)), host),
        text: String::new(),
    };
    check.text = check.words();
    Some(check)
}

/// A slope whose interval does not hold zero.
pub(super) fn resolved(marginals: &[Marginal], ledger: Ledger) -> Option<f64> {
    let line = marginals.iter().find(|marginal| marginal.ledger == ledger)?.line?;
    line.interval.filter(|interval| interval.low > 0.0).map(|_| line.slope)
}

/// The slopes of all parts that the cell has rows of.
fn parts(cell: &CellData<'_>) -> Vec<PartSlope> {
    let wanted = |metric: Metric| matches!(metric, Metric::Charge(_) | Metric::Kernel(_));
    let mut metrics: Vec<Metric> = cell
        .series
        .keys()
        .filter(|(place, step)| wanted(place.metric) && step.is_some())
        .map(|(place, _)| place.metric)
        .collect();
    metrics.dedup();
    metrics
        .into_iter()
        .filter_map(|metric| Some(PartSlope { metric, line: theil_sen(&points(cell, metric))? }))
        .collect()
}

/// Values of a metric over the number of instances.
pub(super) fn points(cell: &CellData<'_>, metric: Metric) -> Vec<(f64, f64)> {
    cell.series
        .iter()
        .filter(|((place, _), _)| place.metric == metric)
        .filter_map(|((_, step), series)| Some((f64::from((*step)?), series)))
        .flat_map(|(step, series)| series.values.iter().map(move |(_, value)| (step, *value)))
        .collect()
}

impl CrossCheck {
    fn words(&self) -> String {
        let human = |bytes: f64| crate::units::Unit::Bytes.human(bytes);
        let mut text = format!("PSS {}", human(self.pss));
        if let Some(cgroup) = self.cgroup {
            let share = 100.0 * (cgroup - self.pss) / cgroup.abs().max(self.pss.abs());
            text.push_str(&format!(", cgroup {} ({share:+.1} %)", human(cgroup)));
        }
        match self.host {
            Some(host) => text.push_str(&format!(", host {}", human(host))),
            None => text.push_str(", host not resolved"),
        }
        if let (Some(more), Some(residue)) = (self.charged_unmapped, self.residue_cgroup) {
            text.push_str(&format!(
                "; charged beyond what is mapped {}, of which kernel memory and charges in \
                 advance {}, unexplained {}",
                human(more),
                human(more - residue),
                human(residue)
            ));
        }
        if let (Some(uncharged), Some(residue)) = (self.uncharged, self.residue_host) {
            text.push_str(&format!(
                "; on the host and charged to nobody {}; beyond PSS and the host's kernel memory {}",
                human(uncharged),
                human(residue)
            ));
        }
        if !self.agree {
            text.push_str(". The ledgers differ by more than 20 %");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use crate::stats::Summary;
    use crate::stats::testing::{at_step, key, manifest};

    /// The check of a cell whose ledgers grow by these bytes an instance.
    fn check(slopes: &[(&str, f64)]) -> Option<super::CrossCheck> {
        let cell = key("memory container pause");
        let mut samples = Vec::new();
        for step in [1, 2, 4, 8, 16] {
            for (metric, each) in slopes {
                let value = 1000.0 + f64::from(step) * each;
                samples.push(at_step(&cell, 1, step, metric, value));
            }
        }
        let summary = Summary::build(&manifest(&[cell], 1), &samples);
        summary.cells[0].cross_check.clone()
    }

    #[test]
    fn kernel_memory_explains_what_a_container_costs_beyond_its_pss() {
        let found = check(&[
            ("memory.pss", 8192.0),
            ("memory.cgroup", 61_440.0),
            ("memory.host", 450_560.0),
            ("memory.charge.anon", 8192.0),
            ("memory.charge.file", 0.0),
            ("memory.charge.kernel", 45_056.0),
            ("memory.charge.advance", 8192.0),
            ("memory.kernel.slab", 400_000.0),
            ("memory.kernel.stacks", 16_384.0),
            ("memory.kernel.page_tables", 20_000.0),
            ("memory.kernel.percpu", 2000.0),
        ])
        .expect("a check");
        assert_eq!(found.charged_unmapped, Some(53_248.0));
        assert_eq!(found.residue_cgroup, Some(0.0));
        assert_eq!(found.uncharged, Some(450_560.0 - 61_440.0));
        assert_eq!(found.residue_host, Some(450_560.0 - 8192.0 - 438_384.0));
        assert!(!found.agree && found.text.contains("unexplained 0 B"), "{}", found.text);
        assert_eq!(found.parts.len(), 8);
    }

    #[test]
    fn ledgers_that_agree_say_so_and_absent_ones_are_absent() {
        let found = check(&[("memory.pss", 100.0), ("memory.cgroup", 104.0)]).expect("a check");
        assert!(found.agree && found.host.is_none() && found.residue_cgroup.is_none());
        assert!(found.text.contains("(+3.8 %)"), "{}", found.text);
        assert_eq!(check(&[("memory.cgroup", 104.0)]), None);
    }
}
