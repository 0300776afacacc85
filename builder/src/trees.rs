//! Digests of whole selections of files that are all as they were the last time: by names and metadata alone, so that
//! not even what is known of the single files has to be read.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use berth_oci::Digest;

/// So many selections of one context are remembered, those that were asked for last.
const KEPT: usize = 64;

/// A selection's look (a digest over names and metadata), and the digest over names and contents that belongs to it.
type Tree = (Digest, Digest);

/// What is known of the selections from one context.
#[derive(Debug)]
pub(crate) struct Trees {
    file: PathBuf,
    known: Vec<Tree>,
    used: Mutex<Vec<Tree>>,
}

impl Trees {
    /// What cannot be read was never there.
    pub(crate) fn open(file: PathBuf) -> Self {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let tree = |line: &str| {
            let (look, digest) = line.split_once(' ')?;
            Some((Digest::parse(look).ok()?, Digest::parse(digest).ok()?))
        };
        Self { file, known: text.lines().filter_map(tree).collect(), used: Mutex::default() }
    }

    pub(crate) fn get(&self, look: &Digest) -> Option<Digest> {
        let (_, digest) = self.known.iter().find(|(known, _)| known == look)?;
        self.put(look.clone(), digest.clone());
        Some(digest.clone())
    }

    pub(crate) fn put(&self, look: Digest, digest: Digest) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if !used.iter().any(|(known, _)| *known == look) {
            used.push((look, digest));
        }
    }

    /// Writes what was used, and what was known before, if anything is new.
    pub(crate) fn save(&self) -> std::io::Result<()> {
        let mut all = self.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if all.iter().all(|tree| self.known.contains(tree)) {
            return Ok(());
        }
        let others: Vec<Tree> = self.known.iter().filter(|tree| !all.contains(tree)).cloned().collect();
        all.extend(others);
        all.truncate(KEPT);
        let text: String = all.iter().map(|(look, digest)| format!("{look} {digest}\n")).collect();
        let dir = self.file.parent().expect("the file is in a directory");
        fs::create_dir_all(dir)?;
        let temporary = tempfile::NamedTempFile::new_in(dir)?;
        fs::write(temporary.path(), text)?;
        temporary.persist(&self.file)?;
        Ok(())
    }
}
