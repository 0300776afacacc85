//! Records, leases, conflicts, recovery, and what is left behind.

mod support;

use std::net::{IpAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use berth_network::{
    EndpointRequest, ErrorKind, IpamConfig, IpamPool, MacAddress, NetworkError, NetworkSpec, PortRequest,
    Protocol,
};
use support::{HOST, Server, ask, inside, ip, links, nft, port, request, world};

fn spec(name: &str, subnet: &str) -> NetworkSpec {
    let pool = IpamPool {
        subnet: subnet.parse().unwrap(),
        ip_range: None,
        gateway: None,
        aux_addresses: Default::default(),
        asked_for: true,
    };
    NetworkSpec { ipam: IpamConfig { pools: vec![pool], options: None }, ..NetworkSpec::bridge(name) }
}

#[test]
fn predefined_networks_are_what_docker_shows() {
    world(|w| {
        let net = w.controller("pre");
        let names: Vec<_> = net.networks().iter().map(|n| (n.name.clone(), n.driver.as_str())).collect();
        for expected in [("bridge", "bridge"), ("host", "host"), ("none", "null")] {
            assert!(names.contains(&(expected.0.into(), expected.1)), "{names:?}");
        }
        let bridge = net.network("bridge").unwrap();
        assert_eq!(bridge.options["com.docker.network.bridge.name"], "bthpre");
        assert_eq!(bridge.pool().unwrap().gateway, Some(IpAddr::from([172, 17, 0, 1])));
        assert_eq!(net.network(&bridge.id.as_str()[..10]).unwrap(), bridge);
        assert_eq!(net.create_network(NetworkSpec::bridge("host")).unwrap_err().kind(), ErrorKind::Forbidden);
        assert_eq!(
            net.remove_network("bridge").unwrap_err().to_string(),
            "bridge is a pre-defined network and cannot be removed"
        );
        assert_eq!(net.network("nope").unwrap_err().to_string(), "network nope not found");
        // Opening and looking left no trace in the kernel.
        assert_eq!(links(), ["lo", "eth0"]);
        assert_eq!(nft("list tables"), "");
        drop(net);
        assert_eq!(w.controller("pre").network("bridge").unwrap(), bridge);
    });
}

#[test]
fn networks_come_and_go() {
    world(|w| {
        let net = w.controller("crud");
        let made = net.create_network(NetworkSpec::bridge("one")).unwrap();
        assert_eq!(made.pool().unwrap().subnet.to_string(), "172.18.0.0/16");
        assert!(links().contains(&made.bridge));
        assert_eq!(net.create_network(NetworkSpec::bridge("one")).unwrap_err().kind(), ErrorKind::Conflict);

        // Conflicts are named, whether with a network or with a route of the host.
        let error = net.create_network(spec("two", "172.18.5.0/24")).unwrap_err().to_string();
        assert!(error.contains("network one") && error.contains("172.18.0.0/16"), "{error}");
        let error = net.create_network(spec("two", "198.51.100.0/25")).unwrap_err().to_string();
        assert!(error.contains("on eth0") && error.contains("198.51.100.0/24"), "{error}");
        ip("route add 172.19.0.0/16 via 198.51.100.2");
        let auto = net.create_network(NetworkSpec::bridge("two")).unwrap();
        assert_eq!(auto.pool().unwrap().subnet.to_string(), "172.20.0.0/16");

        // A link that is in the way is named and left alone.
        ip("link add taken0 type veth peer name taken1");
        let mut named = NetworkSpec::bridge("three");
        named.options.insert("com.docker.network.bridge.name".into(), "taken0".into());
        let error = net.create_network(named).unwrap_err().to_string();
        assert!(error.contains("taken0"), "{error}");
        assert!(net.network("three").is_err());
        ip("link delete taken0");

        let sandbox = net.new_sandbox().unwrap();
        net.attach(sandbox.as_fd(), &made.id, request("c")).unwrap();
        let error = net.remove_network("one").unwrap_err().to_string();
        assert!(error.contains("has active endpoints (name:\"name-c\" id:\""), "{error}");
        net.detach("c", &made.id, None).unwrap();
        net.remove_network("one").unwrap();
        assert!(net.network("one").is_err());
        assert!(!links().contains(&made.bridge));
        net.shutdown(true).unwrap();
    });
}

#[test]
fn addresses_are_leased_and_conflicts_named() {
    world(|w| {
        let net = w.controller("ipam");
        let small = net.create_network(spec("small", "10.7.0.0/29")).unwrap();
        let sandboxes: Vec<_> = (0..7).map(|_| net.new_sandbox().unwrap()).collect();
        let attach = |n: usize, request| net.attach(sandboxes[n].as_fd(), &small.id, request);
        let fixed =
            |id, address: &str| EndpointRequest { ipv4: Some(address.parse().unwrap()), ..request(id) };

        attach(0, fixed("fixed", "10.7.0.5")).unwrap();
        let error = attach(1, fixed("late", "10.7.0.5")).unwrap_err();
        assert!(
            error.to_string().contains("Address already in use") && error.to_string().contains("name-fixed")
        );
        assert!(attach(1, fixed("late", "10.8.0.5")).unwrap_err().to_string().contains("10.7.0.0/29"));
        assert!(attach(1, fixed("late", "10.7.0.1")).unwrap_err().to_string().contains("the gateway"));
        for (n, id) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
            attach(n, request(id)).unwrap();
        }
        let error = attach(5, request("e")).unwrap_err();
        assert!(matches!(error, NetworkError::AddressesExhausted { leases: 6, .. }), "{error}");
        // A dead container's namespace is gone before detach: that is no error, and its address is free again.
        let freed = net.container_endpoints("b")[0].ipv4.unwrap();
        drop(inside(sandboxes[2].as_fd(), || ip("link delete eth0")));
        net.detach("b", &small.id, None).unwrap();
        assert!(matches!(
            net.detach("b", &small.id, None).unwrap_err()[..],
            [NetworkError::NotAttached { .. }]
        ));
        net.detach_all("b").unwrap();
        assert_eq!(attach(5, request("e")).unwrap().ipv4.unwrap(), freed);

        let error = attach(0, request("fixed")).unwrap_err();
        assert!(matches!(error, NetworkError::AlreadyAttached { .. }), "{error}");
        net.shutdown(true).unwrap();
    });
}

#[test]
fn a_container_can_be_in_several_networks() {
    world(|w| {
        let net = w.controller("multi");
        let one = net.create_network(NetworkSpec::bridge("one")).unwrap();
        let two = net.create_network(NetworkSpec::bridge("two")).unwrap();
        let sandbox = net.new_sandbox().unwrap();
        let mac: MacAddress = "02:42:ac:12:00:09".parse().unwrap();
        let first =
            net.attach(sandbox.as_fd(), &one.id, EndpointRequest { mac: Some(mac), ..request("c") }).unwrap();
        let second = net.attach(sandbox.as_fd(), &two.id, request("c")).unwrap();
        assert_eq!((first.ifname.as_str(), second.ifname.as_str()), ("eth0", "eth1"));
        assert_eq!((first.default_route, second.default_route), (true, false));
        assert!(inside(sandbox.as_fd(), || ip("link show eth0")).contains("02:42:ac:12:00:09"));
        assert_eq!(net.container_endpoints("c"), [first, second.clone()]);
        // Leaving while running takes the interface out of the live namespace.
        net.detach("c", &two.id, None).unwrap();
        assert!(!inside(sandbox.as_fd(), links).contains(&"eth1".to_owned()));
        assert!(!links().contains(&second.host_ifname));
        let group = EndpointRequest { mac: Some(MacAddress::new([1, 0, 0, 0, 0, 1])), ..request("d") };
        assert_eq!(
            net.attach(sandbox.as_fd(), &two.id, group).unwrap_err().kind(),
            ErrorKind::InvalidParameter
        );
        net.shutdown(true).unwrap();
    });
}

#[test]
fn port_conflicts_have_docker_s_words_and_leave_nothing() {
    world(|w| {
        let net = w.controller("port");
        let bridge = net.network("bridge").unwrap();
        let [a, b] = [0; 2].map(|_| net.new_sandbox().unwrap());
        let with = |id, ports| EndpointRequest { ports, ..request(id) };
        net.attach(a.as_fd(), &bridge.id, with("a", vec![port(80, None, 8080)])).unwrap();
        let links_before = links();
        for (host_ip, words) in [
            (None, "Bind for 0.0.0.0:8080 failed: port is already allocated"),
            (Some("127.0.0.1"), "Bind for 127.0.0.1:8080 failed: port is already allocated"),
        ] {
            let error =
                net.attach(b.as_fd(), &bridge.id, with("b", vec![port(80, host_ip, 8080)])).unwrap_err();
            let text = error.to_string();
            assert!(
                text.starts_with("driver failed programming external connectivity on endpoint name-b ("),
                "{text}"
            );
            assert!(text.ends_with(words), "{text}");
        }
        // Foreign listeners, and half a request that could be met.
        let foreign = TcpListener::bind("0.0.0.0:9090").unwrap();
        let error = net
            .attach(b.as_fd(), &bridge.id, with("b", vec![port(80, None, 9091), port(80, None, 9090)]))
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("failed to bind host port 0.0.0.0:9090/tcp: address already in use"),
            "{error}"
        );
        drop(foreign);
        let error =
            net.attach(b.as_fd(), &bridge.id, with("b", vec![port(80, Some("192.0.2.77"), 1)])).unwrap_err();
        assert!(error.to_string().contains("cannot assign requested address"), "{error}");
        assert_eq!(links(), links_before);
        // While published, nobody else gets the port; afterwards anybody does.
        assert!(TcpListener::bind("0.0.0.0:8080").is_err());
        net.attach(b.as_fd(), &bridge.id, with("b", vec![port(80, None, 9091), port(80, None, 9090)]))
            .unwrap();
        net.detach("a", &bridge.id, None).unwrap();
        drop(TcpListener::bind("0.0.0.0:8080").unwrap());
        net.shutdown(true).unwrap();
    });
}

#[test]
fn ephemeral_ports_and_ranges() {
    world(|w| {
        let net = w.controller("range");
        let bridge = net.network("bridge").unwrap();
        let [a, b, c] = [0; 3].map(|_| net.new_sandbox().unwrap());
        let wish = |range| PortRequest {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: None,
            host_port: range,
        };
        let ports = vec![wish(None), wish(Some(0..=0)), wish(Some(7000..=7001))];
        let got = net.attach(a.as_fd(), &bridge.id, EndpointRequest { ports, ..request("a") }).unwrap().ports;
        // IPv4 and IPv6 under the same number, in the order asked for.
        assert_eq!(got.len(), 6);
        for pair in got.chunks(2) {
            assert!(pair[0].host_ip.is_ipv4() && pair[1].host_ip.is_ipv6());
            assert_eq!(pair[0].host_port, pair[1].host_port);
        }
        assert!(got[0].host_port >= 1024 && got[2].host_port != got[0].host_port);
        assert_eq!(got[4].host_port, 7000);
        let range = |id| EndpointRequest { ports: vec![wish(Some(7000..=7001))], ..request(id) };
        assert_eq!(net.attach(b.as_fd(), &bridge.id, range("b")).unwrap().ports[0].host_port, 7001);
        let error = net.attach(c.as_fd(), &bridge.id, range("c")).unwrap_err().to_string();
        assert!(error.contains("7000-7001"), "{error}");
        let _server = Server::start(a.as_fd(), 80);
        assert!(ask(HOST, got[0].host_port).is_ok());
        net.shutdown(true).unwrap();
    });
}

#[test]
fn a_restarted_daemon_keeps_the_living_and_buries_the_dead() {
    world(|w| {
        let net = w.controller("rec");
        let own = net.create_network(NetworkSpec::bridge("own")).unwrap();
        let bridge = net.network("bridge").unwrap();
        let [live, dead] = [0; 2].map(|_| net.new_sandbox().unwrap());
        let with = |id, host_port| EndpointRequest { ports: vec![port(80, None, host_port)], ..request(id) };
        let kept = net.attach(live.as_fd(), &bridge.id, with("live", 8080)).unwrap();
        let gone = net.attach(dead.as_fd(), &own.id, with("dead", 8081)).unwrap();
        let _server = Server::start(live.as_fd(), 80);
        net.shutdown(false).unwrap();
        drop(net);
        // The data path needs no daemon.
        assert!(ask(HOST, 8080).is_ok());

        let net = w.controller("rec");
        let found = net.recover(&["live".into()]);
        assert!(found.errors.is_empty(), "{:?}", found.errors);
        assert_eq!((&found.kept[..], &found.released[..]), (&[kept.clone()][..], &[gone.clone()][..]));
        assert_eq!(net.network("own").unwrap(), own);
        assert!(ask(HOST, 8080).is_ok());
        assert!(ask(std::net::Ipv6Addr::LOCALHOST, 8080).is_ok());
        assert!(TcpListener::bind("0.0.0.0:8080").is_err());
        let patience = Instant::now() + Duration::from_secs(60);
        while links().contains(&gone.host_ifname) {
            assert!(Instant::now() < patience, "the link of the dead container stays");
        }
        let rules = nft("list ruleset");
        assert!(rules.contains("8080") && !rules.contains("8081"), "{rules}");
        let next = net.attach(dead.as_fd(), &bridge.id, with("next", 8081)).unwrap();
        assert_ne!(next.ipv4.unwrap(), kept.ipv4.unwrap());

        // With nobody alive the rules go as well.
        drop(net);
        let net = w.controller("rec");
        assert_eq!(net.recover(&[]).released.len(), 2);
        assert_eq!(nft("list tables"), "");
        net.shutdown(true).unwrap();
        assert_eq!(links(), ["lo", "eth0"]);
    });
}

#[test]
fn what_others_destroy_is_made_again() {
    world(|w| {
        let net = w.controller("mend");
        let bridge = net.network("bridge").unwrap();
        let [a, b] = [0; 2].map(|_| net.new_sandbox().unwrap());
        let with = |id, host_port| EndpointRequest { ports: vec![port(80, None, host_port)], ..request(id) };
        net.attach(a.as_fd(), &bridge.id, with("a", 8080)).unwrap();
        nft("flush ruleset");
        net.attach(b.as_fd(), &bridge.id, with("b", 8081)).unwrap();
        let rules = nft("list ruleset");
        assert!(rules.contains("8080") && rules.contains("8081"), "{rules}");
        // nft can read what we wrote, names included.
        assert!(rules.contains(&format!("elements = {{ \"{}\" }}", bridge.bridge)), "{rules}");
        net.detach_all("a").unwrap();
        net.detach_all("b").unwrap();
        ip(&format!("link delete {}", bridge.bridge));
        // The ended container's own link goes in the background: who starts again has a namespace of its own.
        let again = net.new_sandbox().unwrap();
        net.attach(again.as_fd(), &bridge.id, with("b", 8081)).unwrap();
        assert!(links().contains(&bridge.bridge));
        net.shutdown(true).unwrap();
    });
}

#[test]
fn two_instances_live_side_by_side() {
    world(|w| {
        let (one, two) = (w.controller("aaaa"), w.controller("bbbb"));
        let ends: Vec<_> = [(&one, 8080), (&two, 8081)]
            .into_iter()
            .map(|(net, host_port)| {
                // The second opened before the first made its bridge: it may have chosen the same subnet.
                let mine = net.create_network(NetworkSpec::bridge("mine")).unwrap();
                let sandbox = net.new_sandbox().unwrap();
                let ports = vec![port(80, None, host_port)];
                let end =
                    net.attach(sandbox.as_fd(), &mine.id, EndpointRequest { ports, ..request("c") }).unwrap();
                let server = Server::start(sandbox.as_fd(), 80);
                (sandbox, end, server)
            })
            .collect();
        assert_ne!(ends[0].1.ipv4.unwrap(), ends[1].1.ipv4.unwrap());
        assert!(ask(HOST, 8080).is_ok() && ask(HOST, 8081).is_ok());
        assert!(inside(ends[0].0.as_fd(), || ask(ends[1].1.ipv4.unwrap(), 80)).is_err());
        let tables = nft("list tables");
        assert!(tables.contains("berth-aaaa") && tables.contains("berth-bbbb"), "{tables}");
        // The same port: the other instance is a foreign listener.
        let sandbox = two.new_sandbox().unwrap();
        let bridge = two.network("mine").unwrap();
        let clash = EndpointRequest { ports: vec![port(80, None, 8080)], ..request("d") };
        assert!(two.attach(sandbox.as_fd(), &bridge.id, clash).is_err());
        one.shutdown(true).unwrap();
        assert!(ask(HOST, 8081).is_ok());
        two.shutdown(true).unwrap();
        assert_eq!(nft("list tables"), "");
        assert_eq!(links(), ["lo", "eth0"]);
    });
}

#[test]
fn hundreds_of_ports_fit_one_container() {
    world(|w| {
        let net = w.controller("many");
        let bridge = net.network("bridge").unwrap();
        let a = net.new_sandbox().unwrap();
        let ports = (0..500).map(|n| port(80, None, 20000 + n)).collect();
        net.attach(a.as_fd(), &bridge.id, EndpointRequest { ports, ..request("a") }).unwrap();
        let _server = Server::start(a.as_fd(), 80);
        for n in [0, 255, 256, 499] {
            assert!(ask(HOST, 20000 + n).is_ok(), "port {n}");
        }
        net.detach_all("a").unwrap();
        assert!(!nft("list ruleset").contains("20499"));
        net.shutdown(true).unwrap();
    });
}
