//! The parameters of virtual machines, what follows from one for another, and
//! which of them cannot go together.

use super::kind::Kind;
use super::{CACHE, Param, param_value};
use crate::record::{CellKey, Experiment, Params};
use crate::units::MIB;

/// In the order in which they are documented.
pub(super) const PARAMS: &[Param] = &[
    Param {
        name: "machine",
        kind: Kind::OneOf(&["microvm", "q35", "pc", "virt"]),
        default: Some("microvm"),
        always: true,
        about: "QEMU's machine type; virt: an arm64 machine, whatever this host is",
    },
    Param {
        name: "qemu",
        kind: Kind::OneOf(&["full", "lean"]),
        default: Some("full"),
        always: false,
        about: "QEMU's build: the usual one, or the distribution's small one for microvm, which \
                knows KVM only and has no 9p, virtiofs or user-mode network",
    },
    Param {
        name: "untuned",
        kind: Kind::OneOf(&["yes", "no"]),
        default: Some("no"),
        always: false,
        about: "nothing of our advice: QEMU's default devices and firmware on q35 or pc, the \
                distribution's kernel, compressed, with a bare command line",
    },
    Param {
        name: "kernel",
        kind: Kind::OneOf(&["tuned", "distro", "stub"]),
        default: Some("tuned"),
        always: true,
        about: "guest kernel: our small one, or the distribution's as it is; stub: a guest of a few \
                instructions without an operating system, for the workload exit",
    },
    Param {
        name: "boot",
        kind: Kind::OneOf(&["vmlinux", "bzimage"]),
        default: Some("vmlinux"),
        always: false,
        about: "the kernel's file: uncompressed, started at its PVH entry, or compressed",
    },
    Param {
        name: "firmware",
        kind: Kind::OneOf(&["auto", "qboot", "seabios", "ovmf"]),
        default: Some("auto"),
        always: false,
        about: "what runs before the kernel; auto: qboot on microvm, seabios on q35 and pc",
    },
    Param {
        name: "devices",
        kind: Kind::OneOf(&["none", "net", "rng", "net+rng"]),
        default: Some("none"),
        always: false,
        about: "virtio devices beside the serial ports, with their drivers: a network card on \
                QEMU's user-mode network, a source of random numbers",
    },
    Param {
        name: "rootfs",
        kind: Kind::OneOf(&["initramfs", "virtio-blk", "9p", "virtiofs"]),
        default: Some("initramfs"),
        always: false,
        about: "where the payload comes from: memory, a read-only image, or a folder of the host that \
                QEMU serves (9p) or a process beside it, which counts as the machine's (virtiofs)",
    },
    Param {
        name: "memory",
        kind: Kind::Size { min: 16 * MIB, max: 1024 * 1024 * MIB },
        default: Some("128M"),
        always: false,
        about: "guest memory",
    },
    Param {
        name: "cpus",
        kind: Kind::Whole { min: 1, max: 8 },
        default: Some("1"),
        always: false,
        about: "virtual processors",
    },
    Param {
        name: "balloon",
        kind: Kind::OneOf(&["off", "on", "reporting"]),
        default: Some("off"),
        always: false,
        about: "a virtio balloon; reporting: through which the guest gives back what it freed",
    },
    Param {
        name: "thp",
        kind: Kind::OneOf(&["on", "off"]),
        default: Some("on"),
        always: false,
        about: "transparent huge pages: as the host has them, or not for this machine",
    },
    Param {
        name: "accel",
        kind: Kind::OneOf(&["auto", "kvm", "tcg"]),
        default: Some("auto"),
        always: false,
        about: "accelerator: the best that boots a real kernel here, or this one",
    },
    CACHE,
    Param {
        name: "start",
        kind: Kind::OneOf(&["cold", "clone", "restore"]),
        default: Some("cold"),
        always: false,
        about: "cold: boots; clone: goes on from a snapshot whose memory all such guests map \
                privately; restore: reads a whole snapshot",
    },
    Param {
        name: "traced",
        kind: Kind::OneOf(&["yes", "no"]),
        default: Some("no"),
        always: false,
        about: "finer marks of a boot, from QEMU's log of translated code and the kernel's messages; \
                the same cell without it, in the same run, shows how much that disturbs",
    },
];

/// What follows for the parameter `name` from others: an untuned machine and
/// one for arm64 have defaults of their own.
pub(super) fn implied(params: &Params, name: &str) -> Option<&'static str> {
    let untuned = params.get("untuned") == Some("yes");
    let foreign = params.get("machine") == Some("virt");
    match name {
        "kernel" if foreign || untuned => Some("distro"),
        "machine" if untuned => Some("q35"),
        "boot" if untuned => Some("bzimage"),
        _ => None,
    }
}

/// Leaves out what others say already.
pub(super) fn shorten(params: &mut Params) {
    let own = params.get("machine").map(own_firmware);
    if own == params.get("firmware") {
        params.edit().remove("firmware");
    }
    // Its name says it all.
    if params.get("untuned").is_some() && params.get("kernel") == Some("distro") {
        params.edit().remove("kernel");
    }
}

/// The firmware that a machine type has by itself.
fn own_firmware(machine: &str) -> &'static str {
    if machine == "microvm" { "qboot" } else { "seabios" }
}

/// Why a machine with these parameters cannot be, on any host.
pub(super) fn contradiction(cell: &CellKey) -> Option<&'static str> {
    let is = |name, value| param_value(cell, name) == Some(value);
    let untuned = is("untuned", "yes");
    let stub = is("kernel", "stub");
    let copied = !is("start", "cold");
    let traced = is("traced", "yes");
    let virt = is("machine", "virt");
    let lean = is("qemu", "lean");
    let rules = [
        (lean && !is("machine", "microvm"), "the lean build of QEMU is for machine=microvm"),
        (lean && is("accel", "tcg"), "the lean build of QEMU knows KVM only"),
        (lean && traced, "the lean build of QEMU knows KVM only, and traced needs tcg"),
        (lean && is("rootfs", "9p"), "the lean build of QEMU has no 9p"),
        (lean && is("rootfs", "virtiofs"), "the lean build of QEMU has no virtiofs"),
        (lean && is("devices", "net"), "the lean build of QEMU has no user-mode network"),
        (lean && is("devices", "net+rng"), "the lean build of QEMU has no user-mode network"),
        (untuned && copied, "untuned begins cold"),
        (untuned && !is("balloon", "off"), "untuned has QEMU's default devices"),
        (stub && is("boot", "bzimage"), "the stub is started at its PVH entry"),
        (stub && is("firmware", "ovmf"), "the stub is started at its PVH entry"),
        (stub && !is("devices", "none"), "the stub has no drivers"),
        (stub && !is("rootfs", "initramfs"), "the stub has no drivers"),
        (virt && !is("kernel", "distro"), "virt has the distribution's kernel for arm64"),
        (virt && copied, "virt begins cold"),
        (virt && traced, "traced knows x86 machines only"),
        (virt && !is("firmware", "auto"), "virt needs no firmware"),
        (virt && is("boot", "bzimage"), "virt has a kernel for arm64, which is no bzImage"),
        (virt && !is("rootfs", "initramfs"), "virt has its files in an initramfs"),
        (virt && !is("devices", "none"), "virt has no devices but its serial ports"),
        (virt && !is("balloon", "off"), "virt has no devices but its serial ports"),
        (copied && is("rootfs", "virtiofs"), "QEMU cannot save a guest with a virtiofs"),
        (traced && copied, "traced follows a boot: start=cold"),
        (traced && stub, "the stub has no phases to trace"),
        (traced && is("firmware", "ovmf"), "traced knows qboot and seabios only"),
        (traced && cell.experiment != Experiment::Startup, "traced is for start-up only"),
        (copied && is("rootfs", "9p"), "QEMU cannot save a guest that has mounted a 9p"),
        (untuned && (virt || is("machine", "microvm")), "untuned is QEMU's machine q35 or pc"),
        (untuned && !is("kernel", "distro"), "untuned has the distribution's kernel"),
        (untuned && is("boot", "vmlinux"), "untuned has a compressed kernel"),
        (untuned && !is("firmware", "auto"), "untuned has the machine's own firmware"),
        (untuned && !is("devices", "none"), "untuned has QEMU's default devices"),
        (untuned && !is("rootfs", "initramfs"), "untuned has its files in an initramfs"),
        (is("firmware", "ovmf") && is("machine", "microvm"), "OVMF needs a PC: q35 or pc"),
        (is("firmware", "ovmf") && is("boot", "vmlinux"), "OVMF starts boot=bzimage only"),
        (
            is("firmware", "ovmf") && !is("kernel", "distro"),
            "OVMF starts kernel=distro only: the tuned kernel is built without EFI",
        ),
    ];
    rules.into_iter().find_map(|(broken, reason)| broken.then_some(reason))
}
