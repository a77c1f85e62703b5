//! The cold cell: the files of an instance are taken out of the page cache
//! before it starts, and that they are out is checked.

use std::path::{Path, PathBuf};

use super::BackendError;
use crate::record::CellKey;
use crate::spec::param_value;
use crate::sys::cached::{let_go, pages};

/// Tries: pages that a processor has just taken up are let go the next time.
const TRIES: u32 = 3;

/// The files that have to be cold before each instance of a cell: these, or
/// none.
pub(super) fn cold_files(cell: &CellKey, files: &[&Path]) -> Vec<PathBuf> {
    match param_value(cell, "cache") {
        Some("cold") => files.iter().map(|file| (*file).to_owned()).collect(),
        _ => Vec::new(),
    }
}

/// Lets go of the cached pages of these files, and of nothing else on the
/// host, and checks that none is left.
///
/// # Errors
/// [`BackendError::Unmeasured`] when a page stays or nobody can tell.
pub fn make_cold(files: &[PathBuf]) -> Result<(), BackendError> {
    files.iter().try_for_each(|file| make_file_cold(file).map_err(BackendError::Unmeasured))
}

fn make_file_cold(file: &Path) -> Result<(), String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let mut left = 0;
    for _ in 0..TRIES {
        let_go(file).map_err(|error| format!("cannot let go of the pages of {name}: {error}"))?;
        let found =
            pages(file).map_err(|error| format!("cannot see the pages of {name}: {error}"))?;
        if found.cached == 0 {
            return Ok(());
        }
        left = found.cached;
    }
    Err(format!(
        "not cold: {left} pages of {name} stay in memory, or this user may not see them: a process \
         has them mapped, or the file is another user's, or its file system is in memory"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_is_not_called_cold() {
        let own = std::env::current_exe().expect("own file");
        match make_cold(&[own]) {
            Err(BackendError::Unmeasured(reason)) => {
                assert!(reason.contains("not cold"), "{reason}")
            }
            other => panic!("a running program is mapped: {other:?}"),
        }
        assert!(make_cold(&[]).is_ok());
        assert!(make_cold(&[PathBuf::from("/no/such/file")]).is_err());
    }
}
