//! Images: list, inspect, tag, remove, commit.

use berth_api::{
    IdResponse,
    options::{Commit, ListImages, RemoveImage},
};
use http::{Response, StatusCode};

use crate::{
    body::{self, Body},
    context::Context,
    error::{ApiError, ApiResult},
    handlers::transfer,
    shape::{self, Kind},
};

pub(super) async fn list(context: Context) -> ApiResult<Response<Body>> {
    let query = &context.query;
    let mut filters = query.filters()?;
    if !context.version.at_least(28) && query.has("filter") {
        filters.add("reference", query.get("filter"));
    }
    let options = ListImages {
        all: query.flag("all"),
        filters,
        shared_size: query.flag("shared-size"),
        digests: query.flag("digests"),
        manifests: query.flag("manifests"),
    };
    let images = context.engine().list_images(&options).await?;
    Ok(body::json(StatusCode::OK, &shape::shape_list(context.version, Kind::ImageSummary, &images)))
}

pub(super) async fn inspect(context: Context) -> ApiResult<Response<Body>> {
    let (platform, manifests) = (context.query.get("platform"), context.query.flag("manifests"));
    let inspect = context.engine().inspect_image(context.name(), platform, manifests).await?;
    Ok(body::json(StatusCode::OK, &shape::shape(context.version, Kind::ImageInspect, &inspect)))
}

pub(super) async fn attestations(context: Context) -> ApiResult<Response<Body>> {
    let query = &context.query;
    let platform = match query.all("platform") {
        [] => "",
        [platform] => platform,
        _ => return Err(ApiError::bad_request("only one platform value is currently supported")),
    };
    let kinds = query.all("type").iter().map(|kind| kind.trim().to_owned()).filter(|kind| !kind.is_empty());
    let (kinds, whole) = (kinds.collect(), query.flag("statement"));
    let statements = context.engine().image_attestations(context.name(), platform, kinds, whole).await?;
    Ok(body::json(StatusCode::OK, &statements))
}

pub(super) async fn history(context: Context) -> ApiResult<Response<Body>> {
    Ok(body::json(
        StatusCode::OK,
        &context.engine().image_history(context.name(), context.query.get("platform")).await?,
    ))
}

pub(super) async fn tag(context: Context) -> ApiResult<Response<Body>> {
    let query = &context.query;
    context.engine().tag_image(context.name(), query.get("repo"), query.get("tag")).await?;
    Ok(body::empty(StatusCode::CREATED))
}

pub(super) async fn remove(context: Context) -> ApiResult<Response<Body>> {
    let query = &context.query;
    let platforms = match context.version.at_least(50) {
        true => query.list("platforms"),
        false => Vec::new(),
    };
    let options = RemoveImage { force: query.flag("force"), no_prune: query.flag("noprune"), platforms };
    Ok(body::json(StatusCode::OK, &context.engine().remove_image(context.name(), options).await?))
}

pub(super) async fn prune(context: Context) -> ApiResult<Response<Body>> {
    let pruned = context.engine().prune_images(&context.query.filters()?).await?;
    Ok(body::json(StatusCode::OK, &pruned))
}

pub(super) async fn search(context: Context) -> ApiResult<Response<Body>> {
    let query = &context.query;
    let limit = query.number("limit")?.unwrap_or(25);
    let auth = transfer::registry_auth(&context);
    let found = context.engine().search_images(query.get("term"), limit, &query.filters()?, &auth).await?;
    Ok(body::json(StatusCode::OK, &found))
}

pub(super) async fn distribution(context: Context) -> ApiResult<Response<Body>> {
    let auth = transfer::registry_auth(&context);
    Ok(body::json(StatusCode::OK, &context.engine().inspect_distribution(context.name(), auth).await?))
}

pub(super) async fn commit(mut context: Context) -> ApiResult<Response<Body>> {
    let config = context.json_or_default().await?;
    let query = &context.query;
    let options = Commit {
        container: query.get("container").to_owned(),
        repo: query.get("repo").to_owned(),
        tag: query.get("tag").to_owned(),
        comment: query.get("comment").to_owned(),
        author: query.get("author").to_owned(),
        pause: query.flag_or("pause", true),
        changes: query.all("changes").to_vec(),
        config,
    };
    let id = context.engine().commit(options).await?;
    Ok(body::json(StatusCode::CREATED, &IdResponse { id: id.to_string() }))
}
