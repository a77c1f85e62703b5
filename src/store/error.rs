//! What can go wrong with a run's folder.

use std::io;
use std::path::PathBuf;

use crate::record::SCHEMA_VERSION;

/// Why a run could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The output folder holds something already.
    #[error(
        "cannot begin a run in {0}: the folder is not empty; continue the run in it with \
         --resume {0}, or choose another folder with --out", dir.display()
    )]
    NotEmpty {
        /// The folder.
        dir: PathBuf,
    },
    /// Another harness is writing.
    #[error("cannot write to {}: another unladen is writing to it; wait for its end, or choose another folder with --out", dir.display())]
    Busy {
        /// The folder.
        dir: PathBuf,
    },
    /// A file or folder operation failed.
    #[error("cannot {operation} {}{}", path.display(), hint(operation, source))]
    Io {
        /// What was tried: `read`, `create`, `append to`.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The folder has no manifest.
    #[error("{} holds no run: it has no manifest.json", dir.display())]
    NoRun {
        /// The folder.
        dir: PathBuf,
    },
    /// Written by a version with other file formats.
    #[error("cannot read {}: it has schema {found}, and this version of unladen reads schema {SCHEMA_VERSION}", path.display())]
    Schema {
        /// The manifest.
        path: PathBuf,
        /// The schema that it names.
        found: u64,
    },
    /// The manifest is damaged.
    #[error("cannot read {}: it is damaged, or not a manifest", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// The samples are damaged, other than by a cut at the end.
    #[error("cannot read {}: line {line}{}: {problem}", path.display(), in_column(*column))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Name of the column, where it is one column's fault.
        column: Option<&'static str>,
        /// What is wrong.
        problem: String,
    },
    /// The harness handed over something that must not be stored.
    #[error("cannot store a trial of `{cell}`: {problem}")]
    BadSample {
        /// The cell.
        cell: String,
        /// What is wrong.
        problem: String,
    },
}

impl StoreError {
    /// Whether the user named something that cannot be used, rather than
    /// this host or program having failed.
    #[must_use]
    pub fn is_input(&self) -> bool {
        !matches!(self, Self::Io { .. } | Self::BadSample { .. })
    }

    pub(super) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }
}

fn in_column(column: Option<&str>) -> String {
    column.map_or_else(String::new, |name| format!(", column {name}"))
}

/// What a person can do about the usual causes.
fn hint(operation: &str, source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": the disk is full; what was measured before is kept, so free some space \
             and continue with --resume"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
            if operation == "create" =>
        {
            ": choose a folder that you may write to with --out"
        }
        _ => "",
    }
}
