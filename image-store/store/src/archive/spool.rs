//! The first half of a load: the archive's files go into the content store, its documents into memory, and what looks
//! like a layer is unpacked on the way.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};

use berth_oci::Digest;

use crate::archive::ahead::{Ahead, Feed, Unpacked};
use crate::compression::decompress;
use crate::error::{Result, StoreError};
use crate::pipe::CHUNK;
use crate::store::Store;
use crate::tarball::{Entry, Kind, Reader, TarError};

/// Files of one archive; each image has at most 127 layers and a few documents.
const MAX_FILES: usize = 100_000;
/// manifest.json and index.json.
const MAX_DOCUMENT: u64 = 16 << 20;
/// Symbolic links to follow; old docker wrote one for a layer that occurs twice.
const MAX_LINKS: usize = 8;

/// What an archive holds.
#[derive(Default)]
pub(crate) struct Spool {
    files: HashMap<String, (Digest, u64)>,
    links: HashMap<String, String>,
    documents: HashMap<String, Vec<u8>>,
    /// What was unpacked on the way.
    pub(crate) unpacked: Unpacked,
}

impl Spool {
    /// Reads the whole archive.
    pub(crate) fn read(store: &Store, from: impl Read + Send) -> Result<Self> {
        std::thread::scope(|scope| {
            let mut ahead = Ahead::new(scope, store);
            let spool = Self::gather(store, from, &mut ahead);
            let unpacked = ahead.finish();
            spool.map(|spool| Self { unpacked, ..spool })
        })
    }

    fn gather(store: &Store, from: impl Read + Send, ahead: &mut Ahead<'_, '_>) -> Result<Self> {
        let failed = |source| StoreError::Stream { operation: "read the archive", source };
        let mut archive = Reader::new(BufReader::with_capacity(256 << 10, decompress(from).map_err(failed)?));
        let mut spool = Self::default();
        while let Some(entry) = archive.next().map_err(|e| refused(&e))? {
            let name = clean(&entry)?;
            if spool.files.len() + spool.links.len() + spool.documents.len() >= MAX_FILES {
                return Err(StoreError::Archive(format!("the archive has more than {MAX_FILES} files")));
            }
            match entry.kind {
                Kind::File => spool.file(store, ahead, name, &entry, archive.data())?,
                Kind::Symlink | Kind::HardLink => {
                    let target = String::from_utf8_lossy(&entry.link).into_owned();
                    let target = if entry.kind == Kind::Symlink { beside(&name, &target)? } else { target };
                    spool.links.insert(name, target);
                }
                _ => {}
            }
        }
        Ok(spool)
    }

    fn file(
        &mut self,
        store: &Store,
        ahead: &mut Ahead<'_, '_>,
        name: String,
        entry: &Entry,
        mut data: impl Read,
    ) -> Result<()> {
        if matches!(name.as_str(), "manifest.json" | "index.json") {
            if entry.size > MAX_DOCUMENT {
                return Err(StoreError::Archive(format!(
                    "{name} has {} bytes, more than {MAX_DOCUMENT}",
                    entry.size
                )));
            }
            let mut bytes = Vec::new();
            data.read_to_end(&mut bytes).map_err(|e| refused(&e.into()))?;
            self.documents.insert(name, bytes);
            return Ok(());
        }
        let stated =
            name.strip_prefix("blobs/").and_then(|rest| Digest::parse(&rest.replacen('/', ":", 1)).ok());
        let first = chunk(&mut data)?;
        let feed = ahead.begin(stated.as_ref().or(diff_id_in(&name).as_ref()), &first)?;
        let taken = take(store, &name, stated.as_ref(), first, data, feed.as_ref());
        match (feed, &taken) {
            (Some(feed), Ok((digest, _))) => ahead.is_blob(feed, digest.clone()),
            (Some(feed), Err(error)) => feed.give_up(error),
            (None, _) => {}
        }
        self.files.insert(name, taken?);
        Ok(())
    }

    /// A document, if the archive has it.
    pub(crate) fn document(&self, name: &str) -> Option<&[u8]> {
        self.documents.get(name).map(Vec::as_slice)
    }

    /// A file by its name in the archive.
    pub(crate) fn find(&self, name: &str) -> Result<(Digest, u64)> {
        let mut name = name.trim_start_matches("./").to_owned();
        for _ in 0..MAX_LINKS {
            if let Some(found) = self.files.get(&name) {
                return Ok(found.clone());
            }
            let Some(target) = self.links.get(&name) else { break };
            name.clone_from(target);
        }
        Err(StoreError::Archive(format!(
            "the archive's manifest names {name:?}, which is not in the archive"
        )))
    }
}

/// Podman names a layer's tar by its diff-id.
fn diff_id_in(name: &str) -> Option<Digest> {
    Digest::parse(&format!("sha256:{}", name.strip_suffix(".tar")?)).ok()
}

/// The next bytes of a file; none at its end.
fn chunk(data: &mut impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(CHUNK);
    data.take(CHUNK as u64).read_to_end(&mut bytes).map_err(|e| refused(&e.into()))?;
    Ok(bytes)
}

/// Makes a blob of a file, of which `first` was read already.
fn take(
    store: &Store,
    name: &str,
    stated: Option<&Digest>,
    first: Vec<u8>,
    mut data: impl Read,
    feed: Option<&Feed<'_>>,
) -> Result<(Digest, u64)> {
    let mut ingest = store.content().ingest()?;
    let mut bytes = first;
    while !bytes.is_empty() {
        ingest.write_all(&bytes).map_err(|e| refused(&e.into()))?;
        if let Some(feed) = feed {
            feed.send(bytes);
        }
        bytes = chunk(&mut data)?;
    }
    let size = ingest.offset();
    let digest = ingest.commit(stated, None).map_err(|error| match error {
        StoreError::Mismatch { expected, actual, .. } => {
            StoreError::Archive(format!("{name} is damaged: its digest is {actual}, not {expected}"))
        }
        other => other,
    })?;
    Ok((digest, size))
}

fn refused(error: &TarError) -> StoreError {
    StoreError::Archive(format!("the image archive cannot be read: {error}"))
}

fn clean(entry: &Entry) -> Result<String> {
    let name = String::from_utf8_lossy(&entry.path);
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if name.starts_with('/') || parts.contains(&"..") {
        return Err(StoreError::Archive(format!("the archive has an entry with the unsafe name {name:?}")));
    }
    Ok(parts.join("/"))
}

/// The name that a relative link beside `name` means.
fn beside(name: &str, target: &str) -> Result<String> {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    let unsafe_link = || {
        StoreError::Archive(format!("entry {name:?} is a link to {target:?}, which leads out of the archive"))
    };
    if target.starts_with('/') {
        return Err(unsafe_link());
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop().ok_or_else(unsafe_link)?),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}
