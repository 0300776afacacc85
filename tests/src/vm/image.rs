//! An initramfs, written by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

/// An initramfs: a cpio archive in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
pub struct Image {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    libraries: Vec<String>,
    inode: u32,
}

impl Image {
    /// The shared libraries and the loader of a dynamically linked program, where the loader looks for them.
    ///
    /// # Errors
    /// ldd(1) cannot be run, or a file cannot be read.
    pub fn libraries_of(&mut self, program: &Path) -> Result<()> {
        let output = Command::new("ldd").arg(program).output().context("ldd")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for path in text.split_whitespace().filter(|word| word.starts_with('/')) {
            let name = path.trim_start_matches('/').to_owned();
            if !self.libraries.contains(&name) {
                self.file(&name, 0o755, Path::new(path))?;
                self.libraries.push(name);
            }
        }
        Ok(())
    }

    /// The files of a tar archive but those below the places named.
    ///
    /// # Errors
    /// It cannot be read, or holds what an initramfs here cannot.
    pub fn tree(&mut self, archive: &Path, leave_out: &[&str]) -> Result<()> {
        let file = fs::File::open(archive).with_context(|| format!("open {}", archive.display()))?;
        let mut contents: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for member in tar::Archive::new(file).entries()? {
            let mut member = member?;
            let path = member.path()?.to_string_lossy().into_owned();
            let name = path.trim_start_matches("./").trim_end_matches('/').to_owned();
            if name.is_empty() || leave_out.iter().any(|place| name.starts_with(place)) {
                continue;
            }
            let mode = member.header().mode()? & 0o7777;
            let target = member.link_name()?.map(|target| target.to_string_lossy().into_owned());
            match (member.header().entry_type(), target) {
                (tar::EntryType::Directory, _) => self.directory(&name),
                (tar::EntryType::Symlink, Some(target)) => {
                    self.entry(&name, 0o120_777, target.as_bytes());
                    // It may stand for a directory; none is made in its place.
                    self.directories.insert(name);
                }
                (tar::EntryType::Link, Some(target)) => {
                    let content = contents.get(target.trim_start_matches("./"));
                    let content = content.with_context(|| format!("{name} links to nothing"))?.clone();
                    self.entry(&name, 0o100_000 | mode, &content);
                }
                (tar::EntryType::Regular, _) => {
                    let mut content = Vec::new();
                    member.read_to_end(&mut content)?;
                    self.entry(&name, 0o100_000 | mode, &content);
                    contents.insert(name, content);
                }
                (kind, _) => anyhow::bail!("{name} is of kind {kind:?}"),
            }
        }
        Ok(())
    }

    /// A copy of a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn file(&mut self, name: &str, mode: u32, path: &Path) -> Result<()> {
        let content = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        self.entry(name, 0o100_000 | mode, &content);
        Ok(())
    }

    /// A file, link or device by its mode (`inode(7)`), with the directories it needs.
    pub fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        // A directory comes before what is in it.
        for (at, _) in name.match_indices('/') {
            self.directory(&name[..at]);
        }
        self.raw(name, mode, content);
    }

    fn directory(&mut self, name: &str) {
        if self.directories.insert(name.to_owned()) {
            self.raw(name, 0o040_755, &[]);
        }
    }

    fn raw(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let size = u32::try_from(content.len()).expect("files of an initramfs are small");
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        for point in ["proc", "sys", "dev", "tmp", "run", "var", "root", "etc"] {
            self.directory(point);
        }
        self.raw("TRAILER!!!", 0, &[]);
        self.bytes
    }
}
