//! The page of a run, its figures as files, and a table for the terminal.
//!
//! Everything here is derived from a manifest and its samples: it may be
//! deleted and made again. Files are replaced whole or not at all.

mod density;
mod headline;
mod overview;
mod page;
mod sharing;
mod table;

#[cfg(test)]
mod tests;

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::chart::{ChartError, figures};
use crate::record::{Manifest, Sample};
use crate::stats::{StatsError, Summary};

pub use headline::headline;
pub use table::{
    arms_table, changes_table, missing_lines, remark_lines, slopes_table, terminal_table,
};

/// What [`write_run_folder`] made.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the run says.
    pub summary: Summary,
    /// The page.
    pub page: PathBuf,
}

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A folder of the report.
    #[error("cannot make the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of the report.
    #[error("cannot write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The summary.
    #[error("cannot write the summary of run {run_id}")]
    Summary {
        /// The run.
        run_id: String,
        /// Why.
        #[source]
        source: StatsError,
    },
    /// A figure.
    #[error("cannot draw the figures of run {run_id}")]
    Figure {
        /// The run.
        run_id: String,
        /// Why.
        #[source]
        source: ChartError,
    },
    /// The page.
    #[error("cannot fill in the page of run {run_id}")]
    Page {
        /// The run.
        run_id: String,
        /// Why.
        #[source]
        source: minijinja::Error,
    },
}

/// Writes the summary into a run's own folder `dir`, and its page and figures
/// into `dir/report`; see [`write_report`].
///
/// # Errors
/// Those of [`write_report`].
pub fn write_run_folder(
    dir: &Path,
    manifest: &Manifest,
    samples: &[Sample],
) -> Result<Report, ReportError> {
    write_report(dir, &dir.join("report"), manifest, samples)
}

/// Writes `summary.json` and `summary.csv` into `data`, and `index.html` and
/// `figures/*.svg` and `*.png` into `pages`; both are made if need be. Safe to
/// repeat: each file is written beside its place and then renamed.
///
/// # Errors
/// When a summary, a figure or the page cannot be made, or a file or folder
/// cannot be written.
pub fn write_report(
    data: &Path,
    pages: &Path,
    manifest: &Manifest,
    samples: &[Sample],
) -> Result<Report, ReportError> {
    let run_id = || manifest.run_id.clone();
    let summary = Summary::build(manifest, samples);
    let in_summary = |source| ReportError::Summary { run_id: run_id(), source };
    let csv = summary.to_csv().map_err(in_summary)?;
    let json = summary.to_json().map_err(in_summary)?;
    let figures = figures(manifest, &summary, samples)
        .map_err(|source| ReportError::Figure { run_id: run_id(), source })?;
    let html = page::render(manifest, &summary, &figures)
        .map_err(|source| ReportError::Page { run_id: run_id(), source })?;

    let folder = pages.join("figures");
    for folder in [data, &folder] {
        fs::create_dir_all(folder)
            .map_err(|source| ReportError::Folder { path: folder.to_owned(), source })?;
    }
    write(&data.join("summary.csv"), csv.as_bytes())?;
    write(&data.join("summary.json"), json.as_bytes())?;
    for figure in &figures {
        write(&folder.join(format!("{}.svg", figure.id)), figure.svg.as_bytes())?;
        write(&folder.join(format!("{}.png", figure.id)), &figure.png)?;
    }
    // The page comes last: where it is, everything it speaks of is.
    let page = pages.join("index.html");
    write(&page, html.as_bytes())?;
    Ok(Report { summary, page })
}

/// Replaces a file as a whole.
fn write(path: &Path, content: &[u8]) -> Result<(), ReportError> {
    let error = |source| ReportError::File { path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".unladen-")
        // As any other new file; the process's umask takes from it.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(error)?;
    file.write_all(content).map_err(error)?;
    file.persist(path).map_err(|failed| error(failed.error))?;
    Ok(())
}
