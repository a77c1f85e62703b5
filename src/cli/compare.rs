//! `unladen compare`: two runs, two sets of runs, or two arms of one run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::CompareArgs;
use super::{CliError, Exit, print_line};
use crate::report::{arms_table, changes_table, slopes_table};
use crate::stats::{
    Comparison, Repeats, RunComparison, RunRef, compare_arms, compare_runs, repeated_slopes,
    same_cells,
};
use crate::store::{MANIFEST_FILE, RunData, read_run};

/// Why runs cannot be compared.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompareError {
    /// A folder that is no run and has none.
    #[error("{} is neither a run's folder nor a folder with runs in it", .0.display())]
    NoRun(PathBuf),
    /// A folder that cannot be looked into.
    #[error("cannot look into {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Runs of different specs.
    #[error(
        "run {new} did not measure the same cells as run {base}; `--any-spec` compares those that \
         both have"
    )]
    Unlike {
        /// Id of the first run of the base.
        base: String,
        /// Id of the run that differs.
        new: String,
    },
    /// Slopes are of one run each.
    #[error("--slopes compares one run with one other, not folders of several runs")]
    TwoRuns,
    /// No slope has an interval in both runs.
    #[error(
        "no slope has an interval in both runs: it takes memory or density cells with at least five \
         readings of several instances (memory_cap, density_cap)"
    )]
    NoSlopes,
    /// An arm that the run does not have.
    #[error("run {run} has no arm `{arm}`, only: {known}")]
    NoArm {
        /// Id of the run.
        run: String,
        /// The name asked for.
        arm: String,
        /// The names that there are.
        known: String,
    },
}

/// Compares, prints, and says by the exit code whether something got worse.
pub(super) fn compare(args: &CompareArgs) -> Result<Exit, CliError> {
    let base = read_runs(&args.base)?;
    if let Some([subject, baseline]) = args.arms.as_deref() {
        return arms(args, &base, subject, baseline);
    }
    let Some(new) = args.new.as_deref() else { return Ok(Exit::Usage) };
    let new = read_runs(new)?;
    if !args.any_spec {
        refuse_unlike(&base, &new)?;
    }
    if args.slopes {
        return slopes(args, &base, &new);
    }
    let found = compare_runs(&views(&base), &views(&new));
    if args.json {
        print_json(&found)?;
    } else {
        print_changes(&found)?;
    }
    let worse = found.changes.iter().any(|change| change.is_regression(args.threshold));
    Ok(if worse && args.fail_on_regression { Exit::Regression } else { Exit::Ok })
}

/// The run in a folder, or those in the folders in it, in the order of names.
fn read_runs(path: &Path) -> Result<Vec<RunData>, CliError> {
    if path.join(MANIFEST_FILE).is_file() {
        return Ok(vec![read_run(path)?]);
    }
    let folder = |source| CompareError::Folder { path: path.to_owned(), source };
    let mut inside = Vec::new();
    for entry in fs::read_dir(path).map_err(folder)? {
        let candidate = entry.map_err(folder)?.path();
        if candidate.join(MANIFEST_FILE).is_file() {
            inside.push(candidate);
        }
    }
    if inside.is_empty() {
        return Err(CompareError::NoRun(path.to_owned()).into());
    }
    inside.sort();
    inside.iter().map(|run| read_run(run).map_err(CliError::from)).collect()
}

fn views(runs: &[RunData]) -> Vec<RunRef<'_>> {
    runs.iter().map(|run| RunRef { manifest: &run.manifest, samples: &run.samples }).collect()
}

fn refuse_unlike(base: &[RunData], new: &[RunData]) -> Result<(), CompareError> {
    let Some(first) = base.first() else { return Ok(()) };
    let unlike = base.iter().chain(new).find(|run| !same_cells(&first.manifest, &run.manifest));
    match unlike {
        None => Ok(()),
        Some(run) => Err(CompareError::Unlike {
            base: first.manifest.run_id.clone(),
            new: run.manifest.run_id.clone(),
        }),
    }
}

/// Whether the slopes of two runs repeat.
fn slopes(args: &CompareArgs, base: &[RunData], new: &[RunData]) -> Result<Exit, CliError> {
    let ([base], [new]) = (&views(base)[..], &views(new)[..]) else {
        return Err(CompareError::TwoRuns.into());
    };
    let found = repeated_slopes(*base, *new);
    if found.iter().all(|slope| matches!(slope.repeats, Repeats::Unknown { .. })) {
        return Err(CompareError::NoSlopes.into());
    }
    if args.json {
        print_json(&found)?;
    } else {
        print_line(&slopes_table(&found).to_string())?;
    }
    let apart = found.iter().any(|slope| matches!(slope.repeats, Repeats::No { .. }));
    Ok(if apart { Exit::Regression } else { Exit::Ok })
}

/// Two arms of the one run that was given.
fn arms(
    args: &CompareArgs,
    runs: &[RunData],
    subject: &str,
    baseline: &str,
) -> Result<Exit, CliError> {
    let mut regressed = false;
    for run in views(runs) {
        let mut known: Vec<String> =
            run.manifest.cells.iter().map(|fact| fact.cell.label()).collect();
        known.dedup();
        for arm in [subject, baseline] {
            if !known.iter().any(|label| label == arm) {
                return Err(CompareError::NoArm {
                    run: run.manifest.run_id.clone(),
                    arm: arm.to_owned(),
                    known: quoted(known),
                }
                .into());
            }
        }
        let found = compare_arms(run, subject, baseline);
        if args.json {
            print_json(&found)?;
        } else {
            print_line(&arms_table(&found).to_string())?;
        }
        regressed |= found.iter().any(|comparison| is_worse(comparison, args.threshold));
    }
    Ok(if regressed && args.fail_on_regression { Exit::Regression } else { Exit::Ok })
}

/// Names without repetition, as they must be typed.
fn quoted(mut names: Vec<String>) -> String {
    names.sort();
    names.dedup();
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn is_worse(comparison: &Comparison, threshold: f64) -> bool {
    comparison.verdict.is_worse_by(comparison.ratio, threshold)
}

/// What differs first, then every change.
fn print_changes(found: &RunComparison) -> Result<(), CliError> {
    print_line(&format!("base: {}", found.base.join(", ")))?;
    print_line(&format!("new:  {}", found.new.join(", ")))?;
    for fact in &found.facts {
        let (base, new) = (fact.base.join(" | "), fact.new.join(" | "));
        print_line(&format!("differs: {}: {base} -> {new}", fact.name))?;
    }
    print_line(&changes_table(found).to_string())?;
    for line in &found.missing {
        print_line(&format!("not compared: {line}"))?;
    }
    found.caution.as_ref().map_or(Ok(()), |caution| print_line(caution))
}

fn print_json<T: Serialize>(value: &T) -> Result<(), CliError> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| CliError::Output(error.into()))?;
    print_line(&text)
}
