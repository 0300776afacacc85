//! What every command works with: the engine it talks to, connected to when first needed.

use std::io::Write as _;
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
    #[arg(short, long, value_name = "NAME", conflicts_with = "host")]
    context: Option<String>,
    /// Directory of docker's configuration: logins, contexts, certificates [env: DOCKER_CONFIG]
    #[arg(long, value_name = "DIRECTORY")]
    config: Option<PathBuf>,
    /// Tell of each request to the engine, as --log-level debug does
    #[arg(short = 'D', long)]
    debug: bool,
    /// What is told besides results and failures: debug (each request to the engine), info (that an engine is started), or
    /// warn, error or fatal, which is nothing
    #[arg(
        short,
        long,
        value_name = "LEVEL",
        default_value = "info",
        value_parser = ["debug", "info", "warn", "error", "fatal"],
        hide_possible_values = true
    )]
    log_level: String,
    /// Speak TLS; unlike docker's, an engine is verified all the same, as with --tlsverify
    #[arg(long)]
    tls: bool,
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
        let Self { tls, tlsverify, tlscacert, tlscert, tlskey, .. } = self;
        if !tls && !tlsverify && tlscacert.is_none() && tlscert.is_none() {
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

/// What is told besides results and failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    /// Nothing.
    Nothing,
    /// What is done without being asked for.
    Info,
    /// Each request as well.
    Requests,
}

impl Wanted {
    fn told(&self) -> Told {
        match self.log_level.as_str() {
            _ if self.debug => Told::Requests,
            "debug" => Told::Requests,
            "info" => Told::Info,
            _ => Told::Nothing,
        }
    }
}

/// A line about a request. That nobody reads it is no failure.
fn tell(line: std::fmt::Arguments<'_>) {
    writeln!(std::io::stderr(), "DEBUG {line}").ok();
}

/// The engine of this invocation.
#[derive(Debug)]
pub(crate) struct Session {
    host: Host,
    context: String,
    /// Nobody named an engine, so that one may be started.
    may_start: bool,
    told: Told,
}

impl Session {
    /// The engine that is meant.
    pub(crate) fn new(wanted: &Wanted) -> Result<Self> {
        if let Some(dir) = &wanted.config {
            credentials::use_directory(dir.clone());
        }
        let told = wanted.told();
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
            return Ok(Self { host, context: DEFAULT.to_owned(), may_start: false, told });
        }
        let named = named.or_else(|| variable("BERTH_CONTEXT"));
        // Without a home there are no contexts, and so there is nothing to look up.
        let (store, asked) = (Store::open().ok(), named.is_some());
        let current = || store.as_ref().map_or_else(|| Ok(DEFAULT.to_owned()), Store::current);
        let context = named.map_or_else(current, Ok)?;
        if context == DEFAULT {
            let host = Host::Unix(autostart::DEFAULT_SOCKET.into());
            return Ok(Self { host, context, may_start: true, told });
        }
        let found = store.context("contexts need a home directory").and_then(|store| store.host(&context));
        let host = found.with_context(|| {
            let by = if asked { "--context, BERTH_CONTEXT" } else { "`berth context use`" };
            format!("the engine that was chosen ({by}) cannot be reached")
        })?;
        Ok(Self { host, context, may_start: false, told })
    }

    /// Where it is, as `--host` takes it.
    pub(crate) fn address(&self) -> String {
        self.host.to_string()
    }

    /// The name of the context it is taken from.
    pub(crate) fn context(&self) -> &str {
        &self.context
    }

    /// Whether each request is told of.
    pub(crate) fn debug(&self) -> bool {
        self.told == Told::Requests
    }

    async fn connect(&self) -> berth_client::Result<Client> {
        match self.debug() {
            false => Client::connect(self.host.clone()).await,
            true => {
                tell(format_args!("context {}: {}", self.context, self.host));
                Client::connect_told(self.host.clone(), tell).await
            }
        }
    }

    /// A client for it; starts the default engine if it is not running.
    pub(crate) async fn client(&self) -> Result<Client> {
        match (self.connect().await, &self.host) {
            (Err(error), Host::Unix(socket)) if self.may_start && error.is_unreachable() => {
                autostart::start(socket, self.told >= Told::Info)?;
                Ok(self.connect().await?)
            }
            (result, _) => Ok(result?),
        }
    }

    /// A client for it if it runs.
    pub(crate) async fn client_if_running(&self) -> berth_client::Result<Client> {
        self.connect().await
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

    /// The flags before a command.
    #[derive(Debug, clap::Parser)]
    struct Flags {
        #[command(flatten)]
        wanted: Wanted,
    }

    fn wanted(words: &str) -> Result<Wanted> {
        let words = std::iter::once("berth").chain(words.split_whitespace());
        Ok(<Flags as clap::Parser>::try_parse_from(words)?.wanted)
    }

    #[test]
    fn a_command_is_for_one_engine() {
        let session = |words: &str| wanted(words).and_then(|wanted| Session::new(&wanted));
        assert_eq!(session("-H unix:///a").expect("an engine").address(), "unix:///a");
        let error = session("-H unix:///a -H unix:///b").unwrap_err().to_string();
        assert!(error.starts_with("specify only one -H"), "{error}");
        assert!(session("-c far -H unix:///a").is_err(), "a context or an address");
        assert_eq!(wanted("-c far").unwrap().context.as_deref(), Some("far"));
    }

    #[test]
    fn what_is_told() {
        let told = |words: &str| wanted(words).map(|wanted| wanted.told()).ok();
        assert_eq!(told(""), Some(Told::Info));
        assert_eq!(told("-D"), Some(Told::Requests));
        assert_eq!(told("-l debug"), Some(Told::Requests));
        assert_eq!(told("-D --log-level error"), Some(Told::Requests));
        assert_eq!(told("--log-level warn"), Some(Told::Nothing));
        assert_eq!(told("-l loud"), None);
    }

    #[test]
    fn tls_is_verified_however_it_is_asked_for() {
        let trust = |words: &str| wanted(words).unwrap().trust().unwrap();
        assert_eq!(trust(""), None);
        assert!(trust("--tls").is_some());
        assert_eq!(trust("--tls"), trust("--tlsverify"));
        let own = trust("--tls --tlscacert /a").unwrap();
        assert_eq!(own.authority.as_deref(), Some(std::path::Path::new("/a")));
    }
}
