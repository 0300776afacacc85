//! The agreement of --console-socket, --detach and process.terminal.

use std::path::Path;

use anyhow::bail;
use berth_core::{ConsoleSink, Stdio};

/// Which streams a process gets. `detached`: nobody stays to serve a terminal.
pub(crate) fn choose(terminal: bool, socket: Option<&Path>, detached: bool) -> anyhow::Result<Stdio> {
    match (terminal, socket, detached) {
        (true, Some(path), true) => Ok(Stdio::Terminal(ConsoleSink::Socket(path.to_owned()))),
        (true, None, true) => bail!(
            "cannot allocate tty if berth-runtime will detach without setting console socket (give --console-socket)"
        ),
        (true, None, false) => Ok(Stdio::Terminal(ConsoleSink::Foreground)),
        (_, Some(_), false) | (false, Some(_), true) => bail!(
            "cannot use console socket if berth-runtime will not detach or allocate tty (leave --console-socket out)"
        ),
        (false, None, _) => Ok(Stdio::Inherit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_needs_somebody_to_serve_it() {
        let socket = Some(Path::new("/s"));
        assert!(choose(true, None, true).is_err());
        assert!(choose(false, socket, true).is_err());
        assert!(choose(true, socket, false).is_err());
        assert!(matches!(choose(false, None, true), Ok(Stdio::Inherit)));
        assert!(matches!(choose(true, None, false), Ok(Stdio::Terminal(ConsoleSink::Foreground))));
        assert!(matches!(choose(true, socket, true), Ok(Stdio::Terminal(ConsoleSink::Socket(_)))));
    }
}
