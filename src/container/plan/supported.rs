//! Which fields of a spec this runtime carries out.
//!
//! The spec is looked through as JSON, so that a field that a newer version of
//! the format has is refused by name too, instead of being ignored.

use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::PlanError;

/// Fields that are carried out; `[]` stands for any index and a `*` at the end
/// for everything below.
const SUPPORTED: &[&str] = &[
    "ociVersion",
    // Metadata by definition.
    "annotations.*",
    "hostname",
    "domainname",
    "root.path",
    "root.readonly",
    "mounts[].destination",
    "mounts[].type",
    "mounts[].source",
    "mounts[].options[]",
    // Of the paths and arguments of programs; who carries them out is
    // `lifecycle`, others refuse them.
    "hooks.*",
    "process.terminal",
    "process.consoleSize.height",
    "process.consoleSize.width",
    "process.args[]",
    "process.env[]",
    "process.cwd",
    "process.user.uid",
    "process.user.gid",
    "process.user.umask",
    "process.user.additionalGids[]",
    "process.capabilities.bounding[]",
    "process.capabilities.effective[]",
    "process.capabilities.inheritable[]",
    "process.capabilities.permitted[]",
    "process.capabilities.ambient[]",
    "process.rlimits[].type",
    "process.rlimits[].hard",
    "process.rlimits[].soft",
    "process.noNewPrivileges",
    "process.apparmorProfile",
    "process.selinuxLabel",
    "process.ioPriority.class",
    "process.ioPriority.priority",
    "process.scheduler.policy",
    "process.scheduler.nice",
    "process.scheduler.priority",
    "process.scheduler.flags[]",
    "process.scheduler.runtime",
    "process.scheduler.deadline",
    "process.scheduler.period",
    // For programs that join a container later; by definition without effect
    // on its first one.
    "process.execCPUAffinity.initial",
    "process.execCPUAffinity.final",
    "process.oomScoreAdj",
    "linux.devices[].path",
    "linux.devices[].type",
    "linux.devices[].major",
    "linux.devices[].minor",
    "linux.devices[].fileMode",
    "linux.devices[].uid",
    "linux.devices[].gid",
    "linux.namespaces[].type",
    "linux.namespaces[].path",
    "linux.personality.domain",
    "linux.personality.flags[]",
    "linux.sysctl.*",
    "linux.timeOffsets.monotonic.secs",
    "linux.timeOffsets.monotonic.nanosecs",
    "linux.timeOffsets.boottime.secs",
    "linux.timeOffsets.boottime.nanosecs",
    "linux.uidMappings[].containerID",
    "linux.uidMappings[].hostID",
    "linux.uidMappings[].size",
    "linux.gidMappings[].containerID",
    "linux.gidMappings[].hostID",
    "linux.gidMappings[].size",
    "linux.cgroupsPath",
    "linux.rootfsPropagation",
    "linux.maskedPaths[]",
    "linux.readonlyPaths[]",
    "linux.seccomp.defaultAction",
    "linux.seccomp.defaultErrnoRet",
    "linux.seccomp.architectures[]",
    "linux.seccomp.flags[]",
    "linux.seccomp.syscalls[].names[]",
    "linux.seccomp.syscalls[].action",
    "linux.seccomp.syscalls[].errnoRet",
    "linux.seccomp.syscalls[].args[].*",
    // Not: the kernel memory of version 1, which newer kernels ignore.
    "linux.resources.memory.limit",
    "linux.resources.memory.reservation",
    "linux.resources.memory.swap",
    "linux.resources.memory.swappiness",
    "linux.resources.memory.disableOOMKiller",
    "linux.resources.memory.checkBeforeUpdate",
    "linux.resources.pids.limit",
    "linux.resources.cpu.shares",
    "linux.resources.cpu.quota",
    "linux.resources.cpu.burst",
    "linux.resources.cpu.period",
    "linux.resources.cpu.realtimeRuntime",
    "linux.resources.cpu.realtimePeriod",
    "linux.resources.cpu.cpus",
    "linux.resources.cpu.mems",
    "linux.resources.cpu.idle",
    "linux.resources.blockIO.weight",
    "linux.resources.blockIO.weightDevice[].major",
    "linux.resources.blockIO.weightDevice[].minor",
    "linux.resources.blockIO.weightDevice[].weight",
    "linux.resources.blockIO.throttleReadBpsDevice[].major",
    "linux.resources.blockIO.throttleReadBpsDevice[].minor",
    "linux.resources.blockIO.throttleReadBpsDevice[].rate",
    "linux.resources.blockIO.throttleWriteBpsDevice[].major",
    "linux.resources.blockIO.throttleWriteBpsDevice[].minor",
    "linux.resources.blockIO.throttleWriteBpsDevice[].rate",
    "linux.resources.blockIO.throttleReadIOPSDevice[].major",
    "linux.resources.blockIO.throttleReadIOPSDevice[].minor",
    "linux.resources.blockIO.throttleReadIOPSDevice[].rate",
    "linux.resources.blockIO.throttleWriteIOPSDevice[].major",
    "linux.resources.blockIO.throttleWriteIOPSDevice[].minor",
    "linux.resources.blockIO.throttleWriteIOPSDevice[].rate",
    "linux.resources.hugepageLimits[].pageSize",
    "linux.resources.hugepageLimits[].limit",
    "linux.resources.devices[].allow",
    "linux.resources.devices[].type",
    "linux.resources.devices[].major",
    "linux.resources.devices[].minor",
    "linux.resources.devices[].access",
    "linux.resources.unified.*",
];

/// Fields of the OCI runtime specification 1.3
/// (<https://github.com/opencontainers/runtime-spec/tree/v1.3.0/schema>) that
/// this runtime does not carry out. Without a value, or with one that says what
/// is the case anyway (`false`, an empty text or list), they are no harm.
const NOT_CARRIED_OUT: &[&str] = &[
    "solaris.*",
    "windows.*",
    "vm.*",
    "zos.*",
    "process.commandLine",
    "process.user.username",
    "mounts[].uidMappings.*",
    "mounts[].gidMappings.*",
    "linux.intelRdt.*",
    "linux.memoryPolicy.*",
    "linux.mountLabel",
    "linux.netDevices.*",
    "linux.resources.*",
    "linux.seccomp.*",
];

/// Why [`check`] did not come to its end well.
#[derive(Debug)]
pub(in crate::container) enum Refusal<E> {
    /// A field that is not carried out.
    Field(PlanError),
    /// The text itself, or whatever the spec is read from.
    Input(E),
}

/// Refuses the first field that is not supported. Nothing of the spec is kept,
/// so that looking through a text costs little beside parsing it.
pub(in crate::container) fn check<'de, D: Deserializer<'de>>(
    spec: D,
) -> Result<(), Refusal<D::Error>> {
    let all = |patterns: &'static [&'static str], supported| {
        let one = move |rest: &&'static str| Candidate { rest, inside: false, supported };
        patterns.iter().map(one)
    };
    let candidates: Vec<Candidate> =
        all(SUPPORTED, true).chain(all(NOT_CARRIED_OUT, false)).collect();
    let finding = Finding::default();
    let look = Look { candidates: &candidates, path: &Path::Root, finding: &finding };
    let looked = look.deserialize(spec);
    if let Some(error) = finding.error.take() {
        return Err(Refusal::Field(error));
    }
    looked.map_err(Refusal::Input)?;
    if finding.versioned.get() {
        Ok(())
    } else {
        Err(Refusal::Field(PlanError::Missing {
            field: "ociVersion",
            reason: "it says what the other fields mean",
        }))
    }
}

/// Versions are those of Semantic Versioning 2.0, in which all with the same
/// first number say the same with the same fields; new fields are refused by
/// their names.
fn version(text: &str) -> Result<(), PlanError> {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let mut numbers = core.split('.').map(|part| part.parse::<u32>().ok());
    let first = [numbers.next(), numbers.next(), numbers.next(), numbers.next()];
    match first {
        [Some(Some(1)), Some(Some(_)), Some(Some(_)), None] => Ok(()),
        _ => Err(PlanError::Value {
            field: "ociVersion".to_owned(),
            value: text.to_owned(),
            reason: "this runtime knows version 1.x.y",
        }),
    }
}

fn propagation(text: &str) -> Result<(), PlanError> {
    match text {
        "" | "private" | "rprivate" | "slave" | "rslave" => Ok(()),
        value => Err(PlanError::Value {
            field: "linux.rootfsPropagation".to_owned(),
            value: value.to_owned(),
            reason: "this runtime lets no mount of a container reach the host: private, \
                     rprivate, slave or rslave",
        }),
    }
}

/// Where in the spec one is.
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(above, name) => write!(f, "{above}.{name}"),
            Path::Item(above, index) => write!(f, "{above}[{index}]"),
        }
    }
}

/// What stands between names in a pattern.
const BETWEEN: [char; 2] = ['.', '['];

/// A pattern that fits so far.
#[derive(Clone, Copy)]
struct Candidate {
    /// What of it must still come.
    rest: &'static str,
    /// Whether one is below what its `*` stands for.
    inside: bool,
    /// Whether its fields are carried out.
    supported: bool,
}

impl Candidate {
    /// The pattern one field further down; `name` has nothing of [`BETWEEN`].
    fn field(self, name: &str, above: &Path<'_>) -> Option<Self> {
        if self.inside {
            return Some(self);
        }
        let rest = match above {
            Path::Root => self.rest,
            _ => self.rest.strip_prefix('.')?,
        };
        match rest.strip_prefix(name) {
            Some(rest) if rest.is_empty() || rest.starts_with(BETWEEN) => {
                Some(Self { rest, ..self })
            }
            _ => (rest == "*").then_some(Self { inside: true, ..self }),
        }
    }

    /// The pattern one field further down, whatever its name.
    fn any_name(self) -> Option<Self> {
        (self.inside || self.rest == ".*").then_some(Self { inside: true, ..self })
    }

    /// The pattern in an item of a list.
    fn item(self) -> Option<Self> {
        self.any_name().or_else(|| self.rest.strip_prefix("[]").map(|rest| Self { rest, ..self }))
    }

    /// Whether the value here is carried out.
    fn carries_out(&self) -> bool {
        self.supported && (self.inside || self.rest.is_empty())
    }
}

/// What was found on the way.
#[derive(Default)]
struct Finding {
    error: Cell<Option<PlanError>>,
    /// Whether there is an `ociVersion`.
    versioned: Cell<bool>,
}

/// A value without others below it.
enum Leaf<'a> {
    /// Says what is the case anyway: `null`, `false`, nothing listed.
    Void,
    Text(&'a str),
    Other,
}

/// Looks through one value and all below.
#[derive(Clone, Copy)]
struct Look<'a> {
    candidates: &'a [Candidate],
    path: &'a Path<'a>,
    finding: &'a Finding,
}

impl Look<'_> {
    fn leaf<E: de::Error>(&self, leaf: &Leaf<'_>) -> Result<(), E> {
        self.judge(leaf).map_err(|error| {
            self.finding.error.set(Some(error));
            // Never seen: `check` returns what was found instead.
            E::custom("a field that is not supported")
        })
    }

    fn judge(&self, leaf: &Leaf<'_>) -> Result<(), PlanError> {
        match (leaf, self.path) {
            (Leaf::Text(text), Path::Field(Path::Root, "ociVersion")) => {
                version(text)?;
                self.finding.versioned.set(true);
            }
            (Leaf::Text(text), Path::Field(Path::Field(Path::Root, "linux"), name))
                if *name == "rootfsPropagation" =>
            {
                propagation(text)?;
            }
            _ => {}
        }
        if self.candidates.iter().any(Candidate::carries_out) {
            Ok(())
        } else if self.candidates.is_empty() {
            Err(PlanError::Unknown { field: self.path.to_string() })
        } else if matches!(leaf, Leaf::Void | Leaf::Text("")) {
            Ok(())
        } else {
            Err(PlanError::Unsupported { field: self.path.to_string() })
        }
    }
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.leaf(&Leaf::Void)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.leaf(&if value { Leaf::Other } else { Leaf::Void })
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        self.leaf(&Leaf::Other)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        self.leaf(&Leaf::Other)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        self.leaf(&Leaf::Other)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.leaf(&Leaf::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let below: Vec<Candidate> =
            self.candidates.iter().filter_map(|candidate| candidate.item()).collect();
        let mut index = 0;
        loop {
            let path = Path::Item(self.path, index);
            let look = Look { candidates: &below, path: &path, finding: self.finding };
            if items.next_element_seed(look)?.is_none() {
                break;
            }
            index += 1;
        }
        if index == 0 { self.leaf(&Leaf::Void) } else { Ok(()) }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut empty = true;
        while let Some(name) = fields.next_key::<String>()? {
            empty = false;
            // In a pattern this would be more than one name.
            let odd = name.contains(BETWEEN);
            let fitting = |candidate: &Candidate| match odd {
                true => candidate.any_name(),
                false => candidate.field(&name, self.path),
            };
            let below: Vec<Candidate> = self.candidates.iter().filter_map(fitting).collect();
            let path = Path::Field(self.path, &name);
            fields.next_value_seed(Look {
                candidates: &below,
                path: &path,
                finding: self.finding,
            })?;
        }
        if empty { self.leaf(&Leaf::Void) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
