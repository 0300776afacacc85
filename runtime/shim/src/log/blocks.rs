//! The `local` log: output as it came, in blocks of whole lines ([`berth_shim_protocol::block`]).

use std::{
    fs::File,
    io::{self, IoSlice},
    os::unix::fs::FileExt as _,
};

use berth_shim_protocol::{
    LogFile,
    block::{CONTINUES, HEAD, Head, TAIL},
};
use jiff::Timestamp;
use memchr::{memchr, memrchr};

use super::{files::Files, lines::MAX_LINE};
use crate::stdio::Stream;

/// A log of blocks.
#[derive(Debug)]
pub(super) struct BlockLog {
    pub(super) files: Files,
    streams: [Unfinished; 2],
}

/// A stream's line that has not ended yet.
#[derive(Debug, Default)]
struct Unfinished {
    /// What is not in the file.
    text: Vec<u8>,
    /// Its beginning is.
    begun: bool,
}

impl BlockLog {
    /// Open, and go on behind what is there, as far as it is whole.
    pub(super) fn open(wanted: &LogFile) -> io::Result<Self> {
        let mut files = Files::open(wanted)?;
        mend(&mut files)?;
        Ok(Self { files, streams: Default::default() })
    }

    /// What a stream has written that is not in the file yet.
    pub(super) fn partial(&self, stream: Stream) -> &[u8] {
        &self.streams[stream.index()].text
    }

    /// Record output: whole lines at once, the rest when its line ends or has become long.
    pub(super) fn write(&mut self, stream: Stream, mut data: &[u8], time: Timestamp) {
        self.files.advance();
        while let Some(last) = memrchr(b'\n', data) {
            let cut = self.cut(stream, data, last + 1);
            self.put(stream, &data[..cut], time);
            data = &data[cut..];
        }
        let unfinished = &mut self.streams[stream.index()].text;
        if unfinished.len() + data.len() >= MAX_LINE {
            self.put(stream, data, time);
        } else {
            unfinished.extend_from_slice(data);
        }
    }

    /// The stream has ended.
    pub(super) fn end(&mut self, stream: Stream, time: Timestamp) {
        if !self.partial(stream).is_empty() {
            self.put(stream, b"", time);
        }
        self.streams[stream.index()] = Unfinished::default();
    }

    /// How much of these lines still belongs into the current file: it is full behind the line that fills it.
    fn cut(&self, stream: Stream, data: &[u8], all: usize) -> usize {
        let room = self.files.room().saturating_sub((self.partial(stream).len() + HEAD + TAIL) as u64);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        if room >= all {
            return all;
        }
        memchr(b'\n', &data[room..all]).map_or(all, |end| room + end + 1)
    }

    fn put(&mut self, stream: Stream, data: &[u8], time: Timestamp) {
        if self.files.is_full(0) {
            self.files.rotate();
        }
        let unfinished = &mut self.streams[stream.index()];
        let head = Head {
            stream: stream.number(),
            flags: if unfinished.begun { CONTINUES } else { 0 },
            length: u32::try_from(unfinished.text.len() + data.len())
                .expect("a read brings no more than some KiB"),
            time: i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX),
        };
        unfinished.begun = data.last().or(unfinished.text.last()) != Some(&b'\n');
        let (before, behind) = (head.encode(), head.tail());
        self.files.append(&mut [before.as_slice(), &unfinished.text, data, &behind].map(IoSlice::new));
        unfinished.text.clear();
        unfinished.text.shrink_to(MAX_LINE);
    }
}

/// A shim that was killed may have left half a block, behind which nothing could be read: it is taken away. What is no file of
/// blocks at all (a json-file of before) is rotated away.
fn mend(files: &mut Files) -> io::Result<()> {
    let size = files.position();
    let file = File::open(files.path())?;
    if size == 0 || ends_whole(&file, size)? {
        return Ok(());
    }
    match whole_blocks(&file, size)? {
        0 => files.rotate(),
        whole => files.truncate(whole)?,
    }
    Ok(())
}

/// Whether the last block is all there.
fn ends_whole(file: &File, size: u64) -> io::Result<bool> {
    let mut tail = [0; TAIL];
    let Some(at) = size.checked_sub(TAIL as u64) else { return Ok(false) };
    file.read_exact_at(&mut tail, at)?;
    let length = u32::from_le_bytes(tail);
    let Some(begin) = at.checked_sub(u64::from(length) + HEAD as u64) else { return Ok(false) };
    Ok(head_at(file, begin)?.is_some_and(|head| head.length == length))
}

/// How long the file is up to its last whole block.
fn whole_blocks(file: &File, size: u64) -> io::Result<u64> {
    let mut whole = 0;
    while whole + HEAD as u64 <= size
        && let Some(head) = head_at(file, whole)?
        && whole + head.whole() as u64 <= size
    {
        whole += head.whole() as u64;
    }
    Ok(whole)
}

fn head_at(file: &File, offset: u64) -> io::Result<Option<Head>> {
    let mut head = [0; HEAD];
    file.read_exact_at(&mut head, offset)?;
    Ok(Head::decode(&head))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use berth_shim_protocol::LogFormat;
    use proptest::prelude::*;

    use super::*;

    fn log(path: &Path, max_size: u64) -> BlockLog {
        let (path, format) = (path.to_owned(), LogFormat::Local);
        BlockLog::open(&LogFile { path, format, max_size, max_file: 8, ..LogFile::default() }).unwrap()
    }

    /// Every block of a file: stream, flags, text.
    fn blocks(path: &Path) -> Vec<(u8, u8, String)> {
        let bytes = fs::read(path).unwrap();
        let (mut rest, mut all) = (bytes.as_slice(), Vec::new());
        while let Some((head, behind)) = rest.split_first_chunk() {
            let head = Head::decode(head).unwrap();
            let (text, behind) = behind.split_at(head.length());
            assert_eq!(behind[..TAIL], head.tail());
            all.push((head.stream, head.flags, String::from_utf8(text.to_vec()).unwrap()));
            rest = &behind[TAIL..];
        }
        all
    }

    #[test]
    fn a_block_is_the_whole_lines_of_a_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = log(&path, 0);
        let now = Timestamp::now();
        log.write(Stream::Stdout, b"one\ntwo\nthr", now);
        log.write(Stream::Stderr, b"oops\n", now);
        assert_eq!(log.partial(Stream::Stdout), b"thr");
        log.write(Stream::Stdout, b"ee\n", now);
        let long = "x".repeat(20_000);
        log.write(Stream::Stdout, long.as_bytes(), now);
        log.write(Stream::Stdout, b"end\nlast", now);
        log.end(Stream::Stdout, now);
        log.end(Stream::Stderr, now);
        let block = |stream, flags, text: &str| (stream, flags, text.to_owned());
        let expected = [
            block(1, 0, "one\ntwo\n"),
            block(2, 0, "oops\n"),
            block(1, 0, "three\n"),
            block(1, 0, &long),
            block(1, CONTINUES, "end\n"),
            block(1, 0, "last"),
        ];
        assert_eq!(blocks(&path), expected);
        assert_eq!(log.files.position(), fs::metadata(&path).unwrap().len());
    }

    #[test]
    fn half_a_block_and_other_files_are_out_of_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let now = Timestamp::now();
        fs::write(&path, "{\"log\":\"of before\\n\"}\n").unwrap();
        log(&path, 0).write(Stream::Stdout, b"one\n", now);
        assert!(dir.path().join("log.1").exists());
        let whole = fs::read(&path).unwrap();
        for lost in 1..whole.len() {
            fs::write(&path, [&whole[..], &whole[..whole.len() - lost]].concat()).unwrap();
            log(&path, 0).write(Stream::Stderr, b"two\n", now);
            assert_eq!(blocks(&path), [(1, 0, "one\n".to_owned()), (2, 0, "two\n".to_owned())]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn all_of_it_is_kept_in_order_and_what_goes_on_says_so(
            pieces in prop::collection::vec(("[a-c\n]{0,40}", 0..3_u8), 0..60),
            max_size in 0..300_u64,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let mut log = log(&path, max_size);
            let now = Timestamp::now();
            let mut expected = String::new();
            for (text, wide) in &pieces {
                // Now and then one that is longer than a line may be.
                let text = if *wide == 0 { "x".repeat(20_000) + text } else { text.clone() };
                log.write(Stream::Stdout, text.as_bytes(), now);
                expected.push_str(&text);
            }
            log.end(Stream::Stdout, now);
            let oldest = (1..).take_while(|number| dir.path().join(format!("log.{number}")).exists()).last();
            let rotated = (1..=oldest.unwrap_or(0)).rev().map(|number| dir.path().join(format!("log.{number}")));
            let mut all = String::new();
            for file in rotated.chain([path]) {
                for (_, flags, text) in blocks(&file) {
                    let continues = !all.is_empty() && !all.ends_with('\n');
                    prop_assert!(flags == u8::from(continues) || all.is_empty());
                    all.push_str(&text);
                }
            }
            prop_assert!(max_size > 0 && expected.ends_with(&all) || expected == all);
        }
    }
}
