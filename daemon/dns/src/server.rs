//! The process: a control socket, and the sockets of every container it serves.
//!
//! One thread and no state on disk: whatever dies, the daemon tells everything anew.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use caps::{CapSet, Capability};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use crate::cache::Cache;
use crate::control;
use crate::message::{Asked, Query, Verdict, judge, parse};
use crate::protocol::View;
use crate::table::{Table, reverse};
use crate::upstream::{HostServers, Namespaces, Transport, Way, read_framed, write_framed};

/// Queries of one container that wait for servers at once.
const WAITING: usize = 256;
/// TCP connections of one container at once.
const CONNECTIONS: usize = 64;
/// How long a TCP connection may be silent (RFC 7766 6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// The largest query over UDP: a name, and what EDNS adds to it.
const QUERY: usize = 4096;

/// The process could not begin.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}: {source}")]
pub struct ServeError {
    operation: &'static str,
    source: io::Error,
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError { operation, source }
}

/// What the process knows.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) table: RefCell<Table>,
    pub(crate) served: RefCell<HashMap<String, Rc<Served>>>,
    namespaces: Namespaces,
    host: HostServers,
}

/// One container that is served.
#[derive(Debug)]
pub(crate) struct Served {
    view: RefCell<Rc<View>>,
    netns: OwnedFd,
    cache: RefCell<Cache>,
    preferred: Cell<Option<(SocketAddr, Instant)>>,
    waiting: Cell<usize>,
    connections: Cell<usize>,
    tasks: RefCell<Vec<JoinHandle<()>>>,
}

impl Served {
    /// Shows the container something else from now on.
    pub(crate) fn look_at(&self, view: View) {
        *self.view.borrow_mut() = Rc::new(view);
        self.cache.borrow_mut().clear();
        self.preferred.set(None);
    }

    fn keep(&self, task: JoinHandle<()>) {
        self.tasks.borrow_mut().push(task);
    }

    /// Ends with the tasks that listen; those that answer end by themselves.
    pub(crate) fn end(&self) {
        for task in self.tasks.borrow_mut().drain(..) {
            task.abort();
        }
    }
}

/// Runs the process on a listening control socket until it is told to quit, or nobody is left to serve and to
/// listen to.
///
/// The calling process must have one thread: sockets are made by moving it between network namespaces. It must own no
/// descriptor but the standard streams and `control`: all others, which it inherited from a daemon that inherited them, are
/// closed, for it outlives whoever waits for their end.
///
/// # Errors
/// When the runtime or the first sockets could not be made.
pub fn serve(control: OwnedFd) -> Result<(), ServeError> {
    berth_sys::process::close_others(3, &[control.as_fd()])
        .map_err(|errno| failed("close inherited descriptors")(errno.into()))?;
    confine().map_err(failed("give up what is not needed"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("start the runtime"))?;
    let namespaces = Namespaces::open().map_err(failed("open the host's network namespace"))?;
    let shared = Rc::new(Shared {
        table: RefCell::default(),
        served: RefCell::default(),
        namespaces,
        host: HostServers::default(),
    });
    let local = LocalSet::new();
    local.block_on(&runtime, control::run(control, shared)).map_err(failed("listen to the daemon"))
}

/// Entering namespaces needs CAP_SYS_ADMIN; nothing else needs anything.
fn confine() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    nix::unistd::chdir("/")?;
    nix::sys::prctl::set_no_new_privs()?;
    let needed = [Capability::CAP_SYS_ADMIN].into_iter().collect();
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &needed).map_err(io::Error::other)?;
    }
    caps::clear(None, CapSet::Inheritable).map_err(io::Error::other)
}

impl Shared {
    /// Serves a container at these sockets.
    pub(crate) fn serve(
        self: &Rc<Self>,
        view: View,
        udp: OwnedFd,
        tcp: OwnedFd,
        netns: OwnedFd,
    ) -> io::Result<()> {
        let udp = StdUdpSocket::from(udp);
        udp.set_nonblocking(true)?;
        let udp = Rc::new(UdpSocket::from_std(udp)?);
        let tcp = StdTcpListener::from(tcp);
        tcp.set_nonblocking(true)?;
        let tcp = TcpListener::from_std(tcp)?;
        let container = view.container.clone();
        let served = Rc::new(Served {
            view: RefCell::new(Rc::new(view)),
            netns,
            cache: RefCell::default(),
            preferred: Cell::new(None),
            waiting: Cell::new(0),
            connections: Cell::new(0),
            tasks: RefCell::default(),
        });
        served.keep(spawn_local(listen_udp(Rc::clone(self), Rc::downgrade(&served), udp)));
        served.keep(spawn_local(listen_tcp(Rc::clone(self), Rc::downgrade(&served), tcp)));
        if let Some(before) = self.served.borrow_mut().insert(container, served) {
            before.end();
        }
        Ok(())
    }

    /// Ends a container's service when its first process ends.
    pub(crate) fn watch(self: &Rc<Self>, container: &str, pidfd: OwnedFd) -> io::Result<()> {
        let Some(served) = self.served.borrow().get(container).cloned() else { return Ok(()) };
        #[expect(deprecated, reason = "its successor is unsafe; an owned descriptor is what it asks for")]
        let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
        let (shared, container) = (Rc::clone(self), container.to_owned());
        let this = Rc::downgrade(&served);
        served.keep(spawn_local(async move {
            if pidfd.readable().await.is_err() {
                return;
            }
            let mut all = shared.served.borrow_mut();
            // By now the container may have been started again, with other sockets.
            if all.get(&container).is_some_and(|now| Rc::as_ptr(now) == this.as_ptr()) {
                let ended = all.remove(&container);
                drop(all);
                if let Some(ended) = ended {
                    ended.end();
                }
            }
        }));
        Ok(())
    }

    pub(crate) fn forget(&self, container: &str) {
        if let Some(served) = self.served.borrow_mut().remove(container) {
            served.end();
        }
    }

    /// What the networks say, if they say anything.
    fn local(&self, view: &View, query: &Query<'_>) -> Option<Vec<u8>> {
        let table = self.table.borrow();
        if let Some(mut addresses) = table.addresses(view, &query.name) {
            // Everybody is the first once in a while.
            let start = usize::from(query.id()) % addresses.len().max(1);
            addresses.rotate_left(start);
            return Some(query.addresses(&addresses));
        }
        let name = table.name(view, reverse(&query.name)?)?;
        Some(query.pointer(&name))
    }

    /// The answer from outside.
    async fn remote(
        &self,
        served: &Served,
        view: &View,
        query: &Query<'_>,
        packet: &[u8],
        transport: Transport,
    ) -> Vec<u8> {
        if view.upstream.is_empty() {
            return query.nothing();
        }
        let key = query.cache_key();
        if let Some(mut known) = served.cache.borrow().get(&key, Instant::now()) {
            query.adopt(&mut known);
            return known;
        }
        if served.waiting.get() >= WAITING {
            return query.failure();
        }
        served.waiting.set(served.waiting.get() + 1);
        let way = Way {
            upstream: &view.upstream,
            netns: &served.netns,
            namespaces: &self.namespaces,
            host: &self.host,
            preferred: &served.preferred,
        };
        let mut answer = way.ask(query, packet, transport).await;
        if answer.is_none() && transport == Transport::Tcp {
            // Some servers speak UDP only.
            answer = way.ask(query, packet, Transport::Udp).await;
        }
        served.waiting.set(served.waiting.get() - 1);
        let Some(answer) = answer else { return query.failure() };
        if let Verdict::Good { ttl } = judge(&answer) {
            served.cache.borrow_mut().put(key, &answer, ttl, Instant::now());
        }
        answer
    }
}

async fn listen_udp(shared: Rc<Shared>, served: std::rc::Weak<Served>, socket: Rc<UdpSocket>) {
    let mut buffer = vec![0; QUERY];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "receiving a query");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(served) = served.upgrade() else { return };
        let view = Rc::clone(&served.view.borrow());
        let answer = match parse(&buffer[..length]) {
            Asked::Nonsense => continue,
            Asked::Refused(answer) => answer,
            Asked::Query(query) => match shared.local(&view, &query) {
                Some(answer) => query.fit_udp(answer),
                None => {
                    let packet = buffer[..length].to_vec();
                    let (shared, socket) = (Rc::clone(&shared), Rc::clone(&socket));
                    spawn_local(async move {
                        let Asked::Query(query) = parse(&packet) else { return };
                        let answer = shared.remote(&served, &view, &query, &packet, Transport::Udp).await;
                        reply(&socket, &query.fit_udp(answer), client).await;
                    });
                    continue;
                }
            },
        };
        reply(&socket, &answer, client).await;
    }
}

async fn reply(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(answer, client).await {
        tracing::debug!(%client, %error, "answering a query");
    }
}

async fn listen_tcp(shared: Rc<Shared>, served: std::rc::Weak<Served>, listener: TcpListener) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(served) = served.upgrade() else { return };
        if served.connections.get() >= CONNECTIONS {
            continue;
        }
        served.connections.set(served.connections.get() + 1);
        let shared = Rc::clone(&shared);
        spawn_local(async move {
            if let Err(error) = converse(&shared, &served, stream).await {
                tracing::debug!(%error, "a connection ended");
            }
            served.connections.set(served.connections.get() - 1);
        });
    }
}

async fn converse(shared: &Rc<Shared>, served: &Served, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let packet = match timeout(IDLE, read_framed(&mut stream)).await? {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        };
        let view = Rc::clone(&served.view.borrow());
        let answer = match parse(&packet) {
            Asked::Nonsense => return Ok(()),
            Asked::Refused(answer) => answer,
            Asked::Query(query) => match shared.local(&view, &query) {
                Some(answer) => answer,
                None => shared.remote(served, &view, &query, &packet, Transport::Tcp).await,
            },
        };
        timeout(IDLE, write_framed(&mut stream, &answer)).await??;
    }
}
