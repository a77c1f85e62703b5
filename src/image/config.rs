//! What an image says about the process to start in it, as values that go
//! into a spec.

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use super::ImageError;

/// The part of an image's configuration that is about its process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `NAME`, `UID`, `NAME:GROUP` or `UID:GID`; empty for root.
    pub user: String,
    /// `NAME=VALUE` each.
    pub env: Vec<String>,
    /// Program and first arguments, which arguments of the user follow.
    pub entrypoint: Vec<String>,
    /// Arguments (or program and arguments) unless the user gives some.
    pub cmd: Vec<String>,
    /// Working directory; empty for `/`.
    pub workdir: String,
    /// Signal that asks the process to end, such as `SIGQUIT`.
    pub stop_signal: Option<String>,
}

impl Config {
    pub(super) fn from_oci(whole: &ImageConfiguration) -> Self {
        let Some(config) = whole.config() else { return Self::default() };
        Self {
            user: config.user().clone().unwrap_or_default(),
            env: config.env().clone().unwrap_or_default(),
            entrypoint: config.entrypoint().clone().unwrap_or_default(),
            cmd: config.cmd().clone().unwrap_or_default(),
            workdir: config.working_dir().clone().unwrap_or_default(),
            stop_signal: config.stop_signal().clone(),
        }
    }

    /// Program and arguments: the entry point, then the user's arguments or,
    /// without any, the image's own.
    ///
    /// # Errors
    ///
    /// When that is nothing at all.
    pub fn command(&self, arguments: &[String]) -> Result<Vec<String>, ImageError> {
        let rest = if arguments.is_empty() { &self.cmd } else { arguments };
        let command: Vec<String> = self.entrypoint.iter().chain(rest).cloned().collect();
        if command.is_empty() {
            return Err(ImageError::Invalid {
                what: "the image".to_owned(),
                reason: "it has no entry point and no command: say what to run after `--`"
                    .to_owned(),
            });
        }
        Ok(command)
    }

    /// The working directory, absolute.
    #[must_use]
    pub fn working_directory(&self) -> String {
        if self.workdir.starts_with('/') {
            self.workdir.clone()
        } else {
            format!("/{}", self.workdir)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn arguments_replace_the_command_and_not_the_entry_point() {
        let mut config =
            Config { entrypoint: texts(&["/e", "-x"]), cmd: texts(&["c"]), ..Config::default() };
        assert_eq!(config.command(&[]).expect("some"), ["/e", "-x", "c"]);
        assert_eq!(config.command(&texts(&["a", "b"])).expect("some"), ["/e", "-x", "a", "b"]);
        config.entrypoint.clear();
        assert_eq!(config.command(&texts(&["a"])).expect("some"), ["a"]);
        config.cmd.clear();
        let error = config.command(&[]).expect_err("nothing").to_string();
        assert!(error.contains("no entry point and no command"), "{error}");
    }

    #[test]
    fn a_working_directory_is_absolute() {
        let with = |workdir: &str| Config { workdir: workdir.to_owned(), ..Config::default() };
        assert_eq!(with("").working_directory(), "/");
        assert_eq!(with("srv/app").working_directory(), "/srv/app");
        assert_eq!(with("/srv").working_directory(), "/srv");
    }
}
