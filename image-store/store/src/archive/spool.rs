//! The first half of a load: the archive's files go into the content store, its documents into memory.

use std::collections::HashMap;
use std::io::{BufReader, Read};

use berth_oci::Digest;

use crate::compression::decompress;
use crate::error::{Result, StoreError};
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
}

impl Spool {
    /// Reads the whole archive.
    pub(crate) fn read(store: &Store, from: impl Read + Send) -> Result<Self> {
        let failed = |source| StoreError::Stream { operation: "read the archive", source };
        let mut archive = Reader::new(BufReader::with_capacity(256 << 10, decompress(from).map_err(failed)?));
        let mut spool = Self::default();
        while let Some(entry) = archive.next().map_err(|e| refused(&e))? {
            let name = clean(&entry)?;
            if spool.files.len() + spool.links.len() + spool.documents.len() >= MAX_FILES {
                return Err(StoreError::Archive(format!("the archive has more than {MAX_FILES} files")));
            }
            match entry.kind {
                Kind::File => spool.file(store, name, &entry, archive.data())?,
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

    fn file(&mut self, store: &Store, name: String, entry: &Entry, mut data: impl Read) -> Result<()> {
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
        let mut ingest = store.content().ingest()?;
        std::io::copy(&mut data, &mut ingest).map_err(|e| refused(&e.into()))?;
        let size = ingest.offset();
        let digest = ingest.commit(stated.as_ref(), None).map_err(|error| match error {
            StoreError::Mismatch { expected, actual, .. } => {
                StoreError::Archive(format!("{name} is damaged: its digest is {actual}, not {expected}"))
            }
            other => other,
        })?;
        self.files.insert(name, (digest, size));
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
