//! The daemon as a server: all services over one connection that was taken over from HTTP/1.

use std::sync::Arc;

use berth_api::registry::RegistryAuths;
use berth_engine::{Engine, Logins};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::MAX_MESSAGE;
use crate::auth::GivenLogins;
use crate::bridge::Bridge;
use crate::control::Control;
use crate::filesync::Mirrors;
use crate::jobs::Jobs;
use crate::protocol::control::control_server::ControlServer;
use crate::protocol::frontend::llb_bridge_server::LlbBridgeServer;
use crate::protocol::grpc::health::v1::health_check_response::ServingStatus;
use crate::protocol::grpc::health::v1::health_server::{Health, HealthServer};
use crate::protocol::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};
use crate::session::{Hello, Sessions};

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) engine: Arc<Engine>,
    pub(crate) sessions: Sessions,
    pub(crate) jobs: Jobs,
    pub(crate) mirrors: Arc<Mirrors>,
}

/// BuildKit's protocol over an engine. Cheap to clone.
#[derive(Clone)]
pub struct BuildKit {
    shared: Arc<Shared>,
}

impl BuildKit {
    /// Over this engine.
    #[must_use]
    pub fn new(engine: Arc<Engine>) -> Self {
        let mirrors = Arc::new(Mirrors::new(engine.root().join("builds").join("contexts")));
        let shared = Shared { engine, sessions: Sessions::default(), jobs: Jobs::default(), mirrors };
        Self { shared: Arc::new(shared) }
    }

    /// Serves a connection that was taken over, until either side ends it. Whatever was asked for over it ends with it.
    pub async fn serve(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        stop: CancellationToken,
    ) {
        let control = ControlServer::new(Control::new(Arc::clone(&self.shared), stop.clone()))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let bridge = LlbBridgeServer::new(Bridge::new(Arc::clone(&self.shared)))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let routes = Routes::new(control).add_service(bridge).add_service(HealthServer::new(Alive)).prepare();
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(io), TowerToHyperService::new(routes));
        tokio::select! {
            ended = connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection of BuildKit's protocol has ended");
                }
            }
            () = stop.cancelled() => {}
        }
    }

    /// Speaks with a client that offers its files and secrets over a connection that was taken over, until either side
    /// ends it.
    pub async fn session(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        hello: Hello,
        stop: CancellationToken,
    ) {
        self.shared.sessions.run(io, hello, stop).await;
    }

    /// The credentials of a build over `POST /build`: those that came with it, then those of the session it names.
    #[must_use]
    pub fn logins(&self, given: RegistryAuths, session: &str) -> Arc<dyn Logins> {
        Arc::new(GivenLogins { given, shared: Arc::clone(&self.shared), session: session.to_owned() })
    }

    /// Forgets the contexts of clients that no build is using; returns how many bytes are free now.
    pub async fn prune(&self) -> u64 {
        self.shared.prune_contexts().await
    }
}

impl Shared {
    pub(crate) async fn prune_contexts(&self) -> u64 {
        let mirrors = Arc::clone(&self.mirrors);
        tokio::task::spawn_blocking(move || mirrors.prune()).await.unwrap_or(0)
    }
}

impl std::fmt::Debug for BuildKit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuildKit").finish_non_exhaustive()
    }
}

/// Whoever can ask is served.
struct Alive;

#[tonic::async_trait]
impl Health for Alive {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }
}
