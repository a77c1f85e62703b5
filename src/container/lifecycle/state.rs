//! What is known about a container between two commands.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use nix::unistd::Pid;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::container::cgroup::GroupRecord;
use crate::sys::pidfd::PidFd;

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made, or whoever made it was killed.
    Creating,
    /// Everything is set up; its program waits to be started.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its program has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// The state as the OCI runtime specification has it ("State" in runtime.md),
/// with the three additions that runc makes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Version of the specification that the configuration names.
    pub oci_version: String,
    /// The container's name.
    pub id: String,
    /// The first process as the host numbers it, or 0 when it has ended.
    pub pid: i32,
    /// Where it is in its life.
    pub status: Status,
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// The root filesystem's folder.
    pub rootfs: PathBuf,
    /// When it was created, by RFC 3339.
    pub created: String,
    /// The user who created it.
    pub owner: String,
    /// What the configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<HashMap<String, String>>,
}

/// A process by a name that is never used twice: its number and when the
/// kernel made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProcessRecord {
    pub(super) pid: i32,
    /// In clock ticks since this boot (`starttime` of proc_pid_stat(5)).
    pub(super) started: u64,
}

/// The content of `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// Version of this format.
    pub(super) version: u32,
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    pub(super) created: String,
    pub(super) owner: String,
    /// Identifies the boot, since process numbers and times start anew.
    pub(super) boot: String,
    /// Where its control groups are to be, known before they are made.
    pub(super) cgroups_path: PathBuf,
    /// Its control groups, once they are made.
    pub(super) cgroups: Option<GroupRecord>,
    pub(super) process: Option<ProcessRecord>,
    /// Whether `create` has come to its end.
    pub(super) complete: bool,
    /// The configuration as it was then: later changes have no effect.
    pub(super) config: Spec,
}

impl Record {
    pub(super) const VERSION: u32 = 1;

    /// The state for a person or an engine.
    pub(super) fn state(&self, status: Status) -> State {
        let alive = !matches!(status, Status::Stopped);
        let root = self.config.root().as_ref().map(|root| root.path().clone());
        State {
            oci_version: self.config.version().clone(),
            id: self.id.clone(),
            pid: self.process.filter(|_| alive).map_or(0, |process| process.pid),
            status,
            bundle: self.bundle.clone(),
            rootfs: self.bundle.join(root.unwrap_or_default()),
            created: self.created.clone(),
            owner: self.owner.clone(),
            annotations: self.config.annotations().clone(),
        }
    }

    /// The first process, if it lives: not ended, not somebody else with the
    /// same number.
    pub(super) fn live_process(&self) -> Option<PidFd> {
        let process = self.process.filter(|_| self.boot == boot_id())?;
        let pidfd = PidFd::open(Pid::from_raw(process.pid)).ok()?;
        // Held by descriptor, its number can no longer change hands.
        let started = start_time(process.pid)?;
        let ended = pidfd.wait_ended(Some(Duration::ZERO)).unwrap_or(true);
        (started == process.started && !ended).then_some(pidfd)
    }
}

/// When the kernel made a process; nothing when there is none.
pub(super) fn start_time(pid: i32) -> Option<u64> {
    procfs::process::Process::new(pid).ok()?.stat().ok().map(|stat| stat.starttime)
}

/// The kernel's name for this boot; empty where it has none.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// The time now, by RFC 3339.
pub(super) fn now() -> String {
    humantime::format_rfc3339_nanos(SystemTime::now()).to_string()
}
