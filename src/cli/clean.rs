//! `unladen clean`: removes what killed runs left behind, and nothing else.

use super::args::CleanArgs;
use super::{CliError, Exit, print_line, say, tune};
use crate::backend::leftovers::{Leftover, leftovers, remove};
use crate::image::{ImageError, Store};

/// Removes leftovers, and says what they were.
pub(super) fn clean(args: &CleanArgs) -> Result<Exit, CliError> {
    let mut found = leftovers()?;
    if let Some(wanted) = &args.run_id {
        found.retain(|id, _| id == wanted);
    }
    let mut removed = 0_u32;
    for (id, leftover) in &found {
        if leftover.alive {
            say(&format!("run {id} is alive and left alone"));
            continue;
        }
        print_line(&describe(id, leftover))?;
        removed += 1;
        if !args.dry_run {
            remove(id, leftover)?;
        }
    }
    // Drafts of killed imports carry no run's id.
    if args.run_id.is_none() && !args.dry_run {
        let drafts = match Store::open() {
            Ok(store) => store.sweep()?,
            // Without a cache there is no draft in it.
            Err(ImageError::NoCache) => 0,
            Err(error) => return Err(error.into()),
        };
        if drafts > 0 {
            print_line(&format!("image store: {drafts} drafts of killed imports"))?;
            removed += 1;
        }
    }
    if args.run_id.is_none() {
        removed += tune::clean(args.dry_run)?;
    }
    if removed == 0 {
        say("nothing is left behind");
    }
    Ok(Exit::Ok)
}

fn describe(id: &str, leftover: &Leftover) -> String {
    let mut parts = Vec::new();
    if let Some(pid) = leftover.launcher {
        parts.push(format!("an orphaned launcher (process {pid})"));
    }
    if !leftover.processes.is_empty() {
        parts.push(format!("{} processes", leftover.processes.len()));
    }
    parts.extend(leftover.links.iter().map(|link| format!("the interface {link}")));
    parts.extend(
        leftover
            .instances
            .iter()
            .map(|folder| format!("instances of other systems ({})", folder.display())),
    );
    parts.extend(leftover.snapshots.iter().map(|folder| folder.display().to_string()));
    parts.extend(leftover.cgroups.iter().map(|folder| folder.display().to_string()));
    format!("run {id}: {}", parts.join(", "))
}
