//! `unladen doctor`: each fact about this host, its effect on measurements,
//! and the remedy.

use std::path::Path;

use serde::Serialize;

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
    evidence: &'a str,
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
        evidence: &finding.evidence,
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

/// What is well in one line each; what is not with its effect and remedy.
fn print(findings: &[Finding]) -> Result<(), CliError> {
    for finding in findings {
        let severity = word(finding.severity);
        print_line(&format!("{severity:<8}{}: {}", finding.fact, finding.value))?;
        for (name, text) in
            [("effect", &finding.effect), ("remedy", &finding.remedy), ("known", &finding.evidence)]
        {
            if !text.is_empty() {
                print_line(&format!("        {name}: {text}"))?;
            }
        }
    }
    Ok(())
}
