//! Builds.

use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use berth_api::{
    Filters,
    build::{BuildOptions, PastBuild, PruneBuildResponse},
    progress::ProgressMessage,
    registry::RegistryAuths,
};

use crate::{Client, JsonStream, Result, Upload, query::Query, request::Call};

/// Builds. Every call fails with [`crate::Error::Daemon`] when the daemon refuses it.
#[allow(clippy::missing_errors_doc, reason = "said once above for all")]
impl Client {
    /// Builds an image of a context (a tar archive, maybe compressed).
    pub async fn build(
        &self,
        options: &BuildOptions,
        auths: &RegistryAuths,
        context: Upload,
    ) -> Result<JsonStream<ProgressMessage>> {
        let auths = serde_json::to_vec(auths).expect("credentials are texts and serialise");
        let call = Call::post("/build", &build_query(options))
            .header("x-registry-config", URL_SAFE.encode(auths))
            .upload("application/x-tar", context);
        Ok(JsonStream::new(self.send(call).await?))
    }

    /// Builds of the past, the newest first. Only Berth remembers them.
    pub async fn past_builds(&self) -> Result<Vec<PastBuild>> {
        self.fetch(Call::get("/berth/builds", &Query::new())).await
    }

    /// What a build of the past printed.
    pub async fn past_build_log(&self, id: &str) -> Result<String> {
        self.fetch(Call::get(format!("/berth/builds/{id}/log"), &Query::new())).await
    }

    /// Cancels a build that was given an id.
    pub async fn build_cancel(&self, id: &str) -> Result<()> {
        self.run(Call::post("/build/cancel", &Query::new().with("id", id))).await.map(drop)
    }

    /// Removes build cache; `keep` bytes of it stay.
    pub async fn build_prune(
        &self,
        all: bool,
        keep: i64,
        free: i64,
        filters: &Filters,
    ) -> Result<PruneBuildResponse> {
        let query = Query::new()
            .flag("all", all)
            .nonzero("keep-storage", keep)
            .nonzero("min-free-space", free)
            .filters(filters);
        self.fetch(Call::post("/build/prune", &query)).await
    }
}

fn build_query(options: &BuildOptions) -> Query {
    let json = |value: serde_json::Result<String>| value.expect("texts and numbers serialise");
    let mut query = Query::new()
        .text("dockerfile", &options.dockerfile)
        .text("remote", &options.remote)
        .flag("q", options.quiet)
        .flag("nocache", options.no_cache)
        .flag("pull", options.pull)
        .with("rm", if options.remove { "1" } else { "0" })
        .flag("forcerm", options.force_remove)
        .nonzero("memory", options.memory)
        .nonzero("memswap", options.memory_swap)
        .nonzero("cpushares", options.cpu_shares)
        .text("cpusetcpus", &options.cpuset_cpus)
        .text("cpusetmems", &options.cpuset_mems)
        .nonzero("cpuperiod", options.cpu_period)
        .nonzero("cpuquota", options.cpu_quota)
        .text("cgroupparent", &options.cgroup_parent)
        .nonzero("shmsize", options.shm_size)
        .flag("squash", options.squash)
        .text("isolation", &options.isolation)
        .text("networkmode", &options.network_mode)
        .text("platform", &options.platform)
        .text("target", &options.target)
        .text("outputs", &options.outputs)
        .text("version", &options.version)
        .text("buildid", &options.build_id);
    for tag in &options.tags {
        query = query.with("t", tag);
    }
    for host in &options.extra_hosts {
        query = query.with("extrahosts", host);
    }
    for option in &options.security_opt {
        query = query.with("securityopt", option);
    }
    if !options.build_args.is_empty() {
        query = query.with("buildargs", json(serde_json::to_string(&options.build_args)));
    }
    if !options.labels.is_empty() {
        query = query.with("labels", json(serde_json::to_string(&options.labels)));
    }
    if !options.cache_from.is_empty() {
        query = query.with("cachefrom", json(serde_json::to_string(&options.cache_from)));
    }
    if !options.ulimits.is_empty() {
        query = query.with("ulimits", json(serde_json::to_string(&options.ulimits)));
    }
    query
}
