//! How each version spells limits.
//!
//! Version 1 takes the OCI specification's values as they are. For version 2
//! they are converted as crun documents it
//! (<https://github.com/containers/crun/blob/main/crun.1.md#cgroup-v2>), but
//! for CPU shares, see [`super::convert`].

use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::convert::{block_to_io_weight, shares_to_weight, weight_to_shares};
use super::detect::Version;
use super::limits::{BlockDevice, ThrottleKind, UNLIMITED};
use super::{CgroupError, Controller, CpuQuota, Limits, devices, files};

/// What follows when no file for a setting exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The limit cannot be set.
    Error,
    /// Kernels are in use that lack it: the group says this, and goes on.
    Remark(&'static str),
    /// What is not there is not limited, which is what was wanted.
    Fine,
}

/// One thing to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Files that different kernels have for it, with the value: the first
    /// that exists is written.
    pub(super) choices: Vec<(String, String)>,
    pub(super) missing: Missing,
}

impl Setting {
    fn new(file: impl Into<String>, value: impl ToString) -> Self {
        Self { choices: vec![(file.into(), value.to_string())], missing: Missing::Error }
    }

    fn or(mut self, file: &str, value: impl ToString) -> Self {
        self.choices.push((file.to_owned(), value.to_string()));
        self
    }

    fn unless_missing(mut self, missing: Missing) -> Self {
        self.missing = missing;
        self
    }
}

const NO_SWAP_ACCOUNT: &str =
    "swap limit not set: this kernel does not account swap (boot option swapaccount=1)";

/// A limit as a version writes it.
fn bound(value: u64, version: Version) -> String {
    match (value, version) {
        (UNLIMITED, Version::V1) => "-1".to_owned(),
        (UNLIMITED, Version::V2) => "max".to_owned(),
        (value, _) => value.to_string(),
    }
}

fn refused(limit: &str, version: Version, reason: &'static str) -> CgroupError {
    CgroupError::Refused { limit: limit.to_owned(), version, reason }
}

impl Limits {
    /// The files to write for one controller, in the order in which the
    /// kernel accepts them for a new group.
    pub(super) fn settings(
        &self,
        controller: Controller,
        version: Version,
    ) -> Result<Vec<Setting>, CgroupError> {
        let mut settings = match (controller, version) {
            (Controller::Memory, Version::V1) => self.memory_v1(),
            (Controller::Memory, Version::V2) => self.memory_v2()?,
            (Controller::Pids, _) => {
                // Version 1 has this one word of version 2, too.
                let pids = self.pids.map(|pids| bound(pids, Version::V2));
                pids.map(|pids| Setting::new("pids.max", pids)).into_iter().collect()
            }
            (Controller::Cpu, Version::V1) => self.cpu_v1(),
            (Controller::Cpu, Version::V2) => self.cpu_v2()?,
            (Controller::Cpuset, _) => {
                let files = [("cpuset.cpus", &self.cpus), ("cpuset.mems", &self.mems)];
                let set = |(file, value): (&str, &Option<String>)| {
                    value.as_ref().map(|value| Setting::new(file, value))
                };
                files.into_iter().filter_map(set).collect()
            }
            (Controller::Io, Version::V1) => self.io_v1(),
            (Controller::Io, Version::V2) => self.io_v2(),
            (Controller::Hugetlb, _) => self.hugetlb(version),
            (Controller::Devices | Controller::Cpuacct | Controller::Freezer, _) => Vec::new(),
        };
        for (file, value) in self.unified_of(controller) {
            if version == Version::V1 {
                let limit = format!("unified.{file}");
                let reason = "raw files are those of version 2; use the field for this limit";
                return Err(CgroupError::Refused { limit, version, reason });
            }
            settings.push(Setting::new(file, value));
        }
        Ok(settings)
    }

    /// Swap besides memory; who lifts the limit of memory and does not
    /// mention swap means both, as in runc.
    fn wanted_swap(&self) -> Option<u64> {
        self.swap.or_else(|| self.memory.filter(|memory| *memory == UNLIMITED))
    }

    fn missing_swap(&self) -> Missing {
        match self.wanted_swap() {
            Some(UNLIMITED) => Missing::Fine,
            _ => Missing::Remark(NO_SWAP_ACCOUNT),
        }
    }

    fn memory_v1(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        if let Some(memory) = self.memory {
            settings.push(Setting::new("memory.limit_in_bytes", bound(memory, Version::V1)));
            // The sum must not be below the memory limit, so it comes second.
            if let Some(swap) = self.wanted_swap() {
                // Adding to what is unlimited leaves it so.
                let both = bound(memory.saturating_add(swap), Version::V1);
                let sum = Setting::new("memory.memsw.limit_in_bytes", both);
                settings.push(sum.unless_missing(self.missing_swap()));
            }
        }
        if let Some(bytes) = self.memory_reservation {
            let value = bound(bytes, Version::V1);
            settings.push(Setting::new("memory.soft_limit_in_bytes", value));
        }
        if let Some(swappiness) = self.swappiness {
            settings.push(Setting::new("memory.swappiness", swappiness));
        }
        if let Some(disable) = self.oom_kill_disable {
            settings.push(Setting::new("memory.oom_control", u8::from(disable)));
        }
        settings
    }

    fn memory_v2(&self) -> Result<Vec<Setting>, CgroupError> {
        let version = Version::V2;
        if self.swappiness.is_some() {
            return Err(refused("memory.swappiness", version, "it has no such file"));
        }
        if self.oom_kill_disable == Some(true) {
            let reason = "the kernel always kills there; leave it out or set it to false";
            return Err(refused("memory.disableOOMKiller", version, reason));
        }
        let mut settings = Vec::new();
        if let Some(memory) = self.memory {
            settings.push(Setting::new("memory.max", bound(memory, version)));
        }
        if let Some(swap) = self.wanted_swap() {
            let swap = Setting::new("memory.swap.max", bound(swap, version));
            settings.push(swap.unless_missing(self.missing_swap()));
        }
        if let Some(bytes) = self.memory_reservation {
            settings.push(Setting::new("memory.low", bound(bytes, version)));
        }
        Ok(settings)
    }

    fn cpu_v1(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        if let Some(CpuQuota { quota_us, period_us }) = self.cpu_quota {
            settings.push(Setting::new("cpu.cfs_period_us", period_us));
            settings.push(Setting::new("cpu.cfs_quota_us", bound(quota_us, Version::V1)));
        }
        if let Some(burst) = self.cpu_burst_us {
            settings.push(Setting::new("cpu.cfs_burst_us", burst));
        }
        if let Some(shares) = self.cpu_weight.map(weight_to_shares).or(self.cpu_shares) {
            settings.push(Setting::new("cpu.shares", shares));
        }
        if let Some(period) = self.realtime.period_us {
            settings.push(Setting::new("cpu.rt_period_us", period));
        }
        if let Some(runtime) = self.realtime.runtime_us {
            settings.push(Setting::new("cpu.rt_runtime_us", runtime));
        }
        // A group that is idle takes no shares any more.
        settings.extend(self.cpu_idle.map(|idle| Setting::new("cpu.idle", idle)));
        settings
    }

    fn cpu_v2(&self) -> Result<Vec<Setting>, CgroupError> {
        if self.realtime != super::Realtime::default() {
            let reason = "it has no quota for real-time tasks";
            return Err(refused("cpu.realtimeRuntime", Version::V2, reason));
        }
        let mut settings = Vec::new();
        if let Some(CpuQuota { quota_us, period_us }) = self.cpu_quota {
            let value = format!("{} {period_us}", bound(quota_us, Version::V2));
            settings.push(Setting::new("cpu.max", value));
        }
        if let Some(burst) = self.cpu_burst_us {
            settings.push(Setting::new("cpu.max.burst", burst));
        }
        if let Some(weight) = self.cpu_weight.or_else(|| self.cpu_shares.map(shares_to_weight)) {
            settings.push(Setting::new("cpu.weight", weight));
        }
        settings.extend(self.cpu_idle.map(|idle| Setting::new("cpu.idle", idle)));
        Ok(settings)
    }

    fn io_v1(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        if let Some(weight) = self.block_io.weight {
            settings.push(Setting::new("blkio.weight", weight).or("blkio.bfq.weight", weight));
        }
        for (device, weight) in &self.block_io.device_weights {
            let value = format!("{device} {weight}");
            let setting = Setting::new("blkio.weight_device", &value);
            settings.push(setting.or("blkio.bfq.weight_device", value));
        }
        for throttle in &self.block_io.throttles {
            let file = match throttle.kind {
                ThrottleKind::ReadBytes => "blkio.throttle.read_bps_device",
                ThrottleKind::WriteBytes => "blkio.throttle.write_bps_device",
                ThrottleKind::Reads => "blkio.throttle.read_iops_device",
                ThrottleKind::Writes => "blkio.throttle.write_iops_device",
            };
            settings.push(Setting::new(file, format!("{} {}", throttle.device, throttle.rate)));
        }
        settings
    }

    fn io_v2(&self) -> Vec<Setting> {
        let weight = |weight: u16, device: Option<BlockDevice>| {
            let before = device.map(|device| format!("{device} ")).unwrap_or_default();
            Setting::new("io.bfq.weight", format!("{before}{weight}"))
                .or("io.weight", format!("{before}{}", block_to_io_weight(weight)))
        };
        let mut settings = Vec::new();
        settings.extend(self.block_io.weight.map(|own| weight(own, None)));
        let devices = self.block_io.device_weights.iter();
        settings.extend(devices.map(|(device, own)| weight(*own, Some(*device))));
        for throttle in &self.block_io.throttles {
            let key = match throttle.kind {
                ThrottleKind::ReadBytes => "rbps",
                ThrottleKind::WriteBytes => "wbps",
                ThrottleKind::Reads => "riops",
                ThrottleKind::Writes => "wiops",
            };
            let rate = if throttle.rate == 0 { UNLIMITED } else { throttle.rate };
            let value = format!("{} {key}={}", throttle.device, bound(rate, Version::V2));
            settings.push(Setting::new("io.max", value));
        }
        settings
    }

    fn hugetlb(&self, version: Version) -> Vec<Setting> {
        let file = match version {
            Version::V1 => "limit_in_bytes",
            Version::V2 => "max",
        };
        let pair = |(size, bytes): (&String, &u64)| {
            let value = bound(*bytes, version);
            let usage = Setting::new(format!("hugetlb.{size}.{file}"), &value);
            // Where the kernel counts reservations (Linux 5.7), they are
            // limited too: a program beyond them fails instead of dying of
            // SIGBUS later, see config-linux.md, "Huge page limits".
            let reserved = Setting::new(format!("hugetlb.{size}.rsvd.{file}"), value);
            [usage, reserved.unless_missing(Missing::Fine)]
        };
        self.hugepages.iter().flat_map(pair).collect()
    }

    /// Writes the limits of one controller and returns remarks about those
    /// that this kernel has no file for.
    pub(super) fn apply(
        &self,
        controller: Controller,
        version: Version,
        folder: &Path,
    ) -> Result<Vec<String>, CgroupError> {
        if controller == Controller::Devices {
            devices::apply(&self.devices, version, folder)?;
        }
        let (mut remarks, mut again) = (Vec::new(), Vec::new());
        for setting in self.settings(controller, version)? {
            match write(&setting, controller.name(version), folder) {
                Ok(remark) => remarks.extend(remark),
                // Values that must fit each other, such as memory and the
                // sum with swap, or quota and period, must be raised in one
                // order and lowered in the other.
                Err(CgroupError::Write { source, .. }) if invalid(&source) => again.push(setting),
                Err(other) => return Err(other),
            }
        }
        for setting in again {
            remarks.extend(write(&setting, controller.name(version), folder)?);
        }
        Ok(remarks)
    }
}

fn invalid(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EINVAL as i32)
}

/// Writes one setting, to the first of its files that there is.
fn write(
    setting: &Setting,
    purpose: &'static str,
    folder: &Path,
) -> Result<Option<String>, CgroupError> {
    let paths = || setting.choices.iter().map(|(file, value)| (folder.join(file), value));
    let found = match (setting.missing, setting.choices.len()) {
        // The usual case is one file that exists; if not, writing says so.
        (Missing::Error, 1) => paths().next(),
        _ => paths().find(|(path, _)| path.exists()),
    };
    match (found, setting.missing) {
        (Some((path, value)), _) => files::set(purpose, &path, value).map(|()| None),
        (None, Missing::Fine) => Ok(None),
        (None, Missing::Remark(remark)) => Ok(Some(remark.to_owned())),
        (None, Missing::Error) => match paths().next() {
            Some((path, value)) => files::set(purpose, &path, value).map(|()| None),
            None => Ok(None),
        },
    }
}

#[cfg(test)]
mod tests;
