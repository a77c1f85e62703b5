//! Reading and writing the kernel's small files, with errors that name the
//! file and the value.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use nix::unistd::Pid;

use super::CgroupError;

/// Content of a file.
pub(super) fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })
}

/// Content of a file with one number.
pub(super) fn read_number(path: &Path) -> Result<u64, CgroupError> {
    let text = read(path)?;
    text.trim().parse().map_err(|_| CgroupError::Content {
        path: path.to_owned(),
        content: text.trim().to_owned(),
    })
}

/// The value of `key` in a file of lines `key value`.
pub(super) fn read_key(path: &Path, key: &str) -> Result<Option<u64>, CgroupError> {
    let text = read(path)?;
    find_key(&text, key)
        .map(|value| {
            value.parse().map_err(|_| CgroupError::Content {
                path: path.to_owned(),
                content: format!("{key} {value}"),
            })
        })
        .transpose()
}

/// The text behind `key ` in a file of lines `key value`.
pub(super) fn find_key<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(str::trim)
}

/// Writes a value in one call, to a file that exists.
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Writes a value, with an error that says what for.
pub(super) fn set(purpose: &'static str, path: &Path, value: &str) -> Result<(), CgroupError> {
    write(path, value).map_err(|source| CgroupError::Write {
        purpose,
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// Gives a new cgroup of version 1 the CPUs and memory nodes of the one
/// above: without any it takes no process (cpuset(7)).
pub(super) fn inherit_cpuset(folder: &Path) -> Result<(), CgroupError> {
    let above = folder.parent().unwrap_or(folder);
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if read(&folder.join(name))?.trim().is_empty() {
            set("cpuset", &folder.join(name), read(&above.join(name))?.trim())?;
        }
    }
    Ok(())
}

/// Processes of one cgroup, without those of cgroups below it.
pub(super) fn processes(folder: &Path) -> Result<Vec<Pid>, CgroupError> {
    let path = folder.join("cgroup.procs");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        // Removed meanwhile: nobody is in it.
        Err(error) if gone(&error) => return Ok(Vec::new()),
        Err(source) => return Err(CgroupError::Read { path, source }),
    };
    text.lines()
        .map(|line| match line.parse() {
            Ok(pid) => Ok(Pid::from_raw(pid)),
            Err(_) => Err(CgroupError::Content { path: path.clone(), content: line.to_owned() }),
        })
        .collect()
}

/// Pids for a message.
pub(super) fn list(pids: &[Pid]) -> String {
    if pids.is_empty() {
        return "none".to_owned();
    }
    pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Whether an error says that the cgroup no longer exists: its folder is
/// missing, or (`ENODEV`) was removed after its file was opened.
pub(super) fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32)
}
