//! The client's directories, by the protocol of BuildKit's fsutil:
//!
//! ```text
//! sender                                     receiver
//!   │ ── STAT of each file, in order ──────────▶ │   a file's number is its place in this order
//!   │ ── STAT without a file: that was all ────▶ │
//!   │ ◀─────────── REQ of those that it lacks ── │   meanwhile
//!   │ ── DATA … DATA of nothing: its end ──────▶ │
//!   │ ◀───────────────────────────────── FIN ── │
//!   │ ── FIN ──────────────────────────────────▶ │
//! ```

mod mirror;
mod mode;
mod receive;
mod send;
mod small;

use percent::encode;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::{Request, Status, Streaming};

pub(crate) use mirror::{Mirror, Mirrors};
pub(crate) use receive::receive;
pub(crate) use send::{send_directory, send_file};
pub(crate) use small::{Files, small};

use crate::MAX_MESSAGE;
use crate::protocol::filesync::file_sync_client::FileSyncClient;
use crate::protocol::fsutil::types::Packet;
use crate::session::Session;

/// Requests under way: a sender that is to answer more of them at once need not be trusted to read them.
const WINDOW: usize = 128;

/// Part of one of the client's directories.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    /// What the client calls the directory.
    pub(crate) directory: String,
    /// Patterns of a `.dockerignore`.
    pub(crate) exclude: Vec<String>,
    /// Only these paths, and what their symlinks lead to.
    pub(crate) only: Vec<String>,
}

/// Begins a transfer: where requests go, where packets come from.
async fn open(
    session: &Session,
    selection: &Selection,
) -> Result<(mpsc::Sender<Packet>, Streaming<Packet>), Status> {
    if !session.offers("/moby.filesync.v1.FileSync/DiffCopy") {
        return Err(Status::failed_precondition("the client offers no local directories"));
    }
    let (sender, receiver) = mpsc::channel(2 * WINDOW);
    let mut request = Request::new(ReceiverStream::new(receiver));
    add(&mut request, "dir-name", std::slice::from_ref(&selection.directory))?;
    add(&mut request, "exclude-patterns", &selection.exclude)?;
    add(&mut request, "followpaths", &selection.only)?;
    let mut client = FileSyncClient::with_origin(session.channel.clone(), Session::origin())
        .max_decoding_message_size(MAX_MESSAGE);
    Ok((sender, client.diff_copy(request).await?.into_inner()))
}

/// Values of a header; those that a header cannot hold are encoded, as the client expects it.
fn add<T>(request: &mut Request<T>, name: &'static str, values: &[String]) -> Result<(), Status> {
    let plain = |text: &String| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let encoded = !values.iter().all(plain);
    for value in values {
        let text = if encoded { encode(value) } else { value.clone() };
        let value = AsciiMetadataValue::try_from(text)
            .map_err(|_| Status::invalid_argument(format!("{name}: {value:?} cannot be sent")))?;
        request.metadata_mut().append(name, value);
    }
    if encoded {
        let name = AsciiMetadataKey::from_bytes(format!("{name}-encoded").as_bytes());
        let name = name.map_err(|_| Status::internal("the name of a header"))?;
        request.metadata_mut().append(name, AsciiMetadataValue::from_static("1"));
    }
    Ok(())
}

mod percent {
    use std::fmt::Write;

    /// As in a query: nothing but letters and digits stays.
    pub(super) fn encode(text: &str) -> String {
        let mut out = String::new();
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() {
                out.push(char::from(byte));
            } else {
                write!(out, "%{byte:02X}").expect("a string takes everything");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_header_cannot_hold_are_encoded() {
        let mut request = Request::new(());
        add(&mut request, "followpaths", &["a/b".into(), "grün c".into()]).unwrap();
        let values: Vec<_> = request.metadata().get_all("followpaths").iter().collect();
        assert_eq!(values, ["a%2Fb", "gr%C3%BCn%20c"]);
        assert_eq!(request.metadata().get("followpaths-encoded").unwrap(), "1");
        let mut request = Request::new(());
        add(&mut request, "exclude-patterns", &["**/*.o".into()]).unwrap();
        assert_eq!(request.metadata().get("exclude-patterns").unwrap(), "**/*.o");
        assert!(request.metadata().get("exclude-patterns-encoded").is_none());
    }
}
