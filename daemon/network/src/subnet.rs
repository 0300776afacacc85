//! IP prefixes and what they overlap.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IP network in CIDR notation; host bits are always clear.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    network: IpAddr,
    prefix_len: u8,
}

/// The text is not an IP network in CIDR notation.
#[derive(Debug, Clone, thiserror::Error)]
#[error("invalid CIDR block {text:?}: a network such as 10.5.0.0/24 or fd00:5::/64 is expected")]
pub struct InvalidSubnet {
    text: String,
}

/// An address as a number, and how many bits it has.
pub(crate) fn bits_of(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    }
}

/// The address of the same family that this number stands for.
pub(crate) fn address_of(bits: u128, like: IpAddr) -> IpAddr {
    match like {
        // Arithmetic on IPv4 addresses stays within their subnet, so nothing is cut off.
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}

impl Subnet {
    /// The network of `prefix_len` bits which holds `address`.
    ///
    /// # Panics
    /// When `prefix_len` exceeds the address's bits.
    pub fn containing(address: impl Into<IpAddr>, prefix_len: u8) -> Self {
        let address = address.into();
        let (bits, width) = bits_of(address);
        assert!(prefix_len <= width, "a prefix has at most as many bits as its address");
        let hosts = Self::host_mask(width - prefix_len);
        Self { network: address_of(bits & !hosts, address), prefix_len }
    }

    const fn host_mask(host_bits: u8) -> u128 {
        if host_bits == 128 { u128::MAX } else { (1 << host_bits) - 1 }
    }

    fn host_bits(self) -> u8 {
        bits_of(self.network).1 - self.prefix_len
    }

    /// The network address (all host bits zero).
    pub const fn network(self) -> IpAddr {
        self.network
    }

    /// The address with all host bits one; for IPv4 the address of all hosts.
    pub fn last(self) -> IpAddr {
        address_of(bits_of(self.network).0 | Self::host_mask(self.host_bits()), self.network)
    }

    /// The number of network bits.
    pub const fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// Number of addresses, network and broadcast address included; for `::/0`, one less.
    pub fn size(self) -> u128 {
        Self::host_mask(self.host_bits()).saturating_add(1)
    }

    /// The `n`th address.
    pub(crate) fn nth(self, n: u128) -> IpAddr {
        address_of(bits_of(self.network).0.wrapping_add(n), self.network)
    }

    /// Whether it is a network of IPv6 addresses.
    pub const fn is_ipv6(self) -> bool {
        self.network.is_ipv6()
    }

    /// Whether `address` lies in this network.
    pub fn contains(self, address: impl Into<IpAddr>) -> bool {
        let address = address.into();
        address.is_ipv6() == self.is_ipv6() && Self::containing(address, self.prefix_len) == self
    }

    /// Whether all of `other` lies in this network.
    pub fn covers(self, other: Self) -> bool {
        other.prefix_len >= self.prefix_len && self.contains(other.network)
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Subnet {
    type Err = InvalidSubnet;

    /// Host bits in the text are dropped, as Docker does.
    fn from_str(text: &str) -> Result<Self, InvalidSubnet> {
        let invalid = || InvalidSubnet { text: text.to_owned() };
        let (address, bits) = text.split_once('/').ok_or_else(invalid)?;
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let bits: u8 = bits.parse().ok().filter(|bits| *bits <= bits_of(address).1).ok_or_else(invalid)?;
        Ok(Self::containing(address, bits))
    }
}

impl TryFrom<String> for Subnet {
    type Error = InvalidSubnet;

    fn try_from(text: String) -> Result<Self, InvalidSubnet> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn host_bits_are_dropped() {
        assert_eq!(subnet("10.1.2.3/16").to_string(), "10.1.0.0/16");
        assert_eq!(subnet("1.2.3.4/0").to_string(), "0.0.0.0/0");
        assert_eq!(subnet("1.2.3.4/32").last(), IpAddr::from([1, 2, 3, 4]));
        assert_eq!(subnet("fd00:1:2:3::9/64").to_string(), "fd00:1:2:3::/64");
        assert_eq!(subnet("::/0").size(), u128::MAX);
    }

    #[test]
    fn overlap_is_containment_either_way() {
        assert!(subnet("10.0.0.0/8").overlaps(subnet("10.9.0.0/16")));
        assert!(subnet("10.9.0.0/16").overlaps(subnet("10.0.0.0/8")));
        assert!(!subnet("10.9.0.0/16").overlaps(subnet("10.10.0.0/16")));
        assert!(subnet("fd00::/48").overlaps(subnet("fd00:0:0:7::/64")));
        assert!(!subnet("::/0").overlaps(subnet("0.0.0.0/0")), "families do not meet");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/-1"] {
            assert!(text.parse::<Subnet>().is_err(), "{text} was accepted");
        }
    }
}
