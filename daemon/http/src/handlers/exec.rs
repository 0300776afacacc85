//! Execs.

use berth_api::{
    IdResponse,
    exec::{ExecConfig, ExecStartRequest},
};
use http::{Response, StatusCode};

use crate::{
    body::{self, Body},
    context::Context,
    error::{ApiError, ApiResult},
    handlers::{Reply, attach, common_headers, containers},
};

pub(super) async fn create(mut context: Context) -> ApiResult<Response<Body>> {
    let config: ExecConfig = context.json().await?;
    if config.cmd.as_deref().unwrap_or_default().is_empty() {
        return Err(ApiError::bad_request("No exec command specified"));
    }
    let id = context.engine().create_exec(context.name(), config).await?;
    Ok(body::json(StatusCode::CREATED, &IdResponse { id }))
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
    let taken = context.take_over.clone().take().await.map_err(attach::client_gone)?;
    let further: String = common_headers()
        .iter()
        .map(|(name, value)| format!("{}: {}\r\n", title_case(name), value.to_str().unwrap_or_default()))
        .collect();
    let upgrade = context.headers.contains_key("upgrade");
    let greeting = attach::head(context.version, request.tty, upgrade, &further);
    let (socket, ahead) = taken.into_parts().map_err(attach::client_gone)?;
    let errors = socket.try_clone().map_err(attach::client_gone)?;
    let started = engine
        .start_exec(
            &exec.id,
            request.tty,
            request.console_size,
            socket,
            greeting.into_bytes(),
            ahead.to_vec(),
        )
        .await;
    if let Err(error) = started {
        attach::report(errors, request.tty, &error.to_string());
    }
    Ok(Reply::TakenOver)
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
