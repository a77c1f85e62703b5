//! The environment of a command.

use std::fs;
use std::path::Path;

use super::ContainerError;
use super::args::RunArgs;
use crate::container::DEFAULT_PATH;

/// Puts the environment together; what comes later counts.
///
/// `base` is what the image says. A name without a value takes this
/// process's value, and nothing when it has none.
pub(super) fn environment(
    args: &RunArgs,
    base: &[String],
    home: Option<&str>,
) -> Result<Vec<String>, ContainerError> {
    let mut all = Variables::default();
    all.set(&format!("PATH={DEFAULT_PATH}"));
    all.set(&format!("HOME={}", home.unwrap_or("/")));
    all.set(&format!("HOSTNAME={}", args.hostname));
    if args.tty {
        all.set(&format!("TERM={}", own("TERM").unwrap_or_else(|| "xterm".to_owned())));
    }
    for variable in base {
        all.set(variable);
    }
    for path in &args.env_file {
        for variable in read(path)? {
            all.set(&variable);
        }
    }
    for variable in &args.env {
        all.set(variable);
    }
    Ok(all.0)
}

/// Variables in the order in which they were named first.
#[derive(Default)]
struct Variables(Vec<String>);

impl Variables {
    fn set(&mut self, text: &str) {
        let value = match text.split_once('=') {
            Some(_) => text.to_owned(),
            None => match own(text) {
                Some(value) => format!("{text}={value}"),
                None => return,
            },
        };
        let name = |variable: &str| variable.split('=').next().map(str::to_owned);
        match self.0.iter_mut().find(|known| name(known) == name(&value)) {
            Some(known) => *known = value,
            None => self.0.push(value),
        }
    }
}

/// A variable of this process. A value that is no UTF-8 cannot be in a spec.
fn own(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// One variable a line; empty lines and those with `#` in front are none.
fn read(path: &Path) -> Result<Vec<String>, ContainerError> {
    let text = fs::read_to_string(path)
        .map_err(|source| ContainerError::EnvironmentFile { path: path.to_owned(), source })?;
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim_start()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| match line.split('=').next() {
            Some(name) if !name.trim().is_empty() => Ok(line.to_owned()),
            _ => Err(ContainerError::EnvironmentLine {
                path: path.to_owned(),
                line: number,
                text: line.to_owned(),
            }),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_variables_replace_earlier_ones_in_place() {
        let mut all = Variables::default();
        for variable in ["A=1", "B=2=3", "A=", "UNLADEN_NO_SUCH_VARIABLE"] {
            all.set(variable);
        }
        assert_eq!(all.0, ["A=", "B=2=3"]);
    }

    #[test]
    fn files_have_comments_and_errors_have_lines() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("env");
        fs::write(&path, "# comment\n\nA=1 # kept\n  B=x\n").expect("written");
        assert_eq!(read(&path).expect("read"), ["A=1 # kept", "B=x"]);
        fs::write(&path, "A=1\n=2\n").expect("written");
        let error = read(&path).expect_err("refused").to_string();
        assert!(error.ends_with("env:2: `=2` has no name before the `=`"), "{error}");
    }
}
