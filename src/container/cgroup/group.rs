//! The cgroups of one instance.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::detect::Version;
use super::{CgroupError, Controller, Limits, files, freeze, sweep, tree};
use crate::sys::clock::Deadline;

/// How long killed processes may take to leave. They need CPU time to die,
/// which a heavily loaded host hands out late.
const DEATH_LIMIT: Duration = Duration::from_secs(30);

/// One folder of a group.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) version: Version,
    pub(super) controllers: Vec<Controller>,
    pub(super) folder: PathBuf,
    /// Whether the folder is this group's own, to be removed with it.
    pub(super) ours: bool,
    /// Version 1: `tasks`, for writing. Version 2: the folder itself.
    entrance: Option<OwnedFd>,
}

impl Part {
    pub(super) fn new(version: Version, controllers: Vec<Controller>, folder: PathBuf) -> Self {
        Self { version, controllers, folder, ours: true, entrance: None }
    }

    /// Opens what a child joins through.
    fn open(&mut self) -> Result<(), CgroupError> {
        let path = match self.version {
            Version::V1 => self.folder.join("tasks"),
            Version::V2 => self.folder.clone(),
        };
        let file = match self.version {
            Version::V1 => fs::OpenOptions::new().write(true).open(&path),
            Version::V2 => File::open(&path),
        };
        self.entrance = Some(file.map_err(|source| CgroupError::Open { path, source })?.into());
        Ok(())
    }
}

/// The cgroups of one instance, one folder in each hierarchy that is used.
///
/// Dropping it leaves the folders; see [`Group::remove`].
#[derive(Debug)]
pub struct Group {
    parts: Vec<Part>,
    /// Folders above that were made for it, the highest first.
    pub(super) made: Vec<PathBuf>,
    /// Controllers that folders above give since this group needed them.
    pub(super) handed_out: Vec<(PathBuf, Controller)>,
    missing: Vec<(Controller, String)>,
    remarks: Vec<String>,
}

/// One folder of a group, to be written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderRecord {
    /// Version of its hierarchy.
    pub version: Version,
    /// The controllers it is used for.
    pub controllers: Vec<Controller>,
    /// Where it is.
    pub folder: PathBuf,
    /// Whether it goes when the group is removed.
    pub ours: bool,
}

/// A group as it can be written down, for another process to find it again
/// with [`Group::reopen`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRecord {
    /// One folder in each hierarchy that is used.
    pub folders: Vec<FolderRecord>,
    /// Folders above that were made for it, the highest first.
    pub made: Vec<PathBuf>,
    /// Controllers that folders above give since this group needed them.
    pub handed_out: Vec<(PathBuf, Controller)>,
}

impl Group {
    pub(super) fn new(missing: Vec<(Controller, String)>) -> Self {
        Self {
            parts: Vec::new(),
            made: Vec::new(),
            handed_out: Vec::new(),
            missing,
            remarks: Vec::new(),
        }
    }

    /// What [`Group::reopen`] needs to find the group again.
    #[must_use]
    pub fn record(&self) -> GroupRecord {
        let folder = |part: &Part| FolderRecord {
            version: part.version,
            controllers: part.controllers.clone(),
            folder: part.folder.clone(),
            ours: part.ours,
        };
        GroupRecord {
            folders: self.parts.iter().map(folder).collect(),
            made: self.made.clone(),
            handed_out: self.handed_out.clone(),
        }
    }

    /// A group that was made by another process. Its folders may be gone
    /// meanwhile, see [`Group::exists`].
    ///
    /// # Errors
    ///
    /// When a folder that exists cannot be opened for joining.
    pub fn reopen(record: &GroupRecord) -> Result<Self, CgroupError> {
        let mut group = Self::new(Vec::new());
        group.made.clone_from(&record.made);
        group.handed_out.clone_from(&record.handed_out);
        for FolderRecord { version, controllers, folder, ours } in &record.folders {
            let part = Part::new(*version, controllers.clone(), folder.clone());
            let mut part = Part { ours: *ours, ..part };
            if folder.exists() {
                part.open()?;
            }
            group.parts.push(part);
        }
        Ok(group)
    }

    /// A group without any folder, for hosts and callers where nothing can be
    /// limited.
    #[must_use]
    pub fn none(reason: &str) -> Self {
        let missing = Controller::ALL.map(|controller| (controller, reason.to_owned()));
        Self::new(missing.to_vec())
    }

    pub(super) fn remark(&mut self, text: String) {
        self.remarks.push(text);
    }

    /// Makes one folder, sets its limits and opens its entrance.
    pub(super) fn add(
        &mut self,
        part: Part,
        needs_cpuset: bool,
        limits: &Limits,
    ) -> Result<(), CgroupError> {
        fs::create_dir(&part.folder)
            .map_err(|source| CgroupError::Create { path: part.folder.clone(), source })?;
        if needs_cpuset {
            let inherited = files::inherit_cpuset(&part.folder);
            self.enter(part, limits)?;
            return inherited;
        }
        self.enter(part, limits)
    }

    /// Takes up a folder that exists, sets its limits and opens its entrance.
    pub(super) fn enter(&mut self, part: Part, limits: &Limits) -> Result<(), CgroupError> {
        self.parts.push(part);
        // Just pushed.
        let Some(part) = self.parts.last_mut() else { return Ok(()) };
        for controller in &part.controllers {
            self.remarks.extend(limits.apply(*controller, part.version, &part.folder)?);
        }
        part.open()
    }

    /// Changes the limits of a group in use; those that are `None` stay.
    /// Returns remarks about those that cannot be set here.
    ///
    /// # Errors
    ///
    /// Naming controller, file and value. Limits before it are changed then.
    pub fn update(&self, limits: &Limits) -> Result<Vec<String>, CgroupError> {
        let mut remarks = Vec::new();
        for controller in limits.controllers() {
            self.part(controller)?;
        }
        self.check_memory(limits)?;
        for part in &self.parts {
            for controller in &part.controllers {
                remarks.extend(limits.apply(*controller, part.version, &part.folder)?);
            }
        }
        Ok(remarks)
    }

    /// Refuses less memory than is in use, when the limits say so.
    fn check_memory(&self, limits: &Limits) -> Result<(), CgroupError> {
        let Some(memory) = limits.memory.filter(|_| limits.memory_check) else { return Ok(()) };
        if self.memory_usage()? <= memory {
            return Ok(());
        }
        Err(CgroupError::Refused {
            limit: format!("memory.limit` of `{memory}"),
            version: self.part(Controller::Memory)?.version,
            reason: "the group uses more than that already (checkBeforeUpdate)",
        })
    }

    /// Limits that were asked for and are not set, each with the reason.
    #[must_use]
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Open `tasks` files of version 1, for
    /// [`Launch::join`](crate::sys::spawn::Launch::join).
    #[must_use]
    pub fn join_fds(&self) -> Vec<BorrowedFd<'_>> {
        self.entrances(Version::V1).collect()
    }

    /// The version 2 folder, for
    /// [`Launch::into_cgroup`](crate::sys::spawn::Launch::into_cgroup).
    #[must_use]
    pub fn into_cgroup(&self) -> Option<BorrowedFd<'_>> {
        self.entrances(Version::V2).next()
    }

    /// Closes the descriptors by which a process joins: nobody else is to.
    pub fn close_entrances(&mut self) {
        for part in &mut self.parts {
            part.entrance = None;
        }
    }

    fn entrances(&self, version: Version) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.parts
            .iter()
            .filter(move |part| part.version == version)
            .filter_map(|part| part.entrance.as_ref().map(AsFd::as_fd))
    }

    /// The folder and version of a controller.
    pub(super) fn part(&self, controller: Controller) -> Result<&Part, CgroupError> {
        self.parts.iter().find(|part| part.controllers.contains(&controller)).ok_or_else(|| {
            let reason = self
                .missing
                .iter()
                .find(|(missing, _)| *missing == controller)
                .map_or_else(|| "it was not asked for".to_owned(), |(_, reason)| reason.clone());
            CgroupError::Unavailable { controller, reason }
        })
    }

    /// The folder in version 2, if there is one.
    pub(super) fn unified(&self) -> Option<&Part> {
        self.parts.iter().find(|part| part.version == Version::V2)
    }

    /// The folder of a controller, if there is one.
    #[must_use]
    pub fn folder(&self, controller: Controller) -> Option<&Path> {
        self.part(controller).ok().map(|part| part.folder.as_path())
    }

    /// Every folder of the group.
    #[must_use]
    pub fn folders(&self) -> Vec<&Path> {
        self.parts.iter().map(|part| part.folder.as_path()).collect()
    }

    /// Pids in the group, those in cgroups below it not counted.
    ///
    /// # Errors
    ///
    /// When `cgroup.procs` cannot be read.
    pub fn processes(&self) -> Result<Vec<Pid>, CgroupError> {
        let mut all = Vec::new();
        for part in &self.parts {
            all.extend(files::processes(&part.folder)?);
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Sends a signal to every process in the group and in cgroups below it.
    /// Those that are born meanwhile may be missed; [`Group::kill_all`]
    /// misses none.
    ///
    /// # Errors
    ///
    /// When the processes cannot be listed.
    pub fn signal(&self, signal: Signal) -> Result<(), CgroupError> {
        let mut known = BTreeSet::new();
        self.parts.iter().try_for_each(|part| sweep::signal_tree(&part.folder, signal, &mut known))
    }

    /// Kills every process in the group and in cgroups below it, frozen ones
    /// too, and waits until none is left (a zombie is none). On version 1 the
    /// group takes no process after that, unless its pids limit is changed.
    ///
    /// # Errors
    ///
    /// When a process survives `SIGKILL` for 30 s.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        let deadline = Deadline::after(DEATH_LIMIT);
        let freezer = self.part(Controller::Freezer);
        if let Ok(part) = freezer.as_ref()
            && part.version == Version::V1
        {
            // Signals first: nobody gets to run between thaw and death.
            self.signal(Signal::SIGKILL)?;
            freeze::let_die(&part.folder);
        }
        for part in &self.parts {
            sweep::kill_tree(&part.folder, deadline)?;
        }
        Ok(())
    }

    /// Whether any folder of the group exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.parts.iter().any(|part| part.folder.exists())
    }

    /// Removes the folders, of which none may hold a running process any
    /// more. Waits at most this long for the last one to be gone: the kernel
    /// lets go of a process a moment after it was seen to end.
    ///
    /// # Errors
    ///
    /// When a folder is still occupied then; its pids are named. Calling
    /// again continues.
    pub fn remove(&mut self, limit: Duration) -> Result<(), CgroupError> {
        let deadline = Deadline::after(limit);
        while let Some(part) = self.parts.last() {
            if part.ours {
                sweep::remove_folder(&part.folder, deadline)?;
            }
            self.parts.pop();
        }
        while let Some(folder) = self.made.pop() {
            // Somebody else may have come to use it.
            let _ = rmdir(&folder);
        }
        while let Some((folder, controller)) = self.handed_out.pop() {
            // Others below may rely on it by now.
            if sweep::children(&folder).is_empty() {
                let _ = tree::take_from(&folder, controller);
            }
        }
        Ok(())
    }
}

/// Removes one empty cgroup; one that is gone is fine.
pub(super) fn rmdir(folder: &Path) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if files::gone(&error) => Ok(()),
        other => other,
    }
}
