//! `berth exec`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use berth_api::exec::{ExecConfig, ExecStartRequest};
use clap::Args;

use crate::exit::{Exit, Failure, describe, of_start_failure};
use crate::flags::environment;
use crate::session::Session;
use crate::streams::{detach, pump, signals, terminal};

/// Run a command in a running container
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// Pass our standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set an environment variable
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// User and group of the process
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory
    #[arg(short, long)]
    workdir: Option<String>,
    /// Give all capabilities
    #[arg(long)]
    privileged: bool,
    /// Keys that leave the command running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Container
    container: String,
    /// Command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Exec) -> Result<Exit> {
    if !args.detach {
        terminal::check(args.tty, args.interactive)?;
    }
    let client = session.client().await?;
    let size = args.tty.then(terminal::size).flatten().map(|(rows, columns)| [rows, columns]);
    let config = ExecConfig {
        user: args.user.clone().unwrap_or_default(),
        privileged: args.privileged,
        tty: args.tty,
        console_size: size,
        attach_stdin: args.interactive && !args.detach,
        attach_stdout: !args.detach,
        attach_stderr: !args.detach,
        detach: args.detach,
        detach_keys: args.detach_keys.clone().unwrap_or_default(),
        env: Some(environment::variables(&args.env_file, &args.env, |name| std::env::var(name).ok())?)
            .filter(|env| !env.is_empty()),
        working_dir: args.workdir.clone().unwrap_or_default(),
        cmd: Some(args.command.clone()),
    };
    if args.detach {
        let id = client.exec_create(&args.container, &config).await?;
        let start = ExecStartRequest { detach: true, tty: args.tty, console_size: size };
        client.exec_start_detached(&id, &start).await.map_err(start_failure)?;
        return Ok(Exit::Success);
    }
    let (id, connection) = client.exec_run(&args.container, &config).await.map_err(start_failure)?;
    let raw = if args.tty && args.interactive { terminal::Raw::enter()? } else { None };
    let _size =
        if args.tty { signals::follow_size(&client, signals::Window::Exec(id.clone())) } else { None };
    let plan = pump::Plan {
        tty: args.tty,
        stdin: args.interactive,
        detach: detach::keys(args.detach_keys.as_deref()),
    };
    let copied = pump::run(connection, plan).await;
    drop(raw);
    let code = match copied? {
        pump::Ended::Detached => return Ok(Exit::Success),
        pump::Ended::Closed(Some(code)) => Some(i64::from(code)),
        pump::Ended::Closed(None) => client.exec_inspect(&id).await?.exit_code,
    };
    Ok(Exit::of_program(code.context("the engine does not know how the command ended")?))
}

/// A command that could not be started has the exit code that the engine's words say.
fn start_failure(error: berth_client::Error) -> anyhow::Error {
    match of_start_failure(&error.to_string()) {
        125 => error.into(),
        code => Failure { message: describe(&error.into()), code }.into(),
    }
}
