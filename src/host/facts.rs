//! Facts for the manifest: what a reader needs to judge the numbers.

use std::collections::BTreeSet;
use std::path::Path;

use procfs::{CpuInfo, LoadAverage, Meminfo};
use sysinfo::System;

use crate::record::HostFact;
use crate::units::Bytes;

use super::cgroups::CgroupLayout;
use super::kvm::KvmDevice;
use super::leftovers::LeftoverCounters;
use super::source::Root;

/// How the value of a fact begins that could not be read.
pub const UNAVAILABLE: &str = "unavailable: ";

/// All facts of this host.
#[must_use]
pub fn facts() -> Vec<HostFact> {
    let mut facts = Facts::default();
    let reason = |error: sysinfo::Error| error.to_string();
    facts.add("os.name", System::long_os_version().map_err(reason));
    facts.add("cpu.architecture", Ok(System::cpu_arch()));
    facts.add("cpu.cores", System::physical_core_count().map(|n| n.to_string()).map_err(reason));
    facts.add("user.root", Ok(yes_no(nix::unistd::geteuid().is_root())));
    facts.0.extend(facts_at(Path::new("/")));
    facts.0
}

/// The facts that stand in files below `root`.
#[must_use]
pub fn facts_at(root: &Path) -> Vec<HostFact> {
    let root = Root(root);
    let mut facts = Facts::default();
    kernel(&mut facts, root);
    cpu(&mut facts, root);
    virtualisation(&mut facts, root);
    power(&mut facts, root);
    memory(&mut facts, root);
    limits(&mut facts, root);
    leftovers(&mut facts, root);
    load(&mut facts, root);
    facts.0
}

/// The value of a fact; `None` when it is not there or unavailable.
#[must_use]
pub fn fact<'a>(facts: &'a [HostFact], name: &str) -> Option<&'a str> {
    let fact = facts.iter().find(|fact| fact.name == name)?;
    (!fact.value.starts_with(UNAVAILABLE)).then_some(fact.value.as_str())
}

#[derive(Default)]
struct Facts(Vec<HostFact>);

impl Facts {
    fn add(&mut self, name: impl Into<String>, value: Result<String, String>) {
        let value = match value {
            Ok(value) if value.is_empty() => format!("{UNAVAILABLE}the kernel says nothing"),
            Ok(value) => value,
            Err(reason) => format!("{UNAVAILABLE}{reason}"),
        };
        self.0.push(HostFact { name: name.into(), value });
    }

    /// Facts that each are the text of one file.
    fn files(&mut self, root: Root<'_>, list: &[(&str, &str)]) {
        for (name, path) in list {
            self.add(*name, root.text(path));
        }
    }
}

fn kernel(facts: &mut Facts, root: Root<'_>) {
    facts.files(
        root,
        &[
            ("kernel.release", "proc/sys/kernel/osrelease"),
            ("kernel.version", "proc/sys/kernel/version"),
            ("kernel.rcu_expedited", "sys/kernel/rcu_expedited"),
            ("kernel.rcu_normal", "sys/kernel/rcu_normal"),
            ("kernel.pid_max", "proc/sys/kernel/pid_max"),
            ("clock.source", "sys/devices/system/clocksource/clocksource0/current_clocksource"),
        ],
    );
    facts.add("kernel.cmdline", root.text("proc/cmdline").map(|text| public_options(&text)));
    let layout = CgroupLayout::read(root.0);
    let version = |layout: &CgroupLayout| layout.version.as_str().to_owned();
    facts.add("cgroup.version", layout.as_ref().map(version).map_err(Clone::clone));
    facts.add("cgroup.controllers", layout.as_ref().map(controllers).map_err(Clone::clone));
}

/// Kernel options whose values name disks, addresses or files of one machine.
/// They say nothing about speed, and results are for publishing.
const PRIVATE_OPTIONS: [&str; 14] = [
    "BOOT_IMAGE",
    "cryptdevice",
    "hostname",
    "init",
    "initrd",
    "ip",
    "luks",
    "nfsroot",
    "rd.luks",
    "rd.lvm",
    "rd.md",
    "rdinit",
    "resume",
    "root",
];

/// The kernel command line without private values, and without the arguments
/// of init, which follow `--`.
fn public_options(cmdline: &str) -> String {
    let options = cmdline.split_whitespace().take_while(|word| *word != "--");
    let public = options.map(|option| match option.split_once('=') {
        Some((name, _)) if is_private(name) => format!("{name}=..."),
        _ => option.to_owned(),
    });
    public.collect::<Vec<_>>().join(" ")
}

/// `rd.luks` stands also for `rd.luks.uuid`.
fn is_private(name: &str) -> bool {
    PRIVATE_OPTIONS.iter().any(|private| {
        name.strip_prefix(private).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// `v1: cpu memory; v2: hugetlb`.
fn controllers(layout: &CgroupLayout) -> String {
    let v1: Vec<&str> = layout.v1.iter().map(|(name, _)| name.as_str()).collect();
    let text = |list: String| {
        if list.is_empty() { "none".to_owned() } else { list }
    };
    format!("v1: {}; v2: {}", text(v1.join(" ")), text(layout.v2.join(" ")))
}

fn cpu(facts: &mut Facts, root: Root<'_>) {
    let info: Result<CpuInfo, String> = root.parsed("proc/cpuinfo");
    let field = |name: &str| {
        let info = info.as_ref().map_err(Clone::clone)?;
        let value = info.get_field(0, name).map(str::to_owned);
        value.ok_or_else(|| format!("/proc/cpuinfo has no field `{name}`"))
    };
    facts.add("cpu.model", field("model name"));
    facts.add("cpu.microcode", field("microcode"));
    let count = info.as_ref().map(|info| info.num_cores().to_string());
    facts.add("cpu.logical", count.map_err(Clone::clone));
    let flags = field("flags");
    let has = |flag: &str| {
        let flags = flags.as_ref().map_err(Clone::clone)?;
        Ok(yes_no(flags.split_whitespace().any(|word| word == flag)))
    };
    facts.add("cpu.constant_tsc", has("constant_tsc"));
    facts.add("cpu.nonstop_tsc", has("nonstop_tsc"));
    facts.files(
        root,
        &[
            ("cpu.governor", "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            ("cpu.frequency_driver", "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver"),
            ("cpu.smt", "sys/devices/system/cpu/smt/control"),
        ],
    );
    facts.add("cpu.turbo", turbo(root));
    counters(facts, root);
    const VULNERABILITIES: &str = "sys/devices/system/cpu/vulnerabilities";
    match root.names(VULNERABILITIES) {
        Ok(names) => {
            for name in names {
                let text = root.text(format!("{VULNERABILITIES}/{name}"));
                facts.add(format!("cpu.vulnerability.{name}"), text);
            }
        }
        Err(reason) => facts.add("cpu.vulnerability", Err(reason)),
    }
}

/// Counters since the boot; only differences between two moments mean
/// anything.
fn counters(facts: &mut Facts, root: Root<'_>) {
    for (name, file) in [
        ("cpu.throttled.core", "core_throttle_count"),
        ("cpu.throttled.package", "package_throttle_count"),
    ] {
        facts.add(name, throttled(root, file).map(|count| count.to_string()));
    }
    // The first line sums all processors, in ticks: user, nice, system, idle,
    // iowait, irq, softirq, steal (proc_stat(5)). Guest time is in user time.
    let ticks = root.text("proc/stat").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "));
        let words = line.unwrap_or_default().split_whitespace().take(8);
        let ticks: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
        let steal = ticks.get(7).copied().ok_or("/proc/stat does not tell")?;
        Ok((steal, ticks.iter().sum::<u64>()))
    });
    let part = |part: fn((u64, u64)) -> u64| ticks.clone().map(|ticks| part(ticks).to_string());
    facts.add("cpu.ticks.steal", part(|ticks| ticks.0));
    facts.add("cpu.ticks.all", part(|ticks| ticks.1));
}

/// How often processors were slowed down by their heat, all together
/// (Documentation/ABI/stable/sysfs-devices-system-cpu).
fn throttled(root: Root<'_>, file: &str) -> Result<u64, String> {
    const CPU: &str = "sys/devices/system/cpu";
    let names = root.names(CPU)?;
    let counts: Vec<u64> = names
        .iter()
        .filter_map(|name| root.number(format!("{CPU}/{name}/thermal_throttle/{file}")).ok())
        .collect();
    match counts.is_empty() {
        true => Err("the kernel does not count it".to_owned()),
        false => Ok(counts.iter().sum()),
    }
}

/// Two drivers, two files of opposite sense: see the kernel's documents
/// `admin-guide/pm/intel_pstate` and `admin-guide/pm/cpufreq`.
fn turbo(root: Root<'_>) -> Result<String, String> {
    let on = |text: String, on: &str| if text == on { "on" } else { "off" }.to_owned();
    root.text("sys/devices/system/cpu/intel_pstate/no_turbo")
        .map(|text| on(text, "0"))
        .or_else(|_| root.text("sys/devices/system/cpu/cpufreq/boost").map(|text| on(text, "1")))
}

fn virtualisation(facts: &mut Facts, root: Root<'_>) {
    facts.add("kvm.device", Ok(KvmDevice::read(root.0).describe()));
    let modules = root.names("sys/module").unwrap_or_default();
    for module in modules.iter().filter(|name| *name == "kvm" || name.starts_with("kvm_")) {
        let folder = format!("sys/module/{module}/parameters");
        let parameters = root.names(&folder).map(|names| {
            let pair = |name: &String| {
                root.text(format!("{folder}/{name}")).map(|value| format!("{name}={value}")).ok()
            };
            names.iter().filter_map(pair).collect::<Vec<_>>().join(" ")
        });
        facts.add(format!("kvm.parameters.{module}"), parameters);
    }
    facts.add("host.hypervisor", hypervisor(root));
}

/// Whether this host is itself a virtual machine, and of what kind. The CPU
/// flag `hypervisor` is set by every x86 hypervisor that does not hide; other
/// architectures tell through DMI only.
fn hypervisor(root: Root<'_>) -> Result<String, String> {
    let dmi = |name: &str| root.text(format!("sys/class/dmi/id/{name}")).ok();
    let names: Vec<String> =
        [root.text("sys/hypervisor/type").ok(), dmi("sys_vendor"), dmi("product_name")]
            .into_iter()
            .flatten()
            .filter(|name| !name.is_empty())
            .collect();
    let names = names.join(" ");
    let cpuinfo = root.text("proc/cpuinfo")?;
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    let flagged = flags.map(|line| line.split_whitespace().any(|word| word == "hypervisor"));
    let known = ["QEMU", "KVM", "VMware", "VirtualBox", "Virtual Machine", "Amazon EC2", "xen"];
    let named = known.iter().any(|known| names.contains(known));
    match flagged {
        Some(true) if names.is_empty() => Ok("yes".to_owned()),
        Some(true) => Ok(format!("yes, {names}")),
        None if named => Ok(format!("yes, {names}")),
        Some(false) => Ok("no".to_owned()),
        None => Err("this architecture does not tell".to_owned()),
    }
}

fn power(facts: &mut Facts, root: Root<'_>) {
    facts.add("power.source", power_source(root));
    let zones = root.names("sys/class/thermal").unwrap_or_default();
    let hottest = zones
        .iter()
        .filter(|name| name.starts_with("thermal_zone"))
        .filter_map(|zone| root.text(format!("sys/class/thermal/{zone}/temp")).ok())
        .filter_map(|text| text.parse::<i64>().ok())
        .max();
    let celsius = |milli: i64| format!("{:.1} °C", milli as f64 / 1000.0);
    let none = || "the kernel shows no thermal zone".to_owned();
    facts.add("power.temperature", hottest.map(celsius).ok_or_else(none));
}

/// `mains` when any mains supply is online, else `battery` when there is one.
fn power_source(root: Root<'_>) -> Result<String, String> {
    const SUPPLIES: &str = "sys/class/power_supply";
    let mut battery = false;
    for name in root.names(SUPPLIES)? {
        let read = |file: &str| root.text(format!("{SUPPLIES}/{name}/{file}")).unwrap_or_default();
        // A battery of `scope` Device is that of a mouse or a headset.
        if read("scope") == "Device" {
            continue;
        }
        match read("type").as_str() {
            "Battery" => battery |= read("status") == "Discharging",
            _ if read("online") == "1" => return Ok("mains".to_owned()),
            _ => {}
        }
    }
    match battery {
        true => Ok("battery".to_owned()),
        false => Err("the kernel shows no power supply in use".to_owned()),
    }
}

fn memory(facts: &mut Facts, root: Root<'_>) {
    let meminfo: Result<Meminfo, String> = root.parsed("proc/meminfo");
    let mut bytes = |name: &str, value: &dyn Fn(&Meminfo) -> Option<u64>| {
        let text = meminfo.as_ref().map_err(Clone::clone).and_then(|meminfo| {
            let value = value(meminfo).ok_or("this kernel does not tell")?;
            Ok(format!("{value} ({})", Bytes(value)))
        });
        facts.add(name, text);
    };
    bytes("memory.total", &|meminfo| Some(meminfo.mem_total));
    bytes("memory.available", &|meminfo| meminfo.mem_available);
    bytes("memory.swap", &|meminfo| Some(meminfo.swap_total));
    bytes("memory.swap_free", &|meminfo| Some(meminfo.swap_free));
    facts.add("memory.thp", root.text("sys/kernel/mm/transparent_hugepage/enabled").map(chosen));
    facts.files(
        root,
        &[
            ("memory.ksm", "sys/kernel/mm/ksm/run"),
            ("memory.overcommit", "proc/sys/vm/overcommit_memory"),
            ("memory.swappiness", "proc/sys/vm/swappiness"),
        ],
    );
}

/// Of `always [madvise] never`, the word in brackets.
pub(super) fn chosen(text: String) -> String {
    let inner = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inner.map(|(word, _)| word.to_owned()).unwrap_or(text)
}

fn limits(facts: &mut Facts, root: Root<'_>) {
    let limits = root.text("proc/self/limits");
    let names: BTreeSet<_> = [
        ("limit.open_files", "Max open files"),
        ("limit.processes", "Max processes"),
        ("limit.locked_memory", "Max locked memory"),
        ("limit.address_space", "Max address space"),
    ]
    .into();
    for (name, title) in names {
        let value = limits.as_ref().map_err(Clone::clone).and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix(title));
            let mut words = line.unwrap_or_default().split_whitespace();
            match (words.next(), words.next()) {
                (Some(soft), Some(hard)) => Ok(format!("soft {soft}, hard {hard}")),
                _ => Err(format!("/proc/self/limits has no line `{title}`")),
            }
        });
        facts.add(name, value);
    }
}

/// What the kernel has not yet taken away of others' or earlier instances.
fn leftovers(facts: &mut Facts, root: Root<'_>) {
    let leftovers = LeftoverCounters::new(root.0).read();
    let number = |count: &Result<u64, String>| count.clone().map(|count| count.to_string());
    facts.add("cgroup.dying", number(&leftovers.dying));
    facts.add("cgroup.memory_groups", number(&leftovers.memory_groups));
    facts.add("net.namespaces", net_namespaces(root).map(|count| count.to_string()));
    let uptime = root.text("proc/uptime");
    let seconds = uptime.map(|text| text.split(' ').next().unwrap_or_default().to_owned());
    facts.add("host.uptime_seconds", seconds);
}

/// Network namespaces that a process is in, of the processes that may be
/// looked at.
fn net_namespaces(root: Root<'_>) -> Result<usize, String> {
    let names = root.names("proc")?;
    let namespaces: BTreeSet<_> = names
        .iter()
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|pid| std::fs::read_link(root.path(format!("proc/{pid}/ns/net"))).ok())
        .collect();
    match namespaces.len() {
        0 => Err("no process shows its namespace".to_owned()),
        count => Ok(count),
    }
}

fn load(facts: &mut Facts, root: Root<'_>) {
    let load: Result<LoadAverage, String> = root.text("proc/loadavg").and_then(|text| {
        procfs::FromRead::from_read(text.as_bytes())
            .map_err(|error| format!("/proc/loadavg: {error}"))
    });
    for (name, value) in [
        ("load.1m", load.as_ref().map(|load| load.one)),
        ("load.5m", load.as_ref().map(|load| load.five)),
        ("load.15m", load.as_ref().map(|load| load.fifteen)),
    ] {
        facts.add(name, value.map(|value| format!("{value:.2}")).map_err(Clone::clone));
    }
    for resource in ["cpu", "memory", "io"] {
        let text = root.text(format!("proc/pressure/{resource}"));
        let text = text.map(|text| text.lines().collect::<Vec<_>>().join("; "));
        facts.add(format!("psi.{resource}"), text);
    }
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}
