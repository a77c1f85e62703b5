//! The smallest root filesystem: one program and empty mount points.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Where the program is inside.
pub const PAYLOAD_PATH: &str = "/unladen-payload";

/// Mount points for what a container mounts.
const FOLDERS: [&str; 4] = ["proc", "sys", "dev", "tmp"];

/// Why a root filesystem could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// The program could not be read.
    #[error("cannot read the payload {}", path.display())]
    Payload {
        /// Its path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Something could not be written.
    #[error("cannot make the root filesystem {}", path.display())]
    Make {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Makes a root filesystem with this program in a folder below `cache`, which
/// is made too if need be, and returns the folder. It is named by the
/// program's hash; one that is there already is used again. Made beside and
/// renamed, so that nobody ever sees half of it.
///
/// # Errors
///
/// When the program cannot be read or the cache cannot be written to.
pub fn minimal_rootfs(cache: &Path, payload: &Path) -> Result<PathBuf, RootfsError> {
    made(cache, payload, None)
}

/// The same with the file `data` at the absolute path `inside`. Where the file
/// system can, it is a second name of that very file, so that all who read it
/// read one file. The folder is named by the program's hash and by the name of
/// `data`, whose content must belong to its name and length.
///
/// # Errors
///
/// When a file cannot be read or the cache cannot be written to.
pub fn rootfs_with(
    cache: &Path,
    payload: &Path,
    data: &Path,
    inside: &str,
) -> Result<PathBuf, RootfsError> {
    let inside = inside.trim_start_matches('/');
    made(cache, payload, Some(Extra { data, inside }))
}

/// A file beside the program.
#[derive(Clone, Copy)]
struct Extra<'a> {
    data: &'a Path,
    /// Its path, relative to the root.
    inside: &'a str,
}

fn made(cache: &Path, payload: &Path, extra: Option<Extra<'_>>) -> Result<PathBuf, RootfsError> {
    let program = fs::read(payload)
        .map_err(|source| RootfsError::Payload { path: payload.to_owned(), source })?;
    let digest: String =
        Sha256::digest(&program)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let suffix = extra.and_then(|extra| extra.data.file_name());
    let suffix = suffix.map(|name| format!("-{}", name.to_string_lossy())).unwrap_or_default();
    let rootfs = cache.join(format!("rootfs-{digest}{suffix}"));
    let make = |path: &Path, source| RootfsError::Make { path: path.to_owned(), source };
    if is_complete(&rootfs, &program, extra) {
        return Ok(rootfs);
    }
    fs::create_dir_all(cache).map_err(|source| make(cache, source))?;
    let draft = tempfile::Builder::new()
        .prefix(".rootfs-")
        .tempdir_in(cache)
        .map_err(|source| make(cache, source))?;
    fill(draft.path(), &program, extra).map_err(|source| make(draft.path(), source))?;
    match fs::rename(draft.path(), &rootfs) {
        Ok(()) => {
            // Renamed away: there is nothing left to remove.
            let _ = draft.keep();
            Ok(rootfs)
        }
        // Somebody else was faster.
        Err(_) if is_complete(&rootfs, &program, extra) => Ok(rootfs),
        Err(source) => Err(make(&rootfs, source)),
    }
}

/// Whether a folder holds this program, all mount points and what is beside
/// them.
fn is_complete(rootfs: &Path, program: &[u8], extra: Option<Extra<'_>>) -> bool {
    let length = |path: &Path| path.metadata().map(|found| found.len()).ok();
    let is_there = |extra: Extra<'_>| {
        let there = length(&rootfs.join(extra.inside));
        there.is_some() && there == length(extra.data)
    };
    extra.is_none_or(is_there)
        && fs::read(rootfs.join("unladen-payload")).is_ok_and(|content| content == program)
        && FOLDERS.iter().all(|folder| rootfs.join(folder).is_dir())
}

/// Writes the content, with modes that do not depend on the umask: an
/// unprivileged user of the container must be able to pass.
fn fill(folder: &Path, program: &[u8], extra: Option<Extra<'_>>) -> io::Result<()> {
    let readable = || Permissions::from_mode(0o755);
    for name in FOLDERS {
        fs::create_dir(folder.join(name))?;
        fs::set_permissions(folder.join(name), readable())?;
    }
    let file = folder.join("unladen-payload");
    fs::write(&file, program)?;
    fs::set_permissions(&file, readable())?;
    if let Some(Extra { data, inside }) = extra {
        let place = folder.join(inside);
        fs::hard_link(data, &place).or_else(|_| fs::copy(data, &place).map(drop))?;
    }
    fs::set_permissions(folder, readable())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_program_gives_the_same_folder_once() {
        let folder = tempfile::tempdir().expect("folder");
        let payload = folder.path().join("payload");
        fs::write(&payload, b"program").expect("written");
        let cache = folder.path().join("deep/cache");
        let first = minimal_rootfs(&cache, &payload).expect("made");
        let second = minimal_rootfs(&cache, &payload).expect("found");
        assert_eq!(first, second);
        assert_eq!(fs::read_dir(&cache).expect("cache").count(), 1);
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&first), 0o755);
        assert_eq!(mode(&first.join("unladen-payload")), 0o755);
        fs::write(&payload, b"another").expect("written");
        assert_ne!(minimal_rootfs(&cache, &payload).expect("made"), first);
    }

    #[test]
    fn a_file_beside_the_program_is_the_very_same_file() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().expect("folder");
        let (payload, data) = (folder.path().join("payload"), folder.path().join("read-1"));
        fs::write(&payload, b"program").expect("written");
        fs::write(&data, b"content").expect("written");
        let plain = minimal_rootfs(folder.path(), &payload).expect("made");
        let with = rootfs_with(folder.path(), &payload, &data, "/data").expect("made");
        assert_ne!(with, plain);
        assert!(!plain.join("data").exists(), "others do not grow");
        let inode = |path: &Path| path.metadata().expect("there").ino();
        assert_eq!(inode(&with.join("data")), inode(&data));
        assert_eq!(rootfs_with(folder.path(), &payload, &data, "/data").expect("found"), with);
    }

    #[test]
    fn a_damaged_folder_is_an_error_and_not_used() {
        let folder = tempfile::tempdir().expect("folder");
        let payload = folder.path().join("payload");
        fs::write(&payload, b"program").expect("written");
        let rootfs = minimal_rootfs(folder.path(), &payload).expect("made");
        fs::write(rootfs.join("unladen-payload"), b"changed").expect("written");
        let error = minimal_rootfs(folder.path(), &payload).expect_err("refused");
        assert!(error.to_string().contains("rootfs-"), "{error}");
    }
}
