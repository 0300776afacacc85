//! A few small files of a client's directory, in memory: a Dockerfile and what belongs to it.

use std::collections::HashMap;

use berth_builder::rootdir::Kind;
use bytes::{Bytes, BytesMut};
use tonic::Status;

use super::{Selection, mode, open};
use crate::protocol::fsutil::types::Packet;
use crate::protocol::fsutil::types::packet::PacketType;
use crate::session::Session;

/// All of them together.
const MAX_BYTES: usize = 16 << 20;
/// So many names.
const MAX_FILES: u32 = 4096;
/// As many symlinks as the kernel follows.
const MAX_LINKS: usize = 40;

/// Files by their path.
#[derive(Debug, Default)]
pub(crate) struct Files {
    files: HashMap<String, Bytes>,
    links: HashMap<String, String>,
}

impl Files {
    /// The contents of a file, symlinks followed; a name alone leads out of no directory.
    pub(crate) fn get(&self, path: &str) -> Option<&Bytes> {
        let mut path = clean("", path);
        for _ in 0..MAX_LINKS {
            if let Some(bytes) = self.files.get(&path) {
                return Some(bytes);
            }
            let target = self.links.get(&path)?;
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            path = clean(if target.starts_with('/') { "" } else { parent }, target);
        }
        None
    }
}

/// `path` as seen from `base`, by text alone.
fn clean(base: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Fetches them.
pub(crate) async fn small(session: &Session, selection: &Selection) -> Result<Files, Status> {
    let (requests, mut packets) = open(session, selection).await?;
    let closed = |_| Status::unavailable("the client has ended the transfer");
    let mut found = Files::default();
    let mut coming: HashMap<u32, (String, BytesMut)> = HashMap::new();
    let (mut number, mut bytes, mut listed, mut asked_to_end) = (0, 0, false, false);
    while let Some(packet) = packets.message().await? {
        match packet.r#type() {
            PacketType::PacketErr => return Err(Status::unknown(String::from_utf8_lossy(&packet.data))),
            PacketType::PacketReq => return Err(Status::invalid_argument("a sender that asks for files")),
            PacketType::PacketFin => break,
            PacketType::PacketStat => match packet.stat {
                None => listed = true,
                Some(stat) => {
                    let id = number;
                    number += 1;
                    if number > MAX_FILES {
                        return Err(Status::resource_exhausted("too many files beside the Dockerfile"));
                    }
                    match mode::from_go(stat.mode).0 {
                        Some(Kind::Symlink) => {
                            found.links.insert(stat.path, stat.linkname);
                        }
                        Some(Kind::File) => {
                            let request =
                                Packet { r#type: PacketType::PacketReq.into(), id, ..Packet::default() };
                            requests.send(request).await.map_err(closed)?;
                            coming.insert(id, (stat.path, BytesMut::new()));
                        }
                        _ => {}
                    }
                }
            },
            PacketType::PacketData => {
                let unasked = || Status::invalid_argument("contents that nobody asked for");
                if packet.data.is_empty() {
                    let (path, data) = coming.remove(&packet.id).ok_or_else(unasked)?;
                    found.files.insert(path, data.freeze());
                } else {
                    bytes += packet.data.len();
                    if bytes > MAX_BYTES {
                        return Err(Status::resource_exhausted(format!(
                            "a Dockerfile and its .dockerignore may have {MAX_BYTES} bytes"
                        )));
                    }
                    coming.get_mut(&packet.id).ok_or_else(unasked)?.1.extend_from_slice(&packet.data);
                }
            }
        }
        if listed && coming.is_empty() && !asked_to_end {
            asked_to_end = true;
            let end = Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() };
            requests.send(end).await.map_err(closed)?;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_inside() {
        let files = Files {
            files: HashMap::from([("a/real".to_owned(), Bytes::from_static(b"x"))]),
            links: HashMap::from([
                ("Dockerfile".to_owned(), "a/link".to_owned()),
                ("a/link".to_owned(), "../../a/./real".to_owned()),
                ("loop".to_owned(), "loop".to_owned()),
            ]),
        };
        assert_eq!(files.get("Dockerfile").unwrap(), "x");
        assert_eq!(files.get("./a/real").unwrap(), "x");
        assert!(files.get("loop").is_none() && files.get("none").is_none());
    }
}
