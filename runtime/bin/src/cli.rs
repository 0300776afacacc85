//! The flags, as runc has them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands;

/// After the name, so that `--version` has the shape in which dockerd and containerd parse runc's.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0");

/// Run containers according to the OCI specification.
#[derive(Debug, Parser)]
#[command(name = "berth-runtime", version = VERSION, about, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags before the command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Directory for the state of containers (it should be on tmpfs)
    #[arg(long, default_value = "/run/berth-runtime")]
    pub(crate) root: PathBuf,
    /// File for log messages (default: standard error)
    #[arg(long)]
    pub(crate) log: Option<PathBuf>,
    /// Format of log messages
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// Log what is done, not only what fails
    #[arg(long)]
    pub(crate) debug: bool,
    /// Let systemd manage the cgroups (not supported yet)
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Run without privileges: true, false or auto
    #[arg(long, default_value = "auto", value_parser = ["auto", "true", "false"])]
    pub(crate) rootless: String,
}

/// How messages look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a container
    Create(commands::create::Create),
    /// Delete a container and what it holds
    Delete(commands::delete::Delete),
    /// Run another process in a running container
    Exec(commands::exec::Exec),
    /// Show what this runtime supports
    Features(commands::features::Features),
    /// Send a signal to a container's first process
    Kill(commands::kill::Kill),
    /// List containers
    List(commands::list::List),
    /// Suspend all processes of a container
    Pause(commands::pause::Pause),
    /// Show the processes of a container
    Ps(commands::ps::Ps),
    /// Let the processes of a suspended container go on
    Resume(commands::resume::Resume),
    /// Create and start a container
    Run(commands::run::Run),
    /// Write an example config.json
    Spec(commands::spec::Spec),
    /// Start a created container
    Start(commands::start::Start),
    /// Show the state of a container
    State(commands::state::State),
    /// Change the resource limits of a container
    Update(commands::update::Update),
}

/// What create and run share.
#[derive(Debug, Args)]
pub(crate) struct CreateFlags {
    /// Directory of config.json (default: the current one)
    #[arg(short, long)]
    pub(crate) bundle: Option<PathBuf>,
    /// Unix socket that receives the terminal's master
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    /// File that receives the pid
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// Move the root file system instead of pivoting (for a root on a ramdisk)
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Keep the session keyring
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// Pass this many descriptors, from 3 on
    #[arg(long, default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// The container's id
    #[arg(value_name = "CONTAINER-ID")]
    pub(crate) id: String,
}
