//! Our terminal: raw while a container has it, and as it was afterwards.

use std::io::{IsTerminal, stdin, stdout};

use anyhow::{Context, Result};
use nix::sys::termios::{LocalFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Raw mode; dropping it brings back what was.
#[derive(Debug)]
pub(crate) struct Raw(Termios);

impl Raw {
    /// Puts standard input into raw mode, if it is a terminal.
    pub(crate) fn enter() -> Result<Option<Self>> {
        if !stdin().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(stdin()).context("cannot read the terminal's settings")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSANOW, &raw).context("cannot set the terminal to raw mode")?;
        Ok(Some(Self(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone away.
        tcsetattr(stdin(), SetArg::TCSANOW, &self.0).ok();
    }
}

/// Does something while the terminal does not show what is typed.
pub(crate) fn without_echo<T>(act: impl FnOnce() -> T) -> Result<T> {
    let before = tcgetattr(stdin()).context("cannot read the terminal's settings")?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(stdin(), SetArg::TCSANOW, &silent).context("cannot switch the terminal's echo off")?;
    let restored = Raw(before);
    let done = act();
    drop(restored);
    Ok(done)
}

/// Whether a container's terminal can be ours; docker's words if not.
pub(crate) fn check(tty: bool, interactive: bool) -> Result<()> {
    if tty && interactive && !stdin().is_terminal() {
        anyhow::bail!("the input device is not a TTY");
    }
    Ok(())
}

/// Rows and columns of standard output.
pub(crate) fn size() -> Option<(u16, u16)> {
    if !stdout().is_terminal() {
        return None;
    }
    let (terminal_size::Width(columns), terminal_size::Height(rows)) = terminal_size::terminal_size()?;
    Some((rows, columns))
}
