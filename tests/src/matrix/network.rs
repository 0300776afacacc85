//! The default bridge, published ports, and the other modes.

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
    let host: std::collections::BTreeSet<String> = std::fs::read_dir("/sys/class/net")
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
