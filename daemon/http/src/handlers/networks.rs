//! Networks.

use berth_api::network::{NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest};
use http::{Response, StatusCode};

use crate::{
    body::{self, Body},
    context::Context,
    error::ApiResult,
    shape::{self, Kind},
};

pub(super) async fn list(context: Context) -> ApiResult<Response<Body>> {
    let networks = context.engine().list_networks(&context.query.filters()?).await?;
    Ok(body::json(StatusCode::OK, &networks))
}

pub(super) async fn inspect(context: Context) -> ApiResult<Response<Body>> {
    let network = context.engine().inspect_network(context.name()).await?;
    Ok(body::json(StatusCode::OK, &shape::shape(context.version, Kind::NetworkInspect, &network)))
}

pub(super) async fn create(mut context: Context) -> ApiResult<Response<Body>> {
    let request: NetworkCreateRequest = context.json().await?;
    Ok(body::json(StatusCode::CREATED, &context.engine().create_network(request).await?))
}

pub(super) async fn remove(context: Context) -> ApiResult<Response<Body>> {
    context.engine().remove_network(context.name()).await?;
    Ok(body::no_content())
}

pub(super) async fn connect(mut context: Context) -> ApiResult<Response<Body>> {
    let request: NetworkConnectRequest = context.json().await?;
    context.engine().connect_network(context.name(), request).await?;
    Ok(body::empty(StatusCode::OK))
}

pub(super) async fn disconnect(mut context: Context) -> ApiResult<Response<Body>> {
    let request: NetworkDisconnectRequest = context.json().await?;
    context.engine().disconnect_network(context.name(), request).await?;
    Ok(body::empty(StatusCode::OK))
}

pub(super) async fn prune(context: Context) -> ApiResult<Response<Body>> {
    let pruned = context.engine().prune_networks(&context.query.filters()?).await?;
    Ok(body::json(StatusCode::OK, &pruned))
}
