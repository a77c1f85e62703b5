//! What this user may do here: KVM, control groups, namespaces.

use std::path::Path;

use nix::unistd::{AccessFlags, access};

use super::super::cgroups::{CgroupLayout, CgroupVersion, words};
use super::super::kvm::KvmDevice;
use super::super::source::Root;
use super::{Finding, Severity};

/// Controllers that limits and ledgers of containers need.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

pub(super) fn findings(root: &Path, is_root: bool) -> Vec<Finding> {
    let mut found = vec![kvm(root), user(is_root)];
    match CgroupLayout::read(root) {
        Ok(layout) => {
            found.push(version(&layout));
            found.extend(controllers(&layout));
            if !is_root {
                found.push(delegation(Root(root), &layout));
            }
        }
        Err(reason) => found.push(Finding::new(
            Severity::Warning,
            "control groups",
            reason,
            "the layout is unknown: limits and the cgroup ledger may be missing",
            "make /proc readable",
        )),
    }
    if !is_root {
        found.push(user_namespaces(Root(root)));
    }
    found
}

fn kvm(root: &Path) -> Finding {
    let device = KvmDevice::read(root);
    let value = device.describe();
    let slow = "virtual machines run under software emulation (TCG): slower in all that the \
                processor does, and every chart says so";
    let remedy = match device {
        KvmDevice::Openable => return Finding::ok("KVM", value),
        KvmDevice::Absent => {
            "switch on virtualization in the firmware and load kvm_intel or kvm_amd; inside a \
             virtual machine, allow nesting on its host"
        }
        KvmDevice::Forbidden => "join the group: `sudo usermod -aG kvm $USER`, then log in again",
        KvmDevice::Broken(_) => "look for the cause in `dmesg | grep -i kvm`",
    };
    Finding::new(Severity::Warning, "KVM", value, slow, remedy)
}

fn user(is_root: bool) -> Finding {
    if is_root {
        return Finding::ok("user", "root");
    }
    Finding::new(
        Severity::Note,
        "user",
        "not root",
        "containers use a user namespace; limits exist only in a delegated control group, and \
         caches cannot be dropped",
        "run as root for all cells",
    )
}

fn version(layout: &CgroupLayout) -> Finding {
    let name = layout.version.as_str();
    match layout.version {
        CgroupVersion::Absent => Finding::new(
            Severity::Warning,
            "control groups",
            name,
            "no limits, no cgroup ledger, and no group to clean up by",
            "mount them: `mount -t cgroup2 none /sys/fs/cgroup`",
        ),
        _ => Finding::ok("control groups", name),
    }
}

fn controllers(layout: &CgroupLayout) -> Vec<Finding> {
    let one = |controller: &str| {
        let fact = format!("{controller} controller");
        if layout.has(controller) {
            return Finding::ok(&fact, "present");
        }
        let effect = match controller {
            "memory" => "no memory limit, and the ledgers cgroup and peak are missing",
            "pids" => "no process limit",
            _ => "no processor time limit",
        };
        let remedy = "enable it on the kernel command line, for memory with \
                      `cgroup_enable=memory`, and reboot";
        Finding::new(Severity::Warning, &fact, "missing", effect, remedy)
    };
    CONTROLLERS.into_iter().map(one).collect()
}

/// Whether our own version 2 group is ours to divide.
fn delegation(root: Root<'_>, layout: &CgroupLayout) -> Finding {
    const FACT: &str = "control group delegation";
    let without = |value: String| {
        Finding::new(
            Severity::Warning,
            FACT,
            value,
            "containers run without limits, and the ledgers cgroup and peak are missing",
            "where systemd manages your session, `unladen run` gets itself a scope; elsewhere start it as `systemd-run --user --scope -p Delegate=yes unladen run ...`, or run as root",
        )
    };
    if layout.version != CgroupVersion::V2 {
        return without(format!("impossible on {}", layout.version.as_str()));
    }
    let Some((own, ..)) = layout.own(root, "memory") else {
        return without("own group unknown".to_owned());
    };
    let path = root.path(&own);
    if access(&path.join("cgroup.procs"), AccessFlags::W_OK).is_err()
        || access(&path, AccessFlags::W_OK).is_err()
    {
        return without("own group not writable".to_owned());
    }
    let have = words(&root.text(own.join("cgroup.controllers")).unwrap_or_default());
    let lacking: Vec<_> =
        CONTROLLERS.into_iter().filter(|name| !have.iter().any(|have| have == name)).collect();
    if lacking.is_empty() {
        return Finding::ok(FACT, have.join(" "));
    }
    without(format!("without {}", lacking.join(", ")))
}

/// Three switches of three distributions, any of which forbids it.
fn user_namespaces(root: Root<'_>) -> Finding {
    const FACT: &str = "user namespaces";
    let forbidding = [
        ("proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
        (
            "proc/sys/kernel/unprivileged_userns_clone",
            "0",
            "sysctl kernel.unprivileged_userns_clone=1",
        ),
        (
            "proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ];
    let switch =
        forbidding.iter().find(|(path, bad, _)| root.text(path).is_ok_and(|text| text == *bad));
    match switch {
        Some((path, value, remedy)) => Finding::new(
            Severity::Blocker,
            FACT,
            format!("forbidden: /{path} is {value}"),
            "no container can be made without root",
            &format!("`sudo {remedy}`, or run as root"),
        ),
        None => Finding::ok(FACT, "allowed"),
    }
}
