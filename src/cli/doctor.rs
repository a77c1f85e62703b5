//! `unladen doctor`: each fact about this host, its effect on measurements,
//! and the remedy.

use std::path::Path;

use comfy_table::{Cell, Color};
use serde::Serialize;

use super::list::new_table;
use super::{CliError, Exit, print_line};
use crate::backend::{Assets, inventory};
use crate::host::{Finding, Severity, doctor as examine};

/// A finding for programs.
#[derive(Serialize)]
struct Entry<'a> {
    fact: &'a str,
    value: &'a str,
    severity: &'static str,
    effect: &'a str,
    remedy: &'a str,
}

/// Prints the findings; a blocker makes the host lack something.
pub(super) fn doctor(json: bool) -> Result<Exit, CliError> {
    let assets = Assets::unpack()?;
    let findings = examine(&inventory(&assets), Path::new("."));
    if json {
        let entries: Vec<Entry<'_>> = findings.iter().map(entry).collect();
        let text = serde_json::to_string_pretty(&entries)
            .map_err(|error| CliError::Output(error.into()))?;
        print_line(&text)?;
    } else {
        print(&findings)?;
    }
    let blocked = findings.iter().any(|finding| finding.severity == Severity::Blocker);
    Ok(if blocked { Exit::HostLacks } else { Exit::Ok })
}

fn entry(finding: &Finding) -> Entry<'_> {
    Entry {
        fact: &finding.fact,
        value: &finding.value,
        severity: word(finding.severity),
        effect: &finding.effect,
        remedy: &finding.remedy,
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok",
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Blocker => "blocker",
    }
}

fn print(findings: &[Finding]) -> Result<(), CliError> {
    let mut table = new_table(["", "fact", "value", "effect", "remedy"]);
    for finding in findings {
        let color = match finding.severity {
            Severity::Ok => Color::Green,
            Severity::Note => Color::Blue,
            Severity::Warning => Color::Yellow,
            Severity::Blocker => Color::Red,
        };
        table.add_row([
            Cell::new(word(finding.severity)).fg(color),
            Cell::new(&finding.fact),
            Cell::new(&finding.value),
            Cell::new(&finding.effect),
            Cell::new(&finding.remedy),
        ]);
    }
    print_line(&table.to_string())
}
