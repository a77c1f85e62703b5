//! `unladen selfcheck --cost`: what measuring costs.

use std::path::Path;
use std::rc::Rc;
use std::time::SystemTime;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use super::args::SelfcheckArgs;
use super::signals::Signals;
use super::{CliError, Exit, print_line, say};
use crate::backend::{Assets, Launcher, RealBackends};
use crate::host::RunId;
use crate::run::{self, BARE, Cost, NULL, PLACED};
use crate::stats::{Interval, Ratio, Sorted, median, median_interval, quantile, ratio_of_medians};
use crate::units::Unit;

/// The file that keeps the costs in the folder of `--out`.
const FILE: &str = "cost.json";
/// Of the bootstrap: the same values give the same interval.
const SEED: u64 = 1;

/// One cost, summarised. Times in nanoseconds.
#[derive(Serialize)]
struct Entry {
    what: String,
    n: usize,
    median: Option<f64>,
    interval: Option<Interval>,
    p90: Option<f64>,
    reason: Option<String>,
}

impl Entry {
    fn new(cost: Cost) -> Self {
        let sorted = Sorted::new(cost.values);
        Self {
            what: cost.what,
            n: sorted.as_slice().len(),
            median: median(&sorted),
            interval: median_interval(&sorted),
            p90: quantile(&sorted, 0.9),
            reason: cost.reason,
        }
    }
}

/// What is printed and stored.
#[derive(Serialize)]
struct Costs {
    costs: Vec<Entry>,
    /// The null backend over the bare spawn into control groups: what our
    /// own launcher costs.
    null_over_placed: Option<Ratio>,
    /// The bare spawn into control groups over the bare spawn: what the same
    /// placement as that of all others costs.
    placed_over_bare: Option<Ratio>,
}

/// Measures, prints, and stores if a folder is named.
pub(super) fn cost(args: &SelfcheckArgs) -> Result<Exit, CliError> {
    let signals = Signals::catch().map_err(CliError::Signals)?;
    let assets = Rc::new(Assets::unpack()?);
    let run_id = RunId::new(SystemTime::now())?;
    let executable = std::env::current_exe().map_err(CliError::Executable)?;
    let interrupt = signals.descriptor().map_err(CliError::Signals)?;
    let launcher = Launcher::start(&executable, run_id.as_str(), Some(interrupt))?;
    let mut backends = RealBackends::new(launcher, &assets, run_id.as_str(), None, None).boxed();
    let only: Vec<_> = args.backend.iter().map(|&name| name.into()).collect();
    backends.retain(|backend| only.is_empty() || only.contains(&backend.name()));
    let costs = run::cost(&mut backends, &assets.payload(), run_id.as_str());
    drop(backends);
    if signals.stop.load(std::sync::atomic::Ordering::Relaxed) {
        return Ok(signals.exit());
    }
    let costs = Costs {
        null_over_placed: over(&costs, NULL, PLACED),
        placed_over_bare: over(&costs, PLACED, BARE),
        costs: costs.into_iter().map(Entry::new).collect(),
    };
    let text =
        serde_json::to_string_pretty(&costs).map_err(|error| CliError::Output(error.into()))?;
    if let Some(dir) = &args.out {
        store(dir, &text)?;
    }
    match args.json {
        true => print_line(&text)?,
        false => print(&costs)?,
    }
    let missing = costs.costs.iter().any(|entry| entry.reason.is_some());
    Ok(if missing { Exit::HostLacks } else { Exit::Ok })
}

/// The ratio of two costs that were measured in turns.
fn over(costs: &[Cost], subject: &str, baseline: &str) -> Option<Ratio> {
    let of = |name: &str| costs.iter().find(|cost| cost.what == name).map(|cost| &cost.values);
    let (subject, baseline) = of(subject).zip(of(baseline))?;
    let turns: Vec<_> = subject.iter().copied().zip(baseline.iter().copied()).collect();
    ratio_of_medians(&turns, SEED)
}

fn store(dir: &Path, text: &str) -> Result<(), CliError> {
    std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(dir.join(FILE), format!("{text}\n")))
        .map_err(CliError::Output)?;
    say(&format!("stored: {}", dir.join(FILE).display()));
    Ok(())
}

fn print(costs: &Costs) -> Result<(), CliError> {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["what", "n", "median", "95 % interval", "p90"]);
    let human = |value: Option<f64>| {
        value.map_or_else(|| "–".to_owned(), |value| Unit::Nanoseconds.human(value))
    };
    for entry in &costs.costs {
        let between = entry.interval.map_or_else(String::new, |found| {
            format!("{} to {}", human(Some(found.low)), human(Some(found.high)))
        });
        let n = entry.n.to_string();
        table.add_row([&entry.what, &n, &human(entry.median), &between, &human(entry.p90)]);
    }
    print_line(&table.to_string())?;
    for entry in &costs.costs {
        if let Some(reason) = &entry.reason {
            print_line(&format!("not measured: {}: {reason}", entry.what))?;
        }
    }
    for (ratio, what) in [
        (
            costs.null_over_placed,
            "the null backend takes {} against a bare spawn into the same control groups: that is \
             what our launcher costs",
        ),
        (
            costs.placed_over_bare,
            "a spawn into control groups takes {} against one that stays where it is: every \
             instance pays that, so the null backend does, too",
        ),
    ] {
        if let Some(ratio) = ratio {
            print_line(&what.replace("{}", &more(ratio)))?;
        }
    }
    Ok(())
}

/// `+3.1 % (95 % interval -0.4 % to +6.8 %)`.
fn more(ratio: Ratio) -> String {
    let percent = |ratio: f64| format!("{:+.1} %", 100.0 * (ratio - 1.0));
    let interval = ratio.interval.map_or_else(String::new, |found| {
        format!(" (95 % interval {} to {})", percent(found.low), percent(found.high))
    });
    format!("{}{interval}", percent(ratio.ratio))
}
