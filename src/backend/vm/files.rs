//! The files that a machine is made of: its kernel, and what the payload is
//! in.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::Assets;
use super::VmError;
use super::machine::{FOREIGN, STUB};
use crate::record::CellKey;
use crate::spec::param_value;

/// Where a guest's root file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// In memory, with the kernel.
    Initramfs,
    /// On a read-only disk.
    Disk,
    /// In a folder of the host, served by QEMU.
    NineP,
    /// In a folder of the host, served by a process beside QEMU.
    VirtioFs,
}

impl Root {
    /// What a cell asks for.
    pub(super) fn of(cell: &CellKey) -> Self {
        match param_value(cell, "rootfs") {
            Some("virtio-blk") => Self::Disk,
            Some("9p") => Self::NineP,
            Some("virtiofs") => Self::VirtioFs,
            _ => Self::Initramfs,
        }
    }

    /// The parameter's value.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Initramfs => "initramfs",
            Self::Disk => "virtio-blk",
            Self::NineP => "9p",
            Self::VirtioFs => "virtiofs",
        }
    }

    /// The drivers that a guest needs to mount it.
    fn drivers(self) -> &'static [&'static str] {
        match self {
            Self::Initramfs => &[],
            Self::Disk => &["virtio_blk", "ext4"],
            Self::NineP => &["9pnet_virtio", "9p"],
            Self::VirtioFs => &["virtiofs"],
        }
    }
}

/// What a guest is started from.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) kernel: PathBuf,
    pub(super) initrd: Option<PathBuf>,
    /// An image or a folder.
    pub(super) root: Option<PathBuf>,
    /// Whether a loader comes before the payload.
    pub(super) loader: bool,
}

impl Files {
    /// Finds or makes the files of a cell.
    pub(super) fn of(cell: &CellKey, assets: &Assets) -> Result<Self, VmError> {
        let is = |name, value| param_value(cell, name) == Some(value);
        let data = assets.data(cell.workload)?;
        let data = data.as_deref();
        if is("kernel", STUB) {
            let kernel = assets.stub()?;
            return Ok(Self { kernel, initrd: None, root: None, loader: false });
        }
        if is("machine", FOREIGN) {
            let kernel = foreign_kernel(assets)?;
            let initrd = Some(assets.initramfs_aarch64(data)?);
            return Ok(Self { kernel, initrd, root: None, loader: false });
        }
        let distro = is("kernel", "distro");
        let kernel = kernel(assets, distro, is("boot", "bzimage"))?;
        let root_kind = Root::of(cell);
        let root = match root_kind {
            Root::Initramfs => None,
            Root::Disk => Some(assets.root_image(data)?),
            Root::NineP | Root::VirtioFs => Some(assets.root_folder(data)?),
        };
        let drivers = drivers(cell, root_kind);
        let microvm = is("machine", "microvm");
        if microvm && distro {
            suits_microvm(&kernel, !drivers.is_empty(), !is("cpus", "1"))?;
        }
        let loader = distro && !drivers.is_empty();
        let initrd = if loader {
            let bus = if microvm { "virtio_mmio" } else { "virtio_pci" };
            let modules: Vec<&str> = [bus].into_iter().chain(drivers).collect();
            Some(assets.initramfs_with(&kernel, &modules, data.filter(|_| root.is_none()))?)
        } else if root.is_none() {
            Some(assets.initramfs(data)?)
        } else {
            None
        };
        Ok(Self { kernel, initrd, root, loader })
    }
}

/// Our small guest kernel, when it was made before.
pub(in crate::backend) fn guest_kernel(assets: &Assets) -> Result<PathBuf, VmError> {
    kernel(assets, false, false)
}

/// The guest kernel's file, when it was made or fetched before.
fn kernel(assets: &Assets, distro: bool, compressed: bool) -> Result<PathBuf, VmError> {
    let mut arguments = vec!["--path".to_owned()];
    arguments.extend(distro.then(|| "--distro".to_owned()));
    arguments.extend(compressed.then(|| "--bzimage".to_owned()));
    let path = assets.script("guest/kernel.sh", &arguments).map_err(|source| {
        let flags = if distro { " --distro" } else { "" };
        let script = format!("{}{flags}", assets.script_path("guest/kernel.sh").display());
        VmError::NoKernel { script, source }
    })?;
    Ok(path.trim().into())
}

/// The arm64 kernel's file, when it was fetched before.
fn foreign_kernel(assets: &Assets) -> Result<PathBuf, VmError> {
    const SCRIPT: &str = "guest/kernel.sh";
    let arguments = ["--path", "--distro", "--arch", "aarch64"].map(str::to_owned);
    let path = assets.script(SCRIPT, &arguments).map_err(|source| {
        let script = format!("{} --distro --arch aarch64", assets.script_path(SCRIPT).display());
        VmError::NoKernel { script, source }
    })?;
    Ok(path.trim().into())
}

/// The drivers of a cell's devices.
fn drivers(cell: &CellKey, root: Root) -> Vec<&'static str> {
    let mut drivers = root.drivers().to_vec();
    let devices = param_value(cell, "devices").unwrap_or_default();
    drivers.extend(devices.split('+').filter_map(|device| match device {
        "net" => Some("virtio_net"),
        "rng" => Some("virtio_rng"),
        _ => None,
    }));
    if param_value(cell, "balloon").is_some_and(|balloon| balloon != "off") {
        drivers.push("virtio_balloon");
    }
    drivers
}

/// Whether a kernel as shipped finds on a microvm without ACPI what it needs.
fn suits_microvm(kernel: &Path, devices: bool, processors: bool) -> Result<(), VmError> {
    let Ok(config) = fs::read_to_string(kernel.with_file_name("config")) else {
        // Not known: the guest itself will tell.
        return Ok(());
    };
    let has = |option: &str| config.lines().any(|line| line == format!("{option}=y"));
    let lacks = |what, option: &str| VmError::Unsuited { what, option: option.to_owned() };
    if devices && !has("CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES") {
        return Err(lacks("virtio devices", "CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES"));
    }
    if processors && !has("CONFIG_X86_MPPARSE") {
        return Err(lacks("a second processor", "CONFIG_X86_MPPARSE"));
    }
    Ok(())
}
