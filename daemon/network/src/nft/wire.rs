//! nfnetlink on the wire: attributes and batches (linux/netfilter/nfnetlink.h, linux/netlink.h).

/// `NLA_F_NESTED`: the attribute holds attributes.
const NESTED: u16 = 1 << 15;
const HEADER: usize = 16;
const FAMILY_UNSPEC: u8 = 0;

/// The family of a table.
#[derive(Debug, Clone, Copy)]
pub(super) enum Family {
    /// One table for IPv4 and IPv6.
    Inet = libc::NFPROTO_INET as isize,
    /// IPv4 alone.
    Ipv4 = libc::NFPROTO_IPV4 as isize,
    /// IPv6 alone.
    Ipv6 = libc::NFPROTO_IPV6 as isize,
}

/// A sequence of netlink attributes. Numbers are big-endian, as everywhere in nf_tables.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(4 + value.len()).expect("attributes are chunked well below 64 KiB");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A string with its terminating zero.
    pub(super) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut terminated = value.as_bytes().to_vec();
        terminated.push(0);
        self.bytes(kind, &terminated)
    }

    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(kind | NESTED, &inner.0)
    }

    /// These attributes as a message of its own, outside of transactions, which is acknowledged.
    pub(super) fn single_message(&self, kind: u16, family: u8, sequence: u32) -> Vec<u8> {
        self.lone_message(kind, libc::NLM_F_ACK, family, sequence)
    }

    /// These attributes as a message that asks for a list.
    pub(super) fn dump_message(&self, kind: u16, family: u8, sequence: u32) -> Vec<u8> {
        self.lone_message(kind, libc::NLM_F_DUMP, family, sequence)
    }

    #[cfg(test)]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn lone_message(&self, kind: u16, flags: libc::c_int, family: u8, sequence: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + 4 + self.0.len());
        bytes.extend(((HEADER + 4 + self.0.len()) as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend([family, 0, 0, 0]);
        bytes.extend(&self.0);
        bytes
    }

    /// Attributes that are complete already.
    pub(super) fn append(&mut self, others: &Self) -> &mut Self {
        self.0.extend(&others.0);
        self
    }
}

/// One transaction: the kernel applies all of its messages or none.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    family: u8,
    sequence: u32,
    last_message: usize,
}

impl Batch {
    pub(super) fn new(family: Family) -> Self {
        let family = family as u8;
        let mut batch = Self { bytes: Vec::with_capacity(1024), family, sequence: 0, last_message: 0 };
        batch.push(libc::NFNL_MSG_BATCH_BEGIN as u16, 0, FAMILY_UNSPEC, &Attributes::default());
        batch
    }

    /// Adds an nf_tables message, `NFT_MSG_*`.
    pub(super) fn message(&mut self, kind: libc::c_int, flags: libc::c_int, attributes: &Attributes) {
        let kind = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8 | kind as u16;
        self.last_message = self.bytes.len();
        self.push(kind, flags as u16, self.family, attributes);
    }

    fn push(&mut self, kind: u16, flags: u16, family: u8, attributes: &Attributes) {
        let length = (HEADER + 4 + attributes.0.len()) as u32;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend((libc::NFNL_SUBSYS_NFTABLES as u16).to_be_bytes());
        self.bytes.extend(&attributes.0);
        self.sequence += 1;
    }

    /// The finished batch and the sequence number that will be acknowledged.
    ///
    /// Only the last message asks for an acknowledgement: the answers to a large batch would not fit the
    /// socket's buffer, and an error is reported for whichever message has it anyway.
    pub(super) fn finish(mut self) -> (Vec<u8>, u32) {
        let acknowledged = self.sequence - 1;
        let flags = self.last_message + 6;
        self.bytes[flags] |= libc::NLM_F_ACK as u8;
        self.push(libc::NFNL_MSG_BATCH_END as u16, 0, FAMILY_UNSPEC, &Attributes::default());
        (self.bytes, acknowledged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nest() {
        let mut attributes = Attributes::default();
        attributes.text(1, "abc").nested(2, |inner| {
            inner.bytes(3, &[9]);
        });
        let mut expected = vec![];
        expected.extend(8_u16.to_ne_bytes());
        expected.extend(1_u16.to_ne_bytes());
        expected.extend(b"abc\0");
        expected.extend(12_u16.to_ne_bytes());
        expected.extend((2 | NESTED).to_ne_bytes());
        expected.extend(5_u16.to_ne_bytes());
        expected.extend(3_u16.to_ne_bytes());
        expected.extend([9, 0, 0, 0]);
        assert_eq!(attributes.0, expected);
    }

    #[test]
    fn only_the_last_message_asks_for_an_answer() {
        let mut batch = Batch::new(Family::Inet);
        batch.message(libc::NFT_MSG_NEWTABLE, 0, &Attributes::default());
        batch.message(libc::NFT_MSG_DELTABLE, 0, &Attributes::default());
        let (bytes, acknowledged) = batch.finish();
        assert_eq!(acknowledged, 2);
        let flags: Vec<u8> = bytes.chunks(20).map(|message| message[6]).collect();
        assert_eq!(flags, [1, 1, 5, 1]);
    }
}
