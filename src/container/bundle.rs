//! A bundle: a folder with a `config.json`, as the OCI runtime specification
//! describes it.
//!
//! The text is looked through before it is understood, so that a field that
//! this runtime does not carry out is an error that names it, even one that
//! the types of the specification's crate would drop. Whether the values fit
//! each other and the host is found out by [`Plan::from_spec`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::plan::{Plan, PlanError, Refusal, check_fields};

/// Name of the configuration in a bundle.
const CONFIG: &str = "config.json";
/// A configuration is a few ten kilobytes; what is larger is a mistake or an
/// attack, and would be held in memory several times.
const LARGEST_BYTES: u64 = 8 * 1024 * 1024;
/// More than most configurations have.
const USUAL_BYTES: usize = 32 * 1024;

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{} has more than {LARGEST_BYTES} bytes, which no configuration needs", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not JSON, or a value of the wrong type; the cause names line and
    /// column.
    #[error("{} is not an OCI runtime configuration", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// A field that this runtime does not carry out.
    #[error("cannot use {}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// Which field.
        source: PlanError,
    },
}

/// A folder with a configuration that was read and looked through.
#[derive(Clone, Debug)]
pub struct Bundle {
    folder: PathBuf,
    spec: Spec,
    /// Whether its fields are known to be carried out.
    checked: bool,
}

impl Bundle {
    /// Reads `config.json` in a folder.
    ///
    /// # Errors
    ///
    /// See [`BundleError`].
    pub fn load(folder: &Path) -> Result<Self, BundleError> {
        let path = folder.join(CONFIG);
        let read = |source| BundleError::Read { path: path.clone(), source };
        // Absolute, since who starts a container may change its directory.
        let folder = folder.canonicalize().map_err(read)?;
        let spec = read_config(&folder.join(CONFIG))?;
        Ok(Self { folder, spec, checked: true })
    }

    /// A configuration that is in no file, whose relative paths start at
    /// `folder`.
    #[must_use]
    pub fn new(folder: PathBuf, spec: Spec) -> Self {
        Self { folder, spec, checked: false }
    }

    /// The bundle's absolute path, where relative paths of the spec start.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The configuration.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The configuration, to be changed before it is planned.
    pub fn spec_mut(&mut self) -> &mut Spec {
        self.checked = false;
        &mut self.spec
    }

    /// The steps that carry it out.
    ///
    /// # Errors
    ///
    /// As [`Plan::from_spec`].
    pub fn plan(&self) -> Result<Plan, PlanError> {
        if self.checked {
            Plan::from_checked(&self.spec, &self.folder)
        } else {
            Plan::from_spec(&self.spec, &self.folder)
        }
    }
}

/// Reads a configuration file.
///
/// # Errors
///
/// When it cannot be read, is not JSON of the right types (with line and
/// column), or has a field that this runtime does not carry out (by name).
pub fn read_config(path: &Path) -> Result<Spec, BundleError> {
    let read = |source| BundleError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    // Room for an ordinary one, to read it at once.
    let mut text = Vec::with_capacity(USUAL_BYTES);
    // One byte more than allowed tells a file that is too large.
    file.take(LARGEST_BYTES + 1).read_to_end(&mut text).map_err(read)?;
    parse_config(&text, path)
}

/// Parses the text of a configuration; `path` names it in errors.
///
/// # Errors
///
/// As [`read_config`].
pub fn parse_config(text: &[u8], path: &Path) -> Result<Spec, BundleError> {
    if text.len() as u64 > LARGEST_BYTES {
        return Err(BundleError::TooLarge { path: path.to_owned() });
    }
    let syntax = |source| BundleError::Syntax { path: path.to_owned(), source };
    let Ok(text) = str::from_utf8(text) else {
        // Its error says where.
        return serde_json::from_slice(text).map_err(syntax);
    };
    check_fields(&mut serde_json::Deserializer::from_str(text)).map_err(
        |refusal| match refusal {
            Refusal::Field(source) => BundleError::Field { path: path.to_owned(), source },
            Refusal::Input(error) => syntax(error),
        },
    )?;
    serde_json::from_str(text).map_err(syntax)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::chain;

    fn parse(text: &str) -> Result<Spec, String> {
        parse_config(text.as_bytes(), Path::new("b/config.json")).map_err(|error| chain(&error))
    }

    fn refused(text: &str) -> String {
        parse(text).expect_err("refused")
    }

    #[test]
    fn errors_name_file_and_line_or_field() {
        let error = refused("{\n  \"ociVersion\": \"1.0.2\",\n  \"process\": {\"cwd\": 7}\n}");
        assert!(error.starts_with("b/config.json is not an OCI runtime configuration"), "{error}");
        assert!(error.contains("line 3 column"), "{error}");
        assert!(refused("{").contains("line 1 column 1"), "{}", refused("{"));
        let error = refused(r#"{"ociVersion": "1.0.2", "linux": {"brandNew": 1}}"#);
        assert!(error.starts_with("cannot use b/config.json: `linux.brandNew`"), "{error}");
        assert!(parse_config(b"{\"ociVersion\": \"1.0.\xff\"}", Path::new("c")).is_err());
        // Twice the same field: which one is meant?
        let error = refused(r#"{"ociVersion": "1.0.2", "hostname": "a", "hostname": "b"}"#);
        assert!(error.contains("duplicate field `hostname`"), "{error}");
        assert!(parse(r#"{"ociVersion": "1.0.2", "annotations": {"any.thing": "x"}}"#).is_ok());
    }

    #[test]
    fn what_is_changed_is_looked_through_again() {
        let folder = tempfile::tempdir().expect("folder");
        let text = r#"{"ociVersion": "1.0.2", "root": {"path": "/"},
            "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["/x"]},
            "linux": {"namespaces": [{"type": "mount"}]}}"#;
        std::fs::write(folder.path().join(CONFIG), text).expect("written");
        let mut bundle = Bundle::load(folder.path()).expect("fine");
        bundle.plan().expect("a plan");
        bundle.spec_mut().set_version("2.0.0".to_owned());
        let error = bundle.plan().expect_err("refused").to_string();
        assert!(error.starts_with("`ociVersion` cannot be `2.0.0`"), "{error}");
    }

    #[test]
    fn files_that_are_missing_or_huge_are_errors() {
        let folder = tempfile::tempdir().expect("folder");
        let error = Bundle::load(folder.path()).expect_err("nothing there");
        assert!(matches!(error, BundleError::Read { .. }), "{error:?}");
        assert!(error.to_string().ends_with("config.json"), "{error}");
        let file = File::create(folder.path().join(CONFIG)).expect("made");
        file.set_len(LARGEST_BYTES + 1).expect("sparse");
        let error = Bundle::load(folder.path()).expect_err("too large");
        assert!(matches!(error, BundleError::TooLarge { .. }), "{error:?}");
    }
}
