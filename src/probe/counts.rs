//! What the whole host has of things that may run out, and how long it waits
//! for processors and memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use procfs::{CpuPressure, FromBufRead, FromRead, LoadAverage, MemoryPressure};

use crate::record::HostCount;

/// Every count of the host at this moment, or why it cannot be told.
pub(super) fn read(proc: &Path) -> BTreeMap<HostCount, Result<f64, String>> {
    HostCount::ALL.into_iter().map(|count| (count, one(proc, count))).collect()
}

fn one(proc: &Path, count: HostCount) -> Result<f64, String> {
    match count {
        HostCount::Pids => {
            let load = LoadAverage::from_read(text(proc, "loadavg")?.as_bytes());
            load.map(|load| f64::from(load.max)).map_err(|error| format!("loadavg: {error}"))
        }
        HostCount::Files => number(proc, "sys/fs/file-nr", |text| text.split_whitespace().next()),
        HostCount::Cgroups => number(proc, "cgroups", |text| {
            // Name, hierarchy, groups, enabled.
            text.lines().find_map(|line| line.strip_prefix("memory\t"))?.split('\t').nth(1)
        }),
        HostCount::Netns => network_namespaces(proc),
        HostCount::CpuPressure => {
            let text = text(proc, "pressure/cpu")?;
            let pressure = CpuPressure::from_buf_read(text.as_bytes());
            pressure.map(|found| f64::from(found.some.avg10)).map_err(|error| error.to_string())
        }
        HostCount::MemoryPressure => {
            let text = text(proc, "pressure/memory")?;
            let pressure = MemoryPressure::from_buf_read(text.as_bytes());
            pressure.map(|found| f64::from(found.full.avg10)).map_err(|error| error.to_string())
        }
    }
}

fn text(proc: &Path, name: &str) -> Result<String, String> {
    fs::read_to_string(proc.join(name)).map_err(|error| format!("/proc/{name}: {error}"))
}

fn number(proc: &Path, name: &str, find: impl Fn(&str) -> Option<&str>) -> Result<f64, String> {
    let text = text(proc, name)?;
    let found = find(&text).and_then(|word| word.parse().ok());
    found.ok_or_else(|| format!("/proc/{name} does not have the number"))
}

/// Namespaces that some process is in: others, such as those of a pool, are
/// held by a descriptor and not seen.
fn network_namespaces(proc: &Path) -> Result<f64, String> {
    let entries = fs::read_dir(proc).map_err(|error| format!("/proc: {error}"))?;
    let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let (mut seen, mut hidden) = (BTreeSet::new(), false);
    for entry in entries.filter_map(Result::ok) {
        if !entry.file_name().to_str().is_some_and(is_process) {
            continue;
        }
        match fs::read_link(entry.path().join("ns/net")) {
            Ok(namespace) => drop(seen.insert(namespace)),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => hidden = true,
            // It has ended meanwhile.
            Err(_) => {}
        }
    }
    // Even root is refused that of a process that is about to end.
    if hidden && !nix::unistd::geteuid().is_root() {
        return Err("the namespaces of other processes are not ours to see".to_owned());
    }
    Ok(f64::from(u32::try_from(seen.len()).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn counts_are_read_and_what_is_absent_says_so() {
        let root = tempfile::tempdir().expect("folder");
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("parent")).expect("folders");
            fs::write(path, text).expect("written");
        };
        put("loadavg", "0.10 0.20 0.30 2/345 6789\n");
        put("sys/fs/file-nr", "1234\t0\t99999\n");
        put(
            "cgroups",
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t2\t5\t1\nmemory\t3\t17\t1\n",
        );
        put(
            "pressure/cpu",
            "some avg10=12.50 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        );
        for (pid, namespace) in [("1", 11), ("2", 11), ("30", 12)] {
            fs::create_dir_all(root.path().join(pid).join("ns")).expect("folders");
            let link = root.path().join(pid).join("ns/net");
            symlink(format!("net:[{namespace}]"), link).expect("linked");
        }
        fs::create_dir_all(root.path().join("99/ns")).expect("one that has ended");
        let found = read(root.path());
        let value = |count| found[&count].as_ref().ok().copied();
        assert_eq!(value(HostCount::Pids), Some(345.0));
        assert_eq!(value(HostCount::Files), Some(1234.0));
        assert_eq!(value(HostCount::Cgroups), Some(17.0));
        assert_eq!(value(HostCount::Netns), Some(2.0));
        assert_eq!(value(HostCount::CpuPressure), Some(12.5));
        let absent = found[&HostCount::MemoryPressure].as_ref().expect_err("no such file");
        assert!(absent.contains("pressure/memory"), "{absent}");
    }

    #[test]
    fn this_host_can_be_counted() {
        let found = read(Path::new("/proc"));
        for count in [HostCount::Pids, HostCount::Files] {
            assert!(found[&count].as_ref().is_ok_and(|value| *value > 0.0), "{count:?}");
        }
    }
}
