//! What the tokens of a description stand for.

use std::collections::BTreeMap;

use crate::record::CellKey;
use crate::spec::Param;
use crate::spec::param_value;
use crate::spec::systems::{System, fill};
use crate::units::Bytes;

/// Tokens and what they stand for.
#[derive(Clone, Debug, Default)]
pub(super) struct Values(BTreeMap<String, String>);

impl Values {
    /// Those that a cell's parameters give.
    pub(super) fn of_cell(cell: &CellKey, params: &[Param]) -> Self {
        let mut values = Self::default();
        for param in params {
            values.set(param.name, param_value(cell, param.name).unwrap_or_default());
        }
        if let Some(Bytes(bytes)) =
            param_value(cell, "memory").and_then(|text| text.parse::<Bytes>().ok())
        {
            values.set("memory", &bytes.to_string());
        }
        let quota = param_value(cell, "cpus").and_then(super::super::container::hundredths);
        if let Some(hundredths) = quota {
            // Of each period of 100 ms.
            values.set("quota", &(hundredths * 1000).to_string());
        }
        values
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// A text with its tokens replaced; those of an instance stay.
    pub(super) fn fill(&self, text: &str) -> String {
        let values: Vec<(&str, &str)> =
            self.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        fill(text, &values)
    }

    /// Words with their tokens replaced.
    pub(super) fn all(&self, words: &[String]) -> Vec<String> {
        words.iter().map(|word| self.fill(word)).collect()
    }

    /// The same, where `{env}` stands for the payload's variables.
    pub(super) fn line(
        &self,
        words: &[String],
        form: &[String],
        env: &[(String, String)],
    ) -> Vec<String> {
        let expand = |word: &String| match word.as_str() {
            "{env}" => variables(form, env),
            _ => vec![self.fill(word)],
        };
        words.iter().flat_map(expand).collect()
    }
}

/// The words for all variables.
fn variables(form: &[String], env: &[(String, String)]) -> Vec<String> {
    env.iter()
        .flat_map(|(name, value)| {
            form.iter().map(|word| fill(word, &[("name", name), ("value", value)]))
        })
        .collect()
}

/// The files of an instance: those for this host's version of control groups.
pub(super) fn files(
    system: &System,
    values: &Values,
    env: &[(String, String)],
) -> Vec<(String, String)> {
    let version = if std::path::Path::new("/sys/fs/cgroup/memory/tasks").exists() { 1 } else { 2 };
    let wanted = system.files.iter().filter(|file| file.cgroup.is_none_or(|only| only == version));
    let lines = variables(&system.env, env).join("\n");
    wanted
        .map(|file| (file.name.clone(), values.fill(&fill(&file.text, &[("env", &lines)]))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn variables_become_words_and_an_instances_tokens_stay() {
        let mut values = Values::default();
        values.set("bin", "/usr/bin/box");
        let env = [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "x y".to_owned())];
        let line = words(&["{bin}", "{env}", "--name={id}", "{{.Driver}}", "{payload"]);
        let filled = values.line(&line, &words(&["--setenv", "{name}", "{value}"]), &env);
        let expected = words(&[
            "/usr/bin/box",
            "--setenv",
            "A",
            "1",
            "--setenv",
            "B",
            "x y",
            "--name={id}",
            "{{.Driver}}",
            "{payload",
        ]);
        assert_eq!(filled, expected);
    }
}
