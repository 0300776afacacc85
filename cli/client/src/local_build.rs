//! Builds on this machine: directories and files are handed to the engine as descriptors.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use berth_api::build::{BuildMessage, LocalBuild};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;

use crate::{Client, Error, Host, Result};

/// A longer head of an answer is none.
const MAX_HEAD: usize = 16 << 10;

/// What the engine tells of a build. Dropping it cancels the build.
#[derive(Debug)]
pub struct LocalMessages {
    lines: Lines<BufReader<UnixStream>>,
}

impl Client {
    /// Begins a build whose context lies on this machine; `fds` are the descriptors that `build` speaks of by number.
    /// None if the engine is not on this machine, or is not Berth: it wants an archive then.
    ///
    /// # Errors
    /// [`Error::Connect`] if nobody answers.
    pub async fn local_build(&self, build: &LocalBuild, fds: &[OwnedFd]) -> Result<Option<LocalMessages>> {
        let Host::Unix(path) = self.host() else { return Ok(None) };
        let connect = |source| Error::Connect { host: path.display().to_string(), source };
        let mut socket = UnixStream::connect(path).await.map_err(connect)?;
        let request = "POST /berth/build HTTP/1.1\r\nHost: berth\r\nConnection: Upgrade\r\n\
                       Upgrade: berth-build\r\nContent-Length: 0\r\n\r\n";
        socket.write_all(request.as_bytes()).await?;
        if !upgraded(&mut socket).await? {
            return Ok(None);
        }
        let text = serde_json::to_vec(build).expect("a build has text keys and serialises");
        let socket = socket.into_std()?;
        let raw: Vec<OwnedFd> = fds.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
        let sent = tokio::task::spawn_blocking(move || send(socket, &text, &raw));
        let socket = sent.await.map_err(io::Error::other)??;
        socket.set_nonblocking(true)?;
        Ok(Some(LocalMessages { lines: BufReader::new(UnixStream::from_std(socket)?).lines() }))
    }
}

/// Whether the head of the answer says that the connection is ours.
async fn upgraded(socket: &mut UnixStream) -> Result<bool> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > MAX_HEAD {
            return Ok(false);
        }
        match socket.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(head.starts_with(b"HTTP/1.1 101"))
}

/// Sends the length with the descriptors, then the text.
fn send(socket: StdUnixStream, text: &[u8], fds: &[OwnedFd]) -> io::Result<StdUnixStream> {
    use io::Write;
    socket.set_nonblocking(false)?;
    let length = (text.len() as u64).to_le_bytes();
    let raw: Vec<RawFd> = fds.iter().map(|fd| fd.as_fd().as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&length)], control, flags, None)?;
    (&socket).write_all(text)?;
    Ok(socket)
}

impl LocalMessages {
    /// The next message; none when the connection ends. Cancel-safe.
    ///
    /// # Errors
    /// If the connection breaks, or what comes is no message.
    pub async fn next(&mut self) -> Result<Option<BuildMessage>> {
        let Some(line) = self.lines.next_line().await? else { return Ok(None) };
        let protocol = |error: serde_json::Error| Error::Protocol {
            operation: "POST /berth/build".to_owned(),
            reason: error.to_string(),
        };
        serde_json::from_str(&line).map(Some).map_err(protocol)
    }
}
