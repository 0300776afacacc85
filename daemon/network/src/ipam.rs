//! Which subnet a network gets, and which address a container. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::NetworkError;
use crate::subnet::{Subnet, bits_of};
use crate::types::IpamPool;

/// Where default subnets come from, in order: Docker's own first choices, then small networks in plenty.
const DEFAULT_POOLS: [(Ipv4Addr, u8, u8); 4] = [
    // 172.17.0.0/16 … 172.30.0.0/16: one by one, see default_subnets().
    (Ipv4Addr::new(172, 16, 0, 0), 12, 16),
    (Ipv4Addr::new(172, 31, 0, 0), 16, 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16, 24),
    (Ipv4Addr::new(10, 200, 0, 0), 16, 24),
];

/// A subnet in use and who uses it, for error messages.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) subnet: Subnet,
    pub(crate) by: String,
    /// It is in the way as a route of the host, not as a network of ours.
    pub(crate) is_route: bool,
}

fn default_subnets() -> impl Iterator<Item = Subnet> {
    DEFAULT_POOLS.into_iter().flat_map(|(base, bits, size)| {
        let step = 1_u32 << (32 - size);
        let count = 1_u32 << (size - bits);
        // 172.16/16 is common in companies; 172.31/16 is cut into small networks by the next pool.
        let range = if size == 16 { 1..count - 1 } else { 0..count };
        range.map(move |n| Subnet::containing(Ipv4Addr::from_bits(base.to_bits() + n * step), size))
    })
}

/// The IPv6 networks of an instance: a prefix of 48 bits in fd00::/8 (RFC 4193 3.2), its global id made of the
/// instance's name, and all of its /64.
fn unique_local_subnets(instance: &str) -> impl Iterator<Item = Subnet> {
    // FNV-1a: any spread of names over 40 bits will do.
    let hash = instance.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let global = u128::from(hash & 0xff_ffff_ffff);
    let base = 0xfd << 120 | global << 80;
    (0..=u128::from(u16::MAX)).map(move |n| Subnet::containing(Ipv6Addr::from_bits(base | n << 64), 64))
}

fn first_free(mut candidates: impl Iterator<Item = Subnet>, taken: &[Taken]) -> Result<Subnet, NetworkError> {
    let free = |subnet: &Subnet| !taken.iter().any(|other| other.subnet.overlaps(*subnet));
    candidates.find(free).ok_or_else(|| {
        let mut list: Vec<_> =
            taken.iter().take(8).map(|other| format!("{} ({})", other.subnet, other.by)).collect();
        if taken.len() > list.len() {
            list.push(format!("{} more", taken.len() - list.len()));
        }
        NetworkError::PoolsExhausted(list.join(", "))
    })
}

/// The first default IPv4 subnet that nobody uses.
pub(crate) fn choose_subnet(taken: &[Taken]) -> Result<Subnet, NetworkError> {
    first_free(default_subnets(), taken)
}

/// The instance's first IPv6 subnet that nobody uses.
pub(crate) fn choose_ipv6_subnet(instance: &str, taken: &[Taken]) -> Result<Subnet, NetworkError> {
    first_free(unique_local_subnets(instance), taken)
}

/// Refuses a subnet that somebody uses.
pub(crate) fn check_free(subnet: Subnet, taken: &[Taken]) -> Result<(), NetworkError> {
    match taken.iter().find(|other| other.subnet.overlaps(subnet)) {
        None => Ok(()),
        Some(other) => {
            Err(NetworkError::PoolOverlaps { subnet, with: format!("{} ({})", other.subnet, other.by) })
        }
    }
}

/// Checks a pool by itself and fills in the gateway.
pub(crate) fn complete(mut pool: IpamPool) -> Result<IpamPool, NetworkError> {
    let subnet = pool.subnet;
    let (most, least) = if subnet.is_ipv6() { (126, 16) } else { (30, 8) };
    if subnet.prefix_len() > most {
        let why = format!("subnet {subnet} has no room for a gateway and a container (at most /{most})");
        return Err(NetworkError::InvalidPool(why));
    }
    if subnet.prefix_len() < least {
        return Err(NetworkError::InvalidPool(format!("subnet {subnet} is too large (at least /{least})")));
    }
    if let Some(range) = pool.ip_range.filter(|range| !subnet.covers(*range)) {
        let why = format!("invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range");
        return Err(NetworkError::InvalidPool(why));
    }
    let gateway = pool.gateway.unwrap_or_else(|| subnet.nth(1));
    let named = pool.aux_addresses.iter().map(|(name, address)| (name.as_str(), *address));
    for (role, address) in named.chain([("gateway", gateway)]) {
        if !is_host(subnet, address) {
            let why = format!("invalid {role} address {address}: parent subnet {subnet} doesn't contain it");
            return Err(NetworkError::InvalidPool(why));
        }
    }
    pool.gateway = Some(gateway);
    Ok(pool)
}

/// Whether the address is one that a host of the subnet can have: not the network's own (for IPv6, that of any
/// router), nor IPv4's address of all hosts.
pub(crate) fn is_host(subnet: Subnet, address: IpAddr) -> bool {
    subnet.contains(address) && address != subnet.network() && (subnet.is_ipv6() || address != subnet.last())
}

/// The next free address after `last`, going round: an address rests before it is used again, so that
/// neighbours' ARP entries and half-open connections do not meet a stranger.
pub(crate) fn next_address(pool: &IpamPool, used: &BTreeSet<IpAddr>, last: Option<IpAddr>) -> Option<IpAddr> {
    let range = pool.ip_range.unwrap_or(pool.subnet);
    let size = range.size();
    let first = bits_of(range.network()).0;
    let start = last.filter(|last| range.contains(*last)).map_or(0, |last| bits_of(last).0 - first + 1);
    (0..size)
        .map(|step| range.nth((start + step) % size))
        .find(|address| is_host(pool.subnet, *address) && !used.contains(address))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn ip4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
        IpAddr::from([a, b, c, d])
    }

    fn taken(subnet: &str) -> Taken {
        Taken { subnet: subnet.parse().unwrap(), by: "network x".into(), is_route: false }
    }

    fn pool(subnet: &str) -> IpamPool {
        IpamPool {
            subnet: subnet.parse().unwrap(),
            ip_range: None,
            gateway: None,
            aux_addresses: BTreeMap::new(),
            asked_for: true,
        }
    }

    #[test]
    fn docker_s_choices_come_first_and_live_ones_are_skipped() {
        assert_eq!(choose_subnet(&[]).unwrap().to_string(), "172.17.0.0/16");
        assert_eq!(
            choose_subnet(&[taken("172.17.4.0/24"), taken("172.18.0.0/15")]).unwrap().to_string(),
            "172.20.0.0/16"
        );
        assert_eq!(choose_subnet(&[taken("172.16.0.0/12")]).unwrap().to_string(), "192.168.0.0/24");
        assert_eq!(
            choose_subnet(&[taken("172.16.0.0/12"), taken("192.168.0.0/24")]).unwrap().to_string(),
            "192.168.1.0/24"
        );
    }

    #[test]
    fn two_hundred_networks_fit() {
        let mut used = vec![taken("192.168.0.0/24")];
        for n in 0..200 {
            let subnet = choose_subnet(&used).unwrap_or_else(|e| panic!("network {n}: {e}"));
            check_free(subnet, &used).unwrap();
            used.push(Taken { subnet, by: format!("network {n}"), is_route: false });
        }
    }

    #[test]
    fn conflicts_are_named() {
        let error =
            check_free("10.1.0.0/16".parse().unwrap(), &[taken("10.1.2.0/24")]).unwrap_err().to_string();
        assert!(error.contains("Pool overlaps with other one on this address space"), "{error}");
        assert!(error.contains("10.1.2.0/24 (network x)"), "{error}");
        let error = choose_subnet(&[taken("0.0.0.0/0")]).unwrap_err().to_string();
        assert!(error.contains("fully subnetted") && error.contains("0.0.0.0/0 (network x)"), "{error}");
    }

    #[test]
    fn addresses_go_round_and_skip_what_is_used() {
        let pool = complete(pool("10.0.0.0/29")).unwrap();
        assert_eq!(pool.gateway, Some(ip4(10, 0, 0, 1)));
        let mut used = BTreeSet::from([ip4(10, 0, 0, 1)]);
        let mut last = None;
        for expected in 2..=6 {
            last = next_address(&pool, &used, last);
            assert_eq!(last, Some(ip4(10, 0, 0, expected)));
            used.insert(last.unwrap());
        }
        assert_eq!(next_address(&pool, &used, last), None);
        used.remove(&ip4(10, 0, 0, 4));
        assert_eq!(next_address(&pool, &used, last), Some(ip4(10, 0, 0, 4)));
    }

    #[test]
    fn a_range_limits_dynamic_addresses() {
        let pool = IpamPool { ip_range: Some("10.0.0.8/30".parse().unwrap()), ..pool("10.0.0.0/24") };
        let mut used = BTreeSet::new();
        for expected in 8..12 {
            let address = next_address(&pool, &used, None).unwrap();
            assert_eq!(address, ip4(10, 0, 0, expected));
            used.insert(address);
        }
        assert_eq!(next_address(&pool, &used, None), None);
    }

    #[test]
    fn unusable_pools_are_refused() {
        for bad in ["10.0.0.0/31", "10.0.0.0/7"] {
            assert!(complete(pool(bad)).is_err(), "{bad}");
        }
        for gateway in [[10, 0, 1, 1], [10, 0, 0, 0], [10, 0, 0, 255]] {
            let pool = IpamPool { gateway: Some(IpAddr::from(gateway)), ..pool("10.0.0.0/24") };
            assert!(complete(pool).is_err(), "{gateway:?}");
        }
        let pool = IpamPool { ip_range: Some("10.0.1.0/25".parse().unwrap()), ..pool("10.0.0.0/24") };
        assert!(complete(pool).is_err());
    }

    #[test]
    fn ipv6_subnets_are_unique_local_and_the_instance_s_own() {
        let first = choose_ipv6_subnet("a", &[]).unwrap();
        assert!(first.to_string().starts_with("fd") && first.prefix_len() == 64, "{first}");
        let used = Taken { subnet: first, by: "network x".into(), is_route: false };
        let second = choose_ipv6_subnet("a", std::slice::from_ref(&used)).unwrap();
        assert!(!second.overlaps(first) && Subnet::containing(first.network(), 48).covers(second));
        assert_ne!(choose_ipv6_subnet("b", &[]).unwrap(), first);
        let pool = complete(pool("fd00:1::/64")).unwrap();
        assert_eq!(pool.gateway, Some("fd00:1::1".parse().unwrap()));
        let used = BTreeSet::from([pool.gateway.unwrap()]);
        let address = next_address(&pool, &used, None).unwrap();
        assert_eq!(address.to_string(), "fd00:1::2");
        assert_eq!(next_address(&pool, &used, Some(address)).unwrap().to_string(), "fd00:1::3");
        assert!(is_host(pool.subnet, pool.subnet.last()) && !is_host(pool.subnet, pool.subnet.network()));
    }
}
