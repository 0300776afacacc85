//! `-p [[ip:][host[-host]]:]container[-container][/proto]` and `--expose`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use anyhow::{Context, Result, bail};
use berth_api::Empty;
use berth_api::container::{PortBinding, PortMap};

/// The exposed ports and their bindings, from `-p` and `--expose`.
pub(crate) fn parse(publish: &[String], expose: &[String]) -> Result<(BTreeMap<String, Empty>, PortMap)> {
    let mut exposed = BTreeMap::new();
    let mut bindings = PortMap::new();
    for spec in expose {
        let (range, proto) = port_and_protocol(spec).with_context(|| format!("--expose {spec}"))?;
        exposed.extend(range.map(|port| (format!("{port}/{proto}"), Empty)));
    }
    for spec in publish {
        for (port, binding) in one(spec).with_context(|| format!("-p {spec}"))? {
            exposed.insert(port.clone(), Empty);
            bindings.entry(port).or_default().get_or_insert_default().push(binding);
        }
    }
    Ok((exposed, bindings))
}

fn one(spec: &str) -> Result<Vec<(String, PortBinding)>> {
    let (host_ip, host, container) = split(spec)?;
    let (range, proto) = port_and_protocol(container)?;
    if host.is_empty() {
        let binding = |port| {
            (format!("{port}/{proto}"), PortBinding { host_ip: host_ip.to_owned(), host_port: String::new() })
        };
        return Ok(range.map(binding).collect());
    }
    let host_range = ports(host)?;
    let (wanted, offered) = (range.clone().count(), host_range.clone().count());
    if wanted == 1 && offered > 1 {
        // One container port, any of a range of host ports.
        let binding = PortBinding { host_ip: host_ip.to_owned(), host_port: host.to_owned() };
        return Ok(vec![(format!("{}/{proto}", range.start()), binding)]);
    }
    if wanted != offered {
        bail!("the host's range has {offered} ports and the container's {wanted}: they must be as many");
    }
    let binding = |(port, host): (u16, u16)| {
        (format!("{port}/{proto}"), PortBinding { host_ip: host_ip.to_owned(), host_port: host.to_string() })
    };
    Ok(range.zip(host_range).map(binding).collect())
}

/// Address, host ports, container ports. An IPv6 address stands in brackets.
fn split(spec: &str) -> Result<(&str, &str, &str)> {
    let (ip, rest) = match spec.strip_prefix('[') {
        Some(rest) => {
            let (ip, rest) = rest.split_once("]:").context("expected ']:' after the IPv6 address")?;
            (Some(ip), rest)
        }
        None => (None, spec),
    };
    let parts: Vec<&str> = rest.split(':').collect();
    let (ip, host, container) = match (ip, parts.as_slice()) {
        (Some(ip), [host, container]) => (ip, *host, *container),
        (None, [ip, host, container]) => (*ip, *host, *container),
        (None, [host, container]) => ("", *host, *container),
        (None, [container]) => ("", "", *container),
        _ => bail!("expected [ip:][host port:]container port[/protocol]"),
    };
    if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
        bail!("{ip:?} is no IP address");
    }
    Ok((ip, host, container))
}

fn port_and_protocol(spec: &str) -> Result<(RangeInclusive<u16>, String)> {
    let (port, proto) = spec.split_once('/').unwrap_or((spec, "tcp"));
    let proto = proto.to_ascii_lowercase();
    if !matches!(proto.as_str(), "tcp" | "udp" | "sctp") {
        bail!("{proto:?} is no protocol: expected tcp, udp or sctp");
    }
    Ok((ports(port)?, proto))
}

fn ports(text: &str) -> Result<RangeInclusive<u16>> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let number = |t: &str| t.parse::<u16>().ok().with_context(|| format!("{t:?} is no port (0 to 65535)"));
    let (low, high) = (number(low)?, number(high)?);
    if low > high {
        bail!("the range {text} ends before it begins");
    }
    Ok(low..=high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(spec: &str) -> Result<Vec<String>> {
        let (_, bindings) = parse(&[spec.to_owned()], &[])?;
        let flat = bindings.into_iter().flat_map(|(port, bindings)| {
            bindings.into_iter().flatten().map(move |b| format!("{}|{}|{port}", b.host_ip, b.host_port))
        });
        Ok(flat.collect())
    }

    #[test]
    fn forms() {
        for (spec, expected) in [
            ("80", vec!["||80/tcp"]),
            ("8080:80", vec!["|8080|80/tcp"]),
            ("53:53/udp", vec!["|53|53/udp"]),
            ("127.0.0.1:8080:80", vec!["127.0.0.1|8080|80/tcp"]),
            ("127.0.0.1::80", vec!["127.0.0.1||80/tcp"]),
            ("[::1]:8080:80", vec!["::1|8080|80/tcp"]),
            ("8000-8001:80-81", vec!["|8000|80/tcp", "|8001|81/tcp"]),
            ("8000-8010:80", vec!["|8000-8010|80/tcp"]),
        ] {
            assert_eq!(shown(spec).expect(spec), expected, "{spec}");
        }
    }

    #[test]
    fn mistakes() {
        for spec in [
            "",
            "x",
            "80/foo",
            "1:2:3:4",
            "99999:80",
            "8001-8000:80-81",
            "1-3:1-2",
            "host:80:80",
            "[::1:80:80",
        ] {
            assert!(shown(spec).is_err(), "{spec}");
        }
    }
}
