//! ping, info, version, events, disk usage, auth.

use berth_api::{
    ApiVersion,
    options::{DiskUsageKinds, Events},
};
use futures_util::StreamExt;
use http::{HeaderValue, Response, StatusCode, header};

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
    let form = Form::wanted(context.header("accept"), version);
    let events = context.engine().events(options)?;
    let shaped = events.map(move |event| shape::shape(version, Kind::Event, &event));
    let shaped = shaped.take_until(context.shared.stop.clone().cancelled_owned());
    let mut response = match form {
        Form::Sequence => body::json_sequence(shaped),
        Form::Json | Form::Lines | Form::Newlines => body::json_stream(b"\n", shaped),
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(form.media_type()));
    Ok(response)
}

/// How a stream of JSON values is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// What lines of JSON were called until 1.51.
    Json,
    Lines,
    Newlines,
    /// RFC 7464.
    Sequence,
}

impl Form {
    const fn media_type(self) -> &'static str {
        match self {
            Self::Json => body::JSON,
            Self::Lines => "application/jsonl",
            Self::Newlines => "application/x-ndjson",
            Self::Sequence => "application/json-seq",
        }
    }

    /// The first that `Accept` names; wildcards name none.
    fn wanted(accept: &str, version: ApiVersion) -> Self {
        let default = if version.at_least(52) { Self::Lines } else { Self::Json };
        let named = accept.split(',').map(|part| part.split(';').next().unwrap_or_default().trim());
        let known = [Self::Lines, Self::Newlines, Self::Sequence];
        named
            .filter_map(|name| known.into_iter().find(|form| name.eq_ignore_ascii_case(form.media_type())))
            .next()
            .unwrap_or(default)
    }
}

pub(super) async fn disk_usage(context: Context) -> ApiResult<Response<Body>> {
    let usage = context.engine().disk_usage(kinds(context.query.all("type"))?).await?;
    let verbose = context.query.flag("verbose");
    Ok(body::json(StatusCode::OK, &shape::shape_disk_usage(context.version, verbose, &usage)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_form_that_the_client_names() {
        let (old, new) = (ApiVersion::new(1, 51), ApiVersion::new(1, 52));
        assert_eq!(Form::wanted("", old), Form::Json);
        assert_eq!(Form::wanted("*/*", new), Form::Lines);
        assert_eq!(Form::wanted("text/html, application/json-seq;q=0.9", old), Form::Sequence);
        assert_eq!(Form::wanted("application/x-ndjson", new), Form::Newlines);
    }
}
