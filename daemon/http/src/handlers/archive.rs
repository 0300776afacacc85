//! Files in and out of containers.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use berth_api::{archive::PathStat, options::PutArchive};
use http::{HeaderValue, Response, StatusCode};

use crate::{
    body::{self, Body},
    context::Context,
    error::{ApiError, ApiResult},
    handlers::upload::BodyReader,
};

const STAT_HEADER: &str = "x-docker-container-path-stat";

fn path(context: &Context) -> ApiResult<&str> {
    match context.query.get("path") {
        "" => Err(ApiError::bad_request("bad parameter: path cannot be empty")),
        path => Ok(path),
    }
}

fn with_stat(mut response: Response<Body>, stat: &PathStat) -> Response<Body> {
    let json = serde_json::to_vec(stat).expect("texts and numbers serialise");
    let value = HeaderValue::from_str(&STANDARD.encode(json)).expect("base64 is ASCII");
    response.headers_mut().insert(STAT_HEADER, value);
    response
}

pub(super) async fn stat(context: Context) -> ApiResult<Response<Body>> {
    let stat = context.engine().container_path_stat(context.name(), path(&context)?).await?;
    Ok(with_stat(body::empty(StatusCode::OK), &stat))
}

pub(super) async fn get(context: Context) -> ApiResult<Response<Body>> {
    let (stat, tar) = context.engine().get_archive(context.name(), path(&context)?).await?;
    Ok(with_stat(body::stream(body::TAR, tar), &stat))
}

pub(super) async fn put(mut context: Context) -> ApiResult<Response<Body>> {
    let options = PutArchive {
        path: path(&context)?.to_owned(),
        no_overwrite_dir_non_dir: context.query.flag("noOverwriteDirNonDir"),
        copy_uid_gid: context.query.flag("copyUIDGID"),
    };
    let tar = BodyReader::new(context.take_body());
    context.engine().put_archive(context.name(), options, tar).await?;
    Ok(body::empty(StatusCode::OK))
}

pub(super) async fn export(context: Context) -> ApiResult<Response<Body>> {
    let tar = context.engine().export_container(context.name()).await?;
    Ok(body::stream("application/octet-stream", tar))
}
