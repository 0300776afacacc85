//! One file for each command.

pub(crate) mod checkpoint;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod features;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod pause;
pub(crate) mod ps;
pub(crate) mod restore;
pub(crate) mod resume;
pub(crate) mod run;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod update;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use berth_sys::socket::send_with_fds;
use berth_sys::{Errno, Pid};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, socket};

use crate::cli::{Cli, Command};
use crate::log::Log;
use crate::privilege;
use crate::state::Store;

/// Runs the command; the number is the exit code.
pub(crate) fn run(cli: &Cli, log: &Log) -> anyhow::Result<u8> {
    let root = match &cli.global.root {
        Some(root) => root.clone(),
        None => privilege::default_root()?,
    };
    let store = Store::new(&root)
        .with_name(cli.global.root.is_some())
        .with_systemd(cli.global.systemd_cgroup)
        .with_unprivileged(privilege::is_unprivileged(&cli.global.rootless));
    match &cli.command {
        Command::Checkpoint(command) => command.run(&store, log),
        Command::Create(command) => command.run(&store, log),
        Command::Delete(command) => command.run(&store, log),
        Command::Events(command) => command.run(&store),
        Command::Exec(command) => command.run(&store, log),
        Command::Features(command) => command.run(),
        Command::Kill(command) => command.run(&store),
        Command::List(command) => command.run(&store),
        Command::Pause(command) => command.run(&store),
        Command::Ps(command) => command.run(&store),
        Command::Restore(command) => command.run(&store, log),
        Command::Resume(command) => command.run(&store),
        Command::Run(command) => command.run(&store, log),
        Command::Spec(command) => command.run(),
        Command::Start(command) => command.run(&store, log),
        Command::State(command) => command.run(&store),
        Command::Update(command) => command.run(&store, log),
    }
}

/// `runc run failed`, by whatever name the program was called.
fn failed(command: &str) -> String {
    let program = std::env::args_os().next().map(std::path::PathBuf::from).unwrap_or_default();
    format!("{} {command} failed", program.file_name().unwrap_or_default().to_string_lossy())
}

/// Tells whoever asked which process it is. On failure the process is of no use to anybody.
fn announce(file: Option<&Path>, socket: Option<&Path>, pid: Pid, pidfd: &OwnedFd) -> anyhow::Result<()> {
    file.map_or(Ok(()), |path| write_pid_file(path, pid.as_raw()))?;
    socket.map_or(Ok(()), |path| send_pidfd(path, pidfd))
}

fn send_pidfd(path: &Path, pidfd: &OwnedFd) -> anyhow::Result<()> {
    let send = || -> Result<usize, Errno> {
        let stream = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
        // Receivers take the message's bytes for the descriptor's name, as runc sends it.
        send_with_fds(&stream, b"pidfd", &[pidfd.as_fd()], MsgFlags::empty())
    };
    send().map(drop).with_context(|| format!("send the pidfd to {}", path.display()))
}

/// Writes a pid for whoever waits for the file: it appears at once and whole.
fn write_pid_file(path: &Path, pid: i32) -> anyhow::Result<()> {
    let name = path.file_name().context("--pid-file needs a file name")?;
    let beside = path.with_file_name(format!(".{}", name.to_string_lossy()));
    std::fs::write(&beside, pid.to_string())
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("write the pid file {}", path.display()))
}
