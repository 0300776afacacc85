//! One file for each command.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod exec;
pub(crate) mod features;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod pause;
pub(crate) mod ps;
pub(crate) mod resume;
pub(crate) mod run;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod update;

use std::path::Path;

use anyhow::{Context, bail};

use crate::cli::{Cli, Command};
use crate::log::Log;
use crate::state::Store;

/// Runs the command; the number is the exit code.
pub(crate) fn run(cli: &Cli, log: &Log) -> anyhow::Result<u8> {
    if cli.global.systemd_cgroup {
        bail!("--systemd-cgroup is not supported yet (leave it out: cgroups are managed directly)");
    }
    if cli.global.rootless == "true" || !nix::unistd::geteuid().is_root() {
        bail!("containers without root privileges are not supported yet (run as root)");
    }
    let store = Store::new(&cli.global.root);
    match &cli.command {
        Command::Create(command) => command.run(&store, log),
        Command::Delete(command) => command.run(&store, log),
        Command::Exec(command) => command.run(&store, log),
        Command::Features(command) => command.run(),
        Command::Kill(command) => command.run(&store),
        Command::List(command) => command.run(&store),
        Command::Pause(command) => command.run(&store),
        Command::Ps(command) => command.run(&store),
        Command::Resume(command) => command.run(&store),
        Command::Run(command) => command.run(&store, log),
        Command::Spec(command) => command.run(),
        Command::Start(command) => command.run(&store),
        Command::State(command) => command.run(&store),
        Command::Update(command) => command.run(&store),
    }
}

/// Writes a pid for whoever waits for the file: it appears at once and whole.
fn write_pid_file(path: &Path, pid: i32) -> anyhow::Result<()> {
    let name = path.file_name().context("--pid-file needs a file name")?;
    let beside = path.with_file_name(format!(".{}", name.to_string_lossy()));
    std::fs::write(&beside, pid.to_string())
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("write the pid file {}", path.display()))
}
