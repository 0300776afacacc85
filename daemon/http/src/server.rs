//! The server: listeners in, connections out, an orderly end.

use std::{io, sync::Arc, time::Duration};

use berth_engine::Engine;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{connection, context::Shared, handlers, takeover::Socket};

/// How long answers under way may take once the server is to end; streams end at once.
const GRACE: Duration = Duration::from_secs(5);

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
#[derive(Debug)]
pub enum Listener {
    /// A unix socket.
    Unix(UnixListener),
    /// A TCP port.
    Tcp(TcpListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Unix(listener) => listener.accept().await.map(|(socket, _)| Socket::Unix(socket)),
            Self::Tcp(listener) => {
                let (socket, _) = listener.accept().await?;
                socket.set_nodelay(true)?;
                Ok(Socket::Tcp(socket))
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
        let shared = Arc::new(Shared { engine, shutdown, stop: stop.clone() });
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
                    Ok(socket) => {
                        let shared = Arc::clone(&shared);
                        tasks.spawn(connection::serve(socket, stop.clone(), move |request, take_over| {
                            handlers::answer(Arc::clone(&shared), request, take_over)
                        }));
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
