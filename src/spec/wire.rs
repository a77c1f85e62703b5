//! The text form of a spec, and where in the text an error stands.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Problem, nearest};

/// A spec as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpecWire {
    pub title: Option<String>,
    #[serde(default)]
    pub rounds: RoundsWire,
    #[serde(default)]
    pub density: DensityWire,
    #[serde(default)]
    pub cells: Vec<Spanned<CellWire>>,
}

/// The table `[rounds]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoundsWire {
    pub startup: Option<Spanned<i64>>,
    pub memory: Option<Spanned<i64>>,
    pub density: Option<Spanned<i64>>,
    pub minimum: Option<Spanned<i64>>,
    pub scale: Option<Spanned<i64>>,
    pub ksm: Option<Spanned<i64>>,
}

/// The table `[density]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DensityWire {
    pub cap: Option<Spanned<i64>>,
    pub slo_ms: Option<Spanned<i64>>,
}

/// One entry of `[[cells]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CellWire {
    pub backend: Option<Spanned<String>>,
    #[serde(default)]
    pub params: BTreeMap<Spanned<String>, Spanned<toml::Value>>,
    #[serde(default)]
    pub startup: Vec<Spanned<String>>,
    #[serde(default)]
    pub memory: Vec<Spanned<String>>,
    #[serde(default)]
    pub density: Vec<Spanned<String>>,
    #[serde(default)]
    pub minimum: Vec<Spanned<String>>,
    #[serde(default)]
    pub scale: Vec<Spanned<String>>,
    #[serde(default)]
    pub ksm: Vec<Spanned<String>>,
    pub rounds: Option<Spanned<i64>>,
    pub density_cap: Option<Spanned<i64>>,
    pub memory_cap: Option<Spanned<i64>>,
    pub scale_cap: Option<Spanned<i64>>,
    pub ksm_cap: Option<Spanned<i64>>,
}

/// Something wrong at a byte of the text.
#[derive(Debug)]
pub(super) struct Located {
    pub at: usize,
    pub problem: Problem,
}

/// Reads the text into its wire form.
pub(super) fn parse(text: &str) -> Result<SpecWire, Located> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let problem = unknown_key(text, at, error.message())
            .unwrap_or_else(|| Problem::Syntax(plain_words(error.message())));
        Located { at, problem }
    })
}

/// The line of a byte, from 1.
pub(super) fn line_of(text: &[u8], at: usize) -> usize {
    1 + text.iter().take(at).filter(|byte| **byte == b'\n').count()
}

/// serde names Rust types; people do not.
fn plain_words(message: &str) -> String {
    message
        .replace("expected i64", "expected a whole number")
        .replace("expected a sequence", "expected a list such as [\"pause\"]")
        .replace("expected a map", "expected a table")
        .replace("expected struct RoundsWire", "expected a table")
        .replace("expected struct DensityWire", "expected a table")
        .replace("expected struct CellWire", "expected a table")
        .replace('\n', ", ")
}

/// Recognises serde's message about an unknown field, which lists the names
/// it knows in backquotes after the one it does not.
fn unknown_key(text: &str, at: usize, message: &str) -> Option<Problem> {
    if !message.starts_with("unknown field ") {
        return None;
    }
    let mut names = message.split('`').skip(1).step_by(2).map(str::to_owned);
    let key = names.next()?;
    let known: Vec<String> = names.collect();
    Some(Problem::UnknownKey {
        table: table_of(text, at).unwrap_or_else(|| "in this table".to_owned()),
        nearest: nearest(&key, known.iter().map(String::as_str)),
        key,
        known,
    })
}

/// The table in which the key at this byte stands.
fn table_of(text: &str, at: usize) -> Option<String> {
    let table = DeTable::parse(text).ok()?;
    find(table.get_ref(), at, "at top level")
}

fn find(table: &DeTable<'_>, at: usize, name: &str) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        if key.span().start == at {
            return Some(name.to_owned());
        }
        match value.get_ref() {
            DeValue::Table(inner) => find(inner, at, &format!("in [{}]", key.get_ref())),
            DeValue::Array(items) => items.iter().find_map(|item| match item.get_ref() {
                DeValue::Table(inner) => find(inner, at, &format!("in [[{}]]", key.get_ref())),
                _ => None,
            }),
            _ => None,
        }
    })
}
