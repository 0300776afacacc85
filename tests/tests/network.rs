//! Networks under load and under attack: real traffic between hosts, many ports and networks, names while the daemon
//! restarts, a daemon that is killed in the middle. Every daemon has a host of its own, which must be empty at the end.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use berth_tests::cli::{Cli, Frontend};
use berth_tests::daemon::Daemon;
use berth_tests::host::Host;

const SERVER: &str = "mkdir -p /www && echo page > /www/index.html && exec httpd -f -p 80 -h /www";

fn on(host: &Host) -> (Daemon, Cli) {
    let daemon = Daemon::on(host);
    let cli = daemon.cli(Frontend::Docker);
    (daemon, cli)
}

fn pid_of(cli: &Cli, name: &str) -> u32 {
    cli.ok(&["inspect", "--format", "{{.State.Pid}}", name]).parse().expect("a pid")
}

fn address_of(cli: &Cli, name: &str) -> String {
    cli.ok(&["inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name])
}

/// Runs `work` on a thread in the network namespace of a process.
fn within<T: Send>(pid: u32, work: impl FnOnce() -> T + Send) -> T {
    let netns = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("a namespace");
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            nix::sched::setns(netns.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
            work()
        });
        worker.join().expect("the work inside a namespace")
    })
}

fn fetch(address: &str) -> Option<String> {
    let address: SocketAddr = address.parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.ends_with("page\n").then_some(answer)
}

fn served(host: &Host, address: &str) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(60) {
        if within(host.pid(), || fetch(address)).is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

/// Two daemons on two hosts: containers of one use what the other publishes, over both families; nobody gets in by a
/// container's own address; a firewall that is reloaded changes nothing.
#[test]
fn two_hosts() {
    let (left, right) = (Host::new(), Host::new());
    left.connect(&right, "cable", "198.51.100.1/24", "198.51.100.2/24");
    left.run("ip address add 2001:db8::1/64 dev cable nodad");
    right.run("ip address add 2001:db8::2/64 dev cable nodad");
    let ((_left_daemon, l), (_right_daemon, r)) = (on(&left), on(&right));
    for cli in [&l, &r] {
        cli.ok(&["network", "create", "--ipv6", "six"]);
    }
    let ports = ["-p", "8080:80", "-p", "127.0.0.1:8081:80"];
    l.ok(&[
        &["run", "-d", "--name", "server", "--network", "six"][..],
        &ports,
        &["busybox", "sh", "-c", SERVER],
    ]
    .concat());
    r.ok(&["run", "-d", "--name", "client", "--network", "six", "busybox", "sleep", "1000"]);
    let pages = |when: &str| {
        for address in ["198.51.100.1:8080", "[2001:db8::1]:8080"] {
            assert!(served(&right, address), "{address} from the other host, {when}");
            let seen = within(pid_of(&r, "client"), || fetch(address));
            assert!(seen.is_some(), "{address} from a container there, {when}");
        }
        for address in ["127.0.0.1:8080", "127.0.0.1:8081", "[::1]:8080", "198.51.100.1:8080"] {
            assert!(served(&left, address), "{address} on the host itself, {when}");
        }
        assert!(within(right.pid(), || fetch("198.51.100.1:8081")).is_none(), "loopback only, {when}");
    };
    pages("at first");
    // By the container's own address there is no way, though the other host knows the route.
    let container = address_of(&l, "server");
    right.run(&format!("ip route add {container}/32 via 198.51.100.1"));
    assert!(within(right.pid(), || fetch(&format!("{container}:80"))).is_none());
    // Both hosts have a container of this address.
    right.run(&format!("ip route del {container}/32"));
    left.run("nft flush ruleset");
    l.eventually("the rules are back", |_| left.run("nft list tables").contains("berth"));
    pages("after the firewall was flushed");
    left.run("iptables -P FORWARD ACCEPT");
    pages("beside iptables");
    left.run("iptables -t nat -F");
    l.ok(&["rm", "-f", "server"]);
    assert!(within(right.pid(), || fetch("198.51.100.1:8080")).is_none());
}

/// 100,000 queries while the daemon is killed, comes back, and containers come and go: not one fails.
#[test]
fn names_under_load() {
    const QUERIES: usize = 100_000;
    const CLIENTS: usize = 4;
    let host = Host::new();
    let (mut daemon, cli) = on(&host);
    cli.ok(&["network", "create", "loaded"]);
    cli.ok(&["run", "-d", "--name", "server", "--network", "loaded", "busybox", "sleep", "1000"]);
    cli.ok(&["run", "-d", "--name", "client", "--network", "loaded", "busybox", "sleep", "1000"]);
    let (pid, address) = (pid_of(&cli, "client"), address_of(&cli, "server"));
    let expected: std::net::Ipv4Addr = address.parse().expect("an address");
    // A name server of the container's own may be on port 53 of every address all the while.
    let _own = within(pid, || UdpSocket::bind("0.0.0.0:53").expect("port 53 is the container's"));
    let asked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let asked = &asked;
            scope.spawn(move || {
                within(pid, || {
                    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
                    socket.connect("127.0.0.11:53").expect("connect");
                    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
                    for n in 0..QUERIES / CLIENTS {
                        let id = u16::try_from(n % 65_536).expect("16 bits");
                        socket.send(&query(id, "server")).expect("send");
                        let mut buffer = [0; 512];
                        let length = socket
                            .recv(&mut buffer)
                            .unwrap_or_else(|e| panic!("client {client}, query {n} was not answered: {e}"));
                        let answer = &buffer[..length];
                        assert_eq!(answer[..2], id.to_be_bytes(), "client {client}, query {n}");
                        assert!(
                            answer.ends_with(&expected.octets()),
                            "client {client}, query {n}: {answer:?}"
                        );
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                });
            });
        }
        let reach = |part: usize| {
            while asked.load(Ordering::Relaxed) < QUERIES / 8 * part {
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        reach(1);
        daemon.kill();
        reach(3);
        daemon.start_again();
        for _ in 0..3 {
            cli.ok(&[
                "run",
                "--rm",
                "--network",
                "loaded",
                "--network-alias",
                "guest",
                "busybox",
                "nslookup",
                "server",
            ]);
        }
        reach(6);
        daemon.terminate();
        daemon.start_again();
    });
    assert_eq!(asked.load(Ordering::Relaxed), QUERIES);
    // New names are known after all that, and the process can be lost, too.
    cli.ok(&["run", "-d", "--name", "late", "--network", "loaded", "busybox", "sleep", "1000"]);
    cli.ok(&["exec", "client", "nslookup", "-type=a", "late"]);
}

/// A query for an A record, as a stub resolver sends it.
fn query(id: u16, name: &str) -> Vec<u8> {
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).expect("a label"));
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet
}

/// A network without IPv4, through the command line: names, inspect, published ports for clients of both families, and
/// a daemon that comes back.
#[test]
fn networks_without_ipv4() {
    let host = Host::new();
    let (mut daemon, cli) = on(&host);
    let berth = daemon.cli(Frontend::Berth);
    cli.ok(&["network", "create", "--ipv4=false", "--ipv6", "--subnet", "fd66::/64", "six"]);
    berth.ok(&["network", "create", "--ipv4=false", "--ipv6", "second"]);
    let shown = cli.ok(&[
        "network",
        "inspect",
        "-f",
        "{{.EnableIPv4}} {{.EnableIPv6}} {{len .IPAM.Config}}",
        "six",
        "second",
    ]);
    assert_eq!(shown, "false true 1\nfalse true 1");
    let refused = cli.run(&["network", "create", "--ipv4=false", "neither"]).expect_code(1);
    assert!(refused.stderr.contains("IPv4 or IPv6 must be enabled"), "{}", refused.stderr);
    let server = ["busybox", "sh", "-c", SERVER];
    cli.ok(&[
        &["run", "-d", "--name", "server", "--network", "six", "--ip6", "fd66::9", "-p", "8080:80"][..],
        &server,
    ]
    .concat());
    cli.ok(&["run", "-d", "--name", "client", "--network", "six", "busybox", "sleep", "1000"]);
    let reached = |when: &str| {
        for address in ["127.0.0.1:8080", "[::1]:8080"] {
            assert!(served(&host, address), "{address}, {when}");
        }
        let page = cli.ok(&["exec", "client", "wget", "-q", "-O", "-", "http://server/"]);
        assert_eq!(page, "page", "by name, {when}");
    };
    reached("at first");
    let settings = "{{range .NetworkSettings.Networks}}{{.IPAddress}}|{{.Gateway}}|{{.GlobalIPv6Address}}|{{.IPv6Gateway}}{{end}}";
    assert_eq!(cli.ok(&["inspect", "-f", settings, "server"]), "||fd66::9|fd66::1");
    let members = cli.ok(&[
        "network",
        "inspect",
        "-f",
        "{{range .Containers}}{{.Name}}={{.IPv4Address}}{{.IPv6Address}} {{end}}",
        "six",
    ]);
    assert!(members.contains("server=fd66::9/64"), "{members}");
    let hosts = cli.ok(&["exec", "server", "grep", "-c", "^fd66::9", "/etc/hosts"]);
    assert_eq!(hosts, "1");
    daemon.kill();
    daemon.start_again();
    reached("after the daemon came back");
    // Of two networks, each family goes out where it can.
    cli.ok(&["network", "create", "four"]);
    cli.ok(&["network", "connect", "four", "client"]);
    let routes =
        cli.ok(&["exec", "client", "sh", "-c", "ip -4 route show default; ip -6 route show default"]);
    assert!(routes.contains("dev eth1") && routes.contains("via fd66::1"), "{routes}");
    cli.ok(&["network", "disconnect", "six", "client"]);
    let routes = cli.ok(&["exec", "client", "ip", "-6", "route", "show", "default"]);
    assert_eq!(routes, "");
}

/// 500 published ports are map elements: the daemon does not grow by a process or a thread for each.
#[test]
fn five_hundred_ports() {
    let host = Host::new();
    let (daemon, cli) = on(&host);
    let threads = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("status");
        let line =
            status.lines().find_map(|line| line.strip_prefix("Threads:")).expect("threads").trim().to_owned();
        line.parse::<usize>().expect("a number")
    };
    let before = threads();
    cli.ok(&[
        "run",
        "-d",
        "--name",
        "many",
        "-p",
        "21000-21499:21000-21499",
        "busybox",
        "sh",
        "-c",
        "echo page > /index.html; for p in 21000 21250 21499; do httpd -p $p -h /; done; sleep 1000",
    ]);
    for port in [21_000, 21_250, 21_499] {
        assert!(served(&host, &format!("127.0.0.1:{port}")), "port {port}");
    }
    assert!(threads() < before + 50, "{} threads, {before} before", threads());
    assert_eq!(cli.ok(&["port", "many"]).lines().count(), 1000);
    let table = host.run("nft list ruleset");
    assert_eq!(table.matches("tcp . 21").count(), 500);
    cli.ok(&["rm", "-f", "many"]);
    assert!(!host.run("nft list ruleset").contains("tcp . 21"));
    // The ports are free again at once.
    cli.ok(&["run", "--rm", "-p", "21000-21499:21000-21499", "busybox", "true"]);
}

/// 200 networks, each with its own subnet, usable, and all gone after prune.
#[test]
fn two_hundred_networks() {
    let host = Host::new();
    let (daemon, cli) = on(&host);
    for n in 0..200 {
        let body = format!(r#"{{"Name":"net{n}","EnableIPv6":{}}}"#, n % 2 == 0);
        let (status, text) = daemon.api("POST", "/networks/create", &body);
        assert_eq!(status, 201, "network {n}: {text}");
    }
    let bridges = host.links().iter().filter(|link| link.starts_with("br-")).count();
    assert_eq!(bridges, 200);
    let seen = cli.ok(&[
        "run",
        "--rm",
        "--network",
        "net199",
        "busybox",
        "ip",
        "-4",
        "-o",
        "address",
        "show",
        "eth0",
    ]);
    assert!(seen.contains("inet "), "{seen}");
    cli.ok(&["network", "prune", "-f"]);
    assert_eq!(cli.ok(&["network", "ls", "-q", "--filter", "type=custom"]), "");
    assert!(!host.links().iter().any(|link| link.starts_with("br-")));
}

/// Killed in the middle of whatever it does, the daemon comes back to a state that can be used and taken away.
#[test]
fn killed_in_the_middle() {
    let host = Host::new();
    let (mut daemon, cli) = on(&host);
    cli.ok(&["network", "create", "steady"]);
    cli.ok(&["run", "-d", "--name", "steady", "--network", "steady", "busybox", "sleep", "1000"]);
    for round in 0..8_u64 {
        let busy = cli.clone();
        let script = std::thread::spawn(move || {
            // Each may fail, for the daemon goes away under it; what counts is what is left.
            let net = format!("round{round}");
            drop(busy.run(&["network", "create", "--ipv6", &net]));
            drop(busy.run(&["network", "connect", &net, "steady"]));
            drop(busy.run(&[
                "run",
                "-d",
                "--rm",
                "--name",
                &net,
                "--network",
                &net,
                "-p",
                "22222:80",
                "busybox",
                "sleep",
                "1000",
            ]));
            drop(busy.run(&["network", "disconnect", &net, "steady"]));
            drop(busy.run(&["rm", "-f", &net]));
            drop(busy.run(&["network", "rm", &net]));
        });
        std::thread::sleep(Duration::from_millis(40 + 60 * round));
        daemon.kill();
        script.join().expect("the script");
        daemon.start_again();
        let net = format!("round{round}");
        drop(cli.run(&["rm", "-f", &net]));
        cli.ok(&["exec", "steady", "nslookup", "-type=a", "steady"]);
        drop(cli.run(&["network", "disconnect", &net, "steady"]));
        cli.run(&["network", "rm", "-f", &net]).expect_code(0);
        assert_eq!(
            cli.ok(&["network", "ls", "-q", "--filter", "type=custom"]).lines().count(),
            1,
            "round {round}"
        );
        let bridges = host.links().iter().filter(|link| link.starts_with("br-")).count();
        let ends = host.links().iter().filter(|link| link.starts_with("veth")).count();
        assert_eq!((bridges, ends), (1, 1), "round {round}: {:?}", host.links());
        assert!(!host.run("nft list ruleset").contains("22222"), "round {round}");
    }
    cli.ok(&["rm", "-f", "steady"]);
    cli.ok(&["network", "rm", "steady"]);
}

/// One operation at a time, and the daemon killed at some moment of it: what comes back is what was or what was asked for,
/// never a part, and nobody's link or record is left. `BERTH_KILL_ROUNDS` and `BERTH_KILL_SEED` make it longer and other.
#[test]
fn killed_at_any_moment() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (rounds, mut state) =
        (number("BERTH_KILL_ROUNDS").unwrap_or(12), number("BERTH_KILL_SEED").unwrap_or(7));
    // Knuth's generator; the upper bits are the good ones.
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let host = Host::new();
    let (mut daemon, cli) = on(&host);
    cli.ok(&["network", "create", "steady"]);
    cli.ok(&["run", "-d", "--name", "steady", "--network", "steady", "busybox", "sleep", "1000"]);
    for round in 0..rounds {
        let operation = random(4);
        if operation > 0 {
            cli.ok(&["network", "create", "--ipv6", "extra"]);
        }
        if operation == 2 {
            cli.ok(&["network", "connect", "extra", "steady"]);
        }
        let words: &[&str] = match operation {
            0 => &["network", "create", "--ipv6", "extra"],
            1 => &["network", "connect", "extra", "steady"],
            2 => &["network", "disconnect", "extra", "steady"],
            _ => &["network", "rm", "extra"],
        };
        let delay = Duration::from_micros(random(90_000));
        let mut command = cli.command(words);
        let mut child = command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("start the command line");
        std::thread::sleep(delay);
        daemon.kill();
        child.wait().expect("the command ends");
        daemon.start_again();
        let when = format!("round {round}, {words:?} cut after {delay:?}");
        agree(&host, &cli, &when);
        // What is half done for the user can be done again.
        drop(cli.run(&["network", "disconnect", "extra", "steady"]));
        cli.run(&["network", "rm", "-f", "extra"]).expect_code(0);
        agree(&host, &cli, &when);
        assert_eq!(cli.ok(&["network", "ls", "-q", "--filter", "type=custom"]).lines().count(), 1, "{when}");
    }
    cli.ok(&["rm", "-f", "steady"]);
    cli.ok(&["network", "rm", "steady"]);
}

/// What the daemon says of the container `steady` is what the kernel says.
fn agree(host: &Host, cli: &Cli, when: &str) {
    let known = cli.ok(&["network", "ls", "--no-trunc", "--filter", "driver=bridge", "--format", "{{.ID}}"]);
    let links = host.links();
    for link in links.iter().filter_map(|link| link.strip_prefix("br-")) {
        assert!(known.lines().any(|id| id.starts_with(link)), "{when}: nobody's bridge br-{link}");
    }
    let joined = cli.ok(&["inspect", "-f", "{{len .NetworkSettings.Networks}}", "steady"]);
    let inside = cli.ok(&["exec", "steady", "sh", "-c", "ls -d /sys/class/net/eth* | wc -l"]);
    let ends = links.iter().filter(|link| link.starts_with("veth")).count().to_string();
    assert_eq!((joined.as_str(), joined.as_str()), (inside.trim(), ends.as_str()), "{when}: {links:?}");
    cli.ok(&["exec", "steady", "nslookup", "-type=a", "steady"]);
    cli.ok(&[
        "exec",
        "steady",
        "ping",
        "-c",
        "1",
        "-W",
        "5",
        &cli.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "steady"]),
    ]);
}

/// iperf3 between two containers, out of the host and through a published port, over TCP and UDP; for comparison over a
/// bare pair of links. Prints the rates: how fast the machine is nobody knows, so that only the traffic is asserted.
#[test]
fn iperf3_everywhere() {
    let (host, outside) = (Host::new(), Host::new());
    host.connect(&outside, "cable", "198.51.100.1/24", "198.51.100.2/24");
    let (_daemon, cli) = on(&host);
    cli.ok(&["network", "create", "fast"]);
    for name in ["one", "two"] {
        cli.ok(&[
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "fast",
            "-p",
            if name == "one" { "5201:5201" } else { "5202:5202" },
            "-p",
            if name == "one" { "5201:5201/udp" } else { "5202:5202/udp" },
            "busybox",
            "sleep",
            "1000",
        ]);
    }
    let (one, two) = (pid_of(&cli, "one"), pid_of(&cli, "two"));
    let _servers = [Iperf::serve(one), Iperf::serve(outside.pid())];
    let address = address_of(&cli, "one");
    let bare = Iperf::ask(host.pid(), "198.51.100.2", &[]);
    for (what, client, server) in [
        ("bridge", two, address.as_str()),
        ("the way out", two, "198.51.100.2"),
        ("published port", outside.pid(), "198.51.100.1"),
    ] {
        let rate = Iperf::ask(client, server, &[]);
        println!("{what}: {:.1} Gbit/s, {:.0} % of a bare pair of links", rate / 1e9, 100.0 * rate / bare);
        assert!(rate > 0.0, "{what}");
        assert!(Iperf::ask(client, server, &["--udp", "--bitrate", "10M"]) > 0.0, "{what}, UDP");
    }
}

/// A server of iperf3 in the network namespace of a process, until it is dropped.
struct Iperf(std::process::Child);

impl Iperf {
    fn serve(pid: u32) -> Self {
        let child = berth_tests::host::inside(pid, "iperf3")
            .args(["--server"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("iperf3 (package iperf3)");
        let begin = Instant::now();
        while within(pid, || TcpStream::connect("127.0.0.1:5201")).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(60), "iperf3 does not serve");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self(child)
    }

    /// Bits a second that came through.
    fn ask(pid: u32, server: &str, more: &[&str]) -> f64 {
        let seconds = std::env::var("BERTH_IPERF_SECONDS").unwrap_or_else(|_| "1".to_owned());
        let begin = Instant::now();
        loop {
            let done = berth_tests::host::inside(pid, "iperf3")
                .args(["--json", "--time", &seconds, "--client", server])
                .args(more)
                .output()
                .expect("iperf3 (package iperf3)");
            let told: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
            let end = &told["end"];
            let rate = ["sum_received", "sum"].iter().find_map(|sum| end[*sum]["bits_per_second"].as_f64());
            match rate {
                Some(rate) => return rate,
                // A server ends one test before it takes the next.
                None => assert!(begin.elapsed() < Duration::from_secs(60), "{server}: {told}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A name server of the outside, in the network namespace of a container; it answers until the test ends.
struct Outside {
    asked: std::sync::Arc<AtomicUsize>,
}

/// What it says of every name.
const ANSWER: [u8; 4] = [192, 0, 2, 9];

impl Outside {
    fn start(pid: u32) -> Self {
        let asked = std::sync::Arc::new(AtomicUsize::new(0));
        let udp = within(pid, || UdpSocket::bind("[::]:53").expect("UDP port 53"));
        let tcp = within(pid, || std::net::TcpListener::bind("[::]:53").expect("TCP port 53"));
        let count = std::sync::Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, client)) = udp.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::Relaxed);
                let large = buffer[13..].starts_with(b"large");
                // A large answer does not fit: come back over TCP.
                udp.send_to(&told(&buffer[..length], usize::from(!large), large), client).expect("answer");
            }
        });
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.expect("a connection");
                let packet = framed(&mut stream);
                let answer = told(&packet, 200, false);
                let length = u16::try_from(answer.len()).expect("64 KiB");
                stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).expect("answer");
            }
        });
        Self { asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("a length");
    let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut packet).expect("a message");
    packet
}

/// An answer with so many addresses, good for a minute.
fn told(query: &[u8], count: usize, truncated: bool) -> Vec<u8> {
    let question = query.iter().skip(12).position(|byte| *byte == 0).expect("a name") + 12 + 5;
    let mut packet = query[..question].to_vec();
    packet[2..4].copy_from_slice(&[0x81 | if truncated { 2 } else { 0 }, 0x80]);
    packet[4..12].copy_from_slice(&[0, 1, 0, u8::try_from(count).expect("a byte"), 0, 0, 0, 0]);
    for _ in 0..count {
        packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        packet.extend(ANSWER);
    }
    packet
}

/// Asks 127.0.0.11 for an address, as a stub resolver does.
fn ask(pid: u32, name: &str) -> Vec<u8> {
    within(pid, || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
        socket.connect("127.0.0.11:53").expect("connect");
        socket.send(&query(7, name)).expect("send");
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).expect("an answer within the time of a stub resolver");
        buffer[..length].to_vec()
    })
}

/// Names that no network has go to the servers asked for: the second when the first is silent, over TCP what is large,
/// once only what is known; and from internal networks nowhere.
#[test]
fn names_of_the_outside() {
    let host = Host::new();
    let (_daemon, cli) = on(&host);
    cli.ok(&["network", "create", "--subnet", "10.218.0.0/24", "open"]);
    cli.ok(&["network", "create", "--internal", "shut"]);
    cli.ok(&["run", "-d", "--name", "outside", "--network", "open", "busybox", "sleep", "1000"]);
    let outside = Outside::start(pid_of(&cli, "outside"));
    let servers = ["--dns", "10.218.0.250", "--dns", &address_of(&cli, "outside")];
    cli.ok(&[
        &["run", "-d", "--name", "client", "--network", "open"][..],
        &servers,
        &["busybox", "sleep", "1000"],
    ]
    .concat());
    cli.ok(&[
        &["run", "-d", "--name", "inside", "--network", "shut"][..],
        &servers,
        &["busybox", "sleep", "1000"],
    ]
    .concat());

    let client = pid_of(&cli, "client");
    // Nobody has the first server's address.
    let answer = ask(client, "www.example.org");
    assert!(answer.ends_with(&ANSWER), "{answer:?}");
    assert_eq!(outside.asked(), 1);
    assert!(ask(client, "WWW.example.org").ends_with(&ANSWER));
    assert_eq!(outside.asked(), 1, "what is known was asked again");
    assert!(ask(client, "other.example.org").ends_with(&ANSWER));
    assert_eq!(outside.asked(), 2);

    let short = ask(client, "large.example.org");
    assert_eq!(short[2] & 2, 2, "the client must be told to come back over TCP: {short:?}");
    let large = within(client, || {
        let mut stream = TcpStream::connect("127.0.0.11:53").expect("connect over TCP");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
        let packet = query(7, "large.example.org");
        let length = u16::try_from(packet.len()).expect("short");
        stream.write_all(&[&length.to_be_bytes()[..], &packet].concat()).expect("send");
        framed(&mut stream)
    });
    assert!(large.len() > 3000 && large.ends_with(&ANSWER), "{} bytes", large.len());
    // What came over TCP is known now, and too large for this client's datagrams all the same.
    assert_eq!(ask(client, "large.example.org")[2] & 2, 2);

    let before = outside.asked();
    let refused = ask(pid_of(&cli, "inside"), "www.example.org");
    assert_eq!((refused[3] & 15, outside.asked()), (3, before), "no such name, and nobody was asked");
}

/// A name server that has an IPv6 address only is asked like any other.
#[test]
fn a_name_server_over_ipv6() {
    let host = Host::new();
    let (_daemon, cli) = on(&host);
    cli.ok(&["network", "create", "--ipv6", "--subnet", "10.219.0.0/24", "--subnet", "fd19::/64", "six"]);
    cli.ok(&[
        "run",
        "-d",
        "--name",
        "outside",
        "--network",
        "six",
        "--ip6",
        "fd19::53",
        "busybox",
        "sleep",
        "1000",
    ]);
    let outside = Outside::start(pid_of(&cli, "outside"));
    cli.ok(&[
        "run",
        "-d",
        "--name",
        "client",
        "--network",
        "six",
        "--dns",
        "fd19::53",
        "busybox",
        "sleep",
        "1000",
    ]);
    let answer = ask(pid_of(&cli, "client"), "www.example.org");
    assert!(answer.ends_with(&ANSWER), "{answer:?}");
    assert_eq!(outside.asked(), 1);
}

/// The process that answers names may be killed: another one takes over, for containers old and new.
#[test]
fn a_lost_name_server() {
    let host = Host::new();
    let (_daemon, cli) = on(&host);
    cli.ok(&["network", "create", "names"]);
    cli.ok(&["run", "-d", "--name", "server", "--network", "names", "busybox", "sleep", "1000"]);
    cli.ok(&["run", "-d", "--name", "client", "--network", "names", "busybox", "sleep", "1000"]);
    for round in 0..3 {
        let found = resolvers(&host);
        assert_eq!(found.len(), 1, "round {round}: one process answers");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(found[0]), nix::sys::signal::Signal::SIGKILL)
            .expect("kill -9 the resolver");
        cli.eventually("another process answers", |_| {
            let now = resolvers(&host);
            now.len() == 1 && now != found
        });
        cli.eventually("old containers know old names", |cli| {
            cli.run(&["exec", "client", "nslookup", "-type=a", "server"]).code == 0
        });
        let late = format!("late{round}");
        cli.ok(&["run", "-d", "--name", &late, "--network", "names", "busybox", "sleep", "1000"]);
        cli.ok(&["exec", "client", "nslookup", "-type=a", &late]);
        cli.ok(&["exec", &late, "nslookup", "-type=a", "client"]);
    }
}

/// Processes that answer names in a host's network namespace; they hold no descriptors of others.
fn resolvers(host: &Host) -> Vec<i32> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let ours = namespace(&host.pid().to_string());
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().into_string().ok());
    pids.filter(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim() == "berth-dns" && namespace(pid) == ours
    })
    .filter_map(|pid| pid.parse().ok())
    .collect()
}

/// The process outlives whoever started the daemon: it keeps nothing open that they may wait for.
#[test]
fn the_name_server_holds_nothing_of_others() {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    let host = Host::new();
    let marker = tempfile::NamedTempFile::new().expect("a file");
    // As any program would inherit it from a careless parent.
    fcntl(marker.as_file(), FcntlArg::F_SETFD(FdFlag::empty())).expect("inheritable");
    let (daemon, cli) = on(&host);
    fcntl(marker.as_file(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("not inheritable");
    cli.ok(&["network", "create", "names"]);
    cli.ok(&["run", "-d", "--name", "server", "--network", "names", "busybox", "sleep", "1000"]);
    let holds = |pid: i32| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").flatten();
        fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|target| target == marker.path())
    };
    assert!(holds(i32::try_from(daemon.pid()).expect("a pid")), "the test's own premise");
    let found = resolvers(&host);
    assert!(found.len() == 1 && !holds(found[0]), "{found:?}");
}

/// Two projects on one network may both have a `db`: each sees its own first, and the other's when it has none.
#[test]
fn names_of_one_s_own_project_come_first() {
    let host = Host::new();
    let (daemon, cli) = on(&host);
    let berth = daemon.cli(Frontend::Berth);
    cli.ok(&["network", "create", "shared"]);
    let common = "networks: {default: {name: shared, external: true}}\n";
    let service = "{image: busybox, stop_signal: SIGKILL, command: sleep 1000}";
    for (project, extra) in [("one", ""), ("two", ""), ("three", "no")] {
        let db = if extra.is_empty() { format!("  db: {service}\n") } else { String::new() };
        let dir = daemon.scratch(project);
        std::fs::write(dir.join("compose.yaml"), format!("services:\n  app: {service}\n{db}{common}"))
            .expect("write the file");
        berth.ok(&["compose", "--project-directory", &dir.display().to_string(), "up", "-d"]);
    }
    let resolve = |container: &str| {
        let answer = ask(pid_of(&cli, container), "db");
        std::net::Ipv4Addr::from(*answer.last_chunk::<4>().expect("an address")).to_string()
    };
    let (one, two) = (address_of(&cli, "one-db-1"), address_of(&cli, "two-db-1"));
    for _ in 0..4 {
        assert_eq!(resolve("one-app-1"), one);
        assert_eq!(resolve("two-app-1"), two);
        assert!([&one, &two].contains(&&resolve("three-app-1")));
    }
    cli.ok(&["rm", "-f", "one-db-1"]);
    assert_eq!(resolve("one-app-1"), two, "the only one there is");
    for project in ["one", "two", "three"] {
        let dir = daemon.scratch(project).display().to_string();
        berth.ok(&["compose", "--project-directory", &dir, "down", "-t", "1"]);
    }
}
