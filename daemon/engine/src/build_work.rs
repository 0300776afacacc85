//! A build and what becomes of its result, for whoever speaks with the client: the way to the registries, the caches, the
//! outputs.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use berth_api::build::BuildOptions;
use berth_api::options::RemoveImage;
use berth_api::registry::{AuthConfig, RegistryAuths};
use berth_builder::{
    BoxFuture, BuildError, BuildIo, BuildRequest, BuiltImage, Context, Entitlements, EventSink,
};
use berth_oci::{Descriptor, Digest, Reference};
use berth_sys::{Errno, path::open_in_root};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use tokio_util::sync::CancellationToken;

use crate::build::{Resolver, failure, request};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ids;
use crate::images::{self, credentials};
use crate::items::Progress;
use crate::local_build::entitlements;

/// Who knows the user's credentials for registries.
pub trait Logins: Send + Sync {
    /// Those for the registry of this domain; empty ones for a registry that the user has not logged in to.
    fn login<'a>(&'a self, domain: &'a str) -> BoxFuture<'a, AuthConfig>;
}

impl Logins for RegistryAuths {
    fn login<'a>(&'a self, domain: &'a str) -> BoxFuture<'a, AuthConfig> {
        // Docker's own registry has several names.
        let hub = ["docker.io", "index.docker.io", "registry-1.docker.io"];
        let host = |key: &str| {
            let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
            rest.split('/').next().unwrap_or_default().to_owned()
        };
        let same =
            |key: &str| host(key) == domain || domain == "docker.io" && hub.contains(&host(key).as_str());
        let found = self.iter().find(|(key, _)| same(key)).map(|(_, auth)| auth.clone());
        Box::pin(async { found.unwrap_or_default() })
    }
}

/// One build's connections to the engine.
pub struct Build {
    engine: Arc<Engine>,
    resolver: Arc<Resolver>,
}

impl Engine {
    /// What a build needs of the engine. Pulls and pushes are told to `progress`.
    #[must_use]
    pub fn new_build(self: &Arc<Self>, logins: Arc<dyn Logins>, progress: Progress) -> Build {
        let resolver = Arc::new(Resolver { engine: Arc::clone(self), logins, progress });
        Build { engine: Arc::clone(self), resolver }
    }
}

impl Build {
    /// The builder's words for what a client asks for; `allow` as in `docker build --allow`.
    ///
    /// # Errors
    /// When it has no sense.
    pub fn request(options: BuildOptions, context: Context, allow: &[String]) -> Result<BuildRequest> {
        let allow: Entitlements = entitlements(allow)?;
        Ok(BuildRequest { allow, ..request(options, context)? })
    }

    /// Builds.
    ///
    /// # Errors
    /// The builder's.
    pub async fn run(
        &self,
        request: BuildRequest,
        events: EventSink,
        cancel: CancellationToken,
    ) -> Result<BuiltImage, BuildError> {
        let io = BuildIo { resolver: Arc::clone(&self.resolver) as _, events, cancel };
        self.engine.builder.build(request, io).await
    }

    /// Makes the index of an image that was built for several platforms; none for a single one.
    ///
    /// # Errors
    /// The store's.
    pub async fn index(&self, built: &BuiltImage) -> Result<Option<Descriptor>> {
        self.engine.index(built).await
    }

    /// The image's names.
    ///
    /// # Errors
    /// The store's.
    pub fn tags(&self, built: &BuiltImage) -> Result<Vec<Reference>> {
        Ok(self.engine.store.images().get(&built.id)?.map(|image| image.tags).unwrap_or_default())
    }

    /// The image's manifest, if it has one: built images get theirs when they are pushed or saved.
    ///
    /// # Errors
    /// The store's.
    pub fn manifest(&self, built: &BuiltImage) -> Result<Option<Descriptor>> {
        Ok(self.engine.store.images().get(&built.id)?.and_then(|image| image.manifest))
    }

    /// The image's config, as it is stored.
    ///
    /// # Errors
    /// When there is no such image.
    pub fn config(&self, image: &Digest) -> Result<Vec<u8>> {
        Ok(self.engine.store.images().config_of(image)?.to_bytes())
    }

    /// Opens a file or directory of the image; none if there is none of this name.
    ///
    /// # Errors
    /// When there is no such image, or it cannot be mounted.
    pub async fn file(&self, image: &Digest, path: &str) -> Result<Option<File>> {
        let (image, path) = (image.clone(), std::path::PathBuf::from(path));
        self.engine
            .blocking(move |engine| {
                let layers = engine.store.images().config_of(&image)?.diff_ids().to_vec();
                let root = engine.store.snapshots().mount_ro(&layers)?;
                // O_NONBLOCK: a FIFO in the file's place must not hang the engine.
                let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
                match open_in_root(root.as_fd(), &path, flags, Mode::empty()) {
                    Ok(file) => Ok(Some(File::from(file))),
                    Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
                    Err(errno) => Err(EngineError::io("open", &path, errno)),
                }
            })
            .await
    }

    /// Removes an image that was made only to be looked at, unless it has a name meanwhile.
    pub async fn forget(&self, image: &Digest) {
        let found = self.engine.store.images().get(image);
        if !found.is_ok_and(|found| found.is_some_and(|image| image.tags.is_empty())) {
            return;
        }
        if let Err(error) = self.engine.remove_image(image.as_str(), RemoveImage::default()).await {
            tracing::debug!(%image, %error, "removing an image that was only looked at");
        }
    }

    /// Gives the image a name.
    ///
    /// # Errors
    /// The store's.
    pub async fn tag(&self, name: &Reference, image: &Digest) -> Result<()> {
        let (name, image) = (name.clone(), image.clone());
        self.engine
            .blocking(move |engine| {
                engine.store.images().tag(&name, &image)?;
                engine.image_event("tag", image.as_str(), &name.familiar());
                Ok(())
            })
            .await
    }

    /// Tells the world that an image was built.
    pub fn publish(&self, built: &BuiltImage) {
        self.engine.events.publish("builder", "build", built.id.as_str(), std::collections::BTreeMap::new());
    }

    /// Pushes an image under a name.
    ///
    /// # Errors
    /// The registry's.
    pub async fn push(&self, name: &Reference, image: &Digest) -> Result<()> {
        let (tell, pump) = images::funnel(self.resolver.progress.clone());
        let credentials = credentials(&self.resolver.logins.login(name.domain()).await);
        let options = berth_registry::PushOptions::default();
        let told = move |event| tell.put(images::message(event));
        let pushed = self.engine.registry.push(name, image, &credentials, &options, told).await;
        pump.await?;
        pushed?;
        Ok(())
    }

    /// Writes `docker save`'s archive of images that have these names or ids.
    ///
    /// # Errors
    /// When one is missing, or the file cannot be written.
    pub async fn save(&self, names: Vec<String>, file: File) -> Result<()> {
        self.engine.blocking(move |engine| Ok(engine.store.save(&names, file)?)).await
    }

    /// The same for one image, under names that it need not have here.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn save_as(&self, image: &Digest, names: Vec<Reference>, file: File) -> Result<()> {
        let image = image.clone();
        self.engine.blocking(move |engine| Ok(engine.store.save_as(&image, &names, file)?)).await
    }

    /// Writes the image's files as a tar archive.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn archive(&self, built: &BuiltImage, file: File) -> Result<()> {
        let id = built.id.clone();
        self.engine
            .blocking(move |engine| {
                let layers = engine.store.images().config_of(&id)?.diff_ids().to_vec();
                let snapshots = engine.store.snapshots();
                let key = format!("output-{}", ids::random());
                snapshots.create(&key, &layers)?;
                let written = engine.store.export(&key, std::io::BufWriter::new(file));
                snapshots.remove(&key)?;
                Ok(written?)
            })
            .await
    }

    /// Writes the image's files into a directory, those of several platforms each into one of its own.
    ///
    /// # Errors
    /// When the directory cannot be written to.
    pub async fn files(
        &self,
        built: &BuiltImage,
        directory: OwnedFd,
        owner: Option<(u32, u32)>,
    ) -> Result<()> {
        let images = built.images.clone();
        self.engine
            .blocking(move |engine| engine.builder.export_files(&images, directory, owner).map_err(failure))
            .await
    }

    /// Takes over the cache that a registry has under this name. Returns how many results it had.
    ///
    /// # Errors
    /// When it has none.
    pub async fn take_cache(&self, name: &Reference) -> Result<usize> {
        let image = self.resolver.find(name, None, true).await?;
        self.take_cache_image(image).await
    }

    /// The same, of an archive.
    ///
    /// # Errors
    /// When it holds none.
    pub async fn take_cache_archive(&self, file: File) -> Result<usize> {
        let loaded = self.engine.blocking(move |engine| Ok(engine.store.load(file, &|_| {})?)).await?;
        let missing = || EngineError::invalid("the cache's archive holds no image");
        let image = loaded.into_iter().next().map(|loaded| loaded.id).ok_or_else(missing)?;
        self.take_cache_image(image).await
    }

    async fn take_cache_image(&self, image: Digest) -> Result<usize> {
        self.engine
            .blocking(move |engine| {
                let count = engine.builder.import_cache(&image).map_err(failure)?;
                // Only the layers are wanted, and the cache keeps them.
                engine.store.images().remove(image.as_str(), true, false)?;
                Ok(count)
            })
            .await
    }

    /// Pushes what the build took from the cache or put into it; with `mounts` the contents of cache mounts as well.
    ///
    /// # Errors
    /// The registry's.
    pub async fn give_cache(&self, built: &BuiltImage, name: &Reference, mounts: bool) -> Result<()> {
        let image = self.cache_image(built, mounts).await?;
        let pushed = self.push(name, &image).await;
        self.drop_image(image).await?;
        pushed
    }

    /// The same, into an archive.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn give_cache_archive(&self, built: &BuiltImage, file: File, mounts: bool) -> Result<()> {
        let image = self.cache_image(built, mounts).await?;
        let saved = self.save(vec![image.to_string()], file).await;
        self.drop_image(image).await?;
        saved
    }

    async fn cache_image(&self, built: &BuiltImage, mounts: bool) -> Result<Digest> {
        let records = built.records.clone();
        self.engine
            .blocking(move |engine| engine.builder.export_cache(&records, mounts).map_err(failure))
            .await
    }

    async fn drop_image(&self, image: Digest) -> Result<()> {
        self.engine
            .blocking(move |engine| Ok(engine.store.images().remove(image.as_str(), true, false)?))
            .await?;
        Ok(())
    }
}

impl std::fmt::Debug for Build {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Build").finish_non_exhaustive()
    }
}
