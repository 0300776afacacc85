//! /etc/hosts, /etc/hostname and /etc/resolv.conf of a container. Pure, but for [`HostResolver::read`].

use std::fmt::Write as _;
use std::net::IpAddr;

/// A name that an address has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostLine {
    pub(crate) address: IpAddr,
    pub(crate) names: Vec<String>,
}

const LOOPBACK: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// /etc/hosts: loopback, the extra hosts of the user, the container itself.
pub(crate) fn hosts(extra: &[String], gateway: Option<IpAddr>, own: &[HostLine]) -> String {
    let mut text = LOOPBACK.to_owned();
    for entry in extra {
        let Some((name, address)) = entry.split_once([':', '=']) else { continue };
        let address = address.trim_start_matches('[').trim_end_matches(']');
        let address = match (address, gateway) {
            ("host-gateway", Some(gateway)) => gateway.to_string(),
            ("host-gateway", None) => continue,
            (address, _) => address.to_owned(),
        };
        writeln!(text, "{address}\t{name}").expect("writing to a String cannot fail");
    }
    for line in own {
        writeln!(text, "{}\t{}", line.address, line.names.join(" "))
            .expect("writing to a String cannot fail");
    }
    text
}

/// The names a container has for itself: `host.domain host`.
pub(crate) fn own_names(hostname: &str, domainname: &str) -> Vec<String> {
    let qualified = (!domainname.is_empty()).then(|| format!("{hostname}.{domainname}"));
    qualified.into_iter().chain([hostname.to_owned()]).collect()
}

/// What a resolv.conf says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HostResolver {
    pub(crate) servers: Vec<String>,
    pub(crate) search: Vec<String>,
    pub(crate) options: Vec<String>,
}

/// What docker falls back on when the host has no server that a container could reach.
const PUBLIC_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

impl HostResolver {
    /// The host's. With systemd-resolved's stub its own list is taken, as docker does.
    pub(crate) fn read() -> Self {
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let host = Self::parse(&text);
        if host.servers == ["127.0.0.53"]
            && let Ok(text) = std::fs::read_to_string("/run/systemd/resolve/resolv.conf")
        {
            return Self::parse(&text);
        }
        host
    }

    pub(crate) fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolver.servers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => resolver.search = words.map(str::to_owned).collect(),
                Some("options") => resolver.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        resolver
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        for (word, list) in [("search", &self.search), ("options", &self.options)] {
            if !list.is_empty() && *list != ["."] {
                text.push_str(&format!("{word} {}\n", list.join(" ")));
            }
        }
        text
    }
}

/// /etc/resolv.conf: the user's wishes, else the daemon's, else the host's. Servers on the host's loopback are left
/// out unless the container shares the host's network.
pub(crate) fn resolv_conf(host: &HostResolver, wanted: &HostResolver, host_network: bool) -> String {
    let pick =
        |wanted: &[String], host: &[String]| if wanted.is_empty() { host.to_vec() } else { wanted.to_vec() };
    let mut merged = HostResolver {
        servers: pick(&wanted.servers, &host.servers),
        search: pick(&wanted.search, &host.search),
        options: pick(&wanted.options, &host.options),
    };
    if !host_network && wanted.servers.is_empty() {
        merged.servers.retain(|server| {
            let address = server.split('%').next().unwrap_or_default();
            address.parse::<IpAddr>().is_ok_and(|address| !address.is_loopback())
        });
        if merged.servers.is_empty() {
            merged.servers = PUBLIC_SERVERS.map(str::to_owned).into();
        }
    }
    merged.text()
}

/// /etc/resolv.conf of a container on a network with names: the embedded resolver, which knows the servers. A name
/// without dots is one of a container, so it is asked for as it is first.
pub(crate) fn internal_resolv_conf(host: &HostResolver, wanted: &HostResolver) -> String {
    let pick =
        |wanted: &[String], host: &[String]| if wanted.is_empty() { host.to_vec() } else { wanted.to_vec() };
    let mut options = pick(&wanted.options, &host.options);
    if !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    let search = pick(&wanted.search, &host.search);
    HostResolver { servers: vec!["127.0.0.11".to_owned()], search, options }.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_has_everybody() {
        let own =
            [HostLine { address: "172.17.0.2".parse().unwrap(), names: own_names("box", "example.org") }];
        let extra = ["db:10.0.0.1".to_owned(), "six=[::5]".to_owned(), "host:host-gateway".to_owned()];
        let text = hosts(&extra, Some(IpAddr::from([172, 17, 0, 1])), &own);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(
            text.ends_with("10.0.0.1\tdb\n::5\tsix\n172.17.0.1\thost\n172.17.0.2\tbox.example.org box\n")
        );
    }

    #[test]
    fn the_embedded_resolver_takes_the_servers_place() {
        let host = HostResolver::parse("nameserver 10.0.0.53\nsearch a b\noptions edns0\n");
        let text = internal_resolv_conf(&host, &HostResolver::default());
        assert_eq!(text, "nameserver 127.0.0.11\nsearch a b\noptions edns0 ndots:0\n");
        let wanted = HostResolver {
            servers: vec!["1.1.1.1".into()],
            search: vec!["mine".into()],
            options: vec!["ndots:3".into()],
        };
        let text = internal_resolv_conf(&host, &wanted);
        assert_eq!(text, "nameserver 127.0.0.11\nsearch mine\noptions ndots:3\n");
    }

    #[test]
    fn loopback_servers_are_no_use_inside() {
        let host = HostResolver::parse(
            "nameserver 127.0.0.1\nnameserver 10.0.0.53 # x\nsearch a b\noptions ndots:2\n",
        );
        let none = HostResolver::default();
        assert_eq!(resolv_conf(&host, &none, false), "nameserver 10.0.0.53\nsearch a b\noptions ndots:2\n");
        assert!(resolv_conf(&host, &none, true).starts_with("nameserver 127.0.0.1\nnameserver 10.0.0.53\n"));
        let only = HostResolver::parse("nameserver 127.0.0.53\n");
        assert_eq!(resolv_conf(&only, &none, false), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        let wanted =
            HostResolver { servers: vec!["1.1.1.1".into()], search: vec![".".into()], options: vec![] };
        assert_eq!(resolv_conf(&host, &wanted, false), "nameserver 1.1.1.1\noptions ndots:2\n");
    }
}
