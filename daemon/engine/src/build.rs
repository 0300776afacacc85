//! Builds: drives the builder, gives it images, and tells its progress as docker does.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use berth_api::Filters;
use berth_api::build::{BuildCacheRecord, BuildOptions, PruneBuildResponse};
use berth_api::progress::ProgressMessage;
use berth_builder::{
    BoxFuture, BuildError, BuildIo, BuildRequest, BuiltImage, Context, DockerfileSource, ImageResolver,
    Limits, NetworkMode, PruneOptions, ResolveError,
};
use berth_oci::{Descriptor, Digest, Platform, Reference};
use tokio_util::sync::CancellationToken;

use crate::build_progress::Classic;
use crate::build_work::Logins;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::images::{self, credentials};
use crate::items::Progress;

/// Finds the images of one build.
pub(crate) struct Resolver {
    pub(crate) engine: Arc<Engine>,
    pub(crate) logins: Arc<dyn Logins>,
    pub(crate) progress: Progress,
}

impl Resolver {
    pub(crate) async fn find(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        pull: bool,
    ) -> Result<Digest> {
        let images = self.engine.store.images();
        if !pull && let Ok(image) = images.resolve(&reference.to_string()) {
            let offered = images.config_of(&image.id)?.platform();
            if platform.is_none_or(|wanted| wanted.matches(&offered)) {
                return Ok(image.id);
            }
        }
        let auth = self.logins.login(reference.domain()).await;
        let platform = platform.cloned().unwrap_or_else(Platform::host);
        let (tell, pump) = images::funnel(self.progress.clone());
        let pulled = self
            .engine
            .registry
            .pull(reference, &platform, &credentials(&auth), move |event| tell.put(images::message(event)))
            .await;
        pump.await?;
        let pulled = pulled?;
        self.engine.image_event("pull", &reference.familiar(), &reference.familiar_name());
        Ok(pulled.id)
    }
}

impl ImageResolver for Resolver {
    fn resolve<'a>(
        &'a self,
        reference: &'a Reference,
        platform: Option<&'a Platform>,
        pull: bool,
    ) -> BoxFuture<'a, Result<Digest, ResolveError>> {
        Box::pin(async move {
            self.find(reference, platform, pull)
                .await
                .map_err(|error| ResolveError { message: error.to_string() })
        })
    }
}

impl Engine {
    /// Builds an image from a context in a tar archive.
    ///
    /// # Errors
    /// A request that has no sense, a Dockerfile that is wrong, a step that failed (its exit code is in the error).
    pub async fn build(
        self: &Arc<Self>,
        options: BuildOptions,
        logins: Arc<dyn Logins>,
        context: File,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<()> {
        let quiet = options.quiet;
        // BuildKit names what its messages for programs are about.
        let about = (options.version == "2").then(|| "moby.image.id".to_owned());
        let build_id = options.build_id.clone();
        let context = match options.remote.as_str() {
            "" => Context::Tar(context),
            remote => Context::Url(remote.to_owned()),
        };
        let request = request(options, context)?;
        let (tell, pump) = images::funnel(progress.clone());
        let io = BuildIo {
            resolver: Arc::new(Resolver { engine: Arc::clone(self), logins, progress: progress.clone() }),
            events: Arc::new(Classic::new(quiet, about, tell)),
            cancel: cancel.clone(),
        };
        let registered = (!build_id.is_empty()).then(|| Registered::new(self, build_id, cancel));
        let built = self.builder.build(request, io).await;
        drop(registered);
        pump.await?;
        let built = built.map_err(failure)?;
        self.index(&built).await?;
        let id = built.id.to_string();
        if quiet {
            // That the client has gone changes nothing any more.
            progress.send(ProgressMessage::stream(format!("{id}\n"))).await.ok();
        }
        self.events.publish("builder", "build", &id, BTreeMap::new());
        Ok(())
    }

    /// The index of an image that was built for several platforms.
    pub(crate) async fn index(self: &Arc<Self>, built: &BuiltImage) -> Result<Option<Descriptor>> {
        if built.images.len() < 2 {
            return Ok(None);
        }
        let ids: Vec<Digest> = built.images.iter().map(|(_, id)| id.clone()).collect();
        let index = self.blocking(move |engine| {
            Ok(engine.store.images().join(&ids, berth_store::Compression::default())?)
        });
        index.await.map(Some)
    }

    /// Ends a build that was given this id.
    ///
    /// # Errors
    /// When there is none.
    pub async fn cancel_build(&self, id: &str) -> Result<()> {
        let found = self.builds.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(id).cloned();
        found
            .map(|build| build.cancel())
            .ok_or_else(|| EngineError::not_found(format!("no build {id} is running")))
    }

    /// Drops the build cache: `keep` bytes of it may stay, and it goes no further than until `free` bytes of the file
    /// system are free; 0 says nothing.
    ///
    /// # Errors
    /// A filter that is unknown; the builder's reasons.
    pub async fn prune_build_cache(
        self: &Arc<Self>,
        all: bool,
        keep: i64,
        free: i64,
        filters: &Filters,
    ) -> Result<PruneBuildResponse> {
        if let Some(key) = filters.unknown_key(&[
            "label",
            "label!",
            "until",
            "id",
            "parent",
            "type",
            "description",
            "inuse",
            "shared",
            "private",
        ]) {
            return Err(EngineError::invalid(format!("invalid filter '{key}'")));
        }
        // `system prune` hands its filters on. What is cached has no labels: it has none that is asked for.
        if !filters.matches_labels(&BTreeMap::new()) {
            return Ok(PruneBuildResponse::default());
        }
        let values = |key: &str| filters.get(key).to_vec();
        let unused_for = match values("until").first() {
            None => None,
            Some(text) => Some(age(text)?),
        };
        let options = PruneOptions {
            all,
            keep_bytes: u64::try_from(keep).unwrap_or(0),
            free_bytes: u64::try_from(free).unwrap_or(0),
            unused_for,
            ids: values("id"),
            kinds: values("type"),
        };
        let pruned = self
            .blocking(move |engine| {
                engine.builder.prune(&options).map_err(|error| EngineError::internal(error.to_string()))
            })
            .await?;
        self.events.publish("builder", "prune", "", BTreeMap::new());
        Ok(PruneBuildResponse {
            caches_deleted: (!pruned.ids.is_empty()).then_some(pruned.ids),
            space_reclaimed: pruned.bytes,
        })
    }

    /// What the build cache holds.
    pub(crate) async fn build_cache(self: &Arc<Self>) -> Result<Vec<BuildCacheRecord>> {
        let entries = self
            .blocking(|engine| {
                engine.builder.cache().map_err(|error| EngineError::internal(error.to_string()))
            })
            .await?;
        Ok(entries
            .into_iter()
            .map(|entry| BuildCacheRecord {
                id: entry.id,
                parents: None,
                kind: entry.kind.to_owned(),
                description: entry.description,
                in_use: entry.in_use,
                shared: entry.shared,
                size: i64::try_from(entry.size).unwrap_or(i64::MAX),
                created_at: entry.created.into(),
                last_used_at: Some(entry.used.into()),
                usage_count: i64::try_from(entry.uses).unwrap_or(i64::MAX),
            })
            .collect())
    }
}

/// A build that can be cancelled by its id, as long as it runs.
struct Registered {
    engine: Arc<Engine>,
    id: String,
}

impl Registered {
    fn new(engine: &Arc<Engine>, id: String, cancel: CancellationToken) -> Self {
        let mut builds = engine.builds.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        builds.insert(id.clone(), cancel);
        drop(builds);
        Self { engine: Arc::clone(engine), id }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.engine.builds.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&self.id);
    }
}

/// `24h`, as docker's filter `until` has it for caches.
fn age(text: &str) -> Result<Duration> {
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| EngineError::invalid(format!("until={text}: a duration such as 24h")))?;
    Ok(span.unsigned_abs())
}

pub(crate) fn failure(error: BuildError) -> EngineError {
    let code = error.exit_code().map(i64::from);
    let message = error.to_string();
    let error = if error.is_invalid_request() {
        EngineError::invalid(message)
    } else {
        EngineError::internal(message)
    };
    error.with_exit_code(code)
}

pub(crate) fn request(options: BuildOptions, context: Context) -> Result<BuildRequest> {
    let unsupported = |given: bool, field: &str| match given {
        true => {
            Err(EngineError::not_implemented(format!("this build option is not supported yet ({field})")))
        }
        false => Ok(()),
    };
    if let Context::Url(remote) = &context
        && !["http://", "https://", "git://", "git@", "ssh://", "github.com/"]
            .iter()
            .any(|start| remote.starts_with(start))
    {
        return Err(EngineError::internal(format!("remoteURL ({remote}) could not be recognized as URL")));
    }
    unsupported(options.squash, "squash")?;
    unsupported(!options.outputs.is_empty(), "outputs")?;
    if !options.security_opt.is_empty() {
        return Err(EngineError::invalid(
            "The daemon on this platform does not support setting security options on build",
        ));
    }
    if !options.isolation.is_empty() && !options.isolation.eq_ignore_ascii_case("default") {
        return Err(EngineError::invalid(format!("unsupported isolation: {:?}", options.isolation)));
    }
    let ulimits = crate::spec::resources::ulimits(Some(&options.ulimits))?;
    let tags = options.tags.iter().map(|tag| Ok(Reference::parse(tag)?)).collect::<Result<Vec<_>>>()?;
    let number = |value: i64| (value != 0).then_some(value);
    let text = |value: String| (!value.is_empty()).then_some(value);
    let dockerfile = if options.dockerfile.is_empty() { "Dockerfile".to_owned() } else { options.dockerfile };
    let platforms = match options.platform.as_str() {
        "" => Vec::new(),
        one if one.starts_with('{') => vec![images::platform(one)?],
        list => list.split(',').map(|one| images::platform(one.trim())).collect::<Result<_>>()?,
    };
    Ok(BuildRequest {
        dockerfile: DockerfileSource::Path(dockerfile),
        tags,
        target: text(options.target),
        build_args: options.build_args,
        labels: options.labels,
        no_cache: options.no_cache,
        pull: options.pull,
        platforms,
        network_mode: match options.network_mode.as_str() {
            "" | "default" | "bridge" => NetworkMode::Default,
            "none" => NetworkMode::None,
            "host" => NetworkMode::Host,
            name => NetworkMode::Named(name.to_owned()),
        },
        limits: Limits {
            memory: number(options.memory),
            memory_swap: number(options.memory_swap),
            cpu_period: u64::try_from(options.cpu_period).ok().filter(|value| *value > 0),
            cpu_quota: number(options.cpu_quota),
            cpu_shares: u64::try_from(options.cpu_shares).ok().filter(|value| *value > 0),
            cpuset_cpus: text(options.cpuset_cpus),
            cpuset_mems: text(options.cpuset_mems),
        },
        shm_size: u64::try_from(options.shm_size).ok().filter(|size| *size > 0),
        extra_hosts: options.extra_hosts,
        cgroup_parent: text(options.cgroup_parent),
        ulimits,
        ..BuildRequest::new(context)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: BuildOptions) -> Result<BuildRequest> {
        let context = match options.remote.as_str() {
            "" => Context::Empty,
            remote => Context::Url(remote.to_owned()),
        };
        request(options, context)
    }

    #[test]
    fn options_become_a_request() {
        let options = BuildOptions {
            tags: vec!["a:1".into()],
            memory: 1 << 30,
            network_mode: "none".into(),
            platform: "linux/arm64".into(),
            ..BuildOptions::default()
        };
        let request = parse(options).unwrap();
        assert_eq!(request.tags[0].familiar(), "a:1");
        assert_eq!((request.limits.memory, request.limits.cpu_shares), (Some(1 << 30), None));
        assert_eq!(request.network_mode, NetworkMode::None);
        assert_eq!(request.platforms[0].architecture, "arm64");
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let error = parse(BuildOptions { squash: true, ..BuildOptions::default() }).unwrap_err();
        assert!(error.message().contains("squash"));
        let error =
            parse(BuildOptions { isolation: "hyperv".into(), ..BuildOptions::default() }).unwrap_err();
        assert_eq!(error.message(), "unsupported isolation: \"hyperv\"");
        assert!(parse(BuildOptions { isolation: "default".into(), ..BuildOptions::default() }).is_ok());
        let error =
            parse(BuildOptions { security_opt: vec!["a".into()], ..BuildOptions::default() }).unwrap_err();
        assert!(error.message().contains("security options on build"), "{error}");
        let error = parse(BuildOptions { remote: "foo".into(), ..BuildOptions::default() }).unwrap_err();
        assert_eq!(error.message(), "remoteURL (foo) could not be recognized as URL");
        assert!(parse(BuildOptions { tags: vec!["BAD".into()], ..BuildOptions::default() }).is_err());
    }
}
