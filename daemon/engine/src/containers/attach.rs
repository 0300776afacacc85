//! Attach: a client's stream goes to the shim.
//!
//! ```text
//!   not started yet ─▶ the stream waits in the engine; the start hands it over before `Create`
//!   running         ─▶ Attach{hold} ─▶ greeting, log up to the position in the answer ─▶ Release
//!   log only        ─▶ greeting, log, end
//! ```

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_api::options::{Attach, Logs, Tail};
use berth_api::stdcopy;
use berth_runtime_client::Shim;
use berth_runtime_client::protocol::{self, Framing};
use berth_sys::socket::unread_by_peer;
use futures_util::{FutureExt as _, StreamExt as _};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Container;
use super::container::WaitingAttach;
use super::machine::Phase;
use crate::engine::Engine;
use crate::error::{EngineError, Result};

/// ctrl-p, ctrl-q.
const DEFAULT_KEYS: [u8; 2] = [16, 17];

/// Milliseconds that a client has to read the head of the answer. On a busy machine it may not run for long.
const HEAD_TRIES: u32 = 1000;

/// The most clients have read it after a fraction of one.
const SOON: Duration = Duration::from_micros(500);

/// How much of the log is written at once.
const PIECE: usize = 32 * 1024;

/// An attach that was found possible.
#[derive(Debug)]
pub struct PreparedAttach {
    engine: Arc<Engine>,
    container: Arc<Container>,
    options: Attach,
    keys: Vec<u8>,
    /// Output is not framed, terminal or not.
    raw: bool,
}

/// Parses `ctrl-p,ctrl-q` or `a,b`; empty is the default.
pub(crate) fn detach_keys(text: Option<&str>) -> Result<Vec<u8>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(DEFAULT_KEYS.to_vec()) };
    let key = |word: &str| {
        let invalid =
            || EngineError::invalid(format!("Invalid detach keys ({text}): unknown character: '{word}'"));
        let single = |text: &str| if let [byte] = text.as_bytes() { Some(*byte) } else { None };
        match word.strip_prefix("ctrl-").and_then(single) {
            Some(letter @ b'a'..=b'z') => Ok(letter - b'a' + 1),
            Some(b'@') => Ok(0),
            Some(symbol @ b'['..=b'_') => Ok(symbol - b'[' + 27),
            Some(_) => Err(invalid()),
            None => single(word).filter(u8::is_ascii).ok_or_else(invalid),
        }
    };
    text.split(',').map(key).collect()
}

impl Engine {
    /// Checks that a client may attach.
    ///
    /// # Errors
    /// When there is no such container, it is paused or restarting, or the detach keys are none.
    pub async fn prepare_attach(self: &Arc<Self>, name: &str, options: Attach) -> Result<PreparedAttach> {
        let container = self.containers.find(name)?;
        let keys = detach_keys(options.detach_keys.as_deref())?;
        match container.phase() {
            Phase::Paused => {
                return Err(EngineError::conflict(format!(
                    "container {name} is paused, unpause the container before attach"
                )));
            }
            Phase::Restarting => {
                return Err(EngineError::conflict(format!(
                    "container {name} is restarting, wait until the container is running"
                )));
            }
            _ => {}
        }
        Ok(PreparedAttach { engine: Arc::clone(self), container, options, keys, raw: false })
    }
}

impl PreparedAttach {
    /// Whether the container has a terminal, so that its output is not framed.
    #[must_use]
    pub fn tty(&self) -> bool {
        self.container.definition().config.tty
    }

    /// Leaves output as it is, also where there is no terminal: for a stream with frames of its own.
    #[must_use]
    pub fn unframed(self) -> Self {
        Self { raw: true, ..self }
    }

    /// Attaches the stream. `greeting` is written to it as soon as nothing of the output can be lost any more, and
    /// in any case before an error is returned; `ahead` is input that was read already.
    ///
    /// # Errors
    /// When the container has gone meanwhile.
    pub async fn attach(self, stream: OwnedFd, greeting: Vec<u8>, ahead: Vec<u8>) -> Result<()> {
        if !self.options.stream {
            return self.replay_only(stream, greeting).await;
        }
        let attach = protocol::Attach {
            stdin: self.options.stdin,
            stdout: self.options.stdout,
            stderr: self.options.stderr,
            framing: if self.tty() || self.raw { Framing::Raw } else { Framing::Stdcopy },
            detach_keys: if self.tty() { self.keys.clone() } else { Vec::new() },
            initial_stdin: ahead,
            hold: true,
            exit_code: false,
        };
        self.engine.events.publish("container", "attach", &self.container.id, self.container.attributes(&[]));
        let Some(shim) = self.shim_or_wait(&attach, &stream, &greeting)? else {
            if self.options.logs {
                self.replay(&stream, None).await?;
            }
            return Ok(());
        };
        let attached = shim.attach(attach, &stream).await;
        write_all(&stream, &greeting).map_err(gone)?;
        let attached = match attached {
            Ok(attached) => attached,
            // It ended this very moment: what is left of it is its log.
            Err(_) if !self.container.phase().is_alive() || shim.wait().await.is_ok() => {
                return if self.options.logs { self.replay(&stream, None).await } else { Ok(()) };
            }
            Err(error) => return Err(error.into()),
        };
        if self.options.logs {
            self.replay(&stream, attached.log_position).await?;
        }
        Ok(shim.release(attached.session).await?)
    }

    /// The shim of a container that runs; else the stream is put where the next start finds it.
    fn shim_or_wait(
        &self,
        attach: &protocol::Attach,
        stream: &OwnedFd,
        greeting: &[u8],
    ) -> Result<Option<Shim>> {
        // Under the lock: a start takes shim and waiting clients in one step.
        let mut live = self.container.live();
        if let Some(shim) = live.shim.clone() {
            return Ok(Some(shim));
        }
        let copy = stream.try_clone().map_err(gone)?;
        write_all(&copy, greeting).map_err(gone)?;
        let attach = protocol::Attach { hold: false, ..attach.clone() };
        live.waiting.push(WaitingAttach { attach, stream: copy });
        Ok(None)
    }

    async fn replay(&self, stream: &OwnedFd, end: Option<u64>) -> Result<()> {
        head_was_read(stream).await;
        let logs = self.engine.replay(&self.container, &self.log_options(), end).await?;
        self.copy(logs, stream).await
    }

    fn log_options(&self) -> Logs {
        Logs { stdout: self.options.stdout, stderr: self.options.stderr, tail: Tail::All, ..Logs::default() }
    }

    async fn replay_only(self, stream: OwnedFd, greeting: Vec<u8>) -> Result<()> {
        write_all(&stream, &greeting).map_err(gone)?;
        if self.options.logs {
            self.replay(&stream, None).await?;
        }
        Ok(())
    }

    async fn copy(&self, mut logs: crate::logs::LogStream, stream: &OwnedFd) -> Result<()> {
        let tty = self.tty() || self.raw;
        let mut piece = Vec::with_capacity(PIECE);
        while let Some(first) = logs.next().await {
            let mut next = Some(first);
            // What is there already goes in one write.
            while let Some(item) = next {
                let (kind, bytes) = item?;
                if tty {
                    piece.extend_from_slice(&bytes);
                } else {
                    stdcopy::encode(kind, &bytes, &mut piece);
                }
                next = if piece.len() < PIECE { logs.next().now_or_never().flatten() } else { None };
            }
            let (copy, bytes) = (stream.try_clone().map_err(gone)?, std::mem::take(&mut piece));
            // The client may be slow, and its stream is not the runtime's to wait for.
            tokio::task::spawn_blocking(move || write_all(&copy, &bytes)).await?.map_err(gone)?;
        }
        Ok(())
    }
}

/// Waits, though not for long, until the client has read the head of the answer. The SDK for Python reads it through a
/// buffer and loses what comes with it.
pub(super) async fn head_was_read(stream: &OwnedFd) {
    for _ in 0..HEAD_TRIES {
        if !is_unread(stream) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The same for the most clients, without the runtime's clock of milliseconds; for a thread that may block.
pub(super) fn head_is_read_soon(stream: &OwnedFd) {
    let begin = Instant::now();
    while is_unread(stream) && begin.elapsed() < SOON {
        std::thread::sleep(Duration::from_micros(20));
    }
}

fn is_unread(stream: &OwnedFd) -> bool {
    matches!(unread_by_peer(stream), Ok(1..))
}

fn gone(error: io::Error) -> EngineError {
    EngineError::internal(format!("writing to the client: {error}"))
}

/// Writes to a descriptor that may be in non-blocking mode.
pub(crate) fn write_all(stream: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(stream, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EAGAIN) => {
                let mut wanted = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
                poll(&mut wanted, PollTimeout::NONE)?;
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_parsed_as_docker_does() {
        assert_eq!(detach_keys(None).unwrap(), [16, 17]);
        assert_eq!(detach_keys(Some("ctrl-a,b,ctrl-[,ctrl-@")).unwrap(), [1, b'b', 27, 0]);
        for bad in ["ctrl-", "ctrl-é", "ab", "ctrl-1", "a,,b"] {
            assert!(detach_keys(Some(bad)).is_err(), "{bad}");
        }
    }
}
