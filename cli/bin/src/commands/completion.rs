//! `berth completion` and `berth man`: what a shell and man(1) want to know of the command line, from its own grammar.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Command};
use clap_complete::Shell;

use crate::exit::Exit;

/// Print a script with which a shell completes commands and options
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// Shell
    shell: Shell,
}

/// Write the manual pages into a directory
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Directory; it is made if it is not there
    directory: PathBuf,
}

pub(crate) fn completion(args: &Completion, mut grammar: Command) -> Exit {
    clap_complete::generate(args.shell, &mut grammar, "berth", &mut std::io::stdout());
    Exit::Success
}

pub(crate) fn man(args: &Man, grammar: Command) -> Result<Exit> {
    let written = std::fs::create_dir_all(&args.directory)
        .and_then(|()| clap_mangen::generate_to(grammar, &args.directory));
    written.with_context(|| format!("cannot write to {}", args.directory.display()))?;
    Ok(Exit::Success)
}
