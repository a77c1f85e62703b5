//! What is still to be undone, on disk before anything is done: so that the
//! instances and images of a run that was killed can be removed later.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use serde::{Deserialize, Serialize};

/// The name of the file.
const FILE: &str = "undo.json";

/// Commands that undo something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::backend) struct Undo {
    /// The commands, each with its program's path.
    pub(in crate::backend) commands: Vec<Vec<String>>,
    /// Their whole environment as `NAME=value`.
    pub(in crate::backend) env: Vec<String>,
    /// Folders to be removed.
    pub(in crate::backend) leaves: Vec<PathBuf>,
    /// Whether they remove what others have made, and so come last.
    pub(in crate::backend) last: bool,
}

impl Undo {
    /// Writes it into a folder.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        fs::write(folder.join(FILE), text)
    }

    /// What is to be undone in a run's folder, in order.
    pub(in crate::backend) fn all(folder: &Path) -> Vec<Self> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut all: Vec<Self> = entries
            .filter_map(|entry| fs::read(entry.path().join(FILE)).ok())
            .filter_map(|text| serde_json::from_slice(&text).ok())
            .collect();
        all.sort_by_key(|undo| undo.last);
        all
    }
}

/// Removes a folder, after whatever is still mounted in it is unmounted: what
/// is mounted there is not the folder's to remove.
pub(in crate::backend) fn remove_folder(folder: &Path) -> io::Result<()> {
    for point in mounts_below(folder).iter().rev() {
        umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes what a system left for the run in this folder, and the folders
/// above it that are there for nothing else: those that repeat the path.
pub(in crate::backend) fn remove_leaf(leaf: &Path, folder: &Path) -> io::Result<()> {
    remove_folder(leaf)?;
    let text = leaf.to_string_lossy();
    let Some(kept) = text.strip_suffix(&*folder.to_string_lossy()) else { return Ok(()) };
    for above in leaf.ancestors().skip(1).take_while(|above| *above != Path::new(kept)) {
        // Another run has something there.
        if fs::remove_dir(above).is_err() {
            break;
        }
    }
    Ok(())
}

/// Mount points below a folder, outer ones first.
fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    // Only spaces and the like are written in octal, and no run's folder has
    // any but in the user's own part.
    points
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(folder))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_system_left_goes_with_the_path_that_it_repeats() {
        let place = tempfile::tempdir().expect("folder");
        let locks = place.path().join("locks");
        let folder = Path::new("/cache/instances/run-1");
        let leaf = locks.join("cache/instances/run-1");
        let other = locks.join("cache/instances/run-2");
        fs::create_dir_all(leaf.join("i1")).expect("made");
        fs::create_dir_all(&other).expect("made");
        remove_leaf(&leaf, folder).expect("removed");
        assert!(!leaf.exists() && other.exists());
        fs::remove_dir(&other).expect("removed");
        fs::create_dir_all(&leaf).expect("made");
        remove_leaf(&leaf, folder).expect("removed");
        assert!(locks.exists(), "what was there before the path stays");
        assert_eq!(fs::read_dir(&locks).expect("read").count(), 0);
        remove_leaf(&leaf, folder).expect("nothing to remove");
    }

    #[test]
    fn what_removes_instances_comes_before_what_removes_images() {
        let run = tempfile::tempdir().expect("folder");
        for (name, last) in [("a-state", true), ("i1", false), ("z-state", true), ("i2", false)] {
            let folder = run.path().join(name);
            fs::create_dir(&folder).expect("made");
            Undo { commands: vec![vec![name.to_owned()]], last, ..Undo::default() }
                .write(&folder)
                .expect("written");
        }
        fs::create_dir(run.path().join("half-made")).expect("made");
        let order: Vec<bool> = Undo::all(run.path()).iter().map(|undo| undo.last).collect();
        assert_eq!(order, [false, false, true, true]);
    }
}
