//! Execs.

use std::os::fd::OwnedFd;

use berth_api::{
    IdResponse,
    exec::{self, ExecConfig, ExecStartRequest},
};
use berth_engine::{ExecClient, ExecReader};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};

use crate::{
    body::{self, Body},
    context::Context,
    error::{ApiError, ApiResult},
    handlers::{Reply, attach, common_headers, containers},
};

pub(super) async fn create(mut context: Context) -> ApiResult<Reply> {
    let config: ExecConfig = context.json().await?;
    if config.cmd.as_deref().unwrap_or_default().is_empty() {
        return Err(ApiError::bad_request("No exec command specified"));
    }
    let id = context.engine().create_exec(context.name(), config).await?;
    if context.header("upgrade") == exec::RUN {
        return run(&context, &id).await;
    }
    Ok(body::json(StatusCode::CREATED, &IdResponse { id }).into())
}

/// Runs what was just created on the connection that asked for it.
async fn run(context: &Context, id: &str) -> ApiResult<Reply> {
    let (stream, ahead) = take(context).await?;
    let greeting = format!(
        "HTTP/1.1 101 UPGRADED\r\nContent-Type: {}\r\nConnection: Upgrade\r\nUpgrade: {}\r\n{}: {id}\r\n{}\r\n",
        attach::MULTIPLEXED,
        exec::RUN,
        title_case(exec::RUN_ID),
        further_headers(),
    );
    let reads = ExecReader::ToTheExitCode;
    let client = ExecClient { stream, greeting: greeting.into_bytes(), ahead: ahead.to_vec(), reads };
    start_on(context, id, None, client).await
}

/// The connection, which is the exec's from now on, and what was read of its input.
async fn take(context: &Context) -> ApiResult<(OwnedFd, Bytes)> {
    let taken = context.take_over.clone().take().await.map_err(attach::client_gone)?;
    taken.into_parts().map_err(attach::client_gone)
}

/// Runs an exec for a client; what comes between is told as its output.
async fn start_on(
    context: &Context,
    id: &str,
    console_size: Option<[u16; 2]>,
    client: ExecClient,
) -> ApiResult<Reply> {
    let errors = client.stream.try_clone().map_err(attach::client_gone)?;
    let raw = client.reads == ExecReader::Raw;
    if let Err(error) = context.engine().start_exec(id, console_size, client).await {
        attach::report(errors, raw, &error.to_string());
    }
    Ok(Reply::TakenOver)
}

pub(super) async fn start(mut context: Context) -> ApiResult<Reply> {
    let request: ExecStartRequest = context.json_or_default().await?;
    if request.console_size.is_some() && !request.tty {
        return Err(ApiError::bad_request("console size is only supported when allocating a TTY"));
    }
    let engine = context.engine();
    // Unknown, ended, paused: still an ordinary error.
    let exec = engine.inspect_exec(context.name()).await?;
    if request.detach {
        engine.start_exec_detached(&exec.id, request.console_size).await?;
        return Ok(body::empty(StatusCode::OK).into());
    }
    let (stream, ahead) = take(&context).await?;
    let upgrade = context.headers.contains_key("upgrade");
    let greeting = attach::head(context.version, request.tty, upgrade, &further_headers());
    // What the client that starts it says counts: it is the one that reads.
    let reads = if request.tty { ExecReader::Raw } else { ExecReader::Framed };
    let client = ExecClient { stream, greeting: greeting.into_bytes(), ahead: ahead.to_vec(), reads };
    start_on(&context, &exec.id, request.console_size, client).await
}

/// The lines that every answer's head has.
fn further_headers() -> String {
    let line = |(name, value): &(&str, HeaderValue)| {
        format!("{}: {}\r\n", title_case(name), value.to_str().unwrap_or_default())
    };
    common_headers().iter().map(line).collect()
}

/// `api-version` → `Api-Version`, as hyper writes the other answers' headers.
fn title_case(name: &str) -> String {
    let word = |word: &str| {
        let mut chars = word.chars();
        let first = chars.next().map(|c| c.to_ascii_uppercase());
        first.into_iter().chain(chars).collect::<String>()
    };
    name.split('-').map(word).collect::<Vec<_>>().join("-")
}

pub(super) async fn resize(context: Context) -> ApiResult<Response<Body>> {
    let (rows, columns) = containers::window_size(&context)?;
    context.engine().resize_exec(context.name(), rows, columns).await?;
    Ok(body::empty(StatusCode::OK))
}

pub(super) async fn inspect(context: Context) -> ApiResult<Response<Body>> {
    Ok(body::json(StatusCode::OK, &context.engine().inspect_exec(context.name()).await?))
}
