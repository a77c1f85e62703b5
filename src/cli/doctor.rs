//! `unladen doctor`: each fact about this host, why it matters, its effect on
//! measurements, and the remedy.

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
    why: &'a str,
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
        why: &finding.why,
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

/// Each fact and why it matters; what is not well with its effect here, the
/// remedy, and what others have measured of it.
fn print(findings: &[Finding]) -> Result<(), CliError> {
    for finding in findings {
        let severity = word(finding.severity);
        print_line(&format!("{severity:<8}{}: {}", finding.fact, finding.value))?;
        for (name, text) in [
            ("why", &finding.why),
            ("effect", &finding.effect),
            ("remedy", &finding.remedy),
            ("known", &finding.evidence),
        ] {
            if !text.is_empty() {
                print_line(&format!("        {name}: {text}"))?;
            }
        }
    }
    Ok(())
}
