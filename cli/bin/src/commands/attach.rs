//! `berth attach`.

use anyhow::{Result, bail};
use berth_api::container::ContainerInspect;
use berth_api::options::{self, WaitCondition};
use berth_client::Client;
use clap::Args;

use crate::exit::Exit;
use crate::session::Session;
use crate::streams::{detach, pump, signals, terminal};

/// Attach our streams to a running container
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Keys that leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Do not pass our standard input on
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the process
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// Container
    container: String,
}

pub(crate) async fn run(session: &Session, args: Attach) -> Result<Exit> {
    let client = session.client().await?;
    let inspect = client.container_inspect(&args.container, false).await?;
    if !inspect.state.running {
        bail!("cannot attach to a stopped container, start it first: berth start -a {}", args.container);
    }
    if inspect.state.paused {
        bail!("cannot attach to a paused container, unpause it first: berth unpause {}", args.container);
    }
    let stdin = !args.no_stdin && inspect.config.open_stdin;
    let ended = client.container_wait(&inspect.id, WaitCondition::NotRunning).await?;
    let options = Options { detach_keys: args.detach_keys, stdin, sig_proxy: args.sig_proxy };
    if streams(&client, &inspect, &options, async { Ok(()) }).await? == pump::Ended::Detached {
        return Ok(Exit::Success);
    }
    Ok(Exit::of_program(ended.exit().await?.status_code))
}

/// How to attach.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) detach_keys: Option<String>,
    pub(crate) stdin: bool,
    pub(crate) sig_proxy: bool,
}

/// Attaches, does `then` (such as starting the container), and copies until the end.
pub(crate) async fn streams(
    client: &Client,
    inspect: &ContainerInspect,
    options: &Options,
    then: impl Future<Output = Result<()>>,
) -> Result<pump::Ended> {
    let (id, tty) = (&inspect.id, inspect.config.tty);
    terminal::check(tty, options.stdin)?;
    let streams = options::Attach {
        detach_keys: options.detach_keys.clone(),
        logs: false,
        stream: true,
        stdin: options.stdin,
        stdout: true,
        stderr: true,
    };
    let connection = client.container_attach(id, &streams, tty).await?;
    let _proxied = if options.sig_proxy && !tty { signals::proxy(client, id) } else { Vec::new() };
    then.await?;
    let _raw = if tty && options.stdin { terminal::Raw::enter()? } else { None };
    let _size = if tty { signals::follow_size(client, signals::Window::Container(id.clone())) } else { None };
    let detach = detach::keys(options.detach_keys.as_deref());
    pump::run(connection, pump::Plan { tty, stdin: options.stdin, detach }).await
}
