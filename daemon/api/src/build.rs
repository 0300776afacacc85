//! Builds: the query of `POST /build` and the answer of `POST /build/prune`.

use std::collections::BTreeMap;

use crate::wire::Time;

/// The query of `POST /build`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BuildOptions {
    /// Path of the Dockerfile in the context; empty is `Dockerfile`.
    pub dockerfile: String,
    /// Tags of the result.
    pub tags: Vec<String>,
    /// Additional `host:ip` lines.
    pub extra_hosts: Vec<String>,
    /// Context by URL instead of by body.
    pub remote: String,
    /// Whether to tell only the id.
    pub quiet: bool,
    /// Whether to use no cache.
    pub no_cache: bool,
    /// Images to take cache from.
    pub cache_from: Vec<String>,
    /// Whether to pull base images that are there.
    pub pull: bool,
    /// Whether to remove intermediate containers.
    pub remove: bool,
    /// Whether to remove them after a failure as well.
    pub force_remove: bool,
    /// Memory limit of a step.
    pub memory: i64,
    /// Memory and swap limit of a step.
    pub memory_swap: i64,
    /// CPU weight of a step.
    pub cpu_shares: i64,
    /// CPUs of a step.
    pub cpuset_cpus: String,
    /// Memory nodes of a step.
    pub cpuset_mems: String,
    /// CFS period of a step.
    pub cpu_period: i64,
    /// CFS quota of a step.
    pub cpu_quota: i64,
    /// Parent cgroup of a step.
    pub cgroup_parent: String,
    /// `--build-arg`; `None` takes nothing (the variable is not set at the client).
    pub build_args: BTreeMap<String, Option<String>>,
    /// Size of /dev/shm.
    pub shm_size: i64,
    /// Whether to squash the new layers into one.
    pub squash: bool,
    /// Labels of the result.
    pub labels: BTreeMap<String, String>,
    /// Network of RUN steps.
    pub network_mode: String,
    /// Platform of the result.
    pub platform: String,
    /// Stage to build.
    pub target: String,
    /// Outputs (BuildKit).
    pub outputs: String,
    /// `2` asks for BuildKit.
    pub version: String,
    /// Id for `POST /build/cancel`.
    pub build_id: String,
    /// Limits of setrlimit(2).
    pub ulimits: Vec<crate::container::Ulimit>,
    /// Security options.
    pub security_opt: Vec<String>,
}

wire! {
    /// One record of the build cache.
    pub struct BuildCacheRecord {
        /// Id.
        #[serde(rename = "ID")]
        pub id: String,
        /// Records it is built on. (The blank in the name is docker's.)
        #[serde(rename = " Parents", alias = "Parents", skip_serializing_if = "Option::is_none")]
        pub parents: Option<Vec<String>>,
        /// `regular`, `source.local`, `exec.cachemount`, …
        #[serde(rename = "Type")]
        pub kind: String,
        /// For people.
        pub description: String,
        /// Whether it is in use.
        pub in_use: bool,
        /// Whether it is shared.
        pub shared: bool,
        /// Bytes.
        pub size: i64,
        /// When it was made.
        pub created_at: Time,
        /// When it was last used.
        pub last_used_at: Option<Time>,
        /// How often it was used.
        pub usage_count: i64,
    }

    /// Answer of `POST /build/prune`.
    pub struct PruneBuildResponse {
        /// Ids of the removed records.
        pub caches_deleted: Option<Vec<String>>,
        /// Bytes freed.
        pub space_reclaimed: u64,
    }
}
