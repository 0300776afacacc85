//! Logs of entries: docker's json-file, and Kubernetes'.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
};

use berth_shim_protocol::{LogFile, LogFormat};

use super::{
    escape::{escape_into, is_plain},
    files::Files,
};
use crate::stdio::Stream;

/// A log of entries, each of them a line or a part of one.
#[derive(Debug)]
pub(super) struct EntryLog {
    pub(super) files: Files,
    kubernetes: bool,
    /// What stands behind the stream's name in each line: `","attrs":{…}`, or only the quotation mark.
    attributes: Vec<u8>,
    buffer: Vec<u8>,
    /// What stands behind the text of each entry, for either stream, as long as the time is the same.
    tails: [Vec<u8>; 2],
    /// Nothing of what was begun needs escaping.
    plain: bool,
}

/// A buffer that was larger than this is kept as long as there is that much output.
const LITTLE: usize = 4096;

impl EntryLog {
    /// Open, and go on behind what is there.
    pub(super) fn open(wanted: &LogFile) -> io::Result<Self> {
        Ok(Self {
            files: Files::open(wanted)?,
            kubernetes: wanted.format == LogFormat::Cri,
            attributes: attributes(&wanted.attributes),
            buffer: Vec::new(),
            tails: Default::default(),
            plain: false,
        })
    }

    /// The entries that follow are of this stream and this time, and of this text: looking at all of it at once is faster
    /// than at each line.
    pub(super) fn begin(&mut self, stream: Stream, time: &str, texts: [&[u8]; 2]) {
        // Once for all of them: asking the kernel for each line would take longer than writing it.
        self.files.advance();
        let tail = &mut self.tails[stream.index()];
        tail.clear();
        if self.kubernetes {
            // In this format it stands in front.
            tail.extend_from_slice(time.as_bytes());
            tail.extend_from_slice(match stream {
                Stream::Stdout => b" stdout ",
                Stream::Stderr => b" stderr ",
            });
            return;
        }
        self.plain = texts.iter().all(|text| is_plain(text));
        tail.extend_from_slice(match stream {
            Stream::Stdout => br#"","stream":"stdout"#,
            Stream::Stderr => br#"","stream":"stderr"#,
        });
        tail.extend_from_slice(&self.attributes);
        tail.extend_from_slice(br#","time":""#);
        tail.extend_from_slice(time.as_bytes());
        tail.extend_from_slice(b"\"}\n");
    }

    /// Record a line, or a part of one, of what was begun. It is in the file after [`EntryLog::flush`].
    pub(super) fn entry(&mut self, stream: Stream, text: &[u8], ends: bool) {
        if self.files.is_full(self.buffer.len() as u64) {
            self.flush();
            self.files.rotate();
        }
        let (buffer, tail) = (&mut self.buffer, &self.tails[stream.index()]);
        buffer.reserve(text.len() + tail.len() + 16);
        if self.kubernetes {
            buffer.extend_from_slice(tail);
            buffer.extend_from_slice(if ends { b"F " } else { b"P " });
            buffer.extend_from_slice(text);
            buffer.push(b'\n');
            return;
        }
        buffer.extend_from_slice(b"{\"log\":\"");
        match self.plain {
            true => buffer.extend_from_slice(text),
            false => escape_into(text, buffer),
        }
        if ends {
            buffer.extend_from_slice(br"\n");
        }
        buffer.extend_from_slice(tail);
    }

    pub(super) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        self.files.append(&mut [IoSlice::new(&self.buffer)]);
        let little = self.buffer.len() <= LITTLE;
        self.buffer.clear();
        if little {
            self.buffer.shrink_to(LITTLE);
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

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::Read as _,
        path::Path,
    };

    use flate2::bufread::GzDecoder;
    use jiff::Timestamp;
    use serde_json::Value;

    use super::*;
    use crate::log::{
        Log,
        compress::{self, compressed},
    };

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
