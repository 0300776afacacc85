//! Sparse files: the old GNU header and the three PAX forms (GNU tar manual, "Sparse Formats").

use std::io::BufRead;

use tar::{GnuExtSparseHeader, GnuHeader};

use crate::tarball::pax::{Records, number};
use crate::tarball::{Segment, TarError};

/// More stretches than any file has that is meant well; 16 bytes each.
const MAX_SEGMENTS: usize = 1 << 18;
const BAD: TarError = TarError::Malformed("sparse map");

/// The map and size in a GNU header, reading its extension blocks. Returns the bytes that were read.
pub(crate) fn old_gnu(
    header: &GnuHeader,
    from: &mut impl BufRead,
) -> Result<(Vec<Segment>, u64, u64), TarError> {
    let mut map = Vec::new();
    let mut push = |block: &tar::GnuSparseHeader| -> Result<(), TarError> {
        if !block.is_empty() {
            let segment = Segment {
                offset: block.offset().map_err(|_| BAD)?,
                length: block.length().map_err(|_| BAD)?,
            };
            map.push(segment);
        }
        (map.len() <= MAX_SEGMENTS).then_some(()).ok_or(BAD)
    };
    header.sparse.iter().try_for_each(&mut push)?;
    let mut extended = header.is_extended();
    let mut read = 0;
    while extended {
        let mut block = GnuExtSparseHeader::new();
        from.read_exact(block.as_mut_bytes())?;
        read += 512;
        block.sparse().iter().try_for_each(&mut push)?;
        extended = block.is_extended();
    }
    let size = header.real_size().map_err(|_| BAD)?;
    Ok((map, size, read))
}

/// What PAX records say about a sparse file.
pub(crate) enum PaxSparse {
    /// Formats 0.0 and 0.1: the map is in the records.
    Map(Vec<Segment>, u64),
    /// Format 1.0: the map is at the start of the data.
    InData(u64),
}

pub(crate) fn pax(records: &Records) -> Result<Option<PaxSparse>, TarError> {
    if let Some(major) = records.get("GNU.sparse.major") {
        let size = records.number("GNU.sparse.realsize")?.ok_or(BAD)?;
        return if major == b"1" { Ok(Some(PaxSparse::InData(size))) } else { Err(BAD) };
    }
    let Some(size) = records.number("GNU.sparse.size")? else { return Ok(None) };
    let numbers: Vec<u64> = match records.get("GNU.sparse.map") {
        Some(map) => map.split(|&b| b == b',').map(number).collect::<Option<_>>().ok_or(BAD)?,
        None => records
            .iter()
            .filter(|(key, _)| *key == b"GNU.sparse.offset" || *key == b"GNU.sparse.numbytes")
            .map(|(_, value)| number(value))
            .collect::<Option<_>>()
            .ok_or(BAD)?,
    };
    Ok(Some(PaxSparse::Map(pairs(&numbers)?, size)))
}

/// The map of format 1.0: decimal numbers, one a line, padded to a block. Returns the bytes that were read.
pub(crate) fn in_data(from: &mut impl BufRead, available: u64) -> Result<(Vec<Segment>, u64), TarError> {
    let mut read = 0;
    let mut line = || -> Result<u64, TarError> {
        let mut value: u64 = 0;
        let mut digits = 0;
        loop {
            let mut byte = [0];
            if read >= available {
                return Err(BAD);
            }
            from.read_exact(&mut byte)?;
            read += 1;
            match byte[0] {
                b'\n' if digits > 0 => return Ok(value),
                digit @ b'0'..=b'9' if digits < 20 => {
                    digits += 1;
                    value = value
                        .checked_mul(10)
                        .and_then(|v| v.checked_add(u64::from(digit - b'0')))
                        .ok_or(BAD)?;
                }
                _ => return Err(BAD),
            }
        }
    };
    let count = usize::try_from(line()?).ok().filter(|&n| n <= MAX_SEGMENTS).ok_or(BAD)?;
    let numbers = (0..2 * count).map(|_| line()).collect::<Result<Vec<_>, _>>()?;
    let padding = (512 - read % 512) % 512;
    if read + padding > available {
        return Err(BAD);
    }
    let mut rest = vec![0; padding as usize];
    from.read_exact(&mut rest)?;
    Ok((pairs(&numbers)?, read + padding))
}

fn pairs(numbers: &[u64]) -> Result<Vec<Segment>, TarError> {
    if !numbers.len().is_multiple_of(2) || numbers.len() / 2 > MAX_SEGMENTS {
        return Err(BAD);
    }
    Ok(numbers.chunks(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect())
}

/// The stretches must lie in order within the file, and the data must be exactly theirs.
pub(crate) fn validate(map: &[Segment], size: u64, stored: u64) -> Result<(), TarError> {
    let mut end = 0;
    let mut total: u64 = 0;
    for segment in map {
        let segment_end = segment.offset.checked_add(segment.length).ok_or(BAD)?;
        if segment.offset < end || segment_end > size {
            return Err(BAD);
        }
        end = segment_end;
        total += segment.length;
    }
    if total == stored { Ok(()) } else { Err(BAD) }
}
