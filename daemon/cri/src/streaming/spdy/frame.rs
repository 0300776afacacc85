//! Frames of SPDY/3.1 on the wire.

use std::collections::HashMap;
use std::io;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::dictionary;

const VERSION: u16 = 0x8003;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

/// The flag of a frame that is the last of its side of the stream.
const FIN: u8 = 1;
/// CANCEL of RST_STREAM.
const CANCEL: u32 = 5;

/// A control frame cannot be longer: headers of our streams are a few words.
const MAX_CONTROL: usize = 64 << 10;
/// Headers cannot be longer when they are unpacked.
const MAX_HEADERS: usize = 256 << 10;
/// Data goes in pieces of at most so many bytes.
const MAX_DATA: usize = 1 << 20;

/// A frame that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// The client opens a stream.
    Open {
        stream: u32,
        headers: HashMap<String, String>,
        last: bool,
    },
    /// We accept it.
    Reply {
        stream: u32,
    },
    Data {
        stream: u32,
        data: Bytes,
        last: bool,
    },
    Reset {
        stream: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("SPDY: {why}"))
}

/// Reads frames.
pub(super) struct Reader<R> {
    io: R,
    unpack: Decompress,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(io: R) -> Self {
        Self { io, unpack: Decompress::new(true) }
    }

    /// The next frame that matters; none at the end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let mut head = [0; 8];
            match self.io.read_exact(&mut head).await {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error),
            }
            let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            let (flags, length) = (head[4], u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize);
            if first & 1 << 31 == 0 {
                let data = self.take(length).await?;
                return Ok(Some(Frame::Data { stream: first, data, last: flags & FIN != 0 }));
            }
            if length > MAX_CONTROL {
                return Err(invalid("a control frame is too long"));
            }
            let body = self.take(length).await?;
            if (first >> 16) as u16 != VERSION {
                return Err(invalid("only version 3 is spoken"));
            }
            if let Some(frame) = self.control(first as u16, flags, body)? {
                return Ok(Some(frame));
            }
        }
    }

    async fn take(&mut self, length: usize) -> io::Result<Bytes> {
        let mut bytes = BytesMut::zeroed(length);
        self.io.read_exact(&mut bytes).await?;
        Ok(bytes.freeze())
    }

    fn control(&mut self, kind: u16, flags: u8, mut body: Bytes) -> io::Result<Option<Frame>> {
        let short = || invalid("a control frame is too short");
        Ok(match kind {
            SYN_STREAM => {
                let stream = body.try_get_u32().map_err(|_| short())?;
                // Associated stream, priority, slot.
                if body.len() < 6 {
                    return Err(short());
                }
                body.advance(6);
                let headers = self.headers(&body)?;
                Some(Frame::Open { stream, headers, last: flags & FIN != 0 })
            }
            RST_STREAM => Some(Frame::Reset { stream: body.try_get_u32().map_err(|_| short())? }),
            PING => Some(Frame::Ping { id: body.try_get_u32().map_err(|_| short())? }),
            GOAWAY => Some(Frame::GoAway),
            // SETTINGS, WINDOW_UPDATE and whatever else has no meaning here. HEADERS would disturb the decompressor,
            // but no client sends them.
            _ => None,
        })
    }

    fn headers(&mut self, packed: &[u8]) -> io::Result<HashMap<String, String>> {
        let mut bytes = Bytes::from(self.unpack(packed)?);
        let short = |_| invalid("a header block is too short");
        let count = bytes.try_get_u32().map_err(short)?;
        let mut text = || {
            let length = bytes.try_get_u32().map_err(short)? as usize;
            if length > bytes.len() {
                return Err(invalid("a header block is too short"));
            }
            let text = bytes.split_to(length);
            String::from_utf8(text.to_vec()).map_err(|_| invalid("a header is no text"))
        };
        let mut headers = HashMap::new();
        for _ in 0..count {
            let (name, value) = (text()?, text()?);
            headers.insert(name.to_ascii_lowercase(), value);
        }
        Ok(headers)
    }

    fn unpack(&mut self, mut packed: &[u8]) -> io::Result<Vec<u8>> {
        let broken = || invalid("a header block cannot be unpacked");
        let mut unpacked = Vec::with_capacity(1024);
        loop {
            let before = self.unpack.total_in();
            let result = self.unpack.decompress_vec(packed, &mut unpacked, FlushDecompress::Sync);
            let used = usize::try_from(self.unpack.total_in() - before).unwrap_or(packed.len());
            packed = &packed[used.min(packed.len())..];
            match result {
                Ok(Status::Ok) | Ok(Status::BufError) => {}
                Ok(Status::StreamEnd) => return Err(broken()),
                Err(error) if error.needs_dictionary().is_some() => {
                    self.unpack.set_dictionary(&dictionary::bytes()).map_err(|_| broken())?;
                    continue;
                }
                Err(_) => return Err(broken()),
            }
            if packed.is_empty() && unpacked.len() < unpacked.capacity() {
                return Ok(unpacked);
            }
            if unpacked.len() > MAX_HEADERS || unpacked.len() < unpacked.capacity() && used == 0 {
                return Err(broken());
            }
            unpacked.reserve(1024);
        }
    }
}

/// Writes frames.
pub(super) struct Writer<W> {
    pub(super) io: W,
    pack: Compress,
    buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(super) fn new(io: W) -> Self {
        let mut pack = Compress::new(Compression::fast(), true);
        let accepted = pack.set_dictionary(&dictionary::bytes()).is_ok();
        debug_assert!(accepted, "a new compressor takes a dictionary");
        Self { io, pack, buffer: BytesMut::new() }
    }

    pub(super) fn has_room(&self) -> bool {
        self.buffer.len() < 64 << 10
    }

    /// Adds a frame to what is written next; whether that went well.
    pub(super) fn put(&mut self, frame: &Frame) -> bool {
        match frame {
            Frame::Data { stream, data, last } => self.data(*stream, data, *last),
            Frame::Reply { stream } => {
                let headers = self.no_headers();
                self.control(SYN_REPLY, &[&stream.to_be_bytes(), &headers]);
            }
            Frame::Reset { stream } => {
                self.control(RST_STREAM, &[&stream.to_be_bytes(), &CANCEL.to_be_bytes()]);
            }
            Frame::Ping { id } => self.control(PING, &[&id.to_be_bytes()]),
            Frame::GoAway => self.control(GOAWAY, &[&0u32.to_be_bytes(), &0u32.to_be_bytes()]),
            // Only clients open streams.
            Frame::Open { .. } => return false,
        }
        true
    }

    fn data(&mut self, stream: u32, data: &[u8], last: bool) {
        let mut pieces = data.chunks(MAX_DATA).peekable();
        if pieces.peek().is_none() {
            return self.data_frame(stream, &[], last);
        }
        while let Some(piece) = pieces.next() {
            let last = last && pieces.peek().is_none();
            self.data_frame(stream, piece, last);
        }
    }

    fn data_frame(&mut self, stream: u32, data: &[u8], last: bool) {
        self.buffer.put_u32(stream);
        self.length(if last { FIN } else { 0 }, data.len());
        self.buffer.extend_from_slice(data);
    }

    fn control(&mut self, kind: u16, parts: &[&[u8]]) {
        self.buffer.put_u16(VERSION);
        self.buffer.put_u16(kind);
        self.length(0, parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| self.buffer.extend_from_slice(part));
    }

    fn length(&mut self, flags: u8, length: usize) {
        let length = u32::try_from(length).unwrap_or(u32::MAX) & 0x00ff_ffff;
        self.buffer.put_u32(u32::from(flags) << 24 | length);
    }

    /// A packed block of no headers.
    fn no_headers(&mut self) -> Vec<u8> {
        let mut packed = Vec::with_capacity(64);
        // Room for an empty block is there, so it cannot fail.
        self.pack.compress_vec(&0u32.to_be_bytes(), &mut packed, FlushCompress::Sync).ok();
        packed
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.io.write_all_buf(&mut self.buffer).await?;
        self.io.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's SYN_STREAMs with these headers, packed as one stream as the protocol demands.
    fn opened(blocks: &[&[(&str, &str)]]) -> Vec<u8> {
        let mut pack = Compress::new(Compression::best(), true);
        pack.set_dictionary(&dictionary::bytes()).unwrap();
        let mut wire = Vec::new();
        for (number, block) in blocks.iter().enumerate() {
            let mut plain = (block.len() as u32).to_be_bytes().to_vec();
            for text in block.iter().flat_map(|(name, value)| [name, value]) {
                plain.extend((text.len() as u32).to_be_bytes());
                plain.extend(text.as_bytes());
            }
            let mut packed = Vec::with_capacity(plain.len() + 128);
            pack.compress_vec(&plain, &mut packed, FlushCompress::Sync).unwrap();
            wire.extend([0x80, 3, 0, 1, 0]);
            wire.extend(&((packed.len() + 10) as u32).to_be_bytes()[1..]);
            wire.extend((2 * number as u32 + 1).to_be_bytes());
            wire.extend([0; 6]);
            wire.extend(packed);
        }
        wire
    }

    #[tokio::test]
    async fn headers_are_unpacked_with_what_came_before() {
        let long = "x".repeat(5000);
        let wire =
            opened(&[&[("streamType", "error")], &[("streamType", "data"), ("port", "80"), ("long", &long)]]);
        let mut reader = Reader::new(&wire[..]);
        let Some(Frame::Open { stream: 1, headers, last: false }) = reader.next().await.unwrap() else {
            panic!()
        };
        assert_eq!(headers["streamtype"], "error");
        let Some(Frame::Open { stream: 3, headers, .. }) = reader.next().await.unwrap() else { panic!() };
        assert_eq!((headers["port"].as_str(), headers["long"].len()), ("80", 5000));
        assert_eq!(reader.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn frames_come_back_as_they_were_written() {
        let frames = [
            Frame::Data { stream: 5, data: Bytes::from_static(b"hello"), last: false },
            Frame::Data { stream: 5, data: Bytes::new(), last: true },
            Frame::Reset { stream: 7 },
            Frame::Ping { id: 9 },
            Frame::GoAway,
        ];
        let mut writer = Writer::new(Vec::new());
        for frame in &frames {
            assert!(writer.put(frame));
        }
        // Replies are for clients; the reader passes over them.
        assert!(writer.put(&Frame::Reply { stream: 5 }));
        writer.flush().await.unwrap();
        let mut reader = Reader::new(&writer.io[..]);
        for frame in frames {
            assert_eq!(reader.next().await.unwrap(), Some(frame));
        }
        assert_eq!(reader.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_no_spdy_is_refused() {
        for wire in [&[0x80, 2, 0, 1, 0, 0, 0, 0][..], &[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff][..]] {
            assert!(Reader::new(wire).next().await.is_err());
        }
        let mut wire = opened(&[&[("a", "b")]]);
        let end = wire.len();
        wire[18..end].fill(0x55);
        assert!(Reader::new(&wire[..]).next().await.is_err());
    }
}
