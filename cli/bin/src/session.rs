//! What every command works with: the engine it talks to, connected to when first needed.

use anyhow::Result;
use berth_client::{Client, Host};

use crate::autostart;

/// The engine of this invocation.
#[derive(Debug)]
pub(crate) struct Session {
    host: Host,
    /// Nobody named an engine, so that one may be started.
    may_start: bool,
}

impl Session {
    /// The engine at `host`, or the default one.
    pub(crate) fn new(host: Option<&str>) -> Result<Self> {
        match host {
            Some(host) => Ok(Self { host: host.parse()?, may_start: false }),
            None => Ok(Self { host: Host::Unix(autostart::DEFAULT_SOCKET.into()), may_start: true }),
        }
    }

    /// Where it is, as `--host` takes it.
    pub(crate) fn address(&self) -> String {
        self.host.to_string()
    }

    /// A client for it; starts the default engine if it is not running.
    pub(crate) async fn client(&self) -> Result<Client> {
        match (Client::connect(self.host.clone()).await, &self.host) {
            (Err(error), Host::Unix(socket)) if self.may_start && error.is_unreachable() => {
                autostart::start(socket)?;
                Ok(Client::connect(self.host.clone()).await?)
            }
            (result, _) => Ok(result?),
        }
    }

    /// A client for it if it runs.
    pub(crate) async fn client_if_running(&self) -> berth_client::Result<Client> {
        Client::connect(self.host.clone()).await
    }
}
