//! Writing a run's folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::record::{CellKey, Manifest, Sample};

use super::error::StoreError;
use super::read::{RunData, header, parse, read_manifest};
use super::{MANIFEST_FILE, PARTIAL_FILE, SAMPLES_FILE, row};

/// The one writer of a run's folder; it holds a lock on `samples.csv` as long
/// as it lives.
#[derive(Debug)]
pub struct RunWriter {
    dir: PathBuf,
    run_id: String,
    cells: BTreeMap<CellKey, usize>,
    samples: Flock<File>,
    /// Length of what is stored for good, in bytes.
    len: u64,
    /// Steps of the ladder that is being climbed.
    partial: Vec<Sample>,
}

/// A run that is being continued.
#[derive(Debug)]
pub struct Resumed {
    /// Its writer.
    pub writer: RunWriter,
    /// What it has so far; `torn` says whether a trial that was cut short has
    /// been removed from the file.
    pub data: RunData,
    /// Round and cell (by index in the manifest) of all finished trials,
    /// whatever their outcome; round 0 for cells that are recorded as skipped.
    pub done: BTreeSet<(u32, usize)>,
}

impl RunWriter {
    /// Makes the folder of a run, or finds that it is empty: asked before
    /// anything that takes time.
    ///
    /// # Errors
    ///
    /// When the folder holds anything or cannot be made.
    pub fn make_folder(dir: &Path) -> Result<(), StoreError> {
        fs::create_dir_all(dir).map_err(StoreError::io("create", dir))?;
        let mut entries = fs::read_dir(dir).map_err(StoreError::io("read", dir))?;
        match entries.next() {
            None => Ok(()),
            Some(_) => Err(StoreError::NotEmpty { dir: dir.to_owned() }),
        }
    }

    /// Begins a run in a folder that is absent or empty.
    ///
    /// # Errors
    ///
    /// When the folder holds anything, another harness writes to it, or it
    /// cannot be written.
    pub fn create(dir: &Path, manifest: &Manifest) -> Result<Self, StoreError> {
        Self::make_folder(dir)?;
        let path = dir.join(SAMPLES_FILE);
        let samples = OpenOptions::new().append(true).create_new(true).open(&path);
        let samples = match samples {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StoreError::Busy { dir: dir.to_owned() });
            }
            other => other.map_err(StoreError::io("create", &path))?,
        };
        let mut writer = Self::new(dir, manifest, samples, 0)?;
        let begun =
            writer.append(header().as_bytes()).and_then(|()| writer.write_manifest(manifest));
        if begun.is_err() {
            // Else a second try would find the folder in use.
            let _ = fs::remove_file(&path);
        }
        begun.map(|()| writer)
    }

    /// Continues a run: reads what it has, and removes a trial that was cut
    /// short from the end of the file.
    ///
    /// # Errors
    ///
    /// When there is no run, it is damaged otherwise, another harness writes
    /// to it, or it cannot be written.
    pub fn resume(dir: &Path) -> Result<Resumed, StoreError> {
        let manifest = read_manifest(dir)?;
        let path = dir.join(SAMPLES_FILE);
        let file = OpenOptions::new().read(true).append(true).open(&path);
        let file = file.map_err(StoreError::io("open", &path))?;
        let mut writer = Self::new(dir, &manifest, file, 0)?;
        let mut bytes = Vec::new();
        writer.samples.read_to_end(&mut bytes).map_err(StoreError::io("read", &path))?;
        let parsed = parse(path.clone(), &bytes, &manifest)?;
        writer.len = parsed.keep;
        if parsed.torn {
            writer.samples.set_len(parsed.keep).map_err(StoreError::io("shorten", &path))?;
        }
        if parsed.keep == 0 {
            writer.append(header().as_bytes())?;
        }
        let data = RunData { manifest, samples: parsed.samples, torn: parsed.torn };
        Ok(Resumed { writer, data, done: parsed.done })
    }

    pub(super) fn new(
        dir: &Path,
        manifest: &Manifest,
        samples: File,
        len: u64,
    ) -> Result<Self, StoreError> {
        let samples = Flock::lock(samples, FlockArg::LockExclusiveNonblock).map_err(
            |(_, errno)| match errno {
                Errno::EWOULDBLOCK => StoreError::Busy { dir: dir.to_owned() },
                _ => StoreError::io("lock", dir.join(SAMPLES_FILE))(errno.into()),
            },
        )?;
        let cells = manifest.cells.iter().enumerate();
        let cells = cells.map(|(index, fact)| (fact.cell.clone(), index)).collect();
        Ok(Self {
            dir: dir.to_owned(),
            run_id: manifest.run_id.clone(),
            cells,
            samples,
            len,
            partial: Vec::new(),
        })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Appends all samples of one trial, and returns when they are on the
    /// disk. After an error the file is as it was before.
    ///
    /// # Errors
    ///
    /// When the samples are not those of one trial of a cell of the run, or a
    /// value is missing where it must not be or is not a finite number; when
    /// the file cannot be written, as on a full disk.
    pub fn append_trial(&mut self, samples: &[Sample]) -> Result<(), StoreError> {
        let bad = |cell: String, problem: String| StoreError::BadSample { cell, problem };
        let Some(first) = samples.first() else {
            return Err(bad("?".to_owned(), "it has no samples".to_owned()));
        };
        if !self.cells.contains_key(&first.cell) {
            return Err(bad(first.cell.to_string(), "it is not in the manifest".to_owned()));
        }
        let mut text = Vec::new();
        for sample in samples {
            let trial = |sample: &Sample| (sample.round, sample.trial);
            if trial(sample) != trial(first) || sample.cell != first.cell {
                let problem = "its samples are of more than one trial".to_owned();
                return Err(bad(sample.cell.to_string(), problem));
            }
            row::write(&mut text, &self.run_id, samples.len(), sample).map_err(|fault| {
                let column = fault.column.unwrap_or("row");
                bad(sample.cell.to_string(), format!("{column}: {}", fault.problem))
            })?;
        }
        self.append(&text)?;
        self.partial.clear();
        match fs::remove_file(self.dir.join(PARTIAL_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", self.dir.join(PARTIAL_FILE))(error))
            }
            _ => Ok(()),
        }
    }

    /// Keeps samples of a trial that goes on, beside all that were kept of it
    /// before, so that a harness that is killed leaves them.
    ///
    /// # Errors
    ///
    /// When they are no samples of this run, or the file cannot be written.
    pub fn keep_partial(&mut self, samples: &[Sample]) -> Result<(), StoreError> {
        self.partial.extend_from_slice(samples);
        let mut text = header().into_bytes();
        for sample in &self.partial {
            let rows = self.partial.len();
            row::write(&mut text, &self.run_id, rows, sample).map_err(|fault| {
                StoreError::BadSample { cell: sample.cell.to_string(), problem: fault.problem }
            })?;
        }
        self.replace(PARTIAL_FILE, &text)
    }

    /// One write and one sync; undone when either fails.
    fn append(&mut self, text: &[u8]) -> Result<(), StoreError> {
        let result = self.samples.write_all(text).and_then(|()| self.samples.sync_data());
        if result.is_err() {
            // If this fails too, the reader recognises the cut by itself.
            let _ = self.samples.set_len(self.len);
        } else {
            self.len += text.len() as u64;
        }
        result.map_err(StoreError::io("append to", self.dir.join(SAMPLES_FILE)))
    }

    /// Replaces the manifest as a whole: at every moment the folder holds the
    /// old or the new one.
    ///
    /// # Errors
    ///
    /// When it cannot be written; the old one is then still there.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<(), StoreError> {
        let path = self.dir.join(MANIFEST_FILE);
        let mut text = serde_json::to_vec_pretty(manifest)
            .map_err(|source| StoreError::Manifest { path, source })?;
        text.push(b'\n');
        self.replace(MANIFEST_FILE, &text)
    }

    /// Replaces a file as a whole.
    fn replace(&self, name: &str, text: &[u8]) -> Result<(), StoreError> {
        let path = self.dir.join(name);
        let replace = || -> io::Result<()> {
            let mut file = tempfile::Builder::new()
                .prefix(".new")
                .permissions(readable_by_all())
                .tempfile_in(&self.dir)?;
            file.write_all(text)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            // The rename itself must survive a power cut.
            File::open(&self.dir)?.sync_all()
        };
        replace().map_err(StoreError::io("write", &path))
    }
}

/// Results are for everyone; temporary files otherwise are private.
fn readable_by_all() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}
