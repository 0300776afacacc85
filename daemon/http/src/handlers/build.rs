//! Builds.

use berth_api::{build::BuildOptions, registry::RegistryAuths};
use http::{Response, StatusCode};

use crate::{
    body::{self, Body},
    context::Context,
    error::{ApiError, ApiResult},
    handlers::{Reply, attach::client_gone, progress, transfer, upload::BodyReader},
    query::Query,
};

pub(super) async fn build(mut context: Context) -> ApiResult<Response<Body>> {
    let options = options(&context.query)?;
    if options.remote == "client-session" {
        return Err(ApiError::bad_request(
            "a context that stays with the client comes by /grpc (docker buildx): \
             over /build it is the body of the request (DOCKER_BUILDKIT=0)",
        ));
    }
    let given: RegistryAuths = transfer::base64_json(context.header("x-registry-config"));
    let logins = context.shared.buildkit.logins(given, context.query.get("session"));
    let directory = context.engine().root().to_owned();
    let spool = BodyReader::new(context.take_body()).spool(directory).await;
    let tar = spool.map_err(|error| ApiError::internal(format!("receiving the build context: {error}")))?;
    let engine = context.engine().clone();
    progress::run(
        |messages, cancel| async move { engine.build(options, logins, tar, messages, cancel).await },
    )
    .await
}

fn options(query: &Query) -> ApiResult<BuildOptions> {
    let text = |key| query.get(key).to_owned();
    Ok(BuildOptions {
        dockerfile: text("dockerfile"),
        tags: query.all("t").iter().filter(|tag| !tag.is_empty()).cloned().collect(),
        extra_hosts: query.all("extrahosts").to_vec(),
        remote: text("remote"),
        quiet: query.flag("q"),
        no_cache: query.flag("nocache"),
        cache_from: query.json("cachefrom")?,
        pull: query.flag("pull"),
        remove: query.flag_or("rm", true),
        force_remove: query.flag("forcerm"),
        memory: query.number_or_zero("memory"),
        memory_swap: query.number_or_zero("memswap"),
        cpu_shares: query.number_or_zero("cpushares"),
        cpuset_cpus: text("cpusetcpus"),
        cpuset_mems: text("cpusetmems"),
        cpu_period: query.number_or_zero("cpuperiod"),
        cpu_quota: query.number_or_zero("cpuquota"),
        cgroup_parent: text("cgroupparent"),
        build_args: query.json("buildargs")?,
        shm_size: query.number_or_zero("shmsize"),
        squash: query.flag("squash"),
        labels: query.json("labels")?,
        network_mode: text("networkmode"),
        platform: text("platform"),
        target: text("target"),
        outputs: text("outputs"),
        version: text("version"),
        build_id: text("buildid"),
        ulimits: query.json("ulimits")?,
        security_opt: query.all("securityopt").to_vec(),
        isolation: text("isolation"),
    })
}

/// A client on the same machine: it passes directories and files as descriptors over the connection itself.
pub(super) async fn local(mut context: Context) -> ApiResult<Reply> {
    body::drain(context.take_body()).await?;
    let taken = context.take_over.clone().take().await.map_err(client_gone)?;
    let (socket, ahead) = taken.into_parts().map_err(client_gone)?;
    if !ahead.is_empty() {
        return Err(ApiError::bad_request("nothing may be sent before the connection is taken over"));
    }
    let greeting = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: berth-build\r\n\r\n";
    context.engine().serve_local_build(socket, greeting.as_bytes()).await?;
    Ok(Reply::TakenOver)
}

pub(super) async fn history(context: Context) -> ApiResult<Response<Body>> {
    Ok(body::json(StatusCode::OK, &context.engine().past_builds().await?))
}

pub(super) async fn log(context: Context) -> ApiResult<Response<Body>> {
    let log = context.engine().past_build_log(context.name()).await?;
    Ok(body::json(StatusCode::OK, &log))
}

pub(super) async fn prune(context: Context) -> ApiResult<Response<Body>> {
    let query = &context.query;
    // The name changed in 1.48; all of them mean bytes that may stay.
    let names = ["reserved-space", "keep-storage", "max-used-space"];
    let keep = names.map(|name| query.number_or_zero(name)).into_iter().max().unwrap_or(0);
    let free = query.number_or_zero("min-free-space");
    let filters = query.filters()?;
    let mut pruned = context.engine().prune_build_cache(query.flag("all"), keep, free, &filters).await?;
    if filters.is_empty() {
        pruned.space_reclaimed += context.shared.buildkit.prune().await;
    }
    Ok(body::json(StatusCode::OK, &pruned))
}

pub(super) async fn cancel(context: Context) -> ApiResult<Response<Body>> {
    match context.query.get("id") {
        "" => Err(ApiError::bad_request("build ID not provided")),
        id => {
            context.engine().cancel_build(id).await?;
            Ok(body::no_content())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cli_build_is_understood() {
        let query = Query::parse(
            "buildargs=%7B%22A%22%3A%221%22%2C%22B%22%3Anull%7D&cachefrom=%5B%5D&labels=%7B%7D&rm=1&t=x%3A1&t=y&\
             networkmode=default&dockerfile=Dockerfile&memory=0&shmsize=0&ulimits=null&version=1",
        );
        let options = options(&query).unwrap();
        assert_eq!(options.tags, ["x:1", "y"]);
        assert_eq!(options.build_args["A"].as_deref(), Some("1"));
        assert_eq!(options.build_args["B"], None);
        assert!(options.remove && !options.no_cache);
        assert!(super::options(&Query::parse("labels=x")).is_err());
    }
}
