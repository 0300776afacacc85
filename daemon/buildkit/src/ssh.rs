//! The client's ssh agents: a socket for each, every connection to it is a call of the session.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use crate::MAX_MESSAGE;
use crate::protocol::sshforward::ssh_client::SshClient;
use crate::protocol::sshforward::{BytesMessage, CheckAgentRequest};
use crate::session::Session;

/// Bytes in a message.
const PIECE: usize = 32 << 10;
/// Messages under way in one direction.
const BACKLOG: usize = 8;

/// A socket behind which one of the client's agents answers, as long as this lives.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) socket: PathBuf,
    _directory: TempDir,
    task: JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The client's agent of this id; none if it has no such. The socket is made in a directory of its own in `dir`.
pub(crate) async fn open(session: &Arc<Session>, id: &str, dir: &Path) -> Result<Option<Agent>, Status> {
    if !session.offers("/moby.sshforward.v1.SSH/ForwardAgent") {
        return Ok(None);
    }
    let mut client = SshClient::with_origin(session.channel.clone(), Session::origin());
    if let Err(error) = client.check_agent(CheckAgentRequest { id: id.to_owned() }).await {
        tracing::debug!(id, %error, "a client's ssh agent");
        return Ok(None);
    }
    let failed = |error: std::io::Error| Status::internal(format!("socket for ssh agent {id}: {error}"));
    std::fs::create_dir_all(dir).map_err(failed)?;
    let directory = tempfile::Builder::new().prefix("ssh-").tempdir_in(dir).map_err(failed)?;
    let socket = directory.path().join("agent");
    let listener = UnixListener::bind(&socket).map_err(failed)?;
    let (session, id) = (Arc::clone(session), id.to_owned());
    let task = tokio::spawn(async move {
        while let Ok((step, _)) = listener.accept().await {
            let (session, id) = (Arc::clone(&session), id.clone());
            tokio::spawn(async move {
                if let Err(error) = forward(step, &session, &id).await {
                    tracing::debug!(id, %error, "forwarding to a client's ssh agent");
                }
            });
        }
    });
    Ok(Some(Agent { socket, _directory: directory, task }))
}

async fn forward(step: UnixStream, session: &Session, id: &str) -> Result<(), Status> {
    let (mut reader, mut writer) = step.into_split();
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let mut request = Request::new(ReceiverStream::new(receiver));
    let name = MetadataValue::try_from(id)
        .map_err(|_| Status::invalid_argument("the id of an ssh agent is ASCII"))?;
    request.metadata_mut().insert("buildkit.ssh.id", name);
    let mut client = SshClient::with_origin(session.channel.clone(), Session::origin())
        .max_decoding_message_size(MAX_MESSAGE);
    let send = tokio::spawn(async move {
        let mut buffer = vec![0; PIECE];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            let data = Bytes::copy_from_slice(&buffer[..length]);
            if sender.send(BytesMessage { data }).await.is_err() {
                return;
            }
        }
    });
    let receive = async {
        let mut answers = client.forward_agent(request).await?.into_inner();
        while let Some(message) = answers.message().await? {
            if writer.write_all(&message.data).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let ended = receive.await;
    send.abort();
    ended
}
