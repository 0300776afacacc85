//! Copying between our streams and a hijacked connection.

use std::io::Write;

use anyhow::{Context, Result};
use berth_api::stdcopy::Stream as Channel;
use berth_client::{HijackReader, Hijacked};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::detach::Watch;

/// Why the copying ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The other side has nothing more to say; perhaps it has said how the program ended.
    Closed(Option<i32>),
    /// The user typed the detach keys.
    Detached,
}

/// What is copied.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The container has a terminal: the detach keys mean something.
    pub(crate) tty: bool,
    /// Our standard input goes in.
    pub(crate) stdin: bool,
    /// The detach keys.
    pub(crate) detach: Vec<u8>,
}

const BUFFER: usize = 32 * 1024;

/// Copies until the output ends or the user detaches.
pub(crate) async fn run(connection: Hijacked, plan: Plan) -> Result<Ended> {
    let Hijacked { mut output, mut input } = connection;
    let watch = if plan.tty { plan.detach } else { Vec::new() };
    let typed = async move {
        if !plan.stdin {
            return std::future::pending().await;
        }
        let detached = feed(&mut input, Watch::new(watch)).await;
        if detached {
            return Ended::Detached;
        }
        // `input` lives until the output has ended: closing half of it was the end of file.
        std::future::pending().await
    };
    tokio::select! {
        ended = typed => Ok(ended),
        shown = copy(&mut output) => shown.map(|()| Ended::Closed(output.exit_code())),
    }
}

/// Standard input into `input`; true if the detach keys were seen. An engine that has stopped listening is no
/// error: the program may have ended without reading all of it.
async fn feed(input: &mut (impl tokio::io::AsyncWrite + Unpin), mut watch: Watch) -> bool {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; BUFFER];
    loop {
        match stdin.read(&mut buffer).await {
            Ok(n) if n > 0 => {
                let detached = watch.sees(&buffer[..n]);
                if input.write_all(&buffer[..n]).await.is_err() {
                    return false;
                }
                if detached {
                    return true;
                }
            }
            _ => {
                input.shutdown().await.ok();
                return false;
            }
        }
    }
}

/// What a container prints, onto standard output and standard error.
async fn copy(output: &mut HijackReader) -> Result<()> {
    while let Some((channel, bytes)) =
        output.next_output().await.context("the container's output broke off")?
    {
        show(channel, &bytes)?;
    }
    Ok(())
}

/// Writes to our own stream of the same name.
pub(crate) fn show(channel: Channel, bytes: &[u8]) -> Result<()> {
    match channel {
        Channel::Stdin | Channel::Stdout => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard output")
        }
        Channel::Exit => Ok(()),
        Channel::Stderr | Channel::SystemError => {
            std::io::stderr().write_all(bytes).context("cannot write to standard error")
        }
    }
}
