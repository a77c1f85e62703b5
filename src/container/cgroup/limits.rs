//! Limits, and how each version spells them.

use std::path::Path;

use super::detect::Version;
use super::{CgroupError, Controller, files};

/// CPU time per period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuQuota {
    /// Microseconds of CPU time in each period, on all CPUs together.
    pub quota_us: u64,
    /// Length of a period in microseconds; the kernel takes 1000 to 1000000.
    pub period_us: u64,
}

/// What an instance may use at most. `None` sets no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of swap, besides memory. Needs `memory` on version 1, where
    /// the kernel limits the sum.
    pub swap: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// CPU time.
    pub cpu_quota: Option<CpuQuota>,
    /// Share of CPU time under competition, 1 to 10000; the default is 100.
    pub cpu_weight: Option<u64>,
}

/// One file to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) file: &'static str,
    pub(super) value: String,
    /// Reason to go on without the file, where kernels exist that lack it.
    pub(super) optional: Option<&'static str>,
}

impl Setting {
    fn required(file: &'static str, value: impl ToString) -> Self {
        Self { file, value: value.to_string(), optional: None }
    }
}

const NO_SWAP_ACCOUNT: &str =
    "swap limit not set: this kernel does not account swap (boot option swapaccount=1)";

impl Limits {
    /// Whether any limit belongs to this controller.
    pub(in crate::container) fn wants(&self, controller: Controller) -> bool {
        match controller {
            Controller::Memory => self.memory.is_some() || self.swap.is_some(),
            Controller::Pids => self.pids.is_some(),
            Controller::Cpu => self.cpu_quota.is_some() || self.cpu_weight.is_some(),
            Controller::Freezer => false,
        }
    }

    /// The files to write for one controller, in the order in which the
    /// kernel accepts them.
    pub(super) fn settings(&self, controller: Controller, version: Version) -> Vec<Setting> {
        match (controller, version) {
            (Controller::Memory, Version::V1) => self.memory_v1(),
            (Controller::Memory, Version::V2) => self.memory_v2(),
            (Controller::Pids, _) => {
                self.pids.map(|pids| Setting::required("pids.max", pids)).into_iter().collect()
            }
            (Controller::Cpu, Version::V1) => self.cpu_v1(),
            (Controller::Cpu, Version::V2) => self.cpu_v2(),
            (Controller::Freezer, _) => Vec::new(),
        }
    }

    fn memory_v1(&self) -> Vec<Setting> {
        let Some(memory) = self.memory else { return Vec::new() };
        // The sum must not be below the memory limit, so it comes second.
        let swap = self.swap.map(|swap| Setting {
            file: "memory.memsw.limit_in_bytes",
            value: memory.saturating_add(swap).to_string(),
            optional: Some(NO_SWAP_ACCOUNT),
        });
        std::iter::once(Setting::required("memory.limit_in_bytes", memory)).chain(swap).collect()
    }

    fn memory_v2(&self) -> Vec<Setting> {
        let memory = self.memory.map(|memory| Setting::required("memory.max", memory));
        let swap = self.swap.map(|swap| Setting {
            file: "memory.swap.max",
            value: swap.to_string(),
            optional: Some(NO_SWAP_ACCOUNT),
        });
        memory.into_iter().chain(swap).collect()
    }

    fn cpu_v1(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        if let Some(CpuQuota { quota_us, period_us }) = self.cpu_quota {
            settings.push(Setting::required("cpu.cfs_period_us", period_us));
            settings.push(Setting::required("cpu.cfs_quota_us", quota_us));
        }
        if let Some(weight) = self.cpu_weight {
            settings.push(Setting::required("cpu.shares", weight_to_shares(weight)));
        }
        settings
    }

    fn cpu_v2(&self) -> Vec<Setting> {
        let quota = self
            .cpu_quota
            .map(|cpu| Setting::required("cpu.max", format!("{} {}", cpu.quota_us, cpu.period_us)));
        let weight = self.cpu_weight.map(|weight| Setting::required("cpu.weight", weight));
        quota.into_iter().chain(weight).collect()
    }

    /// Writes the limits of one controller and returns remarks about those
    /// that this kernel has no file for.
    pub(super) fn apply(
        &self,
        controller: Controller,
        version: Version,
        folder: &Path,
    ) -> Result<Vec<String>, CgroupError> {
        let mut remarks = Vec::new();
        for setting in self.settings(controller, version) {
            let path = folder.join(setting.file);
            match setting.optional {
                Some(remark) if !path.exists() => remarks.push(remark.to_owned()),
                _ => files::set(controller.as_str(), &path, &setting.value)?,
            }
        }
        Ok(remarks)
    }
}

/// Version 1 shares (2 to 262144) for a version 2 weight (1 to 10000), by the
/// line through both ends: the inverse of [`shares_to_weight`].
pub(in crate::container) fn weight_to_shares(weight: u64) -> u64 {
    2 + (weight.clamp(1, 10_000) - 1) * 262_142 / 9_999
}

/// Version 2 weight for version 1 shares, as the OCI runtimes convert them:
/// `1 + (shares - 2) * 9999 / 262142`
/// (<https://github.com/containers/crun/blob/main/crun.1.md#cgroup-v2>).
#[must_use]
pub(in crate::container) fn shares_to_weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Limits {
        Limits {
            memory: Some(64),
            swap: Some(6),
            pids: Some(32),
            cpu_quota: Some(CpuQuota { quota_us: 50_000, period_us: 100_000 }),
            cpu_weight: Some(10_000),
        }
    }

    fn spelled(version: Version) -> Vec<(&'static str, String)> {
        Controller::ALL
            .into_iter()
            .flat_map(|controller| all().settings(controller, version))
            .map(|setting| (setting.file, setting.value))
            .collect()
    }

    #[test]
    fn both_versions_spell_every_limit() {
        let own = |pairs: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
            pairs.iter().map(|(file, value)| (*file, (*value).to_owned())).collect()
        };
        assert_eq!(
            spelled(Version::V1),
            own(&[
                ("memory.limit_in_bytes", "64"),
                ("memory.memsw.limit_in_bytes", "70"),
                ("pids.max", "32"),
                ("cpu.cfs_period_us", "100000"),
                ("cpu.cfs_quota_us", "50000"),
                ("cpu.shares", "262144"),
            ])
        );
        assert_eq!(
            spelled(Version::V2),
            own(&[
                ("memory.max", "64"),
                ("memory.swap.max", "6"),
                ("pids.max", "32"),
                ("cpu.max", "50000 100000"),
                ("cpu.weight", "10000"),
            ])
        );
    }

    #[test]
    fn weights_and_shares_agree_at_both_ends() {
        assert_eq!((weight_to_shares(1), weight_to_shares(10_000)), (2, 262_144));
        assert_eq!((shares_to_weight(2), shares_to_weight(262_144)), (1, 10_000));
        assert_eq!(shares_to_weight(1024), 39);
    }

    #[test]
    fn a_missing_swap_file_is_a_remark_and_a_missing_limit_an_error() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path();
        let error = all().apply(Controller::Memory, Version::V2, path).expect_err("no file");
        let text = error.to_string();
        assert!(text.contains("memory.max (memory)") && text.contains("`64`"), "{text}");
        std::fs::write(path.join("memory.max"), "").expect("written");
        let remarks = all().apply(Controller::Memory, Version::V2, path).expect("applied");
        assert_eq!(remarks, vec![NO_SWAP_ACCOUNT.to_owned()]);
        assert_eq!(std::fs::read_to_string(path.join("memory.max")).expect("read"), "64");
    }
}
