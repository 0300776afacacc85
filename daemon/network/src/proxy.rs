//! Relays what reaches a published port's socket instead of being translated by the kernel: clients of
//! one family of a container that has only the other, and all of them while the rules are missing.
//!
//! One thread watches all sockets, however many ports are published, and carries UDP itself; a TCP connection has two
//! threads while it lasts.

mod udp;

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::lock::lock;
use udp::UdpRelay;

/// Connections relayed at once; the next ones are closed. Translated connections do not count.
const MAX_RELAYED: usize = 512;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const STOP: u64 = u64::MAX;

/// The relay; its thread starts with the first socket.
#[derive(Debug)]
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    watcher: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    epoll: Epoll,
    stop: EventFd,
    served: Mutex<Served>,
    relayed: AtomicUsize,
}

#[derive(Debug, Default)]
struct Served {
    next_token: u64,
    by_token: HashMap<u64, (TcpListener, SocketAddr)>,
    udp: UdpRelay,
}

/// Names a socket given to [`Proxy::serve`].
#[derive(Debug)]
pub(crate) struct Token(u64);

impl Proxy {
    pub(crate) fn new() -> Result<Self, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let stop = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        let shared = Arc::new(Shared { epoll, stop, served: Mutex::default(), relayed: AtomicUsize::new(0) });
        Ok(Self { shared, watcher: Mutex::new(None) })
    }

    /// Relays the listener's connections to `target` from now on.
    pub(crate) fn serve(&self, listener: TcpListener, target: SocketAddr) -> io::Result<Token> {
        let mut served = self.shared.served();
        let token = served.next_token;
        served.next_token += 1;
        self.shared.epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        served.by_token.insert(token, (listener, target));
        drop(served);
        self.begin()?;
        Ok(Token(token))
    }

    /// Relays the datagrams that come to the socket to `target` from now on, and answers back.
    pub(crate) fn serve_udp(&self, socket: UdpSocket, target: SocketAddr) -> io::Result<Token> {
        let mut served = self.shared.served();
        let token = served.next_token;
        served.next_token += 1;
        self.shared.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        served.udp.serve(token, socket, target);
        drop(served);
        self.begin()?;
        Ok(Token(token))
    }

    fn begin(&self) -> io::Result<()> {
        let mut watcher = lock(&self.watcher);
        if watcher.is_none() {
            let shared = Arc::clone(&self.shared);
            *watcher = Some(thread::Builder::new().name("berth-proxy".into()).spawn(move || watch(&shared))?);
        }
        Ok(())
    }

    /// Closes the socket; connections under way go on until one side ends them.
    pub(crate) fn forget(&self, token: &Token) {
        // Closing takes the socket out of the epoll set.
        let mut served = self.shared.served();
        served.by_token.remove(&token.0);
        served.udp.forget(token.0);
    }

    /// Closes all sockets and ends the watching thread.
    pub(crate) fn stop(&self) {
        {
            let mut served = self.shared.served();
            served.by_token.clear();
            served.udp = UdpRelay::default();
        }
        let watcher = lock(&self.watcher).take();
        if let Some(watcher) = watcher {
            if let Err(error) = self.shared.stop.write(1) {
                tracing::warn!(%error, "cannot stop the port relay");
                return;
            }
            if watcher.join().is_err() {
                tracing::warn!("the port relay panicked");
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn served(&self) -> MutexGuard<'_, Served> {
        lock(&self.served)
    }
}

fn watch(shared: &Arc<Shared>) {
    let mut events = [EpollEvent::empty(); 32];
    loop {
        let ready = match shared.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => continue,
            Err(errno) => {
                tracing::error!(%errno, "the port relay ends: published ports are unreachable over the family that their containers lack");
                return;
            }
        };
        for event in &events[..ready] {
            if event.data() == STOP {
                return;
            }
            let token = event.data();
            if shared.served().by_token.contains_key(&token) {
                accept(shared, token);
            } else {
                let Served { next_token, udp, .. } = &mut *shared.served();
                udp.ready(token, &shared.epoll, next_token);
            }
        }
    }
}

fn accept(shared: &Arc<Shared>, token: u64) {
    let served = shared.served();
    let Some((listener, target)) = served.by_token.get(&token) else { return };
    let target = *target;
    let accepted = listener.accept();
    drop(served);
    let client = match accepted {
        Ok((client, _)) => client,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
        Err(error) => {
            // Out of descriptors, most likely: the socket stays ready, so do not spin.
            tracing::warn!(%error, "cannot accept a connection to a published port");
            thread::sleep(Duration::from_millis(100));
            return;
        }
    };
    if shared.relayed.fetch_add(1, Ordering::Relaxed) >= MAX_RELAYED {
        shared.relayed.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let counted = Arc::clone(shared);
    let relay = move || {
        if let Err(error) = relay(client, target) {
            tracing::debug!(%target, %error, "relayed connection ended");
        }
        counted.relayed.fetch_sub(1, Ordering::Relaxed);
    };
    if let Err(error) = thread::Builder::new().name("berth-relay".into()).spawn(relay) {
        shared.relayed.fetch_sub(1, Ordering::Relaxed);
        tracing::warn!(%error, "cannot relay a connection to a published port");
    }
}

/// Carries bytes both ways; the end of one direction is passed on, the other goes on.
fn relay(client: TcpStream, target: SocketAddr) -> io::Result<()> {
    // Accepted sockets do not inherit O_NONBLOCK on Linux.
    let server = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_reader, server_writer) = (client.try_clone()?, server.try_clone()?);
    thread::scope(|scope| {
        let upward = scope.spawn(move || carry(client_reader, server_writer));
        let downward = carry(server, client);
        downward.and(upward.join().unwrap_or_else(|_| Err(io::Error::other("the relay thread panicked"))))
    })
}

fn carry(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    let copied = io::copy(&mut from, &mut to);
    // After an error neither side can be served; at the end of the stream only this direction is over.
    let (ended, how) = if copied.is_ok() { (&to, Shutdown::Write) } else { (&from, Shutdown::Both) };
    match ended.shutdown(how) {
        Err(e) if e.kind() != io::ErrorKind::NotConnected => Err(e),
        _ => copied.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn both_directions_and_half_close_work_over_ipv6() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        let echo = thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        });
        let listener = TcpListener::bind("[::1]:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Proxy::new().unwrap();
        let token = proxy.serve(listener, target).unwrap();

        let mut client = TcpStream::connect(address).unwrap();
        let sent = vec![7; 300_000];
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert_eq!(received, sent);
        echo.join().unwrap();

        proxy.forget(&token);
        assert!(TcpStream::connect(address).is_err());
        proxy.stop();
    }
}
