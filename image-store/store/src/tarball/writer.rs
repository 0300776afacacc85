//! Writes an archive canonically: POSIX ustar, PAX records only where ustar cannot say it, nothing of the
//! machine or the moment. The format is frozen: diff-ids of committed layers are made of it.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use crate::tarball::pax::{format_time, push_record};
use crate::tarball::{Entry, Kind};

/// Seven octal digits.
const MAX_ID: u32 = 0o777_7777;
/// Eleven octal digits.
const MAX_OCTAL: u64 = 0o777_7777_7777;

/// An archive being written.
pub(crate) struct Writer<W> {
    to: W,
    written: u64,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, written: 0 }
    }

    /// Writes a member without data (or the header of one whose data follows through [`Self::data`]).
    pub(crate) fn member(&mut self, entry: &Entry) -> io::Result<()> {
        let mut name = entry.path.clone();
        if entry.kind == Kind::Directory {
            name.push(b'/');
        }
        let size = if entry.kind == Kind::File { entry.size } else { 0 };
        let records = records(entry, &name, size);
        if !records.is_empty() {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::XHeader);
            set_bytes(&mut header.as_old_mut().name, b"PaxHeaders/x");
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(records.len() as u64);
            header.set_cksum();
            self.raw(header.as_bytes())?;
            self.data(&records[..], records.len() as u64)?;
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(type_of(entry.kind));
        set_bytes(&mut header.as_old_mut().name, &name);
        set_bytes(&mut header.as_old_mut().linkname, &entry.link);
        header.set_mode(entry.mode);
        header.set_uid(u64::from(if entry.uid > MAX_ID { 0 } else { entry.uid }));
        header.set_gid(u64::from(if entry.gid > MAX_ID { 0 } else { entry.gid }));
        header.set_mtime(u64::try_from(entry.mtime.0).ok().filter(|&t| t <= MAX_OCTAL).unwrap_or(0));
        header.set_size(if size > MAX_OCTAL { 0 } else { size });
        if matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
            header.set_device_major(entry.device.0)?;
            header.set_device_minor(entry.device.1)?;
        }
        header.set_cksum();
        self.raw(header.as_bytes())
    }

    /// Writes a member's data and its padding; the source must have exactly `size` bytes or more.
    pub(crate) fn data(&mut self, from: impl Read, size: u64) -> io::Result<()> {
        let mut from = from.take(size);
        let mut buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX).clamp(1, 128 << 10)];
        let mut left = size;
        while left > 0 {
            let n = match from.read(&mut buffer) {
                Ok(0) => return Err(io::Error::other("a file became shorter while it was read")),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.raw(&buffer[..n])?;
            left -= n as u64;
        }
        let padding = (512 - size % 512) % 512;
        self.raw(&[0; 512][..padding as usize])
    }

    /// Ends the archive; returns its length.
    pub(crate) fn finish(mut self) -> io::Result<u64> {
        self.raw(&[0; 1024])?;
        self.to.flush()?;
        Ok(self.written)
    }

    #[cfg(test)]
    pub(crate) fn into_inner(mut self) -> io::Result<W> {
        self.raw(&[0; 1024])?;
        Ok(self.to)
    }

    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.to.write_all(bytes)
    }
}

/// The PAX records that an entry needs, sorted by key.
fn records(entry: &Entry, name: &[u8], size: u64) -> Vec<u8> {
    let mut records = Vec::new();
    let mut xattrs: Vec<_> = entry.xattrs.iter().collect();
    xattrs.sort();
    for (key, value) in xattrs {
        push_record(&mut records, &[b"SCHILY.xattr.", key.as_slice()].concat(), value);
    }
    if entry.gid > MAX_ID {
        push_record(&mut records, b"gid", entry.gid.to_string().as_bytes());
    }
    if entry.link.len() > 100 {
        push_record(&mut records, b"linkpath", &entry.link);
    }
    if entry.mtime.1 != 0 || entry.mtime.0 < 0 || entry.mtime.0.cast_unsigned() > MAX_OCTAL {
        push_record(&mut records, b"mtime", format_time(entry.mtime).as_bytes());
    }
    if name.len() > 100 {
        push_record(&mut records, b"path", name);
    }
    if size > MAX_OCTAL {
        push_record(&mut records, b"size", size.to_string().as_bytes());
    }
    if entry.uid > MAX_ID {
        push_record(&mut records, b"uid", entry.uid.to_string().as_bytes());
    }
    records
}

fn type_of(kind: Kind) -> EntryType {
    match kind {
        Kind::File => EntryType::Regular,
        Kind::Directory => EntryType::Directory,
        Kind::Symlink => EntryType::Symlink,
        Kind::HardLink => EntryType::Link,
        Kind::CharDevice => EntryType::Char,
        Kind::BlockDevice => EntryType::Block,
        Kind::Fifo => EntryType::Fifo,
    }
}

/// Copies as much as fits; the whole is in a PAX record otherwise.
fn set_bytes(field: &mut [u8], value: &[u8]) {
    let n = value.len().min(field.len());
    field[..n].copy_from_slice(&value[..n]);
}
