//! Reads an archive from front to back.

use std::io::{BufRead, Read};

use tar::{EntryType, Header};

use crate::tarball::pax::Records;
use crate::tarball::sparse::{self, PaxSparse};
use crate::tarball::{Entry, Kind, TarError};

/// Long names, PAX headers: more is refused. (Linux: a path has at most 4 KiB, one xattr at most 64 KiB.)
const MAX_EXTENSION: u64 = 1 << 20;
/// Global PAX headers together. They are joined with each member's own, so they must be small.
const MAX_GLOBAL: usize = 16 << 10;
/// Everything that comes before one member.
const MAX_EXTENSIONS: usize = 16;

/// Where ustar and GNU headers have the numbers of a device.
const DEVICE_MAJOR: std::ops::Range<usize> = 329..337;
const DEVICE_MINOR: std::ops::Range<usize> = 337..345;

/// An archive being read.
pub(crate) struct Reader<R> {
    from: R,
    /// Data bytes of the current member that were not read.
    remaining: u64,
    /// Zeros after them.
    padding: u64,
    global: Records,
    ended: bool,
    /// The current member's.
    name: Option<Vec<u8>>,
}

#[derive(Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Records,
    count: usize,
}

impl<R: BufRead> Reader<R> {
    pub(crate) fn new(from: R) -> Self {
        Self { from, remaining: 0, padding: 0, global: Records::default(), ended: false, name: None }
    }

    /// The next member; what was not read of the one before is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        self.name = None;
        loop {
            let Some(header) = self.header()? else {
                let dangling = extensions.count > 0;
                return if dangling { Err(TarError::Truncated) } else { Ok(None) };
            };
            let kind = header.entry_type();
            extensions.count += 1;
            if extensions.count > MAX_EXTENSIONS {
                return Err(TarError::Malformed("sequence of extension headers"));
            }
            match kind {
                EntryType::GNULongName => extensions.long_name = Some(self.extension("long name")?),
                EntryType::GNULongLink => extensions.long_link = Some(self.extension("long link")?),
                EntryType::XHeader => {
                    let records = Records::parse(&self.extension("PAX header")?)?;
                    extensions.pax = records.over(&extensions.pax);
                }
                EntryType::XGlobalHeader => {
                    let records = Records::parse(&self.extension("PAX header")?)?;
                    self.global = records.over(&self.global);
                    // A long chain of global headers must not grow for ever, nor count as one member's.
                    if self.global.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > MAX_GLOBAL {
                        return Err(TarError::Malformed("global PAX header"));
                    }
                    extensions.count -= 1;
                }
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    /// The name of the current member, as soon as it is known: also of one that turns out to be malformed.
    pub(crate) fn name(&self) -> Option<&[u8]> {
        self.name.as_deref()
    }

    /// Reads the data of the current member.
    pub(crate) fn data(&mut self) -> Data<'_, R> {
        Data(self)
    }

    /// Gives the source back, to drain it.
    pub(crate) fn into_inner(self) -> R {
        self.from
    }

    fn header(&mut self) -> Result<Option<Header>, TarError> {
        self.skip()?;
        if self.ended {
            return Ok(None);
        }
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        // An archive may end without the two blocks of zeros, but only at a block's edge.
        let mut filled = 0;
        while filled < block.len() {
            match self.from.read(&mut block[filled..])? {
                0 if filled == 0 => {
                    self.ended = true;
                    return Ok(None);
                }
                0 => return Err(TarError::Truncated),
                n => filled += n,
            }
        }
        if block.iter().all(|&b| b == 0) {
            self.ended = true;
            return Ok(None);
        }
        if !checksum_is_right(&header) {
            return Err(TarError::Checksum);
        }
        let size = field(&header.as_old().size, header.entry_size(), TarError::Malformed("size"))?;
        self.set_remaining(size);
        Ok(Some(header))
    }

    fn set_remaining(&mut self, size: u64) {
        self.remaining = size;
        self.padding = (512 - size % 512) % 512;
    }

    fn extension(&mut self, what: &'static str) -> Result<Vec<u8>, TarError> {
        let size = self.remaining;
        if size > MAX_EXTENSION {
            return Err(TarError::TooLarge { what, size, limit: MAX_EXTENSION });
        }
        let mut bytes = Vec::new();
        self.data().read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size {
            return Err(TarError::Truncated);
        }
        Ok(bytes)
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry, TarError> {
        let pax = extensions.pax.over(&self.global);
        let mut path = match (pax.get("GNU.sparse.name").or(pax.get("path")), extensions.long_name) {
            (Some(path), _) => path.to_vec(),
            (None, Some(path)) => until_nul(path),
            (None, None) => header.path_bytes().into_owned(),
        };
        self.name = Some(path.clone());
        let kind = kind_of(header)?;
        if let Some(size) = pax.number("size")? {
            self.set_remaining(size);
        }
        if !matches!(kind, Kind::File) {
            // Old writers put a size on links and directories, but no data follows.
            let data_follows = header.entry_type() == EntryType::Directory;
            if !data_follows {
                self.set_remaining(0);
            }
        }
        let bad = TarError::Malformed;
        let link = match (pax.get("linkpath"), extensions.long_link) {
            (Some(link), _) => link.to_vec(),
            (None, Some(link)) => until_nul(link),
            (None, None) => header.link_name_bytes().unwrap_or_default().into_owned(),
        };
        let kind = if kind == Kind::File && path.ends_with(b"/") { Kind::Directory } else { kind };
        if path.contains(&0) || link.contains(&0) {
            return Err(bad("name"));
        }
        while path.len() > 1 && path.ends_with(b"/") {
            path.pop();
        }
        let id = |value: u64| u32::try_from(value).ok().filter(|&id| id != u32::MAX).ok_or(bad("owner"));
        let old = header.as_old();
        let uid = pax.number("uid")?.map_or_else(|| field(&old.uid, header.uid(), bad("owner")), Ok)?;
        let gid = pax.number("gid")?.map_or_else(|| field(&old.gid, header.gid(), bad("owner")), Ok)?;
        let mtime = match pax.time("mtime")? {
            Some(mtime) => mtime,
            None => (header_mtime(header)?, 0),
        };
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => (
                field(&header.as_bytes()[DEVICE_MAJOR], header.device_major(), bad("device"))?.unwrap_or(0),
                field(&header.as_bytes()[DEVICE_MINOR], header.device_minor(), bad("device"))?.unwrap_or(0),
            ),
            _ => (0, 0),
        };
        let (sparse, size) = self.sparse(header, &pax)?;
        Ok(Entry {
            path,
            link,
            kind,
            mode: field(&old.mode, header.mode(), bad("mode"))? & 0o7777,
            uid: id(uid)?,
            gid: id(gid)?,
            mtime,
            size,
            device,
            xattrs: pax.xattrs(),
            sparse,
        })
    }

    fn sparse(
        &mut self,
        header: &Header,
        pax: &Records,
    ) -> Result<(Option<Vec<crate::tarball::Segment>>, u64), TarError> {
        let (map, size) = match (header.as_gnu(), sparse::pax(pax)?) {
            (Some(gnu), _) if header.entry_type() == EntryType::GNUSparse => {
                let (map, size, _) = sparse::old_gnu(gnu, &mut self.from)?;
                (map, size)
            }
            (_, Some(PaxSparse::Map(map, size))) => (map, size),
            (_, Some(PaxSparse::InData(size))) => {
                let (map, read) = sparse::in_data(&mut self.from, self.remaining)?;
                self.remaining -= read;
                (map, size)
            }
            _ => return Ok((None, self.remaining)),
        };
        sparse::validate(&map, size, self.remaining)?;
        Ok((Some(map), size))
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let mut left = self.remaining.checked_add(self.padding).ok_or(TarError::Malformed("size"))?;
        while left > 0 {
            let available = self.from.fill_buf()?.len();
            if available == 0 {
                return Err(TarError::Truncated);
            }
            let n = available.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.from.consume(n);
            left -= n as u64;
        }
        (self.remaining, self.padding) = (0, 0);
        Ok(())
    }
}

/// The data of one member.
pub(crate) struct Data<'a, R>(&'a mut Reader<R>);

impl<R: BufRead> BufRead for Data<'_, R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.0.remaining == 0 {
            return Ok(&[]);
        }
        let available = self.0.from.fill_buf()?;
        if available.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let n = available.len().min(usize::try_from(self.0.remaining).unwrap_or(usize::MAX));
        Ok(&available[..n])
    }

    fn consume(&mut self, amount: usize) {
        self.0.from.consume(amount);
        self.0.remaining -= amount as u64;
    }
}

impl<R: BufRead> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let available = self.fill_buf()?;
        let n = available.len().min(buffer.len());
        buffer[..n].copy_from_slice(&available[..n]);
        self.consume(n);
        Ok(n)
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len()));
    bytes
}

fn kind_of(header: &Header) -> Result<Kind, TarError> {
    Ok(match header.entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::HardLink,
        EntryType::Char => Kind::CharDevice,
        EntryType::Block => Kind::BlockDevice,
        EntryType::Fifo => Kind::Fifo,
        other => return Err(TarError::Type(char::from(other.as_byte()))),
    })
}

/// POSIX sums unsigned bytes; some old writers summed signed ones.
fn checksum_is_right(header: &Header) -> bool {
    let Ok(stated) = header.cksum() else { return false };
    let bytes = header.as_bytes();
    let blank = |i: usize| if (148..156).contains(&i) { b' ' } else { bytes[i] };
    let unsigned: u32 = (0..512).map(|i| u32::from(blank(i))).sum();
    let signed: i32 = (0..512).map(|i| i32::from(blank(i).cast_signed())).sum();
    stated == unsigned || i64::from(stated) == i64::from(signed)
}

/// A number of the header. Some writers leave out what is zero: the field is then all NUL or blank, and Go, Python
/// and GNU tar take that for 0.
fn field<T: Default>(raw: &[u8], decoded: std::io::Result<T>, problem: TarError) -> Result<T, TarError> {
    if blank(raw) {
        return Ok(T::default());
    }
    decoded.map_err(|_| problem)
}

fn blank(raw: &[u8]) -> bool {
    raw.iter().all(|&b| matches!(b, 0 | b' '))
}

/// The header's time; base-256 may be negative, which `tar::Header` does not decode.
fn header_mtime(header: &Header) -> Result<i64, TarError> {
    let field = &header.as_old().mtime;
    if field[0] & 0x80 != 0 {
        // The first byte carries the marker bit, then the sign in bit 6.
        let first = i128::from((field[0] << 1).cast_signed() >> 1);
        let value = field[1..].iter().fold(first, |value, &b| (value << 8) | i128::from(b));
        return i64::try_from(value).map_err(|_| TarError::Malformed("time"));
    }
    if blank(field) {
        return Ok(0);
    }
    header.mtime().ok().and_then(|t| i64::try_from(t).ok()).ok_or(TarError::Malformed("time"))
}
