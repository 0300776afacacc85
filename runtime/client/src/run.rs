//! A container that runs once to its end while its output is collected: a build step.

use std::{io, os::unix::net::UnixStream as StdUnixStream, path::PathBuf};

use berth_shim_protocol::{Attach, Create, ExitRecord, Framing};
use bytes::{Buf as _, Bytes, BytesMut};
use nix::libc::SIGKILL;
use std::os::fd::OwnedFd;
use tokio::{io::AsyncReadExt as _, net::UnixStream, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::{ClientError, Shim, ShimSpawner};

/// Which of its streams a process wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A container to run to its end.
#[derive(Debug)]
pub struct RunRequest {
    /// Its run directory, with config.json ([`bundle::write`](crate::bundle::write)).
    pub dir: PathBuf,
    /// What to create.
    pub create: Create,
    /// Its network namespace, if config.json names one by the placeholder.
    pub netns: Option<OwnedFd>,
    /// Where its output goes. A slow receiver slows the container down; one that was dropped is as good as
    /// /dev/null.
    pub output: mpsc::Sender<(Output, Bytes)>,
    /// Kills it. The future still completes, when the container is gone, with the record of the kill (137).
    pub cancel: CancellationToken,
}

/// Create, start, collect output and wait. When it returns the output is complete and of the container only the
/// records in its run directory are left ([`bundle::remove`](crate::bundle::remove) removes them). A future that
/// is dropped kills the container without waiting for its end.
///
/// # Errors
/// When the container cannot be created or started, or its shim is killed.
pub async fn run_to_completion(
    spawner: &ShimSpawner,
    request: RunRequest,
) -> Result<ExitRecord, ClientError> {
    let RunRequest { dir, create, netns, output, cancel } = request;
    let failed = |source| ClientError::File {
        operation: "make a stream for the output of",
        path: dir.clone(),
        source,
    };
    let (ours, theirs) = StdUnixStream::pair().map_err(failed)?;
    ours.set_nonblocking(true).map_err(failed)?;
    let ours = UnixStream::from_std(ours).map_err(failed)?;

    let guard = Guard { shim: Some(spawner.spawn(&dir).await?) };
    let shim = guard.shim();
    shim.attach(Attach::output(Framing::Stdcopy), &theirs).await?;
    drop(theirs);
    shim.create(create, netns.as_ref().map(std::os::fd::AsFd::as_fd)).await?;
    let started = shim.start().await;
    if started.is_ok() {
        let collect = collect(ours, output);
        tokio::pin!(collect);
        let collected = tokio::select! {
            collected = &mut collect => collected,
            () = cancel.cancelled() => {
                if let Err(error) = shim.kill_all(SIGKILL).await {
                    tracing::debug!(%error, "a cancelled step had ended already");
                }
                collect.await
            }
        };
        if let Err(error) = collected {
            tracing::warn!(dir = %dir.display(), %error, "the output of a step is incomplete");
        }
    }
    let record = shim.wait().await;
    guard.disarm();
    started?;
    record
}

/// Kills the container when the future that runs it is dropped.
struct Guard {
    shim: Option<Shim>,
}

impl Guard {
    fn shim(&self) -> &Shim {
        self.shim.as_ref().expect("the shim is only taken by disarm, which consumes the guard")
    }

    fn disarm(mut self) {
        self.shim = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(shim) = &self.shim {
            shim.abandon();
        }
    }
}

/// Take stdcopy frames apart until the stream ends.
async fn collect(mut stream: UnixStream, output: mpsc::Sender<(Output, Bytes)>) -> io::Result<()> {
    const HEADER: usize = 8;
    let mut buffer = BytesMut::new();
    loop {
        while let Some(header) = buffer.first_chunk::<HEADER>() {
            let kind = if header[0] == 2 { Output::Stderr } else { Output::Stdout };
            let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
            if buffer.len() < HEADER + length {
                break;
            }
            buffer.advance(HEADER);
            // That nobody listens any more must not stop the container.
            output.send((kind, buffer.split_to(length).freeze())).await.ok();
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}
