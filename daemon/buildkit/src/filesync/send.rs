//! Results for the client: a file as bytes, or a directory.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use berth_builder::rootdir::{Kind, Meta, RootDir};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use super::mode;
use crate::MAX_MESSAGE;
use crate::protocol::filesync::BytesMessage;
use crate::protocol::filesync::file_send_client::FileSendClient;
use crate::protocol::fsutil::types::packet::PacketType;
use crate::protocol::fsutil::types::{Packet, Stat};
use crate::session::Session;

/// Bytes in a message.
const PIECE: usize = 64 << 10;
/// Messages under way.
const BACKLOG: usize = 16;

/// Says which of the client's outputs it is.
fn addressed<T>(message: T, exporter: usize) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("buildkit-attachable-exporter-id", MetadataValue::from(exporter));
    request
}

/// Sends bytes until their end.
pub(crate) async fn send_file(
    session: &Session,
    exporter: usize,
    mut from: impl AsyncRead + Unpin + Send + 'static,
) -> Result<(), Status> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let pump = tokio::spawn(async move {
        let mut buffer = vec![0; PIECE];
        loop {
            let length = from.read(&mut buffer).await?;
            let data = Bytes::copy_from_slice(&buffer[..length]);
            if length == 0 || sender.send(BytesMessage { data }).await.is_err() {
                return io::Result::Ok(());
            }
        }
    });
    let mut client = FileSendClient::with_origin(session.channel.clone(), Session::origin());
    let mut answers =
        client.diff_copy(addressed(ReceiverStream::new(receiver), exporter)).await?.into_inner();
    // The client says nothing but that it has everything.
    while answers.message().await?.is_some() {}
    let read = pump.await.map_err(|error| Status::internal(error.to_string()))?;
    read.map_err(|error| Status::internal(format!("reading the result: {error}")))
}

/// Sends what is in a directory.
pub(crate) async fn send_directory(session: &Session, exporter: usize, from: RootDir) -> Result<(), Status> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    // The method is that of files; for this output the client takes packets.
    let mut client = tonic::client::Grpc::with_origin(session.channel.clone(), Session::origin())
        .max_decoding_message_size(MAX_MESSAGE);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = tonic_prost::ProstCodec::<Packet, Packet>::default();
    let path = PathAndQuery::from_static("/moby.filesync.v1.FileSend/DiffCopy");
    let from = Arc::new(from);
    let files = Arc::new(Files::default());
    let (root, packets, named) = (Arc::clone(&from), sender.clone(), Arc::clone(&files));
    let walk = tokio::task::spawn_blocking(move || walk(&root, &packets, &named));
    let request = addressed(ReceiverStream::new(receiver), exporter);
    let mut requests = client.streaming(request, path, codec).await?.into_inner();
    while let Some(packet) = requests.message().await? {
        match packet.r#type() {
            PacketType::PacketReq => {
                let unknown = || Status::invalid_argument(format!("the client asks for file {}", packet.id));
                let path = files.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&packet.id);
                let path = path.ok_or_else(unknown)?;
                let (root, packets, id) = (Arc::clone(&from), sender.clone(), packet.id);
                let sent = tokio::task::spawn_blocking(move || contents(&root, &path, id, &packets));
                let sent = sent.await.map_err(|error| Status::internal(error.to_string()))?;
                sent.map_err(|error| Status::internal(format!("reading the result: {error}")))?;
            }
            PacketType::PacketFin => {
                let end = Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() };
                sender.send(end).await.ok();
                break;
            }
            PacketType::PacketErr => return Err(Status::unknown(String::from_utf8_lossy(&packet.data))),
            _ => {}
        }
    }
    drop(sender);
    let walked = walk.await.map_err(|error| Status::internal(error.to_string()))?;
    walked.map_err(|error| Status::internal(format!("reading the result: {error}")))?;
    while requests.message().await?.is_some() {}
    Ok(())
}

fn gone<T>(_: T) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone")
}

/// What the client may ask for, by number: what was named, and not asked for yet.
#[derive(Default)]
struct Files(Mutex<HashMap<u32, PathBuf>>);

/// Names everything.
fn walk(root: &RootDir, packets: &mpsc::Sender<Packet>, files: &Files) -> io::Result<()> {
    let mut number = 0;
    // The last is the next one: a directory comes before what is in it, names in their order.
    let mut open: Vec<PathBuf> = root.read_dir(Path::new(""))?.into_iter().rev().map(PathBuf::from).collect();
    while let Some(path) = open.pop() {
        let Some(meta) = root.meta(&path)? else { continue };
        if meta.kind == Kind::Socket {
            continue;
        }
        if meta.is_dir() {
            open.extend(root.read_dir(&path)?.into_iter().rev().map(|name| path.join(name)));
        }
        let stat = Some(stat(root, &path, &meta)?);
        if meta.kind == Kind::File {
            files.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number, path);
        }
        packets.blocking_send(Packet { stat, ..Packet::default() }).map_err(gone)?;
        number += 1;
    }
    packets.blocking_send(Packet::default()).map_err(gone)
}

fn stat(root: &RootDir, path: &Path, meta: &Meta) -> io::Result<Stat> {
    let is_link = meta.kind == Kind::Symlink;
    let linkname = if is_link { root.read_link(path)?.to_string_lossy().into_owned() } else { String::new() };
    let device = |number: u64| i64::try_from(number).unwrap_or(0);
    Ok(Stat {
        path: path.to_string_lossy().into_owned(),
        mode: mode::to_go(meta.kind, meta.mode),
        uid: meta.uid,
        gid: meta.gid,
        size: if meta.kind == Kind::File { i64::try_from(meta.size).unwrap_or(i64::MAX) } else { 0 },
        // Image content may have any time; the nearest that the protocol can say is told.
        mod_time: meta.mtime.tv_sec().saturating_mul(1_000_000_000).saturating_add(meta.mtime.tv_nsec()),
        linkname,
        devmajor: device(nix::sys::stat::major(meta.device)),
        devminor: device(nix::sys::stat::minor(meta.device)),
        ..Stat::default()
    })
}

fn contents(root: &RootDir, path: &Path, id: u32, packets: &mpsc::Sender<Packet>) -> io::Result<()> {
    let mut file = root.open_file(path)?;
    let mut buffer = vec![0; PIECE];
    loop {
        let length = file.read(&mut buffer)?;
        let data = Bytes::copy_from_slice(&buffer[..length]);
        let packet = Packet { r#type: PacketType::PacketData.into(), id, data, ..Packet::default() };
        packets.blocking_send(packet).map_err(gone)?;
        // Nothing is the end.
        if length == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_directory_is_named_in_order() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        for file in ["a/b/z", "a.txt", "a/c"] {
            fs::write(dir.path().join(file), file).unwrap();
        }
        let root = RootDir::open_host(dir.path()).unwrap();
        let (sender, mut receiver) = mpsc::channel(100);
        let files = Files::default();
        walk(&root, &sender, &files).unwrap();
        let files = files.0.into_inner().unwrap();
        let mut names = Vec::new();
        while let Ok(packet) = receiver.try_recv() {
            names.push(packet.stat.map(|stat| stat.path).unwrap_or_default());
        }
        assert_eq!(names, ["a", "a/b", "a/b/z", "a/c", "a.txt", ""]);
        assert_eq!(files[&2], Path::new("a/b/z"));
        contents(&root, &files[&2], 2, &sender).unwrap();
        assert_eq!(receiver.try_recv().unwrap().data, "a/b/z");
        assert!(receiver.try_recv().unwrap().data.is_empty());
    }
}
