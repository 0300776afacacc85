//! Builds of a client on the same machine. Directories, files and archives come as descriptors over the client's own
//! connection; nothing of the context is copied.
//!
//! ```text
//! client                                   engine
//!   │ ◀───────────────────────────── 101 ── │
//!   │ ── length + descriptors, LocalBuild ▶ │
//!   │ ◀──────────── BuildMessage, one a line │   the client's end cancels the build
//!   │ ◀────────────── Finished or Error ──── │
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;

use berth_api::build::{
    BuildMessage, LocalBuild, LocalCache, LocalContext, LocalOutput, PastBuild, PastStep,
};
use berth_api::progress::ProgressMessage;
use berth_builder::{
    BoxFuture, BuildEvent, BuildRecord, BuiltImage, Context, DockerfileSource, Entitlements, Event, Listener,
    OutputStream, Secret,
};
use berth_oci::Reference;
use nix::sys::socket::MsgFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::build::{failure, request};
use crate::build_work::Build;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::queue::{self, Filler, Weigh};

/// A longer request is refused.
const MAX_REQUEST: u64 = 64 << 20;
/// Messages of transfers under way.
const BACKLOG: usize = 1024;
/// As much is written to the client at once.
const BATCH: usize = 64 << 10;

/// Descriptors by their number; each can be taken once.
struct Handed(Vec<Option<OwnedFd>>);

impl Handed {
    fn take(&mut self, number: usize) -> Result<OwnedFd> {
        let missing = || EngineError::invalid(format!("the request has no descriptor {number}"));
        self.0.get_mut(number).and_then(Option::take).ok_or_else(missing)
    }

    fn context(&mut self, context: LocalContext) -> Result<Context> {
        Ok(match context {
            LocalContext::Empty => Context::Empty,
            LocalContext::Directory(number) => Context::Open(self.take(number)?),
            LocalContext::Archive(number) => Context::Tar(File::from(self.take(number)?)),
            LocalContext::Url(url) => Context::Url(url),
            LocalContext::Image(image) => Context::Image(image),
        })
    }
}

/// Tells the client something; that it has gone is told by the cancellation.
type Tell = Filler<BuildMessage>;

impl Weigh for BuildMessage {
    fn weight(&self) -> usize {
        let text = match self {
            Self::Output { text, .. } => text.len(),
            _ => 0,
        };
        queue::OVERHEAD + text
    }
}

/// Tells a client how its build goes.
struct Progress(Tell);

impl Listener for Progress {
    fn tell(&self, event: Event) {
        if let Some(message) = message(event) {
            self.0.put(message);
        }
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.room())
    }
}

impl Engine {
    /// Builds for the client at the other end of `socket`, whose connection was taken over. `greeting` is sent first.
    ///
    /// # Errors
    /// When the request cannot be received; what becomes of the build is told to the client.
    pub async fn serve_local_build(self: &Arc<Self>, socket: OwnedFd, greeting: &[u8]) -> Result<()> {
        let lost =
            |error: std::io::Error| EngineError::internal(format!("a client's build request: {error}"));
        let socket = StdUnixStream::from(socket);
        let mut stream = UnixStream::from_std(socket.try_clone().map_err(lost)?).map_err(lost)?;
        stream.write_all(greeting).await.map_err(lost)?;
        let received = tokio::task::spawn_blocking(move || receive(&socket)).await?;
        let (build, fds) = received.map_err(lost)?;
        let (mut from_client, mut to_client) = stream.into_split();
        let cancel = CancellationToken::new();
        let _ended = cancel.clone().drop_guard();
        let gone = cancel.clone();
        let watch = tokio::spawn(async move {
            // A client says nothing more: whatever comes is its end.
            from_client.read_u8().await.ok();
            gone.cancel();
        });
        let (tell, mut messages) = queue::queue();
        let engine = Arc::clone(self);
        let work = tokio::spawn(async move {
            let last = match engine.local_build(build, fds, &tell, cancel).await {
                Ok((id, digest)) => BuildMessage::Finished { id, digest },
                Err(error) => BuildMessage::Error { message: error.to_string(), code: error.exit_code() },
            };
            tell.put(last);
        });
        loop {
            let batch = messages.some(BATCH).await;
            if batch.is_empty() {
                break;
            }
            let mut bytes = Vec::new();
            for message in batch {
                serde_json::to_writer(&mut bytes, &message).expect("messages have text keys");
                bytes.push(b'\n');
            }
            if to_client.write_all(&bytes).await.is_err() {
                break;
            }
        }
        watch.abort();
        work.await?;
        Ok(())
    }

    async fn local_build(
        self: &Arc<Self>,
        build: LocalBuild,
        fds: Vec<OwnedFd>,
        tell: &Tell,
        cancel: CancellationToken,
    ) -> Result<(String, Option<String>)> {
        let mut handed = Handed(fds.into_iter().map(Some).collect());
        let LocalBuild { mut options, auths, context, named_contexts, outputs, cache_from, cache_to, .. } =
            build;
        options.outputs = String::new();
        let mut asked = request(options, handed.context(context)?)?;
        if let Some(text) = build.dockerfile_text {
            asked.dockerfile = DockerfileSource::Inline(text.into_bytes());
        }
        asked.name = (!build.name.is_empty()).then_some(build.name);
        asked.no_cache_filter = build.no_cache_filter;
        asked.secrets = build.secrets.into_iter().map(|(id, value)| (id, Secret(value))).collect();
        asked.ssh = build.ssh.into_iter().map(|(id, path)| (id, path.into())).collect();
        asked.allow = entitlements(&build.allow)?;
        asked.inline_cache = cache_to.contains(&LocalCache::Inline);
        asked.rewrite_timestamp = build.rewrite_timestamp;
        for (name, context) in named_contexts {
            asked.named_contexts.insert(name, handed.context(context)?);
        }
        let (progress, mut transfers) = mpsc::channel::<ProgressMessage>(BACKLOG);
        let forward = tell.clone();
        let pump = tokio::spawn(async move {
            while let Some(message) = transfers.recv().await {
                forward.put(BuildMessage::Transfer { message: Box::new(message) });
            }
        });
        let work = self.new_build(Arc::new(auths), progress);
        for cache in cache_from {
            self.take_cache(cache, &work, &mut handed, tell).await?;
        }
        if asked.platforms.len() > 1 && outputs.iter().any(|output| matches!(output, LocalOutput::Tar(_))) {
            let why = "an archive of files (type=tar) holds one platform; use type=local or type=oci";
            return Err(EngineError::invalid(why));
        }
        let built = work.run(asked, Arc::new(Progress(tell.clone())), cancel).await.map_err(failure)?;
        let index = self.index(&built).await?;
        for output in outputs {
            self.output(output, &built, &work, &mut handed).await?;
        }
        for cache in cache_to {
            self.give_cache(cache, &built, &work, &mut handed, tell).await?;
        }
        drop(work);
        pump.await?;
        let id = built.id.to_string();
        self.events.publish("builder", "build", &id, BTreeMap::new());
        let image = self.store.images().get(&built.id)?;
        let manifest = index.or_else(|| image.and_then(|image| image.manifest));
        Ok((id, manifest.map(|manifest| manifest.digest.to_string())))
    }

    /// Takes over what a cache has. One that is not there is no failure: the first build has none.
    async fn take_cache(
        self: &Arc<Self>,
        cache: LocalCache,
        work: &Build,
        handed: &mut Handed,
        tell: &Tell,
    ) -> Result<()> {
        let (name, taken) = match cache {
            LocalCache::Inline => return Ok(()),
            LocalCache::Registry { reference, .. } => {
                let parsed = Reference::parse(&reference)?;
                (reference, work.take_cache(&parsed).await)
            }
            LocalCache::File { file, .. } => {
                let file = File::from(handed.take(file)?);
                ("the archive".to_owned(), work.take_cache_archive(file).await)
            }
        };
        tell.put(match taken {
            Ok(count) => BuildMessage::Cache { text: format!("{count} new results from {name}") },
            Err(error) => BuildMessage::Warning { text: format!("no cache from {name}: {error}") },
        });
        Ok(())
    }

    async fn give_cache(
        self: &Arc<Self>,
        cache: LocalCache,
        built: &BuiltImage,
        work: &Build,
        handed: &mut Handed,
        tell: &Tell,
    ) -> Result<()> {
        let to = match cache {
            LocalCache::Inline => return Ok(()),
            LocalCache::Registry { reference, mounts } => {
                work.give_cache(built, &Reference::parse(&reference)?, mounts).await?;
                reference
            }
            LocalCache::File { file, mounts } => {
                work.give_cache_archive(built, File::from(handed.take(file)?), mounts).await?;
                "the archive".to_owned()
            }
        };
        tell.put(BuildMessage::Cache { text: format!("the cache went to {to}") });
        Ok(())
    }

    async fn output(
        self: &Arc<Self>,
        output: LocalOutput,
        built: &BuiltImage,
        work: &Build,
        handed: &mut Handed,
    ) -> Result<()> {
        match output {
            LocalOutput::Push => {
                let tags = work.tags(built)?;
                if tags.is_empty() {
                    return Err(EngineError::invalid("an image without a name cannot be pushed; add --tag"));
                }
                for tag in tags {
                    work.push(&tag, &built.id).await?;
                }
                Ok(())
            }
            LocalOutput::Files { directory, owner } => {
                // Who is not root could not even remove what belongs to others.
                let owner = (owner.0 != 0).then_some(owner);
                work.files(built, handed.take(directory)?, owner).await
            }
            LocalOutput::Image(file) => {
                let mut names: Vec<String> = work.tags(built)?.iter().map(Reference::familiar).collect();
                if names.is_empty() {
                    names.push(built.id.to_string());
                }
                work.save(names, File::from(handed.take(file)?)).await
            }
            LocalOutput::Tar(file) => work.archive(built, File::from(handed.take(file)?)).await,
        }
    }

    /// Builds of the past, the newest first.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn past_builds(self: &Arc<Self>) -> Result<Vec<PastBuild>> {
        let builds = self.blocking(|engine| engine.builder.history().map_err(failure)).await?;
        Ok(builds.into_iter().map(past).collect())
    }

    /// What a build of the past printed, by its name or the beginning of it.
    ///
    /// # Errors
    /// When there is none.
    pub async fn past_build_log(self: &Arc<Self>, id: &str) -> Result<String> {
        let wanted = id.to_owned();
        let log = self.blocking(move |engine| engine.builder.log(&wanted).map_err(failure)).await?;
        log.ok_or_else(|| EngineError::not_found(format!("no build {id} is remembered")))
    }
}

fn past(build: BuildRecord) -> PastBuild {
    let seconds = |from: jiff::Timestamp, to: jiff::Timestamp| to.duration_since(from).as_secs_f64();
    PastBuild {
        id: build.id,
        name: build.name,
        started: build.started.into(),
        seconds: seconds(build.started, build.finished),
        image: build.image,
        error: build.error,
        steps: build
            .steps
            .into_iter()
            .map(|step| PastStep {
                number: step.number,
                stage: step.stage,
                text: step.text,
                seconds: step.started.zip(step.finished).map(|(from, to)| seconds(from, to)),
                cached: step.cached,
                missed: step.missed,
                error: step.error,
            })
            .collect(),
    }
}

pub(crate) fn entitlements(allow: &[String]) -> Result<Entitlements> {
    let mut granted = Entitlements::default();
    for name in allow {
        match name.as_str() {
            "security.insecure" => granted.insecure = true,
            "network.host" => granted.host_network = true,
            "device" => granted.devices.push(String::new()),
            other => match other.strip_prefix("device=") {
                Some(device) if !device.is_empty() => granted.devices.push(device.to_owned()),
                _ => {
                    return Err(EngineError::invalid(format!(
                        "--allow {other}: there are security.insecure, network.host, device and device=NAME"
                    )));
                }
            },
        }
    }
    Ok(granted)
}

/// Receives the request: its length with the descriptors, then its text.
fn receive(socket: &StdUnixStream) -> std::io::Result<(LocalBuild, Vec<OwnedFd>)> {
    socket.set_nonblocking(false)?;
    let mut length = [0; 8];
    let (n, fds) = berth_sys::socket::recv_with_fds(socket, &mut length, MsgFlags::MSG_WAITALL)?;
    let size = u64::from_le_bytes(length);
    if n != length.len() || size > MAX_REQUEST {
        return Err(std::io::Error::other("it does not begin with its length"));
    }
    let mut text = Vec::new();
    socket.take(size).read_to_end(&mut text)?;
    socket.set_nonblocking(true)?;
    Ok((serde_json::from_slice(&text)?, fds))
}

fn message(event: Event) -> Option<BuildMessage> {
    let step = event.place.map_or(0, |place| place.step);
    Some(match event.what {
        BuildEvent::StepStart { total, stage, text, .. } => BuildMessage::Step { step, total, stage, text },
        BuildEvent::Cached => BuildMessage::Cached { step },
        BuildEvent::Missed { reasons } => BuildMessage::Missed { step, reasons },
        BuildEvent::Waiting => BuildMessage::Waiting { step },
        BuildEvent::Output { stream, bytes } => BuildMessage::Output {
            step,
            stderr: stream == OutputStream::Stderr,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        },
        BuildEvent::StepDone { .. } => BuildMessage::Done { step },
        BuildEvent::StepFailed { .. } => BuildMessage::Failed { step },
        BuildEvent::Warning { text } => BuildMessage::Warning { text },
        BuildEvent::Tagged { reference } => BuildMessage::Tagged { reference },
        _ => return None,
    })
}
