//! Containers: create, list, inspect, lifecycle.

use berth_api::{
    container::CreateRequest,
    options::{ListContainers, RemoveContainer, StopContainer},
};
use http::{Response, StatusCode};

use crate::{
    body::{self, Body},
    context::Context,
    error::{ApiError, ApiResult},
    shape::{self, Kind},
};

pub(super) async fn list(context: Context) -> ApiResult<Response<Body>> {
    let query = &context.query;
    let options = ListContainers {
        all: query.flag("all"),
        limit: query.number("limit")?.unwrap_or(0),
        size: query.flag("size"),
        health: context.version.at_least(52),
        filters: query.filters()?,
    };
    let containers = context.engine().list_containers(&options).await?;
    Ok(body::json(StatusCode::OK, &shape::shape_list(context.version, Kind::ContainerSummary, &containers)))
}

pub(super) async fn create(mut context: Context) -> ApiResult<Response<Body>> {
    let body: Option<CreateRequest> = context.json().await?;
    let empty = || ApiError::bad_request("config cannot be empty in order to create a container");
    let mut request = body.filter(|request| request.config != Default::default()).ok_or_else(empty)?;
    let warning = shape::lift_create(context.version, &mut request)?;
    let name = context.query.get("name");
    let mut created = context.engine().create_container(name, context.query.get("platform"), request).await?;
    created.warnings.extend(warning);
    Ok(body::json(StatusCode::CREATED, &created))
}

pub(super) async fn inspect(context: Context) -> ApiResult<Response<Body>> {
    let inspect = context.engine().inspect_container(context.name(), context.query.flag("size")).await?;
    Ok(body::json(StatusCode::OK, &shape::shape(context.version, Kind::ContainerInspect, &inspect)))
}

pub(super) async fn start(mut context: Context) -> ApiResult<Response<Body>> {
    // Before 1.24 the body was a host configuration; since then it is ignored.
    body::drain(context.take_body()).await?;
    context.engine().start_container(context.name()).await?;
    Ok(body::no_content())
}

fn stop_options(context: &Context) -> ApiResult<StopContainer> {
    let signal = context.query.get("signal");
    Ok(StopContainer {
        signal: (!signal.is_empty()).then(|| signal.to_owned()),
        timeout: context.query.number("t")?,
    })
}

pub(super) async fn stop(context: Context) -> ApiResult<Response<Body>> {
    context.engine().stop_container(context.name(), &stop_options(&context)?).await?;
    Ok(body::no_content())
}

pub(super) async fn restart(context: Context) -> ApiResult<Response<Body>> {
    context.engine().restart_container(context.name(), &stop_options(&context)?).await?;
    Ok(body::no_content())
}

pub(super) async fn kill(context: Context) -> ApiResult<Response<Body>> {
    context.engine().kill_container(context.name(), context.query.get("signal")).await?;
    Ok(body::no_content())
}

pub(super) async fn pause(context: Context) -> ApiResult<Response<Body>> {
    context.engine().pause_container(context.name()).await?;
    Ok(body::no_content())
}

pub(super) async fn unpause(context: Context) -> ApiResult<Response<Body>> {
    context.engine().unpause_container(context.name()).await?;
    Ok(body::no_content())
}

pub(super) async fn rename(context: Context) -> ApiResult<Response<Body>> {
    context.engine().rename_container(context.name(), context.query.get("name")).await?;
    Ok(body::no_content())
}

pub(super) async fn remove(context: Context) -> ApiResult<Response<Body>> {
    let query = &context.query;
    let options =
        RemoveContainer { volumes: query.flag("v"), force: query.flag("force"), link: query.flag("link") };
    context.engine().remove_container(context.name(), options).await?;
    Ok(body::no_content())
}

pub(super) async fn update(mut context: Context) -> ApiResult<Response<Body>> {
    let mut request = context.json().await?;
    shape::lift_update(context.version, &mut request);
    let updated = context.engine().update_container(context.name(), request).await?;
    Ok(body::json(StatusCode::OK, &updated))
}

pub(super) async fn top(context: Context) -> ApiResult<Response<Body>> {
    let processes = context.engine().top_container(context.name(), context.query.get("ps_args")).await?;
    Ok(body::json(StatusCode::OK, &processes))
}

pub(super) async fn changes(context: Context) -> ApiResult<Response<Body>> {
    Ok(body::json(StatusCode::OK, &context.engine().container_changes(context.name()).await?))
}

pub(super) async fn resize(context: Context) -> ApiResult<Response<Body>> {
    let (rows, columns) = window_size(&context)?;
    context.engine().resize_container(context.name(), rows, columns).await?;
    Ok(body::empty(StatusCode::OK))
}

/// `h` and `w` of a resize.
pub(super) fn window_size(context: &Context) -> ApiResult<(u16, u16)> {
    let side = |key| {
        let missing = || ApiError::bad_request("strconv.Atoi: parsing \"\": invalid syntax");
        context.query.number(key)?.ok_or_else(missing)
    };
    Ok((side("h")?, side("w")?))
}

pub(super) async fn prune(context: Context) -> ApiResult<Response<Body>> {
    let pruned = context.engine().prune_containers(&context.query.filters()?).await?;
    Ok(body::json(StatusCode::OK, &pruned))
}
