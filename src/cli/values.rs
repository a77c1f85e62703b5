//! Values of flags: shares, times, sockets.

use std::path::PathBuf;
use std::time::Duration;

/// A share from per cent, with or without the sign.
pub(super) fn percent(text: &str) -> Result<f64, String> {
    match text.trim().trim_end_matches('%').trim_end().parse::<f64>() {
        Ok(value) if (0.0..=1000.0).contains(&value) => Ok(value / 100.0),
        _ => Err("per cent between 0 and 1000 are needed, such as `5` or `2.5%`".to_owned()),
    }
}

/// A system and the socket of its daemon.
pub(super) fn engine_socket(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, socket)) if !name.is_empty() && socket.starts_with('/') => {
            Ok((name.to_owned(), PathBuf::from(socket)))
        }
        _ => Err("NAME=SOCKET is needed, with the socket's whole path, such as \
                  docker=/run/docker.sock"
            .to_owned()),
    }
}

/// A share of less than all, from per cent.
pub(super) fn share(text: &str) -> Result<f64, String> {
    percent(text).and_then(|share| match share < 1.0 {
        true => Ok(share),
        false => Err("less than 100 per cent are needed".to_owned()),
    })
}

/// Thousandths from per cent.
pub(super) fn thousandths(text: &str) -> Result<u32, String> {
    let share = percent(text)?;
    let (low, high) = (0.001, 1.0);
    if !(low..=high).contains(&share) {
        return Err("per cent between 0.1 and 100 are needed".to_owned());
    }
    // A whole number from 1 to 1000.
    format!("{:.0}", share * 1000.0).parse().map_err(|_| "not a number".to_owned())
}

/// A duration such as `90s`, `3m` or `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let error = || format!("`{text}` is not a time: write a number and s, m or h, such as 90s");
    let (number, factor) = match text.char_indices().next_back() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        _ => return Err(error()),
    };
    let number: u64 = number.parse().map_err(|_| error())?;
    match number.checked_mul(factor) {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_parse_or_say_why_not() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("3m"), Ok(Duration::from_secs(180)));
        for bad in ["", "3", "m", "-1s", "0s", "1.5h", "999999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
