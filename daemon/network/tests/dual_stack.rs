//! IPv6, links of one's own, and what others do to the host's firewall. Needs root.

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::Duration;

use berth_network::{
    EndpointRequest, ErrorKind, IpamConfig, IpamPool, NetworkController, NetworkSpec, PortRequest, Protocol,
};
use support::{HOST, HOST_V6, Server, ask, inside, ip, nft, port, request, udp_echo, world};

fn dual(name: &str) -> NetworkSpec {
    NetworkSpec { enable_ipv6: true, ..NetworkSpec::bridge(name) }
}

fn pool(subnet: &str) -> IpamPool {
    IpamPool {
        subnet: subnet.parse().unwrap(),
        ip_range: None,
        gateway: None,
        aux_addresses: Default::default(),
        asked_for: true,
    }
}

fn host_v6() -> Ipv6Addr {
    HOST_V6.parse().unwrap()
}

/// A server on both families.
fn server(netns: std::os::fd::BorrowedFd<'_>, port: u16) -> Server {
    Server::start_on(netns, "::", port)
}

fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[test]
fn both_families_between_containers_out_and_in() {
    world(|w| {
        std::fs::write("/proc/sys/net/ipv6/conf/eth0/accept_ra", "1").unwrap();
        let net = w.controller("six");
        let one = net.create_network(dual("one")).unwrap();
        let two = net.create_network(dual("two")).unwrap();
        let subnet = one.ipv6_pool().unwrap().subnet;
        assert!(subnet.to_string().starts_with("fd") && subnet.prefix_len() == 64, "{subnet}");
        assert_ne!(subnet, two.ipv6_pool().unwrap().subnet);
        let [a, b, c] = [0; 3].map(|_| net.new_sandbox().unwrap());
        let ports = vec![port(80, None, 8080)];
        let ea = net.attach(a.as_fd(), &one.id, EndpointRequest { ports, ..request("a") }).unwrap();
        let eb = net.attach(b.as_fd(), &one.id, request("b")).unwrap();
        let ec = net.attach(c.as_fd(), &two.id, request("c")).unwrap();
        let (a6, b6) = (ea.ipv6.unwrap().0, eb.ipv6.unwrap().0);
        assert!(subnet.contains(a6) && subnet.contains(b6));
        let _server = server(a.as_fd(), 80);

        assert_eq!(inside(b.as_fd(), || ask(a6, 80)).unwrap(), IpAddr::V6(b6));
        assert_eq!(plain(ask(a6, 80).unwrap()), IpAddr::V6(ea.ipv6_gateway.unwrap()));
        // Published: to the host's address with the client's own, on ::1 through the relay.
        let outside: IpAddr = "2001:db8::2".parse().unwrap();
        assert_eq!(inside(w.outside.as_fd(), || ask(host_v6(), 8080)).unwrap(), outside);
        assert!(ask(host_v6(), 8080).is_ok());
        assert!(ask(Ipv6Addr::LOCALHOST, 8080).is_ok());
        assert!(ask(HOST, 8080).is_ok());
        assert!(inside(a.as_fd(), || ask(host_v6(), 8080)).is_ok(), "hairpin");
        assert_eq!(inside(c.as_fd(), || ask(host_v6(), 8080)).unwrap(), IpAddr::V6(ec.ipv6.unwrap().0));
        // Out of the host with the host's address; other networks are out of reach, also from outside.
        let beyond = server(w.outside.as_fd(), 90);
        assert_eq!(inside(a.as_fd(), || ask(outside, 90)).unwrap(), IpAddr::V6(host_v6()));
        drop(beyond);
        assert!(inside(c.as_fd(), || ask(a6, 80)).is_err());
        inside(w.outside.as_fd(), || {
            ip(&format!("-6 route add {subnet} via {HOST_V6}"));
            assert!(ask(a6, 80).is_err(), "a container is reached by its address from outside");
        });
        let mild = std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/accept_ra").unwrap();
        assert_eq!(mild.trim(), "2", "the host must go on listening to its router");
        net.shutdown(true).unwrap();
        assert!(!support::links().iter().any(|link| link.starts_with("br-") || link.starts_with("veth")));
    });
}

/// A network without IPv4: everything works over IPv6, and clients that have IPv4 only reach what is published.
#[test]
fn a_network_may_have_no_ipv4() {
    world(|w| {
        let net = w.controller("only");
        let six = |name: &str| NetworkSpec { enable_ipv4: false, ..dual(name) };
        let one = net.create_network(six("one")).unwrap();
        assert!(one.pool().is_none() && one.ipv6_pool().is_some());
        assert!(!ip(&format!("-4 -o address show dev {}", one.bridge)).contains("inet "));
        let [a, b] = [0; 2].map(|_| net.new_sandbox().unwrap());
        let udp = PortRequest { protocol: Protocol::Udp, ..port(53, None, 5353) };
        let ports = vec![port(80, None, 8080), udp];
        let ea = net.attach(a.as_fd(), &one.id, EndpointRequest { ports, ..request("a") }).unwrap();
        let eb = net.attach(b.as_fd(), &one.id, request("b")).unwrap();
        assert_eq!((ea.ipv4, ea.gateway, ea.default_route), (None, None, false));
        assert!(!inside(a.as_fd(), || ip("-4 -o address show dev eth0")).contains("inet "));
        let (a6, b6) = (ea.ipv6.unwrap().0, eb.ipv6.unwrap().0);
        let _server = server(a.as_fd(), 80);
        assert_eq!(inside(b.as_fd(), || ask(a6, 80)).unwrap(), IpAddr::V6(b6));
        let outside: IpAddr = "2001:db8::2".parse().unwrap();
        assert_eq!(inside(w.outside.as_fd(), || ask(host_v6(), 8080)).unwrap(), outside);
        assert!(inside(w.outside.as_fd(), || ask(HOST, 8080)).is_ok(), "IPv4 clients are relayed");
        assert!(ask(Ipv4Addr::LOCALHOST, 8080).is_ok() && ask(Ipv6Addr::LOCALHOST, 8080).is_ok());
        let beyond = server(w.outside.as_fd(), 90);
        assert_eq!(inside(b.as_fd(), || ask(outside, 90)).unwrap(), IpAddr::V6(host_v6()));
        drop(beyond);
        let datagrams = inside(a.as_fd(), || UdpSocket::bind("[::]:53").unwrap());
        let echo = std::thread::spawn(move || {
            let (length, from) = datagrams.recv_from(&mut [0; 16]).unwrap();
            datagrams.send_to(&[7; 16][..length], from).unwrap();
        });
        inside(w.outside.as_fd(), || assert!(support::ask_udp(HOST, 5353).is_ok(), "so are datagrams"));
        echo.join().unwrap();
        // A daemon that comes back finds it so, and an IPv4 network beside it is the way out for IPv4 alone.
        let both = net.create_network(NetworkSpec::bridge("both")).unwrap();
        let second = net.attach(a.as_fd(), &both.id, request("a")).unwrap();
        assert!(second.default_route && !second.default_ipv6_route);
        assert_eq!(net.container_endpoints("a").len(), 2);

        let wish = EndpointRequest { ipv4: Some(Ipv4Addr::new(10, 0, 0, 9)), ..request("c") };
        let error = net.attach(b.as_fd(), &one.id, wish).unwrap_err();
        assert!(
            error.to_string().contains("has no IPv4") && error.kind() == ErrorKind::InvalidParameter,
            "{error}"
        );
        let error = net.create_network(NetworkSpec { enable_ipv6: false, ..six("none-at-all") }).unwrap_err();
        assert!(error.to_string().contains("IPv4 or IPv6 must be enabled"), "{error}");
        let ipam = IpamConfig { pools: vec![pool("10.99.0.0/24")], options: None };
        let error = net.create_network(NetworkSpec { ipam, ..six("odd") }).unwrap_err();
        assert!(error.to_string().contains("--ipv4=false"), "{error}");
        net.shutdown(true).unwrap();
        assert!(!support::links().iter().any(|link| link.starts_with("br-") || link.starts_with("veth")));
    });
}

#[test]
fn static_addresses_link_local_and_the_errors() {
    world(|w| {
        let net = w.controller("fix");
        let ipam = IpamConfig { pools: vec![pool("fd77::/64"), pool("10.77.0.0/24")], options: None };
        let one = net.create_network(NetworkSpec { ipam: ipam.clone(), ..dual("one") }).unwrap();
        let error = net.create_network(NetworkSpec { ipam, ..dual("again") }).unwrap_err();
        assert!(error.to_string().contains("fd77::/64 (network one)"), "{error}");
        let route = IpamConfig { pools: vec![pool("2001:db8::/48")], options: None };
        let error = net.create_network(NetworkSpec { ipam: route, ..dual("route") }).unwrap_err();
        assert!(error.to_string().contains("route of this host on eth0"), "{error}");

        let a = net.new_sandbox().unwrap();
        let wish = EndpointRequest {
            ipv4: Some("10.77.0.9".parse().unwrap()),
            ipv6: Some("fd77::9".parse().unwrap()),
            link_local: vec!["169.254.9.9".parse().unwrap(), "fe80::9".parse().unwrap()],
            mac: Some("02:00:00:00:00:09".parse().unwrap()),
            sysctls: vec![("ipv4/conf/IFNAME/log_martians".into(), "1".into())],
            ..request("a")
        };
        let endpoint = net.attach(a.as_fd(), &one.id, wish.clone()).unwrap();
        let shown = inside(a.as_fd(), || ip("-o address show dev eth0"));
        for address in ["10.77.0.9/24", "fd77::9/64", "169.254.9.9/16", "fe80::9/64"] {
            assert!(shown.contains(address), "{address} is missing: {shown}");
        }
        assert!(inside(a.as_fd(), || ip("link show dev eth0")).contains("02:00:00:00:00:09"));
        let martians = || std::fs::read_to_string("/proc/sys/net/ipv4/conf/eth0/log_martians").unwrap();
        assert_eq!(inside(a.as_fd(), martians).trim(), "1");
        let routes = inside(a.as_fd(), || ip("-6 route show default"));
        assert!(routes.contains("via fd77::1"), "{routes}");
        assert_eq!(endpoint.ipv6.unwrap().1, 64);
        let b = net.new_sandbox().unwrap();
        let error = net
            .attach(
                b.as_fd(),
                &one.id,
                EndpointRequest { container_id: "b".into(), ipv4: None, ..wish.clone() },
            )
            .unwrap_err();
        assert!(error.to_string().contains("fd77::9 on network one belongs to container name-a"), "{error}");
        let odd = EndpointRequest { link_local: vec![IpAddr::from([10, 0, 0, 1])], ..request("b") };
        assert_eq!(net.attach(b.as_fd(), &one.id, odd).unwrap_err().kind(), ErrorKind::InvalidParameter);
        let plain = net.create_network(NetworkSpec::bridge("plain")).unwrap();
        let error = net
            .attach(b.as_fd(), &plain.id, EndpointRequest { container_id: "b".into(), ipv4: None, ..wish })
            .unwrap_err();
        assert!(error.to_string().contains("--ipv6"), "{error}");
        net.shutdown(true).unwrap();
    });
}

#[test]
fn the_way_out_moves_between_networks() {
    world(|w| {
        let net = w.controller("way");
        let one = net.create_network(NetworkSpec::bridge("one")).unwrap();
        let two = net.create_network(dual("two")).unwrap();
        let a = net.new_sandbox().unwrap();
        let first = net.attach(a.as_fd(), &one.id, request("a")).unwrap();
        let late = EndpointRequest { no_default_route: true, ..request("a") };
        let second = net.attach(a.as_fd(), &two.id, late).unwrap();
        let default = || inside(a.as_fd(), || ip("route show default") + &ip("-6 route show default"));
        assert!(default().contains(&format!("via {}", first.gateway.unwrap())));
        net.choose_way_out(a.as_fd(), "a", &[two.id.clone(), one.id.clone()]).unwrap();
        assert!(default().contains(&format!("via {}", second.gateway.unwrap())), "{}", default());
        assert!(default().contains(&format!("via {}", second.ipv6_gateway.unwrap())), "{}", default());
        net.detach("a", &two.id, Some(a.as_fd())).unwrap();
        assert_eq!(default(), "");
        net.choose_way_out(a.as_fd(), "a", std::slice::from_ref(&one.id)).unwrap();
        assert!(default().contains(&format!("via {}", first.gateway.unwrap())));
        net.shutdown(true).unwrap();
    });
}

#[test]
fn macvlan_lies_on_the_parent_and_ipvlan_says_what_is_missing() {
    world(|w| {
        let net = w.controller("mac");
        let on = |driver: &str, parent: &str| {
            let mut spec = NetworkSpec { driver: driver.into(), ..NetworkSpec::bridge(driver) };
            spec.options.insert("parent".into(), parent.into());
            spec.ipam.pools = vec![IpamPool {
                ip_range: Some("198.51.100.64/28".parse().unwrap()),
                ..pool("198.51.100.0/24")
            }];
            spec
        };
        let error = net.create_network(on("macvlan", "nosuch")).unwrap_err();
        assert!(error.to_string().contains("nosuch"), "{error}");
        let network = net.create_network(on("macvlan", "eth0")).unwrap();
        let [a, b] = [0; 2].map(|_| net.new_sandbox().unwrap());
        let ea = net.attach(a.as_fd(), &network.id, request("a")).unwrap();
        let eb = net.attach(b.as_fd(), &network.id, request("b")).unwrap();
        assert_eq!(ea.ipv4.unwrap(), Ipv4Addr::new(198, 51, 100, 64));
        let _server = Server::start(a.as_fd(), 80);
        assert_eq!(inside(b.as_fd(), || ask(ea.ipv4.unwrap(), 80)).unwrap(), IpAddr::V4(eb.ipv4.unwrap()));
        let there = inside(w.outside.as_fd(), || ask(ea.ipv4.unwrap(), 80)).unwrap();
        assert_eq!(there, IpAddr::V4(support::OUTSIDE), "the world reaches it without the host");
        net.detach("b", &network.id, Some(b.as_fd())).unwrap();
        assert!(!inside(b.as_fd(), support::links).contains(&"eth0".to_owned()));
        if let Err(error) = net.create_network(on("ipvlan", "eth0")) {
            let text = error.to_string();
            assert!(text.contains("CONFIG_IPVLAN") || text.contains("Pool overlaps"), "{text}");
        }
        net.shutdown(true).unwrap();
    });
}

fn published_udp(net: &NetworkController, id: &str, port: u16) -> std::os::fd::OwnedFd {
    let bridge = net.network("bridge").unwrap();
    let sandbox = net.new_sandbox().unwrap();
    let ports = vec![PortRequest { protocol: Protocol::Udp, ..support::port(53, None, port) }];
    net.attach(sandbox.as_fd(), &bridge.id, EndpointRequest { ports, ..request(id) }).unwrap();
    sandbox
}

/// One socket that keeps sending, as a syslog or game client does.
#[test]
fn a_udp_client_that_never_stops_finds_the_next_container() {
    world(|w| {
        let net = w.controller("flow");
        inside(w.outside.as_fd(), || {
            let client = UdpSocket::bind((support::OUTSIDE, 4444)).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            client.connect((HOST, 5353)).unwrap();
            // Before anybody is there: the kernel notes a flow to the host itself.
            client.send(b"hello?").unwrap();
            client.recv(&mut [0; 64]).unwrap_err();
            for generation in ["one", "two"] {
                let host = w.host.as_fd();
                let sandbox = inside(host, || published_udp(&net, generation, 5353));
                let echo = udp_echo(sandbox.as_fd(), 53, 1);
                client.send(b"hello?").unwrap();
                client.recv(&mut [0; 64]).unwrap_or_else(|e| panic!("container {generation}: {e}"));
                echo.join().unwrap();
                inside(host, || net.detach_all(generation).unwrap());
            }
        });
        net.shutdown(true).unwrap();
    });
}

#[test]
fn udp_over_ipv6_is_relayed_to_an_ipv4_container() {
    world(|w| {
        let net = w.controller("relay");
        let sandbox = published_udp(&net, "a", 5353);
        let echo = udp_echo(sandbox.as_fd(), 53, 4);
        let ask = |client: &UdpSocket| {
            client.send(b"x").unwrap();
            client.recv(&mut [0; 64]).unwrap()
        };
        let connect = |address: Ipv6Addr| {
            let client = UdpSocket::bind("[::]:0").unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            client.connect((address, 5353)).unwrap();
            client
        };
        let (one, two) = (connect(Ipv6Addr::LOCALHOST), connect(Ipv6Addr::LOCALHOST));
        assert!(ask(&one) > 0 && ask(&two) > 0 && ask(&one) > 0);
        inside(w.outside.as_fd(), || assert!(ask(&connect(host_v6())) > 0));
        echo.join().unwrap();
        net.shutdown(true).unwrap();
    });
}

#[test]
fn sctp_is_a_rule_and_clashes() {
    world(|w| {
        let net = w.controller("sctp");
        let bridge = net.network("bridge").unwrap();
        let [a, b] = [0; 2].map(|_| net.new_sandbox().unwrap());
        let ports = vec![PortRequest { protocol: Protocol::Sctp, ..port(3868, None, 3868) }];
        let wish = |id| EndpointRequest { ports: ports.clone(), ..request(id) };
        let endpoint = net.attach(a.as_fd(), &bridge.id, wish("a")).unwrap();
        let rules = nft("list table inet berth-sctp");
        assert!(rules.contains(&format!("sctp . 3868 : {} . 3868", endpoint.ipv4.unwrap())), "{rules}");
        let error = net.attach(b.as_fd(), &bridge.id, wish("b")).unwrap_err();
        assert!(error.to_string().contains("port is already allocated"), "{error}");
        net.shutdown(true).unwrap();
    });
}

#[test]
fn the_table_comes_back_after_a_firewall_reload() {
    world(|w| {
        let net = w.controller("back");
        let bridge = net.network("bridge").unwrap();
        let a = net.new_sandbox().unwrap();
        let ports = vec![port(80, None, 8080)];
        net.attach(a.as_fd(), &bridge.id, EndpointRequest { ports, ..request("a") }).unwrap();
        let _server = Server::start(a.as_fd(), 80);
        let before = nft("list table inet berth-back");
        let restored = || {
            let tables = nft("list tables");
            tables.contains("berth-back") && nft("list table inet berth-back") == before
        };
        for damage in ["flush ruleset", "flush chain inet berth-back local", "delete table inet berth-back"] {
            nft(damage);
            let mut waited = 0;
            while !restored() {
                waited += 1;
                assert!(waited < 500, "not mended after {damage}: {}", nft("list ruleset"));
                std::thread::sleep(Duration::from_millis(10));
            }
            assert!(inside(w.outside.as_fd(), || ask(HOST, 8080)).is_ok(), "after {damage}");
        }
        // Others' tables are none of ours.
        nft("add table inet foreign");
        nft("flush ruleset");
        net.shutdown(true).unwrap();
        assert!(!nft("list tables").contains("berth"), "it stays away after the end");
    });
}
