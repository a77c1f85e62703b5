//! Whether instances that read one file share it in memory, as a sentence
//! made from the slopes of a run.
//!
//! The ledger is the cgroup's. PSS does not see a page that is read and not
//! mapped, and what the host has in use is counted without its caches. All
//! cgroups together are charged once for a page that instances share, and once
//! for each of them where each has its own.

use crate::record::{CellKey, Experiment, Ledger, Metric, Workload};
use crate::stats::{CellSummary, Interval, Summary};
use crate::units::{MIB, Unit};

/// What a cell's instances do with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copies {
    One,
    Each,
    Unknown,
}

/// One sentence for each size of file.
pub(super) fn sharing(summary: &Summary) -> Vec<String> {
    let mut sizes: Vec<u32> = readers(summary).map(|(mib, _)| mib).collect();
    sizes.dedup();
    sizes.into_iter().filter_map(|mib| sentence(summary, mib)).collect()
}

/// Memory cells that read a file, with its MiB.
fn readers(summary: &Summary) -> impl Iterator<Item = (u32, &CellSummary)> {
    let cells = summary.cells.iter().filter(|cell| cell.cell.experiment == Experiment::Memory);
    cells.filter(|cell| !cell.is_control()).filter_map(|cell| match cell.cell.workload {
        Workload::Read(mib) => Some((mib, cell)),
        _ => None,
    })
}

fn sentence(summary: &Summary, mib: u32) -> Option<String> {
    let human = |bytes: f64| Unit::Bytes.human(bytes);
    let size = u64::from(mib) * MIB;
    let all: Vec<&CellSummary> =
        readers(summary).filter(|(other, _)| *other == mib).map(|(_, cell)| cell).collect();
    let parts: Vec<String> = all
        .iter()
        .filter_map(|cell| {
            let (more, interval) = beyond_idle(summary, cell)?;
            let verdict = match copies(interval, size as f64) {
                Copies::One => "one copy for all",
                Copies::Each => "a copy each",
                Copies::Unknown => "no verdict",
            };
            let interval = interval.map_or(String::new(), |found| {
                format!(" [{}, {}]", human(found.low), human(found.high))
            });
            Some(format!("{}{interval} for {} ({verdict})", human(more), cell.label))
        })
        .collect();
    let cached = all.iter().flat_map(|cell| &cell.metrics).filter_map(|found| {
        (found.metric == Metric::FileCached).then_some(found.values.as_ref()?.max)
    });
    let held = cached.reduce(f64::max).map_or(String::new(), |most| {
        format!(
            "; the host's page cache never held more than {} of it or of its image",
            human(most)
        )
    });
    (!parts.is_empty()).then(|| {
        format!(
            "Beyond an idle instance, one more that has read the same file of {} costs {}, by what \
             its memory cgroup is charged{held}.",
            human(size as f64),
            parts.join(", ")
        )
    })
}

/// How much more one more instance costs than an idle one of the same kind,
/// with the interval that both slopes' intervals allow.
fn beyond_idle(summary: &Summary, cell: &CellSummary) -> Option<(f64, Option<Interval>)> {
    let idle = CellKey { workload: Workload::Pause, ..cell.cell.clone() };
    let idle = summary.cells.iter().find(|other| other.cell == idle)?;
    let (read, idle) = (cell.marginal(Ledger::Cgroup)?, idle.marginal(Ledger::Cgroup)?);
    let interval = read
        .interval
        .zip(idle.interval)
        .map(|(read, idle)| Interval { low: read.low - idle.high, high: read.high - idle.low });
    Some((read.slope - idle.slope, interval))
}

/// What the interval allows to say: half a file lies between none and one.
fn copies(interval: Option<Interval>, size: f64) -> Copies {
    match interval {
        Some(found) if found.high < size / 2.0 => Copies::One,
        Some(found) if found.low > size / 2.0 => Copies::Each,
        _ => Copies::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::{at_step, key, manifest};

    /// The sentence about machines and containers that cost so many MiB each,
    /// idle and with a file of 32 MiB.
    fn told(container: [f64; 2], machine: [f64; 2]) -> Vec<String> {
        let cells = ["container pause", "container read=32", "vm pause", "vm read=32"];
        let cells = cells.map(|name| key(&format!("memory {name}")));
        let slopes = [container, machine].concat();
        let mut samples = Vec::new();
        for (cell, slope) in cells.iter().zip(slopes) {
            for step in [1, 2, 4, 8, 16] {
                let bytes = (32.0 + slope * f64::from(step)) * MIB as f64;
                samples.push(at_step(cell, 1, step, "memory.cgroup", bytes));
                if cell.workload == Workload::Read(32) {
                    let held = 32.0 * MIB as f64;
                    samples.push(at_step(cell, 1, step, "memory.file.cached", held));
                }
            }
        }
        sharing(&Summary::build(&manifest(&cells, 1), &samples))
    }

    #[test]
    fn the_claim_follows_the_slopes() {
        assert_eq!(
            told([0.125, 0.25], [50.0, 82.0]),
            [
                "Beyond an idle instance, one more that has read the same file of 32 MiB costs 128 KiB \
              [128 KiB, 128 KiB] for container (one copy for all), 32 MiB [32 MiB, 32 MiB] for \
              vm (a copy each), by what its memory cgroup is charged; the host's page cache never \
              held more than 32 MiB of it or of its image."
            ]
        );
        // Were it the other way round, the sentence would say so.
        let other = told([0.125, 32.125], [50.0, 50.5]).concat();
        assert!(other.contains("for container (a copy each)"), "{other}");
        assert!(other.contains("for vm (one copy for all)"), "{other}");
        let half = told([0.0, 16.0], [50.0, 66.0]).concat();
        assert_eq!(half.matches("no verdict").count(), 2, "{half}");
    }

    #[test]
    fn without_an_idle_cell_or_an_interval_nothing_is_claimed() {
        let cells = [key("memory vm read=32"), key("memory vm pause memory=256M")];
        let mut samples = Vec::new();
        for (cell, step) in cells.iter().flat_map(|cell| [1, 2, 4].map(|step| (cell, step))) {
            samples.push(at_step(cell, 1, step, "memory.cgroup", f64::from(step) * 1e8));
        }
        assert!(sharing(&Summary::build(&manifest(&cells, 1), &samples)).is_empty());
        assert_eq!(copies(None, 1.0), Copies::Unknown);
    }
}
