//! From the command line to a spec, and to what a spec cannot say.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Capability;
use serde_json::{Map, Value};

use super::ContainerError;
use super::args::{CapabilityArg, DeviceArg, Net, RunArgs};
use super::environment::environment;
use crate::container::cgroup::Limits;
use crate::container::seccomp::{Machine, default_profile, read_profile};
use crate::container::{
    Bundle, CapabilityChange, HostDevice, Identity, Network, Plan, StandardOptions,
    capabilities_of, find_user, host_device, identify, standard_spec,
};
use crate::image::{Image, Overlay, Store, Writable};
use crate::sys::terminal::WindowSize;
use crate::units::Bytes;

/// What is to be run.
#[derive(Debug)]
pub(super) struct Request {
    /// The configuration, and where its relative paths start.
    bundle: Bundle,
    /// What is to be done about the root filesystem.
    root: Root,
}

/// A root filesystem as the specification does not say it.
#[derive(Debug)]
enum Root {
    /// The folder that it names, as the configuration of a bundle says.
    Bundle,
    /// The folder that it names.
    Folder,
    /// That folder, and changes are dropped at the end.
    Scratch,
    /// Layers of an image, which stays in the store meanwhile.
    Layers { overlay: Overlay, _image: Box<Image> },
}

impl Request {
    /// Reads the command line.
    pub(super) fn new(args: &RunArgs) -> Result<Self, ContainerError> {
        if let Some(bundle) = &args.bundle {
            return Self::of_bundle(bundle);
        }
        match &args.image {
            Some(image) => Self::of_image(args, image),
            None => Self::of_rootfs(args, args.rootfs.clone().unwrap_or_default()),
        }
    }

    fn of_bundle(bundle: &Path) -> Result<Self, ContainerError> {
        Ok(Self { bundle: Bundle::load(bundle)?, root: Root::Bundle })
    }

    fn of_rootfs(args: &RunArgs, rootfs: PathBuf) -> Result<Self, ContainerError> {
        if args.command.is_empty() {
            return Err(ContainerError::NoCommand);
        }
        let identity = match &args.user {
            Some(text) => find_user(&rootfs, text)?,
            // Looked up for its home.
            None => find_user(&rootfs, "0:0").unwrap_or_else(|_| Identity::default()),
        };
        let options = StandardOptions {
            rootfs: std::path::absolute(&rootfs).unwrap_or(rootfs),
            arguments: args.command.clone(),
            environment: environment(args, &[], identity.home.as_deref())?,
            working_directory: args.workdir.clone().unwrap_or_else(|| "/".into()),
            identity,
            ..options(args)?
        };
        let root = if args.overlay { Root::Scratch } else { Root::Folder };
        Ok(Self { bundle: Bundle::new(PathBuf::from("/"), standard_spec(&options)), root })
    }

    /// An image says whatever the command line does not.
    fn of_image(args: &RunArgs, image: &str) -> Result<Self, ContainerError> {
        let image = Store::open()?.resolve(image)?;
        let config = image.config();
        let text = |path| Ok::<_, ContainerError>(image.read(path)?.unwrap_or_default());
        let user = args.user.as_deref().unwrap_or(&config.user);
        let user = if user.is_empty() { "0" } else { user };
        let identity = identify(user, &text("/etc/passwd")?, &text("/etc/group")?)?;
        let workdir = args.workdir.clone().unwrap_or_else(|| config.working_directory().into());
        // The layers are enough only if nothing in them needs to be made:
        // working directory, mount points.
        let complete = image.has_folder(&workdir.to_string_lossy())?;
        let mounts = args.volume.len() + args.tmpfs.len();
        let writable = if args.readonly && complete && mounts == 0 {
            Writable::No
        } else {
            Writable::Private { size: None }
        };
        let overlay = image.overlay(writable)?;
        let options = StandardOptions {
            rootfs: overlay.root_path(),
            arguments: config.command(&args.command)?,
            environment: environment(args, &config.env, identity.home.as_deref())?,
            working_directory: workdir,
            identity,
            ..options(args)?
        };
        let root = Root::Layers { overlay, _image: Box::new(image) };
        Ok(Self { bundle: Bundle::new(PathBuf::from("/"), standard_spec(&options)), root })
    }

    /// The configuration as a file has it, always in the same order.
    pub(super) fn text(&self) -> Result<String, ContainerError> {
        let mut value = serde_json::to_value(self.bundle.spec())?;
        // The specification's type for a set has no order of its own.
        let sets = value.pointer_mut("/process/capabilities").and_then(Value::as_object_mut);
        for set in sets.into_iter().flat_map(Map::values_mut).filter_map(Value::as_array_mut) {
            set.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
        }
        Ok(serde_json::to_string_pretty(&value)?)
    }

    /// The size that the configuration wants for the terminal.
    pub(super) fn window(&self) -> Option<WindowSize> {
        let size = self.bundle.spec().process().as_ref()?.console_size()?;
        let number = |value: u64| u16::try_from(value).ok().filter(|value| *value > 0);
        Some(WindowSize { rows: number(size.height())?, columns: number(size.width())? })
    }

    /// The steps that carry it out.
    pub(super) fn plan(&self) -> Result<Plan, ContainerError> {
        let plan = self.bundle.plan()?;
        Ok(match &self.root {
            Root::Bundle => plan,
            Root::Folder => plan.without_devices_in_root(),
            Root::Scratch => plan.without_devices_in_root().with_scratch_layer()?,
            Root::Layers { overlay, .. } => {
                let process = self.bundle.spec().process().as_ref();
                plan.with_overlay(overlay, process.map_or(Path::new("/"), |process| process.cwd()))?
            }
        })
    }
}

/// What the command line says, whatever the root filesystem is.
fn options(args: &RunArgs) -> Result<StandardOptions, ContainerError> {
    let capabilities = capabilities(args);
    let bounding = capabilities.apply();
    let seccomp = match args.seccomp.as_str() {
        "none" => None,
        "default" => Some(default_profile(&bounding, Machine::native())?),
        file => Some(read_profile(Path::new(file), &bounding)?),
    };
    let network = if args.net == Net::Host { Network::Host } else { Network::Loopback };
    Ok(StandardOptions {
        readonly: args.readonly,
        hostname: args.hostname.clone(),
        capabilities,
        no_new_privileges: args.no_new_privileges,
        limits: limits(args),
        resource_limits: args.ulimit.clone(),
        oom_score_adj: args.oom_score_adj,
        mounts: args.volume.iter().chain(&args.tmpfs).cloned().collect(),
        devices: devices(args)?,
        network,
        user_namespace: user_namespace(args),
        seccomp,
        terminal: args.tty,
        ..StandardOptions::default()
    })
}

fn devices(args: &RunArgs) -> Result<Vec<HostDevice>, ContainerError> {
    if !args.device.is_empty() && user_namespace(args) {
        return Err(ContainerError::DevicesNeedRoot);
    }
    let device = |arg: &DeviceArg| host_device(&arg.host, &arg.inside, &arg.access);
    Ok(args.device.iter().map(device).collect::<Result<_, _>>()?)
}

fn limits(args: &RunArgs) -> Limits {
    Limits {
        memory: args.memory.map(|Bytes(bytes)| bytes),
        swap: args.swap.map(|Bytes(bytes)| bytes),
        pids: args.pids,
        cpu_quota: args.cpus,
        ..Limits::default()
    }
}

fn capabilities(args: &RunArgs) -> CapabilityChange {
    let ones = |list: &[CapabilityArg]| -> Vec<Capability> {
        let one = |arg: &CapabilityArg| match arg {
            CapabilityArg::All => None,
            CapabilityArg::One(capability) => Some(*capability),
        };
        list.iter().filter_map(one).collect()
    };
    let mut add = ones(&args.cap_add);
    if args.cap_add.contains(&CapabilityArg::All) {
        add.extend(capabilities_of(own_capabilities(args)));
    }
    CapabilityChange {
        drop_all: args.cap_drop.contains(&CapabilityArg::All),
        add,
        drop: ones(&args.cap_drop),
    }
}

/// What this process can give: its own permitted ones, and all in a user
/// namespace that it makes.
fn own_capabilities(args: &RunArgs) -> u64 {
    if user_namespace(args) {
        return u64::MAX;
    }
    let own = procfs::process::Process::myself().and_then(|process| process.status());
    own.map_or(0, |status| status.capprm)
}

fn user_namespace(args: &RunArgs) -> bool {
    args.rootless || !nix::unistd::geteuid().is_root()
}
