//! The limits of a spec: `linux.resources`.
//!
//! See the OCI runtime specification's config-linux.md, "Control groups".
//! Sizes and counts of -1 lift a limit. What can be said and not be done is
//! refused here where that is known from the spec alone, else by the group
//! (see [`Limits`]) with the file's name.

use oci_spec::runtime::{
    Linux, LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory,
    LinuxThrottleDevice,
};

use super::PlanError;
use crate::container::cgroup::{
    BlockDevice, BlockIo, Controller, CpuQuota, DeviceAccess, DeviceKind, DeviceRule, Limits,
    Realtime, Throttle, ThrottleKind, UNLIMITED,
};
use crate::sys::namespace::in_first_user_namespace;

/// The period of a CPU quota that names none: the kernel's default.
const DEFAULT_PERIOD_US: u64 = 100_000;

/// The limits that a spec asks for.
pub(in crate::container) fn limits(linux: &Linux) -> Result<Limits, PlanError> {
    let mut limits = Limits::default();
    let Some(resources) = linux.resources() else { return Ok(limits) };
    if let Some(memory) = resources.memory() {
        set_memory(&mut limits, memory)?;
    }
    if let Some(pids) = resources.pids() {
        limits.pids = bound(Some(pids.limit()));
    }
    if let Some(cpu) = resources.cpu() {
        set_cpu(&mut limits, cpu);
    }
    if let Some(block_io) = resources.block_io() {
        limits.block_io = self::block_io(block_io)?;
    }
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let size = limit.page_size();
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let field = format!("linux.resources.hugepageLimits[{index}].pageSize");
            return Err(value(field, size, "it must be a size such as 2MB"));
        }
        let bytes = u64::try_from(limit.limit()).unwrap_or(UNLIMITED);
        limits.hugepages.insert(size.clone(), bytes);
    }
    for (file, text) in resources.unified().iter().flatten() {
        if file.contains('/') || Controller::of_file(file).is_none() {
            let field = "linux.resources.unified".to_owned();
            return Err(value(field, file, "it is no file of a controller that this runtime has"));
        }
        limits.unified.insert(file.clone(), text.clone());
    }
    // Who is not root on the host may not guard devices, and needs not: nodes
    // cannot be made in its user namespace, and those of the host keep their
    // owners and modes. Other runtimes leave the rules out there, too.
    if nix::unistd::geteuid().is_root() && in_first_user_namespace() {
        limits.devices = devices(resources.devices().as_deref().unwrap_or_default())?;
    }
    Ok(limits)
}

/// Too little for the first process of anything. With version 2 it would not
/// even fail: a child that shares its parent's memory is not killed for lack of
/// it (`in_vfork` in mm/oom_kill.c), and tries without end to get its page.
const LEAST_MEMORY: u64 = 64 * 1024;

fn set_memory(limits: &mut Limits, memory: &LinuxMemory) -> Result<(), PlanError> {
    limits.memory = bound(memory.limit());
    if let Some(limit) = limits.memory.filter(|limit| *limit < LEAST_MEMORY) {
        let reason = "nothing starts in less than 64 KiB";
        return Err(value("linux.resources.memory.limit".to_owned(), &limit.to_string(), reason));
    }
    limits.memory_reservation = bound(memory.reservation());
    limits.swappiness = memory.swappiness();
    limits.oom_kill_disable = memory.disable_oom_killer();
    limits.memory_check = memory.check_before_update() == Some(true);
    // The specification's `swap` is memory and swap together.
    limits.swap = match (bound(memory.swap()), limits.memory) {
        (Some(UNLIMITED), _) => Some(UNLIMITED),
        (Some(both), memory) => {
            let swap = memory.and_then(|memory| both.checked_sub(memory));
            Some(swap.ok_or_else(|| {
                let reason =
                    "it is the sum of memory and swap, so it must be at least memory.limit";
                value("linux.resources.memory.swap".to_owned(), &both.to_string(), reason)
            })?)
        }
        (None, _) => None,
    };
    Ok(())
}

fn set_cpu(limits: &mut Limits, cpu: &LinuxCpu) {
    limits.cpu_shares = cpu.shares().filter(|shares| *shares > 0);
    let period = cpu.period().filter(|period| *period > 0);
    let quota = bound(cpu.quota());
    if quota.or(period).is_some() {
        limits.cpu_quota = Some(CpuQuota {
            quota_us: quota.unwrap_or(UNLIMITED),
            period_us: period.unwrap_or(DEFAULT_PERIOD_US),
        });
    }
    limits.cpu_burst_us = cpu.burst();
    limits.cpu_idle = cpu.idle();
    limits.realtime = Realtime {
        runtime_us: cpu.realtime_runtime().filter(|runtime| *runtime != 0),
        period_us: cpu.realtime_period().filter(|period| *period > 0),
    };
    let list = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    limits.cpus = list(cpu.cpus());
    limits.mems = list(cpu.mems());
}

fn block_io(from: &LinuxBlockIo) -> Result<BlockIo, PlanError> {
    let mut block_io =
        BlockIo { weight: from.weight().filter(|own| *own > 0), ..BlockIo::default() };
    for (index, device) in from.weight_device().iter().flatten().enumerate() {
        let field = format!("linux.resources.blockIO.weightDevice[{index}]");
        let number = block_device(device.major(), device.minor(), &field)?;
        if let Some(weight) = device.weight() {
            block_io.device_weights.push((number, weight));
        }
    }
    type List = Option<Vec<LinuxThrottleDevice>>;
    let lists: [(&str, &List, ThrottleKind); 4] = [
        ("throttleReadBpsDevice", from.throttle_read_bps_device(), ThrottleKind::ReadBytes),
        ("throttleWriteBpsDevice", from.throttle_write_bps_device(), ThrottleKind::WriteBytes),
        ("throttleReadIOPSDevice", from.throttle_read_iops_device(), ThrottleKind::Reads),
        ("throttleWriteIOPSDevice", from.throttle_write_iops_device(), ThrottleKind::Writes),
    ];
    for (name, list, kind) in lists {
        for (index, device) in list.iter().flatten().enumerate() {
            let field = format!("linux.resources.blockIO.{name}[{index}]");
            let device_number = block_device(device.major(), device.minor(), &field)?;
            let rate = device.rate();
            block_io.throttles.push(Throttle { device: device_number, kind, rate });
        }
    }
    Ok(block_io)
}

fn block_device(major: i64, minor: i64, field: &str) -> Result<BlockDevice, PlanError> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(BlockDevice { major, minor }),
        _ => Err(value(field.to_owned(), &format!("{major}:{minor}"), "it is no device number")),
    }
}

/// The rules of a spec, and after them those for the devices that every
/// container has. A spec without rules leaves all devices alone.
fn devices(list: &[LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>, PlanError> {
    let mut rules = list
        .iter()
        .enumerate()
        .map(|(index, rule)| device(rule, &format!("linux.resources.devices[{index}]")))
        .collect::<Result<Vec<_>, _>>()?;
    if !rules.is_empty() {
        rules.extend(DeviceRule::defaults());
    }
    Ok(rules)
}

fn device(rule: &LinuxDeviceCgroup, field: &str) -> Result<DeviceRule, PlanError> {
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => None,
        Some(LinuxDeviceType::B) => Some(DeviceKind::Block),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(DeviceKind::Character),
        Some(other) => {
            let reason = "device rules are about character and block devices";
            return Err(value(format!("{field}.type"), other.as_str(), reason));
        }
    };
    let number = |name: &str, number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number).map(Some).map_err(|_| {
            value(format!("{field}.{name}"), &number.to_string(), "it is no device number")
        }),
    };
    let letters = rule.access().as_deref().unwrap_or("rwm");
    let access = DeviceAccess {
        read: letters.contains('r'),
        write: letters.contains('w'),
        make: letters.contains('m'),
    };
    if letters.is_empty() || letters.chars().any(|letter| !"rwm".contains(letter)) {
        let reason = "it must be one or more of the letters r, w and m";
        return Err(value(format!("{field}.access"), letters, reason));
    }
    let (major, minor) = (number("major", rule.major())?, number("minor", rule.minor())?);
    Ok(DeviceRule { allow: rule.allow(), kind, major, minor, access })
}

/// A number of a spec: 0 is not set, a negative one lifts the limit.
fn bound(value: Option<i64>) -> Option<u64> {
    let value = value.filter(|value| *value != 0)?;
    Some(u64::try_from(value).unwrap_or(UNLIMITED))
}

fn value(field: String, value: &str, reason: &'static str) -> PlanError {
    PlanError::Value { field, value: value.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(resources: Value) -> Result<Limits, PlanError> {
        let linux = json!({ "resources": resources });
        limits(&serde_json::from_value(linux).expect("a spec"))
    }

    fn refused(resources: Value) -> String {
        read(resources).expect_err("refused").to_string()
    }

    #[test]
    fn memory_and_swap_are_a_sum() {
        let memory = |limit: i64, swap: i64| {
            read(json!({"memory": {"limit": limit, "swap": swap}}))
                .map(|limits| (limits.memory, limits.swap))
        };
        assert_eq!(memory(65_536, 65_542).expect("read"), (Some(65_536), Some(6)));
        assert_eq!(memory(65_536, 65_536).expect("read"), (Some(65_536), Some(0)));
        assert_eq!(memory(65_536, -1).expect("read"), (Some(65_536), Some(UNLIMITED)));
        assert_eq!(memory(-1, -1).expect("read"), (Some(UNLIMITED), Some(UNLIMITED)));
        assert_eq!(memory(0, 0).expect("read"), (None, None));
        let error = memory(65_536, 65_535).expect_err("too small").to_string();
        assert!(error.starts_with("`linux.resources.memory.swap` cannot be `65535`"), "{error}");
        assert!(memory(0, 64).is_err());
        let error = memory(65_535, 65_535).expect_err("too little").to_string();
        assert!(error.ends_with("nothing starts in less than 64 KiB"), "{error}");
    }

    #[test]
    fn cpu_fields_are_read_and_zeros_are_not_set() {
        let limits = read(json!({"cpu": {"shares": 512, "quota": -1, "burst": 3, "idle": 1,
            "realtimeRuntime": 5, "cpus": "0-1", "mems": ""}}))
        .expect("read");
        let quota = CpuQuota { quota_us: UNLIMITED, period_us: DEFAULT_PERIOD_US };
        assert_eq!(limits.cpu_quota, Some(quota));
        assert_eq!((limits.cpu_shares, limits.cpu_weight), (Some(512), None));
        assert_eq!((limits.cpus.as_deref(), limits.mems), (Some("0-1"), None));
        assert_eq!(limits.realtime.runtime_us, Some(5));
        let empty = read(json!({"cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": ""}}));
        assert_eq!(empty.expect("read"), Limits::default());
    }

    #[test]
    fn devices_get_the_usual_ones_behind_them() {
        let parse = |rules: Value| {
            let list: Vec<LinuxDeviceCgroup> = serde_json::from_value(rules).expect("rules");
            devices(&list)
        };
        assert_eq!(parse(json!([])).expect("none"), vec![]);
        let rules = parse(json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": -1, "access": "rw"},
        ]))
        .expect("rules");
        assert_eq!(rules[0], DeviceRule::DENY_ALL);
        assert_eq!(rules[1].to_string(), "c 10:* rw");
        assert_eq!(rules[2..], DeviceRule::defaults());
        let error = parse(json!([{"allow": true, "access": "x"}])).expect_err("x").to_string();
        assert!(error.contains("`linux.resources.devices[0].access` cannot be `x`"), "{error}");
        let error = parse(json!([{"allow": true, "type": "p"}])).expect_err("p").to_string();
        assert!(error.contains("devices[0].type"), "{error}");
    }

    #[test]
    fn block_io_and_the_rest_are_read_with_the_names_of_what_is_wrong() {
        let limits = read(json!({
            "blockIO": {
                "weight": 300,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 20}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 9}],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}],
            "unified": {"memory.high": "60"},
        }))
        .expect("read");
        let device = BlockDevice { major: 8, minor: 1 };
        assert_eq!(
            limits.block_io.throttles[0],
            Throttle { device, kind: ThrottleKind::Writes, rate: 9 }
        );
        assert_eq!(limits.block_io.device_weights.len(), 1);
        assert_eq!(limits.hugepages["2MB"], 4_194_304);
        assert_eq!(limits.unified["memory.high"], "60");
        let error = refused(json!({"hugepageLimits": [{"pageSize": "../x", "limit": 1}]}));
        assert!(error.contains("hugepageLimits[0].pageSize` cannot be `../x`"), "{error}");
        for file in ["memory/../x", "rdma.max", "plain"] {
            assert!(refused(json!({"unified": {file: "1"}})).contains(file));
        }
        let throttle = json!([{"major": -1, "minor": 0, "rate": 1}]);
        let error = refused(json!({"blockIO": {"throttleReadBpsDevice": throttle}}));
        assert!(error.contains("throttleReadBpsDevice[0]` cannot be `-1:0`"), "{error}");
    }
}
