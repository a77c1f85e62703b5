//! The parameters that each backend knows: their values, their defaults and
//! the one spelling under which a cell is stored.

mod kind;
mod machine;

use super::error::{Problem, nearest};
use super::systems;
use crate::record::{BackendName, CellKey, Experiment, Params, Workload};
use crate::units::MIB;

pub use kind::Kind;

/// One parameter of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub kind: Kind,
    /// The value of a cell that does not name it; absent means no limit, or
    /// not set.
    pub default: Option<&'static str>,
    /// Whether it is written into every cell's identity, so that a reader
    /// always sees it; else only where it differs from the default.
    pub always: bool,
    /// What it does, in a few words.
    pub about: &'static str,
}

const CONTROL: Param = Param {
    name: "control",
    kind: Kind::OneOf(&["1"]),
    default: None,
    always: false,
    about: "the same cell under a second name, whose ratio to the first is the run's noise floor",
};

const CACHE: Param = Param {
    name: "cache",
    kind: Kind::OneOf(&["warm", "cold"]),
    default: Some("warm"),
    always: false,
    about: "cold: before each start its files are taken out of the page cache, and that is checked",
};

pub(super) const MEMORY: Param = Param {
    name: "memory",
    kind: Kind::Size { min: 4 * MIB, max: 1024 * 1024 * MIB },
    default: Some("128M"),
    always: false,
    about: "memory limit of its cgroup",
};

pub(super) const PIDS: Param = Param {
    name: "pids",
    kind: Kind::Whole { min: 1, max: 4_194_304 },
    default: Some("64"),
    always: false,
    about: "process limit of its cgroup",
};

pub(super) const CPUS: Param = Param {
    name: "cpus",
    kind: Kind::Cpus,
    default: Some("1"),
    always: false,
    about: "processor time limit of its cgroup, in processors",
};

pub(super) const SECCOMP: Param = Param {
    name: "seccomp",
    kind: Kind::OneOf(&["default", "none"]),
    default: Some("default"),
    always: false,
    about: "system-call filter: the default profile of Podman, or none",
};

const PROCESS: &[Param] = &[CONTROL, CACHE];
const MOCK: &[Param] = &[CONTROL];

const CONTAINER: &[Param] = &[
    Param {
        name: "userns",
        kind: Kind::OneOf(&["yes", "no"]),
        default: Some("no"),
        always: false,
        about: "in a user namespace of its own",
    },
    Param {
        name: "net",
        kind: Kind::OneOf(&["none", "loopback", "bridge"]),
        default: Some("loopback"),
        always: false,
        about: "loopback: a network namespace of its own; bridge: with an interface on the run's \
                bridge too; none: no network namespace is made",
    },
    Param {
        name: "pool",
        kind: Kind::OneOf(&["yes", "no"]),
        default: Some("no"),
        always: false,
        about: "network namespace and cgroup are made beforehand, outside the timed window",
    },
    MEMORY,
    PIDS,
    CPUS,
    SECCOMP,
    Param {
        name: "arch",
        kind: Kind::OneOf(&["host", "aarch64"]),
        default: Some("host"),
        always: false,
        about: "what its program is made for; another processor's cannot run, and the row says why",
    },
    CACHE,
];

/// The parameters of a backend, in the order in which they are documented.
/// The mock backend takes any name with a whole number instead.
#[must_use]
pub fn known_params(backend: BackendName) -> &'static [Param] {
    match backend {
        BackendName::Process => PROCESS,
        BackendName::KvmBare | BackendName::Mock => MOCK,
        BackendName::Container => CONTAINER,
        BackendName::Vm => machine::PARAMS,
        BackendName::Peer(name) => {
            systems::known().get(name.as_str()).map_or(&[], |system| system.params)
        }
    }
}

/// The value of a cell's parameter: what the cell says, or the backend's
/// default; `None` where there is neither (no limit, not set).
#[must_use]
pub fn param_value<'a>(cell: &'a CellKey, name: &str) -> Option<&'a str> {
    cell.params.get(name).or_else(|| default(cell.backend, &cell.params, name))
}

/// What a cell without the parameter `name` has.
fn default(backend: BackendName, params: &Params, name: &str) -> Option<&'static str> {
    let implied = if backend == BackendName::Vm { machine::implied(params, name) } else { None };
    implied.or_else(|| known_params(backend).iter().find(|param| param.name == name)?.default)
}

/// Checks one parameter and gives its stored spelling.
pub(super) fn check(backend: BackendName, name: &str, value: &str) -> Result<String, Problem> {
    let bad = |expected: String| Problem::BadParam {
        backend: backend.as_str(),
        name: name.to_owned(),
        value: value.to_owned(),
        expected,
    };
    let known = known_params(backend);
    if let Some(param) = known.iter().find(|param| param.name == name) {
        return param.kind.canonical(value).ok_or_else(|| bad(param.kind.expected()));
    }
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    if backend == BackendName::Mock && plain {
        let number = Kind::Whole { min: 0, max: u64::MAX };
        return number.canonical(value).ok_or_else(|| bad("a whole number".to_owned()));
    }
    let names = known.iter().map(|param| param.name);
    Err(Problem::UnknownName {
        what: "parameter",
        value: name.to_owned(),
        of: format!(" of backend {backend}"),
        nearest: nearest(name, names.clone()),
        known: names.map(str::to_owned).collect(),
    })
}

/// Makes equal cells equal: fills in what every cell shows, leaves out what
/// says the same as the default.
pub(super) fn normalise(backend: BackendName, params: &mut Params) {
    for param in known_params(backend) {
        let Some(default) = default(backend, params, param.name) else {
            continue;
        };
        if param.always {
            params.edit().entry(param.name.to_owned()).or_insert_with(|| default.to_owned());
        } else if params.get(param.name) == Some(default) {
            params.edit().remove(param.name);
        }
    }
    if backend == BackendName::Vm {
        machine::shorten(params);
    }
}

/// Why a cell with these parameters cannot be, on any host.
pub(super) fn contradiction(cell: &CellKey) -> Option<&'static str> {
    if cell.backend == BackendName::Vm { machine::contradiction(cell) } else { None }
}

/// Checks parameters from a command line and gives them in stored spelling.
///
/// # Errors
/// An unknown name, a value that is not allowed, or a combination that cannot
/// be.
pub fn checked_params(backend: BackendName, given: &[(&str, &str)]) -> Result<Params, Problem> {
    let mut params = Params::default();
    for (name, value) in given {
        params.edit().insert((*name).to_owned(), check(backend, name, value)?);
    }
    normalise(backend, &mut params);
    let (experiment, workload) = (Experiment::Startup, Workload::Exit);
    let cell = CellKey { experiment, backend, workload, params };
    match contradiction(&cell) {
        Some(reason) => Err(Problem::Contradiction { cell: cell.label(), reason }),
        None => Ok(cell.params),
    }
}

#[cfg(test)]
mod tests;
