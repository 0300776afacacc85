//! Compressed streams, told by their first bytes.

use std::io::{self, BufReader, Read, Write};

use berth_oci::media_type;

/// How a layer blob is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Plain tar.
    None,
    /// gzip.
    #[default]
    Gzip,
    /// zstd.
    Zstd,
}

impl Compression {
    /// What a stream is that begins with these bytes.
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame: zstd:chunked layers may begin with one.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// The OCI media type of a layer compressed so.
    pub fn layer_media_type(self) -> &'static str {
        match self {
            Self::None => media_type::OCI_LAYER,
            Self::Gzip => media_type::OCI_LAYER_GZIP,
            Self::Zstd => media_type::OCI_LAYER_ZSTD,
        }
    }

    /// How a layer of this media type is compressed.
    pub fn of_media_type(media_type: &str) -> Self {
        match () {
            () if media_type.ends_with("gzip") => Self::Gzip,
            () if media_type.ends_with("zstd") => Self::Zstd,
            () => Self::None,
        }
    }
}

/// The uncompressed bytes of a stream, whatever it is.
pub(crate) fn decompress<'a>(mut from: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut start = Vec::with_capacity(4);
    from.by_ref().take(4).read_to_end(&mut start)?;
    let compression = Compression::detect(&start);
    let from = BufReader::with_capacity(128 << 10, io::Cursor::new(start).chain(from));
    Ok(match compression {
        Compression::None => Box::new(from),
        // eStargz and pigz write several members.
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(from)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(from)?),
    })
}

/// Compresses everything from one stream to another; the result does not depend on time or machine.
pub(crate) fn compress(mut from: impl Read, to: impl Write, compression: Compression) -> io::Result<()> {
    match compression {
        Compression::None => {
            let mut to = to;
            copy(&mut from, &mut to)
        }
        Compression::Gzip => {
            let mut encoder = flate2::GzBuilder::new().write(to, flate2::Compression::new(6));
            copy(&mut from, &mut encoder)?;
            encoder.finish().map(drop)
        }
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(to, 3)?;
            copy(&mut from, &mut encoder)?;
            encoder.finish().map(drop)
        }
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; crate::pipe::CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
