//! A real registry, images made from nothing, and a registry that misbehaves on demand.

#![allow(dead_code, reason = "every test binary uses its part")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use berth_oci::{Descriptor, Digest, Index, Manifest, Platform, media_type};
use berth_registry::{Event, LayerState, Registry, RegistryConfig};
use berth_store::Store;
use serde_json::json;

/// Debian's docker-registry on a loopback port of its own.
pub(crate) struct RealRegistry {
    pub(crate) dir: tempfile::TempDir,
    child: Child,
    pub(crate) host: String,
}

/// A loopback port below the range that the kernel takes for outgoing connections, another one at each call: nobody takes
/// it before its server does.
fn free_port() -> u16 {
    static CALLS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    loop {
        let step = CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let port = 10_000 + std::process::id().wrapping_mul(89).wrapping_add(step) % 10_000;
        let port = u16::try_from(port).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl RealRegistry {
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// With further lines of configuration.
    pub(crate) fn with(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = format!("127.0.0.1:{}", free_port());
        let data = dir.path().join("data");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: \"{host}\"\n{more}\n",
            data.display()
        );
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config.replace("@DIR@", &dir.path().display().to_string())).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        let begin = Instant::now();
        while TcpStream::connect(&host).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(60), "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { dir, child, host }
    }

    pub(crate) fn reference(&self, name: &str) -> berth_oci::Reference {
        berth_oci::Reference::parse(&format!("{}/{name}", self.host)).unwrap()
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) fn skopeo(arguments: &[&str]) -> String {
    let output = Command::new("skopeo")
        .args(["--insecure-policy"])
        .args(arguments)
        .output()
        .expect("skopeo is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "skopeo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A store in a directory of its own, and a client for it.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) registry: Registry,
}

pub(crate) fn host() -> Host {
    host_with(Vec::new())
}

/// With directories of `hosts.toml` files.
pub(crate) fn host_with(host_dirs: Vec<PathBuf>) -> Host {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let config = RegistryConfig {
        retries: 2,
        back_off: Duration::from_millis(20),
        host_dirs,
        ..RegistryConfig::default()
    };
    let registry = Registry::new(store.clone(), config);
    Host { dir, store, registry }
}

pub(crate) fn amd64() -> Platform {
    Platform::parse("linux/amd64").unwrap()
}

/// Events as they came.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Event>>>);

impl Log {
    pub(crate) fn listener(&self) -> impl Fn(Event) + Send + Sync + 'static {
        let log = Arc::clone(&self.0);
        move |event| log.lock().unwrap().push(event)
    }

    pub(crate) fn statuses(&self) -> Vec<String> {
        let log = self.0.lock().unwrap();
        log.iter()
            .filter_map(|event| match event {
                Event::Status(status) => Some(status.clone()),
                Event::Named { id, status } => Some(format!("{id}: {status}")),
                _ => None,
            })
            .collect()
    }

    /// The words about one layer, without repetitions.
    pub(crate) fn layer(&self, digest: &Digest) -> Vec<String> {
        let log = self.0.lock().unwrap();
        let mut words: Vec<String> = log
            .iter()
            .filter_map(|event| match event {
                Event::Layer { id, state } if id == digest.short() => Some(state.to_string()),
                _ => None,
            })
            .collect();
        words.dedup();
        words
    }

    pub(crate) fn all_layers(&self, wanted: fn(&LayerState) -> bool) -> bool {
        let log = self.0.lock().unwrap();
        log.iter().all(|event| !matches!(event, Event::Layer { state, .. } if !wanted(state)))
    }
}

/// An image made of blobs.
#[derive(Clone)]
pub(crate) struct Blobs {
    pub(crate) blobs: BTreeMap<Digest, Vec<u8>>,
    pub(crate) manifest: Descriptor,
    pub(crate) config: Digest,
    pub(crate) layers: Vec<Descriptor>,
}

/// A gzipped layer with one file, and its diff-id.
pub(crate) fn layer(name: &str, content: &[u8]) -> (Vec<u8>, Digest) {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    tar.append_data(&mut header, name, content).unwrap();
    let tar = tar.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    (gzip.finish().unwrap(), Digest::of(&tar))
}

/// Bytes that do not compress.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}

pub(crate) fn image(architecture: &str, layers: &[(Vec<u8>, Digest)]) -> Blobs {
    let diff_ids: Vec<_> = layers.iter().map(|(_, diff_id)| diff_id.to_string()).collect();
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": layers.iter().map(|_| json!({"created_by": "test"})).collect::<Vec<_>>(),
    });
    let config = serde_json::to_vec(&config).unwrap();
    let mut blobs = BTreeMap::new();
    let mut put = |bytes: &[u8], media_type: &str| {
        let descriptor = Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
        blobs.insert(descriptor.digest.clone(), bytes.to_vec());
        descriptor
    };
    let layers: Vec<_> = layers.iter().map(|(bytes, _)| put(bytes, media_type::OCI_LAYER_GZIP)).collect();
    let config = put(&config, media_type::OCI_CONFIG);
    let id = config.digest.clone();
    let manifest = serde_json::to_vec_pretty(&Manifest::oci(config, layers.clone())).unwrap();
    let manifest = put(&manifest, media_type::OCI_MANIFEST);
    Blobs { blobs, manifest, config: id, layers }
}

/// Several images under one index, with an attestation beside the first as BuildKit writes it.
pub(crate) fn index(images: &[(&str, &Blobs)]) -> Blobs {
    index_of(images, true)
}

pub(crate) fn index_without_attestation(images: &[(&str, &Blobs)]) -> Blobs {
    index_of(images, false)
}

fn index_of(images: &[(&str, &Blobs)], attested: bool) -> Blobs {
    let mut blobs = BTreeMap::new();
    let mut entries = Vec::new();
    for (platform, image) in images {
        blobs.extend(image.blobs.clone());
        let mut entry = image.manifest.clone();
        entry.platform = Some(Platform::parse(platform).unwrap());
        entries.push(entry);
    }
    let attestation = image("unknown", &[layer("attestation", b"{}")]);
    blobs.extend(attestation.blobs);
    let mut entry = attestation.manifest;
    entry.platform =
        Some(Platform { architecture: "unknown".into(), os: "unknown".into(), ..Platform::default() });
    entry.annotate("vnd.docker.reference.type", "attestation-manifest");
    entry.annotate("vnd.docker.reference.digest", images[0].1.manifest.digest.as_str());
    if attested {
        entries.insert(0, entry);
    }
    let bytes = serde_json::to_vec(&Index::oci(entries)).unwrap();
    let manifest = Descriptor::new(media_type::OCI_INDEX, Digest::of(&bytes), bytes.len() as u64);
    blobs.insert(manifest.digest.clone(), bytes);
    Blobs { blobs, manifest, config: images[0].1.config.clone(), layers: Vec::new() }
}

impl Blobs {
    /// Writes an OCI layout for skopeo.
    pub(crate) fn layout(&self, dir: &Path) -> PathBuf {
        let dir = dir.join(self.manifest.digest.short());
        std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        for (digest, bytes) in &self.blobs {
            std::fs::write(dir.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        }
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let mut entry = self.manifest.clone();
        entry.annotate("org.opencontainers.image.ref.name", "latest");
        std::fs::write(dir.join("index.json"), serde_json::to_vec(&Index::oci(vec![entry])).unwrap())
            .unwrap();
        dir
    }

    /// Pushes it with skopeo.
    pub(crate) fn push_with_skopeo(&self, registry: &RealRegistry, name: &str, options: &[&str]) {
        let work = tempfile::tempdir().unwrap();
        let from = format!("oci:{}:latest", self.layout(work.path()).display());
        let to = format!("docker://{}/{name}", registry.host);
        let arguments = ["copy", "--dest-tls-verify=false"].into_iter().chain(options.iter().copied());
        skopeo(&arguments.chain([from.as_str(), to.as_str()]).collect::<Vec<_>>());
    }
}

/// A request as the fake registry sees it.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// An answer: status, headers, body; a body shorter than `Content-Length` breaks the connection.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Pause before each 16 KiB of the body.
    pub(crate) drip: Option<Duration>,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), drip: None }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// A registry whose answers a test decides about.
pub(crate) struct FakeRegistry {
    pub(crate) host: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
}

impl FakeRegistry {
    pub(crate) fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let stop = Arc::new(AtomicBool::new(false));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let handler: Arc<Handler> = Arc::new(handler);
        let (stopped, log) = (Arc::clone(&stop), Arc::clone(&requests));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                std::thread::spawn(move || serve(stream, &*handler, &log));
            }
        });
        Self { host, stop, thread: Some(thread), requests }
    }

    /// Serves an image correctly, except where `spoil` says otherwise.
    pub(crate) fn of(
        image: &Blobs,
        spoil: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let image = image.clone();
        Self::start(move |request| spoil(request).unwrap_or_else(|| honest(&image, request)))
    }

    pub(crate) fn reference(&self, name: &str) -> berth_oci::Reference {
        berth_oci::Reference::parse(&format!("{}/{name}", self.host)).unwrap()
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|line| line.contains(what)).count()
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        TcpStream::connect(&self.host).ok();
        self.thread.take().unwrap().join().ok();
    }
}

/// A certificate authority of our own, and certificates that it signed.
pub(crate) struct Authority(pub(crate) tempfile::TempDir);

impl Authority {
    pub(crate) fn new() -> Self {
        let authority = Self(tempfile::tempdir().unwrap());
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
            "-days",
            "2",
            "-subj",
            "/CN=berth test authority",
        ]);
        authority
    }

    /// `<name>.crt` and `<name>.key`, good for 127.0.0.1 and for a client.
    pub(crate) fn sign(&self, name: &str) {
        let (key, request) = (format!("{name}.key"), format!("{name}.csr"));
        let subject = format!("/CN={name}");
        self.openssl(&[
            "req", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &request, "-subj", &subject,
        ]);
        let extensions = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n";
        std::fs::write(self.0.path().join("extensions"), extensions).unwrap();
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-out",
            &format!("{name}.crt"),
            "-days",
            "2",
            "-extfile",
            "extensions",
        ]);
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(self.0.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

/// A directory with `hosts.toml` of one registry.
pub(crate) fn hosts_toml(registry: &str, text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join(registry);
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("hosts.toml"), text).unwrap();
    dir
}

/// What a good registry answers: `/v2/`, manifests by tag and digest, blobs with ranges.
pub(crate) fn honest(image: &Blobs, request: &Request) -> Answer {
    if request.path == "/v2/" {
        return Answer::new(200, "{}");
    }
    let path = request.path.split('?').next().unwrap();
    let (_, last) = path.rsplit_once('/').unwrap();
    let digest = Digest::parse(last).unwrap_or_else(|_| image.manifest.digest.clone());
    let Some(bytes) = image.blobs.get(&digest) else { return Answer::new(404, "") };
    if request.path.contains("/manifests/") {
        let media_type = if digest == image.manifest.digest {
            &image.manifest.media_type
        } else {
            media_type::OCI_MANIFEST
        };
        return Answer::new(200, bytes.clone())
            .header("Content-Type", media_type)
            .header("Docker-Content-Digest", digest.as_str());
    }
    let start =
        request.headers.get("range").and_then(|r| r.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
    match start {
        None => Answer::new(200, bytes.clone()),
        Some(start) if start <= bytes.len() => Answer::new(206, &bytes[start..]),
        Some(_) => Answer::new(416, ""),
    }
}

fn serve(stream: TcpStream, handler: &Handler, log: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(request) = read_request(&mut reader) {
        let range = request.headers.get("range").map(|range| format!(" {range}")).unwrap_or_default();
        log.lock().unwrap().push(format!("{} {}{range}", request.method, request.path));
        let answer = handler(&request);
        let stated = answer.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !stated {
            head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
        }
        head.push_str("\r\n");
        let body: &[u8] = if request.method == "HEAD" { &[] } else { &answer.body };
        let send = |stream: &mut TcpStream| {
            stream.write_all(head.as_bytes())?;
            let Some(pause) = answer.drip else { return stream.write_all(body) };
            for part in body.chunks(16 << 10) {
                std::thread::sleep(pause);
                stream.write_all(part)?;
            }
            Ok(())
        };
        if send(&mut stream).is_err() || stated {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body })
}
