//! How packets get in and out of a network: gateway modes, and templates of networks.

mod support;

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;

use berth_network::{EndpointRequest, NetworkSpec};
use support::{HOST, OUTSIDE, Server, ask, eventually, inside, ip, links, port, request, world};

fn mode(name: &str, ipv4: &str, ipv6: &str) -> NetworkSpec {
    let options = [("gateway_mode_ipv4", ipv4), ("gateway_mode_ipv6", ipv6)];
    let options = options.map(|(key, value)| (format!("com.docker.network.bridge.{key}"), value.to_owned()));
    NetworkSpec { enable_ipv6: true, options: options.into(), ..NetworkSpec::bridge(name) }
}

#[test]
fn a_routed_family_is_reached_under_its_own_address() {
    world(|w| {
        let net = w.controller("routed");
        let network = net.create_network(mode("r", "nat", "routed")).unwrap();
        let a = net.new_sandbox().unwrap();
        let ports = vec![port(80, None, 8080)];
        let ea = net.attach(a.as_fd(), &network.id, EndpointRequest { ports, ..request("a") }).unwrap();
        let (six, _) = ea.ipv6.unwrap();
        let _open = Server::start_on(a.as_fd(), "::", 80);
        let _closed = Server::start_on(a.as_fd(), "::", 81);
        let _there = Server::start_on(w.outside.as_fd(), "::", 8000);
        inside(w.outside.as_fd(), || {
            ip(&format!("-6 route add {six}/128 via {}", support::HOST_V6));
            ip(&format!("route add {}/32 via {HOST}", ea.ipv4.unwrap()));
            eventually("published without translation", || ask(six, 80).is_ok());
            assert!(ask(six, 81).is_err(), "not published");
            assert!(ask(HOST, 8080).is_ok(), "IPv4 is translated");
            assert!(ask(ea.ipv4.unwrap(), 80).is_err(), "and protected");
        });
        let seen = inside(a.as_fd(), || ask("2001:db8::2".parse::<Ipv6Addr>().unwrap(), 8000));
        assert_eq!(seen.unwrap(), IpAddr::V6(six), "its own address goes out");
        assert_eq!(inside(a.as_fd(), || ask(OUTSIDE, 8000)).unwrap(), IpAddr::V4(HOST));
        assert!(ea.ports.iter().any(|port| port.host_ip.is_ipv6() && port.host_port == 0));
        net.shutdown(true).unwrap();
    });
}

#[test]
fn an_unprotected_network_lets_everybody_in_but_other_networks() {
    world(|w| {
        let net = w.controller("open");
        let network = net.create_network(mode("u", "nat-unprotected", "nat")).unwrap();
        let other = net.create_network(NetworkSpec::bridge("other")).unwrap();
        let [a, b] = [0; 2].map(|_| net.new_sandbox().unwrap());
        let ea = net.attach(a.as_fd(), &network.id, request("a")).unwrap();
        net.attach(b.as_fd(), &other.id, request("b")).unwrap();
        let _server = Server::start(a.as_fd(), 80);
        let route = format!("route add {}/32 via {HOST}", ea.ipv4.unwrap());
        assert!(
            inside(w.outside.as_fd(), || {
                ip(&route);
                ask(ea.ipv4.unwrap(), 80)
            })
            .is_ok()
        );
        assert!(inside(b.as_fd(), || ask(ea.ipv4.unwrap(), 80)).is_err());
        net.shutdown(true).unwrap();
    });
}

#[test]
fn an_isolated_network_has_no_address_of_the_host() {
    world(|w| {
        let net = w.controller("isolated");
        let refused = net.create_network(mode("x", "isolated", "nat")).unwrap_err().to_string();
        assert!(refused.contains("--internal"), "{refused}");
        let spec = NetworkSpec { internal: true, ..mode("i", "isolated", "isolated") };
        let network = net.create_network(spec).unwrap();
        let [a, b] = [0; 2].map(|_| net.new_sandbox().unwrap());
        let ea = net.attach(a.as_fd(), &network.id, request("a")).unwrap();
        net.attach(b.as_fd(), &network.id, request("b")).unwrap();
        let _server = Server::start(a.as_fd(), 80);
        assert!(inside(b.as_fd(), || ask(ea.ipv4.unwrap(), 80)).is_ok());
        assert!(ask(ea.ipv4.unwrap(), 80).is_err(), "the host is not on it");
        let shown = ip(&format!("address show {}", network.bridge));
        assert!(!shown.contains("inet ") && !shown.contains("inet6 fd"), "{shown}");
        net.shutdown(true).unwrap();
    });
}

#[test]
fn networks_are_made_from_templates() {
    world(|w| {
        let before = links();
        let net = w.controller("template");
        let labels = [("colour".to_owned(), "blue".to_owned())];
        let template = NetworkSpec {
            config_only: true,
            labels: labels.into(),
            ..mode("template", "nat-unprotected", "nat")
        };
        let template = net.create_network(template).unwrap();
        assert!(template.config_only && links() == before);
        let a = net.new_sandbox().unwrap();
        let refused = net.attach(a.as_fd(), &template.id, request("a")).unwrap_err().to_string();
        assert!(refused.contains("config-only"), "{refused}");
        let from = || NetworkSpec { config_from: "template".into(), ..NetworkSpec::bridge("made") };
        let both = net.create_network(NetworkSpec { internal: true, ..from() }).unwrap_err().to_string();
        assert!(both.contains("user specified configurations are not supported"), "{both}");
        let made = net.create_network(from()).unwrap();
        assert_eq!((made.config_from.as_str(), made.enable_ipv6), ("template", true));
        assert_eq!(made.labels["colour"], "blue");
        assert_eq!(made.ipam.pools.len(), 2);
        assert!(net.remove_network("template").unwrap_err().to_string().contains("in use by network made"));
        net.attach(a.as_fd(), &made.id, request("a")).unwrap();
        net.detach("a", &made.id, None).unwrap();
        net.remove_network("made").unwrap();
        net.remove_network("template").unwrap();
        let none = NetworkSpec { config_from: "bridge".into(), ..NetworkSpec::bridge("made") };
        assert!(net.create_network(none).unwrap_err().to_string().contains("--config-only"));
        net.shutdown(true).unwrap();
    });
}
