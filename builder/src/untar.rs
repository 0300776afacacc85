//! Unpacking archives from strangers: a build context, or a file that `ADD` unpacks. Every path is handled inside of
//! a root by descriptor; `..` is clamped, symlinks lead nowhere else.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use berth_store::members::Members;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use nix::sys::time::TimeSpec;
use nix::unistd::{linkat, symlinkat};
use tar::{Entry, EntryType};
use tokio_util::sync::CancellationToken;

use crate::BuildError;
use crate::fault::{At, Fault};
use crate::rootdir::{Kind, RootDir, clamp};

/// What the first bytes of a file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Tar,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
    Other,
}

/// Looks at the first bytes of a file and rewinds it.
pub(crate) fn detect(file: &mut File) -> io::Result<Format> {
    let mut head = Vec::new();
    file.rewind()?;
    file.take(512).read_to_end(&mut head)?;
    file.rewind()?;
    Ok(match head.as_slice() {
        [0x1f, 0x8b, 8, ..] => Format::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Format::Zstd,
        [b'B', b'Z', b'h', ..] => Format::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Format::Xz,
        head if is_tar_header(head) => Format::Tar,
        _ => Format::Other,
    })
}

/// A header whose checksum is right.
fn is_tar_header(head: &[u8]) -> bool {
    let Ok(block) = <&[u8; 512]>::try_from(head) else { return false };
    let header = tar::Header::from_byte_slice(block);
    let sum: u32 = block[..148].iter().chain(&[b' '; 8]).chain(&block[156..]).map(|b| u32::from(*b)).sum();
    header.cksum().is_ok_and(|stored| stored == sum) && block.iter().any(|b| *b != 0)
}

/// The archive in a file, decompressed; none if it is none.
pub(crate) fn open(mut file: File) -> Result<Option<Box<dyn Read>>, Fault> {
    let format = detect(&mut file).at("read", "archive")?;
    let reader: Box<dyn Read> = match format {
        Format::Tar => return Ok(Some(Box::new(BufReader::new(file)))),
        Format::Other => return Ok(None),
        Format::Gzip => {
            let again = file.try_clone().at("read", "archive")?;
            if !holds_tar(flate2::read::MultiGzDecoder::new(BufReader::new(again))) {
                return Ok(None);
            }
            file.rewind().at("read", "archive")?;
            Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file)))
        }
        Format::Zstd => {
            let again = file.try_clone().at("read", "archive")?;
            if !zstd::Decoder::new(again).is_ok_and(holds_tar) {
                return Ok(None);
            }
            file.rewind().at("read", "archive")?;
            Box::new(zstd::Decoder::new(file).at("read", "archive")?)
        }
        Format::Bzip2 => {
            let again = file.try_clone().at("read", "archive")?;
            if !holds_tar(bzip2::read::MultiBzDecoder::new(BufReader::new(again))) {
                return Ok(None);
            }
            file.rewind().at("read", "archive")?;
            Box::new(bzip2::read::MultiBzDecoder::new(BufReader::new(file)))
        }
        Format::Xz => {
            let again = file.try_clone().at("read", "archive")?;
            if !holds_tar(xz(again)) {
                return Ok(None);
            }
            file.rewind().at("read", "archive")?;
            Box::new(xz(file))
        }
    };
    Ok(Some(reader))
}

/// Several streams one after the other are one archive. A dictionary larger than xz's own largest preset is refused:
/// it is memory that a stranger asks for.
fn xz(file: File) -> impl Read {
    const DICTIONARY_KIB: u32 = 65 << 10;
    lzma_rust2::XzReader::new_mem_limit(BufReader::new(file), true, DICTIONARY_KIB)
}

/// Whether what a decompressor gives begins like a tar archive.
fn holds_tar(mut reader: impl Read) -> bool {
    let mut head = Vec::new();
    reader.by_ref().take(512).read_to_end(&mut head).is_ok() && is_tar_header(&head)
}

/// Adds the zeros that fill up the last block. Some programs end an archive with the contents of the last file (docker's
/// command line does, when the Dockerfile is not in the context), and every tar reads that.
struct Filled<R> {
    inner: R,
    read: usize,
    supplied: Rc<Cell<usize>>,
}

impl<R: Read> Read for Filled<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        const BLOCK: usize = 512;
        let read = self.inner.read(buffer)?;
        if read > 0 {
            self.read = (self.read + read) % BLOCK;
            return Ok(read);
        }
        let missing = (BLOCK - self.read) % BLOCK;
        let zeros = buffer.len().min(missing - self.supplied.get());
        buffer[..zeros].fill(0);
        self.supplied.set(self.supplied.get() + zeros);
        Ok(zeros)
    }
}

/// Unpacks into a root: the archive cannot name anything outside of it.
pub(crate) struct Unpacker<'a> {
    pub(crate) root: &'a RootDir,
    /// Everything belongs to them; otherwise to whom the archive says.
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) cancel: &'a CancellationToken,
}

impl Unpacker<'_> {
    pub(crate) fn unpack(&self, reader: impl Read) -> Result<(), Fault> {
        let supplied = Rc::new(Cell::new(0));
        let reader = Filled { inner: reader, read: 0, supplied: Rc::clone(&supplied) };
        let mut dirs: Vec<(PathBuf, TimeSpec)> = Vec::new();
        let failed = |source| Fault::from(BuildError::Io { what: "read", path: "archive".into(), source });
        Members::new(reader).each(failed, |entry| {
            if self.cancel.is_cancelled() {
                return Err(BuildError::Cancelled.into());
            }
            let name = entry.path().at("read a name in", "archive")?.into_owned();
            self.entry(entry, &name, &mut dirs).at("unpack", &name)?;
            match supplied.get() {
                0 => Ok(true),
                // It was the contents that it ended in.
                _ => Err(Fault::said(format!("the archive ends within {}", name.display()))),
            }
        })?;
        // Last, since writing into a directory changes its time.
        for (path, mtime) in dirs.iter().rev() {
            self.root.set_mtime(path, *mtime).at("set time of", path)?;
        }
        Ok(())
    }

    /// Plain path of a name in the archive: the directory part may be symlinked inside of the root.
    fn place(&self, name: &Path) -> io::Result<Option<PathBuf>> {
        let name = clamp(name);
        let Some(last) = name.file_name() else { return Ok(None) };
        let written = name.parent().unwrap_or(Path::new(""));
        let parent = self.root.resolve(written)?;
        if self.root.meta(&parent)?.is_none() {
            self.refuse_dangling(written)?;
            // Directories that the archive only implies are nobody's but root's.
            self.root.make_dirs(&parent, &|_, _| Ok(()))?;
        }
        Ok(Some(parent.join(last)))
    }

    /// A directory is not made through a link that leads to nothing.
    fn refuse_dangling(&self, path: &Path) -> io::Result<()> {
        let mut at = PathBuf::new();
        for part in path {
            at = self.root.resolve(&at)?.join(part);
            let is_link = self.root.meta(&at)?.is_some_and(|meta| meta.kind == Kind::Symlink);
            if is_link && self.root.meta(&self.root.resolve(&at)?)?.is_none() {
                return Err(nix::errno::Errno::ENOENT.into());
            }
        }
        Ok(())
    }

    fn entry<R: Read>(
        &self,
        entry: &mut Entry<'_, R>,
        name: &Path,
        dirs: &mut Vec<(PathBuf, TimeSpec)>,
    ) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let place = match self.place(name)? {
            Some(place) => place,
            // The archive's own root.
            None if kind == EntryType::Directory => PathBuf::new(),
            None => return Ok(()),
        };
        let existing = self.root.meta(&place)?;
        if kind == EntryType::Directory {
            match existing {
                Some(meta) if meta.is_dir() => {}
                other => {
                    if other.is_some() {
                        self.root.unlink(&place)?;
                    }
                    self.root.make_dirs(&place, &|_, _| Ok(()))?;
                }
            }
        } else {
            if existing.is_some() {
                self.root.remove_tree(&place)?;
            }
            self.create(entry, kind, &place)?;
        }
        if kind != EntryType::Link {
            self.finish(entry, kind, &place, dirs)?;
        }
        Ok(())
    }

    fn create<R: Read>(&self, entry: &mut Entry<'_, R>, kind: EntryType, place: &Path) -> io::Result<()> {
        let (dir, name) = self.root.parent(place)?;
        let target = || -> io::Result<PathBuf> {
            let link = entry.link_name()?.ok_or_else(|| io::Error::other("a link without target"))?;
            Ok(link.into_owned())
        };
        let node = |kind: SFlag, device: u64| -> io::Result<()> {
            Ok(mknodat(&dir, name.as_os_str(), kind, Mode::from_bits_truncate(0o600), device)?)
        };
        let device = || -> io::Result<u64> {
            let header = entry.header();
            Ok(makedev(
                u64::from(header.device_major()?.unwrap_or(0)),
                u64::from(header.device_minor()?.unwrap_or(0)),
            ))
        };
        match kind {
            EntryType::Symlink => Ok(symlinkat(target()?.as_os_str(), &dir, name.as_os_str())?),
            EntryType::Link => {
                // The name of another entry, by the same rules.
                let first = clamp(&target()?);
                let first_parent = self.root.resolve(first.parent().unwrap_or(Path::new("")))?;
                let first = first_parent.join(first.file_name().unwrap_or_default());
                let (from_dir, from) = self.root.parent(&first)?;
                Ok(linkat(&from_dir, from.as_os_str(), &dir, name.as_os_str(), AtFlags::empty())?)
            }
            EntryType::Fifo => node(SFlag::S_IFIFO, 0),
            EntryType::Char => node(SFlag::S_IFCHR, device()?),
            EntryType::Block => node(SFlag::S_IFBLK, device()?),
            _ => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
                let mut file = File::from(self.root.open(place, flags, Mode::from_bits_truncate(0o600))?);
                io::copy(entry, &mut file).map(drop)
            }
        }
    }

    fn finish<R: Read>(
        &self,
        entry: &mut Entry<'_, R>,
        kind: EntryType,
        place: &Path,
        dirs: &mut Vec<(PathBuf, TimeSpec)>,
    ) -> io::Result<()> {
        let header = entry.header();
        let id = |id: u64| u32::try_from(id).map_err(|_| io::Error::other(format!("id {id} is too large")));
        let (uid, gid) = match self.owner {
            Some(owner) => owner,
            None => (id(header.uid()?)?, id(header.gid()?)?),
        };
        self.root.set_owner(place, uid, gid)?;
        if kind != EntryType::Symlink {
            self.root.set_mode(place, header.mode()? & 0o7777)?;
        }
        let mtime =
            TimeSpec::new(header.mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0), 0);
        if kind == EntryType::Directory {
            dirs.push((place.to_owned(), mtime));
            return Ok(());
        }
        self.root.set_mtime(place, mtime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    }

    /// An entry whose name the builder would refuse.
    fn raw(builder: &mut tar::Builder<Vec<u8>>, name: &str, kind: EntryType, link: &str, data: &[u8]) {
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o640);
        header.set_uid(3);
        header.set_gid(4);
        header.set_mtime(1_000_000);
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }

    fn unpack(bytes: &[u8], dir: &Path) -> Result<(), Fault> {
        let root = RootDir::open_host(dir).unwrap();
        let unpacker = Unpacker { root: &root, owner: None, cancel: &CancellationToken::new() };
        unpacker.unpack(bytes)
    }

    #[test]
    fn hostile_archives_stay_inside() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("in/side");
        fs::create_dir_all(&dir).unwrap();
        let secret = outer.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        let bytes = archive(|b| {
            raw(b, "../../evil", EntryType::Regular, "", b"1");
            raw(b, "/abs", EntryType::Regular, "", b"2");
        });
        unpack(&bytes, &dir).unwrap();
        let bytes = archive(|b| {
            raw(b, "link", EntryType::Symlink, outer.path().to_str().unwrap(), b"");
            raw(b, "link/through", EntryType::Regular, "", b"3");
        });
        assert!(unpack(&bytes, &dir).is_err(), "a link leads nowhere outside");
        assert!(dir.join("evil").exists() && dir.join("abs").exists());
        assert!(!outer.path().join("evil").exists() && !outer.path().join("through").exists());
        let bytes = archive(|b| raw(b, "hard", EntryType::Link, secret.to_str().unwrap(), b""));
        assert!(unpack(&bytes, &dir).is_err(), "a hard link to a file outside");
    }

    #[test]
    fn metadata_is_kept_and_names_are_replaced() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let bytes = archive(|b| {
            raw(b, "d/f", EntryType::Regular, "", b"old");
            raw(b, "d/f", EntryType::Regular, "", b"new");
            raw(b, "d/g", EntryType::Link, "d/f", b"");
        });
        unpack(&bytes, dir.path()).unwrap();
        let meta = fs::metadata(dir.path().join("d/f")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777, meta.mtime()), (3, 4, 0o640, 1_000_000));
        assert_eq!(fs::read(dir.path().join("d/g")).unwrap(), b"new");
    }

    #[test]
    fn formats_are_told_by_content() {
        let tar = archive(|b| raw(b, "f", EntryType::Regular, "", b"x"));
        let zipped = |data: &[u8]| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(data).unwrap();
            out.finish().unwrap()
        };
        let is_archive = |data: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(data).unwrap();
            open(file).unwrap().is_some()
        };
        assert!(is_archive(&tar) && is_archive(&zipped(&tar)));
        assert!(is_archive(&zstd::encode_all(tar.as_slice(), 1).unwrap()));
        assert!(!is_archive(&zipped(b"text")) && !is_archive(b"text") && !is_archive(b""));
    }
}
