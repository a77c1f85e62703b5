//! Asking a system for its version, and what its program says without what
//! everybody knows: that it is this program, and that it is a version.

use super::Peer;
use super::external::{self, External};
use super::words::Values;
use crate::backend::Backend;
use crate::record::{CellKey, Experiment, Params, Version, Workload};
use crate::spec::Kind;
use crate::spec::systems::tokens;

impl Peer {
    /// What the version commands say for a cell with these parameters.
    pub(super) fn ask_versions(&mut self, cell: &CellKey) -> Result<Vec<Version>, String> {
        if let Some(known) = self.versions.get(&cell.params) {
            return known.clone();
        }
        let found = self.find_versions(cell);
        self.versions.insert(cell.params.clone(), found.clone());
        found
    }

    fn find_versions(&self, cell: &CellKey) -> Result<Vec<Version>, String> {
        let values = self.values(cell)?;
        // The files that its own variables name are not there yet.
        let env = external::base_environment();
        let mut lines = Vec::new();
        for words in &self.system.version {
            let mut command = values.all(words);
            // A helper is called by its name alone.
            let helper = Some(command[0].clone()).filter(|name| !name.contains('/'));
            match external::find(&command[0], &self.assets) {
                Some(path) => command[0] = path.display().to_string(),
                None => return Err(format!("{} is not installed", command[0])),
            }
            let output = External::new(&command, &env).output()?;
            let line =
                telling(&output).ok_or_else(|| format!("`{}` says nothing", command.join(" ")))?;
            lines.push(match &helper {
                Some(name) => named(&line, name),
                None => plain(&line, &self.names()),
            });
        }
        if self.system.never_run {
            lines.push("never run by us".to_owned());
        }
        let version = lines.join("; ");
        Ok(vec![Version { name: self.system.name.clone(), version }])
    }

    /// The same for a cell that is to be measured: with what a daemon has and
    /// cannot be told.
    pub(super) fn fitting_versions(&mut self, cell: &CellKey) -> Result<Vec<Version>, String> {
        let versions = self.ask_versions(cell)?;
        let values = Values::of_cell(cell, self.system.params);
        let has = |text: &String| versions.iter().any(|version| version.version.contains(text));
        match self.system.says.iter().map(|text| values.fill(text)).find(|text| !has(text)) {
            Some(text) => {
                let said: Vec<String> = versions.into_iter().map(|all| all.version).collect();
                Err(format!("this cell needs one with `{text}`, and it is {}", said.join("; ")))
            }
            None => Ok(versions),
        }
    }

    /// What there is of the system, for whatever cell: with its parameters'
    /// defaults, or else with those for which there is a daemon.
    pub(super) fn any_version(&mut self) -> Result<Vec<Version>, String> {
        let (experiment, workload) = (Experiment::Startup, Workload::Exit);
        let cell = |params| CellKey { experiment, backend: self.name(), workload, params };
        let mut cells = vec![cell(Params::default())];
        let daemon = self.system.daemon.as_deref().unwrap_or_default();
        for param in
            self.system.params.iter().filter(|param| tokens(daemon).any(|t| t == param.name))
        {
            let Kind::OneOf(values) = param.kind else { continue };
            cells.extend(values.iter().map(|value| {
                let mut params = Params::default();
                params.edit().insert(param.name.to_owned(), (*value).to_owned());
                cell(params)
            }));
        }
        let mut results = cells.iter().map(|cell| self.ask_versions(cell));
        let first = results.next().unwrap_or_else(|| Ok(Vec::new()));
        first.or_else(|reason| results.find(Result::is_ok).unwrap_or(Err(reason)))
    }

    /// What its program may call itself.
    fn names(&self) -> Vec<&str> {
        let binaries = self.system.binary.iter().map(String::as_str);
        binaries.chain([self.system.name.as_str()]).collect()
    }
}

/// The line of an output that tells a version: the first one, or, under
/// headings such as `Client:` and `Server:`, the last heading's `Version:`.
fn telling(output: &str) -> Option<String> {
    let lines = || output.lines().filter(|line| !line.trim().is_empty());
    let first = lines().next()?.trim();
    if !first.ends_with(':') {
        return Some(first.to_owned());
    }
    let mut heading = first;
    let mut found = None;
    for line in lines() {
        match line.trim().strip_prefix("Version:") {
            Some(version) => found = Some((heading, version.trim())),
            None if line.ends_with(':') => heading = line.trim(),
            None => {}
        }
    }
    let (heading, version) = found?;
    Some(format!("{} {version}", heading.trim_end_matches(':').to_lowercase()))
}

/// The telling part of what a program with one of these names prints. Its own
/// name and the word `version` go where they stand in front; a line that has
/// nothing else stays as it is.
fn plain(line: &str, names: &[&str]) -> String {
    let own = |word: &str| names.iter().any(|name| name.eq_ignore_ascii_case(word));
    let said = |word: &&str| {
        let word = word.trim_end_matches([':', ',']);
        own(word) || ["version", "from"].iter().any(|known| known.eq_ignore_ascii_case(word))
    };
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut telling: Vec<&str> = words.iter().copied().skip_while(said).collect();
    // A program in Go may give its module's path for its name.
    if let Some(name) = telling.first_mut()
        && let Some((_, last)) = name.rsplit_once('/')
    {
        *name = last;
    }
    let telling = if telling.is_empty() { words } else { telling };
    telling.join(" ")
}

/// The same for a program that stands beside another: with its name.
fn named(line: &str, name: &str) -> String {
    format!("{name} {}", plain(line, &[name]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_does_not_repeat_its_programs_name() {
        for (line, names, expected) in [
            ("runc version 1.1.5+ds1", &["runc"][..], "1.1.5+ds1"),
            ("youki version: 0.7.0", &["youki"], "0.7.0"),
            (
                "Docker version 20.10.24+dfsg1, build 297e128",
                &["docker"],
                "20.10.24+dfsg1, build 297e128",
            ),
            ("ctr github.com/containerd/containerd 1.6.20", &["ctr"], "containerd 1.6.20"),
            ("unshare from util-linux 2.38.1", &["unshare"], "util-linux 2.38.1"),
            ("bubblewrap 0.8.0", &["bwrap"], "bubblewrap 0.8.0"),
            (
                "systemd 252 (252.39-1~deb12u2)",
                &["nspawn", "systemd-nspawn"],
                "systemd 252 (252.39-1~deb12u2)",
            ),
            ("5.0.2", &["lxc"], "5.0.2"),
            ("runc version", &["runc"], "runc version"),
        ] {
            assert_eq!(plain(line, names), expected, "{line}");
        }
        let both = "Client:\n  Version:  1.6\n\nServer:\n  Version:  1.7\n  UUID: d9ce\n";
        assert_eq!(telling(both).as_deref(), Some("server 1.7"));
        assert_eq!(telling("\n 5.0.2 \nmore\n").as_deref(), Some("5.0.2"));
        assert_eq!((telling(""), telling("Client:\n")), (None, None));
        assert_eq!(named("conmon version 2.1.6", "conmon"), "conmon 2.1.6");
    }
}
