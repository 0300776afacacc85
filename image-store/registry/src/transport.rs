//! Connections: which registries are spoken to without TLS, and clients that are kept between operations.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use oci_client::client::{ClientConfig, ClientProtocol};

use crate::failure::Failure;
use crate::types::{Credentials, RegistryConfig};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A registry that sends nothing for so long has gone.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Users of one daemon are few; beyond this the oldest state is not worth its keep.
const MAX_CLIENTS: usize = 32;

/// See the module.
pub(crate) struct Transport {
    config: RegistryConfig,
    /// Made when first needed: a host without certificates can do everything but pull and push.
    http: OnceLock<reqwest::Client>,
    /// `oci-client` keeps the first credentials that it sees for a registry, so each user has a client of his own.
    clients: Mutex<HashMap<(String, Credentials), oci_client::Client>>,
}

impl Transport {
    pub(crate) fn new(config: RegistryConfig) -> Self {
        Self { config, http: OnceLock::new(), clients: Mutex::default() }
    }

    pub(crate) fn config(&self) -> &RegistryConfig {
        &self.config
    }

    /// The client for requests that `oci-client` does not make.
    pub(crate) fn http(&self) -> Result<&reqwest::Client, Failure> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        let http = reqwest::Client::builder()
            .user_agent(self.config.user_agent)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build()
            .map_err(|error| Failure::Setup(error.to_string()))?;
        Ok(self.http.get_or_init(|| http))
    }

    /// `scheme://host` of a registry.
    pub(crate) fn address_of(&self, registry: &str) -> String {
        let scheme = if self.is_plain(registry) { "http" } else { "https" };
        format!("{scheme}://{registry}")
    }

    fn is_plain(&self, registry: &str) -> bool {
        is_loopback(registry) || self.config.insecure.iter().any(|insecure| insecure == registry)
    }

    /// A client for a registry and a user, with the tokens of earlier operations.
    pub(crate) fn client(&self, domain: &str, user: &Credentials) -> Result<oci_client::Client, Failure> {
        // A token that was given from outside may be a newer one the next time.
        let (Credentials::Anonymous | Credentials::Basic { .. }) = user else {
            return self.new_client(domain);
        };
        let key = (domain.to_owned(), user.clone());
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = self.new_client(domain)?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }

    fn new_client(&self, domain: &str) -> Result<oci_client::Client, Failure> {
        let plain = if self.is_plain(domain) { vec![domain.to_owned()] } else { Vec::new() };
        let config = ClientConfig {
            protocol: ClientProtocol::HttpsExcept(plain),
            use_monolithic_push: true,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: self.config.user_agent,
            ..ClientConfig::default()
        };
        Ok(oci_client::Client::try_from(config)?)
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Whether the registry is on this machine, as Docker sees it: `localhost`, 127.0.0.0/8, `[::1]`.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_registries_are_plain_by_default() {
        for registry in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.8.7", "[::1]:5000"] {
            assert!(is_loopback(registry), "{registry}");
        }
        for registry in
            ["docker.io", "localhost.example", "10.0.0.1:5000", "[fe80::1]:5000", "127.example.org"]
        {
            assert!(!is_loopback(registry), "{registry}");
        }
    }

    #[test]
    fn insecure_registries_are_named_one_by_one() {
        let config = RegistryConfig { insecure: vec!["10.0.0.1:5000".into()], ..RegistryConfig::default() };
        let transport = Transport::new(config);
        assert_eq!(transport.address_of("10.0.0.1:5000"), "http://10.0.0.1:5000");
        assert_eq!(transport.address_of("10.0.0.1"), "https://10.0.0.1");
    }
}
