//! Folders and records of the store, made and removed.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ImageError;
use super::error::file;

/// Makes a folder unless it is there, with a mode whatever the umask.
pub(super) fn make(path: &Path, mode: u32) -> Result<(), ImageError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        result => result.map_err(file("create", path))?,
    }
    fs::set_permissions(path, PermissionsExt::from_mode(mode))
        .map_err(file("set the mode of", path))
}

/// Reads a record, or nothing if there is none.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ImageError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file("read", path)(error)),
    };
    let parsed = serde_json::from_slice(&text);
    parsed.map(Some).map_err(|source| ImageError::Json { what: path.display().to_string(), source })
}

/// Writes a record whole or not at all, also if the host loses power.
pub(super) fn write_json<T: Serialize>(
    draft: &Path,
    path: &Path,
    record: &T,
) -> Result<(), ImageError> {
    let write = || -> io::Result<()> {
        let mut file = fs::File::create(draft)?;
        serde_json::to_writer_pretty(&mut file, record)?;
        file.sync_all()?;
        fs::rename(draft, path)
    };
    write().map_err(file("write", path))
}

/// Removes a folder with all that is in it, also where its modes forbid that.
pub(super) fn remove_tree(path: &Path) -> Result<(), ImageError> {
    let remove = || match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match remove() {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            open_up(path).and_then(|()| remove()).map_err(file("remove", path))
        }
        result => result.map_err(file("remove", path)),
    }
}

/// Gives the owner access to all folders. Only in the store, whose folder
/// nobody else can enter: paths do not change meanwhile.
fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, PermissionsExt::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}
