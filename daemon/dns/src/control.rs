//! The daemon's word to the process.
//!
//! ```text
//!   listening ─ accept ─▶ requests, each answered ─▶ … ─ end of the connection ─▶ listening
//!      └─ Quit, or nobody to serve and nobody connected: the process ends
//! ```

use std::collections::HashSet;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::MsgFlags;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::link;
use crate::protocol::{Reply, Request, VERSION};
use crate::server::Shared;
use crate::table::Table;

/// How long the process waits for a daemon when it has nobody to serve.
const LONELY: Duration = Duration::from_secs(10);

#[derive(PartialEq, Eq)]
enum Next {
    Listen,
    Quit,
}

/// Serves one daemon after the other.
pub(crate) async fn run(control: OwnedFd, shared: Rc<Shared>) -> io::Result<()> {
    let listener = StdUnixListener::from(control);
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    loop {
        let accepted = match timeout(LONELY, listener.accept()).await {
            Ok(accepted) => accepted,
            Err(_) if shared.served.borrow().is_empty() => return Ok(()),
            Err(_) => continue,
        };
        let (connection, _) = accepted?;
        let mut talk = Talk { shared: &shared, picture: None };
        match talk.hold(&connection).await {
            Ok(Next::Quit) => return Ok(()),
            Ok(Next::Listen) => {}
            Err(error) => tracing::warn!(%error, "the daemon's connection broke"),
        }
    }
}

/// A picture that is being drawn: in force with [`Request::Commit`].
#[derive(Default)]
struct Picture {
    table: Table,
    served: HashSet<String>,
}

struct Talk<'a> {
    shared: &'a Rc<Shared>,
    picture: Option<Picture>,
}

impl Talk<'_> {
    async fn hold(&mut self, connection: &UnixStream) -> io::Result<Next> {
        loop {
            let received = connection
                .async_io(Interest::READABLE, || link::receive::<Request>(connection, MsgFlags::MSG_DONTWAIT))
                .await;
            let (reply, next) = match received {
                Ok(None) => return Ok(Next::Listen),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Next::Listen),
                Err(error) => return Err(error),
                Ok(Some((Request::Quit, _))) => (Reply::Done, Next::Quit),
                Ok(Some((request, fds))) => {
                    let reply = self
                        .answer(request, fds)
                        .unwrap_or_else(|error| Reply::Failed { message: error.to_string() });
                    (reply, Next::Listen)
                }
            };
            let none: [BorrowedFd<'_>; 0] = [];
            connection.async_io(Interest::WRITABLE, || link::send(connection, &reply, &none)).await?;
            if next == Next::Quit {
                return Ok(next);
            }
        }
    }

    fn answer(&mut self, request: Request, fds: Vec<OwnedFd>) -> io::Result<Reply> {
        let shared = self.shared;
        match request {
            Request::Hello { .. } => {
                let resolvers = shared.served.borrow().keys().cloned().collect();
                return Ok(Reply::Hello { version: VERSION, resolvers });
            }
            Request::Begin => self.picture = Some(Picture::default()),
            Request::Commit => {
                if let Some(Picture { table, served }) = self.picture.take() {
                    *shared.table.borrow_mut() = table;
                    let gone: Vec<String> =
                        shared.served.borrow().keys().filter(|id| !served.contains(*id)).cloned().collect();
                    gone.iter().for_each(|container| shared.forget(container));
                }
            }
            Request::Join(member) => match &mut self.picture {
                Some(picture) => picture.table.join(member),
                None => shared.table.borrow_mut().join(member),
            },
            Request::Leave { network, container } => shared.table.borrow_mut().leave(&network, &container),
            Request::Serve(view) => {
                self.expect(&view.container);
                let [udp, tcp, netns] = <[OwnedFd; 3]>::try_from(fds)
                    .map_err(|fds| io::Error::other(format!("3 descriptors expected, {} came", fds.len())))?;
                shared.serve(view, udp, tcp, netns)?;
            }
            Request::Update(view) => {
                self.expect(&view.container);
                let served = shared.served.borrow().get(&view.container).cloned();
                let missing = || io::Error::other(format!("container {} is not served", view.container));
                served.ok_or_else(missing)?.look_at(view);
            }
            Request::Watch { container } => {
                let pidfd = fds.into_iter().next().ok_or_else(|| io::Error::other("no pidfd came"))?;
                shared.watch(&container, pidfd)?;
            }
            Request::Forget { container } => shared.forget(&container),
            // Taken before.
            Request::Quit => {}
        }
        Ok(Reply::Done)
    }

    fn expect(&mut self, container: &str) {
        if let Some(picture) = &mut self.picture {
            picture.served.insert(container.to_owned());
        }
    }
}
