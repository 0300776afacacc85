//! Real packets through real namespaces: who reaches whom, and who does not.

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use berth_network::{EndpointRequest, NetworkSpec, PortRequest, Protocol};
use support::{HOST, OUTSIDE, Server, ask, ask_udp, inside, ip, links, nft, port, request, udp_echo, world};

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

#[test]
fn two_containers_talk_and_nothing_is_left() {
    world(|w| {
        let before = links();
        let net = w.controller("talk");
        let bridge = net.network("bridge").unwrap();
        let (a, b) = (net.new_sandbox().unwrap(), net.new_sandbox().unwrap());
        let ea = net.attach(a.as_fd(), &bridge.id, request("a")).unwrap();
        let eb = net.attach(b.as_fd(), &bridge.id, request("b")).unwrap();
        assert_eq!(
            (ea.ipv4.unwrap(), eb.ipv4.unwrap()),
            (Ipv4Addr::new(172, 17, 0, 2), Ipv4Addr::new(172, 17, 0, 3))
        );
        assert_eq!(ea.gateway, Some(Ipv4Addr::new(172, 17, 0, 1)));

        let _server = Server::start(a.as_fd(), 80);
        assert_eq!(inside(b.as_fd(), || ask(ea.ipv4.unwrap(), 80)).unwrap(), IpAddr::V4(eb.ipv4.unwrap()));
        assert_eq!(ask(ea.ipv4.unwrap(), 80).unwrap(), IpAddr::V4(ea.gateway.unwrap()));

        let link = inside(a.as_fd(), || ip("-d link show eth0"));
        assert!(link.contains(&ea.mac.to_string()) && link.contains("mtu 1500"), "{link}");
        let routes = inside(a.as_fd(), || ip("route"));
        assert!(routes.contains("default via 172.17.0.1 dev eth0"), "{routes}");
        assert!(!inside(a.as_fd(), || ip("-6 address show eth0")).contains("inet6"));

        net.shutdown(true).unwrap();
        assert_eq!(links(), before);
        assert_eq!(nft("list tables"), "");
    });
}

#[test]
fn a_container_reaches_out_with_the_host_s_address() {
    world(|w| {
        let net = w.controller("out");
        let bridge = net.network("bridge").unwrap();
        let a = net.new_sandbox().unwrap();
        net.attach(a.as_fd(), &bridge.id, request("a")).unwrap();
        let _server = Server::start(w.outside.as_fd(), 8000);
        assert_eq!(inside(a.as_fd(), || ask(OUTSIDE, 8000)).unwrap(), IpAddr::V4(HOST));
        net.shutdown(true).unwrap();
    });
}

#[test]
fn a_published_port_answers_everywhere_and_keeps_the_source() {
    // Whether iptables is asked about bridged packets is up to the host, and changes who translates what.
    for bridge_netfilter in ["0", "1"] {
        std::thread::spawn(move || published_everywhere(bridge_netfilter)).join().unwrap();
    }
}

fn published_everywhere(bridge_netfilter: &str) {
    world(|w| {
        let setting = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        if std::path::Path::new(setting).exists() {
            std::fs::write(setting, bridge_netfilter).unwrap();
        }
        let net = w.controller("pub");
        let bridge = net.network("bridge").unwrap();
        let other = net.create_network(NetworkSpec::bridge("other")).unwrap();
        let [a, b, c] = [0; 3].map(|_| net.new_sandbox().unwrap());
        let ports = vec![port(80, None, 8080)];
        let ea = net.attach(a.as_fd(), &bridge.id, EndpointRequest { ports, ..request("a") }).unwrap();
        let eb = net.attach(b.as_fd(), &bridge.id, request("b")).unwrap();
        let ec = net.attach(c.as_fd(), &other.id, request("c")).unwrap();
        let _server = Server::start(a.as_fd(), 80);
        let gateway = IpAddr::V4(ea.gateway.unwrap());

        // From the host: its own address, loopback, the bridge's address, and IPv6 through the relay.
        assert_eq!(ask(HOST, 8080).unwrap(), IpAddr::V4(HOST));
        assert_eq!(ask(LOCALHOST, 8080).unwrap(), gateway);
        assert_eq!(ask(Ipv4Addr::new(127, 9, 9, 9), 8080).unwrap(), gateway);
        assert_eq!(ask(gateway, 8080).unwrap(), gateway);
        assert_eq!(ask(Ipv6Addr::LOCALHOST, 8080).unwrap(), gateway);
        // From outside, with its address; over IPv6 through the relay.
        assert_eq!(inside(w.outside.as_fd(), || ask(HOST, 8080)).unwrap(), IpAddr::V4(OUTSIDE));
        assert!(
            inside(w.outside.as_fd(), || ask(support::HOST_V6.parse::<Ipv6Addr>().unwrap(), 8080)).is_ok()
        );
        // From containers: another network keeps its address, oneself cannot.
        assert_eq!(inside(c.as_fd(), || ask(HOST, 8080)).unwrap(), IpAddr::V4(ec.ipv4.unwrap()));
        assert!(
            [gateway, IpAddr::V4(eb.ipv4.unwrap())].contains(&inside(b.as_fd(), || ask(HOST, 8080)).unwrap())
        );
        assert_eq!(inside(a.as_fd(), || ask(HOST, 8080)).unwrap(), gateway);
        assert!(inside(b.as_fd(), || ask(eb.gateway.unwrap(), 8080)).is_ok());

        net.detach("a", &bridge.id, None).unwrap();
        assert!(ask(LOCALHOST, 8080).is_err());
        assert!(ask(Ipv6Addr::LOCALHOST, 8080).is_err());
        net.shutdown(true).unwrap();
    });
}

#[test]
fn udp_is_published_too() {
    world(|w| {
        let net = w.controller("udp");
        let bridge = net.network("bridge").unwrap();
        let a = net.new_sandbox().unwrap();
        let udp = PortRequest { protocol: Protocol::Udp, ..port(53, None, 5353) };
        net.attach(a.as_fd(), &bridge.id, EndpointRequest { ports: vec![udp], ..request("a") }).unwrap();
        let echo = udp_echo(a.as_fd(), 53, 3);
        assert_eq!(ask_udp(LOCALHOST, 5353).unwrap(), "172.17.0.1");
        assert_eq!(ask_udp(HOST, 5353).unwrap(), HOST.to_string());
        assert_eq!(inside(w.outside.as_fd(), || ask_udp(HOST, 5353)).unwrap(), OUTSIDE.to_string());
        echo.join().unwrap();
        net.shutdown(true).unwrap();
    });
}

#[test]
fn loopback_means_loopback() {
    world(|w| {
        let net = w.controller("lo");
        let bridge = net.network("bridge").unwrap();
        let (a, b) = (net.new_sandbox().unwrap(), net.new_sandbox().unwrap());
        let ports = vec![port(80, Some("127.0.0.1"), 8080)];
        let ea = net.attach(a.as_fd(), &bridge.id, EndpointRequest { ports, ..request("a") }).unwrap();
        net.attach(b.as_fd(), &bridge.id, request("b")).unwrap();
        let _server = Server::start(a.as_fd(), 80);
        assert!(ask(LOCALHOST, 8080).is_ok());
        assert!(ask(HOST, 8080).is_err());
        assert!(inside(w.outside.as_fd(), || ask(HOST, 8080)).is_err());
        assert!(inside(b.as_fd(), || ask(HOST, 8080)).is_err());
        // Neighbours who route 127.0.0.0/8 to us reach neither the published port nor any service of the host.
        let _private = Server::start(support_host().as_fd(), 9999);
        for neighbour in [&w.outside, &b] {
            inside(neighbour.as_fd(), || {
                let via = if std::ptr::eq(neighbour, &b) { ea.gateway.unwrap() } else { HOST };
                std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
                ip("route flush table local 127.0.0.0/8");
                ip(&format!("route add 127.0.0.0/8 via {via} dev eth0"));
                assert!(ask(LOCALHOST, 8080).is_err());
                assert!(ask(LOCALHOST, 9999).is_err());
            });
        }
        net.shutdown(true).unwrap();
    });
}

fn support_host() -> std::os::fd::OwnedFd {
    std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()
}

#[test]
fn networks_and_outsiders_cannot_reach_in() {
    world(|w| {
        let net = w.controller("iso");
        let bridge = net.network("bridge").unwrap();
        let other = net.create_network(NetworkSpec::bridge("other")).unwrap();
        let (a, b) = (net.new_sandbox().unwrap(), net.new_sandbox().unwrap());
        let ports = vec![port(80, None, 8080)];
        let ea = net.attach(a.as_fd(), &bridge.id, EndpointRequest { ports, ..request("a") }).unwrap();
        net.attach(b.as_fd(), &other.id, request("b")).unwrap();
        let _servers = [Server::start(a.as_fd(), 80), Server::start(a.as_fd(), 81)];
        assert!(inside(b.as_fd(), || ask(ea.ipv4.unwrap(), 80)).is_err());
        // Direct routing: neither an unpublished port nor, past the map, a published one.
        inside(w.outside.as_fd(), || {
            ip(&format!("route add {} via {HOST}", bridge.pool().unwrap().subnet));
            assert!(ask(ea.ipv4.unwrap(), 81).is_err());
            assert!(ask(ea.ipv4.unwrap(), 80).is_err());
            assert!(ask(HOST, 8080).is_ok());
        });
        net.shutdown(true).unwrap();
    });
}

#[test]
fn an_internal_network_has_no_way_out_or_in() {
    world(|w| {
        let net = w.controller("int");
        let bridge = net.network("bridge").unwrap();
        let internal =
            net.create_network(NetworkSpec { internal: true, ..NetworkSpec::bridge("internal") }).unwrap();
        let [a, b, c] = [0; 3].map(|_| net.new_sandbox().unwrap());
        let ea = net.attach(a.as_fd(), &internal.id, request("a")).unwrap();
        net.attach(b.as_fd(), &internal.id, request("b")).unwrap();
        let ports = vec![port(80, None, 8080)];
        net.attach(c.as_fd(), &bridge.id, EndpointRequest { ports, ..request("c") }).unwrap();
        assert_eq!(ea.gateway, None);
        let _servers = [Server::start(a.as_fd(), 80), Server::start(c.as_fd(), 80)];
        let _outside = Server::start(w.outside.as_fd(), 80);
        assert!(inside(b.as_fd(), || ask(ea.ipv4.unwrap(), 80)).is_ok());
        inside(b.as_fd(), || {
            ip(&format!("route add default via {}", internal.pool().unwrap().gateway.unwrap()));
            assert!(ask(OUTSIDE, 80).is_err());
        });
        net.shutdown(true).unwrap();
    });
}

#[test]
fn inter_container_communication_can_be_off() {
    world(|w| {
        let net = w.controller("icc");
        let mut spec = NetworkSpec::bridge("quiet");
        spec.options.insert("com.docker.network.bridge.enable_icc".into(), "false".into());
        let quiet = net.create_network(spec).unwrap();
        let (a, b) = (net.new_sandbox().unwrap(), net.new_sandbox().unwrap());
        let ports = vec![port(80, None, 8080)];
        let ea = net.attach(a.as_fd(), &quiet.id, EndpointRequest { ports, ..request("a") }).unwrap();
        net.attach(b.as_fd(), &quiet.id, request("b")).unwrap();
        let _server = Server::start(a.as_fd(), 80);
        let _outside = Server::start(w.outside.as_fd(), 80);
        inside(b.as_fd(), || {
            assert!(ask(ea.ipv4.unwrap(), 80).is_err());
            // Nor by way of the gateway.
            ip(&format!("route add {} via {}", ea.ipv4.unwrap(), ea.gateway.unwrap()));
            assert!(ask(ea.ipv4.unwrap(), 80).is_err());
            assert!(ask(OUTSIDE, 80).is_ok());
        });
        assert!(ask(HOST, 8080).is_ok());
        net.shutdown(true).unwrap();
    });
}
