//! `unladen list`: what there is to choose from, and what cannot run here.

use std::rc::Rc;
use std::time::SystemTime;

use comfy_table::Table;
use serde::Serialize;

use super::args::ListArgs;
use super::{CliError, Exit, print_line, systems};
use crate::backend::{Accelerator, Assets, Launcher, RealBackends};
use crate::errors::chain;
use crate::host::RunId;
use crate::record::{BackendName, CellKey, Experiment, Params, Version, Workload};
use crate::spec::systems::known;
use crate::spec::{PROFILES, known_params};

/// Everything that can be named in a spec or a flag.
#[derive(Serialize)]
struct Listing {
    backends: Vec<BackendEntry>,
    profiles: Vec<Entry>,
    experiments: Vec<Entry>,
    workloads: Vec<Entry>,
}

#[derive(Serialize)]
struct BackendEntry {
    name: &'static str,
    about: String,
    /// Whether this suite's authors have never seen it work.
    never_run: bool,
    versions: Vec<String>,
    /// Why it cannot run here.
    unavailable: Option<String>,
    params: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    about: String,
}

impl Entry {
    fn new(name: &str, about: &str) -> Self {
        Self { name: name.to_owned(), about: about.to_owned() }
    }
}

/// Prints the listing.
pub(super) fn list(args: &ListArgs) -> Result<Exit, CliError> {
    systems::know(args.backends.as_deref())?;
    let listing = Listing {
        backends: backends(args.accel.into())?,
        profiles: PROFILES.iter().map(|p| Entry::new(p.name, p.about)).collect(),
        experiments: Experiment::ALL.iter().map(|e| Entry::new(e.as_str(), about(*e))).collect(),
        workloads: vec![
            Entry::new("pause", "ready at once, then idle"),
            Entry::new("exit", "ready at once, then runs to completion"),
            Entry::new("exit=CODE", "ready at once, then ends with this code"),
            Entry::new("touch=MIB", "touches this much memory, proves it, then idles"),
            Entry::new("churn=MIB", "the same, and gives it back when it is told to"),
            Entry::new("read=MIB", "reads a file of this size that all instances have, then idles"),
            Entry::new("sleep=MS", "sleeps so long before it is ready, then idles"),
            Entry::new("spin=MS", "uses so much CPU time before it is ready, then idles"),
            Entry::new("http", "answers an HTTP/1.1 request over its channel"),
        ],
    };
    if args.json {
        let text = serde_json::to_string_pretty(&listing)
            .map_err(|error| CliError::Output(error.into()))?;
        print_line(&text)?;
    } else {
        print(&listing)?;
    }
    Ok(Exit::Ok)
}

fn about(experiment: Experiment) -> &'static str {
    match experiment {
        Experiment::Startup => "one instance from request to gone, with all marks",
        Experiment::Memory => "one idle instance read by every ledger, then several",
        Experiment::Scale => "the next start beside many others, many starts at once",
        Experiment::Ksm => "what merging equal pages gains (changes host settings for its time)",
        Experiment::Minimum => "the smallest memory with which an instance still becomes ready",
        Experiment::Density => "a ladder of live instances, memory at each step",
    }
}

/// Asks each backend for its version and has it prepare its plainest cell.
fn backends(accelerator: Option<Accelerator>) -> Result<Vec<BackendEntry>, CliError> {
    let assets = Rc::new(Assets::unpack()?);
    let executable = std::env::current_exe().map_err(CliError::Executable)?;
    let run_id = RunId::new(SystemTime::now())?.to_string();
    let launcher = Launcher::start(&executable, &run_id, None)?;
    let mut entries = Vec::new();
    for mut backend in RealBackends::new(launcher, &assets, &run_id, None, accelerator).boxed() {
        let name = backend.name();
        let (versions, unavailable) = match backend.versions() {
            Ok(versions) => {
                let cell = plainest(name);
                // Preparing somebody else's may load an image: its version has
                // to do.
                let refused = match name {
                    BackendName::Peer(_) => None,
                    _ => backend.prepare(&cell).err(),
                };
                (versions, refused.map(|error| chain(&error)))
            }
            Err(error) => (Vec::new(), Some(chain(&error))),
        };
        let system = known().get(name.as_str());
        entries.push(BackendEntry {
            name: name.as_str(),
            about: system.map(|system| system.about.clone()).unwrap_or_default(),
            never_run: system.is_some_and(|system| system.never_run),
            versions: versions.into_iter().map(|version| said(name, version)).collect(),
            unavailable,
            params: known_params(name)
                .iter()
                .map(|p| Entry::new(p.name, &format!("{} ({})", p.about, p.kind.expected())))
                .collect(),
        });
    }
    Ok(entries)
}

/// A version for people. The entry's own name need not be said twice.
fn said(backend: BackendName, Version { name, version }: Version) -> String {
    let version = version.strip_prefix("QEMU emulator version ").unwrap_or(&version);
    if name == backend.as_str() { version.to_owned() } else { format!("{name} {version}") }
}

/// A cell with every parameter at its default.
fn plainest(backend: BackendName) -> CellKey {
    let (experiment, workload) = (Experiment::Startup, Workload::Exit);
    CellKey { experiment, backend, workload, params: Params::default() }
}

fn print(listing: &Listing) -> Result<(), CliError> {
    let backends: Vec<Entry> = listing
        .backends
        .iter()
        .map(|entry| {
            let never = if entry.never_run { "never run by us; " } else { "" };
            let state = match &entry.unavailable {
                Some(reason) => format!("{never}cannot run here: {reason}"),
                None => entry.versions.join(", "),
            };
            Entry::new(entry.name, &state)
        })
        .collect();
    print_entries("Backends", &backends)?;
    for entry in listing.backends.iter().filter(|entry| !entry.params.is_empty()) {
        print_entries(&format!("Parameters of {}", entry.name), &entry.params)?;
    }
    print_entries("Profiles", &listing.profiles)?;
    print_entries("Experiments", &listing.experiments)?;
    print_entries("Workloads", &listing.workloads)
}

fn print_entries(heading: &str, entries: &[Entry]) -> Result<(), CliError> {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    for entry in entries {
        table.add_row([&format!("  {}", entry.name), &entry.about]);
    }
    print_line(&format!("{heading}:\n{}\n", table.trim_fmt()))
}
