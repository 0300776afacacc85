//! Requests of streaming clients, and how they become something else than HTTP.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::session::{Dialect, Opened};
use super::socket::{self, Subprotocol};
use super::{Streaming, Task, forward, session, spdy};

type Reply = Response<Full<Bytes>>;

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// The protocol of forwarded ports over SPDY.
const PORT_FORWARD: &str = "portforward.k8s.io";

/// Serves one connection.
pub(super) fn serve(server: Arc<Streaming>, stream: TcpStream) {
    tokio::spawn(async move {
        let stop = server.stop.clone();
        let service = service_fn(move |request| {
            let server = Arc::clone(&server);
            async move { Ok::<_, Infallible>(answer(&server, request)) }
        });
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            served = connection.with_upgrades() => {
                if let Err(error) = served {
                    tracing::debug!(%error, "a streaming client");
                }
            }
            () = stop.cancelled() => {}
        }
    });
}

fn refuse(code: StatusCode, text: impl Into<String>) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(text.into() + "\n")));
    *reply.status_mut() = code;
    reply
}

/// All values of a header that may be given as a list or several times.
fn values(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(|word| word.trim().to_owned()).collect()
}

fn answer(server: &Arc<Streaming>, mut request: Request<Incoming>) -> Reply {
    let upgrades = values(request.headers(), &UPGRADE);
    let wants = |name: &str| upgrades.iter().any(|upgrade| upgrade.eq_ignore_ascii_case(name));
    let (spdy, websocket) = (wants("SPDY/3.1"), wants("websocket"));
    if !spdy && !websocket {
        return refuse(StatusCode::BAD_REQUEST, "an upgrade to SPDY/3.1 or websocket is needed");
    }
    let Some(task) = server.take(request.uri().path()) else {
        return refuse(StatusCode::NOT_FOUND, "no such stream: a URL is good once, within a minute");
    };
    let upgrade = hyper::upgrade::on(&mut request);
    if spdy {
        over_spdy(server, task, &request, upgrade)
    } else {
        over_websocket(server, task, &request, upgrade)
    }
}

/// 101, with this header.
fn switch(to: &'static str, name: HeaderName, value: &str) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = reply.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(to));
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
    reply
}

fn over_spdy(server: &Arc<Streaming>, task: Task, request: &Request<Incoming>, upgrade: OnUpgrade) -> Reply {
    let offered = values(request.headers(), &STREAM_PROTOCOL);
    let known: &[&str] = match task {
        Task::Forward { .. } => &[PORT_FORWARD],
        _ => Dialect::SPDY,
    };
    let chosen = match known.iter().find(|name| offered.iter().any(|offer| offer == **name)) {
        Some(chosen) => *chosen,
        // Who offers nothing speaks the only one, or the oldest.
        None if offered.is_empty() => known[known.len() - 1],
        None => {
            let text = format!("none of {offered:?} is spoken, only {known:?}");
            return refuse(StatusCode::FORBIDDEN, text);
        }
    };
    let dialect = Dialect::of(chosen);
    let server = Arc::clone(server);
    tokio::spawn(async move {
        let Ok(io) = upgrade.await else { return };
        let connection = spdy::Connection::over(TokioIo::new(io));
        match task {
            Task::Forward { sandbox } => forward::run(&server, &sandbox, connection).await,
            task => session::run(&server.engine, task, Opened::Spdy(connection), dialect).await,
        }
    });
    switch("SPDY/3.1", STREAM_PROTOCOL, chosen)
}

fn over_websocket(
    server: &Arc<Streaming>,
    task: Task,
    request: &Request<Incoming>,
    upgrade: OnUpgrade,
) -> Reply {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let Some(key) = header("sec-websocket-key") else {
        return refuse(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing");
    };
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let offered = values(request.headers(), &HeaderName::from_static("sec-websocket-protocol"));
    let forwards = matches!(task, Task::Forward { .. });
    let Some(protocol) = Subprotocol::choose(&offered, forwards) else {
        return refuse(StatusCode::FORBIDDEN, format!("none of the subprotocols {offered:?} is spoken"));
    };
    let mut reply = switch("websocket", HeaderName::from_static("sec-websocket-accept"), &accept);
    if let Ok(name) = HeaderValue::from_str(protocol.name()) {
        reply.headers_mut().insert(HeaderName::from_static("sec-websocket-protocol"), name);
    }
    let server = Arc::clone(server);
    tokio::spawn(async move {
        let Ok(io) = upgrade.await else { return };
        let socket = socket::over(TokioIo::new(io)).await;
        match task {
            Task::Forward { sandbox } => {
                let connection = spdy::Connection::over(socket::tunnel(socket));
                forward::run(&server, &sandbox, connection).await;
            }
            task => {
                let dialect = protocol.dialect();
                session::run(&server.engine, task, Opened::Socket(Box::new(socket), protocol), dialect).await;
            }
        }
    });
    reply
}
