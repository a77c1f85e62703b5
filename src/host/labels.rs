//! From facts to the conditions that every chart must carry, and to what
//! differs between two hosts or two moments.

use crate::record::HostFact;

use super::facts::fact;

/// Conditions under which numbers are not those of a quiet machine, such as
/// `nested virtualization` or `governor powersave`. The accelerator is not
/// among them: only the virtual machine backend knows it.
#[must_use]
pub fn labels(facts: &[HostFact]) -> Vec<String> {
    let mut labels = Vec::new();
    if fact(facts, "host.hypervisor").is_some_and(|value| value.starts_with("yes")) {
        labels.push("nested virtualization".to_owned());
    }
    if fact(facts, "power.source") == Some("battery") {
        labels.push("on battery".to_owned());
    }
    if let Some(governor) = fact(facts, "cpu.governor").filter(|name| *name != "performance") {
        labels.push(format!("governor {governor}"));
    }
    if is_loaded(facts) {
        labels.push("loaded host".to_owned());
    }
    labels
}

/// Whether others use more than a quarter of the processors, by the load
/// average of one minute; on one or two processors, half of one.
pub(super) fn is_loaded(facts: &[HostFact]) -> bool {
    let number = |name| fact(facts, name).and_then(|text| text.parse::<f64>().ok());
    match (number("load.1m"), number("cpu.logical")) {
        (Some(load), Some(cpus)) => load > (cpus / 4.0).max(0.5),
        _ => false,
    }
}

/// A fact that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The fact.
    pub name: String,
    /// Its first value; absent when only the second side has it.
    pub before: Option<String>,
    /// Its second value; absent when only the first side has it.
    pub after: Option<String>,
}

/// Whether a fact says something about a host beyond the moment in which it
/// was read: it does not change by itself from one minute to the next.
#[must_use]
pub fn is_lasting(name: &str) -> bool {
    !VOLATILE.iter().any(|prefix| name.starts_with(prefix))
}

/// Facts that change by themselves from one moment to the next.
const VOLATILE: [&str; 11] = [
    "load.",
    "psi.",
    "memory.available",
    "memory.swap_free",
    "power.temperature",
    "cpu.throttled.",
    "cpu.ticks.",
    "cgroup.dying",
    "cgroup.memory_groups",
    "net.namespaces",
    "host.uptime_seconds",
];

/// The lasting facts in which two lists differ, in the order of the first.
#[must_use]
pub fn differences(before: &[HostFact], after: &[HostFact]) -> Vec<Difference> {
    let value = |facts: &[HostFact], name: &str| {
        facts.iter().find(|fact| fact.name == name).map(|fact| fact.value.clone())
    };
    let only_after =
        after.iter().filter(|fact| !before.iter().any(|other| other.name == fact.name));
    before
        .iter()
        .chain(only_after)
        .filter(|fact| is_lasting(&fact.name))
        .map(|fact| Difference {
            name: fact.name.clone(),
            before: value(before, &fact.name),
            after: value(after, &fact.name),
        })
        .filter(|difference| difference.before != difference.after)
        .collect()
}
