//! `berth-runtime`: the runc-compatible command line of the OCI runtime.
//!
//! ```text
//!  cli (flags) ─▶ commands/<name> ─▶ state (what is on disk) ─▶ berth-core (what forks)
//! ```
//!
//! One thread, one command, one process; nothing stays behind but the state directory.

mod activation;
mod bundle;
mod checkpoint;
mod cli;
mod commands;
mod diagnose;
mod foreground;
mod json;
mod log;
mod notify;
mod privilege;
mod resources;
mod signal;
mod state;
mod stats;
mod streams;

use std::process::ExitCode;

use berth_sys::exe::Sealed;
use clap::error::{ContextKind, ErrorKind};

// (The tests of this crate have many threads.)
#[cfg(not(test))]
#[global_allocator]
static HEAP: berth_sys::heap::OneThread = berth_sys::heap::OneThread::new();

fn main() -> ExitCode {
    let sealed = makes_processes().then(berth_sys::exe::seal).transpose();
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let log = match log::Log::open(&cli.global) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("berth-runtime: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let sealed = sealed.map(|way| way.iter().for_each(|way| log.debug(protected(*way))));
    match sealed.map_err(anyhow::Error::from).and_then(|()| commands::run(&cli, &log)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log.error(&told(&error));
            // runc's `exec` says 255 for its own failures, so that 1 stays the program's.
            ExitCode::from(if matches!(cli.command, cli::Command::Exec(_)) { 255 } else { 1 })
        }
    }
}

/// Help, the version, or what is wrong with the command line.
fn usage(error: &clap::Error) -> ExitCode {
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some(name) = error.get(ContextKind::InvalidSubcommand)
    {
        eprintln!("No help topic for '{name}'");
    }
    // Standard output may be closed already; nobody reads it then.
    error.print().ok();
    if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Whether this command may enter a container. Asked before the flags are parsed: the program is started anew for it.
fn makes_processes() -> bool {
    std::env::args_os().any(|word| word == "create" || word == "run" || word == "exec")
}

/// In the words that are looked for in runc's log.
fn protected(way: Sealed) -> &'static str {
    match way {
        Sealed::Mount => "runc exeseal: using /proc/self/exe clone: a read-only mount of its own",
        Sealed::Copy => "runc exeseal: using /proc/self/exe clone: a sealed copy in memory",
    }
}

/// The error and its causes in one line. Many errors name their cause in their own text; it is not said twice.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| {
        match (told.is_empty(), told.contains(&cause)) {
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
        let cause = std::io::Error::other("no room");
        let error = anyhow::Error::new(cause).context("write /x: no room (make some)");
        assert_eq!(told(&error), "write /x: no room (make some)");
    }
}
