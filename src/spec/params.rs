//! The parameters that each backend knows: their values, their defaults and
//! the one spelling under which a cell is stored.

use crate::record::{BackendName, CellKey, Experiment, Params, Workload};
use crate::units::{Bytes, MIB};

use super::error::{Problem, nearest};
use super::systems;

/// What values a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One of a list of words.
    OneOf(&'static [&'static str]),
    /// A size in bytes between two bounds, stored as `128M`.
    Size {
        /// Smallest allowed, in bytes.
        min: u64,
        /// Largest allowed, in bytes.
        max: u64,
    },
    /// A whole number between two bounds.
    Whole {
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
    /// A number of processors, whole or a fraction with up to two decimals.
    Cpus,
}

/// One parameter of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub kind: Kind,
    /// The value of a cell that does not name it; absent means no limit, or
    /// not set.
    pub default: Option<&'static str>,
    /// Whether it is written into every cell's identity, so that a reader
    /// always sees it; else only where it differs from the default.
    pub always: bool,
    /// What it does, in a few words.
    pub about: &'static str,
}

const CONTROL: Param = Param {
    name: "control",
    kind: Kind::OneOf(&["1"]),
    default: None,
    always: false,
    about: "the same cell under a second name, whose ratio to the first is the run's noise floor",
};

const CACHE: Param = Param {
    name: "cache",
    kind: Kind::OneOf(&["warm", "cold"]),
    default: Some("warm"),
    always: false,
    about: "cold: before each start its files are taken out of the page cache, and that is checked",
};

pub(super) const MEMORY: Param = Param {
    name: "memory",
    kind: Kind::Size { min: 4 * MIB, max: 1024 * 1024 * MIB },
    default: Some("128M"),
    always: false,
    about: "memory limit of its cgroup",
};

pub(super) const PIDS: Param = Param {
    name: "pids",
    kind: Kind::Whole { min: 1, max: 4_194_304 },
    default: Some("64"),
    always: false,
    about: "process limit of its cgroup",
};

pub(super) const CPUS: Param = Param {
    name: "cpus",
    kind: Kind::Cpus,
    default: Some("1"),
    always: false,
    about: "processor time limit of its cgroup, in processors",
};

pub(super) const SECCOMP: Param = Param {
    name: "seccomp",
    kind: Kind::OneOf(&["default", "none"]),
    default: Some("default"),
    always: false,
    about: "system-call filter: the default profile of Podman, or none",
};

const PROCESS: &[Param] = &[CONTROL, CACHE];
const MOCK: &[Param] = &[CONTROL];

const CONTAINER: &[Param] = &[
    Param {
        name: "userns",
        kind: Kind::OneOf(&["yes", "no"]),
        default: Some("no"),
        always: false,
        about: "in a user namespace of its own",
    },
    Param {
        name: "net",
        kind: Kind::OneOf(&["none", "loopback", "bridge"]),
        default: Some("loopback"),
        always: false,
        about: "loopback: a network namespace of its own; bridge: with an interface on the run's \
                bridge too; none: no network namespace is made",
    },
    Param {
        name: "pool",
        kind: Kind::OneOf(&["yes", "no"]),
        default: Some("no"),
        always: false,
        about: "network namespace and cgroup are made beforehand, outside the timed window",
    },
    MEMORY,
    PIDS,
    CPUS,
    SECCOMP,
    Param {
        name: "arch",
        kind: Kind::OneOf(&["host", "aarch64"]),
        default: Some("host"),
        always: false,
        about: "what its program is made for; another processor's cannot run, and the row says why",
    },
    CACHE,
];

const VM: &[Param] = &[
    Param {
        name: "machine",
        kind: Kind::OneOf(&["microvm", "q35", "pc", "virt"]),
        default: Some("microvm"),
        always: true,
        about: "QEMU's machine type; virt: an arm64 machine, whatever this host is",
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

/// The parameters of a backend, in the order in which they are documented.
/// The mock backend takes any name with a whole number instead.
#[must_use]
pub fn known_params(backend: BackendName) -> &'static [Param] {
    match backend {
        BackendName::Process => PROCESS,
        BackendName::KvmBare | BackendName::Mock => MOCK,
        BackendName::Container => CONTAINER,
        BackendName::Vm => VM,
        BackendName::Peer(name) => {
            systems::known().get(name.as_str()).map_or(&[], |system| system.params)
        }
    }
}

/// The value of a cell's parameter: what the cell says, or the backend's
/// default; `None` where there is neither (no limit, not set).
#[must_use]
pub fn param_value<'a>(cell: &'a CellKey, name: &str) -> Option<&'a str> {
    cell.params.get(name).or_else(|| default(cell.backend, &cell.params, name))
}

/// What a cell without the parameter `name` has. An untuned machine and its
/// firmware follow from other parameters.
fn default(backend: BackendName, params: &Params, name: &str) -> Option<&'static str> {
    let untuned = backend == BackendName::Vm && params.get("untuned") == Some("yes");
    let foreign = backend == BackendName::Vm && params.get("machine") == Some("virt");
    match name {
        "kernel" if foreign => Some("distro"),
        "machine" if untuned => Some("q35"),
        "kernel" if untuned => Some("distro"),
        "boot" if untuned => Some("bzimage"),
        _ => known_params(backend).iter().find(|param| param.name == name)?.default,
    }
}

/// The firmware that a machine type has by itself.
fn own_firmware(machine: &str) -> &'static str {
    if machine == "microvm" { "qboot" } else { "seabios" }
}

impl Kind {
    /// The stored spelling of `text`, if it is allowed.
    fn canonical(self, text: &str) -> Option<String> {
        match self {
            Self::OneOf(words) => words.contains(&text).then(|| text.to_owned()),
            Self::Size { min, max } => {
                let Bytes(bytes) = text.parse().ok()?;
                (min..=max).contains(&bytes).then(|| size_text(bytes))
            }
            Self::Whole { min, max } => {
                let number: u64 = whole(text)?;
                (min..=max).contains(&number).then(|| number.to_string())
            }
            Self::Cpus => cpus_text(text),
        }
    }

    /// What is allowed, in words.
    #[must_use]
    pub fn expected(self) -> String {
        match self {
            Self::OneOf(words) => words.join(" or "),
            Self::Size { min, max } => {
                format!("a size from {} to {}, such as 128M", size_text(min), size_text(max))
            }
            Self::Whole { min, max } => format!("a whole number from {min} to {max}"),
            Self::Cpus => "processors from 0.01 to 1024, such as 1 or 0.5".to_owned(),
        }
    }
}

/// A whole number in plain digits.
fn whole(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// The shortest exact spelling of a size.
fn size_text(bytes: u64) -> String {
    for (factor, letter) in [(1024 * MIB, "G"), (MIB, "M"), (1024, "K")] {
        if bytes > 0 && bytes.is_multiple_of(factor) {
            return format!("{}{letter}", bytes / factor);
        }
    }
    bytes.to_string()
}

/// Processors in hundredths, so that `0.5` and `0.50` are one spelling.
fn cpus_text(text: &str) -> Option<String> {
    let (units, hundredths) = text.split_once('.').unwrap_or((text, "0"));
    if hundredths.is_empty() || hundredths.len() > 2 {
        return None;
    }
    let units = whole(units).filter(|_| !units.is_empty())?;
    let hundredths = whole(&format!("{hundredths:0<2}"))?;
    let total = units.checked_mul(100)?.checked_add(hundredths)?;
    if !(1..=102_400).contains(&total) {
        return None;
    }
    let text = format!("{}.{:02}", total / 100, total % 100);
    Some(text.trim_end_matches('0').trim_end_matches('.').to_owned())
}

/// Checks one parameter and gives its stored spelling.
pub(super) fn check(backend: BackendName, name: &str, value: &str) -> Result<String, Problem> {
    let bad = |expected: String| Problem::BadParam {
        backend: backend.as_str(),
        name: name.to_owned(),
        value: value.to_owned(),
        expected,
    };
    let known = known_params(backend);
    if let Some(param) = known.iter().find(|param| param.name == name) {
        return param.kind.canonical(value).ok_or_else(|| bad(param.kind.expected()));
    }
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    if backend == BackendName::Mock && plain {
        let number = Kind::Whole { min: 0, max: u64::MAX };
        return number.canonical(value).ok_or_else(|| bad("a whole number".to_owned()));
    }
    let names = known.iter().map(|param| param.name);
    Err(Problem::UnknownName {
        what: "parameter",
        value: name.to_owned(),
        of: format!(" of backend {backend}"),
        nearest: nearest(name, names.clone()),
        known: names.map(str::to_owned).collect(),
    })
}

/// Makes equal cells equal: fills in what every cell shows, leaves out what
/// says the same as the default.
pub(super) fn normalise(backend: BackendName, params: &mut Params) {
    for param in known_params(backend) {
        let Some(default) = default(backend, params, param.name) else {
            continue;
        };
        if param.always {
            params.edit().entry(param.name.to_owned()).or_insert_with(|| default.to_owned());
        } else if params.get(param.name) == Some(default) {
            params.edit().remove(param.name);
        }
    }
    if backend == BackendName::Vm {
        let own = params.get("machine").map(own_firmware);
        if own == params.get("firmware") {
            params.edit().remove("firmware");
        }
        // Its name says it all.
        if params.get("untuned").is_some() && params.get("kernel") == Some("distro") {
            params.edit().remove("kernel");
        }
    }
}

/// Why a machine with these parameters cannot be, on any host.
pub(super) fn contradiction(cell: &CellKey) -> Option<&'static str> {
    if cell.backend != BackendName::Vm {
        return None;
    }
    let is = |name, value| param_value(cell, name) == Some(value);
    let untuned = is("untuned", "yes");
    let stub = is("kernel", "stub");
    let copied = !is("start", "cold");
    let traced = is("traced", "yes");
    let virt = is("machine", "virt");
    let rules = [
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

/// Checks parameters from a command line and gives them in stored spelling.
///
/// # Errors
/// An unknown name, a value that is not allowed, or a combination that cannot
/// be.
pub fn checked_params(backend: BackendName, given: &[(&str, &str)]) -> Result<Params, Problem> {
    let mut params = Params::default();
    for (name, value) in given {
        params.edit().insert((*name).to_owned(), check(backend, name, value)?);
    }
    normalise(backend, &mut params);
    let (experiment, workload) = (Experiment::Startup, Workload::Exit);
    let cell = CellKey { experiment, backend, workload, params };
    match contradiction(&cell) {
        Some(reason) => Err(Problem::Contradiction { cell: cell.label(), reason }),
        None => Ok(cell.params),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_an_allowed_value_in_its_stored_spelling() {
        for backend in BackendName::ALL {
            for param in known_params(backend) {
                if let Some(default) = param.default {
                    assert_eq!(check(backend, param.name, default).as_deref(), Ok(default));
                }
            }
        }
    }

    #[test]
    fn one_spelling_per_value() {
        let check = |name, value| check(BackendName::Container, name, value).ok();
        assert_eq!(check("memory", "131072K"), Some("128M".to_owned()));
        assert_eq!(check("memory", "2048M"), Some("2G".to_owned()));
        assert_eq!(check("memory", "4194305"), Some("4194305".to_owned()));
        assert_eq!(check("cpus", "0.50"), Some("0.5".to_owned()));
        assert_eq!(check("cpus", "1.0"), Some("1".to_owned()));
        assert_eq!(check("cpus", "10"), Some("10".to_owned()));
        assert_eq!(check("pids", "064"), Some("64".to_owned()));
        for bad in ["", "0", "0.00", ".5", "1.", "1.234", "-1", "1025", "1,5", "+1"] {
            assert_eq!(check("cpus", bad), None, "{bad}");
        }
    }

    #[test]
    fn a_default_is_left_out_unless_every_cell_shows_it() {
        let mut params: Params = "memory=128M;accel=tcg".parse().expect("valid");
        normalise(BackendName::Vm, &mut params);
        assert_eq!(params.to_string(), "accel=tcg;kernel=tuned;machine=microvm");
    }

    #[test]
    fn a_machine_is_stored_under_one_name_and_contradictions_are_refused() {
        let vm = |given: &[(&str, &str)]| {
            checked_params(BackendName::Vm, given).map(|params| params.to_string())
        };
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(vm(&[("firmware", "qboot")]), ok("kernel=tuned;machine=microvm"));
        let seabios = [("machine", "pc"), ("firmware", "seabios"), ("boot", "vmlinux")];
        assert_eq!(vm(&seabios), ok("kernel=tuned;machine=pc"));
        let untuned = [("untuned", "yes"), ("boot", "bzimage"), ("kernel", "distro")];
        assert_eq!(vm(&untuned), ok("machine=q35;untuned=yes"));
        let bios = [("firmware", "seabios")];
        assert_eq!(vm(&bios), ok("firmware=seabios;kernel=tuned;machine=microvm"));
        assert_eq!(vm(&[("machine", "virt")]), ok("kernel=distro;machine=virt"));
        for bad in [
            &[("untuned", "yes"), ("machine", "microvm")][..],
            &[("untuned", "yes"), ("boot", "vmlinux")],
            &[("untuned", "yes"), ("rootfs", "9p")],
            &[("untuned", "yes"), ("machine", "virt")],
            &[("machine", "virt"), ("kernel", "tuned")],
            &[("machine", "virt"), ("rootfs", "9p")],
            &[("start", "clone"), ("rootfs", "virtiofs")],
            &[("firmware", "ovmf"), ("boot", "bzimage"), ("kernel", "distro")],
            &[("firmware", "ovmf"), ("machine", "q35"), ("kernel", "distro")],
            &[("firmware", "ovmf"), ("machine", "q35"), ("boot", "bzimage")],
        ] {
            let error = vm(bad).expect_err("refused");
            assert!(matches!(error, Problem::Contradiction { .. }), "{bad:?}: {error}");
        }
    }
}
