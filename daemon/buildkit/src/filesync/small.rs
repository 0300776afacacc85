//! A few small files of a client's directory, in memory: a Dockerfile and what belongs to it.

use std::collections::HashMap;

use berth_builder::rootdir::Kind;
use bytes::{Bytes, BytesMut};
use tonic::Status;

use super::{Selection, mode, open};
use crate::protocol::fsutil::types::packet::PacketType;
use crate::protocol::fsutil::types::{Packet, Stat};
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
    let mut transfer = Transfer::default();
    while let Some(packet) = packets.message().await? {
        if packet.r#type() == PacketType::PacketFin {
            break;
        }
        for reply in transfer.take(packet)? {
            requests
                .send(reply)
                .await
                .map_err(|_| Status::unavailable("the client has ended the transfer"))?;
        }
    }
    Ok(transfer.files)
}

/// The receiving end.
#[derive(Debug, Default)]
struct Transfer {
    files: Files,
    /// Asked for, not there as a whole.
    coming: HashMap<u32, (String, BytesMut)>,
    /// Files named.
    named: u32,
    /// Names, targets of symlinks and contents.
    bytes: usize,
    listed: bool,
    asked_to_end: bool,
}

impl Transfer {
    /// Takes a packet; returns what is to be said to the sender.
    fn take(&mut self, packet: Packet) -> Result<Vec<Packet>, Status> {
        let mut replies = Vec::new();
        match packet.r#type() {
            PacketType::PacketErr => return Err(Status::unknown(String::from_utf8_lossy(&packet.data))),
            PacketType::PacketReq => return Err(Status::invalid_argument("a sender that asks for files")),
            PacketType::PacketFin => {}
            PacketType::PacketStat => match packet.stat {
                None => self.listed = true,
                Some(stat) => replies.extend(self.name(stat)?),
            },
            PacketType::PacketData => self.data(packet.id, &packet.data)?,
        }
        if self.listed && self.coming.is_empty() && !self.asked_to_end {
            self.asked_to_end = true;
            replies.push(Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() });
        }
        Ok(replies)
    }

    /// A file is named; one with contents is asked for.
    fn name(&mut self, stat: Stat) -> Result<Option<Packet>, Status> {
        let id = self.named;
        self.named += 1;
        if self.named > MAX_FILES {
            return Err(Status::resource_exhausted("too many files beside the Dockerfile"));
        }
        self.keep(stat.path.len() + stat.linkname.len())?;
        match mode::from_go(stat.mode).0 {
            Some(Kind::Symlink) => {
                self.files.links.insert(stat.path, stat.linkname);
                Ok(None)
            }
            Some(Kind::File) => {
                self.coming.insert(id, (stat.path, BytesMut::new()));
                Ok(Some(Packet { r#type: PacketType::PacketReq.into(), id, ..Packet::default() }))
            }
            _ => Ok(None),
        }
    }

    /// Contents of a file; nothing is its end.
    fn data(&mut self, id: u32, data: &[u8]) -> Result<(), Status> {
        let unasked = || Status::invalid_argument("contents that nobody asked for");
        if data.is_empty() {
            let (path, data) = self.coming.remove(&id).ok_or_else(unasked)?;
            self.files.files.insert(path, data.freeze());
            return Ok(());
        }
        self.keep(data.len())?;
        self.coming.get_mut(&id).ok_or_else(unasked)?.1.extend_from_slice(data);
        Ok(())
    }

    /// Whether so many bytes more may be kept in memory.
    fn keep(&mut self, bytes: usize) -> Result<(), Status> {
        self.bytes += bytes;
        match self.bytes <= MAX_BYTES {
            true => Ok(()),
            false => Err(Status::resource_exhausted(format!(
                "a Dockerfile and its .dockerignore may have {MAX_BYTES} bytes"
            ))),
        }
    }
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

    #[test]
    fn names_count_as_much_as_contents() {
        let mut transfer = Transfer::default();
        let named = |n: u32, mode| {
            let name = format!("{n}{}", "x".repeat(1 << 20));
            let stat = Stat { path: name.clone(), linkname: name, mode, ..Stat::default() };
            Packet { r#type: PacketType::PacketStat.into(), stat: Some(stat), ..Packet::default() }
        };
        const SYMLINK: u32 = 1 << 27;
        for mode in [0o644, SYMLINK] {
            let refused = (0..MAX_FILES).find_map(|n| transfer.take(named(n, mode)).err());
            assert_eq!(refused.unwrap().code(), tonic::Code::ResourceExhausted);
        }
        assert!(transfer.coming.len() + transfer.files.links.len() <= MAX_BYTES >> 20);
    }
}
