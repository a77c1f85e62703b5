//! Exit codes: part of the command's contract.

use std::process::ExitCode;

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything asked for was done and measured.
    Ok,
    /// Some trials failed, or an instrument is off; what was measured is
    /// stored.
    TrialsFailed,
    /// Wrong use or bad input.
    Usage,
    /// The host lacks something: some cells could not be run here.
    HostLacks,
    /// A comparison found a regression, or slopes that do not repeat.
    Regression,
    /// The run could not go on (a full disk, a lost launcher); what was
    /// measured until then is stored.
    Broken,
    /// Ended by this signal, in order; what was measured is stored.
    Signal(i32),
    /// `container run` and `vm run`: the command's own code, or one of
    /// [`Exit::CONTAINER_TABLE`].
    Container(u8),
}

impl Exit {
    /// Each code with its meaning, for `--help` and the README.
    pub const TABLE: [(u8, &'static str); 8] = [
        (0, "everything was done and measured"),
        (1, "some trials failed, or an instrument is off; everything else is stored"),
        (2, "wrong use or bad input"),
        (3, "the host lacks something: some cells were skipped, each with its reason"),
        (4, "a comparison found a regression, or slopes that do not repeat"),
        (5, "the run could not go on, such as on a full disk; everything until then is stored"),
        (130, "ended by Ctrl-C (SIGINT); `run --resume` continues"),
        (143, "ended by SIGTERM; `run --resume` continues"),
    ];

    /// `container run` failed before its command ran.
    pub const CONTAINER_FAILED: u8 = 125;

    /// Codes of `container run`, which has its command's code otherwise: those
    /// of Docker and Podman.
    pub const CONTAINER_TABLE: [(&'static str, &'static str); 5] = [
        ("125", "wrong use, or the container could not be made"),
        ("126", "the command was found and could not be executed"),
        ("127", "the command was not found"),
        ("128+n", "signal n ended the command, such as 137 for SIGKILL"),
        ("others", "the command's own"),
    ];

    /// The number that the shell sees.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::TrialsFailed => 1,
            Self::Usage => 2,
            Self::HostLacks => 3,
            Self::Regression => 4,
            Self::Broken => 5,
            Self::Container(code) => code,
            Self::Signal(signal) => u8::try_from(signal).map_or(u8::MAX, |n| n.saturating_add(128)),
        }
    }

    /// The table as text, for `--help`.
    #[must_use]
    pub fn help() -> String {
        let mut text = "Exit codes:\n".to_owned();
        for (code, meaning) in Self::TABLE {
            text.push_str(&format!("  {code:>3}  {meaning}\n"));
        }
        text
    }
}

impl Exit {
    /// The table of `container run` as text, for `--help`.
    #[must_use]
    pub fn container_help() -> String {
        let mut text = "Exit codes:\n".to_owned();
        for (code, meaning) in Self::CONTAINER_TABLE {
            text.push_str(&format!("  {code:>6}  {meaning}\n"));
        }
        text
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_table() {
        let all = [
            Exit::Ok,
            Exit::TrialsFailed,
            Exit::Usage,
            Exit::HostLacks,
            Exit::Regression,
            Exit::Broken,
            Exit::Signal(2),
            Exit::Signal(15),
        ];
        let codes: Vec<u8> = all.into_iter().map(Exit::code).collect();
        assert_eq!(codes, Exit::TABLE.map(|(code, _)| code));
    }
}
