//! Specs: TOML files that say which cells are measured, and how often.
//!
//! A text becomes a [`Spec`] only when every key, name and value in it is
//! known and every cell makes sense; the error names file, line and nearest
//! known name. Nothing here knows whether this host can run a cell.
//!
//! ```toml
//! title = "Containers with and without a network namespace"
//! [rounds]                      # trials per cell
//! startup = 20
//! [density]
//! cap = 32                      # upper bound of live instances
//! slo_ms = 500                  # and of the time until the newest is ready
//! [[cells]]
//! backend = "container"
//! startup = ["exit", "pause"]   # workloads per experiment
//! density = ["pause"]
//! [[cells]]
//! backend = "container"
//! params = { net = "none" }
//! startup = ["exit", "pause"]
//! rounds = 10                   # for this entry instead of [rounds]
//! ```

mod check;
mod error;
mod params;
pub mod systems;
mod wire;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use check::known_backend;
pub use error::{Problem, SpecError, nearest};
pub use params::{Kind, Param, checked_params, known_params, param_value};

use crate::record::CellKey;

/// Largest file that is taken for a spec, in bytes.
pub const MAX_SPEC_BYTES: u64 = 1024 * 1024;

/// Trials per cell where a spec does not say: start-up.
pub const DEFAULT_STARTUP_ROUNDS: u32 = 15;
/// Trials per cell where a spec does not say: memory.
pub const DEFAULT_MEMORY_ROUNDS: u32 = 6;
/// Trials per cell where a spec does not say: density.
pub const DEFAULT_DENSITY_ROUNDS: u32 = 1;
/// Trials per cell where a spec does not say: smallest memory.
pub const DEFAULT_MINIMUM_ROUNDS: u32 = 1;
/// Trials per cell where a spec does not say: scale.
pub const DEFAULT_SCALE_ROUNDS: u32 = 1;
/// Trials per cell where a spec does not say: merging of pages.
pub const DEFAULT_KSM_ROUNDS: u32 = 1;
/// Upper bound of live instances where a spec does not say: density.
pub const DEFAULT_DENSITY_CAP: u32 = 64;
/// Likewise, memory: one alone.
pub const DEFAULT_MEMORY_CAP: u32 = 1;
/// Likewise, scale: how many are running at most.
pub const DEFAULT_SCALE_CAP: u32 = 100;
/// Likewise, merging of pages: how many share.
pub const DEFAULT_KSM_CAP: u32 = 8;
/// Most trials of one cell.
pub const MAX_ROUNDS: u32 = 100_000;
/// Most live instances of one trial.
pub const MAX_CAP: u32 = 100_000;
/// Longest start, in milliseconds, that a ladder may be told to bear.
pub const MAX_SLO_MS: u32 = 3_600_000;

/// A spec that ships with the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name, as `run` takes it.
    pub name: &'static str,
    /// What it is for and how long it takes.
    pub about: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// The shipped profiles, shortest first.
pub const PROFILES: &[Profile] = &[
    Profile {
        name: "smoke",
        about: "does everything work here? under a minute, too few trials to conclude from",
        text: include_str!("../../benches/specs/smoke.toml"),
    },
    Profile {
        name: "quick",
        about: "a first comparison, about six minutes",
        text: include_str!("../../benches/specs/quick.toml"),
    },
    Profile {
        name: "peers",
        about: "other systems beside ours: OCI runtimes, sandboxes, engines; about ten minutes",
        text: include_str!("../../benches/specs/peers.toml"),
    },
    Profile {
        name: "many",
        about: "what one more costs, how many fit, starts among many; about a quarter of an hour",
        text: include_str!("../../benches/specs/many.toml"),
    },
    Profile {
        name: "crowd",
        about: "thousands of containers, hundreds of machines: needs 10 GiB; about ten minutes",
        text: include_str!("../../benches/specs/crowd.toml"),
    },
    Profile {
        name: "full",
        about: "more backends, workloads and trials, about half an hour",
        text: include_str!("../../benches/specs/full.toml"),
    },
];

/// The spec of `unladen selfcheck`: work whose cost is known.
pub const SELFCHECK: Profile = Profile {
    name: "selfcheck",
    about: "work whose cost is known, to check the instruments by",
    text: include_str!("../../benches/specs/selfcheck.toml"),
};

/// A cell that a spec asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecCell {
    /// The cell, its parameters in stored spelling.
    pub key: CellKey,
    /// Trials, at least 1.
    pub rounds: u32,
    /// Upper bound of live instances, where a trial has several.
    pub cap: Option<u32>,
    /// Milliseconds that the start of the newest may take in a density ladder.
    pub slo_ms: Option<u32>,
}

/// A checked spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Name of the profile, or the file as the user wrote it.
    pub name: String,
    /// Its title; the name where it has none.
    pub title: String,
    /// Its whole text, for the manifest.
    pub text: String,
    /// Its cells in the order of the text; at least one, no two equal.
    pub cells: Vec<SpecCell>,
}

impl Spec {
    /// Loads a shipped profile by name, or else a file by path.
    ///
    /// # Errors
    ///
    /// When there is neither, the file cannot be read or is not a valid spec.
    pub fn load(name_or_path: &str) -> Result<Self, SpecError> {
        let shipped = || PROFILES.iter().chain([&SELFCHECK]);
        if let Some(profile) = shipped().find(|profile| profile.name == name_or_path) {
            return Self::parse(profile.name, profile.text);
        }
        let path = Path::new(name_or_path);
        let looks_like_a_file = name_or_path.contains('/') || path.extension().is_some();
        if !looks_like_a_file && !path.exists() {
            let names = PROFILES.iter().map(|profile| profile.name);
            return Err(SpecError::Unknown {
                name: name_or_path.to_owned(),
                profiles: names.clone().collect::<Vec<_>>().join(", "),
                nearest: nearest(name_or_path, names),
            });
        }
        Self::parse(name_or_path, &read_text(path)?)
    }

    /// Checks a text.
    ///
    /// # Errors
    ///
    /// At the first thing that is wrong, with its line.
    pub fn parse(name: &str, text: &str) -> Result<Self, SpecError> {
        wire::parse(text)
            .and_then(|wire| check::check(wire, text))
            .map(|(title, cells)| Self {
                name: name.to_owned(),
                title: title.unwrap_or_else(|| name.to_owned()),
                text: text.to_owned(),
                cells,
            })
            .map_err(|located| SpecError::Invalid {
                name: name.to_owned(),
                line: wire::line_of(text.as_bytes(), located.at),
                problem: Box::new(located.problem),
            })
    }
}

/// Reads a file that must be text of a sensible size.
fn read_text(path: &Path) -> Result<String, SpecError> {
    let failed = |source| SpecError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_SPEC_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_SPEC_BYTES {
        return Err(SpecError::TooLarge { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|error| SpecError::NotUtf8 {
        path: path.to_owned(),
        line: wire::line_of(error.as_bytes(), error.utf8_error().valid_up_to()),
    })
}

#[cfg(test)]
mod tests;
