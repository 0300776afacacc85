//! ping, info, version, events, disk usage, auth.

use berth_api::options::{DiskUsageKinds, Events};
use futures_util::StreamExt;
use http::{HeaderValue, Response, StatusCode};

use crate::{
    body::{self, Body},
    context::Context,
    error::{ApiError, ApiResult},
    shape::{self, Kind},
};

pub(super) fn ping() -> Response<Body> {
    let mut response = body::text(StatusCode::OK, "OK".to_owned());
    let headers = response.headers_mut();
    for (name, value) in [
        ("builder-version", "2"),
        ("swarm", "inactive"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

pub(super) async fn info(context: Context) -> ApiResult<Response<Body>> {
    let info = context.engine().info().await?;
    Ok(body::json(StatusCode::OK, &shape::shape(context.version, Kind::Info, &info)))
}

pub(super) async fn version(context: Context) -> ApiResult<Response<Body>> {
    Ok(body::json(StatusCode::OK, &context.engine().version()))
}

pub(super) async fn auth(mut context: Context) -> ApiResult<Response<Body>> {
    let auth = context.json().await?;
    Ok(body::json(StatusCode::OK, &context.engine().auth(&auth).await?))
}

pub(super) async fn events(context: Context) -> ApiResult<Response<Body>> {
    let query = &context.query;
    let options =
        Events { since: query.when("since")?, until: query.when("until")?, filters: query.filters()? };
    let version = context.version;
    let events = context.engine().events(options)?;
    let shaped = events.map(move |event| shape::shape(version, Kind::Event, &event));
    Ok(body::json_stream(b"\n", shaped.take_until(context.shared.stop.clone().cancelled_owned())))
}

pub(super) async fn disk_usage(context: Context) -> ApiResult<Response<Body>> {
    let usage = context.engine().disk_usage(kinds(context.query.all("type"))?).await?;
    Ok(body::json(StatusCode::OK, &shape::shape_disk_usage(context.version, &usage)))
}

fn kinds(types: &[String]) -> ApiResult<DiskUsageKinds> {
    if types.is_empty() {
        return Ok(DiskUsageKinds::default());
    }
    let mut kinds = DiskUsageKinds { containers: false, images: false, volumes: false, build_cache: false };
    for kind in types {
        match kind.as_str() {
            "container" => kinds.containers = true,
            "image" => kinds.images = true,
            "volume" => kinds.volumes = true,
            "build-cache" => kinds.build_cache = true,
            other => return Err(ApiError::bad_request(format!("unknown object type: {other}"))),
        }
    }
    Ok(kinds)
}
