//! Systems that are not this suite's own, as data: what each is started with,
//! how its payload reaches the harness, and what it does and does not do.
//!
//! The shipped ones are in `benches/backends.toml`; a user's file in the same
//! form adds to them, or replaces one of the same name. Nothing here starts
//! anything or knows what is installed.
//!
//! ```toml
//! [systems.my-runtime]          # an OCI runtime needs no more than this
//! driver = "oci"
//! binary = ["my-runtime"]       # the first of these that is found
//! does = { cgroup = "all controllers", seccomp = "as ours" }
//! ```

mod check;
mod words;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use serde::Deserialize;

pub use words::{LISTS, TOKENS, Token, fill, tokens};

use super::params::Param;
use crate::record::Does;

/// The shipped descriptions.
const SHIPPED: &str = include_str!("../../../benches/backends.toml");

/// How a system is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// An OCI runtime, on a generated bundle.
    Oci,
    /// A container engine, on an image imported from the same files.
    Engine,
    /// A program that isolates another, on the root file system itself.
    Sandbox,
    /// A virtual machine monitor, on our guest kernel and initramfs.
    Vmm,
}

impl Driver {
    /// The name used in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oci => "oci",
            Self::Engine => "engine",
            Self::Sandbox => "sandbox",
            Self::Vmm => "vmm",
        }
    }
}

/// How the payload inside reaches the harness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// A socket that it inherits under this number, 0 or 3.
    Inherited(i32),
    /// A socket in the file system that it connects to at this path.
    Connected,
    /// The command's standard input and output, which lead to the payload's.
    Streams,
    /// The same, which lead to a guest's first serial line.
    Serial,
}

/// A command: words in which tokens such as `{id}` stand for what differs.
pub type Words = Vec<String>;

/// A file that each instance gets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its name.
    pub name: String,
    /// Its text, with tokens; `{env}` becomes a line for each variable.
    pub text: String,
    /// The version of control groups on which it is written, if only there.
    #[serde(default)]
    pub cgroup: Option<u8>,
}

/// A system that is not this suite's own.
#[derive(Clone, Debug, PartialEq)]
pub struct System {
    /// Its name, as specs write it.
    pub name: String,
    /// What it is.
    pub about: String,
    /// How it is driven.
    pub driver: Driver,
    /// Names or paths of its program; the first that is found counts.
    pub binary: Vec<String>,
    /// Commands that print its version on their first line; all of them must.
    pub version: Vec<Words>,
    /// How the payload reaches the harness.
    pub channel: Channel,
    /// The command that lives as long as the instance.
    pub attached: Option<Words>,
    /// The command that leaves the instance behind.
    pub detached: Option<Words>,
    /// What removes an instance that was left behind, or was killed.
    pub delete: Vec<Words>,
    /// What makes the image out of the archive, once in a run.
    pub load: Vec<Words>,
    /// What removes the image.
    pub unload: Vec<Words>,
    /// What a variable of the payload becomes in a command: the words that
    /// stand for `{env}`, with `{name}` and `{value}`.
    pub env: Words,
    /// Variables of the commands themselves.
    pub environment: BTreeMap<String, String>,
    /// Files of each instance.
    pub files: Vec<File>,
    /// Empty files and folders (with a slash at their end) that it needs in
    /// the root file system.
    pub needs: Vec<String>,
    /// Whether a guest of it switches itself off, since its monitor would
    /// start it again after a reset.
    pub power_off: bool,
    /// The descriptor on which its program reads the system-call filter.
    pub filter: Option<i32>,
    /// Its daemon: the name of a folder with `daemon.sock` and `daemon.pid`.
    pub daemon: Option<String>,
    /// Folders that it leaves behind; each has the run's id in its path.
    pub leaves: Vec<String>,
    /// Whether it must not see a version 2 tree beside version 1 cgroups.
    pub hide_unified: bool,
    /// Whether the instance has a network namespace of its own.
    pub network: bool,
    /// Whether it only runs as root here.
    pub root: bool,
    /// Whether nobody has seen it work here.
    pub never_run: bool,
    /// Its parameters, in the order in which they are documented.
    pub params: &'static [Param],
    /// What its version has to contain, with tokens of parameters: those that
    /// it cannot be told, since its daemon has them.
    pub says: Vec<String>,
    /// What it does and does not do.
    pub does: Does,
}

/// All systems that this process knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Systems {
    systems: Vec<System>,
    own: BTreeMap<String, Does>,
}

/// Why descriptions cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SystemsError {
    /// The file cannot be read.
    #[error("cannot read the descriptions of systems {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: super::SpecError,
    },
    /// The text is not what it should be.
    #[error("{file}:{line}: {problem}")]
    Invalid {
        /// The file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// They are known already, and cells may have been made of them.
    #[error("the systems of this process are known already")]
    Late,
}

static KNOWN: OnceLock<Systems> = OnceLock::new();

/// The systems of this process: the shipped ones, unless others were
/// installed first.
pub fn known() -> &'static Systems {
    // That the shipped text is valid is tested.
    KNOWN.get_or_init(|| Systems::shipped().unwrap_or_default())
}

/// Makes these the systems of this process, before any spec is read.
///
/// # Errors
/// [`SystemsError::Late`].
pub fn install(systems: Systems) -> Result<(), SystemsError> {
    KNOWN.set(systems).map_err(|_| SystemsError::Late)
}

impl Systems {
    /// The shipped systems.
    ///
    /// # Errors
    /// When the shipped text is broken.
    pub fn shipped() -> Result<Self, SystemsError> {
        let mut systems = Self::default();
        systems.add("backends.toml", SHIPPED)?;
        Ok(systems)
    }

    /// Adds those of a user's file.
    ///
    /// # Errors
    /// At the first thing that is wrong.
    pub fn add_file(&mut self, path: &Path) -> Result<(), SystemsError> {
        let name = path.display().to_string();
        let text = super::read_text(path)
            .map_err(|source| SystemsError::Read { path: name.clone(), source })?;
        self.add(&name, &text)
    }

    /// Adds those of a text.
    ///
    /// # Errors
    /// At the first thing that is wrong, with its line.
    pub fn add(&mut self, file: &str, text: &str) -> Result<(), SystemsError> {
        let found = check::check(text).map_err(|(at, problem)| SystemsError::Invalid {
            file: file.to_owned(),
            line: super::wire::line_of(text.as_bytes(), at),
            problem,
        })?;
        for system in found.0 {
            match self.systems.iter_mut().find(|known| known.name == system.name) {
                Some(known) => *known = system,
                None => self.systems.push(system),
            }
        }
        self.own.extend(found.1);
        Ok(())
    }

    /// All of them, in the order of their files.
    pub fn all(&self) -> impl Iterator<Item = &System> {
        self.systems.iter()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&System> {
        self.systems.iter().find(|system| system.name == name)
    }

    /// What a backend does and does not do, this suite's own included.
    #[must_use]
    pub fn does(&self, backend: &str) -> Option<&Does> {
        self.get(backend).map(|system| &system.does).or_else(|| self.own.get(backend))
    }
}

#[cfg(test)]
mod tests;
