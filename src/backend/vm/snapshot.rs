//! How the guests of a cell begin: from nothing, or from a snapshot that is
//! made when the cell is prepared. The launcher makes it; this module only
//! says of what and where.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::super::Assets;
use super::super::assets::user_cache;
use super::super::launcher::order::{Program, Recipe, Snapshot};
use super::machine::{Machine, Qemu};
use super::{Accelerator, VmError};
use crate::host::RunId;
use crate::record::{CellKey, Workload};
use crate::spec::param_value;

/// The name of the folder in the cache that holds a folder for each run with
/// snapshots.
const FOLDER: &str = "snapshots";

/// The first QEMU that saves to a file by its name: 8.2, of December 2023.
const KNOWS_FILES: (u32, u32) = (8, 2);

/// The folders with snapshots in the user's cache, with the ids of their
/// runs.
pub(in crate::backend) fn folders() -> Vec<(String, PathBuf)> {
    run_folders(FOLDER)
}

/// The folders of runs in a folder of the user's cache, with their ids.
pub(in crate::backend) fn run_folders(name: &str) -> Vec<(String, PathBuf)> {
    // Without the cache, or the folder in it, no run has anything there.
    let Ok(cache) = user_cache() else { return Vec::new() };
    let entries = fs::read_dir(cache.join(name)).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .filter(|(id, _)| id.parse::<RunId>().is_ok())
        .collect()
}

/// How a guest begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// It boots.
    Cold,
    /// It goes on from a snapshot, whose memory it maps privately.
    Clone,
    /// It goes on from a snapshot, all of which is read.
    Restore,
}

impl Start {
    /// What the cell asks for.
    pub(super) fn of(cell: &CellKey) -> Self {
        match param_value(cell, "start") {
            Some("clone") => Self::Clone,
            Some("restore") => Self::Restore,
            _ => Self::Cold,
        }
    }
}

/// What a cell's guests are and where they run.
pub(super) struct Guests<'a> {
    pub(super) machine: &'a Machine,
    pub(super) qemu: &'a Qemu,
    pub(super) assets: &'a Assets,
    pub(super) accelerator: Accelerator,
    pub(super) run_id: &'a str,
    pub(super) deadline: Duration,
}

impl Guests<'_> {
    /// The recipe for guests that begin like this, and its commands for the
    /// report; `number` names a snapshot and is unique in the run.
    pub(super) fn recipe(
        &self,
        start: Start,
        number: u32,
    ) -> Result<(Recipe, Vec<String>), VmError> {
        if start == Start::Cold {
            let monitor = self.machine.monitor(self.assets, self.accelerator, self.run_id)?;
            let mut command = monitor.program.argv.clone();
            if let Some(server) = &monitor.server {
                command.push("with its files served by:".to_owned());
                command.extend(server.argv.iter().cloned());
            }
            return Ok((Recipe::Machine(monitor), command));
        }
        let snapshot = Snapshot {
            folder: self.folder(),
            name: number.to_string(),
            mapped: start == Start::Clone,
            files: version(&self.qemu.version).is_some_and(|version| version >= KNOWS_FILES),
            ends: match self.machine.workload {
                Workload::Exit => Some(0),
                Workload::ExitWith(code) => Some(code),
                _ => None,
            },
            deadline_ms: u64::try_from(self.deadline.as_millis()).unwrap_or(u64::MAX),
        };
        let memory = snapshot.memory_file().display().to_string();
        let mut common: Vec<&str> = Vec::new();
        if snapshot.mapped {
            common.extend(["--memory-file", &memory]);
        }
        // What a guest needs to know that it is a copy; only machines with
        // ACPI can tell it.
        if self.machine.kind != "microvm" {
            common.push("--generation-id");
        }
        let share = |word| if snapshot.mapped { vec!["--memory-share", word] } else { vec![] };
        let waiting = self.machine.waiting();
        let source = self.program(&waiting, &[common.clone(), share("on")].concat())?;
        let program =
            self.program(&waiting, &[common, share("off"), vec!["--incoming"]].concat())?;
        let mut command = program.argv.clone();
        command.push("from a snapshot of:".to_owned());
        command.extend(source.argv.iter().cloned());
        let tells_code = self.machine.tells_code();
        Ok((Recipe::Restored { program, source, snapshot, tells_code }, command))
    }

    /// The folder of the run's snapshots.
    fn folder(&self) -> PathBuf {
        self.assets.cache().join(FOLDER).join(self.run_id)
    }

    fn program(&self, machine: &Machine, more: &[&str]) -> Result<Program, VmError> {
        machine.program(self.assets, self.accelerator, self.run_id, more)
    }
}

/// Major and minor number in QEMU's own version line.
fn version(line: &str) -> Option<(u32, u32)> {
    let words = line.strip_prefix("QEMU emulator version ")?;
    let mut numbers = words.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)";
        assert_eq!(version(debian), Some((7, 2)));
        assert_eq!(version("QEMU emulator version 10.0.2"), Some((10, 0)));
        assert!(version("QEMU emulator version 10.0.2") > Some(KNOWS_FILES));
        for bad in ["", "qemu 7.2", "QEMU emulator version seven", "QEMU emulator version 7"] {
            assert_eq!(version(bad), None, "{bad}");
        }
    }
}
