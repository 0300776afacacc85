//! Names of signals (signal(7)).

use anyhow::{Context, bail};
use nix::sys::signal::Signal;

/// Where names of real-time signals count from, for callers and containers alike; C libraries keep a few of their own before
/// that, musl one more.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Parses `9`, `KILL`, `SIGKILL`, `RTMIN+3`, `SIGRTMAX-1`.
pub(crate) fn parse(text: &str) -> anyhow::Result<i32> {
    let unknown = || format!("unknown signal {text:?} (give a name such as TERM, or a number)");
    if let Ok(number) = text.parse::<i32>() {
        if !(0..=RTMAX).contains(&number) {
            bail!(unknown());
        }
        return Ok(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        return realtime(RTMIN, offset).with_context(unknown);
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        return realtime(RTMAX, offset).with_context(unknown);
    }
    Ok(format!("SIG{name}").parse::<Signal>().with_context(unknown)? as i32)
}

fn realtime(base: i32, offset: &str) -> Option<i32> {
    let number = if offset.is_empty() { base } else { base.checked_add(offset.parse().ok()?)? };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_nonsense() {
        let good = [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+1", 35), ("rtmax-1", 63), ("0", 0)];
        for (text, number) in good {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "SIG", "NOPE", "65", "-1", "RTMIN-1", "RTMAX+1", "RTMIN+x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
