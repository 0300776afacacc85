//! How the `local` log keeps output: in blocks, as it came. Pure.
//!
//! ```text
//!   0xb1  stream  flags  0   length (4)   time (8)   │ text … │   length (4)      integers are little-endian
//! ```
//!
//! A block is what one read has brought of one stream, up to its last line end; its text is not looked at any further, so that
//! keeping it costs little more than copying it. The time is that of all its lines, in nanoseconds since 1970. The length stands
//! at both ends, so that a log can be walked from its end. A line of more than 16 KiB may go on in the stream's next block, which
//! [`CONTINUES`] then tells. The first byte is not how a json-file begins: both kinds of file are told apart by it.

/// The first byte of a block.
pub const MARK: u8 = 0xb1;
/// Bytes before the text.
pub const HEAD: usize = 16;
/// Bytes behind the text.
pub const TAIL: usize = 4;
/// A longer text is no block.
pub const LONGEST: usize = 4 << 20;
/// Flag: the text goes on with a line that the stream's block before has begun.
pub const CONTINUES: u8 = 1;

/// What stands before a block's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// 1: standard output, 2: standard error.
    pub stream: u8,
    /// [`CONTINUES`] or nothing.
    pub flags: u8,
    /// Bytes of the text.
    pub length: u32,
    /// Nanoseconds since 1970.
    pub time: i64,
}

impl Head {
    /// As it stands in the file.
    #[must_use]
    pub fn encode(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..4].copy_from_slice(&[MARK, self.stream, self.flags, 0]);
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..].copy_from_slice(&self.time.to_le_bytes());
        bytes
    }

    /// What stands behind the text.
    #[must_use]
    pub fn tail(&self) -> [u8; TAIL] {
        self.length.to_le_bytes()
    }

    /// `None`: this is no block's head.
    #[must_use]
    pub fn decode(bytes: &[u8; HEAD]) -> Option<Self> {
        let [MARK, stream @ 1..=2, flags, 0, l0, l1, l2, l3, time @ ..] = *bytes else { return None };
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let head = Self { stream, flags, length, time: i64::from_le_bytes(time) };
        (head.length() <= LONGEST).then_some(head)
    }

    /// Bytes of the text.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length as usize
    }

    /// Bytes of the block.
    #[must_use]
    pub fn whole(&self) -> usize {
        HEAD + self.length() + TAIL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_they_were_written() {
        let head = Head { stream: 2, flags: CONTINUES, length: 70_000, time: 1_700_000_000_123_456_789 };
        assert_eq!(Head::decode(&head.encode()), Some(head));
        assert_eq!(u32::from_le_bytes(head.tail()), head.length);
        let broken = |change: fn(&mut [u8; HEAD])| {
            let mut bytes = head.encode();
            change(&mut bytes);
            Head::decode(&bytes)
        };
        assert_eq!(broken(|bytes| bytes[0] = b'{'), None);
        assert_eq!(broken(|bytes| bytes[1] = 3), None);
        assert_eq!(broken(|bytes| bytes[7] = 1), None, "longer than any");
    }
}
