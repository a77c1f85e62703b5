//! The condition of the host: what makes numbers unsteady or unusual.

use std::path::Path;

use nix::sys::statvfs::statvfs;

use crate::record::HostFact;
use crate::units::{Bytes, MIB};

use super::super::facts::fact;
use super::super::labels::is_loaded;
use super::{Finding, Severity};

/// Available memory below which ladders end almost at once: the guard keeps a
/// GiB.
const LOW_MEMORY: u64 = 2048 * MIB;
/// Free disk space that a guest kernel's build and a long run want.
const LOW_DISK: u64 = 4096 * MIB;

/// What is looked at: its title, the fact it rests on, and the judgement.
type Check = (&'static str, &'static str, fn(&[HostFact]) -> Option<Finding>);

const CHECKS: [Check; 12] = [
    ("virtual host", "host.hypervisor", hypervisor),
    ("CPU governor", "cpu.governor", governor),
    ("power", "power.source", power),
    ("load", "load.1m", load),
    ("memory", "memory.available", memory),
    ("swap", "memory.swap", swap),
    ("same-page merging (KSM)", "memory.ksm", same_page_merging),
    ("clock source", "clock.source", clock_source),
    ("turbo", "cpu.turbo", turbo),
    ("threads per core (SMT)", "cpu.smt", threads_per_core),
    ("transparent huge pages", "memory.thp", huge_pages),
    ("heat", "cpu.throttled.package", heat),
];

pub(super) fn findings(facts: &[HostFact]) -> Vec<Finding> {
    let one = |(title, name, check): &Check| {
        check(facts).unwrap_or_else(|| {
            let value = facts.iter().find(|fact| fact.name == *name).map(|fact| &fact.value);
            let value = value.map_or("not looked at", String::as_str);
            let effect = "this host does not tell, so no chart can mention it";
            Finding::new(Severity::Note, title, value, effect, "")
        })
    };
    CHECKS.iter().map(one).collect()
}

fn hypervisor(facts: &[HostFact]) -> Option<Finding> {
    let value = fact(facts, "host.hypervisor")?;
    if value == "no" {
        return Some(Finding::ok("virtual host", value));
    }
    Some(Finding::new(
        Severity::Note,
        "virtual host",
        value,
        "this host is a virtual machine: guests are nested or emulated, and other machines on the \
         same hardware disturb; every chart says so",
        "for numbers to publish, use bare metal",
    ))
}

fn governor(facts: &[HostFact]) -> Option<Finding> {
    let value = fact(facts, "cpu.governor")?;
    if value == "performance" {
        return Some(Finding::ok("CPU governor", value));
    }
    Some(Finding::new(
        Severity::Warning,
        "CPU governor",
        value,
        "the clock rises during a trial, so short trials look slower than long ones",
        "`unladen run --tune` for one run, or `unladen tune --apply --only governor`, as root",
    )
    .with_evidence(
        "Google Benchmark warns that times are noisy and longer unless the governor is performance \
         (https://google.github.io/benchmark/reducing_variance.html)",
    ))
}

fn power(facts: &[HostFact]) -> Option<Finding> {
    let value = fact(facts, "power.source")?;
    if value == "mains" {
        return Some(Finding::ok("power", value));
    }
    Some(Finding::new(
        Severity::Warning,
        "power",
        value,
        "the firmware saves power, so trials get slower as the battery empties",
        "plug it in",
    ))
}

fn load(facts: &[HostFact]) -> Option<Finding> {
    let value = fact(facts, "load.1m")?;
    if !is_loaded(facts) {
        return Some(Finding::ok("load", value));
    }
    let cpus = fact(facts, "cpu.logical").unwrap_or("?");
    Some(Finding::new(
        Severity::Warning,
        "load",
        format!("{value} on {cpus} processors"),
        "others use the processors: times scatter, and small differences cannot be shown",
        "end what is running (`top` shows it) and wait a minute",
    )
    .with_evidence(
        "one busy neighbour made the same loop take 372 ms instead of 229 ms (V. Stinner, \"How to \
         run stable benchmarks\", FOSDEM 2017)",
    ))
}

/// The number at the start of a fact such as `1024 (1 KiB)`.
fn bytes(facts: &[HostFact], name: &str) -> Option<u64> {
    fact(facts, name)?.split(' ').next()?.parse().ok()
}

fn memory(facts: &[HostFact]) -> Option<Finding> {
    let available = bytes(facts, "memory.available")?;
    let value = format!("{} available", Bytes(available));
    if available >= LOW_MEMORY {
        return Some(Finding::ok("memory", value));
    }
    Some(Finding::new(
        Severity::Warning,
        "memory",
        value,
        "density ladders end early: a tenth of the memory, and at least one GiB, stays free",
        "end programs that hold memory",
    ))
}

fn swap(facts: &[HostFact]) -> Option<Finding> {
    let total = bytes(facts, "memory.swap")?;
    if total == 0 {
        return Some(Finding::ok("swap", "none"));
    }
    Some(Finding::new(
        Severity::Note,
        "swap",
        Bytes(total).to_string(),
        "an instance that is swapped out looks smaller than it is",
        "`sudo swapoff -a` for the time of the run, if the memory suffices",
    ))
}

fn same_page_merging(facts: &[HostFact]) -> Option<Finding> {
    let value = fact(facts, "memory.ksm")?;
    if value != "1" {
        return Some(Finding::ok("same-page merging (KSM)", "off"));
    }
    Some(Finding::new(
        Severity::Note,
        "same-page merging (KSM)",
        "on",
        "equal pages of virtual machines are shared after a while, so their memory depends on how \
         long they have lived",
        "`unladen run --tune`, or `unladen tune --apply --only ksm`, as root, stops it; `echo 2 | \
         sudo tee /sys/kernel/mm/ksm/run` also undoes what was merged",
    ))
}

fn clock_source(facts: &[HostFact]) -> Option<Finding> {
    let value = fact(facts, "clock.source")?;
    let slow = ["hpet", "acpi_pm", "jiffies", "refined-jiffies"];
    if !slow.contains(&value) {
        return Some(Finding::ok("clock source", value));
    }
    Some(Finding::new(
        Severity::Warning,
        "clock source",
        value,
        "each reading of the clock costs a system call and about a microsecond or more",
        "see why the kernel refused the TSC: `dmesg | grep -i tsc`",
    ))
}

fn turbo(facts: &[HostFact]) -> Option<Finding> {
    let value = fact(facts, "cpu.turbo")?;
    if value == "off" {
        return Some(Finding::ok("turbo", value));
    }
    Some(Finding::new(
        Severity::Note,
        "turbo",
        value,
        "the first trials after a pause may be faster than later ones",
        "`unladen run --tune`, or `unladen tune --apply --only turbo`, as root, for steadier numbers",
    )
    .with_evidence(
        "the kernel's own documents name reproducible benchmarks as the reason for the switch: the \
         clock of one thread depends on the load of the whole package \
         (https://kernel.org/doc/Documentation/cpu-freq/boost.txt)",
    ))
}

fn threads_per_core(facts: &[HostFact]) -> Option<Finding> {
    const FACT: &str = "threads per core (SMT)";
    let value = fact(facts, "cpu.smt")?;
    if value != "on" {
        return Some(Finding::ok(FACT, value));
    }
    Some(Finding::new(
        Severity::Note,
        FACT,
        value,
        "what runs on the other thread of a core slows a trial down",
        "`unladen tune --apply --only smt` as root; not part of `--tune`, since it takes processors \
         away from everybody",
    ))
}

fn huge_pages(facts: &[HostFact]) -> Option<Finding> {
    const FACT: &str = "transparent huge pages";
    let value = fact(facts, "memory.thp")?;
    if value != "always" {
        return Some(Finding::ok(FACT, value));
    }
    Some(
        Finding::new(
            Severity::Note,
            FACT,
            value,
            "a program that touches one page may get 512: memory depends on how fragmented the \
             host is",
            "`unladen run --tune`, or `unladen tune --apply --only thp`, as root, gives them to \
             programs that ask",
        )
        .with_evidence(
            "guest memory in huge pages shortened Firecracker's boots by up to half \
             (https://github.com/firecracker-microvm/firecracker/blob/main/docs/hugepages.md): \
             whether a guest gets them must not be chance",
        ),
    )
}

/// Since the boot, so that it says what this machine is prone to.
fn heat(facts: &[HostFact]) -> Option<Finding> {
    let count = fact(facts, "cpu.throttled.package")?;
    if count == "0" {
        return Some(Finding::ok("heat", "never slowed down since the start of the host"));
    }
    Some(Finding::new(
        Severity::Note,
        "heat",
        format!("slowed down {count} times since the start of the host"),
        "a hot processor is slower; a run in which it happens says so",
        "let it cool down before a run, and see to its fan",
    ))
}

/// Free space where a run would write: of the nearest folder that exists.
pub(super) fn disk(out: &Path) -> Finding {
    let absolute = std::path::absolute(out).unwrap_or_else(|_| out.to_owned());
    let stat = absolute.ancestors().find_map(|path| statvfs(path).ok());
    let Some(stat) = stat else {
        return Finding::new(
            Severity::Note,
            "disk",
            "free space unknown",
            "a full disk ends a run early; what was measured is kept",
            "see `df`",
        );
    };
    // Block counts of at most 64 bits; their types differ between platforms.
    #[allow(clippy::useless_conversion, reason = "not useless on 32-bit platforms")]
    let free = u64::from(stat.blocks_available()) * u64::from(stat.fragment_size());
    let value = format!("{} free", Bytes(free));
    if free >= LOW_DISK {
        return Finding::ok("disk", value);
    }
    Finding::new(
        Severity::Warning,
        "disk",
        value,
        "building the guest kernel needs about 3 GiB; a run itself only a few MiB",
        "free some space, or write elsewhere with --out",
    )
}
