//! The options of a bridge network.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::error::NetworkError;

const NAME: &str = "com.docker.network.bridge.name";
const TALK: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
const MTU: &str = "com.docker.network.driver.mtu";
const GATEWAY_IPV4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const GATEWAY_IPV6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
const DEFAULT_MTU: u32 = 1500;

/// How packets of one family get in and out (`gateway_mode_ipv4`, `gateway_mode_ipv6`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gateway {
    /// Translated; in only through published ports.
    Nat,
    /// Translated on the way out; everybody who has a route may come in.
    NatUnprotected,
    /// Not translated; published ports are reached under the container's own address.
    Routed,
    /// The host has no address on the bridge; for internal networks.
    Isolated,
}

/// The options of a bridge network that mean something to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BridgeOptions {
    pub(super) name: Option<String>,
    pub(super) talk: bool,
    pub(super) masquerade: bool,
    /// Default host address of published ports; `None`: all.
    pub(super) host_binding: Option<IpAddr>,
    pub(super) mtu: u32,
    pub(super) ipv4: Gateway,
    pub(super) ipv6: Gateway,
}

impl BridgeOptions {
    /// Reads them; options that nobody here knows are left alone.
    pub(super) fn of(options: &BTreeMap<String, String>) -> Result<Self, NetworkError> {
        let invalid = |option: &str, reason: &str| {
            let value = options.get(option).cloned().unwrap_or_default();
            NetworkError::InvalidOption { option: option.to_owned(), value, reason: reason.to_owned() }
        };
        let flag = |option: &str| match options.get(option).map(String::as_str) {
            None => Ok(true),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(_) => Err(invalid(option, "true or false is expected")),
        };
        let mtu = match options.get(MTU).map(|text| text.parse::<u32>()) {
            None => DEFAULT_MTU,
            Some(Ok(0)) => DEFAULT_MTU,
            Some(Ok(mtu @ 68..=65535)) => mtu,
            Some(_) => return Err(invalid(MTU, "a number from 68 to 65535 is expected")),
        };
        let host_binding = match options.get(HOST_BINDING).map(|text| text.parse::<IpAddr>()) {
            None => None,
            Some(Ok(ip)) => Some(ip).filter(|ip| !ip.is_unspecified()),
            Some(Err(_)) => return Err(invalid(HOST_BINDING, "an IP address is expected")),
        };
        let name = options.get(NAME).filter(|name| !name.is_empty()).cloned();
        if name.as_deref().is_some_and(|name| !is_link_name(name)) {
            return Err(invalid(NAME, "a link name has at most 15 characters, no slash and no blank"));
        }
        let gateway = |option: &str| match options.get(option).map(String::as_str) {
            None | Some("" | "nat") => Ok(Gateway::Nat),
            Some("nat-unprotected") => Ok(Gateway::NatUnprotected),
            Some("routed") => Ok(Gateway::Routed),
            Some("isolated") => Ok(Gateway::Isolated),
            Some(_) => Err(invalid(option, "nat, nat-unprotected, routed or isolated is expected")),
        };
        Ok(Self {
            name,
            talk: flag(TALK)?,
            masquerade: flag(MASQUERADE)?,
            host_binding,
            mtu,
            ipv4: gateway(GATEWAY_IPV4)?,
            ipv6: gateway(GATEWAY_IPV6)?,
        })
    }

    /// How packets of a family get in and out.
    pub(super) fn gateway(&self, ipv6: bool) -> Gateway {
        if ipv6 { self.ipv6 } else { self.ipv4 }
    }

    /// Refuses what fits no network but an internal one.
    pub(super) fn fit(&self, internal: bool, options: &BTreeMap<String, String>) -> Result<(), NetworkError> {
        for (option, gateway) in [(GATEWAY_IPV4, self.ipv4), (GATEWAY_IPV6, self.ipv6)] {
            if gateway == Gateway::Isolated && !internal {
                return Err(NetworkError::InvalidOption {
                    option: option.to_owned(),
                    value: options.get(option).cloned().unwrap_or_default(),
                    reason: "only an internal network can be isolated (--internal)".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// What Docker's inspect shows for the default bridge.
    pub(super) fn of_default_bridge(name: &str) -> BTreeMap<String, String> {
        let mtu = DEFAULT_MTU.to_string();
        [
            (DEFAULT_BRIDGE, "true"),
            (TALK, "true"),
            (MASQUERADE, "true"),
            (HOST_BINDING, "0.0.0.0"),
            (NAME, name),
            (MTU, &mtu),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }
}

/// The kernel's rule, `dev_valid_name()`.
fn is_link_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Result<BridgeOptions, NetworkError> {
        BridgeOptions::of(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn docker_s_defaults() {
        let expected = BridgeOptions {
            name: None,
            talk: true,
            masquerade: true,
            host_binding: None,
            mtu: 1500,
            ipv4: Gateway::Nat,
            ipv6: Gateway::Nat,
        };
        assert_eq!(options(&[]).unwrap(), expected);
        let of_default = BridgeOptions::of(&BridgeOptions::of_default_bridge("berth0")).unwrap();
        assert_eq!(of_default, BridgeOptions { name: Some("berth0".into()), ..expected });
    }

    #[test]
    fn nonsense_is_named() {
        for (option, value) in [
            (TALK, "maybe"),
            (MTU, "12"),
            (MTU, "x"),
            (NAME, "a/b"),
            (NAME, "0123456789abcdef"),
            (HOST_BINDING, "here"),
            (GATEWAY_IPV6, "open"),
        ] {
            let error = options(&[(option, value)]).unwrap_err().to_string();
            assert!(error.contains(option) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn only_internal_networks_are_isolated() {
        let read = options(&[(GATEWAY_IPV6, "routed"), (GATEWAY_IPV4, "isolated")]).unwrap();
        assert_eq!((read.gateway(false), read.gateway(true)), (Gateway::Isolated, Gateway::Routed));
        assert!(read.fit(true, &BTreeMap::new()).is_ok());
        assert!(read.fit(false, &BTreeMap::new()).unwrap_err().to_string().contains("--internal"));
    }
}
