//! The default bridge, published ports, and the other modes.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use super::Fixture;

const SERVER: &str = "mkdir -p /www && echo page > /www/index.html && exec httpd -f -p 80 -h /www";

fn fetch(port: &str) -> String {
    let mut answer = String::new();
    let stream = TcpStream::connect(format!("127.0.0.1:{port}"));
    if let Ok(mut stream) = stream {
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("send a request");
        stream.read_to_string(&mut answer).ok();
    }
    answer
}

/// A published port answers on 127.0.0.1 and only the address it was given.
pub fn published_port(f: &Fixture) {
    f.cli.ok(&["run", "-d", "--name", "server", "-p", "127.0.0.1::80", "busybox", "sh", "-c", SERVER]);
    let address = f.cli.ok(&["port", "server", "80/tcp"]);
    let port = address.strip_prefix("127.0.0.1:").unwrap_or_else(|| panic!("{address}"));
    f.cli.eventually("the page", |_| fetch(port).ends_with("page\n"));
    let conflict = format!("127.0.0.1:{port}:80");
    f.cli
        .run(&["run", "--rm", "-p", &conflict, "busybox", "true"])
        .expect_code(125)
        .expect_text("port is already allocated");
    f.cli.ok(&["rm", "-f", "server"]);
    assert_eq!(fetch(port), "", "the port is closed with its container");
}

/// Two containers reach each other by address.
pub fn between_containers(f: &Fixture) {
    f.cli.ok(&["run", "-d", "--name", "server", "busybox", "sh", "-c", SERVER]);
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = f.cli.ok(&["inspect", "--format", format, "server"]);
    let url = format!("http://{address}/");
    f.cli.eventually("the page from the other container", |cli| {
        cli.run(&["run", "--rm", "busybox", "wget", "-qO-", &url]).stdout == "page\n"
    });
}

/// `none` has loopback only, `host` is the host's, `container:` is another's.
pub fn modes(f: &Fixture) {
    let links = ["busybox", "sh", "-c", "ls /sys/class/net | sort | xargs"];
    let with = |mode: &str| f.cli.ok(&[&["run", "--rm", "--network", mode][..], &links].concat());
    assert_eq!(with("none"), "lo");
    let host: BTreeSet<String> = std::fs::read_dir("/sys/class/net")
        .expect("links")
        .map(|e| e.expect("a link").file_name().to_string_lossy().into_owned())
        .filter(|name| name == "lo" || name == "eth0")
        .collect();
    let seen = with("host");
    assert!(host.iter().all(|name| seen.split(' ').any(|s| s == name)), "{seen}");
    f.cli.ok(&["run", "-d", "--name", "base", "-h", "base-host", "busybox", "sleep", "100"]);
    let address = ["ip", "-4", "-o", "addr", "show", "eth0"];
    let joined =
        f.cli.ok(&[&["run", "--rm", "--network", "container:base", "busybox"][..], &address].concat());
    assert_eq!(joined, f.cli.ok(&[&["exec", "base"][..], &address].concat()));
}

/// A network of one's own: made, used, guarded, removed.
pub fn user_network(f: &Fixture) {
    f.cli.ok(&["network", "create", "backend"]);
    f.cli.ok(&["run", "-d", "--name", "member", "--network", "backend", "busybox", "sleep", "100"]);
    f.cli.run(&["network", "rm", "backend"]).expect_code(1).expect_text("active endpoints");
    let networks = f.cli.ok(&[
        "inspect",
        "--format",
        "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}",
        "member",
    ]);
    assert_eq!(networks, "backend");
    f.cli.ok(&["rm", "-f", "member"]);
    f.cli.ok(&["network", "rm", "backend"]);
    assert_eq!(f.cli.ok(&["network", "ls", "--format", "{{.Name}}", "--filter", "name=backend"]), "");
}

/// The container knows its own name and address, and what it was told of others.
pub fn hosts_and_resolver(f: &Fixture) {
    let run =
        ["run", "--rm", "-h", "me", "--add-host", "other:10.1.2.3", "--dns", "192.0.2.1", "busybox", "cat"];
    let files = f.cli.ok(&[&run[..], &["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]].concat());
    assert!(
        files.contains("10.1.2.3\tother") && files.contains("\tme\n") && files.contains("\nme\n"),
        "{files}"
    );
    assert!(files.contains("nameserver 192.0.2.1"), "{files}");
}

/// Containers of a user-defined network find each other by name, alias and id, and back.
pub fn names(f: &Fixture) {
    f.cli.ok(&["network", "create", "named"]);
    let options = ["--network", "named", "--network-alias", "www"];
    let id =
        f.cli.ok(&[&["run", "-d", "--name", "server"][..], &options, &["busybox", "sleep", "100"]].concat());
    f.cli.ok(&["run", "-d", "--name", "client", "--network", "named", "busybox", "sleep", "100"]);
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = f.cli.ok(&["inspect", "--format", format, "server"]);
    for name in ["server", "SERVER", "www", "server.named", &id[..12]] {
        let answer = f.cli.ok(&["exec", "client", "nslookup", "-type=a", name]);
        assert!(answer.contains(&address), "{name}: {answer}");
    }
    let answer = f.cli.ok(&["exec", "client", "nslookup", &address]);
    assert!(answer.contains("server.named"), "{answer}");
    f.cli.run(&["exec", "client", "nslookup", "-type=a", "nobody.named"]).expect_code(1);
    let conf = f.cli.ok(&["exec", "client", "cat", "/etc/resolv.conf"]);
    assert!(conf.contains("nameserver 127.0.0.11") && conf.contains("ndots:0"), "{conf}");
    f.cli.ok(&["rename", "server", "other"]);
    let answer = f.cli.ok(&["exec", "client", "nslookup", "-type=a", "other"]);
    assert!(answer.contains(&address), "{answer}");
    f.cli.ok(&["rm", "-f", "other"]);
    f.cli.run(&["exec", "client", "nslookup", "-type=a", "www"]).expect_code(1);
    // A container may have a name server of its own on every address.
    let own = "httpd -p 0.0.0.0:53 && netstat -lnt";
    let bound = f.cli.ok(&["run", "--rm", "--network", "named", "busybox", "sh", "-c", own]);
    assert!(bound.contains("0.0.0.0:53 "), "{bound}");
    f.cli.ok(&["rm", "-f", "client"]);
    f.cli.ok(&["network", "rm", "named"]);
}

/// Connected and disconnected while it runs: addresses, names and the way out follow.
pub fn connect_and_disconnect(f: &Fixture) {
    f.cli.ok(&["network", "create", "first"]);
    f.cli.ok(&["network", "create", "--subnet", "10.213.0.0/24", "second"]);
    f.cli.ok(&["run", "-d", "--name", "moves", "--network", "first", "busybox", "sleep", "100"]);
    f.cli.ok(&["run", "-d", "--name", "waits", "--network", "second", "busybox", "sleep", "100"]);
    f.cli.run(&["exec", "moves", "ping", "-c1", "-W1", "waits"]).expect_code(1);
    let wish = ["--ip", "10.213.0.77", "--alias", "guest", "--gw-priority", "5"];
    f.cli.ok(&[&["network", "connect"][..], &wish, &["second", "moves"]].concat());
    f.cli.ok(&["exec", "moves", "ping", "-c1", "-W5", "waits"]);
    assert!(f.cli.ok(&["exec", "waits", "ping", "-c1", "-W5", "guest"]).contains("10.213.0.77"));
    assert!(f.cli.ok(&["exec", "moves", "ip", "route"]).contains("default via 10.213.0.1"));
    f.cli.run(&["network", "connect", "second", "moves"]).expect_code(1).expect_text("already exists");
    f.cli.ok(&["network", "disconnect", "second", "moves"]);
    f.cli.run(&["exec", "waits", "ping", "-c1", "-W1", "guest"]).expect_code(1);
    let routes = f.cli.ok(&["exec", "moves", "ip", "route"]);
    assert!(routes.contains("default via") && !routes.contains("10.213.0"), "{routes}");
    f.cli.run(&["network", "disconnect", "second", "moves"]).expect_code(1).expect_text("is not connected");
    f.cli.ok(&["rm", "-f", "moves", "waits"]);
    f.cli.ok(&["network", "rm", "first", "second"]);
}

/// Every flag of `network create` is seen in `inspect`, and every filter of `ls` works.
pub fn create_flags(f: &Fixture) {
    let create = ["network", "create", "--subnet", "10.214.0.0/16", "--ip-range", "10.214.5.0/24"];
    let more = ["--gateway", "10.214.5.254", "--aux-address", "printer=10.214.5.7", "--ipv6"];
    let rest = ["--subnet", "fd14::/64", "--gateway", "fd14::99", "--label", "tier=back", "--internal"];
    let last = ["--opt", "com.docker.network.driver.mtu=1400", "--attachable", "flags"];
    f.cli.ok(&[&create[..], &more, &rest, &last].concat());
    let seen = |template: &str| f.cli.ok(&["network", "inspect", "--format", template, "flags"]);
    assert_eq!(
        seen("{{.Driver}} {{.Scope}} {{.Internal}} {{.Attachable}} {{.EnableIPv6}}"),
        "bridge local true true true"
    );
    // Docker's command line sends the subnets of one request in any order.
    let pools = seen("{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}};{{end}}");
    let sorted: BTreeSet<&str> = pools.split_terminator(';').collect();
    assert_eq!(sorted, BTreeSet::from(["10.214.0.0/16 10.214.5.254", "fd14::/64 fd14::99"]));
    assert_eq!(
        seen("{{index .Labels \"tier\"}} {{index .Options \"com.docker.network.driver.mtu\"}}"),
        "back 1400"
    );
    let run = ["run", "--rm", "--network", "flags", "busybox", "ip", "address", "show", "eth0"];
    let shown = f.cli.ok(&run);
    assert!(shown.contains("mtu 1400") && shown.contains("10.214.5.") && shown.contains("fd14::"), "{shown}");
    let ls =
        |filter: &str| f.cli.ok(&["network", "ls", "-q", "--no-trunc", "--filter", filter]).lines().count();
    for filter in [
        "label=tier=back",
        "label=tier",
        "name=fla",
        "driver=bridge",
        "type=custom",
        "dangling=true",
        "scope=local",
    ] {
        assert!(ls(filter) >= 1, "{filter}");
    }
    assert_eq!((ls("label=tier=front"), ls("driver=macvlan"), ls("name=nosuch")), (0, 0, 0));
    for (arguments, words) in [
        (&["--subnet", "10.214.9.0/24", "x"][..], "Pool overlaps"),
        (&["flags"], "already exists"),
        (&["--driver", "nosuch", "x"], "nosuch"),
        (&["--driver", "macvlan", "x"], "parent"),
        (&["--subnet", "10.215.0.0/24", "--gateway", "10.216.0.1", "x"], "no matching subnet"),
        (&["--opt", "com.docker.network.driver.mtu=many", "x"], "mtu"),
        (&["bridge"], "pre"),
    ] {
        f.cli.run(&[&["network", "create"][..], arguments].concat()).expect_code(1).expect_text(words);
    }
    f.cli.run(&["network", "rm", "nosuch"]).expect_code(1).expect_text("not found");
    f.cli.ok(&["network", "rm", "--force", "nosuch"]);
    f.cli.run(&["network", "rm", "bridge"]).expect_code(1).expect_text("pre-defined");
    assert!(f.cli.ok(&["network", "prune", "-f", "--filter", "label!=tier"]).is_empty());
    assert!(f.cli.ok(&["network", "prune", "-f", "--filter", "label=tier"]).contains("flags"));
}

/// Addresses of both families, by name as well; static ones, and the hardware's.
pub fn dual_stack(f: &Fixture) {
    f.cli.ok(&["network", "create", "--ipv6", "--subnet", "10.217.0.0/24", "--subnet", "fd17::/64", "both"]);
    let wish = ["--ip", "10.217.0.9", "--ip6", "fd17::9", "--mac-address", "02:00:00:00:17:09"];
    let run = ["run", "-d", "--name", "fixed", "--network", "both"];
    f.cli.ok(&[&run[..], &wish, &["busybox", "sleep", "100"]].concat());
    let template = "{{with index .NetworkSettings.Networks \"both\"}}{{.IPAddress}} {{.GlobalIPv6Address}}/{{.GlobalIPv6PrefixLen}} {{.MacAddress}}{{end}}";
    let shown = f.cli.ok(&["inspect", "--format", template, "fixed"]);
    assert_eq!(shown, "10.217.0.9 fd17::9/64 02:00:00:00:17:09");
    let ping = ["run", "--rm", "--network", "both", "busybox", "ping", "-6", "-c1", "-W5", "fixed"];
    assert!(f.cli.ok(&ping).contains("fd17::9"));
    let clash = ["run", "--rm", "--network", "both", "--ip6", "fd17::9", "busybox", "true"];
    f.cli.run(&clash).expect_code(125).expect_text("Address already in use");
    f.cli.ok(&["rm", "-f", "fixed"]);
    f.cli.ok(&["network", "rm", "both"]);
}

/// Ranges, protocols, `-P`, and the ports of a list.
pub fn port_ranges(f: &Fixture) {
    let publish = [
        "-p",
        "127.0.0.1:23100-23104:7000-7004",
        "-p",
        "127.0.0.1:23110:53/udp",
        "-p",
        "127.0.0.1:23110:53/sctp",
    ];
    f.cli.ok(&[&["run", "-d", "--name", "many"][..], &publish, &["busybox", "sleep", "100"]].concat());
    let ports = f.cli.ok(&["port", "many"]);
    assert_eq!(ports.lines().count(), 7, "{ports}");
    for line in ["7003/tcp -> 127.0.0.1:23103", "53/udp -> 127.0.0.1:23110", "53/sctp -> 127.0.0.1:23110"] {
        assert!(ports.contains(line), "{line}: {ports}");
    }
    let draws = ["run", "-d", "--name", "draws", "-p", "127.0.0.1:23100-23106:80", "busybox", "sleep", "100"];
    f.cli.ok(&draws);
    assert_eq!(f.cli.ok(&["port", "draws", "80"]), "127.0.0.1:23105");
    f.cli.ok(&["run", "-d", "--name", "all", "-P", "--expose", "81-82", "busybox", "sleep", "100"]);
    assert!(f.cli.ok(&["port", "all"]).contains("82/tcp -> 0.0.0.0:"));
    f.cli.ok(&["rm", "-f", "many", "draws", "all"]);
}

/// Networks do not reach each other, internal ones nothing, and containers without `icc` not even each other.
pub fn isolation(f: &Fixture) {
    f.cli.ok(&["network", "create", "left"]);
    f.cli.ok(&["network", "create", "--internal", "inner"]);
    f.cli.ok(&["network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "mute"]);
    for network in ["left", "inner", "mute"] {
        f.cli.ok(&["run", "-d", "--name", network, "--network", network, "busybox", "sleep", "100"]);
    }
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let ping = |network: &str, target: &str| {
        let address = f.cli.ok(&["inspect", "--format", format, target]);
        f.cli.run(&["run", "--rm", "--network", network, "busybox", "ping", "-c1", "-W1", &address]).code
    };
    assert_eq!((ping("left", "left"), ping("inner", "inner")), (0, 0));
    assert_eq!((ping("left", "inner"), ping("inner", "left"), ping("mute", "mute")), (1, 1, 1));
    let routes = f.cli.ok(&["exec", "inner", "ip", "route"]);
    assert!(!routes.contains("default"), "{routes}");
    f.cli.ok(&["rm", "-f", "left", "inner", "mute"]);
    f.cli.ok(&["network", "rm", "left", "inner", "mute"]);
}

/// An address of one's own needs a subnet of one's own: the engine's choice may be another one tomorrow.
pub fn fixed_addresses(f: &Fixture) {
    let words = "user specified IP address is supported only when connecting to networks with user configured subnets";
    f.cli.ok(&["network", "create", "chosen"]);
    let subnet = f.cli.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "chosen"]);
    let address = format!("{}.77", subnet.rsplit_once('.').expect("a subnet").0);
    f.cli
        .run(&["run", "--rm", "--network", "chosen", "--ip", &address, "busybox", "true"])
        .expect_code(125)
        .expect_text(words);
    f.cli.ok(&["run", "-d", "--name", "guest", "busybox", "sleep", "100"]);
    f.cli.run(&["network", "connect", "--ip", &address, "chosen", "guest"]).expect_code(1).expect_text(words);
    f.cli.ok(&["network", "connect", "chosen", "guest"]);
    f.cli.ok(&["network", "create", "--subnet", "10.219.0.0/24", "asked"]);
    f.cli.ok(&["network", "connect", "--ip", "10.219.0.9", "asked", "guest"]);
}
