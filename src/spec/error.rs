//! What can be wrong with a spec, in words that lead to the place.

use std::path::PathBuf;

use super::MAX_SPEC_BYTES;

/// Why a spec could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The name is neither a shipped profile nor a file.
    #[error(
        "cannot find spec `{name}`: it is neither a profile ({profiles}) nor a file{}",
        hint(.nearest.as_deref())
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// The shipped profiles.
        profiles: String,
        /// The profile that is spelt almost like it.
        nearest: Option<String>,
    },
    /// The file could not be read.
    #[error("cannot read spec {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file is far larger than any spec; it was not read.
    #[error(
        "cannot use {} as a spec: it has more than {MAX_SPEC_BYTES} bytes, \
         so it is probably another kind of file", path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not text.
    #[error("{}:{line}: not UTF-8 text, so not a spec", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Line of the first byte that is not text, from 1.
        line: usize,
    },
    /// The text was read and something in it is wrong.
    #[error("{name}:{line}: {problem}")]
    Invalid {
        /// The file as the user wrote it, or the profile.
        name: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        problem: Box<Problem>,
    },
}

/// What is wrong at one place of a spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not TOML, or a value of the wrong type.
    #[error("{0}")]
    Syntax(String),
    /// A key that no spec has.
    #[error("unknown key \"{key}\" {table}{}", suggest(.nearest.as_deref(), .known))]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it stands: `in [[cells]]`.
        table: String,
        /// The known key that is spelt almost like it.
        nearest: Option<String>,
        /// All keys that may stand there.
        known: Vec<String>,
    },
    /// A name that must be one of a list and is not.
    #[error("unknown {what} \"{value}\"{of}{}", suggest(.nearest.as_deref(), .known))]
    UnknownName {
        /// What kind of name: `backend`, `workload`, `parameter`.
        what: &'static str,
        /// The text.
        value: String,
        /// Whose name it should be: ` of backend vm`, or empty.
        of: String,
        /// The known name that is spelt almost like it.
        nearest: Option<String>,
        /// All known names.
        known: Vec<String>,
    },
    /// A key that must be there is not.
    #[error("missing key \"{key}\" in {table}")]
    MissingKey {
        /// The key.
        key: &'static str,
        /// Where it should stand.
        table: &'static str,
    },
    /// A number outside its range.
    #[error("{key} = {value} is outside {min} to {max}")]
    OutOfRange {
        /// The key.
        key: String,
        /// The number.
        value: i64,
        /// Smallest allowed.
        min: u32,
        /// Largest allowed.
        max: u32,
    },
    /// A parameter's value that is not allowed.
    #[error("parameter {name} = \"{value}\" of backend {backend}: expected {expected}")]
    BadParam {
        /// The backend.
        backend: &'static str,
        /// The parameter.
        name: String,
        /// The text.
        value: String,
        /// What is allowed, in words.
        expected: String,
    },
    /// An experiment that this workload cannot serve.
    #[error(
        "{experiment} of workload \"{workload}\" makes no sense: it has ended \
         before it could be read; use pause, touch=MIB or http"
    )]
    EndsTooEarly {
        /// The experiment.
        experiment: &'static str,
        /// The workload.
        workload: String,
    },
    /// Only what has a memory of its own can have less of it.
    #[error("experiment minimum makes memory smaller, and backend {backend} has none of its own")]
    NoMemory {
        /// The backend.
        backend: &'static str,
    },
    /// The workload needs more memory than the instance has.
    #[error("workload \"{workload}\" cannot fit into memory = \"{memory}\" of backend {backend}")]
    DoesNotFit {
        /// The workload.
        workload: String,
        /// The instance's memory.
        memory: String,
        /// The backend.
        backend: &'static str,
    },
    /// Nothing puts the file of the workload where its instances could read it,
    /// or the experiment does not begin with a file that is out of memory.
    #[error(
        "workload \"{workload}\" is for the experiments memory and density of the backends process, \
         container and vm, not for {experiment} of {backend}"
    )]
    NoFile {
        /// The workload.
        workload: String,
        /// The experiment.
        experiment: &'static str,
        /// The backend.
        backend: &'static str,
    },
    /// Parameters that exclude each other.
    #[error("{cell} cannot be: {reason}")]
    Contradiction {
        /// The backend with its parameters.
        cell: String,
        /// Which one excludes which.
        reason: &'static str,
    },
    /// A cap in an entry that has no cells of that experiment.
    #[error("{experiment}_cap stands in an entry of [[cells]] that has no {experiment} list")]
    CapWithoutList {
        /// The experiment.
        experiment: &'static str,
    },
    /// An entry that measures nothing.
    #[error(
        "this entry of [[cells]] measures nothing: add startup = [...], memory = [...] or density = [...]"
    )]
    NothingToMeasure,
    /// The same cell twice.
    #[error("cell `{cell}` appears twice, first at line {first}")]
    Duplicate {
        /// The cell.
        cell: String,
        /// Line of its first appearance.
        first: usize,
    },
    /// Mock and real backends in one spec.
    #[error("backend mock cannot stand beside real backends: its times are not measured")]
    MockBesideReal,
    /// No cell at all.
    #[error("the spec is empty: it needs at least one [[cells]] entry")]
    Empty,
}

/// The candidate that is spelt almost like `text`, if one is close enough
/// that a slip of the fingers explains the difference.
#[must_use]
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let limit = (text.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(text, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.to_owned())
}

/// `, did you mean "x"?` where there is something to suggest.
fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(", did you mean \"{name}\"?"))
}

/// The nearest name, or all of them.
fn suggest(nearest: Option<&str>, known: &[String]) -> String {
    if nearest.is_some() { hint(nearest) } else { format!(", expected {}", known.join(", ")) }
}
