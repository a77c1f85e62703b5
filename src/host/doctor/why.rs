//! Why each fact is looked at: what it has to do with a measurement, whatever
//! its value.

/// One sentence for each fact that `doctor` looks at, by its name.
const WHY: [(&str, &str); 25] = [
    (
        "QEMU",
        "it runs every virtual machine that is measured, and its version is part of the result",
    ),
    (
        "guest kernel tuned",
        "our small kernel: what a machine costs with nothing superfluous inside",
    ),
    (
        "guest kernel distro",
        "a distribution's kernel: what a machine costs as most people start it",
    ),
    (
        "KVM",
        "the processor runs guests itself through /dev/kvm; `accelerator` says whether one boots",
    ),
    ("accelerator", "what runs the guests' code; found out by booting a real kernel"),
    ("user", "control groups, cold caches and host settings are changed by root alone"),
    (
        "control groups",
        "every instance gets one: for its limits, for reading its memory, for removing it",
    ),
    ("memory controller", "it limits and counts the memory of an instance"),
    ("pids controller", "it limits the number of processes of an instance"),
    ("cpu controller", "it limits the processor time of an instance"),
    (
        "control group delegation",
        "without root, groups can be made only where somebody has allowed it",
    ),
    ("user namespaces", "without root, a container can only be made in one"),
    (
        "virtual host",
        "an outer hypervisor makes page faults and interrupts dearer, and gives time to others",
    ),
    ("CPU governor", "it decides how fast the processor's clock is, and how soon it rises"),
    ("power", "on battery, firmware and governor trade speed for time"),
    ("load", "what else runs takes processors away in the middle of a trial"),
    (
        "memory",
        "density ladders climb until it runs out, and short memory makes the kernel write and reclaim",
    ),
    ("swap", "the ledgers count what is in memory, not what was moved out"),
    ("same-page merging (KSM)", "pages that are merged are counted once for several machines"),
    ("clock source", "every mark on the timeline is a reading of this clock"),
    ("turbo", "it raises the clock for as long as heat and power allow"),
    ("threads per core (SMT)", "two threads of one core share its caches and units"),
    (
        "transparent huge pages",
        "they change how much memory a touched page costs, and how fast it is had",
    ),
    ("heat", "a processor that is too hot lowers its clock by itself"),
    ("disk", "samples are written after each trial, and images and guest kernels are kept"),
];

/// Why this fact matters; empty for one that nobody has described.
pub(super) fn why(fact: &str) -> &'static str {
    WHY.iter().find(|(name, _)| *name == fact).map_or("", |(_, why)| why)
}
