//! Builds: the query of `POST /build` and the answer of `POST /build/prune`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::progress::ProgressMessage;
use crate::registry::RegistryAuths;
use crate::wire::Time;

/// The query of `POST /build`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
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
    /// Isolation technology; of no choice on Linux.
    pub isolation: String,
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

/// What a client on the same machine sends over the connection of `POST /berth/build` once it was taken over: the
/// length of this as JSON (8 bytes, the lowest first), with the descriptors that it speaks of, then the JSON.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalBuild {
    /// As for `POST /build`; its `remote` and `outputs` are not used.
    pub options: BuildOptions,
    /// Credentials for registries.
    pub auths: RegistryAuths,
    /// What the build is called from one time to the next; see `--explain`.
    pub name: String,
    /// Where the files come from.
    pub context: LocalContext,
    /// The Dockerfile itself, if it is not a file of the context.
    pub dockerfile_text: Option<String>,
    /// `--build-context`
    pub named_contexts: BTreeMap<String, LocalContext>,
    /// `--no-cache-filter`
    pub no_cache_filter: Vec<String>,
    /// `--secret`: values by id.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// `--ssh`: sockets of agents by id.
    pub ssh: BTreeMap<String, String>,
    /// `--allow`
    pub allow: Vec<String>,
    /// `--output`
    pub outputs: Vec<LocalOutput>,
    /// Nothing in a new layer is newer than `SOURCE_DATE_EPOCH`.
    pub rewrite_timestamp: bool,
    /// `--cache-from`
    pub cache_from: Vec<LocalCache>,
    /// `--cache-to`
    pub cache_to: Vec<LocalCache>,
}

/// Where files of a build come from. Descriptors are numbered as they were sent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalContext {
    /// No files.
    #[default]
    Empty,
    /// A directory that the client has open.
    Directory(usize),
    /// A file with an archive.
    Archive(usize),
    /// A repository or a file by its URL.
    Url(String),
    /// An image's files (`docker-image://`).
    Image(String),
}

/// Where the result goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalOutput {
    /// To registries: the names that the image has.
    Push,
    /// As files into a directory; they belong to this user and group.
    Files {
        /// The directory.
        directory: usize,
        /// Whose they become.
        owner: (u32, u32),
    },
    /// The files as an archive.
    Tar(usize),
    /// The image as an archive that is both docker's and an OCI layout.
    Image(usize),
}

/// Where a cache comes from or goes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalCache {
    /// In the image itself.
    Inline,
    /// An image in a registry.
    Registry {
        /// Its name.
        reference: String,
        /// Whether the contents of cache mounts go there too.
        mounts: bool,
    },
    /// A file.
    File {
        /// Open for reading or writing.
        file: usize,
        /// Whether the contents of cache mounts go there too.
        mounts: bool,
    },
}

/// What the engine tells of a local build: one JSON object a line, until [`BuildMessage::Finished`] or
/// [`BuildMessage::Error`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BuildMessage {
    /// A step begins.
    Step {
        /// Its number, from 1.
        step: usize,
        /// How many there are.
        total: usize,
        /// The stage.
        stage: String,
        /// The instruction.
        text: String,
    },
    /// The result comes from the cache.
    Cached {
        /// Of this step.
        step: usize,
    },
    /// The cache has nothing.
    Missed {
        /// For this step.
        step: usize,
        /// Since these inputs changed.
        reasons: Vec<String>,
    },
    /// An equal step is running.
    Waiting {
        /// This step uses its result.
        step: usize,
    },
    /// The step printed something.
    Output {
        /// The step.
        step: usize,
        /// To standard error.
        stderr: bool,
        /// What.
        text: String,
    },
    /// The step is done.
    Done {
        /// The step.
        step: usize,
    },
    /// The step failed.
    Failed {
        /// The step.
        step: usize,
    },
    /// A finding.
    Warning {
        /// In words.
        text: String,
    },
    /// Progress of a pull or push.
    Transfer {
        /// As docker tells it.
        message: Box<ProgressMessage>,
    },
    /// The image has a name.
    Tagged {
        /// The name.
        reference: String,
    },
    /// A cache was taken over or written.
    Cache {
        /// In words.
        text: String,
    },
    /// The end.
    Finished {
        /// The image's id.
        id: String,
        /// Digest of its manifest, where it has one already.
        digest: Option<String>,
    },
    /// The end, too.
    Error {
        /// Why.
        message: String,
        /// Exit code of the command that failed.
        code: Option<i64>,
    },
}

/// A build of the past: an item of the answer of `GET /berth/builds`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PastBuild {
    /// Its name in the history.
    #[serde(rename = "ID")]
    pub id: String,
    /// What was built.
    pub name: String,
    /// When it began.
    pub started: Time,
    /// Seconds that it took.
    pub seconds: f64,
    /// The image.
    pub image: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// Its steps.
    pub steps: Vec<PastStep>,
}

/// A step of a build of the past.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PastStep {
    /// Number, from 1.
    pub number: usize,
    /// The stage.
    pub stage: String,
    /// The instruction.
    pub text: String,
    /// Seconds that it took, if it ended.
    pub seconds: Option<f64>,
    /// Whether the result came from the cache.
    pub cached: bool,
    /// Why it did not.
    pub missed: Vec<String>,
    /// Why it failed.
    pub error: Option<String>,
}
