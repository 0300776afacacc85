//! The client: requests, connections kept for reuse, version, errors.

use std::{fmt, sync::Arc, time::Instant};

use berth_api::{ApiVersion, ErrorBody};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::{Mutex, OnceCell};

use crate::{Error, Host, Ping, Result, SPOKEN, Upload, connection, query::Query, upload::RequestBody};

/// Idle connections kept; a command needs one, a busy program a few.
const MAX_IDLE: usize = 4;

/// Longest answer that is collected; longer ones come as streams.
const MAX_ANSWER: usize = 256 << 20;

/// A client of one daemon. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// Who is told of each request, in a line.
pub type Listener = fn(fmt::Arguments<'_>);

struct Shared {
    host: Host,
    listener: Option<Listener>,
    version: OnceCell<ApiVersion>,
    idle: Mutex<Vec<SendRequest<RequestBody>>>,
}

/// One request, before the version is known.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Upload,
}

impl Call {
    pub(crate) fn new(method: Method, path: impl AsRef<str>, query: &Query) -> Self {
        let path = format!("{}{}", path.as_ref(), query.as_str());
        Self { method, path, headers: Vec::new(), body: Upload::empty() }
    }

    pub(crate) fn get(path: impl AsRef<str>, query: &Query) -> Self {
        Self::new(Method::GET, path, query)
    }

    pub(crate) fn post(path: impl AsRef<str>, query: &Query) -> Self {
        Self::new(Method::POST, path, query)
    }

    pub(crate) fn delete(path: impl AsRef<str>, query: &Query) -> Self {
        Self::new(Method::DELETE, path, query)
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Self {
        let bytes = serde_json::to_vec(body).expect("wire types have text keys and serialise");
        self.body = Upload::from_bytes(bytes);
        self.header("content-type", "application/json")
    }

    pub(crate) fn upload(mut self, kind: &str, body: Upload) -> Self {
        self.body = body;
        self.header("content-type", kind)
    }

    /// The same again; none if the body can be sent but once.
    fn again(&self) -> Option<Self> {
        let body = self.body.again()?;
        Some(Self {
            method: self.method.clone(),
            path: self.path.clone(),
            headers: self.headers.clone(),
            body,
        })
    }

    pub(crate) fn operation(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        format!("{} {path}", self.method)
    }
}

/// A JSON answer as the daemon has written it, to be read without a copy.
#[derive(Debug)]
pub struct Json {
    operation: String,
    bytes: Bytes,
}

impl Json {
    /// Reads it.
    ///
    /// # Errors
    /// [`Error::Protocol`] if it is something else.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        serde_json::from_slice(&self.bytes)
            .map_err(|error| Error::Protocol { operation: self.operation.clone(), reason: error.to_string() })
    }
}

/// An answer whose head has come.
pub(crate) struct Answer {
    pub(crate) operation: String,
    pub(crate) response: Response<Incoming>,
    sender: SendRequest<RequestBody>,
}

impl Client {
    /// A client of the daemon at this address. Nothing is sent before the first request.
    #[must_use]
    pub fn new(host: Host) -> Self {
        Self::made(host, OnceCell::new(), None)
    }

    /// A client of the daemon at this address, connected to it. Nothing is sent before the first request.
    ///
    /// # Errors
    /// [`Error::Connect`] if nobody listens there.
    pub async fn connect(host: Host) -> Result<Self> {
        Self::new(host).connected().await
    }

    /// The same, where somebody is told of each request.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_told(host: Host, listener: Listener) -> Result<Self> {
        Self::made(host, OnceCell::new(), Some(listener)).connected().await
    }

    async fn connected(self) -> Result<Self> {
        let sender = self.dial().await?;
        self.keep(sender).await;
        Ok(self)
    }

    fn made(host: Host, version: OnceCell<ApiVersion>, listener: Option<Listener>) -> Self {
        Self { shared: Arc::new(Shared { host, listener, version, idle: Mutex::default() }) }
    }

    /// A client that speaks this version without asking first.
    #[must_use]
    pub fn with_version(host: Host, version: ApiVersion) -> Self {
        let version = OnceCell::new_with(Some(version));
        Self::made(host, version, None)
    }

    /// The daemon's address.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.shared.host
    }

    /// Asks the daemon who it is. Also settles the version, if it is not settled.
    ///
    /// # Errors
    /// [`Error::Connect`] if nobody answers.
    pub async fn ping(&self) -> Result<Ping> {
        let call = Call::new(Method::HEAD, "/_ping", &Query::new());
        let mut answer = self.exchange(call, None).await?;
        if !answer.response.status().is_success() {
            self.recycle(answer).await;
            answer = self.exchange(Call::get("/_ping", &Query::new()), None).await?;
        }
        let ping = Ping::from_headers(answer.response.headers());
        self.recycle(answer).await;
        // Of two concurrent pings the first settles the version; both saw the same daemon.
        self.shared.version.set(ping.negotiated()).ok();
        Ok(ping)
    }

    /// The version spoken, negotiated before if need be.
    ///
    /// # Errors
    /// [`Error::Connect`] if nobody answers.
    pub async fn version_spoken(&self) -> Result<ApiVersion> {
        match self.shared.version.get() {
            Some(version) => Ok(*version),
            None => {
                self.ping().await.map(|ping| self.shared.version.get().copied().unwrap_or(ping.negotiated()))
            }
        }
    }

    /// Sends a request; an error answer becomes an error.
    pub(crate) async fn send(&self, call: Call) -> Result<Answer> {
        let Some(version) = self.shared.version.get() else { return self.send_first(call).await };
        let answer = self.exchange(call, Some(*version)).await?;
        if is_good(&answer) { Ok(answer) } else { Err(self.refusal(answer).await) }
    }

    /// Sends a request to a daemon that has not told yet which version it knows: in ours, for mostly it knows that, and each
    /// answer tells. A daemon that is older refuses it and has done nothing; then it is asked, and told again.
    async fn send_first(&self, call: Call) -> Result<Answer> {
        let Some(again) = call.again() else {
            self.ping().await?;
            return Box::pin(self.send(call)).await;
        };
        let answer = self.exchange(call, Some(SPOKEN)).await?;
        let told = Ping::from_headers(answer.response.headers());
        if told.api_version.is_some() {
            // Of two requests at once the first settles it; both have heard the same daemon.
            self.shared.version.set(told.negotiated()).ok();
        }
        if is_good(&answer) {
            return Ok(answer);
        }
        let too_new = answer.response.status() == StatusCode::BAD_REQUEST;
        let refusal = self.refusal(answer).await;
        match too_new && self.version_spoken().await? != SPOKEN {
            true => Box::pin(self.send(again)).await,
            false => Err(refusal),
        }
    }

    /// Sends a request and decodes the JSON answer.
    pub(crate) async fn fetch<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        self.fetch_json(call).await?.read()
    }

    /// Sends a request whose answer is JSON.
    pub(crate) async fn fetch_json(&self, call: Call) -> Result<Json> {
        let answer = self.send(call).await?;
        self.json(answer).await
    }

    /// An answer that is JSON.
    pub(crate) async fn json(&self, answer: Answer) -> Result<Json> {
        let (operation, bytes) = self.collect(answer).await?;
        Ok(Json { operation, bytes })
    }

    /// Sends a request whose answer has no content; tells whether it was 304 Not Modified.
    pub(crate) async fn run(&self, call: Call) -> Result<bool> {
        let answer = self.send(call).await?;
        let not_modified = answer.response.status().as_u16() == 304;
        self.collect(answer).await?;
        Ok(not_modified)
    }

    async fn refusal(&self, answer: Answer) -> Error {
        let status = answer.response.status();
        match self.collect(answer).await {
            Err(error) => error,
            Ok((_, bytes)) => {
                let message = match serde_json::from_slice::<ErrorBody>(&bytes) {
                    Ok(body) => body.message,
                    Err(_) => String::from_utf8_lossy(&bytes).trim().to_owned(),
                };
                let message =
                    if message.is_empty() { format!("the daemon answered {status}") } else { message };
                Error::Daemon { status, message }
            }
        }
    }

    /// Collects the body and keeps the connection.
    pub(crate) async fn collect(&self, answer: Answer) -> Result<(String, Bytes)> {
        let Answer { operation, response, sender } = answer;
        let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER);
        match body.collect().await {
            Ok(collected) => {
                self.keep(sender).await;
                Ok((operation, collected.to_bytes()))
            }
            Err(error) => Err(match error.downcast::<hyper::Error>() {
                Ok(source) => Error::Transport { operation, source: *source },
                Err(error) => Error::Protocol { operation, reason: error.to_string() },
            }),
        }
    }

    async fn recycle(&self, answer: Answer) {
        // Only the head mattered; a connection that breaks now is simply not kept.
        self.collect(answer).await.ok();
    }

    async fn keep(&self, sender: SendRequest<RequestBody>) {
        let mut idle = self.shared.idle.lock().await;
        if !sender.is_closed() && idle.len() < MAX_IDLE {
            idle.push(sender);
        }
    }

    /// A connection that is ready, kept or new.
    async fn sender(&self) -> Result<SendRequest<RequestBody>> {
        while let Some(mut kept) = { self.shared.idle.lock().await.pop() } {
            if kept.ready().await.is_ok() {
                return Ok(kept);
            }
        }
        self.dial().await
    }

    async fn dial(&self) -> Result<SendRequest<RequestBody>> {
        let host = &self.shared.host;
        connection::open(host).await.map_err(|source| Error::Connect { host: host.to_string(), source })
    }

    async fn exchange(&self, call: Call, version: Option<ApiVersion>) -> Result<Answer> {
        let operation = call.operation();
        let begin = Instant::now();
        let mut sender = self.sender().await?;
        let uri = version.map_or_else(|| call.path.clone(), |version| format!("/v{version}{}", call.path));
        let mut request = Request::builder().method(call.method).uri(uri).header(header::HOST, "localhost");
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        let agent = concat!("berth/", env!("CARGO_PKG_VERSION"));
        let request = request
            .header(header::USER_AGENT, agent)
            .body(call.body.into_body())
            .map_err(|source| Error::InvalidRequest { operation: operation.clone(), source })?;
        let sent = match sender.try_send_request(request).await {
            // A kept connection that the daemon had closed meanwhile: nothing was sent, a new one will do.
            Err(mut failed) => match failed.take_message() {
                Some(request) => {
                    sender = self.dial().await?;
                    sender.send_request(request).await
                }
                None => Err(failed.into_error()),
            },
            Ok(response) => Ok(response),
        };
        if let Some(tell) = self.shared.listener {
            let time = begin.elapsed();
            match &sent {
                Ok(response) => tell(format_args!("{operation}: {} in {time:.1?}", response.status())),
                Err(error) => tell(format_args!("{operation}: {error} after {time:.1?}")),
            }
        }
        match sent {
            Ok(response) => Ok(Answer { operation, response, sender }),
            Err(source) => Err(Error::Transport { operation, source }),
        }
    }
}

fn is_good(answer: &Answer) -> bool {
    let status = answer.response.status();
    status.is_success() || status.is_informational() || status == StatusCode::NOT_MODIFIED
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("host", &self.shared.host).finish_non_exhaustive()
    }
}
