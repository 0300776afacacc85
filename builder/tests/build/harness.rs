//! A store with a busybox image, a builder over it, and what a build told.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use berth_builder::{
    BoxFuture, BuildError, BuildEvent, BuildIo, BuildRequest, Builder, BuilderDirs, CacheRecords, Context,
    DeviceError, Devices, ImageResolver, NetworkMode, OutputStream, ResolveError, Sandbox, SandboxError,
    Sandboxes,
};
use berth_oci::{Digest, ImageConfig, Platform, Reference};
use berth_runtime_client::ShimSpawner;
use berth_store::Store;
use oci_spec::runtime as oci;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub(crate) struct Harness {
    pub(crate) store: Store,
    pub(crate) builder: Builder,
    pub(crate) root: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

/// What a build came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) result: Result<Digest, BuildError>,
    pub(crate) events: Vec<BuildEvent>,
    /// What the build took from the cache or put into it.
    pub(crate) records: Option<CacheRecords>,
    /// The image of each platform.
    pub(crate) images: Vec<(Platform, Digest)>,
}

impl Outcome {
    pub(crate) fn id(&self) -> &Digest {
        self.result.as_ref().unwrap_or_else(|error| panic!("the build failed: {error}\n{}", self.output()))
    }

    pub(crate) fn error(&self) -> &BuildError {
        self.result.as_ref().expect_err("the build should have failed")
    }

    /// Why steps missed the cache.
    pub(crate) fn missed(&self) -> Vec<String> {
        let reasons = |event: &BuildEvent| match event {
            BuildEvent::Missed { reasons } => Some(reasons.join("; ")),
            _ => None,
        };
        self.events.iter().filter_map(reasons).collect()
    }

    /// How many steps came from the cache.
    pub(crate) fn cached(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, BuildEvent::Cached)).count()
    }

    pub(crate) fn steps(&self) -> Vec<String> {
        let text = |event: &BuildEvent| match event {
            BuildEvent::StepStart { n, total, text, .. } => Some(format!("{n}/{total} {text}")),
            _ => None,
        };
        self.events.iter().filter_map(text).collect()
    }

    pub(crate) fn output(&self) -> String {
        let mut out = Vec::new();
        for event in &self.events {
            if let BuildEvent::Output { stream: OutputStream::Stdout | OutputStream::Stderr, bytes } = event {
                out.extend_from_slice(bytes);
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

impl Harness {
    pub(crate) fn new() -> Self {
        Self::with_limit(None)
    }

    /// With a bound on the cache, in bytes.
    pub(crate) fn with_limit(cache_limit: Option<u64>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path().join("store")).unwrap();
        let reference = Reference::parse("busybox").unwrap();
        let mut config = ImageConfig::new(&Platform::host());
        config.runtime_mut().cmd = Some(vec!["sh".into()]);
        config.created = Some(jiff::Timestamp::UNIX_EPOCH);
        store.import(busybox().as_slice(), config, Some("base"), Some(&reference)).unwrap();
        let dirs =
            BuilderDirs { builds: root.path().join("builds"), run: root.path().join("run"), cache_limit };
        let builder = Builder::new(
            store.clone(),
            ShimSpawner::new(shim()),
            Arc::new(HostNetwork),
            Arc::new(ZeroDevice),
            dirs,
        );
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { store, builder, root, runtime }
    }

    /// Builds a Dockerfile with these files beside it.
    pub(crate) fn build(&self, dockerfile: &str, files: &[(&str, &str)]) -> Outcome {
        self.build_with(dockerfile, files, |_| {})
    }

    pub(crate) fn build_with(
        &self,
        dockerfile: &str,
        files: &[(&str, &str)],
        change: impl FnOnce(&mut BuildRequest),
    ) -> Outcome {
        let dir = context(dockerfile, files);
        let mut request = BuildRequest::new(Context::Directory(dir.path().to_owned()));
        change(&mut request);
        self.run(request, CancellationToken::new())
    }

    pub(crate) fn run(&self, request: BuildRequest, cancel: CancellationToken) -> Outcome {
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&events);
        let io = BuildIo {
            resolver: Arc::new(StoreResolver(self.store.clone())),
            events: Arc::new(move |event: berth_builder::Event| sink.lock().unwrap().push(event.what)),
            cancel,
        };
        let result = self.runtime.block_on(self.builder.build(request, io));
        let records = result.as_ref().ok().map(|image| image.records.clone());
        let images = result.as_ref().map(|image| image.images.clone()).unwrap_or_default();
        let result = result.map(|image| image.id);
        let events = std::mem::take(&mut *events.lock().unwrap());
        Outcome { result, events, records, images }
    }

    pub(crate) fn config(&self, id: &Digest) -> Value {
        serde_json::from_slice(&self.store.images().config_bytes(id).unwrap()).unwrap()
    }

    /// Reads a file of an image.
    pub(crate) fn read(&self, id: &Digest, path: &str) -> String {
        fs::read_to_string(self.find(id, path).unwrap_or_else(|| panic!("the image has no {path}"))).unwrap()
    }

    /// The newest layer that has a path, and the path in it. Deleted files count as absent.
    pub(crate) fn find(&self, id: &Digest, path: &str) -> Option<PathBuf> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let config = self.store.images().config_of(id).unwrap();
        let found = config
            .diff_ids()
            .iter()
            .rev()
            .map(|layer| self.store.layers().path(layer).join(path))
            .find(|path| path.symlink_metadata().is_ok())?;
        let meta = found.symlink_metadata().unwrap();
        (!(meta.file_type().is_char_device() && meta.rdev() == 0)).then_some(found)
    }

    /// Nothing of a step may be left: no snapshot, no run directory, no unpacked context.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.store.snapshots().list().unwrap(), Vec::<String>::new(), "snapshots");
        for dir in ["run", "builds/tmp"] {
            let left: Vec<PathBuf> = fs::read_dir(self.root.path().join(dir))
                .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
                .unwrap_or_default();
            assert_eq!(left, Vec::<PathBuf>::new());
        }
    }
}

pub(crate) fn context(dockerfile: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

/// The shim of this workspace, if it is built; `RUN` needs it.
pub(crate) fn shim() -> PathBuf {
    let beside = std::env::current_exe().unwrap().parent().and_then(Path::parent).unwrap().join("berth-shim");
    std::env::var_os("BERTH_SHIM").map_or(beside, PathBuf::from)
}

fn busybox() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let header = |kind, mode, size| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    };
    for (dir, mode) in [("bin/", 0o755), ("etc/", 0o755), ("tmp/", 0o1777), ("root/", 0o700)] {
        tar.append_data(&mut header(tar::EntryType::Directory, mode, 0), dir, std::io::empty()).unwrap();
    }
    let busybox = fs::read("/bin/busybox").expect("the tests need busybox-static");
    let mut file = header(tar::EntryType::Regular, 0o755, busybox.len() as u64);
    tar.append_data(&mut file, "bin/busybox", busybox.as_slice()).unwrap();
    for name in [
        "sh", "cat", "echo", "ls", "id", "touch", "env", "sleep", "mkdir", "rm", "stat", "true", "false",
        "pwd",
    ] {
        let mut link = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut link, format!("bin/{name}"), "busybox").unwrap();
    }
    for (path, text) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:100:101::/home/app:/bin/sh\n"),
        ("etc/group", "root:x:0:\napp:x:101:\nextra:x:200:app\n"),
    ] {
        let mut file = header(tar::EntryType::Regular, 0o644, text.len() as u64);
        tar.append_data(&mut file, path, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

struct StoreResolver(Store);

impl ImageResolver for StoreResolver {
    fn resolve<'a>(
        &'a self,
        reference: &'a Reference,
        _platform: Option<&'a Platform>,
        _pull: bool,
    ) -> BoxFuture<'a, Result<Digest, ResolveError>> {
        let found = self.0.images().resolve(&reference.familiar());
        let found = found.map(|image| image.id).map_err(|e| ResolveError { message: e.to_string() });
        Box::pin(std::future::ready(found))
    }
}

/// Steps share the host's network: the tests of the network crate are elsewhere.
struct HostNetwork;

impl Sandboxes for HostNetwork {
    fn acquire(&self, _mode: &NetworkMode) -> Result<Box<dyn Sandbox>, SandboxError> {
        Ok(Box::new(Self))
    }
}

impl Sandbox for HostNetwork {
    fn netns(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn hosts(&self) -> String {
        "127.0.0.1\tlocalhost\n".into()
    }

    fn resolv_conf(&self) -> String {
        String::new()
    }
}

/// One device: zeroes under another name.
struct ZeroDevice;

impl Devices for ZeroDevice {
    fn names(&self) -> Vec<String> {
        vec!["test.example/zero=one".to_owned()]
    }

    fn inject(&self, names: &[String], spec: &mut oci::Spec) -> Result<(), DeviceError> {
        assert_eq!(names, ["test.example/zero=one"]);
        let mut linux = spec.linux().clone().unwrap_or_default();
        let mut device = oci::LinuxDevice::default();
        device.set_path("/dev/zeroes".into()).set_typ(oci::LinuxDeviceType::C).set_major(1).set_minor(5);
        let mut devices = linux.devices().clone().unwrap_or_default();
        devices.push(device);
        linux.set_devices(Some(devices));
        spec.set_linux(Some(linux));
        Ok(())
    }
}

pub(crate) fn args(pairs: &[(&str, &str)]) -> BTreeMap<String, Option<String>> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned()))).collect()
}
