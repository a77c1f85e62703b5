//! What a group used of CPU and devices, and what it had to wait for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::detect::Version;
use super::{CgroupError, Controller, Group, files};

/// CPU time of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuUsage {
    /// In all.
    pub total: Duration,
    /// In user mode; of version 1 to the kernel's tick, 1 to 10 ms.
    pub user: Duration,
    /// In the kernel; of version 1 to the kernel's tick.
    pub system: Duration,
}

/// What a group did to all block devices together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoUsage {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A CPU.
    Cpu,
    /// Memory that must first be taken from elsewhere.
    Memory,
    /// Block devices.
    Io,
}

impl Resource {
    /// The kernel's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Io => "io",
        }
    }
}

/// Time in which tasks waited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// Percentage of the last 10, 60 and 300 seconds.
    pub averages: [f64; 3],
    /// In all, since the group was made (for the host: since it started).
    pub total: Duration,
}

/// Pressure stall information (Documentation/accounting/psi.rst).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pressure {
    /// While at least one task waited.
    pub some: Stall,
    /// While all tasks waited, where the kernel says it.
    pub full: Option<Stall>,
    /// Whether this is the host's and not the group's: version 1 has none of
    /// its own.
    pub of_host: bool,
}

impl Group {
    /// CPU time that the group used.
    ///
    /// # Errors
    ///
    /// Where the group is in no hierarchy that counts it: version 1 needs
    /// the cpuacct controller, version 2 always counts.
    pub fn cpu_usage(&self) -> Result<CpuUsage, CgroupError> {
        let part = self.counting(Controller::Cpuacct)?;
        match part.version {
            Version::V1 => {
                let nanos = |file: &str| {
                    files::read_number(&part.folder.join(file)).map(Duration::from_nanos)
                };
                Ok(CpuUsage {
                    total: nanos("cpuacct.usage")?,
                    user: nanos("cpuacct.usage_user")?,
                    system: nanos("cpuacct.usage_sys")?,
                })
            }
            Version::V2 => {
                let path = part.folder.join("cpu.stat");
                let micros = |key: &str| need(&path, key).map(Duration::from_micros);
                Ok(CpuUsage {
                    total: micros("usage_usec")?,
                    user: micros("user_usec")?,
                    system: micros("system_usec")?,
                })
            }
        }
    }

    /// What the group did to block devices. Version 1 counts only what its
    /// throttles see.
    ///
    /// # Errors
    ///
    /// Without an io controller, with the reason.
    pub fn io_usage(&self) -> Result<IoUsage, CgroupError> {
        let part = self.part(Controller::Io)?;
        let read = |file: &str| files::read(&part.folder.join(file));
        Ok(match part.version {
            Version::V1 => {
                let bytes = read("blkio.throttle.io_service_bytes")?;
                let count = read("blkio.throttle.io_serviced")?;
                IoUsage {
                    read_bytes: words_after(&bytes, " Read "),
                    written_bytes: words_after(&bytes, " Write "),
                    reads: words_after(&count, " Read "),
                    writes: words_after(&count, " Write "),
                }
            }
            Version::V2 => {
                let stat = read("io.stat")?;
                IoUsage {
                    read_bytes: words_after(&stat, "rbytes="),
                    written_bytes: words_after(&stat, "wbytes="),
                    reads: words_after(&stat, "rios="),
                    writes: words_after(&stat, "wios="),
                }
            }
        })
    }

    /// What the group, or else the host, waited for.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell (`CONFIG_PSI`, boot option `psi=1`).
    pub fn pressure(&self, resource: Resource) -> Result<Pressure, CgroupError> {
        let own = self
            .unified()
            .map(|part| part.folder.join(format!("{}.pressure", resource.as_str())))
            .filter(|path| path.exists());
        let of_host = own.is_none();
        let path = own.unwrap_or_else(|| Path::new("/proc/pressure").join(resource.as_str()));
        let text = files::read(&path)?;
        parse_pressure(&text, of_host)
            .ok_or_else(|| CgroupError::Content { path, content: text.trim().to_owned() })
    }

    /// How often the group was refused a process by its pids limit.
    ///
    /// # Errors
    ///
    /// Without a pids controller, with the reason.
    pub fn fork_failures(&self) -> Result<u64, CgroupError> {
        need(&self.part(Controller::Pids)?.folder.join("pids.events"), "max")
    }

    /// Whether a limit of memory killed a process of the group.
    /// `container run` uses it to say why its command died.
    #[must_use]
    pub fn was_killed_for_memory(&self) -> bool {
        self.oom_kills().is_ok_and(|kills| kills > 0)
    }

    /// A part that counts something which version 2 always counts.
    fn counting(&self, controller: Controller) -> Result<&super::group::Part, CgroupError> {
        match (self.part(controller), self.unified()) {
            (Ok(part), _) | (Err(_), Some(part)) => Ok(part),
            (Err(error), None) => Err(error),
        }
    }
}

/// The number behind a key.
fn need(path: &Path, key: &str) -> Result<u64, CgroupError> {
    files::read_key(path, key)?.ok_or_else(|| CgroupError::Content {
        path: PathBuf::from(path),
        content: format!("no number for {key}"),
    })
}

/// The sum of the numbers directly behind a word, in all lines.
fn words_after(text: &str, word: &str) -> u64 {
    let number = |rest: &str| -> Option<u64> {
        rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
    };
    text.lines().filter_map(|line| number(line.split_once(word)?.1)).sum()
}

fn parse_pressure(text: &str, of_host: bool) -> Option<Pressure> {
    let stall = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let value = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key));
        let average = |key: &str| value(key)?.parse().ok();
        Some(Stall {
            averages: [average("avg10=")?, average("avg60=")?, average("avg300=")?],
            total: Duration::from_micros(value("total=")?.parse().ok()?),
        })
    };
    Some(Pressure { some: stall("some ")?, full: stall("full "), of_host })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_with_and_without_the_second_line() {
        let some = "some avg10=1.50 avg60=0.25 avg300=0.00 total=12345\n";
        let full = "full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let both = parse_pressure(&format!("{some}{full}"), false).expect("read");
        assert_eq!(both.some.total, Duration::from_micros(12345));
        assert!((both.some.averages[0] - 1.5).abs() < 1e-9 && !both.of_host);
        assert_eq!(both.full.expect("there").total, Duration::from_micros(7));
        assert_eq!(parse_pressure(some, true).expect("read").full, None);
        assert_eq!(parse_pressure("avg10=1", true), None);
    }

    #[test]
    fn devices_are_added_up() {
        let v2 =
            "8:0 rbytes=10 wbytes=3 rios=2 wios=1 dbytes=0 dios=0\n8:16 rbytes=5 wbytes=0 rios=1";
        assert_eq!(words_after(v2, "rbytes="), 15);
        assert_eq!((words_after(v2, "rios="), words_after(v2, "wios=")), (3, 1));
        let v1 = "8:0 Read 4096\n8:0 Write 1\n8:0 Sync 7\n8:16 Read 4\nTotal 9999\n";
        assert_eq!((words_after(v1, " Read "), words_after(v1, " Write ")), (4100, 1));
        assert_eq!(words_after("", "rios="), 0);
    }
}
