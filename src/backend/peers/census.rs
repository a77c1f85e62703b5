//! Which processes exist because of an instance of somebody else's system:
//! those in its control groups, those whose command line names it (shims,
//! monitors, sandboxes), and their children.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A process as the census sees it.
struct Seen {
    parent: i32,
    named: bool,
}

/// The living processes of an instance: everybody in these folders of control
/// groups and below, everybody with one of these words in an argument, and
/// whoever descends from them. Ended processes that nobody has reaped are not
/// among them.
#[must_use]
pub fn census(words: &[String], folders: &[PathBuf]) -> Vec<i32> {
    let mut found = BTreeSet::new();
    folders.iter().for_each(|folder| collect(folder, &mut found));
    let all = processes(words);
    found.extend(all.iter().filter(|(_, seen)| seen.named).map(|(pid, _)| *pid));
    close(&mut found, &all);
    // Those that ended are of no interest, and neither are we ourselves.
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    found.into_iter().filter(|pid| *pid != own && all.contains_key(pid)).collect()
}

/// The processes with these numbers that live, and whoever descends from
/// them.
#[must_use]
pub fn descendants(roots: &[i32]) -> Vec<i32> {
    let all = processes(&[]);
    let mut found: BTreeSet<i32> = roots.iter().copied().collect();
    close(&mut found, &all);
    found.into_iter().filter(|pid| all.contains_key(pid)).collect()
}

/// Adds the children of all that are in, until nobody is missing.
fn close(found: &mut BTreeSet<i32>, all: &BTreeMap<i32, Seen>) {
    loop {
        let before = found.len();
        for (pid, seen) in all {
            if found.contains(&seen.parent) {
                found.insert(*pid);
            }
        }
        if found.len() == before {
            return;
        }
    }
}

/// All living processes of the host.
fn processes(words: &[String]) -> BTreeMap<i32, Seen> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let one = |entry: fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // Behind the name, which may hold anything: state and parent.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let named = !words.is_empty() && is_named(&entry.path(), words);
        (!matches!(state, "Z" | "X")).then_some((pid, Seen { parent, named }))
    };
    entries.filter_map(one).collect()
}

fn is_named(process: &Path, words: &[String]) -> bool {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line);
    words.iter().any(|word| line.contains(word.as_str()))
}

/// Adds everybody in a folder of control groups and below.
fn collect(folder: &Path, found: &mut BTreeSet<i32>) {
    // A folder that is gone has nobody in it.
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
    }
}

/// The tops of all mounted hierarchies of control groups.
#[must_use]
pub fn cgroup_tops() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let top = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        filesystem.starts_with("cgroup").then(|| PathBuf::from(point))
    };
    text.lines().filter_map(top).collect()
}

/// Folders of control groups that systems made for an instance: below the
/// run's, wherever that is in a hierarchy's top, with one of its words in
/// their names.
#[must_use]
pub fn cgroups_of(tops: &[PathBuf], run_id: &str, words: &[String]) -> Vec<PathBuf> {
    let below = |top: &PathBuf| fs::read_dir(top.join(format!("unladen-{run_id}"))).ok();
    let entries = tops.iter().filter_map(below).flatten().flatten();
    let ours = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        words.iter().any(|word| name.contains(word.as_str()))
    };
    let mut found: Vec<PathBuf> = entries.filter(ours).map(|entry| entry.path()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_found_by_a_word_and_its_child_with_it() {
        let word = format!("unladen-census-{}", std::process::id());
        // The shell's word names it; its child has another command line.
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 600 & echo $!; wait", &word])
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        let mut line = String::new();
        let mut out = std::io::BufReader::new(shell.stdout.take().expect("stdout"));
        std::io::BufRead::read_line(&mut out, &mut line).expect("the child's number");
        let child: i32 = line.trim().parse().expect("a number");
        let found = census(std::slice::from_ref(&word), &[]);
        let parent = i32::try_from(shell.id()).expect("a number");
        assert_eq!(found.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from([parent, child]));
        let sleep = crate::sys::pidfd::PidFd::open(nix::unistd::Pid::from_raw(child));
        sleep.expect("there").kill(nix::sys::signal::Signal::SIGKILL).expect("killed");
        shell.wait().expect("ended");
        assert!(census(&[word], &[]).is_empty());
    }

    #[test]
    fn this_host_has_hierarchies_or_none_at_all() {
        assert!(cgroup_tops().iter().all(|top| top.join("cgroup.procs").exists()));
        assert!(cgroups_of(&cgroup_tops(), "00000000-000000-000000", &["x".to_owned()]).is_empty());
    }
}
