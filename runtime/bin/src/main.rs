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
mod diagnose;
mod foreground;
mod json;
mod log;
mod resources;
mod signal;
mod state;
mod streams;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let sealed = if makes_processes() { berth_sys::exe::seal() } else { Ok(()) };
    let cli = cli::Cli::parse();
    let log = match log::Log::open(&cli.global) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("berth-runtime: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    match sealed.map_err(anyhow::Error::from).and_then(|()| commands::run(&cli, &log)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log.error(&told_once(&error));
            // runc's `exec` says 255 for its own failures, so that 1 stays the program's.
            ExitCode::from(if matches!(cli.command, cli::Command::Exec(_)) { 255 } else { 1 })
        }
    }
}

/// Whether this command may enter a container. Asked before the flags are parsed: the program is started anew for it.
fn makes_processes() -> bool {
    std::env::args_os().any(|word| word == "create" || word == "run" || word == "exec")
}

/// The chain of causes in one line, each of them once: some errors already have their cause in their text.
fn told_once(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            let colon = if text.is_empty() { "" } else { ": " };
            text = text + colon + &cause;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = std::io::Error::other("disk full");
        let inner = berth_core::Error::Io { operation: "write", path: "/a".into(), source: cause };
        assert_eq!(
            told_once(&anyhow::Error::from(inner).context("run failed")),
            "run failed: write /a: disk full"
        );
    }
}
