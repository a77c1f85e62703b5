//! What an instance of somebody else's system is given to run: the same root
//! file system, spec and filter as our own containers.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::super::Assets;
use super::super::vm::guest_kernel;
use super::words::Values;
use crate::container::minimal_rootfs;
use crate::container::seccomp::compile;
use crate::errors::chain;
use crate::spec::systems::System;

/// The root file system of a system's instances, with what it needs beside
/// the payload.
pub(super) fn folder(system: &System, cache: &Path, payload: &Path) -> Result<PathBuf, String> {
    if system.needs.is_empty() {
        return minimal_rootfs(&cache.join("rootfs"), payload).map_err(|error| chain(&error));
    }
    let base = cache.join(format!("rootfs-{}", system.name));
    let root = minimal_rootfs(&base, payload).map_err(|error| chain(&error))?;
    for need in &system.needs {
        let path = root.join(need);
        let made = match need.strip_suffix('/') {
            Some(_) => fs::create_dir_all(&path),
            None => path
                .parent()
                .map_or(Ok(()), fs::create_dir_all)
                .and_then(|()| fs::File::options().create(true).append(true).open(&path))
                .map(drop),
        };
        made.map_err(|error| format!("cannot make `{}`: {error}", path.display()))?;
    }
    Ok(root)
}

/// What a guest is started from: the kernel and the initramfs of our own
/// machines, and the payload's variables for a kernel's command line.
pub(super) fn guest(
    values: &mut Values,
    assets: &Assets,
    env: &[(String, String)],
) -> Result<(), String> {
    let kernel = guest_kernel(assets).map_err(|error| chain(&error))?;
    let initrd = assets.initramfs(None).map_err(|error| chain(&error))?;
    let words: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    values.set("kernel", &kernel.display().to_string());
    values.set("initrd", &initrd.display().to_string());
    values.set("append", &words.join(" "));
    Ok(())
}

/// The spec of our own container cell as a bundle's `config.json`; the control
/// group is the instance's.
pub(super) fn config(mut spec: Spec, env: &[(String, String)]) -> Result<String, String> {
    if let Some(process) = spec.process_mut() {
        let env = env.iter().map(|(name, value)| format!("{name}={value}"));
        // youki starts nothing without it.
        process.set_env(Some(env.chain(["PATH=/".to_owned()]).collect()));
    }
    if let Some(linux) = spec.linux_mut() {
        linux.set_cgroups_path(Some(PathBuf::from("{cgroup}")));
    }
    serde_json::to_string_pretty(&spec).map_err(|error| error.to_string())
}

/// Writes the system-call filter of our own container cell as the kernel takes
/// it: an array of `struct sock_filter`.
pub(super) fn filter(spec: &Spec, folder: &Path) -> Result<PathBuf, String> {
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().clone());
    let profile = profile.ok_or("our own container cell has no filter here")?;
    let filter = compile(&profile).map_err(|error| chain(&error))?;
    let bytes = filter.instructions.iter().flat_map(|instruction| {
        let [low, high] = instruction.code.to_ne_bytes();
        let operand = instruction.k.to_ne_bytes();
        [[low, high, instruction.jt, instruction.jf], operand].concat()
    });
    let path = folder.join("filter.bpf");
    fs::write(&path, bytes.collect::<Vec<u8>>())
        .map_err(|error| format!("cannot write `{}`: {error}", path.display()))?;
    Ok(path)
}
