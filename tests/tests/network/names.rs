//! Names: under load, of the outside, of one's own project, and without the process that answers them.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use berth_tests::PATIENCE;
use berth_tests::cli::{Cli, Frontend};
use berth_tests::host::{Host, within};

use super::{address_of, on, pid_of};

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
    let expected: Ipv4Addr = address.parse().expect("an address");
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
                    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
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

/// A name server of the outside, in the network namespace of a container; it answers until the test ends.
struct Outside {
    silent: Arc<AtomicBool>,
}

/// What it says of every name.
const ANSWER: [u8; 4] = [192, 0, 2, 9];

impl Outside {
    fn start(pid: u32) -> Self {
        let udp = within(pid, || UdpSocket::bind("[::]:53").expect("UDP port 53"));
        let tcp = within(pid, || TcpListener::bind("[::]:53").expect("TCP port 53"));
        let silent = Arc::new(AtomicBool::new(false));
        let quiet = Arc::clone(&silent);
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, client)) = udp.recv_from(&mut buffer) {
                if quiet.load(Ordering::SeqCst) {
                    continue;
                }
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
        Self { silent }
    }

    /// From now on it answers nothing over UDP, or again.
    fn keep_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }
}

fn framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("a length");
    let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut packet).expect("a message");
    packet
}

/// An answer with so many addresses, good for an hour.
fn told(query: &[u8], count: usize, truncated: bool) -> Vec<u8> {
    let question = query.iter().skip(12).position(|byte| *byte == 0).expect("a name") + 12 + 5;
    let mut packet = query[..question].to_vec();
    packet[2..4].copy_from_slice(&[0x81 | if truncated { 2 } else { 0 }, 0x80]);
    packet[4..12].copy_from_slice(&[0, 1, 0, u8::try_from(count).expect("a byte"), 0, 0, 0, 0]);
    for _ in 0..count {
        packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4]);
        packet.extend(ANSWER);
    }
    packet
}

/// Asks 127.0.0.11 for an address, as a stub resolver does.
fn ask(pid: u32, name: &str) -> Vec<u8> {
    within(pid, || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        socket.connect("127.0.0.11:53").expect("connect");
        socket.send(&query(7, name)).expect("send");
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).expect("an answer");
        buffer[..length].to_vec()
    })
}

/// Whether a name is found on the outside, sooner or later: servers are given up on a machine that is too slow for them.
#[track_caller]
fn found(cli: &Cli, pid: u32, name: &str) {
    cli.eventually(&format!("{name} is found"), |_| ask(pid, name).ends_with(&ANSWER));
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
    found(&cli, client, "www.example.org");
    found(&cli, client, "other.example.org");
    // What is known is not asked again.
    outside.keep_silent(true);
    assert!(ask(client, "WWW.example.org").ends_with(&ANSWER), "what is known was asked again");
    assert!(!ask(client, "third.example.org").ends_with(&ANSWER), "nobody says where that is");
    outside.keep_silent(false);

    cli.eventually("the client is told to come back over TCP", |_| {
        ask(client, "large.example.org")[2] & 2 == 2
    });
    let large = || {
        let mut stream = TcpStream::connect("127.0.0.11:53").expect("connect over TCP");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let packet = query(7, "large.example.org");
        let length = u16::try_from(packet.len()).expect("short");
        stream.write_all(&[&length.to_be_bytes()[..], &packet].concat()).expect("send");
        framed(&mut stream)
    };
    cli.eventually("a large answer comes over TCP", |_| {
        let answer = within(client, large);
        answer.len() > 3000 && answer.ends_with(&ANSWER)
    });
    // What came over TCP is known now, and too large for this client's datagrams all the same.
    assert_eq!(ask(client, "large.example.org")[2] & 2, 2);

    let refused = ask(pid_of(&cli, "inside"), "fourth.example.org");
    assert_eq!(refused[3] & 15, 3, "an internal network has no such name: {refused:?}");
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
    let _outside = Outside::start(pid_of(&cli, "outside"));
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
    found(&cli, pid_of(&cli, "client"), "www.example.org");
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
        Ipv4Addr::from(*answer.last_chunk::<4>().expect("an address")).to_string()
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
