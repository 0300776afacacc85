//! What a handler gets: the engine, the request, and a way to take the connection over.

use std::sync::Arc;

use berth_api::ApiVersion;
use berth_buildkit::BuildKit;
use berth_engine::Engine;
use http::{HeaderMap, header};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    body,
    error::ApiResult,
    query::Query,
    router::{self, Match},
    server::ShutdownMode,
    takeover::TakeOver,
};

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) engine: Arc<Engine>,
    pub(crate) buildkit: BuildKit,
    /// `POST /berth/shutdown` speaks here to whoever runs the daemon.
    pub(crate) shutdown: mpsc::Sender<ShutdownMode>,
    /// The server is to end: streams that would not, do.
    pub(crate) stop: CancellationToken,
}

/// One request.
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) version: ApiVersion,
    pub(crate) variables: Vec<String>,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) take_over: TakeOver,
    body: Option<Incoming>,
}

impl Context {
    pub(crate) fn new(
        shared: Arc<Shared>,
        matched: Match,
        parts: http::request::Parts,
        body: Incoming,
        take_over: TakeOver,
    ) -> Self {
        let Match { version, variables, .. } = matched;
        let user_agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let version = router::readable(version, user_agent.unwrap_or_default());
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        Self { shared, version, variables, query, headers: parts.headers, take_over, body: Some(body) }
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.shared.engine
    }

    /// The path's variable; every endpoint that asks for it has one.
    pub(crate) fn name(&self) -> &str {
        self.variables.first().map_or("", String::as_str)
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body, once.
    pub(crate) fn take_body(&mut self) -> Incoming {
        self.body.take().expect("each handler reads the body once")
    }

    /// Reads a JSON body that must be there.
    pub(crate) async fn json<T: DeserializeOwned>(&mut self) -> ApiResult<T> {
        let body = self.take_body();
        body::read_json(&self.headers, body).await
    }

    /// Reads a JSON body that may be absent.
    pub(crate) async fn json_or_default<T: DeserializeOwned + Default>(&mut self) -> ApiResult<T> {
        let body = self.take_body();
        body::read_json_or_default(&self.headers, body).await
    }
}

/// A handler that refuses a request without looking at its body: the client still writes it, and must not find the
/// connection closed before it has read the answer.
impl Drop for Context {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            body::forget(body);
        }
    }
}
