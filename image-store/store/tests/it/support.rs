//! A store in a directory of its own, archives made byte by byte, and trees as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use berth_oci::{Descriptor, DiffId, Digest, ImageConfig, ImageId, Manifest, Platform, media_type};
use berth_store::{Compression, NewImage, Store};
use tempfile::TempDir;

/// A store that is gone at the end of the test.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) dir: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: Store::open(dir.path().join("store")).unwrap(), dir }
    }

    pub(crate) fn root(&self) -> &Path {
        self.store.root()
    }

    /// Closes the store and opens it again, as a new daemon would.
    pub(crate) fn reopen(self) -> Self {
        let Self { store, dir } = self;
        let root = store.root().to_owned();
        drop(store);
        Self { store: Store::open(root).unwrap(), dir }
    }

    /// Files that must not stay behind after a failure.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for directory in ["tmp", "trash", "content/ingest"] {
            found.extend(fs::read_dir(self.root().join(directory)).unwrap().map(|e| e.unwrap().path()));
        }
        found
    }

    pub(crate) fn layer(&self, tar: &[u8]) -> DiffId {
        let diff_id = DiffId(Digest::of(tar));
        self.store.layers().unpack(tar, Some(&diff_id)).unwrap_or_else(|e| panic!("{e}"));
        diff_id
    }

    /// An image as a pull leaves it: compressed blobs, config, manifest.
    pub(crate) fn image(&self, layers: &[Vec<u8>], compression: Compression) -> ImageId {
        self.image_for(&Platform::host(), layers, compression)
    }

    /// The same of another platform.
    pub(crate) fn image_for(
        &self,
        platform: &Platform,
        layers: &[Vec<u8>],
        compression: Compression,
    ) -> ImageId {
        let mut config = ImageConfig::new(platform);
        let mut descriptors = Vec::new();
        for tar in layers {
            let blob = compress(tar, compression);
            let digest = self.store.content().put(&blob).unwrap();
            let descriptor = Descriptor::new(compression.layer_media_type(), digest, blob.len() as u64);
            let diff_id = DiffId(Digest::of(tar));
            self.store.layers().unpack_blob(&descriptor, &diff_id).unwrap_or_else(|e| panic!("{e}"));
            config.rootfs.diff_ids.push(diff_id);
            descriptors.push(descriptor);
        }
        let config = config.to_bytes();
        let id = self.store.content().put(&config).unwrap();
        let described = Descriptor::new(media_type::OCI_CONFIG, id, config.len() as u64);
        let manifest = serde_json::to_vec(&Manifest::oci(described, descriptors)).unwrap();
        let digest = self.store.content().put(&manifest).unwrap();
        let manifest = Some(Descriptor::new(media_type::OCI_MANIFEST, digest, manifest.len() as u64));
        self.store.images().put(NewImage { config, manifest, parent: None }).unwrap()
    }

    /// An image as a build leaves it.
    pub(crate) fn built(&self, note: &str, layers: &[DiffId], parent: Option<&ImageId>) -> ImageId {
        let mut config = ImageConfig::new(&Platform::host());
        config.author = Some(note.into());
        config.rootfs.diff_ids = layers.to_vec();
        let image = NewImage { config: config.to_bytes(), manifest: None, parent: parent.cloned() };
        self.store.images().put(image).unwrap()
    }

    /// The merged tree of a snapshot of these layers.
    pub(crate) fn merged(&self, layers: &[DiffId]) -> BTreeMap<String, String> {
        let key = format!("merged-{}", self.store.snapshots().list().unwrap().len());
        self.store.snapshots().create(&key, layers).unwrap();
        let mount = self.store.snapshots().mount(&key).unwrap();
        let found = tree(&PathBuf::from(format!("/proc/self/fd/{}/.", mount.as_raw_fd())));
        drop(mount);
        self.store.snapshots().remove(&key).unwrap();
        found
    }
}

pub(crate) fn compress(bytes: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => bytes.to_vec(),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(bytes, 1).unwrap(),
    }
}

/// An archive made member by member.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

/// What a member of a test archive is, with defaults.
#[derive(Clone)]
pub(crate) struct Member<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: u8,
    pub(crate) mode: u32,
    pub(crate) owner: (u64, u64),
    pub(crate) mtime: u64,
    pub(crate) link: &'a str,
    pub(crate) data: &'a [u8],
    pub(crate) device: (u32, u32),
    pub(crate) pax: &'a [(&'a str, &'a [u8])],
}

impl<'a> Member<'a> {
    pub(crate) fn file(name: &'a str, data: &'a [u8]) -> Self {
        Self {
            name,
            kind: b'0',
            mode: 0o644,
            owner: (0, 0),
            mtime: 1_600_000_000,
            link: "",
            data,
            device: (0, 0),
            pax: &[],
        }
    }

    pub(crate) fn dir(name: &'a str) -> Self {
        Self { kind: b'5', mode: 0o755, ..Self::file(name, b"") }
    }

    pub(crate) fn link(kind: u8, name: &'a str, link: &'a str) -> Self {
        Self { kind, link, mode: 0o777, ..Self::file(name, b"") }
    }
}

impl Tar {
    pub(crate) fn add(mut self, member: Member<'_>) -> Self {
        if !member.pax.is_empty() {
            let mut records = Vec::new();
            for (key, value) in member.pax {
                let rest = key.len() + value.len() + 3;
                let mut length = rest + 1;
                while rest + length.to_string().len() != length {
                    length += 1;
                }
                write!(records, "{length} {key}=").unwrap();
                records.extend_from_slice(value);
                records.push(b'\n');
            }
            self = self.raw(Member { kind: b'x', ..Member::file("PaxHeaders/x", &records) });
        }
        self.raw(member)
    }

    fn raw(mut self, member: Member<'_>) -> Self {
        let mut header = tar::Header::new_ustar();
        let old = header.as_old_mut();
        let n = member.name.len().min(100);
        old.name[..n].copy_from_slice(&member.name.as_bytes()[..n]);
        let n = member.link.len().min(100);
        old.linkname[..n].copy_from_slice(&member.link.as_bytes()[..n]);
        header.set_entry_type(tar::EntryType::new(member.kind));
        header.set_mode(member.mode);
        header.set_uid(member.owner.0);
        header.set_gid(member.owner.1);
        header.set_mtime(member.mtime);
        header.set_size(member.data.len() as u64);
        header.set_device_major(member.device.0).unwrap();
        header.set_device_minor(member.device.1).unwrap();
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(member.data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, data: &str) -> Self {
        self.add(Member::file(name, data.as_bytes()))
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.add(Member::dir(name))
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A tree as text: one line per path with everything that an image can say about it.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut links = BTreeMap::new();
    visit(root, root, &mut links, &mut found);
    found
}

fn visit(root: &Path, path: &Path, links: &mut BTreeMap<u64, String>, found: &mut BTreeMap<String, String>) {
    let stat = fs::symlink_metadata(path).unwrap();
    let name = format!("/{}", path.strip_prefix(root).unwrap().display());
    let mut text = format!(
        "{:06o} {}:{} {}.{:09}",
        stat.mode(),
        stat.uid(),
        stat.gid(),
        stat.mtime(),
        stat.mtime_nsec()
    );
    let kind = stat.file_type();
    if kind.is_file() {
        write!(text, " {}", Digest::of(&fs::read(path).unwrap()).short()).unwrap();
    } else if kind.is_symlink() {
        write!(text, " -> {}", fs::read_link(path).unwrap().display()).unwrap();
    } else if !kind.is_dir() {
        write!(text, " dev {:x}", stat.rdev()).unwrap();
    }
    if !kind.is_dir() && stat.nlink() > 1 {
        let first = links.entry(stat.ino()).or_insert_with(|| name.clone());
        write!(text, " links {first}").unwrap();
    }
    let mut xattrs: Vec<_> = xattr::list(path).unwrap().collect();
    xattrs.sort();
    for key in xattrs {
        if !key.as_bytes().starts_with(b"trusted.overlay.") {
            let value = xattr::get(path, &key).unwrap().unwrap();
            write!(text, " {}={value:?}", key.to_string_lossy()).unwrap();
        }
    }
    // The root's time is that of the latest change of the tree, not the archive's.
    found.insert(
        name.clone(),
        if name == "/" { text.split(' ').take(2).collect::<Vec<_>>().join(" ") } else { text },
    );
    if kind.is_dir() {
        let mut children: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
        children.sort();
        children.iter().for_each(|child| visit(root, child, links, found));
    }
}

/// Runs a tool that must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}
