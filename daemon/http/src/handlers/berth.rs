//! What Berth has beyond docker's API.

use berth_api::options::CheckStore;
use http::{Response, StatusCode};

use crate::{
    body::{self, Body},
    context::Context,
    error::{ApiError, ApiResult},
    server::ShutdownMode,
};

/// `POST /berth/shutdown?containers=stop|keep`: the answer comes first, the end right after.
pub(super) async fn shutdown(context: Context) -> ApiResult<Response<Body>> {
    let mode = match context.query.get("containers") {
        "" | "keep" => ShutdownMode::KeepContainers,
        "stop" => ShutdownMode::StopContainers,
        other => {
            return Err(ApiError::bad_request(format!("invalid containers={other:?}: use stop or keep")));
        }
    };
    // A full channel means that somebody else asked before; that is as good.
    context.shared.shutdown.try_send(mode).ok();
    Ok(body::no_content())
}

/// `POST /berth/check?repair=&quick=`: proves the image store.
pub(super) async fn check(context: Context) -> ApiResult<Response<Body>> {
    let query = &context.query;
    let options = CheckStore { repair: query.flag("repair"), quick: query.flag("quick") };
    Ok(body::json(StatusCode::OK, &context.engine().check_store(options).await?))
}
