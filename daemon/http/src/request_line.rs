//! Request lines as people write them: `curl 'http://x/images/json?filters={"dangling":["true"]}'`.
//!
//! A quote has to be percent-encoded in a query, and hyper answers an empty `400` to one that is not, before anybody
//! here sees it. Go's server, and so dockerd, takes it as it is. So it is encoded on the way in.
//!
//! ```text
//!  first bytes, or after a request without a body
//!        │
//!        ▼                line ends
//!    the line is held ─────────────────▶ everything passes
//!        ▲     │  encoded, if it is one of HTTP   │
//!        └────────────────────────────────────────┘  the service says: the next bytes begin a request
//! ```

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// No request line is longer; hyper's own limit is on the whole head.
const LONGEST: usize = 64 << 10;

/// Says that the next bytes of the connection begin a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Begins(Arc<AtomicBool>);

impl Begins {
    pub(crate) fn next(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A socket whose request lines have no byte that an HTTP library refuses.
#[derive(Debug)]
pub(crate) struct Encoded<S> {
    socket: S,
    begins: Begins,
    /// Whether `held` is the begin of a request line whose end has not come.
    in_line: bool,
    held: BytesMut,
}

impl<S> Encoded<S> {
    pub(crate) fn new(socket: S, begins: Begins) -> Self {
        Self { socket, begins, in_line: true, held: BytesMut::new() }
    }

    /// The socket, and what was read from it and asked for by nobody.
    pub(crate) fn into_parts(self) -> (S, Bytes) {
        (self.socket, self.held.freeze())
    }

    /// Looks for the line's end in what is held; encodes the line.
    fn look(&mut self, from: usize) {
        // Empty lines before a request are skipped by whoever reads it.
        let blank = self.held.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let end = self.held[from.max(blank)..].iter().position(|byte| *byte == b'\n');
        match end.map(|end| from.max(blank) + end) {
            Some(end) => {
                self.in_line = false;
                let rest = self.held.split_off(end);
                let line = std::mem::replace(&mut self.held, rest);
                let rest = std::mem::take(&mut self.held);
                self.held = encoded(line);
                self.held.extend_from_slice(&rest);
            }
            None if self.held.len() > LONGEST => self.in_line = false,
            None => {}
        }
    }
}

/// The line with what has no place in a target encoded, if it is a request's.
fn encoded(line: BytesMut) -> BytesMut {
    let text = line.strip_suffix(b"\r").unwrap_or(&line);
    let is_request = text.ends_with(b" HTTP/1.1") || text.ends_with(b" HTTP/1.0");
    if !is_request || !line.iter().any(|byte| matches!(byte, b'"' | b'<' | b'>' | b'#')) {
        return line;
    }
    let mut out = BytesMut::with_capacity(line.len() + 64);
    for byte in &line {
        match byte {
            b'"' => out.extend_from_slice(b"%22"),
            b'<' => out.extend_from_slice(b"%3C"),
            b'>' => out.extend_from_slice(b"%3E"),
            b'#' => out.extend_from_slice(b"%23"),
            other => out.extend_from_slice(&[*other]),
        }
    }
    out
}

impl<S: AsyncRead + Unpin> AsyncRead for Encoded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.held.is_empty() && this.begins.0.swap(false, Ordering::AcqRel) {
            this.in_line = true;
        }
        while this.in_line {
            let mut room = [0; 4096];
            let mut read = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut this.socket).poll_read(cx, &mut read))?;
            let from = this.held.len();
            this.held.extend_from_slice(read.filled());
            match read.filled() {
                [] => this.in_line = false,
                _ => this.look(from),
            }
            if !this.in_line && this.held.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        if this.held.is_empty() {
            return Pin::new(&mut this.socket).poll_read(cx, buf);
        }
        let length = this.held.len().min(buf.remaining());
        buf.put_slice(&this.held[..length]);
        this.held.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Encoded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What comes out when these pieces go in, one after the other.
    async fn through(pieces: &[&str]) -> String {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut server = Encoded::new(server, Begins::default());
        let mut out = String::new();
        for piece in pieces {
            client.write_all(piece.as_bytes()).await.unwrap();
        }
        drop(client);
        server.read_to_string(&mut out).await.unwrap();
        out
    }

    #[tokio::test]
    async fn only_a_request_line_is_encoded() {
        let line = "GET /x?f={\"a\":[\"b<#>\"]} HTTP/1.1\r\n";
        let head = "Host: \"x\"\r\n\r\nGET \"body\" HTTP/1.1\r\n";
        let encoded = "GET /x?f={%22a%22:[%22b%3C%23%3E%22]} HTTP/1.1\r\n";
        assert_eq!(through(&[line, head]).await, format!("{encoded}{head}"));
        assert_eq!(through(&["\r\n", line, head]).await, format!("\r\n{encoded}{head}"));
        for (n, _) in line.char_indices() {
            assert_eq!(through(&[&line[..n], &line[n..], head]).await, format!("{encoded}{head}"));
        }
        for other in ["", "\r\n", "no \"request\"\r\n\r\n", "GET \"x\"", "\"\n\"\n"] {
            assert_eq!(through(&[other]).await, other);
        }
        let long = format!("GET /{}\"", "x".repeat(LONGEST));
        assert_eq!(through(&[&long]).await, long);
    }

    #[tokio::test]
    async fn the_next_request_is_one_when_it_is_said_to_be() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let begins = Begins::default();
        let mut server = Encoded::new(server, begins.clone());
        let mut room = [0; 256];
        let line = b"GET /\"/?\" HTTP/1.1\r\n\r\n";
        let mut ask = async |said: bool| {
            if said {
                begins.next();
            }
            client.write_all(line).await.unwrap();
            let length = server.read(&mut room).await.unwrap();
            String::from_utf8(room[..length].to_vec()).unwrap()
        };
        let encoded = "GET /%22/?%22 HTTP/1.1\r\n\r\n";
        assert_eq!(ask(false).await, encoded, "the first one");
        assert_eq!(ask(false).await.as_bytes(), line, "a body");
        assert_eq!(ask(true).await, encoded);
        assert_eq!(ask(false).await.as_bytes(), line);
    }
}
