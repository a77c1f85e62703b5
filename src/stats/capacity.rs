//! How many instances a host holds, and what a thousand of them cost: plain
//! arithmetic on measured slopes and the user's own figures.

use serde::Serialize;

use super::ledgers::resolved;
use super::order::Interval;
use super::slope::Line;
use super::summary::{CellSummary, Summary};
use crate::record::{Experiment, HostFact, Ledger, Metric};
use crate::units::{Bytes, MIB, Unit};

/// What the user's host has and the user's workload needs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Demand {
    /// Memory of the host in bytes.
    pub memory: u64,
    /// Processors of the host.
    pub cpus: f64,
    /// Share of the memory that is kept free, from 0 to 1.
    pub reserve: f64,
    /// Bytes that the workload needs in each instance beyond the idle one.
    pub each_memory: u64,
    /// Processors that the workload of each instance uses on average.
    pub each_cpus: f64,
    /// What the host costs a month, in any currency.
    pub host_cost: Option<f64>,
    /// By which ledger; the largest that is known well where there is none.
    pub ledger: Option<Ledger>,
}

/// Share of the memory that the guard keeps free, and so do we.
pub const RESERVE: f64 = 0.10;

impl Demand {
    /// Idle instances on the host of these facts; absent when they do not
    /// tell.
    #[must_use]
    pub fn of_host(facts: &[HostFact]) -> Option<Self> {
        let fact = |name: &str| facts.iter().find(|fact| fact.name == name);
        let first = |name| fact(name)?.value.split_whitespace().next()?.parse::<f64>().ok();
        let memory = fact("memory.total")?.value.split_whitespace().next()?.parse().ok()?;
        let cpus = first("cpu.logical")?;
        Some(Self {
            memory,
            cpus,
            reserve: RESERVE,
            each_memory: 0,
            each_cpus: 0.0,
            host_cost: None,
            ledger: None,
        })
    }
}

/// How many of one cell fit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// The cell's name.
    pub cell: String,
    /// The ledger that the slope is of.
    pub ledger: Ledger,
    /// Bytes of one more instance, without the workload's own.
    pub each: f64,
    /// Bytes that are there once.
    pub fixed: f64,
    /// Instances.
    pub instances: f64,
    /// The same at either end of the slope's interval, fewest first.
    pub range: Option<(f64, f64)>,
    /// Instances for each GiB of the host.
    pub per_gib: f64,
    /// What is used up first: `memory` or `processors`.
    pub ends: &'static str,
    /// The most instances of which the run measured anything.
    pub measured: f64,
    /// What a thousand cost a month.
    pub per_thousand: Option<f64>,
}

/// The answer with what it rests on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Capacity {
    /// What was asked.
    pub demand: Demand,
    /// One for each cell that has a slope.
    pub fits: Vec<Fit>,
}

impl Capacity {
    /// Fits every cell of a run that has a slope, from its memory experiment
    /// or else its density ladder.
    #[must_use]
    pub fn of(summary: &Summary, demand: Demand) -> Self {
        let with_slope = |experiment| {
            summary.cells.iter().filter(move |cell| {
                cell.cell.experiment == experiment
                    && !cell.marginals.is_empty()
                    && !cell.is_control()
            })
        };
        let ladders = with_slope(Experiment::Density);
        // A ladder reaches further than the few of the memory experiment.
        let memory = with_slope(Experiment::Memory).filter(|cell| {
            let same = |other: &CellSummary| {
                (other.cell.backend, other.cell.workload, &other.cell.params)
                    == (cell.cell.backend, cell.cell.workload, &cell.cell.params)
            };
            !with_slope(Experiment::Density).any(same)
        });
        let fits = ladders.chain(memory).filter_map(|cell| fit(cell, &demand)).collect();
        Self { demand, fits }
    }

    /// What the figures rest on, one sentence each.
    #[must_use]
    pub fn assumptions(&self) -> Vec<String> {
        let demand = &self.demand;
        let mut lines = vec![
            format!(
                "The host has {} of memory and {} processors; {:.0} % of the memory is kept free.",
                Bytes(demand.memory),
                Unit::Count.human(demand.cpus),
                100.0 * demand.reserve
            ),
            format!(
                "Each instance is idle but for a workload of {} and {} processors.",
                Bytes(demand.each_memory),
                Unit::Count.human(demand.each_cpus)
            ),
            "One more costs the slope that this run measured on this host, and goes on costing it: \
             a count beyond those measured is extrapolated and marked so."
                .to_owned(),
        ];
        if demand.each_cpus == 0.0 {
            lines.push("Processor time of idle instances is taken for none.".to_owned());
        }
        if demand.ledger.is_none() {
            lines.push(
                "The ledger is the largest whose slope is known apart from zero: what a smaller one \
                 does not count fills the host all the same."
                    .to_owned(),
            );
        }
        if let Some(cost) = demand.host_cost {
            lines.push(format!(
                "A host costs {cost} a month, whether it is full or not; nothing else costs anything."
            ));
        }
        lines
    }
}

impl Fit {
    /// The fit as texts: cell, ledger, each, fixed, instances, range, per GiB,
    /// what ends it, basis, cost of a thousand.
    #[must_use]
    pub fn fields(&self) -> Vec<String> {
        let range =
            self.range.map(|(low, high)| format!("{low:.0} to {high:.0}")).unwrap_or_default();
        let basis = if self.instances > self.measured {
            format!("extrapolated beyond {:.0}", self.measured)
        } else {
            "measured so far".to_owned()
        };
        vec![
            self.cell.clone(),
            self.ledger.as_str().to_owned(),
            Unit::Bytes.human(self.each),
            Unit::Bytes.human(self.fixed),
            format!("{:.0}", self.instances),
            range,
            Unit::Count.human(self.per_gib),
            self.ends.to_owned(),
            basis,
            self.per_thousand.map_or_else(|| "–".to_owned(), |cost| format!("{cost:.2}")),
        ]
    }
}

fn fit(cell: &CellSummary, demand: &Demand) -> Option<Fit> {
    let (ledger, line) = slope(cell, demand.ledger)?;
    let usable = demand.memory as f64 * (1.0 - demand.reserve);
    let by_memory = |slope: f64| {
        let each = slope + demand.each_memory as f64;
        (each > 0.0).then(|| ((usable - line.intercept.max(0.0)) / each).floor().max(0.0))
    };
    let by_cpus = (demand.each_cpus > 0.0).then(|| (demand.cpus / demand.each_cpus).floor());
    let capped = |count: f64| by_cpus.map_or(count, |most| count.min(most));
    let memory = by_memory(line.slope)?;
    let instances = capped(memory);
    let range = line.interval.and_then(|Interval { low, high }| {
        Some((capped(by_memory(high)?), capped(by_memory(low)?)))
    });
    let gib = demand.memory as f64 / (1024 * MIB) as f64;
    let steps = cell.metrics.iter().filter(|found| matches!(found.metric, Metric::Memory(_)));
    Some(Fit {
        cell: cell.cell.to_string(),
        ledger,
        each: line.slope,
        fixed: line.intercept,
        instances,
        range,
        per_gib: instances / gib,
        ends: if instances < memory { "processors" } else { "memory" },
        measured: steps.filter_map(|found| found.step).max().map_or(1.0, f64::from),
        per_thousand: demand
            .host_cost
            .filter(|_| instances > 0.0)
            .map(|cost| 1000.0 * cost / instances),
    })
}

/// The line of the ledger that is asked for, or of the largest one.
fn slope(cell: &CellSummary, wanted: Option<Ledger>) -> Option<(Ledger, Line)> {
    if let Some(ledger) = wanted {
        return cell.marginal(ledger).map(|line| (ledger, *line));
    }
    [Ledger::Host, Ledger::Cgroup, Ledger::Pss]
        .into_iter()
        .filter_map(|ledger| Some((ledger, resolved(&cell.marginals, ledger)?)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .and_then(|(ledger, _)| Some((ledger, *cell.marginal(ledger)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::{at_step, key, manifest};

    /// A cell whose instances cost exactly 10 MiB, with 100 MiB fixed.
    fn summary() -> Summary {
        let cell = key("density vm pause");
        let mut samples = Vec::new();
        for step in [1, 2, 4, 8, 16] {
            let bytes = f64::from(100 + 10 * step) * MIB as f64;
            samples.push(at_step(&cell, 1, step, "memory.pss", bytes));
            samples.push(at_step(&cell, 1, step, "memory.cgroup", bytes + f64::from(step)));
        }
        Summary::build(&manifest(&[cell], 1), &samples)
    }

    fn demand() -> Demand {
        Demand {
            memory: 10 * 1024 * MIB,
            cpus: 4.0,
            reserve: 0.10,
            each_memory: 0,
            each_cpus: 0.0,
            host_cost: Some(91.0),
            ledger: Some(Ledger::Pss),
        }
    }

    fn only(demand: Demand) -> Fit {
        let mut fits = Capacity::of(&summary(), demand).fits;
        assert_eq!(fits.len(), 1);
        fits.remove(0)
    }

    #[test]
    fn instances_follow_from_slope_fixed_part_and_reserve() {
        let fit = only(demand());
        // (10240 MiB * 0.9 - 100 MiB) / 10 MiB
        assert_eq!((fit.instances, fit.ends), (911.0, "memory"));
        assert_eq!(fit.per_thousand, Some(91_000.0 / 911.0));
        assert!((fit.per_gib - 91.1).abs() < 1e-9);
        assert_eq!(fit.fields()[8], "extrapolated beyond 16");
        assert_eq!(fit.range, Some((911.0, 911.0)));
        let with_work = Demand { each_memory: 10 * MIB, ..demand() };
        assert_eq!(only(with_work).instances, 455.0);
        let busy = Demand { each_cpus: 0.5, ..demand() };
        assert_eq!((only(busy).instances, only(busy).ends), (8.0, "processors"));
        assert_eq!(only(busy).fields()[8], "measured so far");
    }

    #[test]
    fn without_a_word_the_largest_ledger_counts_and_a_full_host_holds_none() {
        let fit = only(Demand { ledger: None, ..demand() });
        assert_eq!(fit.ledger, Ledger::Cgroup);
        let tiny = only(Demand { memory: 64 * MIB, ..demand() });
        assert_eq!((tiny.instances, tiny.per_thousand), (0.0, None));
        assert_eq!(
            Capacity::of(&summary(), Demand { ledger: Some(Ledger::Uss), ..demand() }).fits,
            []
        );
    }

    #[test]
    fn what_is_assumed_is_said() {
        let capacity = Capacity::of(&summary(), demand());
        let text = capacity.assumptions().join("\n");
        for needed in ["10 GiB", "4 processors", "10 %", "extrapolated", "91 a month"] {
            assert!(text.contains(needed), "{needed} is not in {text}");
        }
    }

    #[test]
    fn the_host_of_a_run_is_read_from_its_facts() {
        let fact = |name: &str, value: &str| HostFact { name: name.into(), value: value.into() };
        let facts = [fact("memory.total", "1073741824"), fact("cpu.logical", "2")];
        let demand = Demand::of_host(&facts).expect("told");
        assert_eq!((demand.memory, demand.cpus), (1024 * MIB, 2.0));
        assert_eq!(Demand::of_host(&facts[..1]), None);
    }
}
