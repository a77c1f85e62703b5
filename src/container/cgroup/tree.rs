//! The cgroups of one run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::detect::{Hierarchy, Mounted, Version};
use super::group::{Group, Part, rmdir};
use super::location::{Ground, find_ground, movers};
use super::{CgroupError, Controller, Limits, files, sweep};
use crate::sys::clock::Deadline;

/// The first part of the name of everything that the suite makes.
pub(super) const PREFIX: &str = "unladen-";
/// The end of the name of the leaf into which the caller steps aside.
pub(super) const ASIDE: &str = "-aside";
/// How long processes that are ending may keep others from stepping aside.
const ASIDE_LIMIT: Duration = Duration::from_secs(5);

/// One hierarchy in use.
#[derive(Debug)]
struct Branch {
    version: Version,
    controllers: Vec<Controller>,
    folder: PathBuf,
    /// See [`Mounted::needs_cpuset`].
    needs_cpuset: bool,
    /// What has to be undone at the end.
    stepped_aside: Option<Aside>,
    /// Controllers that the parent did not hand out before this run.
    handed_out: Vec<Controller>,
}

/// Processes that left their cgroup so that it could have children.
#[derive(Debug)]
struct Aside {
    from: PathBuf,
    leaf: PathBuf,
}

/// The folder `unladen-<run id>` in every hierarchy that a run uses.
///
/// On version 2, where the caller is in a delegated cgroup, the caller and
/// its relatives in that cgroup (the shell that started it, say) are moved
/// into `unladen-<run id>-aside` beside it, since a cgroup with processes
/// cannot hand out controllers. [`RunTree::remove`] moves them back.
#[derive(Debug)]
pub struct RunTree {
    branches: Vec<Branch>,
    missing: Vec<(Controller, String)>,
    remarks: Vec<String>,
}

/// How many instances a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instances {
    /// One, in the run's own folder.
    One,
    /// Any number, each in a folder below it.
    Many,
}

impl Hierarchy {
    /// Makes the folder of a run for these controllers. A controller that
    /// cannot be used is remembered with its reason, and is not an error.
    ///
    /// # Errors
    ///
    /// When something that should have worked did not; what was made is
    /// removed.
    pub fn prepare(
        &self,
        run_id: &str,
        controllers: &[Controller],
    ) -> Result<RunTree, CgroupError> {
        self.prepare_for(run_id, controllers, Instances::Many)
    }

    /// Makes the folder of a run that has one instance only, which is the
    /// instance's group: half of the cgroups to make, and to remove, of
    /// [`Hierarchy::prepare`] and [`RunTree::create`]. Limits are treated as
    /// there.
    ///
    /// # Errors
    ///
    /// As both; nothing is left then.
    pub fn prepare_one(
        &self,
        run_id: &str,
        controllers: &[Controller],
        limits: &Limits,
    ) -> Result<(RunTree, Group), CgroupError> {
        let mut tree = self.prepare_for(run_id, controllers, Instances::One)?;
        let mut group = tree.new_group(limits);
        for branch in &tree.branches {
            let folder = branch.folder.clone();
            let part = Part::new(branch.version, branch.controllers.clone(), folder);
            if let Err(error) = group.enter(part, limits) {
                // The first error is the one that says why.
                let _ = tree.remove();
                return Err(error);
            }
        }
        Ok((tree, group))
    }

    fn prepare_for(
        &self,
        run_id: &str,
        controllers: &[Controller],
        instances: Instances,
    ) -> Result<RunTree, CgroupError> {
        check_name(run_id)?;
        let mut tree = RunTree { branches: Vec::new(), missing: Vec::new(), remarks: Vec::new() };
        for (index, controller) in controllers.iter().enumerate() {
            if controllers[..index].contains(controller) {
                continue;
            }
            match self.with(*controller) {
                Err(reason) => tree.missing.push((*controller, reason)),
                Ok(mounted) => match find_ground(self, mounted) {
                    Err(reason) => tree.missing.push((*controller, reason)),
                    Ok(ground) => {
                        let run = (run_id, instances);
                        let added = tree.add(self, (*controller, mounted), &ground, run);
                        if let Err(error) = added {
                            // The first error is the one that says why.
                            let _ = tree.remove();
                            return Err(error);
                        }
                    }
                },
            }
        }
        Ok(tree)
    }
}

impl RunTree {
    /// Adds a controller, in a branch that exists or a new one.
    fn add(
        &mut self,
        hierarchy: &Hierarchy,
        (controller, mounted): (Controller, &Mounted),
        ground: &Ground,
        (run_id, instances): (&str, Instances),
    ) -> Result<(), CgroupError> {
        let (version, needs_cpuset) = (mounted.version, mounted.needs_cpuset());
        let folder = ground.folder.join(format!("{PREFIX}{run_id}"));
        let known = self.branches.iter().position(|branch| branch.folder == folder);
        let index = match known {
            Some(index) => index,
            None => {
                make(&folder)?;
                self.branches.push(Branch {
                    version,
                    controllers: Vec::new(),
                    folder: folder.clone(),
                    needs_cpuset,
                    stepped_aside: None,
                    handed_out: Vec::new(),
                });
                if needs_cpuset {
                    files::inherit_cpuset(&folder)?;
                }
                self.branches.len() - 1
            }
        };
        let branch = &mut self.branches[index];
        if version == Version::V2 && !controller.is_core() {
            if !ground.movers.is_empty() && branch.stepped_aside.is_none() {
                let leaf = ground.folder.join(format!("{PREFIX}{run_id}{ASIDE}"));
                branch.stepped_aside =
                    Some(Aside { from: ground.folder.clone(), leaf: leaf.clone() });
                make(&leaf)?;
                move_into(&leaf, &ground.movers)?;
                self.remarks.push(format!(
                    "moved {} processes of this session from {} into {}",
                    ground.movers.len(),
                    ground.folder.display(),
                    leaf.display()
                ));
            }
            let handed = match &branch.stepped_aside {
                Some(aside) => hand_out_aside(hierarchy, controller, aside),
                None => hand_out(controller, &ground.folder),
            };
            if let Some(remark) = handed? {
                self.remarks.push(remark);
                branch.handed_out.push(controller);
            }
            // A cgroup that hands out controllers cannot hold processes.
            if instances == Instances::Many {
                hand_out(controller, &folder)?;
            }
        }
        branch.controllers.push(controller);
        Ok(())
    }

    /// Makes the group of one instance.
    ///
    /// A limit whose controller is not available becomes a remark of the
    /// group; a limit that the kernel refuses is an error.
    ///
    /// # Errors
    ///
    /// Naming controller, file and value; nothing is left then.
    pub fn create(&self, name: &str, limits: &Limits) -> Result<Group, CgroupError> {
        check_name(name)?;
        let mut group = self.new_group(limits);
        for branch in &self.branches {
            let folder = branch.folder.join(name);
            let part = Part::new(branch.version, branch.controllers.clone(), folder);
            if let Err(error) = group.add(part, branch.needs_cpuset, limits) {
                // The first error is the one that says why.
                let _ = group.remove(Duration::ZERO);
                return Err(error);
            }
        }
        Ok(group)
    }

    /// A group without folders yet, which says what cannot be limited.
    fn new_group(&self, limits: &Limits) -> Group {
        let mut group = Group::new(self.missing.clone());
        for controller in limits.controllers() {
            let missing = self.missing.iter().find(|(missing, _)| *missing == controller);
            if let Some((_, reason)) = missing {
                group.remark(format!("no {controller} limit: {reason}"));
            } else if !self.branches.iter().any(|branch| branch.controllers.contains(&controller)) {
                group.remark(format!("no {controller} limit: the run does not use it"));
            }
        }
        group
    }

    /// Controllers that cannot be used, each with the reason.
    #[must_use]
    pub fn missing(&self) -> &[(Controller, String)] {
        &self.missing
    }

    /// What was changed outside of the run's own folders.
    #[must_use]
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// The run's own folders.
    #[must_use]
    pub fn folders(&self) -> Vec<&Path> {
        self.branches.iter().map(|branch| branch.folder.as_path()).collect()
    }

    /// Removes the run's folders with everything in them, kills what still
    /// runs inside, and moves the caller back where it was.
    ///
    /// # Errors
    ///
    /// When a process survives or the kernel keeps a folder.
    pub fn remove(&mut self) -> Result<(), CgroupError> {
        while let Some(branch) = self.branches.last() {
            // Usually empty: its one instance has ended, and nothing is below.
            if rmdir(&branch.folder).is_err() {
                sweep::remove_tree(&branch.folder)?;
            }
            if let Some(Aside { from, leaf }) = &branch.stepped_aside {
                sweep::step_back(from, leaf)?;
            }
            take_back(branch);
            self.branches.pop();
        }
        Ok(())
    }
}

/// Makes one cgroup; one of this name that exists belongs to a run that was
/// interrupted and is being resumed.
fn make(folder: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|source| CgroupError::Create { path: folder.to_owned(), source }),
    }
}

/// Moves processes into a leaf, so that the cgroup they leave can have
/// children with controllers.
fn move_into(leaf: &Path, pids: &[Pid]) -> Result<(), CgroupError> {
    for pid in pids {
        match files::set("stepping aside", &leaf.join("cgroup.procs"), &pid.to_string()) {
            // It ended meanwhile.
            Err(error) if failed_with(&error, Errno::ESRCH) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Hands out in a cgroup whose processes stepped aside, as soon as nothing is
/// in it any more.
///
/// One may have forked meanwhile. One that is ending stays where it is
/// although the kernel takes the write (`cgroup_migrate_add_task` in Linux
/// passes over `PF_EXITING`), and when it is nearly gone `cgroup.procs` does
/// not show it (`css_task_iter_advance`): only the refusal tells.
fn hand_out_aside(
    hierarchy: &Hierarchy,
    controller: Controller,
    aside: &Aside,
) -> Result<Option<String>, CgroupError> {
    let deadline = Deadline::after(ASIDE_LIMIT);
    loop {
        match hand_out(controller, &aside.from) {
            Err(error) if failed_with(&error, Errno::EBUSY) && !deadline.passed() => {
                // Strangers are not ours to move.
                if let Ok(pids) = movers(hierarchy, &aside.from) {
                    move_into(&aside.leaf, &pids)?;
                }
                thread::sleep(Duration::from_millis(1));
            }
            done => return done,
        }
    }
}

/// Whether the kernel refused a value with this.
fn failed_with(error: &CgroupError, errno: Errno) -> bool {
    matches!(error, CgroupError::Write { source, .. } if source.raw_os_error() == Some(errno as i32))
}

/// Lets the children of a version 2 cgroup have a controller. Returns a
/// remark when that changed a setting.
pub(super) fn hand_out(
    controller: Controller,
    folder: &Path,
) -> Result<Option<String>, CgroupError> {
    let path = folder.join("cgroup.subtree_control");
    if files::read(&path)?.split_whitespace().any(|name| name == controller.as_str()) {
        return Ok(None);
    }
    let value = format!("+{controller}");
    files::set(controller.as_str(), &path, &value)?;
    Ok(Some(format!("wrote {value} to {}", path.display())))
}

/// Takes back what the parent hands out only since this run, unless another
/// run has come to rely on it.
fn take_back(branch: &Branch) {
    let Some(parent) = branch.folder.parent() else { return };
    if branch.handed_out.is_empty() {
        return;
    }
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let others = fs::read_dir(parent).into_iter().flatten().flatten().map(name);
    if others.into_iter().any(|name| name.starts_with(PREFIX)) {
        return;
    }
    for controller in &branch.handed_out {
        // The kernel refuses while somebody's cgroup uses it, and is right.
        let _ = take_from(parent, *controller);
    }
}

/// No longer lets the children of a version 2 cgroup have a controller.
pub(super) fn take_from(folder: &Path, controller: Controller) -> Result<(), CgroupError> {
    let path = folder.join("cgroup.subtree_control");
    files::set(controller.as_str(), &path, &format!("-{controller}"))
}

/// Refuses what could climb out of a folder, or would look like a unit of
/// systemd.
pub(super) fn check_name(name: &str) -> Result<(), CgroupError> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(fine) {
        return Err(CgroupError::Name(name.to_owned()));
    }
    Ok(())
}
