use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::{TempDir, tempdir};

use super::doctor::findings;
use super::*;
use crate::record::HostFact;

fn put(root: &TempDir, path: &str, text: &str) {
    let path = root.path().join(path);
    fs::create_dir_all(path.parent().expect("parent")).expect("folders");
    fs::write(path, text).expect("written");
}

const CPU: &str = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD Ryzen 7 PRO 4750U\nmicrocode\t: 0x8600106\nphysical id\t: 0\ncore id\t\t: 0\nflags\t\t: fpu tsc constant_tsc nonstop_tsc svm\n\n";
const V2_MOUNTS: &str = "22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw\n28 22 0:24 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
const HYBRID_MOUNTS: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \nMax processes             63231                63231                processes \nMax open files            1024                 1048576              files     \nMax locked memory         8388608              8388608              bytes     \nMax address space         unlimited            unlimited            bytes     \n";

fn meminfo(total_kib: u64, available_kib: u64) -> String {
    format!(
        "MemTotal: {total_kib} kB\nMemFree: 100 kB\nMemAvailable: {available_kib} kB\nBuffers: 1 kB\nCached: 2 kB\nSwapCached: 0 kB\nActive: 0 kB\nInactive: 0 kB\nSwapTotal: 2097148 kB\nSwapFree: 2097148 kB\nDirty: 0 kB\nWriteback: 0 kB\nMapped: 0 kB\nSlab: 0 kB\nCommitted_AS: 0 kB\nVmallocTotal: 0 kB\nVmallocUsed: 0 kB\nVmallocChunk: 0 kB\n"
    )
}

/// A laptop on battery, on control groups of version 2.
fn laptop() -> TempDir {
    let root = tempdir().expect("folder");
    let mib = 1024;
    for (path, text) in [
        ("proc/cpuinfo", CPU.repeat(2).replacen("processor\t: 0", "processor\t: 1", 1)),
        ("proc/meminfo", meminfo(16_000 * mib, 8_000 * mib)),
        ("proc/self/mountinfo", V2_MOUNTS.to_owned()),
        ("proc/self/cgroup", "0::/user.slice/app.scope\n".to_owned()),
        ("proc/self/limits", LIMITS.to_owned()),
        ("proc/loadavg", "2.50 0.40 0.30 3/1200 4711\n".to_owned()),
        ("proc/sys/kernel/pid_max", "4194304\n".to_owned()),
        ("proc/sys/kernel/threads-max", "126000\n".to_owned()),
        ("proc/sys/kernel/osrelease", "6.12.1-laptop\n".to_owned()),
        ("proc/pressure/memory", pressure("0.00")),
        ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n".to_owned()),
        ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n".to_owned()),
        ("sys/kernel/mm/ksm/run", "1\n".to_owned()),
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n".to_owned()),
        ("sys/devices/system/cpu/cpufreq/boost", "1\n".to_owned()),
        ("sys/devices/system/cpu/smt/control", "on\n".to_owned()),
        ("sys/devices/system/cpu/vulnerabilities/meltdown", "Not affected\n".to_owned()),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n".to_owned()),
        ("sys/class/power_supply/AC/type", "Mains\n".to_owned()),
        ("sys/class/power_supply/AC/online", "0\n".to_owned()),
        ("sys/class/power_supply/BAT0/type", "Battery\n".to_owned()),
        ("sys/class/power_supply/BAT0/status", "Discharging\n".to_owned()),
        ("sys/class/thermal/thermal_zone0/temp", "47500\n".to_owned()),
        ("sys/class/thermal/thermal_zone1/temp", "52000\n".to_owned()),
        ("sys/module/kvm/parameters/halt_poll_ns", "200000\n".to_owned()),
        ("sys/module/kvm_amd/parameters/nested", "1\n".to_owned()),
        ("dev/kvm", String::new()),
    ] {
        put(&root, path, &text);
    }
    root
}

fn pressure(full: &str) -> String {
    format!(
        "some avg10={full} avg60=0.00 avg300=0.00 total=1\nfull avg10={full} avg60=0.00 avg300=0.00 total=1\n"
    )
}

#[test]
fn facts_are_read_and_missing_ones_say_why() {
    let root = laptop();
    let facts = facts_at(root.path());
    let expect = [
        ("kernel.release", "6.12.1-laptop"),
        ("cpu.model", "AMD Ryzen 7 PRO 4750U"),
        ("cpu.microcode", "0x8600106"),
        ("cpu.logical", "2"),
        ("cpu.constant_tsc", "yes"),
        ("cpu.governor", "powersave"),
        ("cpu.turbo", "on"),
        ("cpu.vulnerability.meltdown", "Not affected"),
        ("cgroup.version", "v2"),
        ("cgroup.controllers", "v1: none; v2: cpuset cpu io memory pids"),
        ("kvm.device", "openable"),
        ("kvm.parameters.kvm", "halt_poll_ns=200000"),
        ("kvm.parameters.kvm_amd", "nested=1"),
        ("host.hypervisor", "no"),
        ("power.source", "battery"),
        ("power.temperature", "52.0 °C"),
        ("memory.total", "16777216000 (15.6 GiB)"),
        ("memory.thp", "madvise"),
        ("limit.open_files", "soft 1024, hard 1048576"),
        ("load.1m", "2.50"),
    ];
    for (name, value) in expect {
        assert_eq!(fact(&facts, name), Some(value), "{name}");
    }
    let raw = |name: &str| {
        let fact = facts.iter().find(|fact| fact.name == name);
        fact.map(|fact| fact.value.as_str()).unwrap_or_else(|| panic!("{name} is not recorded"))
    };
    assert_eq!(raw("kernel.cmdline"), "unavailable: /proc/cmdline does not exist");
    assert_eq!(fact(&facts, "kernel.cmdline"), None);
    assert_eq!(
        labels(&facts),
        ["on battery", "governor powersave", "loaded host"],
        "conditions that every chart must carry"
    );
}

#[test]
fn an_empty_tree_gives_every_fact_as_unavailable() {
    let full: Vec<String> = facts_at(laptop().path()).into_iter().map(|fact| fact.name).collect();
    let empty = tempdir().expect("folder");
    let facts = facts_at(empty.path());
    for fact in &facts {
        let told = fact.name == "kvm.device";
        assert_eq!(fact.value.starts_with(UNAVAILABLE), !told, "{fact:?}");
    }
    for name in full.iter().filter(|name| !name.starts_with("kvm.p") && !name.contains("vuln")) {
        assert!(facts.iter().any(|fact| fact.name == *name), "{name} must not vanish");
    }
    assert_eq!(labels(&facts), [""; 0]);
}

#[test]
fn the_real_host_tells_what_every_linux_tells() {
    let facts = facts();
    for name in ["os.name", "kernel.release", "cpu.logical", "memory.total", "load.1m", "user.root"]
    {
        assert!(fact(&facts, name).is_some(), "{name} in {facts:#?}");
    }
    let mut names: Vec<_> = facts.iter().map(|fact| &fact.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), facts.len(), "each fact once");
    assert!(facts.iter().all(|fact| !fact.value.trim().is_empty()));
    assert_eq!(differences(&facts, &super::facts()), [], "nothing lasting changed meanwhile");
}

#[test]
fn a_virtual_machine_is_recognised() {
    let root = laptop();
    put(&root, "proc/cpuinfo", &CPU.replace(" svm", " hypervisor"));
    put(&root, "sys/class/dmi/id/sys_vendor", "QEMU\n");
    let facts = facts_at(root.path());
    assert_eq!(fact(&facts, "host.hypervisor"), Some("yes, QEMU"));
    assert_eq!(labels(&facts)[0], "nested virtualization");

    put(&root, "proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp\n");
    assert_eq!(fact(&facts_at(root.path()), "host.hypervisor"), Some("yes, QEMU"), "as on Arm");
    fs::remove_file(root.path().join("sys/class/dmi/id/sys_vendor")).expect("removed");
    assert_eq!(fact(&facts_at(root.path()), "host.hypervisor"), None);
}

#[test]
fn the_kernel_command_line_is_fit_for_publishing() {
    let root = laptop();
    put(
        &root,
        "proc/cmdline",
        "BOOT_IMAGE=/vmlinuz-6.12 root=UUID=1234 ro quiet rd.luks.uuid=luks-99 ip=10.0.0.7 \
         rootwait mitigations=off isolcpus=2-3 init=/opt/own -- secret=1\n",
    );
    assert_eq!(
        fact(&facts_at(root.path()), "kernel.cmdline"),
        Some(
            "BOOT_IMAGE=... root=... ro quiet rd.luks.uuid=... ip=... rootwait mitigations=off \
             isolcpus=2-3 init=..."
        )
    );
}

#[test]
fn what_doctor_cannot_tell_it_says_so() {
    let root = tempdir().expect("folder");
    let found = findings(root.path(), &facts_at(root.path()), true, &Inventory::default());
    for title in ["CPU governor", "load", "memory", "turbo", "clock source", "swap", "power"] {
        let finding = found.iter().find(|finding| finding.fact == title).expect(title);
        assert_eq!(finding.severity, Severity::Note);
        assert!(finding.value.starts_with(UNAVAILABLE), "{finding:?}");
    }
}

#[test]
fn control_group_layouts() {
    let layout = |mounts: &str| {
        let root = laptop();
        put(&root, "proc/self/mountinfo", mounts);
        put(&root, "sys/fs/cgroup/unified/cgroup.controllers", "hugetlb\n");
        CgroupLayout::read(root.path()).expect("reads")
    };
    let hybrid = layout(HYBRID_MOUNTS);
    assert_eq!(hybrid.version, CgroupVersion::Hybrid);
    let names: Vec<_> = hybrid.v1.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["cpu", "cpuacct", "memory", "pids"]);
    assert_eq!(hybrid.v1[0].1, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
    assert!(hybrid.has("hugetlb") && hybrid.has("cpu") && !hybrid.has("io"));

    let v1: String = HYBRID_MOUNTS.lines().take(5).map(|line| format!("{line}\n")).collect();
    assert_eq!(layout(&v1).version, CgroupVersion::V1);
    assert_eq!(layout(V2_MOUNTS).version, CgroupVersion::V2);
    assert_eq!(layout("").version, CgroupVersion::Absent);
}

#[test]
fn only_lasting_facts_count_as_differences() {
    let fact =
        |name: &str, value: &str| HostFact { name: name.to_owned(), value: value.to_owned() };
    let before = [fact("load.1m", "0.1"), fact("cpu.governor", "performance"), fact("gone", "x")];
    let after = [fact("cpu.governor", "powersave"), fact("load.1m", "3"), fact("new", "y")];
    let differences: Vec<_> = differences(&before, &after)
        .into_iter()
        .map(|difference| (difference.name, difference.before, difference.after))
        .collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        differences,
        [
            ("cpu.governor".to_owned(), some("performance"), some("powersave")),
            ("gone".to_owned(), some("x"), None),
            ("new".to_owned(), None, some("y")),
        ]
    );
}

/// Facts of the findings that are not ok, with their severity.
fn complaints(root: &TempDir, is_root: bool, inventory: &Inventory) -> Vec<(String, Severity)> {
    let all = findings(root.path(), &facts_at(root.path()), is_root, inventory);
    for finding in &all {
        assert_eq!(finding.severity == Severity::Ok, finding.effect.is_empty(), "{finding:?}");
        assert!(!finding.why.is_empty(), "{finding:?}");
        let remedy = !finding.remedy.is_empty() || finding.severity <= Severity::Note;
        assert!(remedy, "{finding:?}");
    }
    all.into_iter()
        .filter(|finding| finding.severity != Severity::Ok)
        .map(|finding| (finding.fact, finding.severity))
        .collect()
}

#[test]
fn doctor_finds_what_is_wrong_with_a_laptop() {
    use Severity::{Blocker, Note, Warning};
    let root = laptop();
    let condition = [
        ("CPU governor", Warning),
        ("power", Warning),
        ("load", Warning),
        ("swap", Note),
        ("same-page merging (KSM)", Note),
        ("clock source", Warning),
        ("turbo", Note),
        ("threads per core (SMT)", Note),
        ("heat", Note),
    ];
    let expect = |first: &[(&str, Severity)]| -> Vec<(String, Severity)> {
        let all = first.iter().chain(&condition);
        all.map(|(fact, severity)| ((*fact).to_owned(), *severity)).collect()
    };
    assert_eq!(complaints(&root, true, &Inventory::default()), expect(&[]));

    let inventory = Inventory {
        qemu: Some(Err("no qemu-system-x86_64 in PATH".to_owned())),
        kernels: vec![
            ("tuned".to_owned(), Err("not built yet".to_owned())),
            ("distro".to_owned(), Ok("6.1.0".to_owned())),
        ],
        extra: Vec::new(),
    };
    fs::remove_file(root.path().join("dev/kvm")).expect("removed");
    put(&root, "sys/fs/cgroup/cgroup.controllers", "cpuset cpu pids\n");
    put(&root, "proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n");
    assert_eq!(
        complaints(&root, false, &inventory),
        expect(&[
            ("QEMU", Blocker),
            ("guest kernel tuned", Warning),
            ("KVM", Warning),
            ("user", Note),
            ("memory controller", Warning),
            ("control group delegation", Warning),
            ("user namespaces", Blocker),
        ])
    );
}

#[test]
fn a_delegated_group_is_enough_without_root() {
    let root = laptop();
    let own = "sys/fs/cgroup/user.slice/app.scope";
    put(&root, &format!("{own}/cgroup.procs"), "");
    put(&root, &format!("{own}/cgroup.controllers"), "cpu memory pids\n");
    let delegation = |root: &TempDir| {
        findings(root.path(), &[], false, &Inventory::default())
            .into_iter()
            .find(|finding| finding.fact == "control group delegation")
            .expect("looked at")
    };
    assert_eq!(delegation(&root).severity, Severity::Ok);
    put(&root, &format!("{own}/cgroup.controllers"), "pids\n");
    assert_eq!(delegation(&root).value, "without memory, cpu");
    fs::remove_dir_all(root.path().join(own)).expect("removed");
    assert_eq!(delegation(&root).value, "own group not writable");
}

#[test]
fn doctor_looks_at_this_host_and_sorts_by_weight() {
    let extra = Finding::new(Severity::Blocker, "accelerator", "none", "no guest", "try another");
    let inventory = Inventory { extra: vec![extra.clone()], ..Inventory::default() };
    let found = doctor(&inventory, Path::new("no/such/folder"));
    assert!(found.contains(&extra));
    assert!(found.is_sorted_by_key(|finding| std::cmp::Reverse(finding.severity)));
    let disk = found.iter().find(|finding| finding.fact == "disk").expect("looked at");
    assert!(disk.value.ends_with(" free") && !disk.value.starts_with("0 "), "{disk:?}");
}

#[test]
fn the_guard_names_the_limit() {
    let root = laptop();
    let limit = || Guard::new(root.path()).check().map_err(|limit| limit.name());
    let put = |path: &str, text: &str| put(&root, path, text);
    assert_eq!(limit(), Ok(()));

    let gib = 1024 * 1024;
    for (total, available, expected) in [
        // A tenth counts on a large machine, a GiB on a small one.
        (64 * gib, 7 * gib, Ok(())),
        (64 * gib, 6 * gib, Err("memory floor")),
        (4 * gib, gib, Ok(())),
        (4 * gib, gib - 1, Err("memory floor")),
    ] {
        put("proc/meminfo", &meminfo(total, available));
        assert_eq!(limit(), expected, "{available} of {total} KiB");
    }
    put("proc/meminfo", "MemTotal: 1 kB\n");
    assert_eq!(limit(), Err("guard"));
    put("proc/meminfo", &meminfo(16 * gib, 8 * gib));

    put("proc/pressure/memory", &pressure("10.01"));
    assert_eq!(limit(), Err("memory pressure"));
    fs::remove_file(root.path().join("proc/pressure/memory")).expect("removed");
    assert_eq!(limit(), Ok(()), "not every kernel has it");

    put("proc/sys/kernel/threads-max", "32768\n");
    put("proc/loadavg", "0.00 0.00 0.00 1/31744 4711\n");
    assert_eq!(limit(), Ok(()));
    put("proc/loadavg", "0.00 0.00 0.00 1/31745 4711\n");
    assert_eq!(limit(), Err("process ids"), "1024 are kept");
    put("proc/sys/kernel/threads-max", "126000\n");
    put("proc/sys/kernel/pid_max", "32768\n");
    assert_eq!(limit(), Err("process ids"), "the smaller of the two counts");
    put("proc/sys/kernel/threads-max", "many\n");
    assert_eq!(limit(), Err("guard"));
}

#[test]
fn the_guard_minds_the_control_groups_above_us() {
    let root = laptop();
    let limit = || Guard::new(root.path()).check().map_err(|limit| limit.to_string());
    let put =
        |file: &str, text: &str| put(&root, &format!("sys/fs/cgroup/user.slice/{file}"), text);
    put("app.scope/memory.max", "max\n");
    put("memory.max", "1000000\n");
    put("memory.current", "950000\n");
    put("memory.stat", "anon 1\ninactive_file 50000\n");
    assert_eq!(limit(), Ok(()), "reclaimable cache counts as available");
    put("memory.stat", "anon 1\ninactive_file 49999\n");
    let error = limit().expect_err("too little");
    assert!(error.starts_with("memory floor: ") && error.contains("/user.slice)"), "{error}");
    put("memory.max", "max\n");

    put("app.scope/pids.max", "100\n");
    put("app.scope/pids.current", "75\n");
    assert_eq!(limit(), Ok(()));
    put("app.scope/pids.current", "76\n");
    let error = limit().expect_err("too few");
    assert_eq!(
        error,
        "process ids: 76 of 100 are in use (control group /sys/fs/cgroup/user.slice/app.scope)"
    );
}

#[test]
fn the_guard_reads_version_1_limits() {
    let root = laptop();
    put(&root, "proc/self/mountinfo", HYBRID_MOUNTS);
    put(&root, "sys/fs/cgroup/unified/cgroup.controllers", "\n");
    put(&root, "proc/self/cgroup", "8:pids:/\n4:memory:/job/7\n1:cpu,cpuacct:/\n0::/\n");
    let group = "sys/fs/cgroup/memory/job/7";
    put(&root, &format!("{group}/memory.limit_in_bytes"), "9223372036854771712\n");
    assert_eq!(Guard::new(root.path()).check(), Ok(()), "the largest number means no limit");
    put(&root, &format!("{group}/memory.limit_in_bytes"), "1000000\n");
    put(&root, &format!("{group}/memory.usage_in_bytes"), "950000\n");
    put(&root, &format!("{group}/memory.stat"), "inactive_file 9\ntotal_inactive_file 49000\n");
    let limit = Guard::new(root.path()).check().expect_err("too little");
    let scope = "control group /sys/fs/cgroup/memory/job/7".to_owned();
    assert_eq!(limit, Limit::Memory { available: 99_000, floor: 100_000, scope });
}

#[test]
fn run_ids_tell_their_time_and_read_back() {
    let start = UNIX_EPOCH + Duration::from_millis(1_795_408_512_999);
    assert_eq!(utc(start), "2026-11-23T04:35:12Z");
    let id = RunId::new(start).expect("random bytes");
    assert!(id.as_str().starts_with("20261123-043512-"), "{id}");
    assert_eq!(id.as_str().parse(), Ok(id.clone()));
    let ids: std::collections::BTreeSet<_> =
        (0..20).map(|_| RunId::new(start).expect("random bytes")).collect();
    assert!(ids.len() > 15, "two runs of one second differ: {ids:?}");
    let now = RunId::new(SystemTime::now()).expect("random bytes");
    assert!(now.as_str().parse::<RunId>().is_ok());
    for bad in [
        "",
        "latest",
        "20261123-043512-a1b2c",
        "20261123-043512-a1b2c3d",
        "20261123-043512-A1B2C3",
        "20261323-043512-a1b2c3",
        "20261123-250000-a1b2c3",
        "20261123_043512_a1b2c3",
        "2026112é-043512-a1b2c",
        "../../etc/passwd-a1b2c",
    ] {
        assert_eq!(bad.parse::<RunId>(), Err(RunIdError(bad.to_owned())), "{bad}");
    }
    assert_ne!(random_u64().expect("random"), random_u64().expect("random"));
}

#[test]
fn counters_and_leftovers_are_facts() {
    let root = laptop();
    for cpu in ["cpu0", "cpu1"] {
        let folder = format!("sys/devices/system/cpu/{cpu}/thermal_throttle");
        put(&root, &format!("{folder}/core_throttle_count"), "3\n");
        put(&root, &format!("{folder}/package_throttle_count"), "20\n");
    }
    put(&root, "proc/stat", "cpu  10 20 30 40 5 6 7 82 9 9\ncpu0 1 1\n");
    put(&root, "proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t4\t47\t1\n");
    put(&root, "sys/fs/cgroup/cgroup.stat", "nr_descendants 9\nnr_dying_descendants 4\n");
    put(&root, "proc/uptime", "1234.56 99.00\n");
    for (pid, namespace) in [("1", "net:[1]"), ("2", "net:[1]"), ("3", "net:[7]")] {
        let folder = root.path().join(format!("proc/{pid}/ns"));
        fs::create_dir_all(&folder).expect("folder");
        std::os::unix::fs::symlink(namespace, folder.join("net")).expect("link");
    }
    let facts = facts_at(root.path());
    for (name, value) in [
        ("cpu.throttled.core", "6"),
        ("cpu.throttled.package", "40"),
        ("cpu.ticks.steal", "82"),
        // Guest time is part of user time and not counted again.
        ("cpu.ticks.all", "200"),
        ("cgroup.memory_groups", "47"),
        ("cgroup.dying", "4"),
        ("net.namespaces", "2"),
        ("host.uptime_seconds", "1234.56"),
    ] {
        assert_eq!(fact(&facts, name), Some(value), "{name}");
    }
}
