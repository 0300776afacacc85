//! One file per resource: a request's parameters to an engine call, its result to an answer.

mod archive;
mod attach;
mod berth;
mod build;
mod buildkit;
mod containers;
mod exec;
mod follow;
mod images;
mod networks;
mod progress;
mod swarm;
mod system;
mod transfer;
mod upload;
mod volumes;
mod websocket;

use std::sync::Arc;

use berth_api::{ApiVersion, endpoint::Endpoint};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::{
    body::{self, Body},
    context::{Context, Shared},
    error::{ApiError, ApiResult},
    router::{self, Unroutable},
    takeover::TakeOver,
};

/// What `Server` says. Clients only look for a text.
pub(crate) const SERVER: &str = concat!("Berth/", env!("CARGO_PKG_VERSION"), " (linux)");

/// What a handler hands back.
pub(crate) enum Reply {
    Response(Response<Body>),
    /// The connection belongs to the handler now; hyper has nothing more to say.
    TakenOver,
}

impl From<Response<Body>> for Reply {
    fn from(response: Response<Body>) -> Self {
        Self::Response(response)
    }
}

/// Answers one request. Never fails: a failure is an answer.
pub(crate) async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    take_over: TakeOver,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let line = format!("{} {}", parts.method, parts.uri);
    let matched = match router::route(&parts.method, parts.uri.path()) {
        Ok(matched) => matched,
        Err(unroutable) => {
            body::forget(body);
            return common(match unroutable {
                Unroutable::Redirect(to) => redirect(&to, parts.uri.query()),
                Unroutable::Refused(error) => error.into_response(),
            });
        }
    };
    let endpoint = matched.endpoint;
    let context = Context::new(shared, matched, parts, body, take_over);
    // In a task of its own: hyper drops this future when the client goes, the work goes on.
    let result = match tokio::spawn(dispatch(endpoint, context)).await {
        Ok(result) => result,
        Err(panic) => Err(ApiError::internal(format!("internal error: {panic}"))),
    };
    match result {
        Ok(Reply::Response(response)) => {
            tracing::debug!(request = line, status = response.status().as_u16());
            common(response)
        }
        Ok(Reply::TakenOver) => std::future::pending().await,
        Err(error) => {
            tracing::debug!(request = line, status = error.status().as_u16(), error = error.message());
            common(error.into_response())
        }
    }
}

/// Adds the headers that every answer has.
fn common(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    for (name, value) in common_headers() {
        headers.insert(name, value);
    }
    response
}

/// Name and value of the headers that every answer has.
pub(crate) fn common_headers() -> [(&'static str, HeaderValue); 4] {
    let version = HeaderValue::from_str(&ApiVersion::MAX.to_string()).expect("a version is ASCII");
    [
        ("api-version", version),
        ("docker-experimental", HeaderValue::from_static("false")),
        ("ostype", HeaderValue::from_static("linux")),
        ("server", HeaderValue::from_static(SERVER)),
    ]
}

fn redirect(path: &str, query: Option<&str>) -> Response<Body> {
    let to = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut response = body::empty(StatusCode::MOVED_PERMANENTLY);
    if let Ok(to) = HeaderValue::from_str(&to) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}

async fn dispatch(endpoint: Endpoint, context: Context) -> ApiResult<Reply> {
    use Endpoint as E;
    let response = match endpoint {
        E::ContainerAttach => return attach::attach(context).await,
        E::ContainerAttachWs => return websocket::attach(context).await,
        E::ExecStart => return exec::start(context).await,
        E::ExecCreate => return exec::create(context).await,
        E::Ping => system::ping(),
        E::Auth => system::auth(context).await?,
        E::Info => system::info(context).await?,
        E::Version => system::version(context).await?,
        E::Events => system::events(context).await?,
        E::DiskUsage => system::disk_usage(context).await?,
        E::ContainerList => containers::list(context).await?,
        E::ContainerCreate => containers::create(context).await?,
        E::ContainerPrune => containers::prune(context).await?,
        E::ContainerInspect => containers::inspect(context).await?,
        E::ContainerTop => containers::top(context).await?,
        E::ContainerLogs => follow::logs(context).await?,
        E::ContainerChanges => containers::changes(context).await?,
        E::ContainerExport => archive::export(context).await?,
        E::ContainerStats => follow::stats(context).await?,
        E::ContainerResize => containers::resize(context).await?,
        E::ContainerStart => containers::start(context).await?,
        E::ContainerStop => containers::stop(context).await?,
        E::ContainerRestart => containers::restart(context).await?,
        E::ContainerKill => containers::kill(context).await?,
        E::ContainerUpdate => containers::update(context).await?,
        E::ContainerRename => containers::rename(context).await?,
        E::ContainerPause => containers::pause(context).await?,
        E::ContainerUnpause => containers::unpause(context).await?,
        E::ContainerWait => follow::wait(context).await?,
        E::ContainerRemove => containers::remove(context).await?,
        E::ExecResize => exec::resize(context).await?,
        E::ExecInspect => exec::inspect(context).await?,
        E::ArchiveStat => archive::stat(context).await?,
        E::ArchiveGet => archive::get(context).await?,
        E::ArchivePut => archive::put(context).await?,
        E::ImageList => images::list(context).await?,
        E::ImageCreate => transfer::create(context).await?,
        E::ImageSearch => images::search(context).await?,
        E::ImagePrune => images::prune(context).await?,
        E::ImageSave => transfer::save(context).await?,
        E::ImageSaveOne => transfer::save_one(context).await?,
        E::ImageLoad => transfer::load(context).await?,
        E::ImageInspect => images::inspect(context).await?,
        E::ImageHistory => images::history(context).await?,
        E::ImageAttestations => images::attestations(context).await?,
        E::ImagePush => transfer::push(context).await?,
        E::ImageTag => images::tag(context).await?,
        E::ImageRemove => images::remove(context).await?,
        E::Distribution => images::distribution(context).await?,
        E::Commit => images::commit(context).await?,
        E::Build => build::build(context).await?,
        E::BuildPrune => build::prune(context).await?,
        E::BuildCancel => build::cancel(context).await?,
        E::NetworkList => networks::list(context).await?,
        E::NetworkCreate => networks::create(context).await?,
        E::NetworkPrune => networks::prune(context).await?,
        E::NetworkInspect => networks::inspect(context).await?,
        E::NetworkConnect => networks::connect(context).await?,
        E::NetworkDisconnect => networks::disconnect(context).await?,
        E::NetworkRemove => networks::remove(context).await?,
        E::VolumeList => volumes::list(context).await?,
        E::VolumeCreate => volumes::create(context).await?,
        E::VolumePrune => volumes::prune(context).await?,
        E::VolumeInspect => volumes::inspect(context).await?,
        E::VolumeUpdate | E::Swarm => swarm::not_a_manager()?,
        E::SwarmLeave => swarm::not_in_a_swarm()?,
        E::VolumeRemove => volumes::remove(context).await?,
        E::PluginList => swarm::no_plugins(),
        E::PluginAdd => swarm::plugins_are_not_supported()?,
        E::Plugin => swarm::no_such_plugin(context.name())?,
        E::BuildKit => return buildkit::grpc(context).await,
        E::BuildSession => return buildkit::session(context).await,
        E::BerthBuild => return build::local(context).await,
        E::BerthBuilds => build::history(context).await?,
        E::BerthBuildLog => build::log(context).await?,
        E::BerthShutdown => berth::shutdown(context).await?,
        E::BerthCheck => berth::check(context).await?,
    };
    Ok(response.into())
}
