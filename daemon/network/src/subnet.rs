//! IPv4 prefixes and what they overlap.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 network in CIDR notation; host bits are always clear.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Subnet {
    network: u32,
    prefix_len: u8,
}

/// The text is not an IPv4 network in CIDR notation.
#[derive(Debug, Clone, thiserror::Error)]
#[error("invalid CIDR block {text:?}: an IPv4 network such as 10.5.0.0/24 is expected")]
pub struct InvalidSubnet {
    text: String,
}

impl Ipv4Subnet {
    /// The network of `prefix_len` bits which holds `address`.
    ///
    /// # Panics
    /// When `prefix_len` exceeds 32.
    pub const fn containing(address: Ipv4Addr, prefix_len: u8) -> Self {
        assert!(prefix_len <= 32, "an IPv4 prefix has at most 32 bits");
        Self { network: address.to_bits() & Self::mask_of(prefix_len), prefix_len }
    }

    const fn mask_of(prefix_len: u8) -> u32 {
        if prefix_len == 0 { 0 } else { u32::MAX << (32 - prefix_len) }
    }

    /// The network address (all host bits zero).
    pub const fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network)
    }

    /// The address of all hosts (all host bits one).
    pub const fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network | !Self::mask_of(self.prefix_len))
    }

    /// The number of network bits.
    pub const fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// Number of addresses, network and broadcast address included.
    pub const fn size(self) -> u64 {
        1 << (32 - self.prefix_len)
    }

    /// Whether `address` lies in this network.
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & Self::mask_of(self.prefix_len) == self.network
    }

    /// Whether all of `other` lies in this network.
    pub const fn covers(self, other: Self) -> bool {
        other.prefix_len >= self.prefix_len && self.contains(other.network())
    }

    /// Whether the two share an address.
    pub const fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }
}

impl fmt::Display for Ipv4Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix_len)
    }
}

impl fmt::Debug for Ipv4Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Ipv4Subnet {
    type Err = InvalidSubnet;

    /// Host bits in the text are dropped, as Docker does.
    fn from_str(text: &str) -> Result<Self, InvalidSubnet> {
        let invalid = || InvalidSubnet { text: text.to_owned() };
        let (address, bits) = text.split_once('/').ok_or_else(invalid)?;
        let bits: u8 = bits.parse().ok().filter(|bits| *bits <= 32).ok_or_else(invalid)?;
        Ok(Self::containing(address.parse().map_err(|_| invalid())?, bits))
    }
}

impl TryFrom<String> for Ipv4Subnet {
    type Error = InvalidSubnet;

    fn try_from(text: String) -> Result<Self, InvalidSubnet> {
        text.parse()
    }
}

impl From<Ipv4Subnet> for String {
    fn from(subnet: Ipv4Subnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Ipv4Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn host_bits_are_dropped() {
        assert_eq!(subnet("10.1.2.3/16").to_string(), "10.1.0.0/16");
        assert_eq!(subnet("1.2.3.4/0").to_string(), "0.0.0.0/0");
        assert_eq!(subnet("1.2.3.4/32").broadcast(), Ipv4Addr::new(1, 2, 3, 4));
    }

    #[test]
    fn overlap_is_containment_either_way() {
        assert!(subnet("10.0.0.0/8").overlaps(subnet("10.9.0.0/16")));
        assert!(subnet("10.9.0.0/16").overlaps(subnet("10.0.0.0/8")));
        assert!(!subnet("10.9.0.0/16").overlaps(subnet("10.10.0.0/16")));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "fd00::/8", "10.0.0.0/-1"] {
            assert!(text.parse::<Ipv4Subnet>().is_err(), "{text} was accepted");
        }
    }
}
