//! Signals by the interface's names.

use crate::v1::Signal;

/// The name that signal(7) knows; none leaves it to the image.
pub(super) fn name(number: i32) -> Option<String> {
    let signal = Signal::try_from(number).ok().filter(|signal| *signal != Signal::RuntimeDefault)?;
    // SIGRTMINPLUS3 is RTMIN+3.
    Some(signal.as_str_name().replace("PLUS", "+").replace("MINUS", "-"))
}

/// The interface's number of a signal of the kernel's.
pub(super) fn number(signal: i32) -> i32 {
    const RTMIN: i32 = 34;
    const RTMAX: i32 = 64;
    let signal = match nix::sys::signal::Signal::try_from(signal) {
        Ok(signal) => Signal::from_str_name(signal.as_str()),
        Err(_) if (RTMIN..=RTMAX).contains(&signal) => {
            Signal::try_from(Signal::Sigrtmin as i32 + signal - RTMIN).ok()
        }
        Err(_) => None,
    };
    signal.unwrap_or(Signal::RuntimeDefault) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(name(Signal::RuntimeDefault as i32), None);
        assert_eq!(name(Signal::Sigusr1 as i32).as_deref(), Some("SIGUSR1"));
        assert_eq!(name(Signal::Sigrtminplus3 as i32).as_deref(), Some("SIGRTMIN+3"));
        assert_eq!(name(Signal::Sigrtmaxminus2 as i32).as_deref(), Some("SIGRTMAX-2"));
        assert_eq!(number(15), Signal::Sigterm as i32);
        assert_eq!(number(37), Signal::Sigrtminplus3 as i32);
        assert_eq!(number(64), Signal::Sigrtmax as i32);
    }
}
