//! What is written to files of `/proc` for an instance: kernel parameters,
//! clocks, labels of security modules.
//!
//! All of it goes through the host's `/proc`, before the container's own
//! exists: nothing in an image can lead the text to another file (the
//! CVE-2025-52881 class).

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use nix::sched::CloneFlags;
use oci_spec::runtime::{Linux, Process};

use super::namespaces::Namespaces;
use super::{PlanError, c_string};
use crate::sys::spawn::{CLONE_NEWTIME, Step, TIME_OFFSETS};

/// Kernel parameters of an IPC namespace (ipc_namespaces(7)).
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Steps that write what a spec asks for.
pub(super) fn steps(
    linux: &Linux,
    process: &Process,
    namespaces: &Namespaces,
) -> Result<Vec<Step>, PlanError> {
    let mut steps = parameters(linux, namespaces)?;
    steps.extend(clocks(linux, namespaces)?);
    steps.extend(labels(process)?);
    Ok(steps)
}

/// Kernel parameters; only those of a namespace that is not the host's.
fn parameters(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<Step>, PlanError> {
    let none = HashMap::new();
    // In one order, so that the same spec gives the same plan.
    let all: BTreeMap<_, _> = linux.sysctl().as_ref().unwrap_or(&none).iter().collect();
    all.into_iter().map(|(name, value)| parameter(name, value, namespaces)).collect()
}

fn parameter(name: &str, value: &str, namespaces: &Namespaces) -> Result<Step, PlanError> {
    let field = format!("linux.sysctl.{name}");
    let refuse =
        |reason| Err(PlanError::Value { field: field.clone(), value: value.to_owned(), reason });
    let path = path_of(name);
    let dotted = path.replace('.', "\u{0}").replace('/', ".");
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return refuse("its name is not that of a kernel parameter");
    }
    let kind = match dotted.as_str() {
        name if name.starts_with("net.") => CloneFlags::CLONE_NEWNET,
        name if IPC.contains(&name) || name.starts_with("fs.mqueue.") => CloneFlags::CLONE_NEWIPC,
        "kernel.hostname" | "kernel.domainname" => CloneFlags::CLONE_NEWUTS,
        _ => return refuse("this parameter is the whole host's and not a namespace's"),
    };
    if !namespaces.apart(kind) {
        return refuse("without a namespace of its own it would be the host's");
    }
    let path = c_string(&field, &format!("/proc/sys/{path}"))?;
    Ok(Step::WriteFile { path, data: value.as_bytes().to_vec() })
}

/// Both spellings of sysctl(8): the first separator tells which one is the
/// separator; the other stands for itself the other way around.
fn path_of(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'.') => name
            .chars()
            .map(|letter| match letter {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// Offsets of a time namespace (time_namespaces(7)), which can be set as long
/// as no process is in it: a child enters it with its program.
fn clocks(linux: &Linux, namespaces: &Namespaces) -> Result<Option<Step>, PlanError> {
    let none = HashMap::new();
    let offsets: BTreeMap<_, _> = linux.time_offsets().as_ref().unwrap_or(&none).iter().collect();
    if offsets.is_empty() {
        return Ok(None);
    }
    if !namespaces.new.contains(CLONE_NEWTIME) {
        return Err(PlanError::Missing {
            field: "linux.namespaces[time]",
            reason: "offsets of clocks need a time namespace",
        });
    }
    let mut data = String::new();
    for (clock, offset) in offsets {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(PlanError::Value {
                field: format!("linux.timeOffsets.{clock}"),
                value: format!("{} s", offset.secs().unwrap_or(0)),
                reason: "a time namespace has the clocks monotonic and boottime",
            });
        }
        let (seconds, rest) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        data.push_str(&format!("{clock} {seconds} {rest}\n"));
    }
    let path = c_string("linux.timeOffsets", TIME_OFFSETS)?;
    Ok(Some(Step::WriteFile { path, data: data.into_bytes() }))
}

/// The labels under which security modules run the program.
fn labels(process: &Process) -> Result<Vec<Step>, PlanError> {
    let mut steps = Vec::new();
    let label = |field: &str, text: &str, path: &str| {
        Ok::<_, PlanError>(Step::WriteFile {
            path: c_string(field, path)?,
            data: c_string(field, text)?.into_bytes(),
        })
    };
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(profile) = given(process.apparmor_profile()) {
        let field = "process.apparmorProfile";
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
            .is_ok_and(|text| text.trim() == "Y");
        if enabled {
            // Beside other modules it has a folder of its own (Linux 5.8).
            let own = "/proc/self/attr/apparmor/exec";
            let path = if Path::new(own).exists() { own } else { "/proc/self/attr/exec" };
            steps.push(label(field, &format!("exec {profile}"), path)?);
        } else if profile != "unconfined" {
            return Err(absent(field, profile, "AppArmor is not enabled on this host"));
        }
    }
    if let Some(text) = given(process.selinux_label()) {
        let field = "process.selinuxLabel";
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            return Err(absent(field, text, "SELinux is not enabled on this host"));
        }
        steps.push(label(field, &text, "/proc/self/attr/exec")?);
    }
    Ok(steps)
}

fn absent(field: &str, value: String, reason: &'static str) -> PlanError {
    PlanError::Value { field: field.to_owned(), value, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_parameter_give_one_path() {
        for (name, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
            ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ] {
            assert_eq!(path_of(name), path);
        }
    }

    #[test]
    fn only_parameters_of_a_namespace_apart_are_written() {
        let apart = Namespaces {
            new: CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS,
            joined: Vec::new(),
        };
        for name in ["net.core.somaxconn", "kernel.shmmax", "fs.mqueue.msg_max", "kernel/sem"] {
            assert!(parameter(name, "1", &apart).is_ok(), "{name}");
        }
        for name in [
            "kernel.core_pattern",
            "vm.swappiness",
            "kernel.shmmax2",
            "net../../kernel/core_pattern",
            "net/../kernel/core_pattern",
            "net.",
            "",
            "fs.mqueue",
            "kernel.randomize_va_space",
        ] {
            assert!(parameter(name, "1", &apart).is_err(), "{name}");
        }
        let none = Namespaces { new: CloneFlags::CLONE_NEWNS, joined: Vec::new() };
        for name in ["net.core.somaxconn", "kernel.shmmax", "kernel.domainname"] {
            let error = parameter(name, "1", &none).expect_err("refused").to_string();
            assert!(error.ends_with("it would be the host's"), "{error}");
        }
    }
}
