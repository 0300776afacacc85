//! Taking a connection over: attach and exec speak raw bytes on the very socket the request came by.
//!
//! ```text
//! handler task                     connection task
//!    │ ── wanted (oneshot) ─────────▶ │   stops polling hyper, takes it apart
//!    │ ◀── socket + bytes read ahead ─ │   and ends
//!    │ writes the head itself, hands the socket on
//! ```
//!
//! hyper could do this for a `101`, but docker also knows a bare `200` without length or chunking, and a `404` in
//! plain text, on the same path; so the head is always written here.

use std::{
    io,
    net::TcpStream as StdTcpStream,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::{mpsc, oneshot},
};
use tokio_rustls::server::TlsStream;

/// A client's socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// The descriptor, in non-blocking mode, off the runtime's hands.
    fn into_fd(self) -> io::Result<OwnedFd> {
        Ok(match self {
            Self::Unix(socket) => StdUnixStream::into(socket.into_std()?),
            Self::Tcp(socket) => StdTcpStream::into(socket.into_std()?),
            Self::Tls(stream) => in_the_clear(stream)?,
        })
    }
}

/// A socket that others can read and write as it is, for a connection that only we can: copied in both directions, the
/// ends of either included, for as long as this daemon lives.
fn in_the_clear(mut stream: Box<TlsStream<TcpStream>>) -> io::Result<OwnedFd> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    let mut ours = UnixStream::from_std(ours)?;
    tokio::spawn(async move {
        if let Err(error) = tokio::io::copy_bidirectional(&mut stream, &mut ours).await {
            tracing::debug!(%error, "a stream over TLS has ended");
        }
    });
    Ok(theirs.into())
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A connection that was taken over.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) socket: Socket,
    /// What the client sent behind its request: the first bytes of stdin.
    pub(crate) ahead: Bytes,
}

impl Taken {
    /// Writes bytes to the client.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await
    }

    /// The connection as a stream of bytes, those read ahead first.
    pub(crate) fn into_stream(self) -> impl AsyncRead + AsyncWrite + Unpin + Send + 'static {
        let (reader, writer) = tokio::io::split(self.socket);
        tokio::io::join(std::io::Cursor::new(self.ahead).chain(reader), writer)
    }

    /// The socket for somebody else, and the bytes read ahead.
    pub(crate) fn into_parts(self) -> io::Result<(OwnedFd, Bytes)> {
        Ok((self.socket.into_fd()?, self.ahead))
    }
}

/// A handler's end: asks for the connection.
#[derive(Debug, Clone)]
pub(crate) struct TakeOver(mpsc::Sender<oneshot::Sender<Taken>>);

/// The connection's end: hears that somebody wants it.
pub(crate) type Wanted = mpsc::Receiver<oneshot::Sender<Taken>>;

impl TakeOver {
    pub(crate) fn new() -> (Self, Wanted) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), receiver)
    }

    /// The connection; fails when the client has gone.
    pub(crate) async fn take(self) -> io::Result<Taken> {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone");
        let (sender, receiver) = oneshot::channel();
        self.0.send(sender).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())
    }
}
