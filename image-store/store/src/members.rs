//! Members of a stranger's archive, read by the `tar` library.
//!
//! The library keeps a member's headers in memory, however long they claim to be: long names, attributes, the map of a
//! sparse file. A few megabytes of gzip can claim gigabytes. Layers have a reader of their own; what reads other
//! archives (build contexts, `docker cp`, checkpoints) goes through here.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use tar::{Archive, Entry};

/// Longest headers of one member, in bytes.
const MAX_HEADERS: usize = 1 << 20;

/// An archive whose headers are bounded.
pub struct Members<R: Read> {
    archive: Archive<Bounded<R>>,
    allowed: Rc<Cell<usize>>,
}

/// What is read of it, within what is allowed.
pub struct Bounded<R> {
    from: R,
    allowed: Rc<Cell<usize>>,
}

impl<R: Read> Members<R> {
    /// The archive that this reader gives.
    pub fn new(from: R) -> Self {
        let allowed = Rc::new(Cell::new(usize::MAX));
        Self { archive: Archive::new(Bounded { from, allowed: Rc::clone(&allowed) }), allowed }
    }

    /// Shows one member after the other until `see` says `false`. What it leaves of a member's contents is skipped.
    ///
    /// # Errors
    /// Those of `see`, and, made its own by `failed`, those of the archive: one that cannot be read, headers of more than
    /// 1 MiB.
    pub fn each<E>(
        &mut self,
        failed: impl Fn(io::Error) -> E,
        mut see: impl FnMut(&mut Entry<'_, Bounded<R>>) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut entries = self.archive.entries().map_err(&failed)?;
        loop {
            // Between two members nothing is read but headers, for contents are always read to their end.
            self.allowed.set(MAX_HEADERS);
            let next = entries.next().transpose();
            self.allowed.set(usize::MAX);
            let Some(mut entry) = next.map_err(&failed)? else { return Ok(()) };
            if !see(&mut entry)? {
                return Ok(());
            }
            io::copy(&mut entry, &mut io::sink()).map_err(&failed)?;
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let allowed = self.allowed.get();
        if allowed == 0 && !buffer.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a file's name and attributes take more than {MAX_HEADERS} bytes"),
            ));
        }
        let length = buffer.len().min(allowed);
        let read = self.from.read(&mut buffer[..length])?;
        if allowed != usize::MAX {
            self.allowed.set(allowed - read);
        }
        Ok(read)
    }
}

impl<R: Read> std::fmt::Debug for Members<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Members").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tar::{Builder, EntryType, Header};

    use super::*;

    fn header(kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path("name").unwrap();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        header
    }

    fn names(from: impl Read) -> Result<Vec<String>, io::Error> {
        let mut names = Vec::new();
        Members::new(from).each(
            |error| error,
            |entry| {
                names.push(String::from_utf8_lossy(&entry.path_bytes()).into_owned());
                Ok(true)
            },
        )?;
        Ok(names)
    }

    #[test]
    fn headers_are_bounded_and_contents_are_not() {
        let mut builder = Builder::new(Vec::new());
        let large = vec![0; 3 * MAX_HEADERS];
        builder.append_data(&mut header(EntryType::Regular, large.len() as u64), "a", &*large).unwrap();
        builder.append_data(&mut header(EntryType::Regular, 0), "long/".repeat(100), io::empty()).unwrap();
        let archive = builder.into_inner().unwrap();
        assert_eq!(names(&*archive).unwrap(), ["a".to_owned(), "long/".repeat(100)]);
    }

    #[test]
    fn a_name_of_gigabytes_is_refused_before_it_is_in_memory() {
        const SIZE: u64 = 1 << 40;
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
            let header = header(kind, SIZE);
            // It would not end in the time of a test, nor fit.
            let error = names(header.as_bytes().chain(io::repeat(b'x'))).unwrap_err();
            assert!(error.to_string().contains("name and attributes"), "{kind:?}: {error}");
        }
    }
}
