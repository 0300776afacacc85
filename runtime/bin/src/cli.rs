//! The flags, as runc has them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{
    ArgMatches, Args, Command as Clap, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
};

use crate::commands;

/// Open Container Initiative runtime
#[derive(Debug, Parser)]
#[command(name = "berth-runtime", version, disable_help_subcommand = true, disable_version_flag = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags before the command, or after it, as runc takes them from 1.4 on. (`--rootless` is another flag after `spec`.)
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Directory for the state of containers (it should be on tmpfs)
    /// [default: /run/berth-runtime, for a user $XDG_RUNTIME_DIR/berth-runtime]
    #[arg(long, global = true)]
    pub(crate) root: Option<PathBuf>,
    /// File for log messages (default: standard error)
    #[arg(long, global = true)]
    pub(crate) log: Option<PathBuf>,
    /// Format of log messages
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// Log what is done, not only what fails
    #[arg(long, global = true)]
    pub(crate) debug: bool,
    /// Show the version
    #[arg(short, long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// Let systemd manage the cgroup of a new container (linux.cgroupsPath is then slice:prefix:name)
    #[arg(long, global = true)]
    pub(crate) systemd_cgroup: bool,
    /// Do without cgroups that may not be made: true, false or auto (for users and in user namespaces)
    #[arg(long, default_value = "auto", value_parser = ["auto", "true", "false"])]
    pub(crate) rootless: String,
}

/// How messages look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

// Only the flags of the command that is called are made.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Save the state of a running container (with CRIU)
    Checkpoint(Box<commands::checkpoint::Checkpoint>),
    /// Create a container
    Create(commands::create::Create),
    /// Delete a container and what it holds
    Delete(commands::delete::Delete),
    /// Show what a container uses, and when it runs out of memory
    Events(commands::events::Events),
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
    /// Restore a container from a checkpoint
    Restore(Box<commands::restore::Restore>),
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

// What create and run share. (A doc comment would be shown as what they do.)
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
    /// Unix socket that receives a pidfd of the container's first process
    #[arg(long)]
    pub(crate) pidfd_socket: Option<PathBuf>,
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

/// Reads the command line. Help has the head of runc's, which scripts look at.
///
/// # Errors
/// What clap says, help and version included.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let arguments: Vec<OsString> = arguments.collect();
    // The words of help and of errors are made only for who is to read them.
    let matches: ArgMatches = named_in(&arguments).try_get_matches_from(&arguments).or_else(|_| {
        let called = arguments.first().and_then(|path| Path::new(path).file_name());
        let name = called.map_or("berth-runtime".into(), |name| name.to_string_lossy());
        command(&name).try_get_matches_from(&arguments)
    })?;
    Cli::from_arg_matches(&matches)
}

/// The grammar with those commands alone that a word of the line may mean. clap gives each of them all the flags that may
/// follow it, and every container is at least one start of this program.
fn named_in(words: &[OsString]) -> Clap {
    let all = Command::augment_subcommands(Clap::new(""));
    let named = all.get_subcommands().filter(|command| words.iter().any(|word| word == command.get_name()));
    let program = Clap::new("berth-runtime").version("").disable_version_flag(true).subcommand_required(true);
    Global::augment_args(program).disable_help_subcommand(true).subcommands(named.cloned())
}

fn command(name: &str) -> Clap {
    let template =
        |name: &str| format!("NAME:\n   {name} - {{about}}\n\nUSAGE:\n   {{usage}}\n\n{{all-args}}");
    Cli::command()
        .name(name.to_owned())
        .bin_name(name.to_owned())
        .version(version())
        .help_template(template(name))
        .mut_subcommands(|command| {
            let own = template(&format!("{name} {}", command.get_name()));
            command.help_template(own)
        })
}

/// Three lines, as runc prints them: its callers read the version of the specification there.
fn version() -> String {
    let commit = option_env!("BERTH_COMMIT").unwrap_or("unknown");
    format!("version {}\ncommit: {commit}\nspec: {}", env!("CARGO_PKG_VERSION"), berth_spec::VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;

    fn fails(arguments: &[&str]) -> clap::Error {
        parse(arguments.iter().map(OsString::from)).expect_err("it prints something and ends")
    }

    #[test]
    fn help_starts_as_runcs() {
        let shown = fails(&["/usr/bin/runc", "-h"]).to_string();
        assert!(shown.starts_with("NAME:\n   runc - Open Container Initiative runtime\n"), "{shown}");
        for name in command("runc").get_subcommands().map(Clap::get_name) {
            let shown = fails(&["runc", name, "--help"]);
            assert_eq!(shown.kind(), ErrorKind::DisplayHelp);
            assert!(shown.to_string().starts_with(&format!("NAME:\n   runc {name} - ")), "{shown}");
        }
    }

    #[test]
    fn the_version_names_the_specification() {
        let shown = fails(&["runc", "-v"]).to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].starts_with("runc version ") && lines[2].starts_with("spec: 1."), "{shown}");
    }

    #[test]
    fn flags_for_all_commands_may_follow_the_command() {
        let words = ["runc", "--log", "/l", "list", "--root", "/r", "--log-format=json", "-q", "--debug"];
        let cli = parse(words.iter().map(OsString::from)).unwrap();
        assert_eq!(cli.global.root.as_deref(), Some(Path::new("/r")));
        assert_eq!(cli.global.log.as_deref(), Some(Path::new("/l")));
        assert!(cli.global.debug && cli.global.log_format == LogFormat::Json);
        // What follows the program is the program's.
        let cli = parse(["runc", "exec", "c", "ls", "--debug"].iter().map(OsString::from)).unwrap();
        assert!(!cli.global.debug);
    }

    #[test]
    fn flags_are_consistent() {
        command("runc").debug_assert();
    }
}
