//! A run's folder: `manifest.json` and `samples.csv`, written so that a
//! harness killed at any moment leaves a folder that reads back and can be
//! continued.
//!
//! The rows of one trial are appended in one write and synced; each row says
//! how many rows its trial has (column `rows`). So a trial is either there
//! with all of its rows, or recognisably cut short at the end of the file and
//! then ignored as if it had never begun. The steps of a ladder, which may take
//! long, are kept in a file of their own until its trial is appended: they are
//! read with the rest, and a run that is continued climbs anew. Everything else that is wrong with
//! a file is an error that names the place. Nothing here computes.

mod error;
mod read;
mod row;
mod write;

pub use error::StoreError;
pub use read::{RunData, read_manifest, read_run};
pub use row::COLUMNS;
pub use write::{Resumed, RunWriter};

/// Name of the manifest in a run's folder.
pub const MANIFEST_FILE: &str = "manifest.json";
/// Name of the samples in a run's folder.
pub const SAMPLES_FILE: &str = "samples.csv";
/// Name of the steps of a ladder that is not at its end; gone when it is.
pub const PARTIAL_FILE: &str = "partial.csv";

/// Writes `~` for the user's home folder: results are sent to others, whom a
/// user name does not concern.
pub(crate) fn homely(text: &str) -> String {
    // Most texts name no path.
    if !text.contains('/') {
        return text.to_owned();
    }
    match std::env::var("HOME") {
        Ok(home) if home.len() > 1 => text.replace(&format!("{home}/"), "~/"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
