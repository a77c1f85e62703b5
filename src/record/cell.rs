//! What is measured: experiment, backend, workload and parameters.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::peer::{PeerName, PeerNameError};

/// A kind of measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Experiment {
    /// One instance from request to gone.
    Startup,
    /// One idle instance read by every ledger, then several.
    Memory,
    /// A ladder of live instances.
    Density,
    /// The smallest memory with which an instance still becomes ready.
    Minimum,
    /// Starts and stops beside many others, and many at once.
    Scale,
    /// What the kernel gains by merging equal pages of instances. It changes
    /// settings of the host for its time.
    Ksm,
}

impl Experiment {
    /// All experiments.
    pub const ALL: [Self; 6] =
        [Self::Startup, Self::Memory, Self::Density, Self::Minimum, Self::Scale, Self::Ksm];

    /// Whether it fills the machine, so that it has rounds of its own.
    #[must_use]
    pub fn is_ladder(self) -> bool {
        matches!(self, Self::Density | Self::Scale | Self::Ksm)
    }

    /// The name used in files and flags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Memory => "memory",
            Self::Density => "density",
            Self::Minimum => "minimum",
            Self::Scale => "scale",
            Self::Ksm => "ksm",
        }
    }
}

impl fmt::Display for Experiment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which way to isolate. Written as its name, such as `container` or `runc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendName {
    /// No isolation: the payload as a child process. The null backend.
    Process,
    /// Our own container runtime.
    Container,
    /// Somebody else's system, by the name that its description has. Whether
    /// this program knows it is nothing that a stored name can tell.
    Peer(PeerName),
    /// A virtual machine of bare KVM, without an operating system: how little
    /// a machine can cost. A floor, not an arm.
    KvmBare,
    /// A QEMU virtual machine.
    Vm,
    /// No real instance: exact timings, for testing the pipeline itself.
    Mock,
}

impl BackendName {
    /// This suite's own backends, in the order in which reports list them.
    pub const ALL: [Self; 5] =
        [Self::Process, Self::Container, Self::KvmBare, Self::Vm, Self::Mock];

    /// The name used in files and flags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Container => "container",
            Self::Peer(name) => name.as_str(),
            Self::KvmBare => "kvm-bare",
            Self::Vm => "vm",
            Self::Mock => "mock",
        }
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for BackendName {
    type Err = PeerNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let own = Self::ALL.into_iter().find(|backend| backend.as_str() == text);
        own.map_or_else(|| PeerName::new(text).map(Self::Peer), Ok)
    }
}

impl Serialize for BackendName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BackendName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What the payload does. Written `pause`, `exit`, `exit=7`, `touch=64`,
/// `churn=64`, `read=64`, `sleep=100`, `spin=1000` or `http`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Workload {
    /// Ready at once, then idle.
    Pause,
    /// Ready at once, then runs to completion.
    Exit,
    /// Ready at once, then ends with this code, from 1 on.
    ExitWith(u8),
    /// Touches this many MiB before it is ready, then idles.
    Touch(u32),
    /// Touches this many MiB before it is ready, and gives them back when it is
    /// told to.
    Churn(u32),
    /// Reads a file of this many MiB, the same for all instances of a cell,
    /// before it is ready, then idles.
    Read(u32),
    /// Sleeps this many milliseconds before it is ready, then idles.
    Sleep(u32),
    /// Uses this many milliseconds of CPU time before it is ready, then idles.
    Spin(u32),
    /// Answers HTTP/1.1 requests that arrive over its channel.
    Http,
}

/// A text that names no workload.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "unknown workload `{0}`: expected pause, exit, exit=CODE (1 to 127), touch=MIB or churn=MIB (1 to \
     65536), read=MIB (1 to 1024), sleep=MS or spin=MS (1 to 600000), or http"
)]
pub struct WorkloadError(String);

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pause => f.write_str("pause"),
            Self::Exit => f.write_str("exit"),
            Self::ExitWith(code) => write!(f, "exit={code}"),
            Self::Touch(mib) => write!(f, "touch={mib}"),
            Self::Churn(mib) => write!(f, "churn={mib}"),
            Self::Read(mib) => write!(f, "read={mib}"),
            Self::Sleep(ms) => write!(f, "sleep={ms}"),
            Self::Spin(ms) => write!(f, "spin={ms}"),
            Self::Http => f.write_str("http"),
        }
    }
}

impl FromStr for Workload {
    type Err = WorkloadError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = match text.split_once('=') {
            None => match text {
                "pause" => Some(Self::Pause),
                "exit" => Some(Self::Exit),
                "http" => Some(Self::Http),
                _ => None,
            },
            Some((name, number)) => {
                let number = |limit: u32| {
                    number.parse::<u32>().ok().filter(|number| (1..=limit).contains(number))
                };
                match name {
                    // A guest's device for exit codes has seven bits.
                    "exit" => {
                        number(127).and_then(|code| u8::try_from(code).ok()).map(Self::ExitWith)
                    }
                    "touch" => number(65_536).map(Self::Touch),
                    "churn" => number(65_536).map(Self::Churn),
                    // The file takes that much of the disk, and its images again.
                    "read" => number(1024).map(Self::Read),
                    "sleep" => number(600_000).map(Self::Sleep),
                    "spin" => number(600_000).map(Self::Spin),
                    _ => None,
                }
            }
        };
        parsed.ok_or_else(|| WorkloadError(text.to_owned()))
    }
}

impl Workload {
    /// Whether it ends by itself once it is ready.
    #[must_use]
    pub fn ends(self) -> bool {
        matches!(self, Self::Exit | Self::ExitWith(_))
    }
}

impl Serialize for Workload {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Workload {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Parameters of a cell: names and values, in canonical (sorted) order.
/// [`fmt::Display`] and [`FromStr`] use `k=v;k=v`. Clones share the map: every
/// sample of a cell carries it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Params(pub Arc<BTreeMap<String, String>>);

impl Params {
    /// The map, to be changed; other clones keep what they have.
    pub fn edit(&mut self) -> &mut BTreeMap<String, String> {
        Arc::make_mut(&mut self.0)
    }

    /// The value of one parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// A parameter text that is not `k=v;k=v`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a parameter list: expected k=v;k=v")]
pub struct ParamsError(String);

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ";" };
            write!(f, "{separator}{name}={value}")?;
        }
        Ok(())
    }
}

impl FromStr for Params {
    type Err = ParamsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut params = BTreeMap::new();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some((name, value)) if !name.is_empty() => {
                    params.insert(name.to_owned(), value.to_owned());
                }
                _ => return Err(ParamsError(text.to_owned())),
            }
        }
        Ok(Self(Arc::new(params)))
    }
}

impl Serialize for Params {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The identity of a cell. Two samples belong together exactly when their
/// keys are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CellKey {
    /// Which experiment.
    pub experiment: Experiment,
    /// Which backend.
    pub backend: BackendName,
    /// Which workload.
    pub workload: Workload,
    /// Which parameters.
    pub params: Params,
}

impl CellKey {
    /// Whether the cell shows how little its technique can cost, with nothing
    /// put inside: it is compared with nothing and stands for no arm.
    #[must_use]
    pub fn is_floor(&self) -> bool {
        self.backend == BackendName::KvmBare || self.params.get("kernel") == Some("stub")
    }

    /// The cell that a traced one is to be held against: the same without the
    /// trace. `None` for a cell that is not traced.
    #[must_use]
    pub fn untraced(&self) -> Option<Self> {
        let mut twin = self.clone();
        (twin.params.edit().remove("traced").as_deref() == Some("yes")).then_some(twin)
    }

    /// The backend with the parameters that tell its cells apart, for a
    /// chart's legend or a table's first column: `vm microvm`, `container`,
    /// `container-pooled`, `vm-clone microvm`, `vm-untuned q35`.
    #[must_use]
    pub fn label(&self) -> String {
        let stub = self.params.get("kernel") == Some("stub");
        let mut label = if stub { "qemu-stub" } else { self.backend.as_str() }.to_owned();
        if self.params.get("pool") == Some("yes") {
            label.push_str("-pooled");
        }
        if self.params.get("untuned") == Some("yes") {
            label.push_str("-untuned");
        }
        if let Some(start) = self.params.get("start") {
            label.push('-');
            label.push_str(start);
        }
        if self.params.get("traced") == Some("yes") {
            label.push_str("-traced");
        }
        let suffix = |name: &str| matches!(name, "pool" | "untuned" | "start" | "traced");
        for (name, value) in self.params.0.iter().filter(|(name, _)| !suffix(name)) {
            label.push(' ');
            match name.as_str() {
                "kernel" if stub => {
                    label.pop();
                }
                "machine" | "kernel" | "accel" | "boot" | "firmware" | "rootfs" => {
                    label.push_str(value);
                }
                "control" => label.push_str("(control)"),
                _ => {
                    label.push_str(name);
                    label.push('=');
                    label.push_str(value);
                }
            }
        }
        label
    }
}

impl fmt::Display for CellKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.experiment, self.label(), self.workload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_are_canonical_and_read_back() {
        let params: Params = "memory=128M;machine=q35".parse().expect("valid");
        assert_eq!(params.to_string(), "machine=q35;memory=128M");
        assert_eq!(params.to_string().parse(), Ok(params));
        assert_eq!("".parse(), Ok(Params::default()));
        assert!("machine".parse::<Params>().is_err());
    }

    #[test]
    fn a_label_names_how_a_machine_starts() {
        let label = |params: &str| {
            let params = params.parse().expect("valid");
            let (experiment, workload) = (Experiment::Startup, Workload::Pause);
            CellKey { experiment, backend: BackendName::Vm, workload, params }.label()
        };
        assert_eq!(label("machine=microvm"), "vm microvm");
        assert_eq!(label("machine=microvm;start=clone"), "vm-clone microvm");
        assert_eq!(label("machine=q35;start=restore"), "vm-restore q35");
        assert_eq!(label("machine=q35;traced=yes"), "vm-traced q35");
    }

    #[test]
    fn workloads_read_back_and_refuse_nonsense() {
        for workload in [
            Workload::Pause,
            Workload::Exit,
            Workload::Touch(64),
            Workload::Read(1024),
            Workload::Http,
        ] {
            assert_eq!(workload.to_string().parse(), Ok(workload));
        }
        for bad in [
            "touch",
            "touch=",
            "touch=0",
            "touch=-1",
            "touch=65537",
            "sleep",
            "read",
            "read=0",
            "read=1025",
            "read=8M",
            "read=/etc/passwd",
        ] {
            assert!(bad.parse::<Workload>().is_err(), "{bad}");
        }
    }
}
