//! What callers say and hear: configuration, credentials, progress, results.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use berth_oci::{Digest, ImageId};

/// How the client behaves towards registries.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Registries (`host` or `host:port`) spoken to over plain HTTP. Loopback registries always are.
    pub insecure: Vec<String>,
    /// Directories with a directory for each registry (`hosts.toml`, certificates), looked through in order.
    pub host_dirs: Vec<PathBuf>,
    /// Layers downloaded or uploaded at the same time.
    pub concurrency: usize,
    /// How often a request is tried again after a 5xx, a 429 or a broken connection.
    pub retries: u32,
    /// Pause before the first retry; doubles each time.
    pub back_off: Duration,
    /// `User-Agent` header.
    pub user_agent: &'static str,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            host_dirs: ["/etc/berth/certs.d", "/etc/docker/certs.d"].map(PathBuf::from).to_vec(),
            concurrency: 6,
            retries: 5,
            back_off: Duration::from_millis(500),
            user_agent: concat!("berth/", env!("CARGO_PKG_VERSION")),
        }
    }
}

impl RegistryConfig {
    /// Whether the registry is spoken to without TLS, unless its `hosts.toml` says otherwise.
    pub(crate) fn is_plain(&self, registry: &str) -> bool {
        is_loopback(registry) || self.insecure.iter().any(|insecure| insecure == registry)
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

/// Who asks.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// Nobody in particular.
    #[default]
    Anonymous,
    /// A user with a password or access token.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
    /// A bearer token which the registry accepts as it is.
    Bearer(String),
    /// An OAuth2 refresh token (`identitytoken` in Docker's configuration).
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    /// Secrets stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { username, .. } => write!(f, "Basic({username}, ***)"),
            Self::Bearer(_) => f.write_str("Bearer(***)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(***)"),
        }
    }
}

/// Progress, in the shape and words of Docker's JSON stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// `{"status": …}`: a line about the whole operation.
    Status(String),
    /// `{"status": …, "id": tag}`: `Pulling from library/busybox`.
    Named {
        /// The tag or digest.
        id: String,
        /// The line.
        status: String,
    },
    /// `{"status": …, "progressDetail": …, "id": short digest}`: a layer moves on.
    Layer {
        /// First twelve digits of the layer's digest.
        id: String,
        /// Where it is.
        state: LayerState,
    },
    /// Progress detail only, at the end of a push: `{"aux": {"Tag", "Digest", "Size"}}`.
    Pushed {
        /// Tag.
        tag: String,
        /// Digest of the manifest.
        digest: Digest,
        /// Size of the manifest.
        size: u64,
    },
}

/// Where one layer is on its way; [`fmt::Display`] gives Docker's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerState {
    /// Known, not begun.
    PullingFsLayer,
    /// Others go first.
    Waiting,
    /// Bytes arrive.
    Downloading {
        /// Bytes so far.
        current: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The digest is compared.
    VerifyingChecksum,
    /// In the store.
    DownloadComplete,
    /// Being unpacked.
    Extracting {
        /// Compressed bytes read so far.
        current: u64,
        /// Compressed bytes in all.
        total: u64,
    },
    /// Unpacked.
    PullComplete,
    /// The store had it.
    AlreadyExists,
    /// A request failed and is made again.
    Retrying {
        /// Seconds until then.
        seconds: u64,
    },
    /// To be pushed.
    Preparing,
    /// Bytes leave.
    Pushing {
        /// Bytes so far.
        current: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The registry has it now.
    Pushed,
    /// The registry had it.
    LayerAlreadyExists,
    /// The registry took it from another repository.
    MountedFrom(String),
}

impl LayerState {
    /// Current and total bytes, for the states that have them.
    pub fn bytes(&self) -> Option<(u64, u64)> {
        match self {
            Self::Downloading { current, total }
            | Self::Extracting { current, total }
            | Self::Pushing { current, total } => Some((*current, *total)),
            _ => None,
        }
    }
}

impl fmt::Display for LayerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PullingFsLayer => f.write_str("Pulling fs layer"),
            Self::Waiting => f.write_str("Waiting"),
            Self::Downloading { .. } => f.write_str("Downloading"),
            Self::VerifyingChecksum => f.write_str("Verifying Checksum"),
            Self::DownloadComplete => f.write_str("Download complete"),
            Self::Extracting { .. } => f.write_str("Extracting"),
            Self::PullComplete => f.write_str("Pull complete"),
            Self::AlreadyExists => f.write_str("Already exists"),
            Self::Retrying { seconds } => {
                write!(f, "Retrying in {seconds} second{}", if *seconds == 1 { "" } else { "s" })
            }
            Self::Preparing => f.write_str("Preparing"),
            Self::Pushing { .. } => f.write_str("Pushing"),
            Self::Pushed => f.write_str("Pushed"),
            Self::LayerAlreadyExists => f.write_str("Layer already exists"),
            Self::MountedFrom(repository) => write!(f, "Mounted from {repository}"),
        }
    }
}

/// A finished pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Digest of the image's configuration.
    pub id: ImageId,
    /// Digest of what the reference names: the index, or the manifest where there is none.
    pub digest: Digest,
    /// Whether the reference named this very image before.
    pub up_to_date: bool,
}

/// How to push.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// How layers are compressed that were never pushed or pulled.
    pub compression: berth_store::Compression,
    /// Push the image of this platform alone, also where a whole index is here.
    pub platform: Option<berth_oci::Platform>,
}

/// A finished push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Size of the manifest.
    pub size: u64,
}

/// What a registry says about a reference, without pulling it.
#[derive(Debug, Clone)]
pub struct Distribution {
    /// What the reference names.
    pub descriptor: berth_oci::Descriptor,
    /// Platforms on offer.
    pub platforms: Vec<berth_oci::Platform>,
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
        assert!(config.is_plain("10.0.0.1:5000"));
        assert!(!config.is_plain("10.0.0.1"));
    }
}
