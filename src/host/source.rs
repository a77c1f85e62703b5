//! Reading small kernel files below a root folder.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use procfs::FromBufRead;

/// A folder that holds `proc`, `sys`, `etc` and `dev`: `/`, or a test's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root<'a>(pub &'a Path);

impl Root<'_> {
    /// A path below the root; `path` may be absolute.
    pub fn path(self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A file's text without the white space around it, or why there is none.
    pub fn text(self, path: impl AsRef<Path>) -> Result<String, String> {
        let path = path.as_ref();
        fs::read(self.path(path))
            .map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
            .map_err(|error| reason(path, &error))
    }

    /// A file parsed by the procfs crate.
    pub fn parsed<T: FromBufRead>(self, path: impl AsRef<Path>) -> Result<T, String> {
        let path = path.as_ref();
        let bytes = fs::read(self.path(path)).map_err(|error| reason(path, &error))?;
        T::from_buf_read(bytes.as_slice()).map_err(|error| format!("{}: {error}", shown(path)))
    }

    /// A file that holds one whole number.
    pub fn number(self, path: impl AsRef<Path>) -> Result<u64, String> {
        let path = path.as_ref();
        let text = self.text(path)?;
        text.parse().map_err(|_| format!("{} holds `{text}`, not a number", shown(path)))
    }

    /// Names in a folder, sorted.
    pub fn names(self, path: impl AsRef<Path>) -> Result<Vec<String>, String> {
        let path = path.as_ref();
        let entries = fs::read_dir(self.path(path)).map_err(|error| reason(path, &error))?;
        let mut names: Vec<String> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        Ok(names)
    }
}

/// The path as the kernel has it, whatever the root is.
fn shown(path: &Path) -> String {
    Path::new("/").join(path).display().to_string()
}

fn reason(path: &Path, error: &io::Error) -> String {
    let path = shown(path);
    match error.kind() {
        ErrorKind::NotFound => format!("{path} does not exist"),
        ErrorKind::PermissionDenied => format!("{path} may not be read by this user"),
        _ => format!("{path}: {error}"),
    }
}
