//! Somebody else's programs: where they are, and what they print, within a
//! time limit.

use std::env;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::super::Assets;
use crate::sys::pidfd::PidFd;

/// Time that a program may take to say something.
const PATIENCE: Duration = Duration::from_secs(20);

/// Folders of root's programs, which an unprivileged user's `PATH` lacks.
const ROOTS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A program by its name: beside this one, in `PATH`, or where setup.sh has
/// built it. A path stands for itself.
pub(super) fn find(name: &str, assets: &Assets) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_file());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let own = env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
    let folders = env::split_paths(&path).chain(ROOTS.map(PathBuf::from)).chain(own);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.or_else(|| {
        // The script knows where it built a program, and of which it knows.
        let words = ["--path".to_owned(), name.to_owned()];
        let path = assets.script("peers/setup.sh", &words).ok()?;
        Some(PathBuf::from(path.trim())).filter(|path| path.is_file())
    })
}

/// What every command gets of our own environment.
pub(super) fn base_environment() -> Vec<String> {
    let path = env::var("PATH").unwrap_or_default();
    let mut all = vec![format!("PATH={path}:{}", ROOTS.join(":"))];
    for name in ["HOME", "USER", "XDG_RUNTIME_DIR", "TMPDIR"] {
        all.extend(env::var(name).ok().map(|value| format!("{name}={value}")));
    }
    all
}

/// A command of somebody else.
pub(super) struct External<'a> {
    words: &'a [String],
    env: &'a [String],
}

impl<'a> External<'a> {
    pub(super) fn new(words: &'a [String], env: &'a [String]) -> Self {
        Self { words, env }
    }

    /// What it prints. Killed with all its children when it takes too long.
    pub(super) fn output(&self) -> Result<String, String> {
        let name = self.words.join(" ");
        let failed = |error: std::io::Error| format!("`{name}`: {error}");
        let (program, words) = self.words.split_first().ok_or("a command without a program")?;
        let mut output = tempfile::tempfile().map_err(failed)?;
        let stream = |file: &std::fs::File| file.try_clone().map(Stdio::from).map_err(failed);
        let variables = self.env.iter().filter_map(|text| text.split_once('='));
        let mut child = Command::new(program)
            .args(words)
            .env_clear()
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(stream(&output)?)
            .stderr(stream(&output)?)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(|error| error.to_string())?);
        let ended = PidFd::open(pid).and_then(|process| process.wait_ended(Some(PATIENCE)));
        if !matches!(ended, Ok(true)) {
            // Its group is its own, and the number stays its own until it is
            // reaped.
            let _ = killpg(pid, Signal::SIGKILL);
        }
        let status = child.wait().map_err(failed)?;
        let mut text = Vec::new();
        output
            .seek(SeekFrom::Start(0))
            .and_then(|_| output.read_to_end(&mut text))
            .map_err(failed)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        if !matches!(ended, Ok(true)) {
            return Err(format!("`{name}` did not end within {} s", PATIENCE.as_secs()));
        }
        if !status.success() {
            let text = text.trim().replace('\n', "; ");
            return Err(format!("`{name}` ended with {status}: {text}"));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_program_that_fails_is_an_error_with_its_words() {
        let env = base_environment();
        let good = words(&["/bin/sh", "-c", "echo 1.2.3"]);
        assert_eq!(External::new(&good, &env).output().as_deref(), Ok("1.2.3\n"));
        let bad = words(&["/bin/sh", "-c", "echo no >&2; exit 3"]);
        let error = External::new(&bad, &env).output().expect_err("fails");
        assert!(error.contains("no") && error.contains('3'), "{error}");
        let none = words(&["/no/such/program"]);
        assert!(External::new(&none, &env).output().is_err());
    }
}
