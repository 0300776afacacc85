//! Connections that are kept between operations: one HTTP client for each way to trust and to be known.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::redirect::{Attempt, Policy};

use crate::auth::Tokens;
use crate::error::RegistryError;
use crate::flights::Flights;
use crate::hosts::{Host, Tls, hosts_of};
use crate::types::RegistryConfig;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A registry that sends nothing for so long has gone.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 10;
const MAX_CLIENTS: usize = 32;

/// The settings of a client and the age of the files that they name: a new certificate makes a new client.
type Key = (Tls, Vec<Option<SystemTime>>);

/// See the module.
pub(crate) struct Transport {
    config: RegistryConfig,
    clients: Mutex<HashMap<Key, reqwest::Client>>,
    pub(crate) tokens: Tokens,
    pub(crate) flights: Flights,
}

impl Transport {
    pub(crate) fn new(config: RegistryConfig) -> Self {
        Self { config, clients: Mutex::default(), tokens: Tokens::default(), flights: Flights::default() }
    }

    pub(crate) fn config(&self) -> &RegistryConfig {
        &self.config
    }

    /// The servers of a registry, each with the client to speak to it.
    pub(crate) fn hosts(&self, registry: &str) -> Result<Vec<(Host, reqwest::Client)>, RegistryError> {
        let hosts = hosts_of(&self.config, registry)?;
        hosts.into_iter().map(|host| self.client(&host.tls).map(|client| (host, client))).collect()
    }

    pub(crate) fn client(&self, tls: &Tls) -> Result<reqwest::Client, RegistryError> {
        let files = tls.ca.iter().chain(tls.client.iter().flat_map(|(c, k)| [Some(c), k.as_ref()]).flatten());
        let ages = files.map(|file| file.metadata().and_then(|m| m.modified()).ok()).collect();
        let key = (tls.clone(), ages);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = self.new_client(tls)?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }

    fn new_client(&self, tls: &Tls) -> Result<reqwest::Client, RegistryError> {
        let with_system = self.builder(tls, false)?.build();
        // A host without an authority of its own speaks plain HTTP, and TLS to those whose authority it was given.
        with_system.or_else(|_| self.builder(tls, true)?.build().map_err(setup))
    }

    /// `own`: none but the authorities of `tls` are trusted, not the system's.
    fn builder(&self, tls: &Tls, own: bool) -> Result<reqwest::ClientBuilder, RegistryError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(self.config.user_agent)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .tcp_nodelay(true)
            .redirect(Policy::custom(follow));
        let mut authorities = Vec::new();
        for file in &tls.ca {
            authorities.extend(reqwest::Certificate::from_pem_bundle(&read(file)?).map_err(wrong(file))?);
        }
        builder = match own {
            true => builder.tls_certs_only(authorities),
            false => builder.tls_certs_merge(authorities),
        };
        for (certificate, key) in &tls.client {
            let mut pem = read(certificate)?;
            if let Some(key) = key {
                pem.push(b'\n');
                pem.extend(read(key)?);
            }
            builder = builder.identity(reqwest::Identity::from_pem(&pem).map_err(wrong(certificate))?);
        }
        if tls.skip_verify {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        Ok(builder)
    }
}

/// Redirections lead to where blobs are kept; credentials do not go along to another host. None leads from TLS to the
/// clear.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("too many redirections");
    }
    let from_tls = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if from_tls && attempt.url().scheme() != "https" {
        return attempt.error("a redirection from https to http is not followed");
    }
    attempt.follow()
}

fn setup(error: reqwest::Error) -> RegistryError {
    RegistryError::Setup(error.to_string())
}

fn read(file: &Path) -> Result<Vec<u8>, RegistryError> {
    std::fs::read(file)
        .map_err(|error| RegistryError::HostsFile { path: file.to_owned(), reason: error.to_string() })
}

fn wrong(file: &Path) -> impl Fn(reqwest::Error) -> RegistryError {
    move |error| RegistryError::HostsFile {
        path: file.to_owned(),
        reason: format!("not a PEM file of the kind that is expected here: {error}"),
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("config", &self.config).finish_non_exhaustive()
    }
}
