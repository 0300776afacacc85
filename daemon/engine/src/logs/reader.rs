//! Reads a log from old to new, across rotation, as far as there is something.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use berth_runtime_client::protocol::block::{self, HEAD, Head, TAIL};
use bytes::Bytes;
use memchr::memchr;

use super::entry::Entry;
use super::files::{self, LogFile};
use super::tail::Position;

/// A longer line is no log line; a block is never so long.
const LONGEST: usize = block::LONGEST + HEAD + TAIL;
const BLOCK: usize = 256 * 1024;

/// What reading found.
#[derive(Debug)]
pub(super) enum Step {
    /// A piece of output.
    Entry(Entry),
    /// Nothing yet; go on.
    Again,
    /// That is all for now.
    End,
}

/// Reads a rotated log.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    file: Option<LogFile>,
    /// Age of the file when it was opened.
    age: u32,
    offset: u64,
    /// Of the current file only what is before this is read; later files are not.
    end: Option<u64>,
    buffer: Vec<u8>,
    /// Where the next line begins in the buffer.
    begin: usize,
    /// Up to where no newline was found.
    searched: usize,
    /// How much of the first block's text is not wanted.
    skip: usize,
}

impl Reader {
    pub(super) fn new(path: PathBuf, start: Position, end: Option<u64>) -> io::Result<Self> {
        let mut reader = Self {
            path,
            file: None,
            age: start.age,
            offset: start.offset,
            end,
            buffer: Vec::new(),
            begin: 0,
            searched: 0,
            skip: start.skip,
        };
        reader.open()?;
        Ok(reader)
    }

    /// Opens the file of the current age at the current offset; a missing one may come yet.
    fn open(&mut self) -> io::Result<()> {
        match files::open(&self.path, self.age) {
            Ok(mut file) => {
                file.text.seek(SeekFrom::Start(self.offset))?;
                self.file = Some(file);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.file = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The next entry, as far as there is one.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        let rest = &self.buffer[self.begin..];
        let half_a_head = rest.first() == Some(&block::MARK) && rest.len() < HEAD;
        if let Some(head) = rest.first_chunk().and_then(Head::decode) {
            if let Some(whole) = rest.get(HEAD..head.whole()) {
                let skip = std::mem::take(&mut self.skip).min(head.length());
                // What begins behind a line goes on with none.
                let flags = if skip > 0 { 0 } else { head.flags };
                let text = Bytes::copy_from_slice(&whole[skip..head.length()]);
                let entry = Entry::of_block(&Head { flags, ..head }, text);
                self.begin += head.whole();
                self.searched = self.begin;
                return Ok(Step::Entry(entry));
            }
        } else if !half_a_head && let Some(at) = memchr(b'\n', &self.buffer[self.searched..]) {
            let newline = self.searched + at;
            let entry = Entry::parse(&self.buffer[self.begin..newline]);
            self.begin = newline + 1;
            self.searched = self.begin;
            // Half a line from a shim that was killed. Docker stops here; the rest is worth more.
            return Ok(entry.map_or(Step::Again, Step::Entry));
        }
        self.searched = self.buffer.len();
        if self.buffer.len() - self.begin > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an entry of the log has no end"));
        }
        if self.fill()? {
            return Ok(Step::Again);
        }
        self.next_file()
    }

    /// Reads a block; false at the end of the file.
    fn fill(&mut self) -> io::Result<bool> {
        let Some(file) = self.file.as_mut() else { return Ok(false) };
        self.buffer.drain(..self.begin);
        self.searched -= self.begin;
        self.begin = 0;
        let room = match self.end.filter(|_| self.age == 0) {
            Some(end) => end.saturating_sub(self.offset),
            None => BLOCK as u64,
        };
        let read = (&file.text).take(room.min(BLOCK as u64)).read_to_end(&mut self.buffer)?;
        self.offset += read as u64;
        Ok(read > 0)
    }

    /// At the end of a file: what comes next?
    fn next_file(&mut self) -> io::Result<Step> {
        let Some(file) = self.file.as_ref() else {
            self.open()?;
            return Ok(if self.file.is_some() { Step::Again } else { Step::End });
        };
        let meta = file.text.metadata()?;
        match files::age_of(&self.path, &file.identity) {
            // Still the current one. With one file kept it is emptied instead of renamed.
            Some(0) => {
                if meta.len() < self.offset {
                    self.restart(0)?;
                    return Ok(Step::Again);
                }
                Ok(Step::End)
            }
            // With a bound the current file of then was the last to read.
            Some(_) if self.age == 0 && self.end.is_some() => Ok(Step::End),
            Some(age) => {
                // Something may have been written between our reading and its renaming.
                if meta.len() > self.offset {
                    return Ok(Step::Again);
                }
                self.restart(age - 1)?;
                Ok(Step::Again)
            }
            // Deleted by rotation: the oldest that is left comes next.
            None => {
                let oldest = super::tail::oldest(&self.path)?;
                self.restart(oldest.age)?;
                Ok(if self.file.is_some() { Step::Again } else { Step::End })
            }
        }
    }

    fn restart(&mut self, age: u32) -> io::Result<()> {
        self.age = age;
        self.offset = 0;
        self.skip = 0;
        // Half a line belongs to the file that is done.
        self.buffer.clear();
        self.begin = 0;
        self.searched = 0;
        self.open()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use super::super::files::path_of;
    use super::*;

    const START: Position = Position { age: 0, offset: 0, skip: 0 };

    fn all(reader: &mut Reader) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match reader.step().unwrap() {
                Step::Entry(entry) => {
                    lines.extend(entry.show(false, false).map(|(_, text)| {
                        String::from_utf8_lossy(text.strip_suffix(b"\n").unwrap_or(&text)).into_owned()
                    }));
                }
                Step::Again => {}
                Step::End => return lines,
            }
        }
    }

    fn append(path: &std::path::Path, bytes: impl AsRef<[u8]>) {
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        file.write_all(bytes.as_ref()).unwrap();
    }

    /// These lines as a json-file; one that has no newline is half an entry.
    fn json(text: &str) -> String {
        let entry = |line: &str| match line.strip_suffix('\n') {
            Some(line) => {
                format!("{{\"log\":\"{line}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-21T02:56:14Z\"}}\n")
            }
            None => format!("{{\"log\":\"{line}"),
        };
        text.split_inclusive('\n').map(entry).collect()
    }

    fn block(text: &str) -> Vec<u8> {
        let head = Head { stream: 1, flags: 0, length: text.len() as u32, time: 0 };
        [&head.encode(), text.as_bytes(), &head.tail()].concat()
    }

    #[test]
    fn reading_survives_rotation_and_half_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path_of(&path, 1), json("a\nb\n"));
        append(&path, json("c\nd"));
        let mut reader =
            Reader::new(path.clone(), Position { age: 1, offset: json("a\n").len() as u64, skip: 0 }, None)
                .unwrap();
        assert_eq!(all(&mut reader), ["b", "c"]);
        append(&path, &json("dd\n")[8..]);
        assert_eq!(all(&mut reader), ["ddd"]);
        // Two rotations at once: nothing is lost.
        append(&path, json("e\n"));
        std::fs::rename(path_of(&path, 1), path_of(&path, 3)).unwrap();
        std::fs::rename(&path, path_of(&path, 2)).unwrap();
        append(&path_of(&path, 1), block("f\n"));
        append(&path, json("g\n"));
        assert_eq!(all(&mut reader), ["e", "f", "g"]);
        // One file only: it is emptied.
        File::create(&path).unwrap();
        append(&path, json("h"));
        assert_eq!(all(&mut reader), [] as [&str; 0]);
        append(&path, &json("i\n")[8..]);
        assert_eq!(all(&mut reader), ["hi"]);
    }

    #[test]
    fn a_bound_holds_and_files_may_come_late() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut late = Reader::new(path.clone(), START, None).unwrap();
        assert_eq!(all(&mut late), [] as [&str; 0]);
        append(&path, json("a\nb\n"));
        assert_eq!(all(&mut late), ["a", "b"]);
        let mut bound = Reader::new(path, START, Some(json("a\n").len() as u64)).unwrap();
        assert_eq!(all(&mut bound), ["a"]);
    }

    #[test]
    fn blocks_are_read_whole_beside_lines_of_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path_of(&path, 1), json("a\n"));
        let whole = block("b\nc\n\u{b1}\nlast");
        let mut reader = Reader::new(path.clone(), Position { age: 1, ..START }, None).unwrap();
        assert_eq!(all(&mut reader), ["a"]);
        for byte in &whole[..whole.len() - 1] {
            append(&path, [*byte]);
            assert_eq!(all(&mut reader), [] as [&str; 0], "half a block");
        }
        append(&path, &whole[whole.len() - 1..]);
        assert_eq!(all(&mut reader), ["b", "c", "\u{b1}", "last"]);
        let mut tail = Reader::new(path, Position { skip: 2, ..START }, None).unwrap();
        assert_eq!(all(&mut tail), ["c", "\u{b1}", "last"]);
    }
}
