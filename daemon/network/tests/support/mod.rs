//! A host of one's own: every test works in a fresh network namespace, so that this machine's links, rules and
//! settings are never touched. Needs root, `ip` and `nft` (as independent witnesses).

#![allow(dead_code, reason = "every test binary uses its part")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use berth_network::{EndpointRequest, NetworkConfig, NetworkController, PortRequest, Protocol};
use nix::sched::{CloneFlags, setns, unshare};

/// Addresses of the simulated world: the host's uplink and a machine beyond it.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub(crate) const HOST_V6: &str = "2001:db8::1";

/// A fresh host namespace with an uplink `eth0` to an outside namespace.
pub(crate) struct World {
    pub(crate) outside: OwnedFd,
    /// The host's own namespace, for work that began elsewhere.
    pub(crate) host: OwnedFd,
    pub(crate) state: tempfile::TempDir,
}

fn own_netns() -> OwnedFd {
    File::open("/proc/thread-self/ns/net").unwrap().into()
}

pub(crate) fn new_netns() -> OwnedFd {
    thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link set lo up");
        own_netns()
    })
    .join()
    .unwrap()
}

/// Runs a command line of ip(8) in the namespace of the calling thread.
pub(crate) fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

pub(crate) fn nft(arguments: &str) -> String {
    run("nft", arguments)
}

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Runs `work` on a thread inside the namespace.
pub(crate) fn inside<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            })
            .join()
            .unwrap()
    })
}

/// Runs a test in a world of its own.
pub(crate) fn world(test: impl FnOnce(&World)) {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
    ip("link set lo up");
    let outside = new_netns();
    let host = nix::unistd::gettid();
    // This thread waits inside inside(), so its id names the host's namespace meanwhile.
    inside(outside.as_fd(), || {
        ip(&format!("link add eth0 type veth peer name up0 netns {host}"));
        ip("link set eth0 up");
        ip(&format!("address add {OUTSIDE}/24 dev eth0"));
        ip("address add 2001:db8::2/64 dev eth0 nodad");
    });
    ip("link set up0 name eth0");
    ip("link set eth0 up");
    ip(&format!("address add {HOST}/24 dev eth0"));
    ip(&format!("address add {HOST_V6}/64 dev eth0 nodad"));
    let world = World { outside, host: own_netns(), state: tempfile::tempdir().unwrap() };
    test(&world);
}

impl World {
    pub(crate) fn controller(&self, instance: &str) -> NetworkController {
        NetworkController::open(self.config(instance)).unwrap()
    }

    pub(crate) fn config(&self, instance: &str) -> NetworkConfig {
        NetworkConfig {
            state_dir: self.state.path().join(instance),
            instance: instance.into(),
            default_bridge: None,
            spare_sandboxes: 1,
        }
    }
}

pub(crate) fn request(container: &str) -> EndpointRequest {
    EndpointRequest {
        container_id: container.into(),
        container_name: format!("name-{container}"),
        ..Default::default()
    }
}

pub(crate) fn port(container_port: u16, host_ip: Option<&str>, host_port: u16) -> PortRequest {
    PortRequest {
        container_port,
        protocol: Protocol::Tcp,
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        host_port: Some(host_port..=host_port),
    }
}

/// A server in a namespace that answers every connection with the address it sees, until dropped.
pub(crate) struct Server {
    stop: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(netns: BorrowedFd<'_>, port: u16) -> Self {
        Self::start_on(netns, "0.0.0.0", port)
    }

    pub(crate) fn start_on(netns: BorrowedFd<'_>, address: &'static str, port: u16) -> Self {
        let (sender, receiver) = mpsc::channel();
        let netns = netns.try_clone_to_owned().unwrap();
        let thread = thread::spawn(move || {
            setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
            let listener = TcpListener::bind((address, port)).unwrap();
            sender.send(TcpStream::connect(("127.0.0.1", port)).unwrap()).unwrap();
            // The stop connection is the first in the queue.
            let (stopper, _) = listener.accept().unwrap();
            stopper.set_nonblocking(true).unwrap();
            listener.set_nonblocking(true).unwrap();
            loop {
                match listener.accept() {
                    Ok((mut stream, from)) => {
                        stream.write_all(from.ip().to_canonical().to_string().as_bytes()).ok();
                    }
                    Err(_) => thread::sleep(Duration::from_millis(2)),
                }
                if matches!((&stopper).read(&mut [0]), Ok(0)) {
                    return;
                }
            }
        });
        Self { stop: receiver.recv().unwrap(), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.shutdown(std::net::Shutdown::Both).ok();
        self.thread.take().unwrap().join().ok();
    }
}

/// For an answer. Where none may come, each question costs so much.
const PATIENCE: Duration = Duration::from_secs(3);

/// Connects from the calling thread's namespace; the answer is the address that the server sees.
pub(crate) fn ask(address: impl Into<IpAddr>, port: u16) -> io::Result<IpAddr> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address.into(), port), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    text.parse().map_err(|_| io::Error::other(format!("no address: {text:?}")))
}

/// Sends a datagram and waits for the echo of [`udp_echo`].
pub(crate) fn ask_udp(address: Ipv4Addr, port: u16) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect((address, port))?;
    socket.send(b"who am I?")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Answers `count` datagrams in a namespace with the sender's address.
pub(crate) fn udp_echo(netns: BorrowedFd<'_>, port: u16, count: usize) -> JoinHandle<()> {
    let (sender, receiver) = mpsc::channel();
    let netns = netns.try_clone_to_owned().unwrap();
    let thread = thread::spawn(move || {
        setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
        let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
        sender.send(()).unwrap();
        for _ in 0..count {
            let (_, from) = socket.recv_from(&mut [0; 64]).unwrap();
            socket.send_to(from.ip().to_string().as_bytes(), from).unwrap();
        }
    });
    receiver.recv().unwrap();
    thread
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, test: impl Fn() -> bool) {
    let begin = Instant::now();
    while !test() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Link names in the calling thread's namespace.
pub(crate) fn links() -> Vec<String> {
    let text = ip("-o link");
    let name = |line: &str| line.split(": ").nth(1).map(|n| n.split('@').next().unwrap_or(n).to_owned());
    text.lines().filter_map(name).collect()
}
