//! What goes over the socket. Pure.
//!
//! ```text
//!   trunk:  connection (u32 BE) | length (u32 BE) | bytes           plugins serve on connection 1, we on 2
//!   ttrpc:  length (u32 BE) | stream (u32 BE) | type (u8) | flags (u8) | message
//! ```
//!
//! A ttrpc message may be cut into any number of the trunk's frames.

use prost::Message;

/// Requests of ours and their answers.
pub(crate) const PLUGIN_SERVICE: u32 = 1;
/// Requests of the plugin and our answers.
pub(crate) const RUNTIME_SERVICE: u32 = 2;

/// A ttrpc message is at most so long.
pub(crate) const MAX_MESSAGE: usize = 4 << 20;
const HEADER: usize = 10;

/// The first frame of a message is at most so long: the readers that plugins are made of read a header into a buffer of
/// this size and take no frame that is longer, but the rest of the message in one piece.
const FIRST_FRAME: usize = 4096;

/// Kinds of ttrpc messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response,
}

/// A ttrpc message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) kind: Kind,
    pub(crate) stream: u32,
    pub(crate) body: Vec<u8>,
}

/// What cannot be understood; the connection is of no use then.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum WireError {
    #[error("a message of {0} bytes is longer than {MAX_MESSAGE}")]
    TooLong(usize),
    #[error("a ttrpc message of type {0:#x}: streams are not of this interface")]
    Kind(u8),
    #[error("a frame for connection {0}; 1 and 2 are there")]
    Connection(u32),
}

/// `ttrpc.Request`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Request {
    #[prost(string, tag = "1")]
    pub(crate) service: String,
    #[prost(string, tag = "2")]
    pub(crate) method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    pub(crate) timeout_nano: i64,
}

/// `ttrpc.Response`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Response {
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) payload: Vec<u8>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

/// A message as frames of the trunk.
pub(crate) fn encode(connection: u32, kind: Kind, stream: u32, body: &[u8]) -> Result<Vec<u8>, WireError> {
    if body.len() > MAX_MESSAGE {
        return Err(WireError::TooLong(body.len()));
    }
    let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(length(body.len()));
    message.extend(stream.to_be_bytes());
    message.extend([if kind == Kind::Request { 1 } else { 2 }, 0]);
    message.extend(body);
    let (first, rest) = message.split_at(message.len().min(FIRST_FRAME));
    let mut frames = Vec::with_capacity(message.len() + 16);
    for part in [first, rest].into_iter().filter(|part| !part.is_empty()) {
        frames.extend(connection.to_be_bytes());
        frames.extend(length(part.len()));
        frames.extend(part);
    }
    Ok(frames)
}

/// The head of a frame: connection and length.
pub(crate) fn frame_head(head: [u8; 8]) -> Result<(u32, usize), WireError> {
    let [a, b, c, d, e, f, g, h] = head;
    let (connection, length) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]) as usize);
    if connection != PLUGIN_SERVICE && connection != RUNTIME_SERVICE {
        return Err(WireError::Connection(connection));
    }
    if length > HEADER + MAX_MESSAGE {
        return Err(WireError::TooLong(length));
    }
    Ok((connection, length))
}

/// Puts the messages of a connection together again.
#[derive(Debug, Default)]
pub(crate) struct Assembler(Vec<u8>);

impl Assembler {
    pub(crate) fn push(&mut self, frame: &[u8]) {
        self.0.extend(frame);
    }

    /// The next message, if it is whole.
    pub(crate) fn next(&mut self) -> Result<Option<Packet>, WireError> {
        let Some(&[a, b, c, d, e, f, g, h, kind, _]) = self.0.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > MAX_MESSAGE {
            return Err(WireError::TooLong(length));
        }
        let kind = match kind {
            1 => Kind::Request,
            2 => Kind::Response,
            other => return Err(WireError::Kind(other)),
        };
        if self.0.len() < HEADER + length {
            return Ok(None);
        }
        let body = self.0[HEADER..HEADER + length].to_vec();
        self.0.drain(..HEADER + length);
        Ok(Some(Packet { kind, stream: u32::from_be_bytes([e, f, g, h]), body }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_whole_from_frames() {
        for length in [0, 1, FIRST_FRAME - HEADER, FIRST_FRAME, 3 * FIRST_FRAME + 7] {
            let body = vec![7; length];
            let mut frames = encode(PLUGIN_SERVICE, Kind::Response, 5, &body).unwrap();
            let mut assembler = Assembler::default();
            let mut count = 0;
            while !frames.is_empty() {
                let (connection, size) = frame_head(*frames.first_chunk().unwrap()).unwrap();
                assert_eq!(connection, PLUGIN_SERVICE);
                assert!(count > 0 || size <= FIRST_FRAME);
                assert_eq!(assembler.next().unwrap(), None);
                assembler.push(&frames[8..8 + size]);
                frames.drain(..8 + size);
                count += 1;
            }
            let found = assembler.next().unwrap().unwrap();
            assert_eq!((found.kind, found.stream, found.body), (Kind::Response, 5, body));
        }
    }

    #[test]
    fn what_is_too_long_or_unknown_is_refused() {
        assert_eq!(frame_head([0, 0, 0, 3, 0, 0, 0, 1]), Err(WireError::Connection(3)));
        assert!(matches!(frame_head([0, 0, 0, 1, 255, 0, 0, 0]), Err(WireError::TooLong(_))));
        let mut assembler = Assembler::default();
        assembler.push(&[0, 0, 0, 0, 0, 0, 0, 1, 3, 0]);
        assert_eq!(assembler.next(), Err(WireError::Kind(3)));
    }
}
