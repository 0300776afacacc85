//! One repository of one registry, as one user: the requests of the distribution spec, sent to the first server of the
//! registry that can answer them.
//!
//! ```text
//!  request ──▶ mirror ── refusal, no connection ──▶ mirror … ──▶ the registry itself ── 429, 5xx, cut ──▶ pause, again
//! ```
//! A mirror is tried once and gets no credentials. The registry itself is asked with patience.

use std::sync::atomic::{AtomicBool, Ordering};

use berth_oci::{Descriptor, Digest, MAX_DOCUMENT, Platform, Reference, media_type};
use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LINK, RANGE};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::auth::{Authorization, Purpose};
use crate::error::RegistryError;
use crate::failure::{Failure, refusal};
use crate::hosts::{Capability, Host};
use crate::retry::Patience;
use crate::transport::Transport;
use crate::types::{Credentials, RegistryConfig};

/// Tags that are asked for at once.
const PAGE: usize = 1000;
/// More tags than anybody wants at once.
const MOST_TAGS: usize = 100_000;

const ACCEPTED: &str = concat!(
    "application/vnd.oci.image.index.v1+json, ",
    "application/vnd.oci.image.manifest.v1+json, ",
    "application/vnd.docker.distribution.manifest.list.v2+json, ",
    "application/vnd.docker.distribution.manifest.v2+json"
);

/// A manifest or index as served.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) bytes: Bytes,
    pub(crate) media_type: Option<String>,
    pub(crate) digest: Digest,
}

/// A blob's bytes from some offset.
pub(crate) struct BlobStream {
    pub(crate) response: Response,
    /// Where the bytes begin: 0 when the server ignores ranges.
    pub(crate) offset: u64,
    /// Which server gives them.
    server: usize,
}

/// See the module.
pub(crate) struct Session<'a> {
    transport: &'a Transport,
    /// As users name it; mirrors are told.
    registry: String,
    repository: String,
    servers: Vec<Server>,
}

/// One server of the registry.
pub(crate) struct Server {
    pub(crate) host: Host,
    http: reqwest::Client,
    purpose: Purpose,
    authorization: Mutex<Option<Authorization>>,
    /// It gave wrong or broken answers in this session.
    distrusted: AtomicBool,
}

impl<'a> Session<'a> {
    /// `sources` are repositories of the same registry whose blobs may be taken over by a push.
    pub(crate) fn open(
        transport: &'a Transport,
        reference: &Reference,
        credentials: &Credentials,
        push: bool,
        sources: &[Reference],
    ) -> Result<Self, RegistryError> {
        let repository = reference.path().to_owned();
        let mut scopes = vec![format!("repository:{repository}:{}", if push { "pull,push" } else { "pull" })];
        scopes.extend(sources.iter().map(|source| format!("repository:{}:pull", source.path())));
        scopes[1..].sort();
        scopes.dedup();
        Self::with_scopes(transport, reference.domain(), repository, credentials, &scopes)
    }

    /// For what is asked of a registry as a whole.
    pub(crate) fn of_registry(
        transport: &'a Transport,
        registry: &str,
        credentials: &Credentials,
    ) -> Result<Self, RegistryError> {
        let scopes = ["registry:catalog:*".to_owned()];
        Self::with_scopes(transport, registry, String::new(), credentials, &scopes)
    }

    fn with_scopes(
        transport: &'a Transport,
        registry: &str,
        repository: String,
        credentials: &Credentials,
        scopes: &[String],
    ) -> Result<Self, RegistryError> {
        let hosts = transport.hosts(registry)?;
        let servers = hosts.into_iter().map(|(host, http)| {
            let credentials = if host.origin { credentials.clone() } else { Credentials::Anonymous };
            let purpose = Purpose { base: host.base.clone(), scopes: scopes.to_vec(), credentials };
            let authorization = Mutex::new(transport.tokens.get(&purpose));
            Server { host, http, purpose, authorization, distrusted: AtomicBool::new(false) }
        });
        let servers = servers.collect();
        Ok(Self { transport, registry: registry.to_owned(), repository, servers })
    }

    pub(crate) fn config(&self) -> &RegistryConfig {
        self.transport.config()
    }

    /// The servers that can do it, the preferred first.
    fn able(&self, wanted: Capability) -> impl Iterator<Item = (usize, &Server)> {
        self.servers.iter().enumerate().filter(move |(_, server)| {
            server.host.capabilities.has(wanted)
                && (server.host.origin || !server.distrusted.load(Ordering::Relaxed))
        })
    }

    /// From now on the registry itself is asked for content; false if there are no mirrors.
    pub(crate) fn distrust_mirrors(&self) -> bool {
        let mirrors = self.servers.iter().filter(|server| !server.host.origin);
        mirrors.map(|mirror| mirror.distrusted.store(true, Ordering::Relaxed)).count() > 0
    }

    /// Whatever gave this stream is not asked again, unless it is the registry itself.
    pub(crate) fn broke(&self, stream_server: usize) {
        self.servers[stream_server].distrusted.store(true, Ordering::Relaxed);
    }

    /// The registry itself, as against its mirrors.
    pub(crate) fn origin(&self) -> Result<&Server, Failure> {
        let own = self.servers.iter().find(|server| server.host.origin);
        own.ok_or_else(|| {
            Failure::Protocol(format!("{} has only mirrors (see its hosts.toml)", self.registry))
        })
    }

    /// Whether the registry accepts who we are (`GET /v2/`).
    pub(crate) async fn check(&self) -> Result<(), Failure> {
        let Some(own) = self.servers.iter().find(|server| server.host.origin) else { return Ok(()) };
        let url = format!("{}/", own.host.base);
        self.patiently(own, || own.http.get(&url)).await.map(drop)
    }

    /// Sends a request to the first server that answers it well; the last one is asked with patience.
    async fn ask(
        &self,
        wanted: Capability,
        method: Method,
        path: &str,
        dress: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<(usize, Response), Failure> {
        let mut able = self.able(wanted).peekable();
        while let Some((number, server)) = able.next() {
            let mut url = format!("{}/{}/{path}", server.host.base, self.repository);
            if !server.host.origin {
                // containerd's way to tell a cache for several registries which one is meant.
                let sign = if path.contains('?') { '&' } else { '?' };
                url.push_str(&format!("{sign}ns={}", self.registry));
            }
            let request = || dress(server.http.request(method.clone(), &url));
            if able.peek().is_none() {
                return Ok((number, self.patiently(server, request).await?));
            }
            match self.once(server, request).await {
                Ok(response) => return Ok((number, response)),
                Err(failure) => {
                    tracing::debug!(server = %server.host.base, ?failure, "trying the next server")
                }
            }
        }
        Err(Failure::Protocol(format!(
            "no server of {} is allowed to do this (see its hosts.toml)",
            self.registry
        )))
    }

    /// One request, authorized. Credentials go to the server itself, not to where it may send us.
    pub(crate) async fn once(
        &self,
        server: &Server,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Response, Failure> {
        match self.attempt(server, request()).await? {
            Attempt::Answered(response) => good(response).await,
            Attempt::Authorized => match self.attempt(server, request()).await? {
                Attempt::Answered(response) => good(response).await,
                Attempt::Authorized => Err(Failure::refused_for_ever()),
            },
        }
    }

    /// A request that cannot be repeated, such as one with a stream as its body. One that came too late for its
    /// authorization fails as a broken connection does: with hope.
    pub(crate) async fn only_once(
        &self,
        server: &Server,
        request: RequestBuilder,
    ) -> Result<Response, Failure> {
        match self.attempt(server, request).await? {
            Attempt::Answered(response) => good(response).await,
            Attempt::Authorized => Err(Failure::Transport {
                url: server.host.base.clone(),
                reason: "the authorization ended".to_owned(),
                transient: true,
            }),
        }
    }

    async fn attempt(&self, server: &Server, request: RequestBuilder) -> Result<Attempt, Failure> {
        let sent = |error: reqwest::Error| Failure::of_request(&error);
        let request = request.build().map_err(sent)?;
        let own = Url::parse(&server.host.base).is_ok_and(|base| base.origin() == request.url().origin());
        let mut request = RequestBuilder::from_parts(server.http.clone(), request);
        let mut used = None;
        if own {
            request = server.host.headers.iter().fold(request, |r, (name, value)| r.header(name, value));
            used = server.authorization.lock().await.clone();
            if let Some(authorization) = &used {
                request = authorization.apply(request);
            }
        }
        let response = request.send().await.map_err(sent)?;
        if !own || response.status() != StatusCode::UNAUTHORIZED {
            return Ok(Attempt::Answered(response));
        }
        // Of many requests that are refused at once the first gets a new authorization for all.
        let mut current = server.authorization.lock().await;
        if *current == used {
            let renewed =
                self.transport.tokens.answer(&server.http, &server.purpose, response.headers()).await?;
            if renewed.is_none() || renewed == used {
                return Ok(Attempt::Answered(response));
            }
            *current = renewed;
        }
        Ok(Attempt::Authorized)
    }

    /// The same, again after a pause as long as there is hope.
    pub(crate) async fn patiently(
        &self,
        server: &Server,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Response, Failure> {
        let mut patience = Patience::new(self.config());
        loop {
            match self.once(server, &request).await {
                Ok(response) => return Ok(response),
                Err(failure) => sleep(patience.after(failure)?).await,
            }
        }
    }

    /// Fetches a manifest or index by tag or digest; what was asked for by digest is verified.
    pub(crate) async fn manifest(&self, name: &str) -> Result<Served, Failure> {
        let by_digest = Digest::parse(name).ok();
        let wanted = if by_digest.is_some() { Capability::Pull } else { Capability::Resolve };
        let path = format!("manifests/{name}");
        loop {
            let (server, response) =
                self.ask(wanted, Method::GET, &path, |r| r.header(ACCEPT, ACCEPTED)).await?;
            let media_type = content_type(&response);
            let bytes = limited(response, MAX_DOCUMENT).await?;
            let Some(digest) = by_digest.clone() else {
                let digest = Digest::of(&bytes);
                return Ok(Served { bytes, media_type, digest });
            };
            let got = digest_of(&digest, &bytes);
            if got == digest {
                return Ok(Served { bytes, media_type, digest });
            }
            if self.servers[server].host.origin {
                return Err(Failure::Protocol(format!(
                    "manifest verification failed for digest {digest}: got {got}"
                )));
            }
            self.broke(server);
        }
    }

    /// What a name leads to now, without fetching it; `None` when the registry does not tell.
    pub(crate) async fn manifest_descriptor(&self, name: &str) -> Result<Option<Descriptor>, Failure> {
        let path = format!("manifests/{name}");
        let (_, response) =
            self.ask(Capability::Resolve, Method::HEAD, &path, |r| r.header(ACCEPT, ACCEPTED)).await?;
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        let digest = header("docker-content-digest").and_then(|text| Digest::parse(text).ok());
        // Not Response::content_length(): that is the length of the body, which HEAD does not have.
        let size = header(CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok()).unwrap_or_default();
        Ok(digest.map(|digest| Descriptor::new(content_type(&response).unwrap_or_default(), digest, size)))
    }

    /// The tags of the repository. A registry gives them in pages, of which a link tells that there is a further one.
    pub(crate) async fn tags(&self) -> Result<Vec<String>, Failure> {
        #[derive(serde::Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut all: Vec<String> = Vec::new();
        loop {
            let after = all.last().map(|last| format!("&last={last}")).unwrap_or_default();
            let path = format!("tags/list?n={PAGE}{after}");
            let (_, response) = self.ask(Capability::Resolve, Method::GET, &path, |r| r).await?;
            let more = response.headers().contains_key(LINK);
            let bytes = limited(response, MAX_DOCUMENT).await?;
            let page: Page = serde_json::from_slice(&bytes)
                .map_err(|error| Failure::Protocol(format!("the list of tags is not understood: {error}")))?;
            let page = page.tags.unwrap_or_default();
            // A page that brings nothing on would come for ever.
            let further = more && page.last().is_some_and(|last| all.last() != Some(last));
            all.extend(page);
            if !further {
                return Ok(all);
            }
            if all.len() > MOST_TAGS {
                return Err(Failure::Protocol(format!("the repository has more than {MOST_TAGS} tags")));
            }
        }
    }

    /// Opens a blob from an offset on. The bytes are not verified here.
    pub(crate) async fn blob(&self, blob: &Descriptor, offset: u64) -> Result<BlobStream, Failure> {
        let path = format!("blobs/{}", blob.digest);
        let range = |request: RequestBuilder| match offset {
            0 => request,
            _ => request.header(RANGE, format!("bytes={offset}-")),
        };
        match self.ask(Capability::Pull, Method::GET, &path, range).await {
            Ok((server, response)) => placed(response, offset, server),
            Err(Failure::Status { status: 416, .. }) if offset > 0 => {
                let (server, response) = self.ask(Capability::Pull, Method::GET, &path, |r| r).await?;
                placed(response, 0, server)
            }
            Err(failure) => self.elsewhere(blob, offset, failure).await,
        }
    }

    /// A layer that lies outside the registry ("foreign", `urls` of its descriptor). Nobody is told who asks.
    async fn elsewhere(
        &self,
        blob: &Descriptor,
        offset: u64,
        failure: Failure,
    ) -> Result<BlobStream, Failure> {
        let own = self.servers.len() - 1;
        for url in blob.urls.iter().flatten().filter_map(|url| Url::parse(url).ok()) {
            let address = url.port().map_or_else(
                || url.host_str().unwrap_or_default().to_owned(),
                |port| format!("{}:{port}", url.host_str().unwrap_or_default()),
            );
            if url.scheme() != "https" && !(url.scheme() == "http" && self.config().is_plain(&address)) {
                continue;
            }
            let request = self.servers[own].http.get(url).header(RANGE, format!("bytes={offset}-"));
            let response = request.send().await.map_err(|error| Failure::of_request(&error))?;
            return placed(good(response).await?, offset, own);
        }
        Err(failure)
    }

    /// Fetches a small blob whole and verifies it.
    pub(crate) async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
        let mut patience = Patience::new(self.config());
        loop {
            match self.small_blob_once(descriptor).await {
                Ok(bytes) => return Ok(bytes),
                Err(failure) => sleep(patience.after(failure)?).await,
            }
        }
    }

    async fn small_blob_once(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
        let Descriptor { digest, size, .. } = descriptor;
        if *size > MAX_DOCUMENT as u64 {
            return Err(Failure::Protocol(format!("blob {digest} has {size} bytes: too large")));
        }
        let mut stream = self.blob(descriptor, 0).await?;
        let mut bytes = Vec::with_capacity(*size as usize);
        while (bytes.len() as u64) < *size {
            match stream.next().await? {
                Some(chunk) => bytes.extend(chunk),
                None => return Err(cut_off(digest)),
            }
        }
        let got = digest_of(digest, &bytes);
        if got == *digest {
            return Ok(bytes);
        }
        let reason = format!("blob verification failed for digest {digest}: got {got}");
        match self.distrust_mirrors() {
            true => Err(Failure::Transport { url: digest.to_string(), reason, transient: true }),
            false => Err(Failure::Protocol(reason)),
        }
    }

    pub(crate) async fn has_blob(&self, digest: &Digest) -> Result<bool, Failure> {
        match self.ask(Capability::Push, Method::HEAD, &format!("blobs/{digest}"), |r| r).await {
            Ok(_) => Ok(true),
            Err(Failure::Status { status: 404, .. }) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Whether a manifest is there, byte for byte.
    pub(crate) async fn has_manifest(&self, digest: &Digest) -> Result<bool, Failure> {
        let path = format!("manifests/{digest}");
        match self.ask(Capability::Push, Method::HEAD, &path, |r| r.header(ACCEPT, ACCEPTED)).await {
            Ok(_) => Ok(true),
            Err(Failure::Status { status: 404, .. }) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// The server that takes uploads, with the address of the repository there.
    pub(crate) fn target(&self) -> Result<(&Server, String), Failure> {
        let (_, server) = self.able(Capability::Push).next().ok_or_else(|| {
            Failure::Protocol(format!("no server of {} takes uploads (see its hosts.toml)", self.registry))
        })?;
        Ok((server, format!("{}/{}", server.host.base, self.repository)))
    }

    /// Puts a manifest under a tag, or under its digest.
    pub(crate) async fn put_manifest(
        &self,
        name: &str,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> Result<(), Failure> {
        let (server, base) = self.target()?;
        let (url, bytes) = (format!("{base}/manifests/{name}"), Bytes::from(bytes));
        let request = || server.http.put(&url).header(CONTENT_TYPE, media_type).body(bytes.clone());
        self.patiently(server, request).await.map(drop)
    }
}

/// What came of one request.
enum Attempt {
    Answered(Response),
    /// It was refused for want of the authorization that we have now.
    Authorized,
}

impl Server {
    pub(crate) fn request(&self, method: Method, url: impl reqwest::IntoUrl) -> RequestBuilder {
        self.http.request(method, url)
    }
}

impl BlobStream {
    /// The next bytes; `None` at the end of the answer.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        self.response.chunk().await.map_err(|error| match Failure::of_request(&error) {
            Failure::Transport { url, reason, .. } => Failure::Transport { url, reason, transient: true },
            other => other,
        })
    }

    /// Whoever gives it is not to be asked again.
    pub(crate) fn give_up(&self, session: &Session<'_>) {
        session.broke(self.server);
    }
}

/// A stream that ended before its time.
pub(crate) fn cut_off(digest: &Digest) -> Failure {
    Failure::Transport { url: digest.to_string(), reason: "unexpected EOF".to_owned(), transient: true }
}

/// Where the bytes of an answer begin (RFC 9110, 14.4).
fn placed(response: Response, asked: u64, server: usize) -> Result<BlobStream, Failure> {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(BlobStream { response, offset: 0, server });
    }
    let stated = response.headers().get(CONTENT_RANGE).and_then(|value| {
        value.to_str().ok()?.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok()
    });
    match stated {
        Some(offset) if offset > asked => Err(Failure::Protocol(format!(
            "asked for the bytes from {asked} on, the registry sends those from {offset} on"
        ))),
        stated => Ok(BlobStream { response, offset: stated.unwrap_or(asked), server }),
    }
}

async fn good(response: Response) -> Result<Response, Failure> {
    if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
}

fn digest_of(wanted: &Digest, bytes: &[u8]) -> Digest {
    let mut hasher = berth_oci::Hasher::new(wanted.algorithm());
    hasher.update(bytes);
    hasher.finish()
}

fn content_type(response: &Response) -> Option<String> {
    let text = response.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    Some(media_type::essence(text).to_owned())
}

/// Reads a body of at most `max` bytes.
pub(crate) async fn limited(mut response: Response, max: usize) -> Result<Bytes, Failure> {
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
