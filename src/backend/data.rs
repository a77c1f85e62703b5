//! The file that the workload `read` reads: made once for each size, the same
//! content wherever it is, and put into the root file systems of only those
//! cells that read it.

use std::fs::{self, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::assets::{AssetsError, failed};
use crate::payload::protocol::{FILE_PATH, page_word};
use crate::record::Workload;
use crate::units::MIB;

/// The file of a workload below the cache folder, if it reads one. It is made
/// beside and renamed, so that nobody ever reads half of it.
///
/// # Errors
/// When it cannot be written.
pub(super) fn file(cache: &Path, workload: Workload) -> Result<Option<PathBuf>, AssetsError> {
    let Workload::Read(mib) = workload else { return Ok(None) };
    let folder = cache.join("data");
    let path = folder.join(format!("read-{mib}"));
    let length = u64::from(mib) * MIB;
    if path.metadata().is_ok_and(|found| found.len() == length) {
        return Ok(Some(path));
    }
    fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
    let draft = tempfile::NamedTempFile::new_in(&folder).map_err(failed("create in", &folder))?;
    fill(draft.as_file(), length).map_err(failed("write", draft.path()))?;
    let file = draft.persist(&path).map_err(|error| failed("rename to", &path)(error.error))?;
    file.set_permissions(Permissions::from_mode(0o644))
        .map_err(failed("set the mode of", &path))?;
    Ok(Some(path))
}

/// Writes words of which none is zero and no two are alike, so that no file
/// system leaves a hole and nothing can merge pages.
fn fill(file: &fs::File, length: u64) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    for word in 0..length / 8 {
        out.write_all(&page_word(word).to_le_bytes())?;
    }
    out.flush()?;
    file.sync_all()
}

/// The name of something made from the payload and perhaps from such a file.
pub(super) fn name(stem: &str, data: Option<&Path>, suffix: &str) -> String {
    let data = data.and_then(Path::file_name).map(|name| format!("-{}", name.to_string_lossy()));
    format!("{stem}{}{suffix}", data.unwrap_or_default())
}

/// Flags that put the file into a guest's file system.
pub(super) fn flags(data: Option<&Path>) -> Vec<String> {
    data.map_or_else(Vec::new, |data| {
        vec!["--add".to_owned(), format!("{}:{FILE_PATH}", data.display())]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_made_once_and_holds_no_page_twice() {
        let cache = tempfile::tempdir().expect("folder");
        assert!(file(cache.path(), Workload::Touch(1)).expect("none").is_none());
        let path = file(cache.path(), Workload::Read(1)).expect("made").expect("a file");
        let bytes = fs::read(&path).expect("read");
        assert_eq!(bytes.len() as u64, MIB);
        assert_eq!(bytes[8 * 512..8 * 512 + 8], page_word(512).to_le_bytes());
        let pages: std::collections::HashSet<&[u8]> = bytes.chunks(4096).collect();
        assert_eq!(pages.len(), 256);
        let made = path.metadata().and_then(|found| found.modified()).expect("a time");
        file(cache.path(), Workload::Read(1)).expect("found");
        assert_eq!(path.metadata().and_then(|found| found.modified()).expect("a time"), made);
        fs::write(&path, b"torn").expect("damaged");
        file(cache.path(), Workload::Read(1)).expect("made again");
        assert_eq!(fs::read(&path).expect("read"), bytes);
        assert_eq!(name("root", Some(&path), ".ext4"), "root-read-1.ext4");
        assert_eq!(name("root", None, ".ext4"), "root.ext4");
    }
}
