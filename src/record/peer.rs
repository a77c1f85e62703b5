//! Names of systems that are not this suite's own.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// The longest name, in bytes.
const LONGEST: usize = 32;

/// Every name that was ever met. There are as many as systems, and all of them
/// stay: so a name can be copied like the backends that are this suite's own.
static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// The name of a system: a lower-case letter, then letters, digits, `-`, `_`
/// and `.`, at most 32 in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerName(&'static str);

/// A text that cannot be the name of a backend.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` cannot be the name of a backend: expected a lower-case letter, then letters, digits, -, _ \
     and ., at most {LONGEST} in all"
)]
pub struct PeerNameError(String);

impl PeerName {
    /// A name, if it is one.
    ///
    /// # Errors
    /// When the text has other characters or is too long.
    pub fn new(text: &str) -> Result<Self, PeerNameError> {
        let fine = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
        };
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        if !begins || text.len() > LONGEST || !text.bytes().all(fine) {
            return Err(PeerNameError(text.to_owned()));
        }
        // A set of texts is whole even if somebody panicked beside it.
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(text) {
            return Ok(Self(known));
        }
        let name: &'static str = Box::leak(text.to_owned().into_boxed_str());
        names.insert(name);
        Ok(Self(name))
    }

    /// The text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::BackendName;
    use super::*;

    #[test]
    fn a_name_is_one_value_however_often_it_is_read() {
        let one = PeerName::new("runc").expect("a name");
        let text: String = ["ru", "nc"].concat();
        let again = PeerName::new(&text).expect("a name");
        assert!(std::ptr::eq(one.as_str(), again.as_str()));
        assert_eq!("runc".parse(), Ok(BackendName::Peer(one)));
        assert_eq!("container".parse(), Ok(BackendName::Container));
        let text = serde_json::to_string(&BackendName::Peer(one)).expect("JSON");
        assert_eq!(text, "\"runc\"");
        assert_eq!(
            serde_json::from_str::<BackendName>(&text).expect("read"),
            BackendName::Peer(one)
        );
    }

    #[test]
    fn what_would_not_fit_into_files_is_refused() {
        for bad in ["", "Runc", "1runc", "a;b", "a=b", "a,b", "a b", &"x".repeat(33)] {
            assert!(PeerName::new(bad).is_err(), "{bad}");
        }
    }
}
