//! The attacks.

use std::fs;

use nix::errno::Errno;
use oci_spec::runtime::{Capability, LinuxNamespaceType as Kind};

use super::Guard::{
    Filter, Hidden, Keyring, NoDescriptors, NoNewPrivileges, Own, Pivot, Protected, ReadOnlySys,
    Without,
};
use super::{Guard, Row, Stop, Success};

const EPERM: Stop = Stop::Refused(Errno::EPERM);
const EROFS: Stop = Stop::Refused(Errno::EROFS);
const ENOENT: Stop = Stop::Refused(Errno::ENOENT);
const ESRCH: Stop = Stop::Refused(Errno::ESRCH);
const EBADF: Stop = Stop::Refused(Errno::EBADF);
const EACCES: Stop = Stop::Refused(Errno::EACCES);
/// The filter's answer to what it does not know.
const UNKNOWN: Stop = Stop::Refused(Errno::ENOSYS);

/// The program's word is enough: what it read or got is not to be had
/// otherwise.
const SAID: Success = Success::Seen(|_, _, _| true);
/// It has read the scene's secret.
const SECRET: Success = Success::Seen(|scene, _, proof| proof.contains(&scene.secret));

fn row(
    name: &'static str,
    attack: &'static [&'static str],
    guards: &[(Guard, Stop)],
    success: Success,
) -> Row {
    let guards = guards.to_vec();
    // Namespaces of the host and its descriptors cannot be given to a user.
    let asks = guards.iter().all(|(guard, _)| {
        matches!(guard, Without(_) | Filter | Hidden | Protected | ReadOnlySys | NoNewPrivileges)
    });
    Row { name, attack, guards, success, bare: None, rootless: asks.then_some(true), lacking: None }
}

impl Row {
    /// In a user namespace of its own it may, and harms only itself.
    fn harmless_in_user_namespace(self) -> Self {
        Self { rootless: Some(false), ..self }
    }

    fn unless(self, errno: Errno, reason: &'static str) -> Self {
        Self { lacking: Some((errno, reason)), ..self }
    }

    fn bare(self, attack: &'static [&'static str]) -> Self {
        Self { bare: Some(attack), rootless: None, ..self }
    }
}

/// All of them.
pub fn all() -> Vec<Row> {
    [
        devices_and_mounts(),
        protected_files(),
        hidden_files(),
        processes(),
        own_priority(),
        kernel_programs(),
        kernel_services(),
        host_state(),
        ways_out(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn devices_and_mounts() -> Vec<Row> {
    let admin = Without(Capability::SysAdmin);
    let mounted: Success = Success::Seen(|_, pid, _| {
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("alive");
        mounts.lines().any(|line| line.contains(" /mnt "))
    });
    let made: Success = Success::Seen(|scene, _, _| scene.made_device());
    vec![
        row(
            "make a device (1:5)",
            &["mknod", "1", "5"],
            &[(Without(Capability::Mknod), EPERM)],
            made,
        ),
        row(
            "make and open /dev/mem",
            &["mknod", "1", "1"],
            &[(Without(Capability::Mknod), EPERM), (Without(Capability::SysRawio), EPERM)],
            made,
        )
        .unless(Errno::ENXIO, "the kernel has no /dev/mem"),
        row("mount a filesystem", &["mount"], &[(admin, EPERM)], mounted)
            .harmless_in_user_namespace(),
        row("pivot_root again", &["pivot"], &[(admin, EPERM)], SAID).harmless_in_user_namespace(),
        row(
            "unmount what hides /proc/timer_list",
            &["unmount", "/proc/timer_list", "/proc/timer_list"],
            &[(admin, EPERM)],
            SAID,
        ),
        row("remount /proc/sys writable", &["remount", "/proc/sys"], &[(admin, EPERM)], SAID),
        row(
            "mount a new /proc in a nested user namespace",
            &["nested-proc"],
            &[(Hidden, EPERM), (Protected, EPERM)],
            SAID,
        )
        .harmless_in_user_namespace(),
        row(
            "set a release_agent in an own hierarchy",
            &["release-agent", "{id}"],
            &[(admin, EPERM), (Own(Kind::Cgroup), EPERM)],
            Success::Seen(|_, _, proof| proof == "/no/such/program"),
        )
        .unless(Errno::ENODEV, "the kernel has no cgroup version 1"),
    ]
}

fn protected_files() -> Vec<Row> {
    vec![
        row(
            "write to /proc/sys",
            &["write-back", "/proc/sys/kernel/panic_on_oops"],
            &[(Protected, EROFS)],
            SAID,
        ),
        row(
            "set core_pattern",
            &["write-back", "/proc/sys/kernel/core_pattern"],
            &[(Protected, EROFS)],
            SAID,
        ),
        row(
            "host name by /proc/sys",
            &["write", "/proc/sys/kernel/hostname", "taken"],
            &[(Protected, EROFS), (Own(Kind::Uts), Stop::Contained)],
            Success::Seen(|scene, _, _| scene.ask("host name") == "taken"),
        ),
        row(
            "open sysrq-trigger",
            &["open-for-writing", "/proc/sysrq-trigger"],
            &[(Protected, EROFS)],
            SAID,
        )
        .unless(Errno::ENOENT, "the kernel has no sysrq"),
        row(
            "set interrupt affinity",
            &["write-back", "/proc/irq/default_smp_affinity"],
            &[(Protected, EROFS)],
            SAID,
        ),
        row(
            "write to /sys",
            &["open-for-writing", "/sys/devices/virtual/mem/null/uevent"],
            &[(ReadOnlySys, EROFS)],
            SAID,
        ),
    ]
}

fn hidden_files() -> Vec<Row> {
    vec![
        row(
            "read /proc/timer_list",
            &["read", "/proc/timer_list"],
            &[(Hidden, Stop::Nothing)],
            SAID,
        ),
        row(
            "read /proc/interrupts",
            &["read", "/proc/interrupts"],
            &[(Hidden, Stop::Nothing)],
            SAID,
        )
        .harmless_in_user_namespace(),
        row(
            "open /proc/kcore",
            &["read", "/proc/kcore"],
            &[(Hidden, Stop::Nothing), (Without(Capability::SysRawio), EPERM)],
            SAID,
        )
        .unless(Errno::ENOENT, "the kernel has no kcore"),
        row("list /sys/firmware", &["list", "/sys/firmware"], &[(Hidden, Stop::Nothing)], SAID)
            .harmless_in_user_namespace(),
        row(
            "addresses in /proc/kallsyms",
            &["kernel-symbols"],
            &[(Without(Capability::Syslog), Stop::Nothing)],
            SAID,
        )
        .unless(Errno::ENOENT, "the kernel has no kallsyms"),
    ]
}

fn processes() -> Vec<Row> {
    let pid = Own(Kind::Pid);
    let trace = Without(Capability::SysPtrace);
    vec![
        row(
            "ptrace a process outside",
            &["ptrace", "{pid}"],
            &[(pid, ESRCH), (trace, EPERM)],
            Success::Seen(|scene, _, _| !scene.victim_status("TracerPid").ends_with("\t0")),
        ),
        row(
            "read the memory of a process outside",
            &["read-memory", "{pid}", "{address}", "{length}"],
            &[(pid, ESRCH), (trace, EPERM)],
            SECRET,
        ),
        row(
            "read files by /proc/PID/root",
            &["read", "/proc/{pid}/root{file}"],
            &[(pid, ENOENT), (trace, EACCES)],
            SECRET,
        ),
        row(
            "compare files of a process outside",
            &["compare", "{pid}"],
            &[(pid, ESRCH), (Filter, EPERM), (trace, EPERM)],
            SAID,
        ),
        row(
            "kill a process outside",
            &["kill", "{pid}"],
            &[(pid, ESRCH)],
            Success::Seen(|scene, _, _| scene.victim_was_killed()),
        ),
        row(
            "abstract socket of the host",
            &["abstract", "unladen-hostile"],
            &[(Own(Kind::Network), Stop::Refused(Errno::ECONNREFUSED))],
            Success::Seen(|scene, _, _| scene.ask("heard") == "from inside"),
        ),
        row("System V memory of the host", &["shared-memory"], &[(Own(Kind::Ipc), ENOENT)], SECRET),
    ]
}

fn own_priority() -> Vec<Row> {
    vec![
        row(
            "be nicer to oneself",
            &["hurry"],
            &[(Without(Capability::SysNice), EACCES)],
            Success::Seen(|_, pid, _| nice_of(pid) == -10),
        ),
        row(
            "be spared when memory is short",
            &["write", "/proc/self/oom_score_adj", "-500"],
            &[(Without(Capability::SysResource), EACCES)],
            Success::Seen(|_, pid, _| {
                let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
                text.expect("alive").trim() == "-500"
            }),
        ),
    ]
}

/// The 19th field of proc_pid_stat(5).
fn nice_of(pid: u32) -> i32 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("alive");
    let (_, behind) = text.rsplit_once(')').expect("a name");
    behind.split_whitespace().nth(16).expect("a field").parse().expect("a number")
}

/// Whether a process has a descriptor of this kind.
fn has_descriptor(pid: u32, kind: &str) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("alive").flatten();
    let mut links = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.any(|link| link.to_string_lossy().contains(kind))
}

fn kernel_programs() -> Vec<Row> {
    let mut faults = vec![(Filter, EPERM)];
    let sysctl = fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd");
    if sysctl.is_ok_and(|text| text.trim() == "0") {
        faults.push((Without(Capability::SysPtrace), EPERM));
    }
    vec![
        row(
            "load a kernel module",
            &["module"],
            &[(Filter, EPERM), (Without(Capability::SysModule), EPERM)],
            Success::Reached(Errno::ENOEXEC),
        )
        .unless(Errno::ENOSYS, "the kernel has no modules"),
        row(
            "load another kernel",
            &["kexec"],
            &[(Filter, EPERM), (Without(Capability::SysBoot), EPERM)],
            SAID,
        )
        .unless(Errno::ENOSYS, "the kernel has no kexec"),
        row(
            "make a bpf map",
            &["bpf"],
            &[(Filter, EPERM), (Without(Capability::Bpf), EPERM)],
            Success::Seen(|_, pid, _| has_descriptor(pid, "bpf-map")),
        ),
        row(
            "userfaultfd of the kernel's faults",
            &["userfaultfd"],
            &faults,
            Success::Seen(|_, pid, _| has_descriptor(pid, "userfaultfd")),
        ),
    ]
}

fn kernel_services() -> Vec<Row> {
    let admin = Without(Capability::SysAdmin);
    vec![
        row(
            "measure a whole processor (perf_event_open)",
            &["perf"],
            &[(Filter, EPERM), (Without(Capability::Perfmon), EACCES)],
            Success::Seen(|_, pid, _| has_descriptor(pid, "perf_event")),
        ),
        row(
            "io_uring",
            &["io-uring"],
            &[(Filter, UNKNOWN)],
            Success::Seen(|_, pid, _| has_descriptor(pid, "io_uring")),
        )
        .harmless_in_user_namespace(),
        row(
            "watch files (fanotify)",
            &["watch-files"],
            &[(Filter, EPERM), (admin, EPERM)],
            Success::Seen(|_, pid, _| has_descriptor(pid, "fanotify")),
        ),
        row(
            "randomisation off (personality)",
            &["personality"],
            &[(Filter, UNKNOWN)],
            Success::Seen(|_, pid, _| {
                let text = fs::read_to_string(format!("/proc/{pid}/personality"));
                text.expect("alive").trim() == "00040000"
            }),
        )
        .harmless_in_user_namespace(),
        row(
            "I/O ports (iopl)",
            &["ports"],
            &[(Filter, EPERM), (Without(Capability::SysRawio), EPERM)],
            SAID,
        )
        .unless(Errno::ENOSYS, "the kernel has no iopl"),
        row(
            "level of kernel messages",
            &["log"],
            &[(Without(Capability::Syslog), EPERM)],
            Success::Reached(Errno::EINVAL),
        ),
    ]
}

fn host_state() -> Vec<Row> {
    let (admin, time) = (Without(Capability::SysAdmin), Without(Capability::SysTime));
    vec![
        row(
            "host name",
            &["host-name", "taken"],
            &[(Filter, EPERM), (admin, EPERM), (Own(Kind::Uts), Stop::Contained)],
            Success::Seen(|scene, _, _| scene.ask("host name") == "taken"),
        ),
        row("set the time zone", &["time-zone"], &[(Filter, EPERM), (time, EPERM)], SAID),
        row("adjust the clock", &["clock"], &[(time, EPERM)], SAID),
        row(
            "reboot",
            &["reboot"],
            &[(Without(Capability::SysBoot), EPERM)],
            Success::Reached(Errno::EINVAL),
        )
        .harmless_in_user_namespace(),
        row(
            "swap on a file",
            &["swap"],
            &[(Filter, EPERM), (admin, EPERM)],
            Success::Reached(Errno::ENOENT),
        ),
        row(
            "process accounting",
            &["accounting"],
            &[(Filter, EPERM), (Without(Capability::SysPacct), EPERM)],
            Success::Reached(Errno::ENOENT),
        ),
        row("quotas", &["quota"], &[(Filter, EPERM)], SAID).harmless_in_user_namespace(),
        row(
            "change the network's interfaces",
            &["mtu", "60000"],
            &[(Without(Capability::NetAdmin), EPERM), (Own(Kind::Network), Stop::Contained)],
            Success::Seen(|scene, _, _| scene.ask("mtu") == "60000"),
        ),
        row(
            "raw packets",
            &["packets"],
            &[(Without(Capability::NetRaw), EPERM)],
            Success::Seen(|_, pid, _| has_descriptor(pid, "socket:")),
        )
        .harmless_in_user_namespace(),
        row(
            "type into the caller's terminal",
            &["type", "{terminal}"],
            &[(admin, EPERM)],
            Success::Seen(|scene, _, _| scene.terminal_has_echoed()),
        ),
    ]
}

fn ways_out() -> Vec<Row> {
    let admin = Without(Capability::SysAdmin);
    vec![
        row(
            "read by a folder left open",
            &["descriptor", "{folder}", "secret"],
            &[(NoDescriptors, EBADF)],
            SECRET,
        ),
        row(
            "read by /proc/self/fd",
            &["read", "/proc/self/fd/{folder}/secret"],
            &[(NoDescriptors, ENOENT)],
            SECRET,
        ),
        row(
            "enter a mount namespace left open",
            &["set-namespace", "{namespace}", "{file}"],
            &[(NoDescriptors, EBADF), (admin, EPERM)],
            SECRET,
        ),
        row(
            "open a file by its handle",
            &["open-handle", "{handle}"],
            &[(Filter, EPERM), (Without(Capability::DacReadSearch), EPERM)],
            SECRET,
        ),
        row("climb out of the root", &["climb", "{file}"], &[(Pivot, ENOENT)], SECRET)
            .bare(&["jailed", "{rootfs}", "{file}"]),
        row(
            "read the caller's session keys (no filter)",
            &["keyring"],
            &[(Keyring, Stop::Refused(Errno::ENOKEY))],
            SECRET,
        )
        .bare(&["keyring"]),
        row(
            "read the keys of the host's same user",
            &["user-key", "{id}"],
            &[(Filter, UNKNOWN)],
            SECRET,
        ),
        row(
            "gain privileges by a set-user-ID program",
            &["gain", "/hostile-root"],
            &[(NoNewPrivileges, Stop::Nothing)],
            Success::Seen(|_, pid, _| {
                let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("alive");
                status.contains("Uid:\t1000\t0\t0\t0")
            }),
        ),
    ]
}
