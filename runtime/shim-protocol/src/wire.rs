//! Messages to packets and back.

use serde::{Serialize, de::DeserializeOwned};

/// The longest packet that is sent as such; below the kernel's default `wmem_default` with room for overhead.
pub const MAX_PACKET: usize = 128 * 1024;
/// The longest message in a memfd: an argument vector and environment are at most 2 MiB or so (execve(2)).
pub const MAX_SPILL: usize = 16 * 1024 * 1024;
/// The packet that says: the message is in the memfd that comes first. No JSON text begins with this byte.
pub const SPILL_MARK: &[u8] = b"@";
/// The most file descriptors that may come with one packet (a spill and the one of the operation).
pub const MAX_FDS: usize = 4;

/// The packet is not a message of this protocol.
#[derive(Debug, thiserror::Error)]
#[error("not a message of the shim protocol: {0}")]
pub struct DecodeError(#[from] serde_json::Error);

/// The bytes of a message.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message).expect("the protocol's types have only string keys and no failing serializer")
}

/// The message in these bytes.
///
/// # Errors
/// When the bytes are no such message.
pub fn decode<T: DeserializeOwned>(packet: &[u8]) -> Result<T, DecodeError> {
    Ok(serde_json::from_slice(packet)?)
}
