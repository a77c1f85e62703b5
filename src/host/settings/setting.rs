//! Each setting: its files, the value that a measurement wants, and why.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::facts::chosen;
use super::super::source::Root;

/// A setting of the host that can be changed while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// How the clock of a processor follows its load.
    Governor,
    /// Clocks above the nominal one.
    Turbo,
    /// Transparent huge pages.
    Thp,
    /// Kernel samepage merging.
    Ksm,
    /// Several threads per core.
    Smt,
    /// Kernel samepage merging at work, and fast: what the experiment `ksm`
    /// measures, and no setting to measure anything else under.
    KsmMerging,
}

impl Setting {
    /// All settings that steady a measurement.
    pub const ALL: [Self; 5] = [Self::Governor, Self::Turbo, Self::Thp, Self::Ksm, Self::Smt];

    /// What is changed unless settings are named. SMT is not: processors that
    /// go offline leave the cpusets of others for good where control groups
    /// are of version 1 (Documentation/admin-guide/cgroup-v1/cpusets.rst).
    pub const USUAL: [Self; 4] = [Self::Governor, Self::Turbo, Self::Thp, Self::Ksm];

    /// The name used in files and flags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Governor => "governor",
            Self::Turbo => "turbo",
            Self::Thp => "thp",
            Self::Ksm => "ksm",
            Self::Smt => "smt",
            Self::KsmMerging => "ksm_merging",
        }
    }

    /// What the change does for a measurement.
    #[must_use]
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Governor => "every trial runs at the same clock, short ones too",
            Self::Turbo => "the clock does not depend on temperature and on other cores",
            Self::Thp => "only programs that ask for huge pages get them",
            Self::Ksm => "the memory of a guest does not shrink while it lives",
            Self::Smt => "no trial shares its core with another thread",
            Self::KsmMerging => "equal pages of guests are merged within seconds",
        }
    }

    /// The files below `root` with the values that are wanted.
    fn files(self, root: Root<'_>) -> Result<Vec<(String, &'static str)>, String> {
        const CPU: &str = "sys/devices/system/cpu";
        let one = |path: &str, wanted| root.text(path).map(|_| vec![(path.to_owned(), wanted)]);
        match self {
            Self::Governor => governors(root),
            // Two drivers, two files of opposite sense.
            Self::Turbo => one(&format!("{CPU}/intel_pstate/no_turbo"), "1")
                .or_else(|_| one(&format!("{CPU}/cpufreq/boost"), "0")),
            Self::Thp => one("sys/kernel/mm/transparent_hugepage/enabled", "madvise"),
            Self::Ksm => one("sys/kernel/mm/ksm/run", "0"),
            Self::KsmMerging => MERGING
                .iter()
                .map(|(name, wanted)| {
                    let path = format!("sys/kernel/mm/ksm/{name}");
                    root.text(&path).map(|_| (path, *wanted))
                })
                .collect(),
            Self::Smt => match root.text(format!("{CPU}/smt/control"))?.as_str() {
                "on" | "off" => one(&format!("{CPU}/smt/control"), "off"),
                other => Err(format!("/{CPU}/smt/control says `{other}`")),
            },
        }
    }

    /// What applying the setting would do.
    pub(super) fn plan(self, root: Root<'_>) -> Planned {
        match self.changes(root) {
            Err(reason) => Planned::Absent { setting: self, reason },
            Ok((changes, value)) if changes.is_empty() => {
                Planned::AsWanted { setting: self, value: value.to_owned() }
            }
            Ok((changes, _)) => Planned::Change { setting: self, changes },
        }
    }

    fn changes(self, root: Root<'_>) -> Result<(Vec<Change>, &'static str), String> {
        let mut changes = Vec::new();
        let mut value = "";
        for (path, wanted) in self.files(root)? {
            value = wanted;
            let before = chosen(root.text(&path)?);
            if before != wanted {
                changes.push(Change { setting: self, path, before, after: wanted.to_owned() });
            }
        }
        Ok((changes, value))
    }
}

/// The kernel looks at a hundred pages every 20 ms unless told otherwise
/// (Documentation/admin-guide/mm/ksm.rst), too few to end within a trial; its
/// own estimate of which pages are worth a look is for machines that live for
/// hours. It is switched on last.
const MERGING: [(&str, &str); 4] =
    [("pages_to_scan", "5000"), ("sleep_millisecs", "20"), ("smart_scan", "0"), ("run", "1")];

/// One file for each group of processors that share a clock.
fn governors(root: Root<'_>) -> Result<Vec<(String, &'static str)>, String> {
    const FOLDER: &str = "sys/devices/system/cpu/cpufreq";
    const WANTED: &str = "performance";
    let policies = root.names(FOLDER).unwrap_or_default();
    let policies: Vec<String> =
        policies.into_iter().filter(|name| name.starts_with("policy")).collect();
    if policies.is_empty() {
        return Err("the kernel does not control the clock of the processors".to_owned());
    }
    for policy in &policies {
        let list = root.text(format!("{FOLDER}/{policy}/scaling_available_governors"))?;
        if !list.split_whitespace().any(|word| word == WANTED) {
            return Err(format!("{policy} offers {list}, not {WANTED}"));
        }
    }
    Ok(policies.iter().map(|name| (format!("{FOLDER}/{name}/scaling_governor"), WANTED)).collect())
}

/// What applying a setting would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planned {
    /// These files would change.
    Change {
        /// The setting.
        setting: Setting,
        /// One for each file.
        changes: Vec<Change>,
    },
    /// It has the wanted value.
    AsWanted {
        /// The setting.
        setting: Setting,
        /// The value.
        value: String,
    },
    /// This host does not have it.
    Absent {
        /// The setting.
        setting: Setting,
        /// Why.
        reason: String,
    },
}

/// One file with another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The setting.
    pub setting: Setting,
    /// The file, without the leading slash.
    pub path: String,
    /// Its value before.
    pub before: String,
    /// Its value meanwhile.
    pub after: String,
}

impl Change {
    /// Writes a value and checks that the kernel took it.
    pub(super) fn set(&self, root: &Path, value: &str) -> Result<(), String> {
        let file = Root(root).path(&self.path);
        // Never made: a file that is not there is no setting of this kernel.
        OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(file)
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .map_err(|error| format!("/{} does not take `{value}`: {error}", self.path))?;
        match self.now(root)? {
            now if now == value => Ok(()),
            now => Err(format!("/{} was given `{value}` and says `{now}`", self.path)),
        }
    }

    /// Gives the file its earlier value, if it still has the later one; else
    /// tells the value that it has and keeps.
    pub(super) fn put_back(&self, root: &Path) -> Result<Option<String>, String> {
        let now = self.now(root)?;
        if now != self.after {
            return Ok(Some(now));
        }
        self.set(root, &self.before).map(|()| None)
    }

    fn now(&self, root: &Path) -> Result<String, String> {
        Root(root).text(&self.path).map(chosen)
    }
}
