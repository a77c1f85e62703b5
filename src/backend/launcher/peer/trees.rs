//! Control groups of an instance in the hierarchies that our own instances do
//! not need: without any controller, and named for systemd. Some systems make
//! groups below wherever they are, and would leave them at the top.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::container::cgroup::Group;

/// Groups of one instance.
#[derive(Default)]
pub(super) struct Trees {
    pub(super) folders: Vec<PathBuf>,
    join: Vec<File>,
    unified: Option<File>,
}

impl Trees {
    /// Makes them in those of `tops` that the instance's own group is not in.
    pub(super) fn make(
        tops: &[PathBuf],
        group: &Group,
        run_id: &str,
        name: &str,
    ) -> io::Result<Self> {
        let mut trees = Self::default();
        let own = group.folders();
        for top in tops.iter().filter(|top| !own.iter().any(|folder| folder.starts_with(top))) {
            let unified = top.join("cgroup.subtree_control").exists();
            let named = top.ends_with("systemd");
            if !unified && !named {
                continue;
            }
            let folder = top.join(format!("unladen-{run_id}")).join(name);
            // A hierarchy in which we may not make a group has none of it.
            if fs::create_dir_all(&folder).is_err() {
                continue;
            }
            trees.folders.push(folder.clone());
            if unified {
                trees.unified = Some(File::open(&folder)?);
            } else {
                trees.join.push(fs::OpenOptions::new().write(true).open(folder.join("tasks"))?);
            }
        }
        Ok(trees)
    }

    /// Open `tasks` files of version 1.
    pub(super) fn join(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.join.iter().map(AsFd::as_fd)
    }

    /// Nobody joins them any more.
    pub(super) fn close_entrances(&mut self) {
        self.join.clear();
        self.unified = None;
    }

    /// The version 2 folder.
    pub(super) fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }
}

/// Removes a group and those below it, in which nothing runs any more.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
