//! One way to print an error with its causes.

use std::error::Error;

/// The error and all of its causes in one line: `what: why: why`.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // A transparent wrapper says the same as its cause.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open `x`")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_follow_each_other() {
        let inner = std::io::Error::other("disk on fire");
        assert_eq!(chain(&Outer(inner)), "cannot open `x`: disk on fire");
    }
}
