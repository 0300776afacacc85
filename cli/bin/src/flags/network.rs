//! `--network name=…,alias=…`, and the address pools of `network create`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use berth_api::network::{EndpointIpamConfig, EndpointSettings, IpamConfig};

use super::environment::pair;

/// Parses `--network`: a name alone, or `name=…` with settings of the endpoint.
pub(crate) fn network(spec: &str) -> Result<(String, EndpointSettings)> {
    let mut endpoint = EndpointSettings::default();
    if !spec.contains('=') {
        return Ok((spec.to_owned(), endpoint));
    }
    let mut name = None;
    for field in spec.split(',') {
        let (key, value) =
            field.split_once('=').with_context(|| format!("invalid field {field:?} in --network {spec}"))?;
        let value = value.to_owned();
        match key.trim().to_ascii_lowercase().as_str() {
            "name" => name = Some(value),
            "alias" => endpoint.aliases.get_or_insert_default().push(value),
            "ip" => addresses(&mut endpoint).ipv4_address = value,
            "ip6" => addresses(&mut endpoint).ipv6_address = value,
            "mac-address" => endpoint.mac_address = value,
            "link-local-ip" => {
                addresses(&mut endpoint).link_local_ips.get_or_insert_default().push(value);
            }
            "driver-opt" => {
                let (option, value) = pair(&value);
                endpoint.driver_opts.get_or_insert_default().insert(option, value);
            }
            "gw-priority" => {
                let number = value.parse();
                endpoint.gw_priority =
                    number.with_context(|| format!("gw-priority {value:?} is no number"))?;
            }
            other => bail!("invalid field key {other} in --network {spec}"),
        }
    }
    let name = name.filter(|name| !name.is_empty());
    Ok((name.with_context(|| format!("network name/id is missing in --network {spec}"))?, endpoint))
}

/// The endpoint's wishes for addresses.
pub(crate) fn addresses(endpoint: &mut EndpointSettings) -> &mut EndpointIpamConfig {
    endpoint.ipam_config.get_or_insert_default()
}

/// Puts gateways, ranges and auxiliary addresses to the subnets that hold them, as docker does.
pub(crate) fn pools(
    subnets: &[String],
    ranges: &[String],
    gateways: &[String],
    auxiliary: &BTreeMap<String, String>,
) -> Result<Vec<IpamConfig>> {
    let mut pools: Vec<IpamConfig> = Vec::new();
    for subnet in subnets {
        let parsed = prefix(subnet)?;
        for other in &pools {
            if overlap(parsed, prefix(&other.subnet)?) {
                bail!("multiple overlapping subnet configuration is not supported");
            }
        }
        pools.push(IpamConfig { subnet: subnet.clone(), ..IpamConfig::default() });
    }
    for range in ranges {
        let pool = holder(&mut pools, prefix(range)?.0, || format!("no matching subnet for range {range}"))?;
        if !pool.ip_range.is_empty() {
            bail!("cannot configure multiple ranges ({range}, {}) on the same subnet", pool.ip_range);
        }
        pool.ip_range.clone_from(range);
    }
    for gateway in gateways {
        let address = gateway.parse().with_context(|| format!("invalid gateway address {gateway}"))?;
        let pool = holder(&mut pools, address, || format!("no matching subnet for gateway {gateway}"))?;
        if !pool.gateway.is_empty() {
            bail!("cannot configure multiple gateways ({gateway}, {}) for the same subnet", pool.gateway);
        }
        pool.gateway.clone_from(gateway);
    }
    for (name, text) in auxiliary {
        let address = text.parse().with_context(|| format!("invalid auxiliary address {text}"))?;
        let pool = holder(&mut pools, address, || format!("no matching subnet for aux-address {text}"))?;
        pool.aux_addresses.get_or_insert_default().insert(name.clone(), text.clone());
    }
    Ok(pools)
}

fn holder(
    pools: &mut [IpamConfig],
    address: IpAddr,
    missing: impl FnOnce() -> String,
) -> Result<&mut IpamConfig> {
    for pool in pools {
        if holds(prefix(&pool.subnet)?, address) {
            return Ok(pool);
        }
    }
    bail!(missing())
}

fn prefix(text: &str) -> Result<(IpAddr, u32)> {
    let parse = || {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        Some((address, bits.parse::<u32>().ok().filter(|bits| *bits <= most)?))
    };
    parse().with_context(|| format!("invalid CIDR address: {text}"))
}

fn holds((network, bits): (IpAddr, u32), address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= bits,
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= bits,
        _ => false,
    }
}

fn overlap(a: (IpAddr, u32), b: (IpAddr, u32)) -> bool {
    holds(a, b.0) || holds(b, a.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_one_network() {
        let (name, plain) = network("backend").expect("valid");
        assert_eq!((name.as_str(), plain), ("backend", EndpointSettings::default()));
        let spec = "name=n,alias=a,alias=b,ip=10.0.0.9,ip6=fd00::9,gw-priority=7,driver-opt=k=v,link-local-ip=fe80::9";
        let (name, settings) = network(spec).expect("valid");
        assert_eq!((name.as_str(), settings.gw_priority), ("n", 7));
        assert_eq!(settings.aliases.as_ref().map(Vec::len), Some(2));
        let ipam = settings.ipam_config.expect("addresses");
        assert_eq!((ipam.ipv4_address.as_str(), ipam.ipv6_address.as_str()), ("10.0.0.9", "fd00::9"));
        for wrong in ["alias=x", "name=n,bogus=1", "name=,alias=x", "name=n,gw-priority=x"] {
            assert!(network(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn gateways_find_their_subnets() {
        let text = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let aux = BTreeMap::from([("printer".to_owned(), "fd00::7".to_owned())]);
        let pools = |gateways: &[&str]| {
            super::pools(
                &text(&["10.0.0.0/24", "fd00::/64"]),
                &text(&["10.0.0.128/25"]),
                &text(gateways),
                &aux,
            )
        };
        let made = pools(&["fd00::1", "10.0.0.254"]).expect("valid");
        assert_eq!((made[0].gateway.as_str(), made[0].ip_range.as_str()), ("10.0.0.254", "10.0.0.128/25"));
        assert_eq!(made[1].gateway, "fd00::1");
        assert!(made[1].aux_addresses.as_ref().is_some_and(|aux| aux["printer"] == "fd00::7"));
        assert!(pools(&["10.1.0.1"]).expect_err("elsewhere").to_string().contains("no matching subnet"));
        assert!(pools(&["10.0.0.1", "10.0.0.2"]).is_err());
        assert!(super::pools(&text(&["10.0.0.0/8", "10.1.0.0/16"]), &[], &[], &BTreeMap::new()).is_err());
    }
}
