//! What an arm really does, read from the kernel's view of a container that it
//! made: nobody's documentation is believed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use unladen::sys::clock::Deadline;
use unladen::sys::pidfd::PidFd;

use crate::arms::Arm;
use crate::bundle::{Bundles, Job};
use crate::measure::{self, External};

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Kinds of namespaces that are not the caller's.
    pub namespaces: Vec<String>,
    /// Controllers whose cgroup is not the caller's.
    pub cgroups: Vec<String>,
    /// Mounts that the container has.
    pub mounts: usize,
    /// Seccomp filters on it.
    pub filters: u64,
    /// Whether it can gain privileges.
    pub no_new_privileges: bool,
    /// Its effective capabilities, counted.
    pub capabilities: u32,
    /// Processes that stay beside the container as long as it runs, the
    /// command that was called included.
    pub beside: usize,
}

/// Starts a container that does nothing, looks at it, and ends it.
pub fn look(arm: &Arm, bundles: &Bundles, id: &str, deadline: Duration) -> Result<Seen, String> {
    let job = Job::Pause;
    let mut external = External::of(arm, bundles, job, id);
    let before = descendants();
    let child = external.start()?;
    let program = bundles.rootfs().join(job.name());
    let found = wait_for(&program, deadline);
    let seen = found.ok_or_else(|| format!("no container: {}", external.words())).and_then(|pid| {
        let own = descendants();
        let beside = own.difference(&before).filter(|other| **other != pid).count();
        read(pid, beside).map_err(|error| format!("cannot look at it: {error}"))
    });
    if let Some(pid) = found {
        end(pid, &program);
    }
    // The command ends with its container.
    if !matches!(child.pidfd.wait(Some(deadline)), Ok(Some(_))) {
        measure::stop(&child);
    }
    if let Some(command) = arm.clean_up(bundles, id) {
        // It usually has nothing left to do, and says so with an error.
        let _ = External::new(&command, arm.hide_unified).run(deadline);
    }
    seen
}

/// The process that executes this very file, however it sees the path.
fn wait_for(program: &Path, limit: Duration) -> Option<Pid> {
    let deadline = Deadline::after(limit);
    while !deadline.passed() {
        if let Some(pid) = pids().find(|pid| executes(*pid, program)) {
            return Some(pid);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}

fn executes(pid: Pid, program: &Path) -> bool {
    let exe = fs::metadata(format!("/proc/{pid}/exe"));
    let file = fs::metadata(program);
    matches!((exe, file), (Ok(exe), Ok(file)) if (exe.dev(), exe.ino()) == (file.dev(), file.ino()))
}

/// Kills the container's process, held by descriptor so that it is no other.
fn end(pid: Pid, program: &Path) {
    if let Ok(process) = PidFd::open(pid)
        && executes(pid, program)
    {
        let _ = process.kill(Signal::SIGKILL);
    }
}

fn pids() -> impl Iterator<Item = Pid> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
}

/// Processes below this one.
fn descendants() -> BTreeSet<Pid> {
    let parents: Vec<(Pid, Pid)> = pids()
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?;
            Some((pid, Pid::from_raw(parent)))
        })
        .collect();
    let mut known = BTreeSet::from([Pid::this()]);
    loop {
        let more: Vec<Pid> = parents
            .iter()
            .filter(|(pid, parent)| known.contains(parent) && !known.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return known;
        }
        known.extend(more);
    }
}

fn read(pid: Pid, beside: usize) -> std::io::Result<Seen> {
    let of = |pid: &str, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    let pid = pid.to_string();
    let status = of(&pid, "status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    };
    let own_cgroups = of("self", "cgroup")?;
    let cgroups = of(&pid, "cgroup")?
        .lines()
        .filter(|line| !own_cgroups.lines().any(|own| own == *line))
        .filter_map(|line| line.split(':').nth(1))
        .map(|names| if names.is_empty() { "v2".to_owned() } else { names.to_owned() })
        .collect();
    Ok(Seen {
        namespaces: namespaces(&pid)?,
        cgroups,
        mounts: of(&pid, "mountinfo")?.lines().count(),
        filters: field("Seccomp_filters").parse().unwrap_or(0),
        no_new_privileges: field("NoNewPrivs") == "1",
        capabilities: u64::from_str_radix(&field("CapEff"), 16).unwrap_or(0).count_ones(),
        beside,
    })
}

fn namespaces(pid: &str) -> std::io::Result<Vec<String>> {
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let link = |pid: &str, kind: &str| -> std::io::Result<PathBuf> {
        fs::read_link(format!("/proc/{pid}/ns/{kind}"))
    };
    let mut own = Vec::new();
    for kind in kinds {
        if link(pid, kind)? != link("self", kind)? {
            own.push(kind.to_owned());
        }
    }
    Ok(own)
}
