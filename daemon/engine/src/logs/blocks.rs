//! The last lines of a file of blocks, which is walked from its end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use berth_runtime_client::protocol::block::{HEAD, Head, TAIL};
use memchr::{memchr_iter, memrchr_iter};

/// Counts lines from the end: the block where the one is that makes the number full, and how much of its text is before that
/// line. A part of a line at a block's end counts as one, as it would in a json-file.
pub(super) fn backwards(file: &File, left: &mut u64) -> io::Result<Option<(u64, usize)>> {
    let mut end = whole(file, file.metadata()?.len())?;
    if *left == 0 {
        return Ok(Some((end, 0)));
    }
    while end > 0 {
        let Some((begin, head)) = before(file, end)? else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("no block ends at {end}")));
        };
        let mut text = vec![0; head.length()];
        file.read_exact_at(&mut text, begin + HEAD as u64)?;
        let part = u64::from(text.last().is_some_and(|last| *last != b'\n'));
        let lines = memchr_iter(b'\n', &text).count() as u64 + part;
        if lines >= *left {
            // Behind the newline that ends the line before.
            let newlines = usize::try_from(*left - part).unwrap_or(usize::MAX);
            let skip = memrchr_iter(b'\n', &text).nth(newlines).map_or(0, |newline| newline + 1);
            *left = 0;
            return Ok(Some((begin, skip)));
        }
        *left -= lines;
        end = begin;
    }
    Ok(None)
}

/// How long the file is up to its last whole block: another may just be written, or have been when the shim was killed.
fn whole(file: &File, length: u64) -> io::Result<u64> {
    if length == 0 || before(file, length)?.is_some() {
        return Ok(length);
    }
    let mut whole = 0;
    while whole + HEAD as u64 <= length
        && let Some(head) = head_at(file, whole)?
        && whole + head.whole() as u64 <= length
    {
        whole += head.whole() as u64;
    }
    Ok(whole)
}

/// The block that ends here: where it begins, and its head.
fn before(file: &File, end: u64) -> io::Result<Option<(u64, Head)>> {
    let mut tail = [0; TAIL];
    let Some(at) = end.checked_sub(TAIL as u64) else { return Ok(None) };
    file.read_exact_at(&mut tail, at)?;
    let length = u32::from_le_bytes(tail);
    let Some(begin) = at.checked_sub(u64::from(length) + HEAD as u64) else { return Ok(None) };
    Ok(head_at(file, begin)?.filter(|head| head.length == length).map(|head| (begin, head)))
}

fn head_at(file: &File, offset: u64) -> io::Result<Option<Head>> {
    let mut head = [0; HEAD];
    file.read_exact_at(&mut head, offset)?;
    Ok(Head::decode(&head))
}
