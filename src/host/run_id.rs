//! Ids of runs, times as text, and random numbers from the kernel.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::str::FromStr;
use std::time::SystemTime;

/// Why an id or a random number could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The kernel gave no random bytes.
    #[error("cannot read random bytes from /dev/urandom")]
    Random(#[source] io::Error),
}

/// Id of a run, such as `20261123-043512-a1b2c3`: the start in UTC and six
/// random hexadecimal digits. It has 22 characters, all of which may stand in
/// names of files, control groups and network links.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(String);

impl RunId {
    /// A new id for a run that begins at `start`.
    ///
    /// # Errors
    ///
    /// When the kernel gives no random bytes.
    pub fn new(start: SystemTime) -> Result<Self, HostError> {
        let time: String =
            utc(start).chars().filter(char::is_ascii_digit).take("YYYYMMDDhhmmss".len()).collect();
        let [a, b, c] = random()?;
        Ok(Self(format!("{}-{}-{a:02x}{b:02x}{c:02x}", &time[..8], &time[8..])))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is not a run id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a run id such as 20261123-043512-a1b2c3")]
pub struct RunIdError(pub String);

impl FromStr for RunId {
    type Err = RunIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || RunIdError(text.to_owned());
        let shape = |(at, byte): (usize, u8)| match at {
            8 | 15 => byte == b'-',
            16.. => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            _ => byte.is_ascii_digit(),
        };
        if text.len() != 22 || !text.bytes().enumerate().all(shape) {
            return Err(error());
        }
        let part = |from: usize, to: usize| &text[from..to];
        let time = format!(
            "{}-{}-{}T{}:{}:{}Z",
            part(0, 4),
            part(4, 6),
            part(6, 8),
            part(9, 11),
            part(11, 13),
            part(13, 15)
        );
        humantime::parse_rfc3339(&time).map_err(|_| error())?;
        Ok(Self(text.to_owned()))
    }
}

/// A time in UTC, RFC 3339 with seconds: `2026-11-23T04:35:12Z`.
#[must_use]
pub fn utc(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// A random number from the kernel, for the seed of a run.
///
/// # Errors
///
/// When the kernel gives no random bytes.
pub fn random_u64() -> Result<u64, HostError> {
    random().map(u64::from_le_bytes)
}

fn random<const N: usize>() -> Result<[u8; N], HostError> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(HostError::Random)?;
    Ok(bytes)
}
