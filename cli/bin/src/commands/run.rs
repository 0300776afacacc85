//! `berth run`: create, attach, start, wait.

use std::time::Duration;

use anyhow::Result;
use berth_api::options::{Attach, WaitCondition};
use berth_client::{Client, Error};
use clap::Args;

use super::create::{self, Attached, ImageAndWords};
use crate::exit::{Exit, Failure, describe, is_unread, of_start_failure};
use crate::flags::container::ContainerFlags;
use crate::session::Session;
use crate::streams::{detach, pump, signals, terminal};

/// Create and run a new container from an image
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Run {
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    attach: Attached,
    /// Keys that leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Pass signals on to the process
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    sig_proxy: bool,
    /// Do not show the progress of a pull
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    flags: ContainerFlags,
    #[command(flatten)]
    target: ImageAndWords,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

pub(crate) async fn run(session: &Session, args: Run) -> Result<Exit> {
    // Everything before the program runs is a failure of ours: 125, unless the engine's words say otherwise.
    execute(session, args).await.map_err(|error| match error.downcast::<Failure>() {
        Ok(failure) => failure.into(),
        Err(error) if is_unread(&error) => error,
        Err(error) => {
            Failure { code: of_start_failure(&start_words(&error)), message: describe(&error) }.into()
        }
    })
}

/// Only the engine's own words tell 126 and 127 apart from 125; a missing file of ours is no missing program.
fn start_words(error: &anyhow::Error) -> String {
    error
        .downcast_ref::<Error>()
        .filter(|e| e.status().is_some())
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// How long a container that could not be started may take to be removed.
const REMOVAL: Duration = Duration::from_secs(10);

/// Which streams are ours.
struct Streams {
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

async fn execute(session: &Session, args: Run) -> Result<Exit> {
    let (tty, interactive) = (args.flags.tty, args.flags.interactive);
    if !args.detach {
        terminal::check(tty, interactive)?;
    }
    // Before an engine is started for it: a mistake in the command line needs none.
    let mut request = args.target.request(&args.flags)?;
    let client = session.client().await?;
    let [stdin, stdout, stderr] = args.attach.streams(interactive).map(|chosen| chosen && !args.detach);
    let streams = Streams { stdin, stdout, stderr };
    let config = &mut request.config;
    config.attach_stdin = streams.stdin;
    config.attach_stdout = streams.stdout;
    config.attach_stderr = streams.stderr;
    config.stdin_once = interactive && !args.detach;
    if tty && let (Some((rows, columns)), Some(host)) = (terminal::size(), &mut request.host_config) {
        host.console_size = [rows, columns];
    }
    let id = create::create(&client, &args.flags, request, args.quiet).await?;
    if args.detach {
        client.container_start(&id, "").await?;
        println!("{id}");
        return Ok(Exit::Success);
    }
    let foreground = Foreground {
        tty,
        remove: args.flags.rm,
        sig_proxy: args.sig_proxy,
        detach_keys: args.detach_keys.clone(),
        streams,
    };
    foreground.run(&client, &id).await
}

/// Starts a container that was made, with all of its streams ours.
pub(crate) async fn attached(
    client: &Client,
    id: &str,
    tty: bool,
    stdin: bool,
    remove: bool,
) -> Result<Exit> {
    let streams = Streams { stdin, stdout: true, stderr: true };
    Foreground { tty, remove, sig_proxy: true, detach_keys: None, streams }.run(client, id).await
}

/// How a container runs in the foreground.
struct Foreground {
    tty: bool,
    remove: bool,
    sig_proxy: bool,
    detach_keys: Option<String>,
    streams: Streams,
}

impl Foreground {
    /// Attach, wait and start, in the order that loses nothing; then the streams until the end.
    async fn run(&self, client: &Client, id: &str) -> Result<Exit> {
        let (tty, streams) = (self.tty, &self.streams);
        let attach = Attach {
            detach_keys: self.detach_keys.clone(),
            logs: false,
            stream: true,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        let connection = client.container_attach(id, &attach, tty).await?;
        let condition = if self.remove { WaitCondition::Removed } else { WaitCondition::NextExit };
        let ended = client.container_wait(id, condition).await?;
        let _proxied = if self.sig_proxy && !tty { signals::proxy(client, id) } else { Vec::new() };
        if let Err(error) = client.container_start(id, self.detach_keys.as_deref().unwrap_or_default()).await
        {
            if self.remove {
                // The engine removes what never ran; whoever looks after us must not find it. Its failure is told below.
                tokio::time::timeout(REMOVAL, ended.exit()).await.ok();
            }
            return Err(error.into());
        }
        let raw = if tty && streams.stdin { terminal::Raw::enter()? } else { None };
        let _size =
            if tty { signals::follow_size(client, signals::Window::Container(id.to_owned())) } else { None };
        let plan =
            pump::Plan { tty, stdin: streams.stdin, detach: detach::keys(self.detach_keys.as_deref()) };
        let copied = pump::run(connection, plan).await;
        drop(raw);
        if copied? == pump::Ended::Detached {
            return Ok(Exit::Success);
        }
        let status = ended.exit().await?;
        match status.error {
            Some(error) => Err(Failure { message: error.message, code: 125 }.into()),
            None => Ok(Exit::of_program(status.status_code)),
        }
    }
}
