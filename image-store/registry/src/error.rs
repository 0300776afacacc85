//! What can go wrong with a registry, in Docker's words.

use berth_oci::Digest;

/// What kind of answer an error is; the API's edge maps it to a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such repository, tag, manifest or image.
    NotFound,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// Credentials do not suffice.
    Forbidden,
    /// The registry cannot be reached or does not follow its own protocol.
    Unavailable,
    /// The request makes no sense.
    InvalidParameter,
    /// This host failed.
    Internal,
}

/// Errors of pull and push.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The registry has no manifest of that name.
    #[error("manifest for {0} not found: manifest unknown: manifest unknown")]
    ManifestUnknown(String),
    /// The registry has no repository of that name.
    #[error("repository {0} not found: name unknown: repository name not known to registry")]
    RepositoryUnknown(String),
    /// The registry hides the repository or has none of that name.
    #[error(
        "pull access denied for {0}, repository does not exist or may require 'docker login': denied: \
         requested access to the resource is denied"
    )]
    PullDenied(String),
    /// The registry refuses the push.
    #[error(
        "denied: requested access to the resource is denied (push to {0}: log in as a user who may write there)"
    )]
    PushDenied(String),
    /// The registry refuses the credentials.
    #[error("unauthorized: {0}")]
    Unauthorized(String),
    /// Too many requests, and patience is at its end.
    #[error("toomanyrequests: {0}")]
    TooManyRequests(String),
    /// No platform of the index fits.
    #[error("no matching manifest for {wanted} in the manifest list entries (offered: {offered})")]
    NoPlatform {
        /// The platform asked for.
        wanted: String,
        /// The platforms on offer.
        offered: String,
    },
    /// No such image here.
    #[error("An image does not exist locally with the tag: {0}")]
    NotLocal(String),
    /// The bytes are not what their name says.
    #[error("filesystem layer verification failed for digest {wanted}: the registry sent {got}")]
    WrongContent {
        /// The digest asked for.
        wanted: Digest,
        /// What came.
        got: String,
    },
    /// The registry sent something which is no manifest.
    #[error("{reference}: the registry's answer is not a manifest: {reason}")]
    BadManifest {
        /// What was asked for.
        reference: String,
        /// What is wrong.
        reason: String,
    },
    /// The manifest is one of an artifact.
    #[error("{reference} is an artifact of type {media_type}, not an image that can be run")]
    NotAnImage {
        /// What was asked for.
        reference: String,
        /// The type of its configuration.
        media_type: String,
    },
    /// The address is no registry's.
    #[error("{0:?} is not the address of a registry: host[:port] is expected")]
    BadAddress(String),
    /// What is said about a registry in `certs.d` makes no sense.
    #[error("{}: {reason}", path.display())]
    HostsFile {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The image has only a manifest that is not supported any more.
    #[error("{reference}: {source}")]
    Unsupported {
        /// What was asked for.
        reference: String,
        /// Why.
        source: berth_oci::DocumentError,
    },
    /// What is to be downloaded has no address.
    #[error("{0:?} is no address of a file: use http:// or https://")]
    BadUrl(String),
    /// There is no file at the address.
    #[error("failed to GET {url} with status {status}: {message}")]
    NoFile {
        /// The address.
        url: String,
        /// The server's answer.
        status: String,
        /// What it says about it.
        message: String,
    },
    /// A file could not be downloaded.
    #[error("cannot download {url}: {reason}")]
    Download {
        /// Its address.
        url: String,
        /// Why.
        reason: String,
    },
    /// There is no way to search the registry.
    #[error(
        "the registry {0} cannot be searched: it has neither /v1/search nor (for us) /v2/_catalog; log in, or ask whoever \
         runs it"
    )]
    NoSearch(String),
    /// The HTTP client could not be set up.
    #[error(
        "cannot set up the HTTP client: {0} (are CA certificates installed, such as the package ca-certificates?)"
    )]
    Setup(String),
    /// No connection.
    #[error("Get \"{url}\": {reason}")]
    Unreachable {
        /// The address.
        url: String,
        /// Why, e.g. `dial tcp 127.0.0.1:5000: connect: connection refused`.
        reason: String,
    },
    /// Any other answer of the registry.
    #[error("error from registry: {0}")]
    Registry(String),
    /// The local store failed.
    #[error(transparent)]
    Store(#[from] berth_store::StoreError),
    /// A helper task died.
    #[error("{operation} was cut short: {source}")]
    Task {
        /// What it did.
        operation: &'static str,
        /// Why.
        source: tokio::task::JoinError,
    },
}

impl RegistryError {
    /// What kind of answer this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::ManifestUnknown(_)
            | Self::RepositoryUnknown(_)
            | Self::PullDenied(_)
            | Self::NoPlatform { .. }
            | Self::NoSearch(_)
            | Self::NoFile { .. }
            | Self::NotLocal(_) => ErrorKind::NotFound,
            Self::PushDenied(_) => ErrorKind::Forbidden,
            Self::Unauthorized(_) => ErrorKind::Unauthorized,
            Self::NotAnImage { .. } | Self::BadAddress(_) | Self::BadUrl(_) | Self::Unsupported { .. } => {
                ErrorKind::InvalidParameter
            }
            Self::TooManyRequests(_)
            | Self::Unreachable { .. }
            | Self::Download { .. }
            | Self::Registry(_) => ErrorKind::Unavailable,
            Self::WrongContent { .. }
            | Self::BadManifest { .. }
            | Self::Setup(_)
            | Self::HostsFile { .. }
            | Self::Store(_)
            | Self::Task { .. } => ErrorKind::Internal,
        }
    }
}
