//! Users and groups by name, as the container's own files have them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Whom a command runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home folder, if the container's files have one.
    pub home: Option<String>,
}

/// Why a user is not known.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// A user that is not a number and has no line.
    #[error("there is no user `{name}` in the container's /etc/passwd; a number works without it")]
    User {
        /// The name.
        name: String,
    },
    /// A group that is not a number and has no line.
    #[error("there is no group `{name}` in the container's /etc/group; a number works without it")]
    Group {
        /// The name.
        name: String,
    },
    /// A file that exists and cannot be read.
    #[error("cannot read {} of the container", path.display())]
    Read {
        /// The file, as the container sees it.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// No such file is longer; more would be an attack on our memory.
const LONGEST: u64 = 16 << 20;

/// Finds a user, see [`identify`], whose names are looked up in `/etc/passwd`
/// and `/etc/group` below `rootfs`; no link in there can lead out of it.
///
/// # Errors
///
/// For a name that is not found, and for files that cannot be read.
pub fn find_user(rootfs: &Path, text: &str) -> Result<Identity, UserError> {
    let passwd = read_inside(rootfs, "etc/passwd")?;
    identify(text, &passwd, &read_inside(rootfs, "etc/group")?)
}

/// Finds a user written as `UID[:GID]` or `NAME[:GROUP]` in any mixture, given
/// the content of `/etc/passwd` and `/etc/group`.
///
/// Without a group it is the one in `/etc/passwd`, or 0. Supplementary
/// groups are those of the user's name, if no group was given.
///
/// # Errors
///
/// For a name that is not found.
pub fn identify(text: &str, passwd: &str, groups: &str) -> Result<Identity, UserError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let number = id(user);
    let line = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        let uid = fields.get(2).and_then(|field| id(field));
        fields[0] == user || (number.is_some() && uid == number)
    });
    let field = |at: usize| line.as_ref().and_then(|fields| fields.get(at).copied());
    let uid = number
        .or_else(|| field(2).and_then(id))
        .ok_or_else(|| UserError::User { name: user.to_owned() })?;
    let home = field(5).filter(|home| !home.is_empty()).map(str::to_owned);
    if let Some(gid) = group.and_then(id) {
        return Ok(Identity { uid, gid, groups: Vec::new(), home });
    }
    let mut lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    if let Some(group) = group {
        let found = lines.find(|fields| fields[0] == group);
        let gid = found.and_then(|fields| fields.get(2).and_then(|field| id(field)));
        let gid = gid.ok_or_else(|| UserError::Group { name: group.to_owned() })?;
        return Ok(Identity { uid, gid, groups: Vec::new(), home });
    }
    let gid = field(3).and_then(id).unwrap_or(0);
    let name = field(0).unwrap_or(user);
    let member = |fields: &Vec<&str>| {
        fields.get(3).is_some_and(|members| members.split(',').any(|member| member == name))
    };
    let mut groups: Vec<u32> = lines
        .filter(member)
        .filter_map(|fields| fields.get(2).and_then(|field| id(field)))
        .filter(|other| *other != gid)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    Ok(Identity { uid, gid, groups, home })
}

/// A number that can be an id; the highest means "none" to the kernel.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

/// A file of the container; empty when it has none.
fn read_inside(rootfs: &Path, path: &str) -> Result<String, UserError> {
    let error = |source: io::Error| UserError::Read { path: Path::new("/").join(path), source };
    let folder = File::open(rootfs).map_err(error)?;
    // Not blocked by a pipe that pretends to be the file.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(&folder, path, how) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(String::new()),
        Err(source) => return Err(error(source.into())),
    };
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).map_err(error)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn rootfs() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("etc")).expect("made");
        fs::write(
            folder.path().join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nworker:x:1000:1001:Worker:/home/worker:/bin/sh\nbroken\n",
        )
        .expect("written");
        fs::write(
            folder.path().join("etc/group"),
            "root:x:0:\nteam:x:50:worker,other\nmore:x:51:worker\nsame:x:1001:worker\n",
        )
        .expect("written");
        folder
    }

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let folder = rootfs();
        let find = |text| find_user(folder.path(), text).expect("found");
        let worker = find("worker");
        assert_eq!((worker.uid, worker.gid, worker.groups), (1000, 1001, vec![50, 51]));
        assert_eq!(worker.home.as_deref(), Some("/home/worker"));
        assert_eq!(find("1000"), find("worker"));
        let mixed = find("worker:team");
        assert_eq!((mixed.uid, mixed.gid, mixed.groups), (1000, 50, vec![]));
        let plain = find("7:8");
        assert_eq!((plain.uid, plain.gid, plain.groups, plain.home), (7, 8, vec![], None));
        assert_eq!((find("7").uid, find("7").gid), (7, 0));
    }

    #[test]
    fn who_is_not_there_is_named() {
        let folder = rootfs();
        for (text, name) in
            [("nobody", "user `nobody`"), ("1:none", "group `none`"), ("", "user ``"), ("-1", "-1")]
        {
            let error = find_user(folder.path(), text).expect_err("unknown").to_string();
            assert!(error.contains(name), "{text}: {error}");
        }
        assert!(find_user(folder.path(), "4294967295").is_err());
    }

    #[test]
    fn a_link_does_not_lead_out() {
        let folder = rootfs();
        let passwd = folder.path().join("etc/passwd");
        fs::remove_file(&passwd).expect("removed");
        symlink("/../../../../etc/passwd", &passwd).expect("linked");
        // It leads to itself inside.
        assert!(find_user(folder.path(), "root").is_err());
        fs::remove_file(&passwd).expect("removed");
        assert_eq!(find_user(folder.path(), "3").expect("a number").uid, 3);
    }
}
