//! The image of a container's first process, without its tie to whoever has made it.
//!
//! A shim has its container killed when it ends itself (PR_SET_PDEATHSIG). CRIU brings that back; but the one who restores
//! ends at once, and the container would with it.

use std::path::Path;

use anyhow::{Context, bail};
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, decode_varint};
use prost::encoding::{WireType, decode_key, encode_key, encode_varint, skip_field};

/// Two magic numbers and the length of the only message.
const HEAD: usize = 12;
/// `core_entry.thread_core` of CRIU's core.proto.
const THREAD_CORE: u32 = 5;
/// `thread_core_entry.pdeath_sig`.
const DEATH_SIGNAL: u32 = 8;

/// The number of a process in its own pid namespace (proc_pid_status(5)).
pub(super) fn own_number(pid: i32) -> anyhow::Result<u32> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let number = line.and_then(|line| line.split_whitespace().last()?.parse().ok());
    number.with_context(|| format!("{path} has no NSpid"))
}

/// Takes the tie out of the images of this process.
pub(super) fn untie(images: &Path, number: u32) -> anyhow::Result<()> {
    let path = images.join(format!("core-{number}.img"));
    let image = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let untied = without_death_signal(&image).with_context(|| path.display().to_string())?;
    std::fs::write(&path, untied).with_context(|| format!("write {}", path.display()))
}

fn without_death_signal(image: &[u8]) -> anyhow::Result<Vec<u8>> {
    let Some((head, message)) = image.split_at_checked(HEAD) else { bail!("no image of CRIU") };
    let size = u32::from_le_bytes(head[8..].try_into().context("the length")?) as usize;
    let Some((message, rest)) = message.split_at_checked(size) else { bail!("the image is cut off") };
    let untied = fields(message, |number, wire, field, to| {
        if (number, wire) != (THREAD_CORE, WireType::LengthDelimited) {
            return Ok(false);
        }
        let mut inner = field;
        decode_varint(&mut inner)?;
        let inner = fields(inner, |number, _, _, _| Ok(number == DEATH_SIGNAL))?;
        encode_key(THREAD_CORE, WireType::LengthDelimited, to);
        encode_varint(inner.len() as u64, to);
        to.extend_from_slice(&inner);
        Ok(true)
    })?;
    let size = u32::try_from(untied.len()).context("the length")?;
    Ok([&head[..8], &size.to_le_bytes(), &untied, rest].concat())
}

/// A copy of a message, but for the fields that `instead` has dealt with. It is given a field's number, kind and value.
fn fields(
    mut message: &[u8],
    instead: impl Fn(u32, WireType, &[u8], &mut Vec<u8>) -> anyhow::Result<bool>,
) -> anyhow::Result<Vec<u8>> {
    let mut copy = Vec::with_capacity(message.len());
    while message.has_remaining() {
        let whole = message;
        let (number, wire) = decode_key(&mut message)?;
        let value = message;
        skip_field(wire, number, &mut message, DecodeContext::default())?;
        let value = &value[..value.len() - message.len()];
        if !instead(number, wire, value, &mut copy)? {
            copy.extend_from_slice(&whole[..whole.len() - message.len()]);
        }
    }
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tie_goes() {
        // thread_core { futex_rla: 1, pdeath_sig: 9, comm: "a" }, ids: empty, something unknown of 8 bytes.
        let message = |core: &[u8]| {
            let length = u8::try_from(core.len()).unwrap();
            [&[8, 1, 42, length], core, &[34, 0, 249, 6, 1, 2, 3, 4, 5, 6, 7, 8]].concat()
        };
        let image = |core: &[u8]| {
            let message = message(core);
            let size = u32::try_from(message.len()).unwrap().to_le_bytes();
            [&[1, 2, 3, 4, 5, 6, 7, 8], &size[..], &message].concat()
        };
        let tied = image(&[8, 1, 64, 9, 106, 1, b'a']);
        let untied = image(&[8, 1, 106, 1, b'a']);
        assert_eq!(without_death_signal(&tied).unwrap(), untied);
        assert_eq!(without_death_signal(&untied).unwrap(), untied);
        assert!(without_death_signal(&tied[..15]).is_err());
        assert!(without_death_signal(&[]).is_err());
    }
}
