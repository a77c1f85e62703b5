use super::*;
use crate::container::cgroup::{BlockIo, Realtime, Throttle};

const DISK: BlockDevice = BlockDevice { major: 8, minor: 16 };

fn all() -> Limits {
    let throttle = |kind, rate| Throttle { device: DISK, kind, rate };
    Limits {
        memory: Some(64),
        memory_reservation: Some(32),
        swap: Some(6),
        pids: Some(32),
        cpu_quota: Some(CpuQuota { quota_us: 50_000, period_us: 100_000 }),
        cpu_burst_us: Some(7),
        cpu_shares: Some(1024),
        cpus: Some("0-1".to_owned()),
        mems: Some("0".to_owned()),
        block_io: BlockIo {
            weight: Some(500),
            device_weights: vec![(DISK, 10)],
            throttles: vec![
                throttle(ThrottleKind::ReadBytes, 1000),
                throttle(ThrottleKind::Writes, 0),
            ],
        },
        hugepages: [("2MB".to_owned(), UNLIMITED)].into(),
        ..Limits::default()
    }
}

/// `file=value` of every setting; of those with a choice all, with `|`.
fn spelled(limits: &Limits, version: Version) -> Vec<String> {
    let of = |controller| limits.settings(controller, version).expect("possible");
    let text = |setting: Setting| {
        let pairs = setting.choices.iter().map(|(file, value)| format!("{file}={value}"));
        pairs.collect::<Vec<_>>().join(" | ")
    };
    Controller::ALL.into_iter().flat_map(of).map(text).collect()
}

#[test]
fn version_1_spells_every_limit() {
    let limits = Limits {
        swappiness: Some(10),
        oom_kill_disable: Some(true),
        realtime: Realtime { runtime_us: Some(-1), period_us: Some(9) },
        cpu_idle: Some(1),
        ..all()
    };
    assert_eq!(
        spelled(&limits, Version::V1),
        [
            "memory.limit_in_bytes=64",
            "memory.memsw.limit_in_bytes=70",
            "memory.soft_limit_in_bytes=32",
            "memory.swappiness=10",
            "memory.oom_control=1",
            "pids.max=32",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
            "cpu.cfs_burst_us=7",
            "cpu.shares=1024",
            "cpu.rt_period_us=9",
            "cpu.rt_runtime_us=-1",
            "cpu.idle=1",
            "cpuset.cpus=0-1",
            "cpuset.mems=0",
            "blkio.weight=500 | blkio.bfq.weight=500",
            "blkio.weight_device=8:16 10 | blkio.bfq.weight_device=8:16 10",
            "blkio.throttle.read_bps_device=8:16 1000",
            "blkio.throttle.write_iops_device=8:16 0",
            "hugetlb.2MB.limit_in_bytes=-1",
            "hugetlb.2MB.rsvd.limit_in_bytes=-1",
        ]
    );
}

#[test]
fn version_2_spells_every_limit_it_has() {
    let limits = Limits {
        unified: [("memory.high".to_owned(), "60".to_owned())].into(),
        oom_kill_disable: Some(false),
        ..all()
    };
    assert_eq!(
        spelled(&limits, Version::V2),
        [
            "memory.max=64",
            "memory.swap.max=6",
            "memory.low=32",
            "memory.high=60",
            "pids.max=32",
            "cpu.max=50000 100000",
            "cpu.max.burst=7",
            "cpu.weight=100",
            "cpuset.cpus=0-1",
            "cpuset.mems=0",
            "io.bfq.weight=500 | io.weight=4950",
            "io.bfq.weight=8:16 10 | io.weight=8:16 1",
            "io.max=8:16 rbps=1000",
            "io.max=8:16 wiops=max",
            "hugetlb.2MB.max=max",
            "hugetlb.2MB.rsvd.max=max",
        ]
    );
}

#[test]
fn what_a_version_lacks_is_refused_by_name() {
    let refused = |limits: Limits, controller, version| {
        limits.settings(controller, version).expect_err("refused").to_string()
    };
    let none = Limits::default;
    let (memory, cpu) = (Controller::Memory, Controller::Cpu);
    let error = refused(Limits { swappiness: Some(1), ..none() }, memory, Version::V2);
    assert_eq!(
        error,
        "`memory.swappiness` cannot be set with cgroup version 2: it has no such file"
    );
    let error = refused(Limits { oom_kill_disable: Some(true), ..none() }, memory, Version::V2);
    assert!(error.contains("`memory.disableOOMKiller`"), "{error}");
    let realtime = Realtime { runtime_us: Some(1), period_us: None };
    let error = refused(Limits { realtime, ..none() }, cpu, Version::V2);
    assert!(error.contains("`cpu.realtimeRuntime`"), "{error}");
    let unified = [("cpu.uclamp.max".to_owned(), "9".to_owned())].into();
    let error = refused(Limits { unified, ..none() }, cpu, Version::V1);
    assert!(error.starts_with("`unified.cpu.uclamp.max` cannot be set"), "{error}");
}

#[test]
fn lifting_a_limit_needs_no_controller_and_lifts_swap_with_memory() {
    let quota = CpuQuota { quota_us: UNLIMITED, period_us: 100_000 };
    let limits = Limits {
        memory: Some(UNLIMITED),
        pids: Some(UNLIMITED),
        cpu_quota: Some(quota),
        ..Limits::default()
    };
    assert!(limits.controllers().is_empty());
    assert_eq!(
        spelled(&limits, Version::V1),
        [
            "memory.limit_in_bytes=-1",
            "memory.memsw.limit_in_bytes=-1",
            "pids.max=max",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=-1"
        ]
    );
    assert_eq!(
        spelled(&limits, Version::V2),
        ["memory.max=max", "memory.swap.max=max", "pids.max=max", "cpu.max=max 100000"]
    );
}

#[test]
fn a_missing_swap_file_is_a_remark_and_a_missing_limit_an_error() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path();
    let limits = Limits { memory: Some(64), swap: Some(6), ..Limits::default() };
    let error = limits.apply(Controller::Memory, Version::V2, path).expect_err("no file");
    let text = error.to_string();
    assert!(text.contains("memory.max (memory)") && text.contains("`64`"), "{text}");
    std::fs::write(path.join("memory.max"), "").expect("written");
    let remarks = limits.apply(Controller::Memory, Version::V2, path).expect("applied");
    assert_eq!(remarks, vec![NO_SWAP_ACCOUNT.to_owned()]);
    assert_eq!(std::fs::read_to_string(path.join("memory.max")).expect("read"), "64");
    // Of two spellings the one that exists is used.
    let error = all().apply(Controller::Io, Version::V2, path).expect_err("no file");
    assert!(error.to_string().contains("io.bfq.weight (io)"), "{error}");
    let limits = Limits {
        block_io: BlockIo { weight: Some(1000), ..BlockIo::default() },
        ..Limits::default()
    };
    std::fs::write(path.join("io.weight"), "").expect("written");
    limits.apply(Controller::Io, Version::V2, path).expect("applied");
    assert_eq!(std::fs::read_to_string(path.join("io.weight")).expect("read"), "10000");
}
