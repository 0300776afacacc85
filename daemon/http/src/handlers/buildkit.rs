//! Connections that BuildKit's protocol takes over.

use berth_buildkit::Hello;
use http::StatusCode;

use crate::{
    body,
    context::Context,
    error::{ApiError, ApiResult},
    handlers::{Reply, attach::client_gone},
    takeover::Taken,
};

/// The head of a connection that speaks HTTP/2 from here on.
const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";

/// `POST /grpc`: the daemon is the server.
pub(super) async fn grpc(context: Context) -> ApiResult<Reply> {
    let (buildkit, stop) = (context.shared.buildkit.clone(), context.shared.stop.clone());
    let taken = upgrade(context).await?;
    // Not in the handler's time: it has answered.
    tokio::spawn(async move { buildkit.serve(taken.into_stream(), stop).await });
    Ok(Reply::TakenOver)
}

/// `POST /session`: the daemon is the client.
pub(super) async fn session(context: Context) -> ApiResult<Reply> {
    let hello = Hello::read(&context.headers)
        .ok_or_else(|| ApiError::bad_request("the session has no name (X-Docker-Expose-Session-Uuid)"))?;
    let (buildkit, stop) = (context.shared.buildkit.clone(), context.shared.stop.clone());
    let taken = upgrade(context).await?;
    tokio::spawn(async move { buildkit.session(taken.into_stream(), hello, stop).await });
    Ok(Reply::TakenOver)
}

async fn upgrade(mut context: Context) -> ApiResult<Taken> {
    if !context.header("upgrade").eq_ignore_ascii_case("h2c") {
        let text = "this endpoint speaks HTTP/2 on the same connection: send Upgrade: h2c";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, text));
    }
    body::drain(context.take_body()).await?;
    let mut taken = context.take_over.clone().take().await.map_err(client_gone)?;
    taken.write(UPGRADED).await.map_err(client_gone)?;
    Ok(taken)
}
