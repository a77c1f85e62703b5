//! Reading a run's folder back.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::record::{CellKey, Manifest, SCHEMA_VERSION, Sample};

use super::error::StoreError;
use super::row::{COLUMNS, Fault, Row};
use super::{MANIFEST_FILE, PARTIAL_FILE, SAMPLES_FILE};

/// A run as it was stored.
#[derive(Clone, Debug, PartialEq)]
pub struct RunData {
    /// The manifest.
    pub manifest: Manifest,
    /// The samples of all finished trials, in the order of the file, and the
    /// steps of a ladder that did not come to its end.
    pub samples: Vec<Sample>,
    /// Whether the file ended in a trial that was cut short; it is not among
    /// the samples.
    pub torn: bool,
}

/// Reads a run's folder. Works while a run is being written, and on a copy.
///
/// # Errors
///
/// When there is no run, a file cannot be read, has another schema, or is
/// damaged other than by a cut at its end.
pub fn read_run(dir: &Path) -> Result<RunData, StoreError> {
    let manifest = read_manifest(dir)?;
    let path = dir.join(SAMPLES_FILE);
    let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
    let mut parsed = parse(path, &bytes, &manifest)?;
    parsed.samples.extend(partial(dir, &manifest, &parsed.done)?);
    Ok(RunData { manifest, samples: parsed.samples, torn: parsed.torn })
}

/// The steps of a ladder that did not come to its end, if there are any.
fn partial(
    dir: &Path,
    manifest: &Manifest,
    done: &BTreeSet<(u32, usize)>,
) -> Result<Vec<Sample>, StoreError> {
    let path = dir.join(PARTIAL_FILE);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(StoreError::io("read", &path))?,
    };
    let parsed = parse(path, &bytes, manifest)?;
    // Left behind in the moment between the two files.
    let late = parsed.done.iter().all(|trial| done.contains(trial));
    Ok(if late { Vec::new() } else { parsed.samples })
}

/// Reads the manifest alone.
///
/// # Errors
///
/// When there is none, or it cannot be read, has another schema or is damaged.
pub fn read_manifest(dir: &Path) -> Result<Manifest, StoreError> {
    /// Enough of any schema to recognise it.
    #[derive(Deserialize)]
    struct Schema {
        schema: u64,
    }
    let path = dir.join(MANIFEST_FILE);
    let bytes = fs::read(&path).map_err(|source| match source.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => StoreError::NoRun { dir: dir.to_owned() },
        _ => StoreError::Io { operation: "read", path: path.clone(), source },
    })?;
    let damaged = |source| StoreError::Manifest { path: path.clone(), source };
    let Schema { schema } = serde_json::from_slice(&bytes).map_err(damaged)?;
    if schema != u64::from(SCHEMA_VERSION) {
        return Err(StoreError::Schema { path: path.clone(), found: schema });
    }
    serde_json::from_slice(&bytes).map_err(damaged)
}

/// The first line of `samples.csv`.
pub(super) fn header() -> String {
    COLUMNS.join(",") + "\n"
}

/// What `samples.csv` holds.
#[derive(Debug)]
pub(super) struct Parsed {
    /// Samples of finished trials.
    pub samples: Vec<Sample>,
    /// Round and cell (by index in the manifest) of finished trials.
    pub done: BTreeSet<(u32, usize)>,
    /// Whether something after them was cut short.
    pub torn: bool,
    /// Length in bytes of the header and the finished trials.
    pub keep: u64,
}

/// Reads the bytes of a `samples.csv`.
pub(super) fn parse(
    path: PathBuf,
    bytes: &[u8],
    manifest: &Manifest,
) -> Result<Parsed, StoreError> {
    let header = header();
    let mut parser = Parser {
        path,
        run_id: &manifest.run_id,
        cells: manifest.cells.iter().enumerate().map(|(at, fact)| (&fact.cell, at)).collect(),
        parsed: Parsed { samples: Vec::new(), done: BTreeSet::new(), torn: false, keep: 0 },
        open: None,
    };
    if bytes.len() < header.len() && header.as_bytes().starts_with(bytes) {
        parser.parsed.torn = true;
        return Ok(parser.parsed);
    }
    let Some(body) = bytes.strip_prefix(header.as_bytes()) else {
        let problem = format!("the first line must be `{}`", header.trim_end());
        return Err(parser.damaged(1, Fault { column: None, problem }));
    };
    // No field holds a line break, so a line without its end is a cut.
    let complete = body.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    parser.parsed.keep = (header.len() + complete) as u64;
    parser.body(&body[..complete], header.len() as u64)?;
    if let Some(open) = parser.open {
        parser.parsed.samples.truncate(open.first_sample);
        parser.parsed.keep = open.first_byte;
        parser.parsed.torn = true;
    }
    parser.parsed.torn |= complete < body.len();
    Ok(parser.parsed)
}

/// A trial whose rows are still being read.
struct Open {
    first_byte: u64,
    first_sample: usize,
    rows: u32,
    left: u32,
}

struct Parser<'a> {
    path: PathBuf,
    run_id: &'a str,
    cells: HashMap<&'a CellKey, usize>,
    parsed: Parsed,
    open: Option<Open>,
}

impl Parser<'_> {
    /// Reads complete lines that begin at byte `offset` of the file.
    fn body(&mut self, body: &[u8], offset: u64) -> Result<(), StoreError> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .terminator(csv::Terminator::Any(b'\n'))
            .from_reader(body);
        let mut record = csv::ByteRecord::new();
        loop {
            // The header is line 1.
            let (byte, line) = (reader.position().byte() + offset, reader.position().line() + 1);
            match reader.read_byte_record(&mut record) {
                Ok(false) => return Ok(()),
                Ok(true) => {
                    self.record(byte, &record).map_err(|fault| self.damaged(line, fault))?
                }
                Err(error) => {
                    let fault = Fault { column: None, problem: error.to_string() };
                    return Err(self.damaged(line, fault));
                }
            }
        }
    }

    /// Takes one record, which begins at `byte` of the file.
    fn record(&mut self, byte: u64, record: &csv::ByteRecord) -> Result<(), Fault> {
        let whole = |problem: String| Fault { column: None, problem };
        if record.len() != COLUMNS.len() {
            let problem = format!("{} columns instead of {}", record.len(), COLUMNS.len());
            return Err(whole(problem));
        }
        let record = csv::StringRecord::from_byte_record(record.clone()).map_err(|error| {
            let column = COLUMNS.get(error.utf8_error().field()).copied();
            Fault { column, problem: "not UTF-8 text".to_owned() }
        })?;
        let row: Row<'_> = record.deserialize(None).map_err(|error| whole(error.to_string()))?;
        if row.run_id != self.run_id {
            let problem = format!("`{}` instead of the run's `{}`", row.run_id, self.run_id);
            return Err(Fault { column: Some("run_id"), problem });
        }
        let (mut sample, rows) = row.sample()?;
        if let Some((known, _)) = self.cells.get_key_value(&sample.cell) {
            // One map of parameters for all samples of a cell, not one each.
            sample.cell = (*known).clone();
        }
        self.take(byte, sample, rows)
    }

    /// Puts a sample into its trial.
    fn take(&mut self, byte: u64, sample: Sample, rows: u32) -> Result<(), Fault> {
        let fault = |column, problem: String| Fault { column: Some(column), problem };
        let Some(cell) = self.cells.get(&sample.cell).copied() else {
            let problem = format!("`{}` is not in the manifest", sample.cell);
            return Err(Fault { column: None, problem });
        };
        let mut open = self.open.take().unwrap_or(Open {
            first_byte: byte,
            first_sample: self.parsed.samples.len(),
            rows,
            left: rows,
        });
        if let Some(first) = self.parsed.samples.get(open.first_sample) {
            let same = |sample: &Sample| (sample.round, sample.trial, sample.cell.clone());
            if same(first) != same(&sample) || open.rows != rows {
                let problem = format!("{} rows are missing before this one", open.left);
                return Err(fault("rows", problem));
            }
        }
        open.left -= 1;
        if open.left == 0 {
            if !self.parsed.done.insert((sample.round, cell)) {
                let problem = format!("round {} of this cell appears twice", sample.round);
                return Err(fault("round", problem));
            }
        } else {
            self.open = Some(open);
        }
        self.parsed.samples.push(sample);
        Ok(())
    }

    fn damaged(&self, line: u64, fault: Fault) -> StoreError {
        StoreError::Damaged {
            path: self.path.clone(),
            line,
            column: fault.column,
            problem: fault.problem,
        }
    }
}
