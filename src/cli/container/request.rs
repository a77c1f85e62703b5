//! From the command line to a spec, and to what a spec cannot say.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::ContainerError;
use super::args::{CapabilityArg, RunArgs};
use super::environment::environment;
use crate::container::cgroup::Limits;
use crate::container::{
    Bundle, CapabilityChange, Identity, Plan, StandardOptions, find_user, standard_spec,
};
use crate::units::Bytes;

/// What is to be run.
#[derive(Debug)]
pub(super) struct Request {
    /// The configuration.
    pub(super) spec: Spec,
    /// Where its relative paths start.
    bundle: PathBuf,
    /// Whether changes of the root filesystem are dropped at the end.
    scratch: bool,
}

impl Request {
    /// Reads the command line.
    pub(super) fn new(args: &RunArgs) -> Result<Self, ContainerError> {
        if let Some(bundle) = &args.bundle {
            return Self::of_bundle(bundle);
        }
        if args.image.is_some() {
            return Err(ContainerError::Missing { what: "running images" });
        }
        let rootfs = args.rootfs.clone().unwrap_or_default();
        Self::of_rootfs(args, rootfs)
    }

    fn of_bundle(bundle: &Path) -> Result<Self, ContainerError> {
        let bundle = Bundle::load(bundle)?;
        let (spec, folder) = (bundle.spec().clone(), bundle.folder().to_owned());
        Ok(Self { spec, bundle: folder, scratch: false })
    }

    fn of_rootfs(args: &RunArgs, rootfs: PathBuf) -> Result<Self, ContainerError> {
        if args.command.is_empty() {
            return Err(ContainerError::NoCommand);
        }
        let Some(network) = args.net.network() else {
            return Err(ContainerError::Missing { what: "`--net bridge`" });
        };
        if !matches!(args.seccomp.as_str(), "default" | "none") {
            return Err(ContainerError::Missing { what: "`--seccomp FILE`" });
        }
        let identity = match &args.user {
            Some(text) => find_user(&rootfs, text)?,
            // Looked up for its home.
            None => find_user(&rootfs, "0:0").unwrap_or_else(|_| Identity::default()),
        };
        let environment = environment(args, &[], identity.home.as_deref())?;
        let options = StandardOptions {
            rootfs: std::path::absolute(&rootfs).unwrap_or(rootfs),
            readonly: args.readonly,
            arguments: args.command.clone(),
            environment,
            working_directory: args.workdir.clone().unwrap_or_else(|| "/".into()),
            hostname: args.hostname.clone(),
            identity,
            capabilities: capabilities(args),
            no_new_privileges: args.no_new_privileges,
            limits: limits(args),
            resource_limits: args.ulimit.clone(),
            oom_score_adj: args.oom_score_adj,
            mounts: args.volume.iter().chain(&args.tmpfs).cloned().collect(),
            network,
            user_namespace: args.rootless || !nix::unistd::geteuid().is_root(),
            seccomp: None,
            terminal: args.tty,
        };
        Ok(Self {
            spec: standard_spec(&options),
            bundle: PathBuf::from("/"),
            scratch: args.overlay,
        })
    }

    /// The steps that carry it out.
    pub(super) fn plan(&self) -> Result<Plan, ContainerError> {
        let plan = Plan::from_spec(&self.spec, &self.bundle)?;
        Ok(if self.scratch { plan.with_scratch_layer()? } else { plan })
    }
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
    let ones = |list: &[CapabilityArg]| {
        let one = |arg: &CapabilityArg| match arg {
            CapabilityArg::All => None,
            CapabilityArg::One(capability) => Some(*capability),
        };
        list.iter().filter_map(one).collect()
    };
    CapabilityChange {
        add_all: args.cap_add.contains(&CapabilityArg::All),
        drop_all: args.cap_drop.contains(&CapabilityArg::All),
        add: ones(&args.cap_add),
        drop: ones(&args.cap_drop),
    }
}
