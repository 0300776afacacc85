//! The log's files: writing and rotation.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use berth_shim_protocol::{LogFile, LogFormat};

use super::escape::escape_into;
use crate::stdio::Stream;

/// A log file, in docker's format or Kubernetes'.
#[derive(Debug)]
pub(super) struct FileLog {
    path: PathBuf,
    format: LogFormat,
    file: File,
    size: u64,
    max_size: u64,
    max_file: u32,
    /// What stands behind the stream's name in each line: `","attrs":{…}`, or only the quotation mark.
    attributes: Vec<u8>,
    buffer: Vec<u8>,
    complained: bool,
}

impl FileLog {
    /// Open, and go on behind what is there.
    pub(super) fn open(wanted: &LogFile) -> io::Result<Self> {
        let file = open(&wanted.path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: wanted.path.clone(),
            format: wanted.format,
            file,
            size,
            max_size: wanted.max_size,
            max_file: wanted.max_file,
            attributes: attributes(&wanted.attributes),
            buffer: Vec::new(),
            complained: false,
        })
    }

    /// Somebody has moved the file away: go on in a new one of the old name. After a failure all is as before.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let file = open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = file;
        Ok(())
    }

    /// How long the current file is.
    pub(super) fn position(&self) -> u64 {
        self.size
    }

    /// Record a line, or a part of one. It is in the file after [`FileLog::flush`].
    pub(super) fn entry(&mut self, stream: Stream, text: &[u8], ends: bool, time: &str) {
        if self.max_size > 0 && self.size + self.buffer.len() as u64 >= self.max_size {
            self.flush();
            let rotated = self.rotate();
            self.complain("rotate", rotated);
        }
        match self.format {
            LogFormat::Json => self.json_entry(stream, text, ends, time),
            LogFormat::Cri => self.cri_entry(stream, text, ends, time),
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
            Stream::Stdout => br#"","stream":"stdout"#,
            Stream::Stderr => br#"","stream":"stderr"#,
        });
        buffer.extend_from_slice(&self.attributes);
        buffer.extend_from_slice(br#","time":""#);
        buffer.extend_from_slice(time.as_bytes());
        buffer.extend_from_slice(b"\"}\n");
    }

    pub(super) fn flush(&mut self) {
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

fn attributes(list: &BTreeMap<String, String>) -> Vec<u8> {
    let mut text = vec![b'"'];
    for (number, (key, value)) in list.iter().enumerate() {
        text.extend_from_slice(if number == 0 { br#","attrs":{""# } else { br#",""# });
        escape_into(key.as_bytes(), &mut text);
        text.extend_from_slice(br#"":""#);
        escape_into(value.as_bytes(), &mut text);
        text.push(b'"');
    }
    if !list.is_empty() {
        text.push(b'}');
    }
    text
}

fn open(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::Value;

    use super::*;
    use crate::log::Log;

    fn log(path: &Path, max_size: u64, max_file: u32) -> Log {
        let file = LogFile { path: path.to_owned(), max_size, max_file, ..LogFile::default() };
        Log::open(&berth_shim_protocol::Log { file: Some(file), forward: None }).unwrap().unwrap()
    }

    fn entries(path: &Path) -> Vec<Value> {
        fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn one_object_a_line_in_dockers_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = log(&path, 0, 1);
        log.write(Stream::Stdout, b"hello\nhalf ");
        log.write(Stream::Stderr, b"oops\n");
        assert_eq!(log.partial(Stream::Stdout), b"half ");
        assert_eq!(log.position(), Some(fs::metadata(&path).unwrap().len()));
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
    fn attributes_stand_where_docker_has_them() {
        let list = [("tag".to_owned(), "a\"b".to_owned()), ("x".to_owned(), "1".to_owned())].into();
        assert_eq!(attributes(&list), br#"","attrs":{"tag":"a\"b","x":"1"}"#);
        assert_eq!(attributes(&BTreeMap::new()), b"\"");
    }

    #[test]
    fn rotation_keeps_the_newest_files_and_no_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = log(&path, 1000, 3);
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
        let file = LogFile { path: path.clone(), format: LogFormat::Cri, ..LogFile::default() };
        let wanted = berth_shim_protocol::Log { file: Some(file), forward: None };
        let mut log = Log::open(&wanted).unwrap().unwrap();
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
        let mut log = log(&path, 300, 1);
        for _ in 0..50 {
            log.write(Stream::Stdout, b"again and again\n");
        }
        assert!(fs::metadata(&path).unwrap().len() < 400);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
