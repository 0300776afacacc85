//! Sessions: a client that builds opens `POST /session`, and from then on the roles are swapped. The client serves
//! gRPC (BuildKit's `session`) on the connection, and the daemon asks it for what the build needs.
//!
//! The daemon asks for credentials only (`moby.filesync.v1.Auth`, BuildKit's `session/auth/auth.proto`): the build
//! context comes with the request.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use berth_api::registry::AuthConfig;
use berth_engine::{AskCredentials, EngineError, Kind};
use futures_util::{FutureExt, future::BoxFuture};
use http::{Uri, uri::PathAndQuery};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::{Code, body::Body, client::Grpc};
use tonic_prost::ProstCodec;

use crate::takeover::Socket;

/// How long a client may take to answer: it may have to ask a helper, which may have to ask a person.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, PartialEq, prost::Message)]
struct CredentialsRequest {
    #[prost(string, tag = "1")]
    host: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CredentialsResponse {
    #[prost(string, tag = "1")]
    username: String,
    #[prost(string, tag = "2")]
    secret: String,
}

/// The sessions that are open, by the ids their clients chose.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<String, SendRequest<Body>>>);

impl Sessions {
    /// Whether a session of this id is open.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.open().contains_key(id)
    }

    /// Speaks to the client on this connection until it ends.
    pub(crate) async fn serve(&self, id: String, socket: Socket) -> hyper::Result<()> {
        let (requests, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await?;
        let ours = match self.open().entry(id.clone()) {
            Entry::Vacant(free) => {
                free.insert(requests);
                true
            }
            // Somebody was quicker; this connection ends with its only sender.
            Entry::Occupied(_) => false,
        };
        let ended = connection.await;
        if ours {
            self.open().remove(&id);
        }
        ended
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, SendRequest<Body>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn credentials(&self, id: &str, host: &str) -> Result<Option<AuthConfig>, EngineError> {
        let Some(requests) = self.open().get(id).cloned() else { return Ok(None) };
        let failed = |why: String| {
            EngineError::new(
                Kind::Internal,
                format!("asking the client for the credentials of {host}: {why}"),
            )
        };
        // What every client of BuildKit takes docker's own registry for.
        let host = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let request = tonic::Request::new(CredentialsRequest { host: host.to_owned() });
        match tokio::time::timeout(PATIENCE, call(requests, request)).await {
            Err(_) => Err(failed(format!("no answer within {} seconds", PATIENCE.as_secs()))),
            // A client that serves no credentials has none.
            Ok(Err(status)) if status.code() == Code::Unimplemented => Ok(None),
            Ok(Err(status)) => Err(failed(status.message().to_owned())),
            Ok(Ok(answer)) => Ok(auth(answer)),
        }
    }
}

async fn call(
    requests: SendRequest<Body>,
    request: tonic::Request<CredentialsRequest>,
) -> Result<CredentialsResponse, tonic::Status> {
    let service = tower::service_fn(move |request| {
        let mut requests = requests.clone();
        async move { requests.send_request(request).await }
    });
    let mut client = Grpc::with_origin(service, Uri::from_static("http://session"));
    client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static("/moby.filesync.v1.Auth/Credentials");
    let codec = ProstCodec::<CredentialsRequest, CredentialsResponse>::default();
    Ok(client.unary(request, path, codec).await?.into_inner())
}

/// A secret without a name is an identity token.
fn auth(CredentialsResponse { username, secret }: CredentialsResponse) -> Option<AuthConfig> {
    match (username.is_empty(), secret.is_empty()) {
        (_, true) => None,
        (true, false) => Some(AuthConfig { identity_token: secret, ..AuthConfig::default() }),
        (false, false) => Some(AuthConfig { username, password: secret, ..AuthConfig::default() }),
    }
}

/// One session, for the build that named it.
pub(crate) struct Asked {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) id: String,
}

impl AskCredentials for Asked {
    fn ask<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Option<AuthConfig>, EngineError>> {
        self.sessions.credentials(&self.id, host).boxed()
    }
}
