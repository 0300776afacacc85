//! One repository of one registry, as one user: authentication and the requests of the distribution spec.
//!
//! Authentication and blobs are `oci-client`'s. Manifests are fetched here, because their size has to be limited
//! and their media type known.

use std::io;
use std::time::Duration;

use berth_oci::{Descriptor, Digest, MAX_DOCUMENT, Platform, Reference, media_type};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, Stream};
use oci_client::RegistryOperation;
use oci_client::client::BlobResponse;
use oci_client::secrets::RegistryAuth;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, Response};
use tokio::time::sleep;

use crate::failure::Failure;
use crate::identity;
use crate::retry::Patience;
use crate::transport::Transport;
use crate::types::{Credentials, RegistryConfig};

const ACCEPTED: &str = concat!(
    "application/vnd.oci.image.index.v1+json, ",
    "application/vnd.oci.image.manifest.v1+json, ",
    "application/vnd.docker.distribution.manifest.list.v2+json, ",
    "application/vnd.docker.distribution.manifest.v2+json"
);
/// Answers to failed requests are read up to here.
const MAX_ERROR: usize = 64 << 10;

/// A manifest or index as served.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) bytes: Bytes,
    pub(crate) media_type: Option<String>,
    pub(crate) digest: Digest,
}

/// A blob's bytes from some offset.
pub(crate) struct BlobStream {
    pub(crate) bytes: BoxStream<'static, io::Result<Bytes>>,
    /// Where the bytes begin: 0 when the server ignores ranges.
    pub(crate) offset: u64,
}

/// See the module.
pub(crate) struct Session {
    config: RegistryConfig,
    http: reqwest::Client,
    client: oci_client::Client,
    image: oci_client::Reference,
    /// `scheme://host/v2/repository`.
    base: String,
    authorization: Authorization,
}

enum Authorization {
    None,
    Basic(String, String),
    Bearer(String),
}

impl Session {
    pub(crate) async fn open(
        transport: &Transport,
        reference: &Reference,
        credentials: &Credentials,
        operation: RegistryOperation,
    ) -> Result<Self, Failure> {
        let (domain, repository) = (reference.domain().to_owned(), reference.path().to_owned());
        let image = oci_client::Reference::with_tag(domain, repository, String::new());
        let host = transport.address_of(image.resolve_registry());
        let auth = match credentials {
            Credentials::Anonymous => RegistryAuth::Anonymous,
            Credentials::Basic { username, password } => {
                RegistryAuth::Basic(username.clone(), password.clone())
            }
            Credentials::Bearer(token) => RegistryAuth::Bearer(token.clone()),
            Credentials::IdentityToken(token) => {
                let push = matches!(operation, RegistryOperation::Push);
                RegistryAuth::Bearer(
                    identity::exchange(transport.http()?, &host, reference.path(), push, token).await?,
                )
            }
        };
        let client = transport.client(reference.domain(), credentials)?;
        let mut patience = Patience::new(transport.config());
        let token = loop {
            match client.auth(&image, &auth, operation).await {
                Ok(token) => break token,
                Err(error) => sleep(patience.after(error.into())?).await,
            }
        };
        let authorization = match (token, auth) {
            (Some(token), _) => Authorization::Bearer(token),
            (None, RegistryAuth::Basic(username, password)) => Authorization::Basic(username, password),
            (None, _) => Authorization::None,
        };
        Ok(Self {
            config: transport.config().clone(),
            http: transport.http()?.clone(),
            client,
            base: format!("{host}/v2/{}", reference.path()),
            image,
            authorization,
        })
    }

    pub(crate) fn config(&self) -> &RegistryConfig {
        &self.config
    }

    /// Whether the registry accepts who we are (`GET /v2/`).
    pub(crate) async fn check(&self) -> Result<(), Failure> {
        let root = self.base.split_inclusive("/v2/").next().unwrap_or(&self.base);
        self.request(Method::GET, root).await.map(drop)
    }

    async fn request(&self, method: Method, url: &str) -> Result<Response, Failure> {
        let mut patience = Patience::new(&self.config);
        loop {
            let request = self.http.request(method.clone(), url).header(ACCEPT, ACCEPTED);
            let request = match &self.authorization {
                Authorization::None => request,
                Authorization::Basic(username, password) => request.basic_auth(username, Some(password)),
                Authorization::Bearer(token) => request.bearer_auth(token),
            };
            let failure = match request.send().await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => refusal(response).await,
                Err(error) => Failure::of_request(&error),
            };
            sleep(patience.after(failure)?).await;
        }
    }

    /// Fetches a manifest or index by tag or digest; what was asked for by digest is verified.
    pub(crate) async fn manifest(&self, name: &str) -> Result<Served, Failure> {
        let response = self.request(Method::GET, &format!("{}/manifests/{name}", self.base)).await?;
        let media_type = content_type(&response);
        let bytes = limited(response, MAX_DOCUMENT).await?;
        let digest = match Digest::parse(name) {
            Ok(wanted) => {
                let mut hasher = berth_oci::Hasher::new(wanted.algorithm());
                hasher.update(&bytes);
                let got = hasher.finish();
                if got != wanted {
                    return Err(Failure::Protocol(format!(
                        "manifest verification failed for digest {wanted}: got {got}"
                    )));
                }
                wanted
            }
            Err(_) => Digest::of(&bytes),
        };
        Ok(Served { bytes, media_type, digest })
    }

    /// What a name leads to now, without fetching it; `None` when the registry does not tell.
    pub(crate) async fn manifest_descriptor(&self, name: &str) -> Result<Option<Descriptor>, Failure> {
        let response = self.request(Method::HEAD, &format!("{}/manifests/{name}", self.base)).await?;
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        let digest = header("docker-content-digest").and_then(|text| Digest::parse(text).ok());
        // Not Response::content_length(): that is the length of the body, which HEAD does not have.
        let size = header(CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok()).unwrap_or_default();
        Ok(digest.map(|digest| Descriptor::new(content_type(&response).unwrap_or_default(), digest, size)))
    }

    /// Opens a blob from an offset on. The bytes are not verified here.
    pub(crate) async fn blob(&self, digest: &Digest, offset: u64) -> Result<BlobStream, Failure> {
        // Asking for the range from 0 as well spares oci-client's own pass over the bytes with SHA-256.
        match self.client.pull_blob_stream_partial(&self.image, digest.as_str(), offset, None).await? {
            BlobResponse::Partial(stream) => Ok(BlobStream { bytes: stream.stream, offset }),
            BlobResponse::Full(stream) => Ok(BlobStream { bytes: stream.stream, offset: 0 }),
        }
    }

    /// Fetches a small blob whole and verifies it.
    pub(crate) async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
        let mut patience = Patience::new(&self.config);
        loop {
            match self.small_blob_once(descriptor).await {
                Ok(bytes) => return Ok(bytes),
                Err(failure) => sleep(patience.after(failure)?).await,
            }
        }
    }

    async fn small_blob_once(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
        let digest = &descriptor.digest;
        if descriptor.size > MAX_DOCUMENT as u64 {
            return Err(Failure::Protocol(format!("blob {digest} has {} bytes: too large", descriptor.size)));
        }
        let mut stream = self.blob(digest, 0).await?.bytes;
        let mut bytes = Vec::with_capacity(descriptor.size as usize);
        while (bytes.len() as u64) < descriptor.size {
            match stream.next().await {
                Some(Ok(chunk)) => bytes.extend(chunk),
                Some(Err(error)) => return Err(broken(&self.base, &error)),
                None => return Err(broken(&self.base, &io::ErrorKind::UnexpectedEof.into())),
            }
        }
        let mut hasher = berth_oci::Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        let got = hasher.finish();
        if got != *digest {
            return Err(Failure::Protocol(format!(
                "blob verification failed for digest {digest}: got {got}"
            )));
        }
        Ok(bytes)
    }

    pub(crate) async fn has_blob(&self, digest: &Digest) -> Result<bool, Failure> {
        let mut patience = Patience::new(&self.config);
        loop {
            match self.client.blob_exists(&self.image, digest.as_str()).await {
                Ok(there) => return Ok(there),
                Err(error) => sleep(patience.after(error.into())?).await,
            }
        }
    }

    /// Asks the registry to take a blob over from another of its repositories; `false` when it does not.
    pub(crate) async fn mount(&self, digest: &Digest, from: &Reference) -> bool {
        let source = oci_client::Reference::with_tag(from.domain().into(), from.path().into(), String::new());
        match self.client.mount_blob(&self.image, &source, digest.as_str()).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%digest, %from, %error, "not mounted");
                false
            }
        }
    }

    /// Uploads a blob in one request.
    pub(crate) async fn upload(
        &self,
        blob: &Descriptor,
        bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), Failure> {
        let bytes = bytes.map(|chunk| chunk.map_err(oci_client::errors::OciDistributionError::from));
        let sent =
            self.client.push_blob_stream(&self.image, bytes, blob.digest.as_str(), Some(blob.size)).await;
        Ok(sent.map(drop)?)
    }

    /// Puts a manifest under a tag, or under its digest.
    pub(crate) async fn put_manifest(
        &self,
        name: &str,
        manifest: &Descriptor,
        bytes: Vec<u8>,
    ) -> Result<(), Failure> {
        let (registry, repository) = (self.image.registry().to_owned(), self.image.repository().to_owned());
        let target = match Digest::parse(name) {
            Ok(_) => oci_client::Reference::with_digest(registry, repository, name.to_owned()),
            Err(_) => oci_client::Reference::with_tag(registry, repository, name.to_owned()),
        };
        let content_type = reqwest::header::HeaderValue::from_str(&manifest.media_type)
            .map_err(|_| Failure::Protocol(format!("{:?} is no media type", manifest.media_type)))?;
        let bytes = Bytes::from(bytes);
        let mut patience = Patience::new(&self.config);
        loop {
            match self.client.push_manifest_raw(&target, bytes.clone(), content_type.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) => sleep(patience.after(error.into())?).await,
            }
        }
    }
}

/// A stream that ended before its time.
pub(crate) fn broken(url: &str, error: &io::Error) -> Failure {
    let reason = match error.get_ref().and_then(|inner| inner.downcast_ref::<reqwest::Error>()) {
        Some(inner) => match Failure::of_request(inner) {
            Failure::Transport { reason, .. } => reason,
            other => return other,
        },
        None => error.to_string(),
    };
    Failure::Transport { url: url.to_owned(), reason, transient: true }
}

fn content_type(response: &Response) -> Option<String> {
    let text = response.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    Some(media_type::essence(text).to_owned())
}

async fn refusal(response: Response) -> Failure {
    let status = response.status().as_u16();
    let wait = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
    let body = limited(response, MAX_ERROR).await.unwrap_or_default();
    Failure::of_status(status, &body, wait.map(Duration::from_secs))
}

/// Reads a body of at most `max` bytes.
async fn limited(mut response: Response, max: usize) -> Result<Bytes, Failure> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Failure::of_request(&error))? {
        if bytes.len() + chunk.len() > max {
            return Err(Failure::Protocol(format!("the registry's answer has more than {max} bytes")));
        }
        bytes.extend(chunk);
    }
    Ok(bytes.into())
}

/// The platforms that a manifest list offers, attestations left out.
pub(crate) fn offered(manifests: &[Descriptor]) -> Vec<Platform> {
    manifests.iter().filter(|m| !m.is_attestation()).filter_map(|m| m.platform.clone()).collect()
}
