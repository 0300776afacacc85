//! Copying between our streams and a hijacked connection.

use std::io::Write;

use anyhow::{Context, Result};
use berth_client::{FrameReader, Hijacked, StdStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::detach::Watch;

/// Why the copying ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The other side has nothing more to say.
    Closed,
    /// The user typed the detach keys.
    Detached,
}

/// What is copied.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The container has a terminal: its output is not framed.
    pub(crate) tty: bool,
    /// Our standard input goes in.
    pub(crate) stdin: bool,
    /// The detach keys, watched for where there is a terminal.
    pub(crate) detach: Vec<u8>,
}

const BUFFER: usize = 32 * 1024;

/// Copies until the output ends or the user detaches.
pub(crate) async fn run(connection: Hijacked, plan: Plan) -> Result<Ended> {
    let Hijacked { output, mut input } = connection;
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
    let shown = async {
        if plan.tty { copy_raw(output).await } else { copy_frames(output).await }
    };
    tokio::select! {
        ended = typed => Ok(ended),
        shown = shown => shown.map(|()| Ended::Closed),
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

async fn copy_raw(mut output: impl tokio::io::AsyncRead + Unpin) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = output.read(&mut buffer).await.context("the container's output broke off")?;
        if n == 0 {
            return Ok(());
        }
        show(StdStream::Stdout, &buffer[..n])?;
    }
}

/// Takes frames apart onto standard output and standard error.
pub(crate) async fn copy_frames(output: impl tokio::io::AsyncRead + Unpin) -> Result<()> {
    let mut frames = FrameReader::new(output);
    let mut buffer = vec![0; BUFFER];
    while let Some((stream, n)) = frames.read(&mut buffer).await.context("the container's output broke off")? {
        show(stream, &buffer[..n])?;
    }
    Ok(())
}

/// Writes to our own stream of the same name.
pub(crate) fn show(stream: StdStream, bytes: &[u8]) -> Result<()> {
    match stream {
        StdStream::Stdout => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard output")
        }
        StdStream::Stderr | StdStream::System => {
            std::io::stderr().write_all(bytes).context("cannot write to standard error")
        }
    }
}
