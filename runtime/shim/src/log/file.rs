//! The log's files: writing and rotation.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{escape::escape_into, lines::Lines};
use crate::stdio::Stream;

/// How an entry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Docker's: one object a line.
    Json,
    /// Kubernetes': time, stream, F or P, text.
    Cri,
}

/// A container's log. Its own failures must not stop the container: what cannot be
/// written is lost, and the first failure is told in shim.log.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    format: Format,
    file: File,
    size: u64,
    max_size: u64,
    max_file: u32,
    lines: [Lines; 2],
    buffer: Vec<u8>,
    complained: bool,
}

impl Log {
    /// Open, and go on behind what is there.
    pub(crate) fn open(path: &Path, format: Format, max_size: u64, max_file: u32) -> io::Result<Self> {
        let file = open(path)?;
        let size = file.metadata()?.len();
        let (path, (lines, buffer)) = (path.to_owned(), Default::default());
        Ok(Self { path, format, file, size, max_size, max_file, lines, buffer, complained: false })
    }

    /// Somebody has moved the file away: go on in a new one of the old name. After a failure all is as before.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        let file = open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = file;
        Ok(())
    }

    /// How long the current file is.
    pub(crate) fn position(&self) -> u64 {
        self.size
    }

    /// What a stream has written that is not in the file yet, for its line has not ended.
    pub(crate) fn partial(&self, stream: Stream) -> &[u8] {
        self.lines[stream.index()].partial()
    }

    /// Record output. When this returns every line that it completes is in the file.
    pub(crate) fn write(&mut self, stream: Stream, data: &[u8]) {
        let mut lines = std::mem::take(&mut self.lines[stream.index()]);
        let time = Timestamp::now().to_string();
        lines.feed(data, |text, ends| self.entry(stream, text, ends, &time));
        self.lines[stream.index()] = lines;
        self.flush();
    }

    /// A stream has ended.
    pub(crate) fn end(&mut self, stream: Stream) {
        let mut lines = std::mem::take(&mut self.lines[stream.index()]);
        lines.end(|text, ends| self.entry(stream, text, ends, &Timestamp::now().to_string()));
        self.flush();
    }

    fn entry(&mut self, stream: Stream, text: &[u8], ends: bool, time: &str) {
        if self.max_size > 0 && self.size + self.buffer.len() as u64 >= self.max_size {
            self.flush();
            let rotated = self.rotate();
            self.complain("rotate", rotated);
        }
        match self.format {
            Format::Json => self.json_entry(stream, text, ends, time),
            Format::Cri => self.cri_entry(stream, text, ends, time),
        }
    }

    fn cri_entry(&mut self, stream: Stream, text: &[u8], ends: bool, time: &str) {
        let buffer = &mut self.buffer;
        buffer.extend_from_slice(time.as_bytes());
        buffer.extend_from_slice(match stream {
            Stream::Stdout => b" stdout ",
            Stream::Stderr => b" stderr ",
        });
        buffer.extend_from_slice(if ends { b"F " } else { b"P " });
        buffer.extend_from_slice(text);
        buffer.push(b'\n');
    }

    fn json_entry(&mut self, stream: Stream, text: &[u8], ends: bool, time: &str) {
        let buffer = &mut self.buffer;
        buffer.extend_from_slice(b"{\"log\":\"");
        escape_into(text, buffer);
        if ends {
            buffer.extend_from_slice(br"\n");
        }
        buffer.extend_from_slice(match stream {
            Stream::Stdout => br#"","stream":"stdout","time":""#,
            Stream::Stderr => br#"","stream":"stderr","time":""#,
        });
        buffer.extend_from_slice(time.as_bytes());
        buffer.extend_from_slice(b"\"}\n");
    }

    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let written = self.file.write_all(&self.buffer);
        self.size += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(4096);
        self.complain("write", written);
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.max_file <= 1 {
            self.file.set_len(0)?;
        } else {
            for number in (1..self.max_file - 1).rev() {
                match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            fs::rename(&self.path, self.numbered(1))?;
            self.file = open(&self.path)?;
        }
        self.size = 0;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }

    fn complain(&mut self, operation: &str, result: io::Result<()>) {
        if let Err(error) = result
            && !self.complained
        {
            eprintln!("cannot {operation} the log {}: {error}", self.path.display());
            self.complained = true;
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn entries(path: &Path) -> Vec<Value> {
        fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn one_object_a_line_in_dockers_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(&path, Format::Json, 0, 1).unwrap();
        log.write(Stream::Stdout, b"hello\nhalf ");
        log.write(Stream::Stderr, b"oops\n");
        assert_eq!(log.partial(Stream::Stdout), b"half ");
        assert_eq!(log.position(), fs::metadata(&path).unwrap().len());
        log.write(Stream::Stdout, b"line");
        log.end(Stream::Stdout);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(r#"{"log":"hello\n","stream":"stdout","time":"20"#), "{text}");
        let logs: Vec<_> =
            entries(&path).iter().map(|entry| entry["log"].as_str().unwrap().to_owned()).collect();
        assert_eq!(logs, ["hello\n", "oops\n", "half line"]);
        let time: Timestamp = entries(&path)[1]["time"].as_str().unwrap().parse().unwrap();
        assert!(Timestamp::now().duration_since(time).as_secs() < 60);
    }

    #[test]
    fn rotation_keeps_the_newest_files_and_no_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(&path, Format::Json, 1000, 3).unwrap();
        let text: String = (0..100).map(|number| format!("line {number}\n")).collect();
        log.write(Stream::Stdout, text.as_bytes());
        let mut names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
        let kept: Vec<Value> =
            ["log.2", "log.1", "log"].iter().flat_map(|name| entries(&dir.path().join(name))).collect();
        let first = 100 - kept.len();
        for (number, entry) in (first..).zip(&kept) {
            assert_eq!(entry["log"], format!("line {number}\n"));
        }
        assert!(fs::metadata(dir.path().join("log.1")).unwrap().len() < 1100);
    }

    #[test]
    fn kubernetes_entries_and_a_file_that_was_moved_away() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("0.log"), dir.path().join("0.log.1"));
        let mut log = Log::open(&path, Format::Cri, 0, 1).unwrap();
        log.write(Stream::Stdout, b"hello\nhalf ");
        log.write(Stream::Stderr, b"oops\n");
        fs::rename(&path, &moved).unwrap();
        log.write(Stream::Stderr, b"before\n");
        log.reopen().unwrap();
        log.write(Stream::Stdout, b"line\nrest");
        log.end(Stream::Stdout);
        let tails = |path: &Path| -> Vec<String> {
            let text = fs::read_to_string(path).unwrap();
            let tail = |line: &str| {
                let (time, tail) = line.split_once(' ').unwrap();
                assert!(time.parse::<Timestamp>().is_ok(), "{time}");
                tail.to_owned()
            };
            text.lines().map(tail).collect()
        };
        assert_eq!(tails(&moved), ["stdout F hello", "stderr F oops", "stderr F before"]);
        assert_eq!(tails(&path), ["stdout F half line", "stdout P rest"]);
        fs::remove_dir_all(dir.path()).unwrap();
        assert!(log.reopen().is_err());
    }

    #[test]
    fn a_single_file_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(&path, Format::Json, 300, 1).unwrap();
        for _ in 0..50 {
            log.write(Stream::Stdout, b"again and again\n");
        }
        assert!(fs::metadata(&path).unwrap().len() < 400);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
