//! The nf_tables expressions that Berth's rules are made of (linux/netfilter/nf_tables.h).
//!
//! A rule is a list of expressions which load registers, compare them and end in a verdict. Registers are
//! addressed in words of four bytes here ([`reg`]), so that the parts of a concatenated key lie side by side.

use super::wire::Attributes;

const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const FIB_ADDRTYPE: u32 = 3;
const FIB_BY_DESTINATION: u32 = 1 << 1;
/// `IPS_DST_NAT`: the connection's destination was translated.
const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// Connection tracking state bits `established` and `related`.
const ONGOING: u32 = 0b110;

/// The `n`th four-byte register.
pub(super) const fn reg(n: u32) -> u32 {
    libc::NFT_REG32_00 as u32 + n
}

/// Words of an interface name in registers and keys.
pub(super) const NAME_WORDS: u32 = (libc::IFNAMSIZ / 4) as u32;

/// A family of addresses, and where packets of it have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IpFamily {
    V4,
    V6,
}

impl IpFamily {
    const fn protocol(self) -> u8 {
        match self {
            Self::V4 => libc::NFPROTO_IPV4 as u8,
            Self::V6 => libc::NFPROTO_IPV6 as u8,
        }
    }

    /// Words of an address in registers and keys.
    pub(super) const fn words(self) -> u32 {
        match self {
            Self::V4 => 1,
            Self::V6 => 4,
        }
    }

    /// Where the source is in the header; the destination follows it.
    const fn source_at(self) -> u32 {
        match self {
            Self::V4 => 12,
            Self::V6 => 8,
        }
    }

    const fn destination_at(self) -> u32 {
        self.source_at() + 4 * self.words()
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy)]
pub(super) enum Verdict {
    Drop,
    Accept,
}

/// An end of a packet's way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

/// The expressions of one rule.
#[derive(Debug, Default)]
pub(super) struct Rule(Attributes);

impl Rule {
    pub(super) fn expressions(&self) -> &Attributes {
        &self.0
    }

    fn add(mut self, name: &str, fill: impl FnOnce(&mut Attributes)) -> Self {
        self.0.nested(LIST_ELEM, |element| {
            element.text(EXPR_NAME, name).nested(EXPR_DATA, fill);
        });
        self
    }

    fn meta(self, key: libc::c_int, register: u32) -> Self {
        const DREG: u16 = 1;
        const KEY: u16 = 2;
        self.add("meta", |a| {
            a.number(DREG, register).number(KEY, key as u32);
        })
    }

    fn connection(self, key: libc::c_int, register: u32) -> Self {
        const DREG: u16 = 1;
        const KEY: u16 = 2;
        self.add("ct", |a| {
            a.number(DREG, register).number(KEY, key as u32);
        })
    }

    fn payload(self, base: libc::c_int, offset: u32, length: u32, register: u32) -> Self {
        const DREG: u16 = 1;
        const BASE: u16 = 2;
        const OFFSET: u16 = 3;
        const LEN: u16 = 4;
        self.add("payload", |a| {
            a.number(DREG, register).number(BASE, base as u32).number(OFFSET, offset).number(LEN, length);
        })
    }

    fn compare(self, operator: libc::c_int, register: u32, value: &[u8]) -> Self {
        const SREG: u16 = 1;
        const OP: u16 = 2;
        const DATA: u16 = 3;
        self.add("cmp", |a| {
            a.number(SREG, register).number(OP, operator as u32).nested(DATA, |data| {
                data.bytes(DATA_VALUE, value);
            });
        })
    }

    fn any_bit(self, register: u32, mask: u32) -> Self {
        const SREG: u16 = 1;
        const DREG: u16 = 2;
        const LEN: u16 = 3;
        const MASK: u16 = 4;
        const XOR: u16 = 5;
        self.add("bitwise", |a| {
            a.number(SREG, register).number(DREG, register).number(LEN, 4);
            a.nested(MASK, |data| {
                data.bytes(DATA_VALUE, &mask.to_ne_bytes());
            });
            a.nested(XOR, |data| {
                data.bytes(DATA_VALUE, &[0; 4]);
            });
        })
        .compare(libc::NFT_CMP_NEQ, register, &[0; 4])
    }

    fn lookup(self, set: &str, key: u32, value: Option<u32>, inverted: bool) -> Self {
        const SET: u16 = 1;
        const SREG: u16 = 2;
        const DREG: u16 = 3;
        const FLAGS: u16 = 5;
        self.add("lookup", |a| {
            a.text(SET, set).number(SREG, key);
            if let Some(value) = value {
                a.number(DREG, value);
            }
            if inverted {
                a.number(FLAGS, libc::NFT_LOOKUP_F_INV as u32);
            }
        })
    }

    /// Goes on with packets of this family only.
    pub(super) fn family(self, family: IpFamily) -> Self {
        self.meta(libc::NFT_META_NFPROTO, reg(0)).compare(libc::NFT_CMP_EQ, reg(0), &[family.protocol()])
    }

    /// Goes on with IPv4 packets only.
    pub(super) fn ipv4(self) -> Self {
        self.family(IpFamily::V4)
    }

    /// Goes on when the packet came in on a link of the set.
    pub(super) fn from(self, set: &str) -> Self {
        self.meta(libc::NFT_META_IIFNAME, reg(0)).lookup(set, reg(0), None, false)
    }

    /// Goes on when the packet leaves on a link of the set.
    pub(super) fn to(self, set: &str) -> Self {
        self.meta(libc::NFT_META_OIFNAME, reg(0)).lookup(set, reg(0), None, false)
    }

    /// Goes on when the packet came in on this link. Written as `iptables` writes it.
    pub(super) fn entered_on(self, name: &str) -> Self {
        self.meta(libc::NFT_META_IIFNAME, libc::NFT_REG_1 as u32).link_is(name)
    }

    /// Goes on when the packet leaves on this link. Written as `iptables` writes it.
    pub(super) fn leaving_on(self, name: &str) -> Self {
        self.meta(libc::NFT_META_OIFNAME, libc::NFT_REG_1 as u32).link_is(name)
    }

    fn link_is(self, name: &str) -> Self {
        let mut terminated = name.as_bytes().to_vec();
        terminated.push(0);
        self.compare(libc::NFT_CMP_EQ, libc::NFT_REG_1 as u32, &terminated)
    }

    /// Counts packets and bytes; `iptables` shows zeros otherwise.
    pub(super) fn counted(self) -> Self {
        self.add("counter", |_| {})
    }

    /// Goes on in another chain of the table.
    pub(super) fn jump(self, chain: &str) -> Self {
        const DREG: u16 = 1;
        const DATA: u16 = 2;
        const VERDICT_CHAIN: u16 = 2;
        self.add("immediate", |a| {
            a.number(DREG, libc::NFT_REG_VERDICT as u32).nested(DATA, |data| {
                data.nested(DATA_VERDICT, |inner| {
                    inner.number(VERDICT_CODE, libc::NFT_JUMP as u32).text(VERDICT_CHAIN, chain);
                });
            });
        })
    }

    /// Goes on when the packet leaves on a link outside the set.
    pub(super) fn not_to(self, set: &str) -> Self {
        self.meta(libc::NFT_META_OIFNAME, reg(0)).lookup(set, reg(0), None, true)
    }

    /// Goes on when the packet came in on a link outside the set.
    pub(super) fn not_from(self, set: &str) -> Self {
        self.meta(libc::NFT_META_IIFNAME, reg(0)).lookup(set, reg(0), None, true)
    }

    /// Goes on when destination, protocol and port are in the set; the family is known.
    pub(super) fn bound_for_service(self, family: IpFamily, set: &str) -> Self {
        self.service(family).lookup(set, reg(0), None, false)
    }

    /// Loads destination, protocol and port.
    fn service(self, family: IpFamily) -> Self {
        let words = family.words();
        self.payload(libc::NFT_PAYLOAD_NETWORK_HEADER, family.destination_at(), 4 * words, reg(0))
            .meta(libc::NFT_META_L4PROTO, reg(words))
            .payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, reg(words + 1))
    }

    /// Goes on when incoming and outgoing link are a pair of the set.
    pub(super) fn between(self, set: &str) -> Self {
        self.meta(libc::NFT_META_IIFNAME, reg(0)).meta(libc::NFT_META_OIFNAME, reg(NAME_WORDS)).lookup(
            set,
            reg(0),
            None,
            false,
        )
    }

    /// Goes on when source and destination are a pair of the set; the family is known.
    pub(super) fn bound_for_itself(self, family: IpFamily, set: &str) -> Self {
        // The two addresses lie side by side in the header.
        self.payload(libc::NFT_PAYLOAD_NETWORK_HEADER, family.source_at(), 8 * family.words(), reg(0)).lookup(
            set,
            reg(0),
            None,
            false,
        )
    }

    /// Goes on when the destination is ::1; IPv6 is known.
    pub(super) fn bound_for_ipv6_loopback(self) -> Self {
        self.payload(libc::NFT_PAYLOAD_NETWORK_HEADER, IpFamily::V6.destination_at(), 16, reg(0)).compare(
            libc::NFT_CMP_EQ,
            reg(0),
            &std::net::Ipv6Addr::LOCALHOST.octets(),
        )
    }

    /// Goes on when the destination is in 127.0.0.0/8; IPv4 is known.
    pub(super) fn bound_for_loopback(self) -> Self {
        self.payload(libc::NFT_PAYLOAD_NETWORK_HEADER, 16, 1, reg(0)).compare(
            libc::NFT_CMP_EQ,
            reg(0),
            &[127],
        )
    }

    /// Goes on when the source is in 127.0.0.0/8; IPv4 is known.
    pub(super) fn sent_by_loopback(self) -> Self {
        self.payload(libc::NFT_PAYLOAD_NETWORK_HEADER, 12, 1, reg(0)).compare(
            libc::NFT_CMP_EQ,
            reg(0),
            &[127],
        )
    }

    /// Goes on when the destination is an address of this host.
    pub(super) fn bound_for_this_host(self) -> Self {
        const DREG: u16 = 1;
        const RESULT: u16 = 2;
        const FLAGS: u16 = 3;
        self.add("fib", |a| {
            a.number(DREG, reg(0)).number(RESULT, FIB_ADDRTYPE).number(FLAGS, FIB_BY_DESTINATION);
        })
        .compare(libc::NFT_CMP_EQ, reg(0), &u32::from(libc::RTN_LOCAL).to_ne_bytes())
    }

    /// Goes on with packets of connections that are under way.
    pub(super) fn ongoing(self) -> Self {
        self.connection(libc::NFT_CT_STATE, reg(0)).any_bit(reg(0), ONGOING)
    }

    /// Goes on with packets whose destination a port map has translated.
    pub(super) fn translated(self) -> Self {
        self.connection(libc::NFT_CT_STATUS, reg(0)).any_bit(reg(0), DESTINATION_TRANSLATED)
    }

    /// Translates the destination by the map `protocol . port : address . port`.
    pub(super) fn translate_by_port(self, family: IpFamily, map: &str) -> Self {
        self.meta(libc::NFT_META_L4PROTO, reg(0))
            .payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, reg(1))
            .translate(family, map)
    }

    /// Translates the destination by the map `address . protocol . port : address . port`.
    pub(super) fn translate_by_address(self, family: IpFamily, map: &str) -> Self {
        self.service(family).translate(family, map)
    }

    fn translate(self, family: IpFamily, map: &str) -> Self {
        const TYPE: u16 = 1;
        const FAMILY: u16 = 2;
        const REG_ADDR_MIN: u16 = 3;
        const REG_PROTO_MIN: u16 = 5;
        self.lookup(map, reg(0), Some(reg(0)), false).add("nat", |a| {
            a.number(TYPE, libc::NFT_NAT_DNAT as u32).number(FAMILY, u32::from(family.protocol()));
            a.number(REG_ADDR_MIN, reg(0)).number(REG_PROTO_MIN, reg(family.words()));
        })
    }

    /// Goes on with packets of this protocol from or to this address and port; IPv4 is known.
    pub(super) fn local_service(self, end: End, protocol: u8, address: [u8; 4], port: u16) -> Self {
        let (address_at, port_at) = match end {
            End::Source => (12, 0),
            End::Destination => (16, 2),
        };
        self.meta(libc::NFT_META_L4PROTO, reg(0))
            .compare(libc::NFT_CMP_EQ, reg(0), &[protocol])
            .payload(libc::NFT_PAYLOAD_NETWORK_HEADER, address_at, 4, reg(0))
            .compare(libc::NFT_CMP_EQ, reg(0), &address)
            .payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, port_at, 2, reg(0))
            .compare(libc::NFT_CMP_EQ, reg(0), &port.to_be_bytes())
    }

    /// Writes another port into the packet, without connection tracking; the transport's checksum is at `checksum`.
    pub(super) fn set_port(self, end: End, port: u16, checksum: u32) -> Self {
        const BASE: u16 = 2;
        const OFFSET: u16 = 3;
        const LEN: u16 = 4;
        const SREG: u16 = 5;
        const CSUM_TYPE: u16 = 6;
        const CSUM_OFFSET: u16 = 7;
        const CSUM_INET: u32 = 1;
        let offset = if end == End::Source { 0 } else { 2 };
        self.load(reg(0), &port.to_be_bytes()).add("payload", |a| {
            a.number(BASE, libc::NFT_PAYLOAD_TRANSPORT_HEADER as u32).number(OFFSET, offset).number(LEN, 2);
            a.number(SREG, reg(0)).number(CSUM_TYPE, CSUM_INET).number(CSUM_OFFSET, checksum);
        })
    }

    /// Connections are not tracked.
    pub(super) fn untracked(self) -> Self {
        self.add("notrack", |_| {})
    }

    fn load(self, register: u32, value: &[u8]) -> Self {
        const DREG: u16 = 1;
        const DATA: u16 = 2;
        self.add("immediate", |a| {
            a.number(DREG, register).nested(DATA, |data| {
                data.bytes(DATA_VALUE, value);
            });
        })
    }

    /// Replaces the source by the address of the outgoing link.
    pub(super) fn masquerade(self) -> Self {
        self.add("masq", |_| {})
    }

    pub(super) fn verdict(self, verdict: Verdict) -> Self {
        const DREG: u16 = 1;
        const DATA: u16 = 2;
        self.add("immediate", |a| {
            a.number(DREG, libc::NFT_REG_VERDICT as u32).nested(DATA, |data| {
                data.nested(DATA_VERDICT, |inner| {
                    inner.number(VERDICT_CODE, verdict as u32);
                });
            });
        })
    }
}
