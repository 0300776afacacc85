//! A file tree to a tar stream.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;

use nix::fcntl::readlinkat;
use nix::sys::stat::{FileStat, SFlag, major, minor};
use tar::{Builder, EntryType, Header};
use xattr::FileExt as _;

use crate::fsutil;

/// Deeper trees are refused: every level holds descriptors.
const MAX_DEPTH: usize = 200;
/// What of a file's attributes goes along.
const KEPT_ATTRIBUTES: [&str; 2] = ["security.capability", "user."];

/// Writes an archive of one file or tree, whose names begin with `base`.
pub(super) fn pack(parent: BorrowedFd<'_>, name: &CStr, base: &str, to: &mut impl Write) -> io::Result<()> {
    let mut packer = Packer { tar: Builder::new(to), linked: HashMap::new() };
    packer.entry(parent, name, base.as_bytes(), 0)?;
    packer.tar.finish()
}

struct Packer<'a, W: Write> {
    tar: Builder<&'a mut W>,
    /// Files with several names: where the first one went.
    linked: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packer<'_, W> {
    fn entry(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &[u8], depth: usize) -> io::Result<()> {
        let stat = match fsutil::lstat_at(dir, name) {
            // It went while we looked.
            Err(error) if error.kind() == io::ErrorKind::NotFound && depth > 0 => return Ok(()),
            other => other?,
        };
        let mut header = header(&stat);
        match fsutil::kind(&stat) {
            SFlag::S_IFDIR => self.directory(dir, name, path, depth, header),
            SFlag::S_IFREG => self.file(dir, name, path, &stat, header),
            SFlag::S_IFLNK => {
                let target = readlinkat(dir, name)?;
                header.set_entry_type(EntryType::Symlink);
                self.append(&mut header, path, Some(target.as_bytes()), &mut io::empty())
            }
            // A socket without its process is nothing.
            SFlag::S_IFSOCK => Ok(()),
            special => {
                header.set_entry_type(match special {
                    SFlag::S_IFCHR => EntryType::Char,
                    SFlag::S_IFBLK => EntryType::Block,
                    _ => EntryType::Fifo,
                });
                header.set_device_major(u32::try_from(major(stat.st_rdev)).unwrap_or(0))?;
                header.set_device_minor(u32::try_from(minor(stat.st_rdev)).unwrap_or(0))?;
                self.append(&mut header, path, None, &mut io::empty())
            }
        }
    }

    fn directory(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
        depth: usize,
        mut header: Header,
    ) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other(format!("directories are nested more than {MAX_DEPTH} deep")));
        }
        let own = fsutil::open_dir_at(dir, name)?;
        header.set_entry_type(EntryType::Directory);
        let mut slashed = path.to_vec();
        if !slashed.ends_with(b"/") {
            slashed.push(b'/');
        }
        self.append(&mut header, &slashed, None, &mut io::empty())?;
        let mut names = fsutil::names(own.as_fd())?;
        names.sort();
        for child in names {
            let child_path = [slashed.as_slice(), child.to_bytes()].concat();
            self.entry(own.as_fd(), &child, &child_path, depth + 1)?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
        stat: &FileStat,
        mut header: Header,
    ) -> io::Result<()> {
        if stat.st_nlink > 1 {
            if let Some(first) = self.linked.get(&(stat.st_dev, stat.st_ino)).cloned() {
                header.set_entry_type(EntryType::Link);
                return self.append(&mut header, path, Some(&first), &mut io::empty());
            }
            self.linked.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        let file = fsutil::open_file_at(dir, name)?;
        let mut attributes = Vec::new();
        for key in file.list_xattr().into_iter().flatten() {
            let key = key.to_string_lossy().into_owned();
            if KEPT_ATTRIBUTES.iter().any(|kept| key.starts_with(kept))
                && let Some(value) = file.get_xattr(&key)?
            {
                attributes.push((format!("SCHILY.xattr.{key}"), value));
            }
        }
        if !attributes.is_empty() {
            let pairs = attributes.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
            self.tar.append_pax_extensions(pairs)?;
        }
        // The size was announced in the header: a file that grows is cut, one that shrinks is filled up.
        let size = file.metadata()?.len();
        header.set_size(size);
        header.set_entry_type(EntryType::Regular);
        let mut content = io::Read::take(io::Read::chain(file, io::repeat(0)), size);
        self.append(&mut header, path, None, &mut content)
    }

    /// Writes a header and its content; long names go before it as GNU tar does. Names are bytes, and may begin with
    /// a slash, which docker's clients expect of an archive of the root.
    fn append(
        &mut self,
        header: &mut Header,
        path: &[u8],
        link: Option<&[u8]>,
        content: &mut dyn io::Read,
    ) -> io::Result<()> {
        let fields = header.as_old_mut();
        if path.len() <= fields.name.len() {
            fields.name[..path.len()].copy_from_slice(path);
        } else {
            self.long_name(EntryType::GNULongName, path)?;
            let length = fields.name.len();
            fields.name.copy_from_slice(&path[..length]);
        }
        if let Some(link) = link {
            let fields = header.as_old_mut();
            if link.len() <= fields.linkname.len() {
                fields.linkname[..link.len()].copy_from_slice(link);
            } else {
                self.long_name(EntryType::GNULongLink, link)?;
                let length = fields.linkname.len();
                fields.linkname.copy_from_slice(&link[..length]);
            }
        }
        header.set_cksum();
        self.tar.append(header, content)
    }

    fn long_name(&mut self, kind: EntryType, name: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        let marker = b"././@LongLink";
        header.as_old_mut().name[..marker.len()].copy_from_slice(marker);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(name.len() as u64 + 1);
        header.set_entry_type(kind);
        header.set_cksum();
        self.tar.append(&header, io::Read::chain(name, io::Read::take(io::repeat(0), 1)))
    }
}

fn header(stat: &FileStat) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsutil::open_host_dir;

    #[test]
    fn trees_become_archives() {
        let dir = tempfile::tempdir().unwrap();
        let long = "n".repeat(150);
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/file"), "text").unwrap();
        std::fs::hard_link(dir.path().join("d/file"), dir.path().join("d/other")).unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("d/link")).unwrap();
        std::fs::write(dir.path().join("d").join(&long), "x").unwrap();
        let parent = open_host_dir(dir.path()).unwrap();
        let mut bytes = Vec::new();
        pack(parent.as_fd(), c"d", "base", &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut seen: Vec<(String, EntryType)> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.path().unwrap().display().to_string(), entry.header().entry_type()))
            .collect();
        seen.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(
            seen,
            [
                ("base/".to_owned(), EntryType::Directory),
                ("base/file".to_owned(), EntryType::Regular),
                ("base/link".to_owned(), EntryType::Symlink),
                (format!("base/{long}"), EntryType::Regular),
                ("base/other".to_owned(), EntryType::Link),
            ]
        );
    }
}
