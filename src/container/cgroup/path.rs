//! Groups at a path that somebody else chose: `linux.cgroupsPath`.
//!
//! As config-linux.md has it ("Cgroups Path"): an absolute path starts at the
//! top of each hierarchy, a relative one where the suite would make its own
//! cgroups, and the same path always means the same cgroup.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::detect::{Hierarchy, Mounted, Version};
use super::group::{Group, Part};
use super::location::{Ground, find_ground, usable};
use super::tree::hand_out;
use super::{CgroupError, Controller, Limits, files};

/// A hierarchy and what of it a group gets.
struct Place<'a> {
    mounted: &'a Mounted,
    controllers: Vec<Controller>,
    /// Where the path starts.
    start: PathBuf,
}

impl Hierarchy {
    /// Makes the group of a container at a path, with a folder in every
    /// hierarchy that the caller may use, as engines expect that look for
    /// their containers there. Folders that are missing on the way are made,
    /// and removed again with the group.
    ///
    /// # Errors
    ///
    /// When the path cannot be used, when somebody is in the cgroup already,
    /// when a limit needs a controller that is not available, and when the
    /// kernel refuses one, naming controller, file and value; what was made
    /// is removed then.
    pub fn group_at(&self, path: &Path, limits: &Limits) -> Result<Group, CgroupError> {
        let names = names(path)?;
        let mut missing = Vec::new();
        let mut places: Vec<Place<'_>> = Vec::new();
        for controller in Controller::ALL {
            let found = self.with(controller).and_then(|mounted| {
                self.start(mounted, path, controller).map(|start| (mounted, start))
            });
            match found {
                Ok((mounted, start)) => {
                    let known = places.iter_mut().find(|place| place.start == start);
                    match known {
                        Some(place) => place.controllers.push(controller),
                        None => {
                            let controllers = vec![controller];
                            places.push(Place { mounted, controllers, start });
                        }
                    }
                }
                Err(reason) if limits.wants(controller) => {
                    return Err(CgroupError::Unavailable { controller, reason });
                }
                Err(reason) => missing.push((controller, reason)),
            }
        }
        let mut group = Group::new(missing);
        for place in &places {
            if let Err(error) = place.fill(&mut group, &names, limits) {
                // The first error is the one that says why.
                let _ = group.remove(std::time::Duration::ZERO);
                return Err(error);
            }
        }
        Ok(group)
    }

    /// Finds the group that [`Hierarchy::group_at`] made at a path. Removing
    /// it removes its folders, but none above; what [`Group::record`] wrote
    /// down knows those, too.
    ///
    /// # Errors
    ///
    /// When the path cannot be used, and when no hierarchy has it.
    pub fn open_group(&self, path: &Path) -> Result<Group, CgroupError> {
        let names: PathBuf = names(path)?.into_iter().collect();
        let mut group = Group::new(Vec::new());
        for mounted in &self.mounted {
            let controllers: Vec<Controller> = Controller::ALL
                .into_iter()
                .filter(|controller| {
                    self.with(*controller).is_ok_and(|with| with.top == mounted.top)
                })
                .collect();
            let Some(first) = controllers.first() else { continue };
            let Ok(start) = self.start(mounted, path, *first) else { continue };
            let folder = start.join(&names);
            if folder.is_dir() {
                let part = Part::new(mounted.version, controllers, folder);
                group.enter(part, &Limits::default())?;
            }
        }
        if group.folders().is_empty() {
            return Err(CgroupError::Absent { path: path.to_owned() });
        }
        Ok(group)
    }

    /// Where a path starts in a hierarchy.
    fn start(
        &self,
        mounted: &Mounted,
        path: &Path,
        controller: Controller,
    ) -> Result<PathBuf, String> {
        if path.is_absolute() {
            return Ok(mounted.top.clone());
        }
        let Ground { folder, movers } = find_ground(self, mounted)?;
        if mounted.version == Version::V2 && !controller.is_core() && !movers.is_empty() {
            return Err(format!(
                "{} holds the caller and cannot have children with limits; use an absolute \
                 linux.cgroupsPath",
                folder.display()
            ));
        }
        Ok(folder)
    }
}

impl Place<'_> {
    /// Makes the folders from the start on, and sets the limits in the last.
    fn fill(
        &self,
        group: &mut Group,
        names: &[PathBuf],
        limits: &Limits,
    ) -> Result<(), CgroupError> {
        let Some((last, above)) = names.split_last() else { return Ok(()) };
        let mut controllers = self.controllers.clone();
        let mut folder = self.start.clone();
        for name in above {
            self.give(&folder, &mut controllers, group, limits)?;
            folder.push(name);
            if self.make(&folder, &controllers, limits)? {
                group.made.push(folder.clone());
            }
        }
        self.give(&folder, &mut controllers, group, limits)?;
        folder.push(last);
        let ours = self.make(&folder, &controllers, limits)?;
        let mut part = Part::new(self.mounted.version, controllers, folder.clone());
        part.ours = ours;
        let pids = files::processes(&folder)?;
        if !pids.is_empty() {
            return Err(CgroupError::Occupied { path: folder, processes: files::list(&pids) });
        }
        group.enter(part, limits)
    }

    /// Lets the children of a folder have the controllers; those that it
    /// cannot give are left out unless a limit needs them.
    fn give(
        &self,
        folder: &Path,
        controllers: &mut Vec<Controller>,
        group: &mut Group,
        limits: &Limits,
    ) -> Result<(), CgroupError> {
        if self.mounted.version == Version::V1 {
            return Ok(());
        }
        let mut given = Vec::new();
        for controller in controllers.drain(..) {
            match if controller.is_core() { Ok(None) } else { hand_out(controller, folder) } {
                Ok(changed) => {
                    given.push(controller);
                    if changed.is_some() {
                        group.handed_out.push((folder.to_owned(), controller));
                    }
                }
                Err(error) if limits.wants(controller) => return Err(error),
                Err(_) => {}
            }
        }
        *controllers = given;
        Ok(())
    }

    /// Makes a folder unless it exists; whether it was made.
    fn make(
        &self,
        folder: &Path,
        controllers: &[Controller],
        limits: &Limits,
    ) -> Result<bool, CgroupError> {
        match fs::create_dir(folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(source) => {
                // Says whose it is and what to do about it, where that is why.
                let above = folder.parent().unwrap_or(folder);
                let wanted = controllers.iter().find(|controller| limits.wants(**controller));
                let controller = wanted.or(controllers.first()).copied();
                return Err(match (usable(above), controller) {
                    (Err(reason), Some(controller)) => {
                        CgroupError::Unavailable { controller, reason }
                    }
                    _ => CgroupError::Create { path: folder.to_owned(), source },
                });
            }
        }
        if self.mounted.needs_cpuset()
            && let Err(error) = files::inherit_cpuset(folder)
        {
            let _ = fs::remove_dir(folder);
            return Err(error);
        }
        Ok(true)
    }
}

/// The names on a path, which goes only down.
fn names(path: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let refused = |reason| Err(CgroupError::Path { path: path.to_owned(), reason });
    if !path.is_absolute() && path.to_string_lossy().contains(':') {
        return refused(
            "this runtime does not use systemd's `slice:prefix:name`; give a path, or have the \
             engine use its `cgroupfs` manager (`podman --cgroup-manager=cgroupfs`, \
             `dockerd --exec-opt native.cgroupdriver=cgroupfs`)",
        );
    }
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push(PathBuf::from(name)),
            Component::ParentDir | Component::Prefix(_) => return refused("it must go only down"),
        }
    }
    if names.is_empty() {
        return refused("it names no cgroup");
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_down_and_are_not_systemds() {
        let found = |path: &str| names(Path::new(path)).map_err(|error| error.to_string());
        assert_eq!(found("/a//b/./c").expect("a path").len(), 3);
        assert_eq!(found("a").expect("a path"), [PathBuf::from("a")]);
        for bad in ["/a/../b", "..", "/", ""] {
            assert!(found(bad).is_err(), "{bad}");
        }
        let error = found("user.slice:libpod:abc").expect_err("systemd's");
        assert!(error.contains("cgroup-manager=cgroupfs"), "{error}");
    }
}
