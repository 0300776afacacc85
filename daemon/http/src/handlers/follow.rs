//! What goes on while a container lives: wait, logs, stats.

use berth_api::{
    options::{Logs, Stats, WaitCondition},
    stdcopy,
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::Response;

use crate::{
    body::{self, Body},
    context::Context,
    error::{ApiError, ApiResult},
    handlers::attach,
};

/// So many lines go in one piece at most.
const LINES: usize = 256;

/// The head goes out at once, so that the client knows that the wait is registered; the body with the exit.
pub(super) async fn wait(context: Context) -> ApiResult<Response<Body>> {
    let condition = context.query.get("condition");
    let condition = condition.parse::<WaitCondition>().map_err(ApiError::bad_request)?;
    let exit = context.engine().wait_container(context.name(), condition).await?;
    Ok(body::json_stream(b"\n", exit.into_stream()))
}

pub(super) async fn logs(context: Context) -> ApiResult<Response<Body>> {
    let query = &context.query;
    let options = Logs {
        follow: query.flag("follow"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        since: query.when("since")?,
        until: query.when("until")?,
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
        tail: query.get("tail").parse().unwrap_or_else(|never| match never {}),
    };
    if !options.stdout && !options.stderr {
        return Err(ApiError::bad_request("must specify at least one of 'stdout' or 'stderr'"));
    }
    let logs = context.engine().container_logs(context.name(), options).await?;
    let tty = logs.tty();
    // What is there already goes in one piece; its lines stay frames of their own.
    let pieces = stream::StreamExt::ready_chunks(logs, LINES).map(move |lines| {
        let mut piece = Vec::new();
        for line in lines {
            let (stream, bytes) = match line {
                Ok(line) => line,
                // The head has gone out: the failure is a frame of its own kind.
                Err(error) => {
                    let text = format!("Error grabbing logs: {error}\n");
                    (stdcopy::Stream::SystemError, Bytes::from(text))
                }
            };
            if tty {
                piece.extend_from_slice(&bytes);
            } else {
                stdcopy::encode(stream, &bytes, &mut piece);
            }
        }
        Ok(Bytes::from(piece))
    });
    let kind = attach::content_type(context.version, tty);
    Ok(body::stream(kind, pieces.take_until(context.shared.stop.clone().cancelled_owned())))
}

pub(super) async fn stats(context: Context) -> ApiResult<Response<Body>> {
    let options =
        Stats { stream: context.query.flag_or("stream", true), one_shot: context.query.flag("one-shot") };
    if options.stream && options.one_shot {
        return Err(ApiError::bad_request("cannot have stream=true and one-shot=true"));
    }
    let samples = context.engine().container_stats(context.name(), options).await?;
    let stop = context.shared.stop.clone().cancelled_owned();
    Ok(body::json_stream(b"\n", stream::StreamExt::take_until(samples, stop)))
}
