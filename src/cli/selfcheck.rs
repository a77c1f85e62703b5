//! `unladen selfcheck`: are the instruments right?

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};

use super::args::{RunArgs, SelfcheckArgs};
use super::{CliError, Exit, print_line, run};
use crate::claims::{self, Check};
use crate::spec::SELFCHECK;
use crate::stats::Summary;
use crate::store::read_run;

/// Measures work of known cost on every backend, and compares.
pub(super) fn selfcheck(args: SelfcheckArgs) -> Result<Exit, CliError> {
    let temporary = tempfile::tempdir().map_err(CliError::Temporary)?;
    let dir = args.out.unwrap_or_else(|| temporary.path().join("selfcheck"));
    let exit = run::run(&RunArgs::of(SELFCHECK.name, args.backend, dir.clone()))?;
    if !matches!(exit, Exit::Ok | Exit::TrialsFailed | Exit::HostLacks) {
        return Ok(exit);
    }
    let data = read_run(&dir)?;
    let checks = claims::selfcheck(&Summary::build(&data.manifest, &data.samples));
    if args.json {
        let text = serde_json::to_string_pretty(&checks)
            .map_err(|error| CliError::Output(error.into()))?;
        print_line(&text)?;
    } else {
        print(&checks)?;
    }
    // What could not be measured is told by the run's own exit code.
    let off = checks.iter().any(|check| check.measured.is_some() && !check.passed);
    Ok(if off { Exit::TrialsFailed } else { exit })
}

/// A row for each instrument, and what is off in words below.
fn print(checks: &[Check]) -> Result<(), CliError> {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["arm", "instrument", "expected", "measured", "verdict"]);
    for check in checks {
        let measured = check.measured.clone().unwrap_or_else(|| "–".to_owned());
        table.add_row([&check.arm, &check.instrument, &check.expected, &measured, &verdict(check)]);
    }
    print_line(&table.to_string())?;
    for check in checks {
        if let Some(reason) = &check.reason {
            print_line(&format!("not measured: {}, {}: {reason}", check.arm, check.instrument))?;
        }
    }
    Ok(())
}

fn verdict(check: &Check) -> String {
    match check.off {
        None => "not measured".to_owned(),
        Some(_) if check.passed => "right".to_owned(),
        Some(off) => format!("off by {:+.1} %", 100.0 * off),
    }
}
