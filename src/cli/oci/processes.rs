//! `ps`: the processes of a container.

use std::process::Command;

use super::OciError;
use super::args::Format;
use super::describe;
use crate::cli::print_line;
use crate::container::lifecycle::Lifecycle;

/// Prints them as numbers, or as those lines of the host's `ps` that are about
/// them.
pub(super) fn list(
    containers: &Lifecycle,
    id: &str,
    format: Format,
    options: &[String],
) -> Result<u8, OciError> {
    let pids: Vec<i32> =
        containers.processes(id)?.into_iter().map(nix::unistd::Pid::as_raw).collect();
    if format == Format::Json {
        return describe::line(&pids);
    }
    let standard = ["-ef".to_owned()];
    let options = if options.is_empty() { &standard } else { options };
    let ran = Command::new("ps").args(options).output();
    let output =
        ran.map_err(|source| OciError::File { action: "run", path: "ps".into(), source })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(OciError::Usage(format!("ps failed: {}", text.trim())));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    for line in narrow(&text, &pids)? {
        print_line(line).map_err(output_error)?;
    }
    Ok(0)
}

/// The first line and those whose column `PID` is one of these.
fn narrow<'a>(text: &'a str, pids: &[i32]) -> Result<Vec<&'a str>, OciError> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head
        .split_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| OciError::Usage("ps prints no column PID with these options".to_owned()))?;
    let ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|text| text.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    Ok(std::iter::once(head).chain(lines.filter(ours)).collect())
}

/// What `cli` says about its output, for this command.
pub(super) fn output_error(error: crate::cli::CliError) -> OciError {
    match error {
        crate::cli::CliError::Output(error) => OciError::Output(error),
        other => OciError::Usage(crate::errors::chain(&other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_the_container_stay() {
        let text = "UID   PID  CMD\nroot    1  init\nroot   22  a b\nroot  122  c\n";
        assert_eq!(narrow(text, &[22]).expect("a table"), ["UID   PID  CMD", "root   22  a b"]);
        assert!(narrow("CMD\ninit\n", &[1]).is_err());
    }
}
