//! Volumes.

use berth_api::volume::VolumeCreateRequest;
use http::{Response, StatusCode};

use crate::{
    body::{self, Body},
    context::Context,
    error::ApiResult,
};

pub(super) async fn list(context: Context) -> ApiResult<Response<Body>> {
    let volumes = context.engine().list_volumes(&context.query.filters()?).await?;
    Ok(body::json(StatusCode::OK, &volumes))
}

pub(super) async fn inspect(context: Context) -> ApiResult<Response<Body>> {
    Ok(body::json(StatusCode::OK, &context.engine().inspect_volume(context.name()).await?))
}

pub(super) async fn create(mut context: Context) -> ApiResult<Response<Body>> {
    let request: VolumeCreateRequest = context.json_or_default().await?;
    Ok(body::json(StatusCode::CREATED, &context.engine().create_volume(request).await?))
}

pub(super) async fn remove(context: Context) -> ApiResult<Response<Body>> {
    context.engine().remove_volume(context.name(), context.query.flag("force")).await?;
    Ok(body::no_content())
}

pub(super) async fn prune(context: Context) -> ApiResult<Response<Body>> {
    let mut filters = context.query.filters()?;
    if !context.version.at_least(42) {
        // Before 1.42 pruning took named volumes as well.
        filters.add("all", "true");
    }
    Ok(body::json(StatusCode::OK, &context.engine().prune_volumes(&filters).await?))
}
