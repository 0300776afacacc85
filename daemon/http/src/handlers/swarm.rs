//! Swarm and plugins: answered as a daemon does that is in no swarm and has no plugins.

use http::{Response, StatusCode};

use crate::{
    body::{self, Body},
    error::{ApiError, ApiResult},
};

pub(super) fn not_a_manager() -> ApiResult<Response<Body>> {
    Err(ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node \
         to swarm and try again.",
    ))
}

pub(super) fn not_in_a_swarm() -> ApiResult<Response<Body>> {
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "This node is not part of a swarm"))
}

pub(super) fn no_plugins() -> Response<Body> {
    body::json(StatusCode::OK, &[(); 0])
}

pub(super) fn plugins_are_not_supported() -> ApiResult<Response<Body>> {
    Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "plugins are not supported"))
}

pub(super) fn no_such_plugin(name: &str) -> ApiResult<Response<Body>> {
    Err(ApiError::new(StatusCode::NOT_FOUND, format!("plugin {name:?} not found")))
}
