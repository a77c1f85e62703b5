//! Units of what is measured, and how a person reads them.
//!
//! A [`Unit`] travels with every sample, so that no number is ever stored or
//! drawn without one. Conversions happen here and nowhere else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes in a mebibyte.
pub const MIB: u64 = 1024 * 1024;

/// The unit of a stored value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Unit {
    /// Nanoseconds on `CLOCK_MONOTONIC`.
    #[serde(rename = "ns")]
    Nanoseconds,
    /// Bytes.
    #[serde(rename = "bytes")]
    Bytes,
    /// A plain count, such as a number of instances.
    #[serde(rename = "count")]
    Count,
    /// Busy processors: 1 is one of them all the time.
    #[serde(rename = "processors")]
    Processors,
}

impl Unit {
    /// The spelling used in `samples.csv` and `summary.json`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Bytes => "bytes",
            Self::Count => "count",
            Self::Processors => "processors",
        }
    }

    /// Formats a value of this unit for a person, with three significant
    /// digits: `1.23 ms`, `15.6 MiB`, `64`, `0.21 %`.
    #[must_use]
    pub fn human(self, value: f64) -> String {
        match self {
            Self::Nanoseconds => scaled(value, 1000.0, &["ns", "µs", "ms", "s"]),
            Self::Bytes => scaled(value, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"]),
            Self::Count => three_digits(value),
            Self::Processors => format!("{} %", three_digits(100.0 * value)),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Walks `value` up the list of unit names, dividing by `base` at each step,
/// as long as it would round to `base` or more of the smaller unit.
fn scaled(value: f64, base: f64, names: &[&str]) -> String {
    let mut value = value;
    let mut index = 0;
    while value.abs().round() >= base && index + 1 < names.len() {
        value /= base;
        index += 1;
    }
    format!("{} {}", three_digits(value), names[index])
}

/// Three significant digits, without an exponent and without decimals that
/// the magnitude does not carry.
fn three_digits(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude == 0.0 || magnitude >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// Why a text is not a size in bytes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not a size: write a whole number of bytes, or one with K, M or G (powers of 1024)"
)]
pub struct SizeError(String);

/// A number of bytes, written `64M`, `1G`, `512K` or plainly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || SizeError(text.to_owned());
        let (digits, factor) = match text.char_indices().next_back() {
            Some((at, 'k' | 'K')) => (&text[..at], 1024),
            Some((at, 'm' | 'M')) => (&text[..at], MIB),
            Some((at, 'g' | 'G')) => (&text[..at], 1024 * MIB),
            _ => (text, 1),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(error());
        }
        let number: u64 = digits.parse().map_err(|_| error())?;
        number.checked_mul(factor).map(Self).ok_or_else(error)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Unit::Bytes.human(self.0 as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_three_digits() {
        assert_eq!(Unit::Nanoseconds.human(999.0), "999 ns");
        assert_eq!(Unit::Nanoseconds.human(1_234.0), "1.23 µs");
        assert_eq!(Unit::Nanoseconds.human(431_700_000.0), "432 ms");
        assert_eq!(Unit::Nanoseconds.human(999_600.0), "1.00 ms");
        assert_eq!(Unit::Nanoseconds.human(75_000_000_000.0), "75 s");
        assert_eq!(Unit::Bytes.human(15.6 * 1024.0 * 1024.0), "15.6 MiB");
        assert_eq!(Unit::Count.human(64.0), "64");
        assert_eq!(Unit::Processors.human(0.0021), "0.21 %");
        assert_eq!(Unit::Nanoseconds.human(-1_500.0), "-1.50 µs");
    }

    #[test]
    fn sizes_parse_or_say_why_not() {
        assert_eq!("64M".parse(), Ok(Bytes(64 * MIB)));
        assert_eq!("1g".parse(), Ok(Bytes(1024 * MIB)));
        assert_eq!("4096".parse(), Ok(Bytes(4096)));
        for bad in ["", "M", "12Q", "-1", "1.5G", "99999999999999999999", "18446744073709551615G"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
    }
}
