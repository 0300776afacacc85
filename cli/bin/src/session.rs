//! What every command works with: the engine it talks to, connected to when first needed.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use berth_client::{Client, Host, Trust};
use clap::Args;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::contexts::{DEFAULT, Store};
use crate::{autostart, credentials};

/// Which engine is meant: the address or the context that is given, else those of the environment, else the current context.
#[derive(Debug, Args)]
pub(crate) struct Wanted {
    /// Engine to talk to: unix:///path/of/socket or tcp://host:port [env: BERTH_HOST]
    #[arg(short = 'H', long, value_name = "ADDRESS")]
    host: Vec<String>,
    /// Engine to talk to, by its name (see `berth context`) [env: BERTH_CONTEXT]
    #[arg(long, value_name = "NAME", conflicts_with = "host")]
    context: Option<String>,
    /// Speak TLS, with the files ca.pem, cert.pem and key.pem of docker's configuration where no others are named
    #[arg(long)]
    tlsverify: bool,
    /// Certificates of the authorities that may vouch for the engine
    #[arg(long, value_name = "FILE")]
    tlscacert: Option<PathBuf>,
    /// Our certificate
    #[arg(long, value_name = "FILE", requires = "tlskey")]
    tlscert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "tlscert")]
    tlskey: Option<PathBuf>,
}

impl Wanted {
    /// How an engine at an address is to be known; none if TLS is not asked for.
    fn trust(&self) -> Result<Option<Trust>> {
        let Self { tlsverify, tlscacert, tlscert, tlskey, .. } = self;
        if !tlsverify && tlscacert.is_none() && tlscert.is_none() {
            return Ok(None);
        }
        let dir = credentials::directory()?;
        let file = |given: &Option<PathBuf>, name: &str| {
            given.clone().or_else(|| Some(dir.join(name)).filter(|path| path.is_file()))
        };
        let authority = file(tlscacert, "ca.pem");
        Ok(Some(Trust { authority, certificate: file(tlscert, "cert.pem"), key: file(tlskey, "key.pem") }))
    }
}

/// The engine of this invocation.
#[derive(Debug)]
pub(crate) struct Session {
    host: Host,
    context: String,
    /// Nobody named an engine, so that one may be started.
    may_start: bool,
}

impl Session {
    /// The engine that is meant.
    pub(crate) fn new(wanted: &Wanted) -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let named = wanted.context.clone().filter(|name| !name.is_empty());
        let host = match wanted.host.as_slice() {
            [] => None,
            [host] => Some(host.clone()).filter(|host| !host.is_empty()),
            _ => bail!("specify only one -H: a command is for one engine"),
        };
        let host = host.or_else(|| variable("BERTH_HOST").filter(|_| named.is_none()));
        if let Some(host) = host {
            let mut host: Host = host.parse()?;
            if let Some(trust) = wanted.trust()? {
                host = host.over_tls(trust);
            }
            return Ok(Self { host, context: DEFAULT.to_owned(), may_start: false });
        }
        let named = named.or_else(|| variable("BERTH_CONTEXT"));
        // Without a home there are no contexts, and so there is nothing to look up.
        let (store, asked) = (Store::open().ok(), named.is_some());
        let current = || store.as_ref().map_or_else(|| Ok(DEFAULT.to_owned()), Store::current);
        let context = named.map_or_else(current, Ok)?;
        if context == DEFAULT {
            return Ok(Self { host: Host::Unix(autostart::DEFAULT_SOCKET.into()), context, may_start: true });
        }
        let found = store.context("contexts need a home directory").and_then(|store| store.host(&context));
        let host = found.with_context(|| {
            let by = if asked { "--context, BERTH_CONTEXT" } else { "`berth context use`" };
            format!("the engine that was chosen ({by}) cannot be reached")
        })?;
        Ok(Self { host, context, may_start: false })
    }

    /// Where it is, as `--host` takes it.
    pub(crate) fn address(&self) -> String {
        self.host.to_string()
    }

    /// The name of the context it is taken from.
    pub(crate) fn context(&self) -> &str {
        &self.context
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
    /// A connection to it of which nothing is known, once it answers.
    pub(crate) async fn dial(&self) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>> {
        self.client().await?;
        Ok(berth_client::dial(&self.host).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_for_one_engine() {
        let wanted = |host: &[&str]| Wanted {
            host: host.iter().map(|&host| host.to_owned()).collect(),
            context: None,
            tlsverify: false,
            tlscacert: None,
            tlscert: None,
            tlskey: None,
        };
        assert_eq!(Session::new(&wanted(&["unix:///a"])).expect("an engine").address(), "unix:///a");
        let error = Session::new(&wanted(&["unix:///a", "unix:///b"])).unwrap_err().to_string();
        assert!(error.starts_with("specify only one -H"), "{error}");
    }
}
