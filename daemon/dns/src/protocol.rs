//! The messages between the daemon and the resolver process: one JSON value per packet.
//!
//! ```text
//!   daemon                              process
//!     | Hello{version}                    |
//!     |        <- Hello{version, resolvers}
//!     | Begin, Join…, Update…, Serve…, Commit   the whole picture; until Commit the old one is in force
//!     | Join, Leave, Serve, Update, Watch, Forget …
//!     |        <- Done | Failed             one answer to each
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Raised whenever either side could misunderstand the other; a process that speaks another is replaced.
pub(crate) const VERSION: u32 = 1;

/// The largest packet of either side, bytes.
pub(crate) const MAX_PACKET: usize = 128 * 1024;

/// A container in a network, as others on the network see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Id of the network.
    pub network: String,
    /// Name of the network: `name.network` names the container, too.
    pub network_name: String,
    /// Id of the container.
    pub container: String,
    /// Its names, the one that reverse look-ups give first; case does not matter.
    pub names: Vec<String>,
    /// The Compose project it belongs to.
    pub project: Option<String>,
    /// Its addresses on the network.
    pub addresses: Vec<IpAddr>,
}

/// A name server for names that no network has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Upstream {
    /// Whatever the host's resolv.conf says at the time of the query.
    Host,
    /// This server, asked from inside the container's network namespace.
    Server(SocketAddr),
}

/// What one container sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Id of the container.
    pub container: String,
    /// Ids of its networks, the most important first.
    pub networks: Vec<String>,
    /// Its Compose project: names of the same project win.
    pub project: Option<String>,
    /// Names that only this container knows, and what they stand for, in small letters.
    #[serde(default)]
    pub links: BTreeMap<String, String>,
    /// Where other names are asked for; empty: nowhere, they do not exist.
    pub upstream: Vec<Upstream>,
}

/// From the daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(crate) enum Request {
    Hello {
        version: u32,
    },
    /// What follows up to [`Request::Commit`] is everything that there is.
    Begin,
    Commit,
    Join(Member),
    Leave {
        network: String,
        container: String,
    },
    /// Descriptors: UDP socket, TCP listener, network namespace.
    Serve(View),
    /// Changes the view of a container that is served.
    Update(View),
    /// Descriptor: pidfd of the container's first process, with which the service ends.
    Watch {
        container: String,
    },
    Forget {
        container: String,
    },
    Quit,
}

/// From the process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
pub(crate) enum Reply {
    /// The containers that are served.
    Hello {
        version: u32,
        resolvers: Vec<String>,
    },
    Done,
    Failed {
        message: String,
    },
}
