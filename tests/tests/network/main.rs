//! Networks under load and under attack: real traffic between hosts, many ports and networks, names while the daemon
//! restarts, a daemon that is killed in the middle. Every daemon has a host of its own, which must be empty at the end.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use berth_tests::PATIENCE;
use berth_tests::cli::{Cli, Frontend};
use berth_tests::daemon::Daemon;
use berth_tests::host::{Host, within};

mod names;

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

/// Asks once: a server that is not there is waited for two seconds, no longer.
fn fetch(address: &str) -> Option<String> {
    let address: SocketAddr = address.parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.ends_with("page\n").then_some(answer)
}

/// Whether the page comes to a process's network namespace; a server that starts is waited for.
fn served(pid: u32, address: &str) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if within(pid, || fetch(address)).is_some() {
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
            assert!(served(right.pid(), address), "{address} from the other host, {when}");
            assert!(served(pid_of(&r, "client"), address), "{address} from a container there, {when}");
        }
        for address in ["127.0.0.1:8080", "127.0.0.1:8081", "[::1]:8080", "198.51.100.1:8080"] {
            assert!(served(left.pid(), address), "{address} on the host itself, {when}");
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
            assert!(served(host.pid(), address), "{address}, {when}");
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
        assert!(served(host.pid(), &format!("127.0.0.1:{port}")), "port {port}");
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
        // The kernel takes a dead container's links away when it has time.
        cli.eventually("one bridge with one container", |_| {
            let links = host.links();
            let count = |prefix| links.iter().filter(|link| link.starts_with(prefix)).count();
            (count("br-"), count("veth")) == (1, 1)
        });
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

/// What the daemon says of the container `steady` is what the kernel says, as soon as the kernel has taken away what
/// belonged to nobody's namespace any more.
fn agree(host: &Host, cli: &Cli, when: &str) {
    let mut told = String::new();
    cli.eventually(&format!("{when}: the daemon and the kernel agree"), |cli| {
        let now = differences(host, cli);
        if now != told {
            println!("{when}: {now}");
            told.clone_from(&now);
        }
        now.is_empty()
    });
    cli.ok(&["exec", "steady", "nslookup", "-type=a", "steady"]);
    let gateway = cli.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "steady"]);
    cli.ok(&["exec", "steady", "ping", "-c", "1", "-W", "60", &gateway]);
}

/// Bridges of no network, and ends of cables that the container `steady` does not know of, or the other way round.
fn differences(host: &Host, cli: &Cli) -> String {
    let known = cli.ok(&["network", "ls", "--no-trunc", "--filter", "driver=bridge", "--format", "{{.ID}}"]);
    let links = host.links();
    let bridges = links.iter().filter_map(|link| link.strip_prefix("br-"));
    let strange: Vec<&str> = bridges.filter(|link| !known.lines().any(|id| id.starts_with(link))).collect();
    let joined = cli.ok(&["inspect", "-f", "{{len .NetworkSettings.Networks}}", "steady"]);
    let inside = cli.ok(&["exec", "steady", "sh", "-c", "ls -d /sys/class/net/eth* | wc -l"]);
    let ends = links.iter().filter(|link| link.starts_with("veth")).count().to_string();
    if strange.is_empty() && joined == inside.trim() && joined == ends {
        return String::new();
    }
    format!("nobody's bridges {strange:?}; {joined} networks, {} links inside, {ends} outside", inside.trim())
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
            assert!(begin.elapsed() < PATIENCE, "iperf3 does not serve");
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
                None => assert!(begin.elapsed() < PATIENCE, "{server}: {told}"),
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
