//! `POST /session`: a client that can be asked during a build.

use std::sync::Arc;

use berth_engine::AskCredentials;

use crate::{
    body,
    context::Context,
    error::{ApiError, ApiResult},
    handlers::{Reply, attach::client_gone},
    session::Asked,
};

pub(super) async fn open(mut context: Context) -> ApiResult<Reply> {
    let id = context.header("x-docker-expose-session-uuid").to_owned();
    match context.header("upgrade") {
        "" => return Err(ApiError::bad_request("no upgrade proto in request")),
        "h2c" => {}
        other => return Err(ApiError::bad_request(format!("protocol {other} not supported"))),
    }
    if id.is_empty() {
        return Err(ApiError::bad_request("the header X-Docker-Expose-Session-Uuid is missing"));
    }
    if context.shared.sessions.has(&id) {
        return Err(ApiError::bad_request(format!("session {id} already exists")));
    }
    body::drain(context.take_body()).await?;
    let mut taken = context.take_over.clone().take().await.map_err(client_gone)?;
    if !taken.ahead.is_empty() {
        return Err(ApiError::bad_request("nothing may be sent before the connection is taken over"));
    }
    let greeting = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    taken.write(greeting.as_bytes()).await.map_err(client_gone)?;
    let shared = Arc::clone(&context.shared);
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = shared.sessions.serve(id, taken.socket) => ended,
            () = shared.stop.cancelled() => Ok(()),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a session has ended");
        }
    });
    Ok(Reply::TakenOver)
}

/// The client that a build names with `session`.
pub(super) fn asked(context: &Context) -> Option<Arc<dyn AskCredentials>> {
    let id = context.query.get("session");
    let sessions = Arc::clone(&context.shared.sessions);
    (!id.is_empty()).then(|| Arc::new(Asked { sessions, id: id.to_owned() }) as Arc<dyn AskCredentials>)
}
