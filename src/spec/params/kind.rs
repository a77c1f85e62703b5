//! The kinds of values that a parameter takes, and their one stored spelling.

use crate::units::{Bytes, MIB};

/// What values a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One of a list of words.
    OneOf(&'static [&'static str]),
    /// A size in bytes between two bounds, stored as `128M`.
    Size {
        /// Smallest allowed, in bytes.
        min: u64,
        /// Largest allowed, in bytes.
        max: u64,
    },
    /// A whole number between two bounds.
    Whole {
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
    /// A number of processors, whole or a fraction with up to two decimals.
    Cpus,
}

impl Kind {
    /// The stored spelling of `text`, if it is allowed.
    pub(super) fn canonical(self, text: &str) -> Option<String> {
        match self {
            Self::OneOf(words) => words.contains(&text).then(|| text.to_owned()),
            Self::Size { min, max } => {
                let Bytes(bytes) = text.parse().ok()?;
                (min..=max).contains(&bytes).then(|| size_text(bytes))
            }
            Self::Whole { min, max } => {
                let number: u64 = whole(text)?;
                (min..=max).contains(&number).then(|| number.to_string())
            }
            Self::Cpus => cpus_text(text),
        }
    }

    /// What is allowed, in words.
    #[must_use]
    pub fn expected(self) -> String {
        match self {
            Self::OneOf(words) => words.join(" or "),
            Self::Size { min, max } => {
                format!("a size from {} to {}, such as 128M", size_text(min), size_text(max))
            }
            Self::Whole { min, max } => format!("a whole number from {min} to {max}"),
            Self::Cpus => "processors from 0.01 to 1024, such as 1 or 0.5".to_owned(),
        }
    }
}

/// A whole number in plain digits.
fn whole(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// The shortest exact spelling of a size.
fn size_text(bytes: u64) -> String {
    for (factor, letter) in [(1024 * MIB, "G"), (MIB, "M"), (1024, "K")] {
        if bytes > 0 && bytes.is_multiple_of(factor) {
            return format!("{}{letter}", bytes / factor);
        }
    }
    bytes.to_string()
}

/// Processors in hundredths, so that `0.5` and `0.50` are one spelling.
fn cpus_text(text: &str) -> Option<String> {
    let (units, hundredths) = text.split_once('.').unwrap_or((text, "0"));
    if hundredths.is_empty() || hundredths.len() > 2 {
        return None;
    }
    let units = whole(units).filter(|_| !units.is_empty())?;
    let hundredths = whole(&format!("{hundredths:0<2}"))?;
    let total = units.checked_mul(100)?.checked_add(hundredths)?;
    if !(1..=102_400).contains(&total) {
        return None;
    }
    let text = format!("{}.{:02}", total / 100, total % 100);
    Some(text.trim_end_matches('0').trim_end_matches('.').to_owned())
}
