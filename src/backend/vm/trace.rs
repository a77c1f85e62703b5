//! What a traced machine is asked to show: at which addresses its firmware
//! and its kernel come to the finer marks, or with which words the kernel
//! tells it.
//!
//! QEMU logs an instruction when it translates it for the first time, so that
//! an address is seen without any change of the guest; a processor that runs
//! the guest itself translates nothing. The kernel's words are there on every
//! accelerator, but have to be printed.

use std::fs;
use std::path::Path;

use super::super::launcher::order::{Probe, fd};
use super::{Accelerator, VmError};
use crate::payload::stub::{entry, pvh_entry};
use crate::record::Mark;

/// Where an x86 processor begins after a reset: the segment's base and the
/// offset in one (Intel SDM, volume 3, section "First Instruction Executed").
const RESET: u64 = 0xffff_fff0;

/// Where the protected-mode part of a bzImage is loaded, and entered
/// (Documentation/x86/boot.rst, "Loading The Rest of The Kernel").
const BZIMAGE: u64 = 0x10_0000;

/// Why an address says nothing.
const NOT_TRANSLATED: &str =
    "only software emulation (accel=tcg) translates the guest's code, which is what is traced";

/// A machine as far as a trace wants to know it.
pub(super) struct Traced<'a> {
    pub(super) kernel: &'a Path,
    pub(super) has_initramfs: bool,
    pub(super) accelerator: Accelerator,
}

/// What is looked for, and what cannot be found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TracePlan {
    pub(super) probes: Vec<(Mark, Probe)>,
    missing: Vec<(Mark, String)>,
}

impl TracePlan {
    /// The plan for a machine.
    pub(super) fn of(guest: &Traced<'_>) -> Result<Self, VmError> {
        let unreadable = |reason: String| VmError::Untraceable {
            kernel: guest.kernel.display().to_string(),
            reason,
        };
        let read = |name: &str| fs::read(guest.kernel.with_file_name(name));
        let file = fs::read(guest.kernel).map_err(|error| unreadable(error.to_string()))?;
        let compressed = !file.starts_with(b"\x7fELF");
        let first = if compressed {
            // The uncompressed kernel stands beside it.
            read("vmlinux")
                .map_err(|error| error.to_string())
                .and_then(|unpacked| entry(&unpacked).map_err(|error| error.to_string()))
        } else {
            pvh_entry(&file).map_err(|error| error.to_string())
        };
        let first = first.map_err(unreadable)?;
        let symbols = read("System.map").unwrap_or_default();
        let symbol = |name| symbol(&String::from_utf8_lossy(&symbols), name);
        let mut plan = Self::default();
        let mut at = |mark, address: Option<u64>, words: Option<&str>| {
            plan.add(mark, address, words, guest.accelerator);
        };
        at(Mark::Firmware, Some(RESET), None);
        if compressed {
            at(Mark::Decompress, Some(BZIMAGE), None);
        }
        at(Mark::KernelEntry, Some(first), None);
        at(Mark::StartKernel, symbol("start_kernel"), None);
        if guest.has_initramfs {
            let words = "Trying to unpack rootfs image as initramfs";
            at(Mark::PopulateRootfs, symbol("do_populate_rootfs"), Some(words));
        }
        at(Mark::RunInit, symbol("run_init_process"), Some("Run /init as init process"));
        Ok(plan)
    }

    /// Adds the best way to see a mark: its address where code is translated,
    /// else the kernel's words, else the reason why there is none.
    fn add(
        &mut self,
        mark: Mark,
        address: Option<u64>,
        words: Option<&str>,
        accelerator: Accelerator,
    ) {
        let seen = address.filter(|_| accelerator == Accelerator::Tcg);
        match (seen.map(Probe::Address), words) {
            (Some(probe), _) => self.probes.push((mark, probe)),
            (None, Some(words)) => self.probes.push((mark, Probe::Words(words.to_owned()))),
            (None, None) => {
                let unknown = "this kernel comes without a System.map, which would say where";
                let reason = if address.is_some() { NOT_TRANSLATED } else { unknown };
                self.missing.push((mark, reason.to_owned()));
            }
        }
    }

    /// The flags with which a machine's script arranges for all this.
    pub(super) fn words(&self) -> Vec<String> {
        let addresses: Vec<String> = self
            .probes
            .iter()
            .filter_map(|(_, probe)| match probe {
                Probe::Address(address) => Some(format!("{address:#x}")),
                Probe::Words(_) => None,
            })
            .collect();
        let mut words = Vec::new();
        if !addresses.is_empty() {
            words.extend(["--trace-fd".to_owned(), fd::TRACE.to_string()]);
            words.extend(["--trace-at".to_owned(), addresses.join(",")]);
        }
        if addresses.len() < self.probes.len() {
            words.push("--kernel-messages".to_owned());
        }
        words
    }

    /// All marks of the trace, with the reason for one that cannot be had.
    pub(super) fn marks(&self) -> Vec<(Mark, Option<String>)> {
        let probes = self.probes.iter().map(|(mark, _)| (*mark, None));
        let missing = self.missing.iter().map(|(mark, reason)| (*mark, Some(reason.clone())));
        probes.chain(missing).collect()
    }
}

/// The address of a function in a kernel's `System.map`: lines of address,
/// kind and name.
fn symbol(map: &str, name: &str) -> Option<u64> {
    map.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (address, kind, found) = (words.next()?, words.next()?, words.next()?);
        let code = kind.eq_ignore_ascii_case("t") && found == name;
        code.then(|| u64::from_str_radix(address, 16).ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "ffffffff80200500 t pvh_start_xen\nffffffff80ef09b4 T start_kernel\n\
        ffffffff80f00000 D run_init_process\nffffffff80ef2842 t do_populate_rootfs\n";

    #[test]
    fn a_function_is_found_by_its_whole_name_only() {
        assert_eq!(symbol(MAP, "start_kernel"), Some(0xffff_ffff_80ef_09b4));
        assert_eq!(symbol(MAP, "kernel"), None);
        assert_eq!(symbol(MAP, "run_init_process"), None, "data is no function");
        // What Debian installs in its place.
        assert_eq!(symbol("ffffffffffffffff B The real System.map is elsewhere", "The"), None);
    }

    #[test]
    fn each_mark_is_seen_in_the_best_way_or_missing_with_a_reason() {
        let words = Some("Run /init");
        let mut plan = TracePlan::default();
        plan.add(Mark::Firmware, Some(RESET), None, Accelerator::Tcg);
        plan.add(Mark::StartKernel, None, None, Accelerator::Tcg);
        plan.add(Mark::RunInit, None, words, Accelerator::Tcg);
        assert_eq!(
            plan.words(),
            ["--trace-fd", "8", "--trace-at", "0xfffffff0", "--kernel-messages"]
        );
        let marks = plan.marks();
        assert_eq!(marks.len(), 3);
        assert_eq!(marks[0], (Mark::Firmware, None));
        let (mark, reason) = &marks[2];
        assert_eq!(*mark, Mark::StartKernel);
        assert!(reason.as_deref().is_some_and(|reason| reason.contains("System.map")));

        let mut plan = TracePlan::default();
        plan.add(Mark::Firmware, Some(RESET), None, Accelerator::Kvm);
        plan.add(Mark::RunInit, Some(1), words, Accelerator::Kvm);
        assert_eq!(plan.words(), ["--kernel-messages"]);
        assert_eq!(plan.marks()[1], (Mark::Firmware, Some(NOT_TRANSLATED.to_owned())));
        assert!(TracePlan::default().words().is_empty());
    }
}
