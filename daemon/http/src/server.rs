//! The server: listeners in, connections out, an orderly end.

use std::{io, sync::Arc, time::Duration};

use berth_buildkit::BuildKit;
use berth_engine::Engine;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{connection, context::Shared, handlers, takeover::Socket};

/// How long answers under way may take once the server is to end; streams end at once.
const GRACE: Duration = Duration::from_secs(5);

/// How long a client may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Rest after a failed accept(2): the usual cause is a want of descriptors, which passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a client that ends the daemon wants of its containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownMode {
    /// They go on under their shims.
    KeepContainers,
    /// They are stopped, and nothing of the daemon's stays on the host.
    StopContainers,
}

/// Where clients come from.
pub enum Listener {
    /// A unix socket.
    Unix(UnixListener),
    /// A TCP port.
    Tcp(TcpListener),
    /// A TCP port whose clients speak TLS.
    Tls(TcpListener, TlsAcceptor),
}

impl Listener {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix(listener) => {
                listener.accept().await.map(|(socket, _)| Accepted::Ready(Socket::Unix(socket)))
            }
            Self::Tcp(listener) => Ok(Accepted::Ready(Socket::Tcp(accept_tcp(listener).await?))),
            Self::Tls(listener, acceptor) => Ok(Accepted::Tls(accept_tcp(listener).await?, acceptor.clone())),
        }
    }
}

async fn accept_tcp(listener: &TcpListener) -> io::Result<TcpStream> {
    let (socket, _) = listener.accept().await?;
    socket.set_nodelay(true)?;
    keep_alive(&socket)?;
    Ok(socket)
}

/// Has the kernel ask whether the client is still there: one whose host has gone never says so, and its connection (of an
/// attach, of events) would stay for ever. The numbers are those of Go's listeners, which docker has.
fn keep_alive(socket: &TcpStream) -> io::Result<()> {
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    setsockopt(socket, sockopt::TcpKeepIdle, &15)?;
    setsockopt(socket, sockopt::TcpKeepInterval, &15)?;
    setsockopt(socket, sockopt::TcpKeepCount, &9)?;
    Ok(())
}

/// A connection, before the other side has said who it is.
enum Accepted {
    Ready(Socket),
    Tls(TcpStream, TlsAcceptor),
}

impl Accepted {
    /// The connection once it can be used; `None` for a client that does not prove who it is in time.
    async fn establish(self) -> Option<Socket> {
        let (stream, acceptor) = match self {
            Self::Ready(socket) => return Some(socket),
            Self::Tls(stream, acceptor) => (stream, acceptor),
        };
        let client = stream.peer_addr();
        match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Some(Socket::Tls(Box::new(stream))),
            Ok(Err(error)) => {
                tracing::warn!(?client, %error, "a TLS client was refused");
                None
            }
            Err(_) => {
                tracing::warn!(?client, "a TLS client has not finished its handshake");
                None
            }
        }
    }
}

/// Serves an engine.
pub struct Server {
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// A server of this engine, and where clients ask for its end.
    #[must_use]
    pub fn new(engine: Arc<Engine>) -> (Self, mpsc::Receiver<ShutdownMode>) {
        let (shutdown, asked) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let buildkit = BuildKit::new(Arc::clone(&engine));
        let shared = Arc::new(Shared { engine, buildkit, shutdown, stop: stop.clone() });
        (Self { shared, stop, tasks: TaskTracker::new() }, asked)
    }

    /// Begins to serve a listener; returns at once.
    pub fn listen(&self, listener: Listener) {
        let (shared, stop, tasks) = (Arc::clone(&self.shared), self.stop.clone(), self.tasks.clone());
        self.tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok(accepted) => {
                        let (shared, stop) = (Arc::clone(&shared), stop.clone());
                        tasks.spawn(async move {
                            let Some(socket) = accepted.establish().await else { return };
                            connection::serve(socket, stop, move |request, take_over| {
                                handlers::answer(Arc::clone(&shared), request, take_over)
                            })
                            .await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accepting a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
    }

    /// Accepts no more, lets answers under way end, then cuts the rest (streams) off.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            tracing::debug!(connections = self.tasks.len(), "connections still open at the end");
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;

    use super::*;

    #[tokio::test]
    async fn a_client_whose_host_has_gone_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, accept_tcp(&listener));
        let accepted = accepted.unwrap();
        assert!(getsockopt(&accepted, sockopt::KeepAlive).unwrap());
        assert_eq!(getsockopt(&accepted, sockopt::TcpKeepIdle).unwrap(), 15);
        drop(client);
    }
}
