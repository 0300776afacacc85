//! The files of a rotated log by their age: 0 is the current one, 1 the one before, …. Older ones may be compressed.

use std::fs::File;
use std::io::{self, BufReader, Seek as _};
use std::path::{Path, PathBuf};

use berth_runtime_client::protocol::log_identity;
use flate2::bufread::GzDecoder;

/// More files than anybody keeps.
const MOST: u32 = 10_000;

/// A file that was opened.
#[derive(Debug)]
pub(super) struct LogFile {
    /// Its text.
    pub(super) text: File,
    /// Which it is, whatever age it has by now.
    pub(super) identity: String,
}

/// The file of this age, as it was written.
pub(super) fn path_of(path: &Path, age: u32) -> PathBuf {
    if age == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    name.into()
}

fn compressed(path: &Path, age: u32) -> PathBuf {
    let mut name = path_of(path, age).into_os_string();
    name.push(".gz");
    name.into()
}

/// Opens the file of this age.
///
/// # Errors
/// `NotFound` if there is none.
pub(super) fn open(path: &Path, age: u32) -> io::Result<LogFile> {
    match File::open(path_of(path, age)) {
        Ok(text) => Ok(LogFile { identity: log_identity(&text.metadata()?), text }),
        // The shim removes a file when it is compressed, so that one of the two is always there.
        Err(error) if error.kind() == io::ErrorKind::NotFound && age > 0 => inflate(&compressed(path, age)),
        Err(error) => Err(error),
    }
}

/// Its text is read from any place, backwards as well, so all of it is unpacked, beside it: it may be large.
fn inflate(path: &Path) -> io::Result<LogFile> {
    let mut packed = unpack(path)?;
    let mut text = tempfile::tempfile_in(path.parent().unwrap_or(Path::new("/")))?;
    io::copy(&mut packed, &mut text)?;
    text.rewind()?;
    Ok(LogFile { text, identity: identity_in(&packed) })
}

fn unpack(path: &Path) -> io::Result<GzDecoder<BufReader<File>>> {
    Ok(GzDecoder::new(BufReader::new(File::open(path)?)))
}

fn identity_in(packed: &GzDecoder<BufReader<File>>) -> String {
    let comment = packed.header().and_then(|header| header.comment()).unwrap_or_default();
    String::from_utf8_lossy(comment).into_owned()
}

/// Which file has this age.
fn identity_of(path: &Path, age: u32) -> io::Result<String> {
    match std::fs::metadata(path_of(path, age)) {
        Ok(meta) => Ok(log_identity(&meta)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && age > 0 => {
            Ok(identity_in(&unpack(&compressed(path, age))?))
        }
        Err(error) => Err(error),
    }
}

/// The age of the oldest file.
pub(super) fn oldest(path: &Path) -> u32 {
    let missing = |age: &u32| !path_of(path, *age).exists() && !compressed(path, *age).exists();
    (1..MOST).find(missing).map_or(0, |age| age - 1)
}

/// How old this file is by now; `None` if it is gone.
pub(super) fn age_of(path: &Path, identity: &str) -> Option<u32> {
    let mut age = 0;
    loop {
        match identity_of(path, age) {
            Ok(found) if found == identity => return Some(age),
            // Between renaming the current file and making a new one there is none.
            Err(_) if age > 0 => return None,
            _ => age += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use flate2::{Compression, GzBuilder};

    use super::*;

    #[test]
    fn a_file_is_the_same_after_it_was_compressed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(path_of(&path, 1), "older\n").unwrap();
        std::fs::write(&path, "newer\n").unwrap();
        let before = open(&path, 1).unwrap();
        let file = File::create(compressed(&path, 2)).unwrap();
        let mut packer =
            GzBuilder::new().comment(before.identity.as_str()).write(file, Compression::default());
        packer.write_all(b"older\n").unwrap();
        packer.finish().unwrap();
        std::fs::rename(&path, path_of(&path, 1)).unwrap();
        assert_eq!(age_of(&path, &before.identity), Some(2));
        assert_eq!(oldest(&path), 2);
        let mut text = String::new();
        let mut after = open(&path, 2).unwrap();
        after.text.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), after.identity), ("older\n", before.identity));
        assert_eq!(age_of(&path, "another"), None);
    }
}
