//! Signals by name and number.

use std::str::FromStr as _;

use nix::sys::signal::Signal;

use crate::error::{EngineError, Result};

pub(crate) const SIGKILL: i32 = nix::libc::SIGKILL;
pub(crate) const SIGTERM: i32 = nix::libc::SIGTERM;

/// A signal's number from `9`, `KILL`, `SIGKILL`, `RTMIN+3` …
pub(crate) fn parse(text: &str) -> Result<i32> {
    let invalid = || EngineError::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(invalid()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(number) = real_time(name) {
        return Ok(number);
    }
    match name {
        "CLD" => Ok(nix::libc::SIGCHLD),
        "POLL" => Ok(nix::libc::SIGIO),
        _ => Signal::from_str(&format!("SIG{name}")).map(|signal| signal as i32).map_err(|_| invalid()),
    }
}

/// `RTMIN`, `RTMIN+n`, `RTMAX-n`: 34 to 64, as Go and glibc number them.
fn real_time(name: &str) -> Option<i32> {
    let (base, offset) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(offset), _) => (34, offset),
        (_, Some(offset)) => (64, offset),
        _ => return None,
    };
    let offset: i32 = if offset.is_empty() { 0 } else { offset.parse().ok()? };
    Some(base + offset).filter(|number| (34..=64).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("RTMIN", 34),
            ("USR1", 10),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["BOGUS", "0", "65", "-1", "RTMIN+40", ""] {
            assert_eq!(parse(text).unwrap_err().message(), format!("invalid signal: {text}"));
        }
    }
}
