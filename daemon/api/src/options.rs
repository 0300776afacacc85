//! Queries of the endpoints, parsed: the vocabulary that edge, engine and client share.

use std::str::FromStr;

use crate::{Filters, when::When};

/// Query of `GET /containers/json`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ListContainers {
    /// Whether to show stopped containers.
    pub all: bool,
    /// How many of the newest to show, stopped ones included; 0 is no bound.
    pub limit: i64,
    /// Whether to count bytes.
    pub size: bool,
    /// Whether to tell results of health checks (API 1.52).
    pub health: bool,
    /// Filters.
    pub filters: Filters,
}

/// Query of `DELETE /containers/{id}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemoveContainer {
    /// Whether to remove its anonymous volumes.
    pub volumes: bool,
    /// Whether to kill it first.
    pub force: bool,
    /// Whether to remove a link only.
    pub link: bool,
}

/// Query of `POST /containers/{id}/stop` and `restart`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StopContainer {
    /// Signal; `None` takes the container's.
    pub signal: Option<String>,
    /// Seconds before SIGKILL; -1 waits for ever; `None` takes the container's.
    pub timeout: Option<i64>,
}

/// What `POST /containers/{id}/wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitCondition {
    /// Not running; at once if it is not.
    #[default]
    NotRunning,
    /// The next exit.
    NextExit,
    /// Its removal.
    Removed,
}

impl FromStr for WaitCondition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" | "not-running" => Ok(Self::NotRunning),
            "next-exit" => Ok(Self::NextExit),
            "removed" => Ok(Self::Removed),
            _ => Err(format!("invalid condition: {text:?}")),
        }
    }
}

impl WaitCondition {
    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotRunning => "not-running",
            Self::NextExit => "next-exit",
            Self::Removed => "removed",
        }
    }
}

/// How many of the last lines of a log to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tail {
    /// All.
    #[default]
    All,
    /// The last so many.
    Lines(u64),
}

impl FromStr for Tail {
    type Err = std::convert::Infallible;

    /// Never fails: docker takes what is no number as "all".
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.parse().map_or(Self::All, Self::Lines))
    }
}

/// Query of `GET /containers/{id}/logs`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Logs {
    /// Whether to go on until the container ends.
    pub follow: bool,
    /// Whether to show stdout.
    pub stdout: bool,
    /// Whether to show stderr.
    pub stderr: bool,
    /// Lines from here on.
    pub since: Option<When>,
    /// Lines until here.
    pub until: Option<When>,
    /// Whether each line begins with its time.
    pub timestamps: bool,
    /// Whether each line begins with the log driver's attributes.
    pub details: bool,
    /// How many of the last lines.
    pub tail: Tail,
}

/// Query of `POST /containers/{id}/attach`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attach {
    /// Keys that detach; `None` takes the daemon's default.
    pub detach_keys: Option<String>,
    /// Whether to replay the log first.
    pub logs: bool,
    /// Whether to stream from now on.
    pub stream: bool,
    /// Whether to attach stdin.
    pub stdin: bool,
    /// Whether to attach stdout.
    pub stdout: bool,
    /// Whether to attach stderr.
    pub stderr: bool,
}

/// Query of `GET /containers/{id}/stats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Whether to send a sample every second.
    pub stream: bool,
    /// Whether to take one sample only, without the one before.
    pub one_shot: bool,
}

/// Query of `GET /events`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Events {
    /// Past events from here on.
    pub since: Option<When>,
    /// End of the stream.
    pub until: Option<When>,
    /// Filters.
    pub filters: Filters,
}

/// Query of `GET /images/json`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ListImages {
    /// Whether to show intermediate images.
    pub all: bool,
    /// Filters.
    pub filters: Filters,
    /// Whether to count shared bytes.
    pub shared_size: bool,
    /// Whether to show digests.
    pub digests: bool,
    /// Whether to show what else the indexes of images hold (API 1.47).
    pub manifests: bool,
}

/// Query of `DELETE /images/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemoveImage {
    /// Whether to remove an image that stopped containers use, or that has several tags.
    pub force: bool,
    /// Whether to keep untagged parents.
    pub no_prune: bool,
    /// Only if it is of one of these platforms, each as JSON (API 1.50).
    pub platforms: Vec<String>,
}

/// Query and body of `POST /commit`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Commit {
    /// Container.
    pub container: String,
    /// Repository of the new image; may be empty.
    pub repo: String,
    /// Tag of the new image; may be empty.
    pub tag: String,
    /// Comment.
    pub comment: String,
    /// Author.
    pub author: String,
    /// Whether to pause the container meanwhile.
    pub pause: bool,
    /// Dockerfile instructions to apply.
    pub changes: Vec<String>,
    /// Configuration from the body.
    pub config: Option<crate::container::ContainerConfig>,
}

/// Query of `POST /images/create` with `fromSrc`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Import {
    /// `-` (the body) or a URL.
    pub source: String,
    /// Repository of the new image; may be empty.
    pub repo: String,
    /// Tag of the new image; may be empty.
    pub tag: String,
    /// Comment.
    pub message: String,
    /// Dockerfile instructions to apply.
    pub changes: Vec<String>,
    /// Platform of the new image; empty is the host's.
    pub platform: String,
}

/// Query of `POST /images/{name}/push`, beside the tag.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Push {
    /// Push this platform's image alone; empty is what is there.
    pub platform: String,
    /// Berth only: `gzip` or `zstd`, for layers that are compressed for the first time; empty is gzip.
    pub compression: String,
}

/// Query of `POST /berth/check` (Berth only).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckStore {
    /// Mend what can be mended: unpack again, fetch again.
    pub repair: bool,
    /// Only look whether everything is there, not whether it is right.
    pub quick: bool,
}

/// Query of `PUT /containers/{id}/archive`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PutArchive {
    /// Directory in the container.
    pub path: String,
    /// Whether to fail rather than put a directory in a file's place or the other way round.
    pub no_overwrite_dir_non_dir: bool,
    /// Whether to keep owners.
    pub copy_uid_gid: bool,
}

/// Which kinds `GET /system/df` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUsageKinds {
    /// Containers.
    pub containers: bool,
    /// Images.
    pub images: bool,
    /// Volumes.
    pub volumes: bool,
    /// Build cache.
    pub build_cache: bool,
}

impl Default for DiskUsageKinds {
    /// All.
    fn default() -> Self {
        Self { containers: true, images: true, volumes: true, build_cache: true }
    }
}
