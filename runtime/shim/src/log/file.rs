//! The log's files: writing and rotation.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Child,
};

use berth_shim_protocol::{LogFile, LogFormat};

use super::{
    compress::{self, compressed},
    escape::escape_into,
};
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
    compress: bool,
    /// Compresses the file that was rotated away last; until it has, the names stay as they are.
    compressor: Option<Child>,
    /// What stands behind the stream's name in each line: `","attrs":{…}`, or only the quotation mark.
    attributes: Vec<u8>,
    buffer: Vec<u8>,
    /// What stands behind the text of each entry, for either stream, as long as the time is the same.
    tails: [Vec<u8>; 2],
    complained: bool,
}

/// A buffer that was larger than this is kept as long as there is that much output.
const LITTLE: usize = 4096;

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
            compress: wanted.compress,
            compressor: None,
            attributes: attributes(&wanted.attributes),
            buffer: Vec::new(),
            tails: Default::default(),
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

    /// The entries that follow are of this stream and this time.
    pub(super) fn begin(&mut self, stream: Stream, time: &str) {
        let tail = &mut self.tails[stream.index()];
        tail.clear();
        match self.format {
            LogFormat::Json => {
                tail.extend_from_slice(match stream {
                    Stream::Stdout => br#"","stream":"stdout"#,
                    Stream::Stderr => br#"","stream":"stderr"#,
                });
                tail.extend_from_slice(&self.attributes);
                tail.extend_from_slice(br#","time":""#);
                tail.extend_from_slice(time.as_bytes());
                tail.extend_from_slice(b"\"}\n");
            }
            // In this format it stands in front.
            LogFormat::Cri => {
                tail.extend_from_slice(time.as_bytes());
                tail.extend_from_slice(match stream {
                    Stream::Stdout => b" stdout ",
                    Stream::Stderr => b" stderr ",
                });
            }
        }
    }

    /// Record a line, or a part of one, of what was begun. It is in the file after [`FileLog::flush`].
    pub(super) fn entry(&mut self, stream: Stream, text: &[u8], ends: bool) {
        let size = self.size + self.buffer.len() as u64;
        if self.max_size > 0 && size >= self.max_size && self.may_rotate(size) {
            self.flush();
            let rotated = self.rotate();
            self.complain("rotate", rotated);
        }
        match self.format {
            LogFormat::Json => self.json_entry(stream, text, ends),
            LogFormat::Cri => self.cri_entry(stream, text, ends),
        }
    }

    fn cri_entry(&mut self, stream: Stream, text: &[u8], ends: bool) {
        let buffer = &mut self.buffer;
        buffer.extend_from_slice(&self.tails[stream.index()]);
        buffer.extend_from_slice(if ends { b"F " } else { b"P " });
        buffer.extend_from_slice(text);
        buffer.push(b'\n');
    }

    fn json_entry(&mut self, stream: Stream, text: &[u8], ends: bool) {
        let (buffer, tail) = (&mut self.buffer, &self.tails[stream.index()]);
        buffer.reserve(text.len() + tail.len() + 16);
        buffer.extend_from_slice(b"{\"log\":\"");
        escape_into(text, buffer);
        if ends {
            buffer.extend_from_slice(br"\n");
        }
        buffer.extend_from_slice(tail);
    }

    pub(super) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let written = self.file.write_all(&self.buffer);
        self.size += self.buffer.len() as u64;
        let little = self.buffer.len() <= LITTLE;
        self.buffer.clear();
        if little {
            self.buffer.shrink_to(LITTLE);
        }
        self.complain("write", written);
    }

    /// While the last file is being compressed this one grows, up to twice its size; then the other stays as it is.
    fn may_rotate(&mut self, size: u64) -> bool {
        self.advance();
        let Some(compressor) = &mut self.compressor else { return true };
        if size < self.max_size.saturating_mul(2) {
            return false;
        }
        let ended = compressor.kill().and_then(|()| compressor.wait().map(drop));
        self.compressor = None;
        let cleaned = ended.and_then(|()| gone(compress::clean(&self.numbered(1))));
        self.complain("stop compressing", cleaned);
        true
    }

    /// The process that compresses the last file.
    pub(super) fn helper(&self) -> Option<u32> {
        self.compressor.as_ref().map(Child::id)
    }

    /// Takes note when the last file was compressed.
    pub(super) fn advance(&mut self) {
        if let Some(compressor) = &mut self.compressor
            && !matches!(compressor.try_wait(), Ok(None))
        {
            // Why it failed stands in shim.log, and the file stays readable.
            self.compressor = None;
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.max_file <= 1 {
            self.file.set_len(0)?;
        } else {
            // Not replaced by its successor, which ext4 would write to the disk first.
            let last = self.numbered(self.max_file - 1);
            gone(fs::remove_file(compressed(&last)))?;
            gone(fs::remove_file(last))?;
            for number in (1..self.max_file - 1).rev() {
                let (from, to) = (self.numbered(number), self.numbered(number + 1));
                gone(fs::rename(compressed(&from), compressed(&to)))?;
                gone(fs::rename(from, to))?;
            }
            let newest = self.numbered(1);
            fs::rename(&self.path, &newest)?;
            self.file = open(&self.path)?;
            if self.compress {
                self.compressor = Some(compress::begin(&newest)?);
            }
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

/// That there is no such file is no failure.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
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
    use std::io::Read as _;

    use flate2::bufread::GzDecoder;
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
    fn compressed_files_move_on_like_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let numbered = |number| dir.path().join(format!("log.{number}"));
        fs::write(&path, "plain").unwrap();
        compress::run(&path).unwrap();
        assert!(!path.exists());
        fs::rename(compressed(&path), compressed(&numbered(1))).unwrap();
        let mut log = log(&path, 1, 3);
        log.write(Stream::Stdout, b"a\nb\n");
        assert!(numbered(1).exists() && !numbered(2).exists());
        let mut packed = GzDecoder::new(io::BufReader::new(File::open(compressed(&numbered(2))).unwrap()));
        let mut text = String::new();
        packed.read_to_string(&mut text).unwrap();
        assert_eq!(text, "plain");
        log.write(Stream::Stdout, b"c\n");
        assert!(numbered(2).exists() && !compressed(&numbered(2)).exists(), "the oldest goes");
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
