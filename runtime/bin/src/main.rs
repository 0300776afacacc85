//! `berth-runtime`: the runc-compatible command line of the OCI runtime.
//!
//! ```text
//!  cli (flags) ─▶ commands/<name> ─▶ state (what is on disk) ─▶ berth-core (what forks)
//! ```
//!
//! One thread, one command, one process; nothing stays behind but the state directory.

mod bundle;
mod cli;
mod commands;
mod foreground;
mod log;
mod resources;
mod signal;
mod state;
mod streams;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let log = match log::Log::open(&cli.global) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("berth-runtime: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    match commands::run(&cli, &log) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log.error(&told(&error));
            // runc's `exec` says 255 for its own failures, so that 1 stays the program's.
            ExitCode::from(if matches!(cli.command, cli::Command::Exec(_)) { 255 } else { 1 })
        }
    }
}

/// The error and its causes in one line. Many errors name their cause in their own text; it is not said twice.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| {
        match (told.is_empty(), told.ends_with(&cause)) {
            (true, _) => cause,
            (false, true) => told,
            (false, false) => format!("{told}: {cause}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = std::io::Error::other("no room");
        let error = anyhow::Error::new(cause).context("write /x: no room").context("create failed");
        assert_eq!(told(&error), "create failed: write /x: no room");
    }
}
