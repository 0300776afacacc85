//! Clients over a websocket: each message begins with the number of its channel.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use berth_engine::Streams;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, frame::coding::CloseCode};

use super::session::{Dialect, Ends, Outgoing, size};

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5: the next byte is a channel that the client closes.
const CLOSE: u8 = 255;

/// How long the other side may take to close after it was asked to.
const FAREWELL: Duration = Duration::from_secs(2);

/// Bytes on their way through a tunnel.
const TUNNEL: usize = 64 << 10;

/// What is spoken on a websocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subprotocol {
    name: &'static str,
    /// Messages are text: a digit and base64.
    text: bool,
}

impl Subprotocol {
    const PROCESS: [Self; 5] = [
        Self { name: "v5.channel.k8s.io", text: false },
        Self { name: "v4.channel.k8s.io", text: false },
        Self { name: "v4.base64.channel.k8s.io", text: true },
        Self { name: "channel.k8s.io", text: false },
        Self { name: "base64.channel.k8s.io", text: true },
    ];
    /// SPDY, in binary messages.
    const TUNNEL: Self = Self { name: "SPDY/3.1+portforward.k8s.io", text: false };

    /// The best of those that the client offers.
    pub(super) fn choose(offered: &[String], forwards: bool) -> Option<Self> {
        let known: &[Self] = if forwards { &[Self::TUNNEL] } else { &Self::PROCESS };
        known.iter().find(|known| offered.iter().any(|offer| offer == known.name)).copied()
    }

    pub(super) fn name(self) -> &'static str {
        self.name
    }

    pub(super) fn dialect(self) -> Dialect {
        Dialect::of(self.name)
    }

    fn encode(self, channel: u8, bytes: &[u8]) -> Message {
        if self.text {
            let mut text = String::from(char::from(b'0' + channel));
            text.push_str(&BASE64_STANDARD.encode(bytes));
            return Message::text(text);
        }
        let mut message = BytesMut::with_capacity(bytes.len() + 1);
        message.put_u8(channel);
        message.extend_from_slice(bytes);
        Message::Binary(message.freeze())
    }

    fn decode(self, message: Message) -> Option<(u8, Bytes)> {
        match message {
            Message::Binary(bytes) => Some((*bytes.first()?, bytes.slice(1..))),
            Message::Text(text) if self.text => {
                let (digit, rest) = text.as_str().split_at_checked(1)?;
                Some((digit.parse().ok()?, BASE64_STANDARD.decode(rest).ok()?.into()))
            }
            _ => None,
        }
    }
}

/// The connection after its handshake.
pub(super) async fn over(io: TokioIo<Upgraded>) -> Socket {
    WebSocketStream::from_raw_socket(io, Role::Server, None).await
}

/// Carries a session's messages until its end or the client's.
pub(super) async fn session(socket: Socket, protocol: Subprotocol, ends: Ends, streams: Streams) {
    let Ends { stdin, sizes, mut output } = ends;
    let (mut sink, mut source) = socket.split();
    let mut stdin = Some(stdin).filter(|_| streams.stdin);
    let incoming = async {
        while let Some(Ok(message)) = source.next().await {
            if message.is_close() {
                break;
            }
            match protocol.decode(message) {
                Some((STDIN, bytes)) => {
                    if let Some(open) = &stdin
                        && open.send(bytes).await.is_err()
                    {
                        stdin = None;
                    }
                }
                Some((RESIZE, text)) => {
                    if let Some(size) = size(&text) {
                        // Nobody waits for sizes of a process that has ended.
                        sizes.send(size).await.ok();
                    }
                }
                Some((CLOSE, bytes)) if bytes.first() == Some(&STDIN) => stdin = None,
                _ => {}
            }
        }
        stdin = None;
    };
    let outgoing = async {
        // The client is told that it is connected.
        let first = if streams.stdout { STDOUT } else { ERROR };
        if sink.send(protocol.encode(first, &[])).await.is_err() {
            return;
        }
        while let Some(item) = output.recv().await {
            let (channel, bytes, last) = match item {
                Outgoing::Stdout(bytes) => (STDOUT, bytes, false),
                Outgoing::Stderr(bytes) => (STDERR, bytes, false),
                Outgoing::End(bytes) => (ERROR, bytes, true),
            };
            let silent = last && bytes.is_empty();
            if !silent && sink.send(protocol.encode(channel, &bytes)).await.is_err() {
                return;
            }
            if last {
                break;
            }
        }
        // That the client has gone is no failure.
        sink.send(farewell()).await.ok();
    };
    tokio::pin!(incoming);
    tokio::select! {
        () = &mut incoming => {}
        () = outgoing => {
            // A client that hears the end closes, too; until then what it sends is read, so that it can.
            tokio::time::timeout(FAREWELL, incoming).await.ok();
        }
    }
}

/// The end as clients want to hear it: anything but a normal closure is an error to them.
fn farewell() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Default::default() }))
}

/// A stream of bytes through binary messages.
pub(super) fn tunnel(mut socket: Socket) -> DuplexStream {
    let (near, far) = tokio::io::duplex(TUNNEL);
    tokio::spawn(async move {
        let (mut reader, mut writer) = tokio::io::split(far);
        let mut piece = vec![0; 32 << 10];
        loop {
            tokio::select! {
                read = reader.read(&mut piece) => match read {
                    Ok(read) if read > 0 => {
                        let message = Message::Binary(Bytes::copy_from_slice(&piece[..read]));
                        if socket.send(message).await.is_err() {
                            return;
                        }
                    }
                    _ => break,
                },
                message = socket.next() => match message {
                    Some(Ok(Message::Binary(bytes))) => {
                        if writer.write_all(&bytes).await.is_err() {
                            break;
                        }
                    }
                    Some(Ok(message)) if !message.is_close() => {}
                    _ => return,
                },
            }
        }
        // That the client has gone is no failure.
        socket.send(farewell()).await.ok();
    });
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_subprotocol_is_chosen() {
        let choose = |offered: &[&str], forwards| {
            let offered: Vec<String> = offered.iter().map(|name| (*name).to_owned()).collect();
            Subprotocol::choose(&offered, forwards).map(Subprotocol::name)
        };
        assert_eq!(choose(&["channel.k8s.io", "v5.channel.k8s.io"], false), Some("v5.channel.k8s.io"));
        assert_eq!(choose(&["SPDY/3.1+portforward.k8s.io"], true), Some("SPDY/3.1+portforward.k8s.io"));
        assert_eq!(choose(&["SPDY/3.1+portforward.k8s.io"], false), None);
        assert_eq!(choose(&[], false), None);
    }

    #[test]
    fn messages_in_both_forms() {
        let [binary, text] = [Subprotocol::PROCESS[0], Subprotocol::PROCESS[2]];
        assert_eq!(binary.encode(1, b"hi"), Message::Binary(Bytes::from_static(b"\x01hi")));
        assert_eq!(text.encode(1, b"hi"), Message::text("1aGk="));
        for protocol in [binary, text] {
            let decoded = protocol.decode(protocol.encode(4, b"x"));
            assert_eq!(decoded, Some((4, Bytes::from_static(b"x"))));
        }
        assert_eq!(text.decode(Message::text("")), None);
        assert_eq!(text.decode(Message::text("é")), None);
    }
}
