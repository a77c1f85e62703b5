//! The cgroups of one instance.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Pid;

use super::detect::Version;
use super::{CgroupError, Controller, Limits, files, sweep};
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
    /// Version 1: `tasks`, for writing. Version 2: the folder itself.
    entrance: Option<OwnedFd>,
}

impl Part {
    pub(super) fn new(version: Version, controllers: Vec<Controller>, folder: PathBuf) -> Self {
        Self { version, controllers, folder, entrance: None }
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
    missing: Vec<(Controller, String)>,
    remarks: Vec<String>,
}

impl Group {
    pub(super) fn new(missing: Vec<(Controller, String)>) -> Self {
        Self { parts: Vec::new(), missing, remarks: Vec::new() }
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
    pub(super) fn add(&mut self, part: Part, limits: &Limits) -> Result<(), CgroupError> {
        fs::create_dir(&part.folder)
            .map_err(|source| CgroupError::Create { path: part.folder.clone(), source })?;
        self.parts.push(part);
        // Just pushed.
        let Some(part) = self.parts.last_mut() else { return Ok(()) };
        for controller in &part.controllers {
            self.remarks.extend(limits.apply(*controller, part.version, &part.folder)?);
        }
        part.open()
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

    /// Kills every process in the group and in cgroups below it, and waits
    /// until none is left (a zombie is none).
    ///
    /// # Errors
    ///
    /// When a process survives `SIGKILL` for 30 s.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        let deadline = Deadline::after(DEATH_LIMIT);
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
            sweep::remove_folder(&part.folder, deadline)?;
            self.parts.pop();
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
