//! Where the last lines of a rotated log begin.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use berth_runtime_client::protocol::block::MARK;

use super::{blocks, files};

/// A place in a rotated log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// 0 is the current file, 1 the one before, …
    pub(super) age: u32,
    pub(super) offset: u64,
    /// How much of the text is left out if a block stands there.
    pub(super) skip: usize,
}

const BLOCK: usize = 64 * 1024;

/// The beginning.
#[expect(clippy::unnecessary_wraps, reason = "one of two ways to find a start; the other can fail")]
pub(super) fn oldest(path: &Path) -> io::Result<Position> {
    Ok(Position { age: files::oldest(path), offset: 0, skip: 0 })
}

/// Where the last `lines` lines begin.
pub(super) fn start(path: &Path, lines: u64) -> io::Result<Position> {
    let mut left = lines;
    let oldest = files::oldest(path);
    for age in 0..=oldest {
        let file = match files::open(path, age) {
            Ok(file) => file.text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let found = match is_of_blocks(&file)? {
            true => blocks::backwards(&file, &mut left)?,
            false => backwards(&file, &mut left)?.map(|offset| (offset, 0)),
        };
        if let Some((offset, skip)) = found {
            return Ok(Position { age, offset, skip });
        }
    }
    Ok(Position { age: oldest, offset: 0, skip: 0 })
}

fn is_of_blocks(file: &File) -> io::Result<bool> {
    let mut first = [0];
    Ok(file.read_at(&mut first, 0)? == 1 && first[0] == MARK)
}

/// Counts lines from the end; the offset of the one that makes the number full.
fn backwards(file: &File, left: &mut u64) -> io::Result<Option<u64>> {
    let length = file.metadata()?.len();
    let mut end = length;
    let mut block = vec![0; BLOCK];
    while end > 0 {
        let begin = end.saturating_sub(BLOCK as u64);
        let bytes = &mut block[..usize::try_from(end - begin).unwrap_or(BLOCK)];
        file.read_exact_at(bytes, begin)?;
        for (at, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = begin + at as u64 + 1;
            // A newline ends a line; the one at the very end begins none.
            if after == length {
                if *left == 0 {
                    return Ok(Some(length));
                }
                continue;
            }
            *left -= 1;
            if *left == 0 {
                return Ok(Some(after));
            }
        }
        end = begin;
    }
    if *left == 0 {
        return Ok(Some(length));
    }
    if length > 0 {
        *left -= 1;
        if *left == 0 {
            return Ok(Some(0));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::files::path_of;
    use super::*;

    #[test]
    fn tails_reach_across_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(path_of(&path, 2), "a\nb\n").unwrap();
        std::fs::write(path_of(&path, 1), "c\nd\n").unwrap();
        std::fs::write(&path, "e\nf\n").unwrap();
        let at = |age, offset| Position { age, offset, skip: 0 };
        assert_eq!(start(&path, 0).unwrap(), at(0, 4));
        assert_eq!(start(&path, 1).unwrap(), at(0, 2));
        assert_eq!(start(&path, 2).unwrap(), at(0, 0));
        assert_eq!(start(&path, 3).unwrap(), at(1, 2));
        assert_eq!(start(&path, 6).unwrap(), at(2, 0));
        assert_eq!(start(&path, 60).unwrap(), at(2, 0));
        assert_eq!(oldest(&path).unwrap(), at(2, 0));
    }

    #[test]
    fn long_lines_and_missing_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(start(&path, 5).unwrap(), Position { age: 0, offset: 0, skip: 0 });
        let long = "x".repeat(200_000);
        std::fs::write(&path, format!("{long}\n{long}\nlast\n")).unwrap();
        assert_eq!(start(&path, 2).unwrap().offset, 200_001);
    }
}
