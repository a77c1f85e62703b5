//! What a container sees of control groups on a host with hierarchies of
//! version 1: its own cgroups, bound at the places where the host has them, as
//! runc does it. (Where the host has version 2 alone, the plan mounts it.)

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};

use crate::container::cgroup::{Group, is_unified};

/// Where hosts mount control groups.
const ROOT: &str = "/sys/fs/cgroup";

/// A spec whose mounts of type `cgroup` are binds of the group's folders.
pub(super) fn with_own_cgroups(spec: &Spec, group: &Group) -> Spec {
    let mut spec = spec.clone();
    if is_unified() {
        return spec;
    }
    let Some(mounts) = spec.mounts().clone() else { return spec };
    let mounts = mounts.into_iter().flat_map(|mount| match mount.typ().as_deref() {
        Some("cgroup" | "cgroup2") => binds(&mount, group),
        _ => vec![mount],
    });
    spec.set_mounts(Some(mounts.collect()));
    spec
}

/// An empty folder with a bind of each of the group's folders in it.
fn binds(mount: &Mount, group: &Group) -> Vec<Mount> {
    let asked = mount.options().clone().unwrap_or_default();
    let own = |extra: &[&str]| {
        let words = ["ro", "nosuid", "noexec", "nodev"];
        let kept = asked.iter().filter(|word| words.contains(&word.as_str())).cloned();
        Some(extra.iter().map(|word| (*word).to_owned()).chain(kept).collect::<Vec<_>>())
    };
    let mut top = Mount::default();
    top.set_destination(mount.destination().clone());
    top.set_typ(Some("tmpfs".to_owned())).set_source(Some("tmpfs".into()));
    top.set_options(own(&["mode=755"]));
    let mut all = vec![top];
    for folder in group.folders() {
        for name in names(folder) {
            let mut bind = Mount::default();
            bind.set_destination(mount.destination().join(name));
            bind.set_typ(Some("bind".to_owned())).set_source(Some(folder.to_owned()));
            bind.set_options(own(&["bind"]));
            all.push(bind);
        }
    }
    all
}

/// The names under which a hierarchy is looked for: that of its mount point,
/// and those of its controllers when there are several.
fn names(folder: &Path) -> Vec<PathBuf> {
    let below = folder.strip_prefix(ROOT).unwrap_or(folder);
    let first = below.components().find_map(|part| match part {
        Component::Normal(name) => Some(PathBuf::from(name)),
        _ => None,
    });
    let Some(first) = first else { return Vec::new() };
    let text = first.to_string_lossy().into_owned();
    let mut names = vec![first];
    if text.contains(',') {
        names.extend(text.split(',').map(PathBuf::from));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_keep_their_names() {
        let found = |path: &str| names(Path::new(path));
        assert_eq!(found("/sys/fs/cgroup/memory/a/b"), [PathBuf::from("memory")]);
        let both = found("/sys/fs/cgroup/cpu,cpuacct/a");
        assert_eq!(both, ["cpu,cpuacct", "cpu", "cpuacct"].map(PathBuf::from));
    }
}
