//! What the runtimes left on the host: everything they made carries the id of
//! this run.

use std::fs;
use std::path::{Path, PathBuf};

/// Control groups, mounts and state with this run's id.
pub fn find(run_id: &str, folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    cgroups(Path::new("/sys/fs/cgroup"), 6, run_id, &mut found);
    let folder = folder.display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let ours = |line: &&str| line.contains(run_id) || line.contains(&folder);
    found.extend(mounts.lines().filter(ours).map(|line| format!("mount {line}")));
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("state-") {
            let inside = fs::read_dir(entry.path()).into_iter().flatten().flatten();
            found.extend(
                inside
                    .map(|state| state.path())
                    .filter(|path| path.to_string_lossy().contains(run_id))
                    .map(|path| format!("state {}", path.display())),
            );
        }
    }
    found
}

fn cgroups(folder: &Path, depth: u32, run_id: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path: PathBuf = entry.path();
        if depth > 0 {
            cgroups(&path, depth - 1, run_id, found);
        }
        if entry.file_name().to_string_lossy().contains(run_id) {
            found.push(format!("cgroup {}", path.display()));
        }
    }
}

/// Removes control groups that were left; they are empty, or the kernel
/// keeps them. Everything else is in a folder that is removed as a whole.
pub fn remove(left: &[String]) {
    for path in left.iter().filter_map(|thing| thing.strip_prefix("cgroup ")) {
        let _ = fs::remove_dir(path);
    }
}
