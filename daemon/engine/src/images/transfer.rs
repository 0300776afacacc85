//! Images in and out: pull, push, load, save, import, and what a registry says.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_api::image::DistributionInspect;
use berth_api::options::{Import, Push};
use berth_api::progress::ProgressMessage;
use berth_api::registry::{AuthConfig, AuthResponse};
use berth_oci::{ImageConfig, Platform, Reference};
use berth_registry::{Credentials, Event, LayerState, PushOptions};
use berth_store::{Compression, LoadEvent};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::list::descriptor;
use super::manifests::shown;
use super::{changes, credentials, named, new_reference, platform};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ids;
use crate::items::{ByteStream, Progress, stream_from};
use crate::queue::{self, Filler, Weigh};

/// Docker's registry, where a login without address goes.
const DEFAULT_REGISTRY: &str = "https://index.docker.io/v1/";
/// A download is told of as often.
const INTERVAL: Duration = Duration::from_millis(100);

/// Docker's message for what happens to a registry transfer.
pub(crate) fn message(event: Event) -> ProgressMessage {
    match event {
        Event::Status(text) => ProgressMessage::status(text),
        Event::Named { id, status } => ProgressMessage { id: Some(id), ..ProgressMessage::status(status) },
        Event::Layer { id, state } => match state.bytes() {
            Some((current, total)) => {
                let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
                ProgressMessage::progress(id, state.to_string(), number(current), number(total))
            }
            None => ProgressMessage::layer(id, state.to_string()),
        },
        Event::Pushed { tag, digest, size } => {
            ProgressMessage::aux(serde_json::json!({"Tag": tag, "Digest": digest.to_string(), "Size": size}))
        }
    }
}

impl Weigh for ProgressMessage {
    fn weight(&self) -> usize {
        queue::OVERHEAD + self.stream.as_ref().map_or(0, String::len)
    }
}

/// Takes progress from callbacks, which must not wait, to a channel that a slow client fills. What shows how far a
/// layer is may be dropped; what says what happened may not.
pub(crate) fn funnel(progress: Progress) -> (Filler<ProgressMessage>, tokio::task::JoinHandle<()>) {
    let (filler, mut drain) = queue::queue::<ProgressMessage>();
    let pump = tokio::spawn(async move {
        while let Some(message) = drain.next().await {
            let counts = message.progress_detail.as_ref().is_some_and(|detail| detail.current.is_some());
            if counts && progress.capacity() == 0 {
                continue;
            }
            // That the client has gone is told by the cancellation.
            if progress.send(message).await.is_err() {
                return;
            }
        }
    });
    (filler, pump)
}

impl Engine {
    /// Pulls an image; of a name without a tag all that the repository has.
    ///
    /// # Errors
    /// A bad name; what the registry says; cancellation.
    pub async fn pull_image(
        self: &Arc<Self>,
        image: &str,
        tag: &str,
        platform_text: &str,
        auth: AuthConfig,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<()> {
        let platform = platform(platform_text)?;
        let credentials = credentials(&auth);
        let name = Reference::parse_name(image)?;
        if !tag.is_empty() || name.tag().is_some() || name.digest().is_some() {
            return self.pull_one(&named(image, tag)?, &platform, &credentials, progress, cancel).await;
        }
        let tags = tokio::select! {
            tags = self.registry.tags(&name, &credentials) => tags?,
            () = cancel.cancelled() => return Err(EngineError::internal("context canceled")),
        };
        if tags.is_empty() {
            let name = name.familiar_name();
            return Err(EngineError::not_found(format!("the repository {name} has no tags")));
        }
        for tag in tags {
            let one = name.with_tag(&tag)?;
            self.pull_one(&one, &platform, &credentials, progress.clone(), cancel.clone()).await?;
        }
        Ok(())
    }

    async fn pull_one(
        self: &Arc<Self>,
        reference: &Reference,
        platform: &Platform,
        credentials: &Credentials,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<()> {
        let (tell, pump) = funnel(progress);
        let pull = self
            .registry
            .pull(reference, platform, credentials, move |event: Event| tell.put(message(event)));
        let pulled = tokio::select! {
            pulled = pull => pulled,
            () = cancel.cancelled() => return Err(EngineError::internal("context canceled")),
        };
        // The channel ends with the callback; all that was told is on its way before the result is.
        pump.await?;
        let pulled = pulled?;
        self.image_event("pull", &reference.familiar(), &reference.familiar_name());
        tracing::debug!(image = %pulled.id, up_to_date = pulled.up_to_date, "pulled");
        Ok(())
    }

    /// Pushes an image.
    ///
    /// # Errors
    /// A bad name; an image that is not there; what the registry says; cancellation.
    pub async fn push_image(
        self: &Arc<Self>,
        image: &str,
        tag: &str,
        options: Push,
        auth: AuthConfig,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<()> {
        let name = Reference::parse_name(image)?;
        let options = push_options(&options)?;
        let references = if tag.is_empty() && name.tag().is_none() {
            // Without a tag all tags of the repository go.
            let own = |reference: &Reference| reference.name() == name.name();
            let all = self.store.images().list(true)?;
            all.iter().flat_map(|image| image.tags.iter().filter(|tag| own(tag)).cloned()).collect()
        } else {
            vec![named(image, tag)?]
        };
        // The first word comes before the failure of a missing image, as in docker.
        let first = format!("The push refers to repository [{}]", name.name());
        progress.send(ProgressMessage::status(first)).await.ok();
        if references.is_empty() {
            let name = name.familiar_name();
            return Err(EngineError::not_found(format!(
                "An image does not exist locally with the tag: {name}"
            )));
        }
        let credentials = credentials(&auth);
        for reference in references {
            let missing = |_| {
                EngineError::not_found(format!(
                    "An image does not exist locally with the tag: {}",
                    reference.familiar_name()
                ))
            };
            let image = self.store.images().resolve(&reference.to_string()).map_err(missing)?;
            let (tell, pump) = funnel(progress.clone());
            let push =
                self.registry.push(&reference, &image.id, &credentials, &options, move |event: Event| {
                    match event {
                        // Told already.
                        Event::Status(text) if text.starts_with("The push refers to") => {}
                        event => tell.put(message(event)),
                    }
                });
            let pushed = tokio::select! {
                pushed = push => pushed,
                () = cancel.cancelled() => return Err(EngineError::internal("context canceled")),
            };
            pump.await?;
            pushed?;
            self.image_event("push", &reference.familiar(), &reference.familiar_name());
        }
        Ok(())
    }

    /// Makes an image of the tar of a root file system: of `tar`, or of what the source's address leads to.
    ///
    /// # Errors
    /// A bad name, changes that are no instructions, an address that leads nowhere, a damaged or hostile archive.
    pub async fn import_image(
        self: &Arc<Self>,
        mut options: Import,
        tar: impl Read + Send + 'static,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<()> {
        if options.source == "-" {
            return self.import_tar(options, tar, progress).await;
        }
        options.source = berth_registry::Registry::address(&options.source)?;
        // All else that is wrong is said before anything is fetched.
        new_reference(&options.repo, &options.tag)?;
        let download = tokio::select! {
            download = self.registry.download(&options.source) => download?,
            () = cancel.cancelled() => return Err(EngineError::internal("context canceled")),
        };
        let text = format!("Downloading from {}", options.source);
        progress.send(ProgressMessage::status(text)).await.ok();
        let tar = Watched {
            bytes: download.bytes,
            seen: 0,
            told: Instant::now(),
            total: download.length,
            progress: progress.clone(),
        };
        self.import_tar(options, tar, progress).await
    }

    async fn import_tar(
        self: &Arc<Self>,
        options: Import,
        tar: impl Read + Send + 'static,
        progress: Progress,
    ) -> Result<()> {
        let reference = new_reference(&options.repo, &options.tag)?;
        let platform = platform(&options.platform)?;
        let mut config = ImageConfig::new(&platform);
        changes::apply(config.runtime_mut(), &options.changes)?;
        let message = match options.message.as_str() {
            "" => format!("Imported from {}", options.source),
            message => message.to_owned(),
        };
        config.comment = Some(message.clone());
        let engine = Arc::clone(self);
        let name = reference.as_ref().map(Reference::familiar);
        let id = self.detached(async move {
            engine
                .blocking(move |engine| {
                    Ok(engine.store.import(tar, config, Some(&message), reference.as_ref())?)
                })
                .await
        });
        let id = id.await?;
        self.image_event("import", id.as_str(), name.as_deref().unwrap_or(id.as_str()));
        // That the client has gone changes nothing any more.
        progress.send(ProgressMessage::status(id.to_string())).await.ok();
        Ok(())
    }

    /// Loads images from an archive of `docker save`: those of these platforms, if any are named.
    ///
    /// # Errors
    /// A damaged or hostile archive, or one without an image of these platforms; nothing of it stays.
    pub async fn load_images(
        self: &Arc<Self>,
        tar: impl Read + Send + 'static,
        quiet: bool,
        platforms: Vec<String>,
        progress: Progress,
        _cancel: CancellationToken,
    ) -> Result<()> {
        let platforms = platforms.iter().map(|text| platform(text)).collect::<Result<Vec<_>>>()?;
        let (tell, pump) = funnel(progress.clone());
        let engine = Arc::clone(self);
        let loaded = self.detached(async move {
            engine
                .blocking(move |engine| {
                    let show = |event: LoadEvent| {
                        if !quiet {
                            tell.put(load_message(event));
                        }
                    };
                    Ok(engine.store.load_platforms(tar, &platforms, &show)?)
                })
                .await
        });
        let loaded = loaded.await;
        pump.await?;
        for image in loaded? {
            let id = image.id.to_string();
            let names: Vec<String> = image.references.iter().map(Reference::familiar).collect();
            self.image_event("load", &id, names.first().unwrap_or(&id));
            let lines = if names.is_empty() {
                vec![format!("Loaded image ID: {id}\n")]
            } else {
                names.iter().map(|name| format!("Loaded image: {name}\n")).collect()
            };
            for line in lines {
                // That the client has gone changes nothing any more.
                progress.send(ProgressMessage::stream(line)).await.ok();
            }
        }
        Ok(())
    }

    /// An archive with these images.
    ///
    /// # Errors
    /// When one of them is not there, or is for none of the platforms given.
    pub async fn save_images(
        self: &Arc<Self>,
        names: Vec<String>,
        platforms: &[String],
    ) -> Result<ByteStream> {
        for name in &names {
            // A repository's name alone means all its tags, which need not include `latest`.
            let known = self.store.images().resolve(name).is_ok();
            if known || !self.is_repository(name)? {
                self.image_for_any(name, platforms)?;
            }
        }
        for name in &names {
            let id = self.store.images().resolve(name).map(|image| image.id.to_string());
            self.image_event("save", &id.unwrap_or_else(|_| name.clone()), name);
        }
        let engine = Arc::clone(self);
        Ok(stream_from(move |sink| engine.store.save(&names, sink).map_err(std::io::Error::other)))
    }

    fn is_repository(&self, name: &str) -> Result<bool> {
        let Ok(name) = Reference::parse_name(name) else { return Ok(false) };
        let own = |reference: &Reference| name.tag().is_none() && reference.name() == name.name();
        Ok(self.store.images().list(true)?.iter().any(|image| image.tags.iter().any(own)))
    }

    /// What a registry says about an image.
    ///
    /// # Errors
    /// A bad name; what the registry says.
    pub async fn inspect_distribution(&self, name: &str, auth: AuthConfig) -> Result<DistributionInspect> {
        let found = self.registry.inspect_distribution(&named(name, "")?, &credentials(&auth)).await?;
        let platforms = found.platforms.iter().map(shown).collect();
        Ok(DistributionInspect { descriptor: descriptor(&found.descriptor), platforms })
    }

    /// Tries credentials.
    ///
    /// # Errors
    /// When the registry refuses them or cannot be reached.
    pub async fn auth(&self, auth: &AuthConfig) -> Result<AuthResponse> {
        let registry = if auth.server_address.is_empty() { DEFAULT_REGISTRY } else { &auth.server_address };
        self.registry.check_login(registry, &credentials(auth)).await?;
        Ok(AuthResponse { status: "Login Succeeded".to_owned(), identity_token: String::new() })
    }
}

/// A download, told of as it is read. A client that has gone ends it.
struct Watched {
    bytes: Box<dyn Read + Send>,
    seen: u64,
    told: Instant,
    total: Option<u64>,
    progress: Progress,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.bytes.read(buffer)?;
        self.seen += length as u64;
        if self.told.elapsed() < INTERVAL && length > 0 {
            return Ok(length);
        }
        self.told = Instant::now();
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let total = number(self.total.unwrap_or(0));
        // When the channel is full the next message says it better.
        let told =
            self.progress.try_send(ProgressMessage::progress("", "Importing", number(self.seen), total));
        match told {
            Err(mpsc::error::TrySendError::Closed(_)) => Err(std::io::ErrorKind::BrokenPipe.into()),
            _ => Ok(length),
        }
    }
}

fn push_options(options: &Push) -> Result<PushOptions> {
    let compression = match options.compression.as_str() {
        "" | "gzip" => Compression::Gzip,
        "zstd" => Compression::Zstd,
        other => {
            return Err(EngineError::invalid(format!("invalid compression {other:?}: use gzip or zstd")));
        }
    };
    let platform = match options.platform.as_str() {
        "" => None,
        text => Some(platform(text)?),
    };
    Ok(PushOptions { compression, platform })
}

fn load_message(event: LoadEvent) -> ProgressMessage {
    let text = |state: LayerState| state.to_string();
    match event {
        LoadEvent::Layer { diff_id, exists: true, .. } => {
            ProgressMessage::layer(ids::short(diff_id.hex()), text(LayerState::AlreadyExists))
        }
        LoadEvent::Layer { diff_id, size, .. } => {
            let total = i64::try_from(size).unwrap_or(i64::MAX);
            ProgressMessage::progress(ids::short(diff_id.hex()), "Loading layer", 0, total)
        }
        LoadEvent::LayerDone { diff_id } => {
            ProgressMessage::layer(ids::short(diff_id.hex()), text(LayerState::PullComplete))
        }
    }
}
