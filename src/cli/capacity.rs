//! `unladen cost`: how many instances fit a host, and what they cost.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};

use super::args::CostArgs;
use super::{CliError, Exit, print_line};
use crate::stats::{Capacity, Demand, Summary};
use crate::store::read_run;
use crate::units::{Bytes, Unit};

/// Computes and prints.
pub(super) fn capacity(args: &CostArgs) -> Result<Exit, CliError> {
    let run = read_run(&args.run)?;
    let summary = Summary::build(&run.manifest, &run.samples);
    let own = Demand::of_host(&run.manifest.host_before);
    let memory = args.memory.map(|Bytes(bytes)| bytes).or(own.map(|own| own.memory));
    let cpus = args.cpus.or(own.map(|own| own.cpus));
    let (Some(memory), Some(cpus)) = (memory, cpus) else {
        return Err(CliError::NoHost { run: run.manifest.run_id });
    };
    let demand = Demand {
        memory,
        cpus,
        reserve: args.reserve,
        each_memory: args.each_memory.0,
        each_cpus: args.each_cpus,
        host_cost: args.host_cost,
        ledger: args.ledger.map(Into::into),
    };
    let capacity = Capacity::of(&summary, demand);
    if args.json {
        let text = serde_json::to_string_pretty(&capacity);
        print_line(&text.map_err(|error| CliError::Output(error.into()))?)?;
    } else {
        print(&capacity)?;
    }
    Ok(if capacity.fits.is_empty() { Exit::HostLacks } else { Exit::Ok })
}

fn print(capacity: &Capacity) -> Result<(), CliError> {
    if capacity.fits.is_empty() {
        return print_line(
            "this run has no cell with a slope of memory over instances: it needs a density \
             ladder, or memory cells with a memory_cap",
        );
    }
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header([
            "cell",
            "ledger",
            "each",
            "fixed",
            "instances",
            "range",
            "per GiB",
            "ended by",
            "basis",
            "1000 a month",
        ]);
    for fit in &capacity.fits {
        table.add_row(fit.fields());
    }
    print_line(&table.to_string())?;
    for line in capacity.assumptions() {
        print_line(&format!("- {line}"))?;
    }
    Ok(())
}

/// A size on the command line.
pub(super) fn size(text: &str) -> Result<Bytes, String> {
    text.parse().map_err(|error: crate::units::SizeError| error.to_string())
}

/// A positive number of processors, or a price.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err(format!("`{text}` is not a number from zero, such as {}", Unit::Count.human(2.5))),
    }
}
