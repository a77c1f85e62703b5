//! From the wire form of a spec to its cells.

use std::collections::BTreeMap;

use toml::Spanned;

use crate::record::{BackendName, CellKey, Experiment, Params, Workload};
use crate::units::{Bytes, MIB};

use super::error::{Problem, nearest};
use super::params::{check as check_param, contradiction, normalise, param_value};
use super::systems;
use super::wire::{CellWire, Located, RoundsWire, SpecWire, line_of};
use super::{
    DEFAULT_DENSITY_CAP, DEFAULT_DENSITY_ROUNDS, DEFAULT_KSM_CAP, DEFAULT_KSM_ROUNDS,
    DEFAULT_MEMORY_CAP, DEFAULT_MEMORY_ROUNDS, DEFAULT_MINIMUM_ROUNDS, DEFAULT_SCALE_CAP,
    DEFAULT_SCALE_ROUNDS, DEFAULT_STARTUP_ROUNDS, MAX_CAP, MAX_ROUNDS, MAX_SLO_MS, SpecCell,
};

/// What an entry gets where it does not say otherwise.
struct Defaults {
    rounds: BTreeMap<Experiment, u32>,
    density_cap: u32,
    slo_ms: Option<u32>,
}

/// Checks the wire form of `text`: its title and its cells.
pub(super) fn check(
    wire: SpecWire,
    text: &str,
) -> Result<(Option<String>, Vec<SpecCell>), Located> {
    let defaults = Defaults {
        rounds: rounds(&wire.rounds)?,
        density_cap: number("cap", wire.density.cap.as_ref(), MAX_CAP)?
            .unwrap_or(DEFAULT_DENSITY_CAP),
        slo_ms: number("slo_ms", wire.density.slo_ms.as_ref(), MAX_SLO_MS)?,
    };
    let mut cells = Vec::new();
    let mut seen = BTreeMap::new();
    for entry in &wire.cells {
        for (at, cell) in expand(entry, &defaults)? {
            if let Some(first) = seen.insert(cell.key.clone(), at) {
                let first = line_of(text.as_bytes(), first);
                let problem = Problem::Duplicate { cell: cell.key.to_string(), first };
                return Err(Located { at, problem });
            }
            let is_mock = cell.key.backend == BackendName::Mock;
            if cells.iter().any(|c: &SpecCell| (c.key.backend == BackendName::Mock) != is_mock) {
                return Err(Located { at, problem: Problem::MockBesideReal });
            }
            cells.push(cell);
        }
    }
    if cells.is_empty() {
        return Err(Located { at: 0, problem: Problem::Empty });
    }
    Ok((wire.title, cells))
}

/// Trials per cell for each experiment.
fn rounds(wire: &RoundsWire) -> Result<BTreeMap<Experiment, u32>, Located> {
    let one = |key: &str, given: &Option<Spanned<i64>>, default| {
        number(key, given.as_ref(), MAX_ROUNDS).map(|given| given.unwrap_or(default))
    };
    Ok(BTreeMap::from([
        (Experiment::Startup, one("startup", &wire.startup, DEFAULT_STARTUP_ROUNDS)?),
        (Experiment::Memory, one("memory", &wire.memory, DEFAULT_MEMORY_ROUNDS)?),
        (Experiment::Density, one("density", &wire.density, DEFAULT_DENSITY_ROUNDS)?),
        (Experiment::Minimum, one("minimum", &wire.minimum, DEFAULT_MINIMUM_ROUNDS)?),
        (Experiment::Scale, one("scale", &wire.scale, DEFAULT_SCALE_ROUNDS)?),
        (Experiment::Ksm, one("ksm", &wire.ksm, DEFAULT_KSM_ROUNDS)?),
    ]))
}

/// A number from 1 to `max`, if one is given.
fn number(key: &str, given: Option<&Spanned<i64>>, max: u32) -> Result<Option<u32>, Located> {
    let Some(given) = given else { return Ok(None) };
    let value = *given.get_ref();
    match u32::try_from(value) {
        Ok(number) if (1..=max).contains(&number) => Ok(Some(number)),
        _ => Err(Located {
            at: given.span().start,
            problem: Problem::OutOfRange { key: key.to_owned(), value, min: 1, max },
        }),
    }
}

/// The cells of one entry, each with the byte of its workload's name.
fn expand(
    entry: &Spanned<CellWire>,
    defaults: &Defaults,
) -> Result<Vec<(usize, SpecCell)>, Located> {
    let at = entry.span().start;
    let cell = entry.get_ref();
    let backend = backend(cell, at)?;
    let params = params(backend, cell)?;
    let rounds = number("rounds", cell.rounds.as_ref(), MAX_ROUNDS)?;
    let lists: [(Experiment, &[Spanned<String>], _); 6] = [
        (Experiment::Startup, &cell.startup, None),
        (Experiment::Memory, &cell.memory, cell.memory_cap.as_ref()),
        (Experiment::Density, &cell.density, cell.density_cap.as_ref()),
        (Experiment::Minimum, &cell.minimum, None),
        (Experiment::Scale, &cell.scale, cell.scale_cap.as_ref()),
        (Experiment::Ksm, &cell.ksm, cell.ksm_cap.as_ref()),
    ];
    let mut cells = Vec::new();
    for (experiment, workloads, given) in lists {
        let cap = cap(experiment, workloads, given, defaults)?;
        for name in workloads {
            let workload = workload(name)?;
            let params = params.clone();
            let key = CellKey { experiment, backend, workload, params };
            let at = name.span().start;
            sensible(&key).map_err(|problem| Located { at, problem })?;
            let rounds = rounds.unwrap_or_else(|| defaults.rounds[&experiment]);
            let slo_ms = defaults.slo_ms.filter(|_| experiment == Experiment::Density);
            cells.push((at, SpecCell { key, rounds, cap, slo_ms }));
        }
    }
    if cells.is_empty() {
        return Err(Located { at, problem: Problem::NothingToMeasure });
    }
    Ok(cells)
}

/// The upper bound of live instances of an entry's cells of one experiment.
fn cap(
    experiment: Experiment,
    workloads: &[Spanned<String>],
    given: Option<&Spanned<i64>>,
    defaults: &Defaults,
) -> Result<Option<u32>, Located> {
    let name = experiment.as_str();
    if let (Some(given), true) = (given, workloads.is_empty()) {
        let at = given.span().start;
        return Err(Located { at, problem: Problem::CapWithoutList { experiment: name } });
    }
    let cap = number(&format!("{name}_cap"), given, MAX_CAP)?;
    Ok(match experiment {
        Experiment::Startup | Experiment::Minimum => None,
        Experiment::Memory => Some(cap.unwrap_or(DEFAULT_MEMORY_CAP)),
        Experiment::Density => Some(cap.unwrap_or(defaults.density_cap)),
        Experiment::Scale => Some(cap.unwrap_or(DEFAULT_SCALE_CAP)),
        Experiment::Ksm => Some(cap.unwrap_or(DEFAULT_KSM_CAP)),
    })
}

fn backend(cell: &CellWire, at: usize) -> Result<BackendName, Located> {
    let Some(name) = &cell.backend else {
        let problem = Problem::MissingKey { key: "backend", table: "[[cells]]" };
        return Err(Located { at, problem });
    };
    let text = name.get_ref();
    known_backend(text).ok_or_else(|| {
        let names = offered();
        let names = names.iter().copied();
        Located {
            at: name.span().start,
            problem: Problem::UnknownName {
                what: "backend",
                of: String::new(),
                value: text.clone(),
                nearest: nearest(text, names.clone()),
                known: names.map(str::to_owned).collect(),
            },
        }
    })
}

/// A backend that this process knows, by its name.
#[must_use]
pub fn known_backend(name: &str) -> Option<BackendName> {
    match name.parse().ok()? {
        BackendName::Peer(_) if systems::known().get(name).is_none() => None,
        known => Some(known),
    }
}

/// The names of all backends that people are offered: the mock backend tests
/// the pipeline.
fn offered() -> Vec<&'static str> {
    let own = BackendName::ALL.into_iter().filter(|name| *name != BackendName::Mock);
    let systems = systems::known().all().map(|system| system.name.as_str());
    own.map(BackendName::as_str).chain(systems).collect()
}

fn workload(name: &Spanned<String>) -> Result<Workload, Located> {
    let text = name.get_ref();
    text.parse().map_err(|_| {
        let names = ["pause", "exit", "touch=64", "http"];
        Located {
            at: name.span().start,
            problem: Problem::UnknownName {
                what: "workload",
                value: text.clone(),
                of: String::new(),
                nearest: nearest(text, names),
                known: [
                    "pause",
                    "exit",
                    "exit=CODE (1 to 127)",
                    "touch=MIB (1 to 65536)",
                    "churn=MIB",
                    "read=MIB (1 to 1024)",
                    "sleep=MS",
                    "spin=MS (1 to 600000)",
                    "http",
                ]
                .map(str::to_owned)
                .to_vec(),
            },
        }
    })
}

fn params(backend: BackendName, cell: &CellWire) -> Result<Params, Located> {
    let mut params = Params::default();
    for (name, value) in &cell.params {
        let Some(text) = scalar(value.get_ref()) else {
            let problem = Problem::Syntax(format!(
                "parameter {} must be a text, a number or true/false",
                name.get_ref()
            ));
            return Err(Located { at: value.span().start, problem });
        };
        let canonical = check_param(backend, name.get_ref(), &text).map_err(|problem| {
            let at = match problem {
                Problem::UnknownName { .. } => name.span().start,
                _ => value.span().start,
            };
            Located { at, problem }
        })?;
        params.edit().insert(name.get_ref().clone(), canonical);
    }
    normalise(backend, &mut params);
    Ok(params)
}

/// `1`, `"1"`, `0.5` and `true` all say what they mean.
fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(true) => Some("yes".to_owned()),
        toml::Value::Boolean(false) => Some("no".to_owned()),
        _ => None,
    }
}

/// Whether the experiment can be made with this workload at all.
fn sensible(key: &CellKey) -> Result<(), Problem> {
    if key.workload.ends() && key.experiment != Experiment::Startup {
        return Err(Problem::EndsTooEarly {
            experiment: key.experiment.as_str(),
            workload: key.workload.to_string(),
        });
    }
    if let Some(reason) = contradiction(key) {
        return Err(Problem::Contradiction { cell: key.label(), reason });
    }
    let memory = match key.backend {
        BackendName::Container | BackendName::Vm | BackendName::Peer(_) => {
            param_value(key, "memory")
        }
        BackendName::Process | BackendName::KvmBare | BackendName::Mock => None,
    };
    if memory.is_none() && key.experiment == Experiment::Minimum {
        return Err(Problem::NoMemory { backend: key.backend.as_str() });
    }
    if matches!(key.workload, Workload::Read(_)) && !has_file(key) {
        return Err(Problem::NoFile {
            workload: key.workload.to_string(),
            experiment: key.experiment.as_str(),
            backend: key.backend.as_str(),
        });
    }
    if let (Some(needed), Some(memory)) = (needed(key), memory) {
        let fits = memory.parse().is_ok_and(|Bytes(bytes)| needed < bytes);
        if !fits {
            return Err(Problem::DoesNotFit {
                workload: key.workload.to_string(),
                memory: memory.to_owned(),
                backend: key.backend.as_str(),
            });
        }
    }
    Ok(())
}

/// Whether the cell's instances can have the file of the workload `read`, and
/// find it out of the page cache. Somebody else's systems take their files from
/// images of their own.
fn has_file(key: &CellKey) -> bool {
    let measured = matches!(key.experiment, Experiment::Memory | Experiment::Density);
    measured && !matches!(key.backend, BackendName::KvmBare | BackendName::Peer(_))
}

/// Bytes that the workload holds at once.
fn needed(key: &CellKey) -> Option<u64> {
    let in_memory = param_value(key, "rootfs") == Some("initramfs");
    let mib = match key.workload {
        Workload::Touch(mib) | Workload::Churn(mib) => mib,
        // The kernel unpacks a file system in memory beside its archive.
        Workload::Read(mib) if in_memory => 2 * mib,
        Workload::Read(mib) => mib,
        _ => return None,
    };
    Some(u64::from(mib) * MIB)
}
