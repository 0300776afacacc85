//! Framing of multiplexed streams: `{stream, 0, 0, 0, length as 32-bit big endian}`, then the bytes.
//!
//! <https://docs.docker.com/reference/api/engine/> "Stream format".

/// Bytes of a frame's header.
pub const HEADER: usize = 8;

/// Longest frame accepted; docker writes at most some 32 KiB, and a log line can be 1 MiB with its details.
pub const MAX_FRAME: usize = 16 << 20;

/// Where a frame's bytes belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Echo of standard input; nobody sends it.
    Stdin = 0,
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// An error of the daemon itself, while it read the log.
    SystemError = 3,
    /// Berth's own, for who asks for it ([`crate::exec::RUN`]): the exit code, a big-endian `i32`. Nothing comes behind it.
    Exit = 4,
}

/// The header of a frame with so many bytes.
///
/// # Panics
/// If the length does not fit 32 bits.
#[must_use]
pub fn header(stream: Stream, length: usize) -> [u8; HEADER] {
    let length = u32::try_from(length).expect("frames are cut far below 4 GiB").to_be_bytes();
    [stream as u8, 0, 0, 0, length[0], length[1], length[2], length[3]]
}

/// Appends a frame.
pub fn encode(stream: Stream, bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&header(stream, bytes.len()));
    out.extend_from_slice(bytes);
}

/// The bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The first byte is no stream.
    UnknownStream(u8),
    /// The frame is longer than [`MAX_FRAME`].
    TooLong(usize),
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownStream(byte) => write!(f, "unrecognized stream {byte} in a multiplexed stream"),
            Self::TooLong(length) => write!(f, "frame of {length} bytes in a multiplexed stream"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Takes frames out of a stream that arrives in pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// An empty decoder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// [`FrameError`] if the stream is not framed; nothing after that can be trusted.
    pub fn next_frame(&mut self) -> Result<Option<(Stream, Vec<u8>)>, FrameError> {
        let pending = &self.buffer[self.start..];
        let Some((head, rest)) = pending.split_first_chunk::<HEADER>() else { return Ok(None) };
        let stream = match head[0] {
            0 => Stream::Stdin,
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            3 => Stream::SystemError,
            4 => Stream::Exit,
            byte => return Err(FrameError::UnknownStream(byte)),
        };
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if length > MAX_FRAME {
            return Err(FrameError::TooLong(length));
        }
        let Some(bytes) = rest.get(..length) else { return Ok(None) };
        let bytes = bytes.to_vec();
        self.start += HEADER + length;
        Ok(Some((stream, bytes)))
    }

    /// Whether bytes of an unfinished frame are left.
    #[must_use]
    pub fn has_rest(&self) -> bool {
        self.start < self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut wire = Vec::new();
        encode(Stream::Stdout, b"hello\n", &mut wire);
        encode(Stream::Stderr, b"", &mut wire);
        encode(Stream::Stdout, b"world", &mut wire);
        assert_eq!(&wire[..14], b"\x01\0\0\0\0\0\0\x06hello\n");
        for cut in 1..wire.len() {
            let mut decoder = Decoder::new();
            let mut frames = Vec::new();
            for piece in wire.chunks(cut) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    frames.push(frame);
                }
            }
            let expected = [
                (Stream::Stdout, b"hello\n".to_vec()),
                (Stream::Stderr, Vec::new()),
                (Stream::Stdout, b"world".to_vec()),
            ];
            assert_eq!(frames, expected, "cut every {cut} bytes");
            assert!(!decoder.has_rest());
        }
    }

    #[test]
    fn raw_bytes_are_refused() {
        let mut decoder = Decoder::new();
        decoder.push(b"hello, I am not framed");
        assert_eq!(decoder.next_frame(), Err(FrameError::UnknownStream(b'h')));
        let mut decoder = Decoder::new();
        decoder.push(&[1, 0, 0, 0, 255, 255, 255, 255]);
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLong(0xffff_ffff)));
    }
}
