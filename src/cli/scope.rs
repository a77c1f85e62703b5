//! A scope of systemd for an ordinary user's run or container, without which
//! limits and the ledgers of control groups would be missing.
//!
//! On a host with systemd and version 2 alone, a terminal's own control group
//! is not its user's to divide. The user's service manager gives one that is,
//! on request: `systemd-run --user --scope -p Delegate=yes`
//! (<https://systemd.io/CGROUP_DELEGATION/>). The command asks by itself and
//! says so; `UNLADEN_SCOPE=no` in the environment keeps it from it. Nothing is
//! left afterwards: the scope ends with its last process.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::say;
use crate::container::cgroup::{Availability, Controller, Hierarchy, is_unified};

/// Set for whom is in a scope already, or does not want one.
const VARIABLE: &str = "UNLADEN_SCOPE";
/// What decides whether a scope is needed and can be had.
struct Situation {
    is_root: bool,
    is_set: bool,
    /// Why limits cannot be set from here, if so.
    unusable: Option<String>,
    /// Only version 2 knows delegation.
    unified: bool,
    /// `XDG_RUNTIME_DIR`, where the user's service manager listens.
    runtime: Option<PathBuf>,
    /// `PATH`.
    search: OsString,
}

impl Situation {
    fn here(needed: &[Controller]) -> Self {
        let unusable = Hierarchy::detect(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
            .map_err(|error| crate::errors::chain(&error))
            .and_then(|hierarchy| {
                let mut found = needed.iter().map(|one| hierarchy.availability(*one));
                found.try_for_each(|one| match one {
                    Availability::Usable { .. } => Ok(()),
                    Availability::Unusable(reason) => Err(reason),
                })
            });
        Self {
            is_root: nix::unistd::geteuid().is_root(),
            is_set: std::env::var_os(VARIABLE).is_some(),
            unusable: unusable.err(),
            unified: is_unified(),
            runtime: std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
            search: std::env::var_os("PATH").unwrap_or_default(),
        }
    }

    /// The program that makes a scope, where one is needed and can be had.
    fn scope_maker(&self) -> Option<PathBuf> {
        self.unusable.as_ref()?;
        if self.is_root || self.is_set || !self.unified {
            return None;
        }
        // The manager's own socket; that of the bus is there without one, too.
        let manager = self.runtime.as_ref()?.join("systemd/private");
        let program = std::env::split_paths(&self.search).map(|folder| folder.join("systemd-run"));
        program.into_iter().find(|program| program.is_file()).filter(|_| manager.exists())
    }
}

/// What [`Situation::scope_maker`] is told, before the command itself.
const ARGUMENTS: [&str; 7] =
    ["--user", "--scope", "--quiet", "--collect", "-p", "Delegate=yes", "--"];

/// Starts this command again in a scope of its own where it needs one to use
/// these controllers. Returns when it does not, or cannot have one: then it
/// goes on, and finds out by itself what cannot be limited.
pub(super) fn enter_if_needed(needed: &[Controller]) {
    if needed.is_empty() || nix::unistd::geteuid().is_root() {
        // Nothing else needs to be looked at, on a path that is timed.
        return;
    }
    let situation = Situation::here(needed);
    let (Some(program), Ok(own)) = (situation.scope_maker(), std::env::current_exe()) else {
        return;
    };
    say(&format!(
        "starting again in a scope of systemd, since this session's control group cannot be \
         divided ({VARIABLE}=no prevents it)"
    ));
    let error = command(&program, own.as_os_str(), std::env::args_os().skip(1)).exec();
    say(&format!("cannot execute {}: {error}; going on without a scope", program.display()));
}

fn command(program: &Path, own: &OsStr, arguments: impl Iterator<Item = OsString>) -> Command {
    let mut command = Command::new(program);
    command.args(ARGUMENTS).arg(own).args(arguments).env(VARIABLE, "entered");
    command
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_scope_is_made_only_where_it_helps() {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("systemd")).expect("made");
        fs::write(folder.path().join("systemd/private"), "").expect("written");
        fs::write(folder.path().join("systemd-run"), "").expect("written");
        let situation = || Situation {
            is_root: false,
            is_set: false,
            unusable: Some("belongs to somebody else".to_owned()),
            unified: true,
            runtime: Some(folder.path().to_owned()),
            search: std::env::join_paths(["/no/such".as_ref(), folder.path()]).expect("a path"),
        };
        let maker = folder.path().join("systemd-run");
        assert_eq!(situation().scope_maker(), Some(maker.clone()));
        let none = |change: fn(&mut Situation)| {
            let mut situation = situation();
            change(&mut situation);
            assert_eq!(situation.scope_maker(), None);
        };
        none(|situation| situation.is_root = true);
        none(|situation| situation.is_set = true);
        none(|situation| situation.unusable = None);
        none(|situation| situation.unified = false);
        none(|situation| situation.runtime = None);
        none(|situation| situation.runtime = Some("/no/such".into()));
        none(|situation| situation.search = "/no/such".into());
        let command =
            command(&maker, "/bin/unladen".as_ref(), ["run".into(), "x".into()].into_iter());
        let arguments: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        assert_eq!(
            arguments.join(" "),
            "--user --scope --quiet --collect -p Delegate=yes -- /bin/unladen run x"
        );
    }
}
