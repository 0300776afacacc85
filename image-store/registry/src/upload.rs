//! One blob's way to the registry (distribution spec, "Pushing Blobs").
//!
//! ```text
//!  POST uploads/?mount=…&from=… ── 201 ──▶ there: taken over from another repository
//!      │ 202: an upload is open
//!      ├─ small ──▶ PUT with all bytes ──▶ 201
//!      └─ else ───▶ PATCH ── cut ──▶ GET: how far? ──▶ PATCH the rest …
//!                     └──▶ PUT ──▶ 201        └─ not known any more ──▶ POST anew
//!
//!  a blob that is being made: POST ▶ PATCH in chunks, as they come ▶ PUT with the digest;  failed ──▶ as above
//! ```

use std::io::{self, SeekFrom};

use berth_oci::{Descriptor, Digest, Reference};
use berth_store::Store;
use bytes::Bytes;
use futures_util::stream::poll_fn;
use futures_util::{Stream, StreamExt};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode, Url};
use tokio::io::AsyncSeekExt;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::io::ReaderStream;

use crate::failure::Failure;
use crate::progress::LayerProgress;
use crate::retry::Patience;
use crate::session::{Server, Session};
use crate::types::LayerState;

/// Bytes of a blob read at a time.
const CHUNK: usize = 256 << 10;
/// What goes in one request after the first.
const SMALL: u64 = 1 << 20;

/// How a blob came to be in the registry.
pub(crate) enum Sent {
    Uploaded,
    Mounted(Reference),
}

/// An open upload.
pub(crate) struct Upload<'a> {
    session: &'a Session<'a>,
    server: &'a Server,
    location: Url,
    /// Bytes that the registry has.
    offset: u64,
}

/// Brings a blob of the store into the registry.
pub(crate) async fn send(
    session: &Session<'_>,
    store: &Store,
    blob: &Descriptor,
    sources: &[Reference],
    progress: Option<&LayerProgress>,
) -> Result<Sent, Failure> {
    let mut upload = match take_over(session, blob, sources).await? {
        TakenOver::From(source) => return Ok(Sent::Mounted(source)),
        TakenOver::Not(opened) => opened,
    };
    let (server, base) = session.target()?;
    let mut patience = Patience::new(session.config());
    loop {
        let mut open = match upload.take() {
            Some(open) => open,
            None => match begin(session, server, &format!("{base}/blobs/uploads/")).await? {
                Some(open) => open,
                // It is there without a byte sent: somebody else was faster.
                None => return Ok(Sent::Uploaded),
            },
        };
        let before = open.offset;
        let failure = match open.send_rest(store, blob, progress).await {
            Ok(()) => return Ok(Sent::Uploaded),
            Err(failure) => failure,
        };
        if open.offset > before {
            patience = Patience::new(session.config());
        }
        let pause = patience.after(failure)?;
        if let Some(progress) = progress {
            progress.tell(LayerState::Retrying { seconds: pause.as_secs().max(1) });
        }
        sleep(pause).await;
        if open.ask_how_far(blob.size).await {
            upload = Some(open);
        }
    }
}

enum TakenOver<'a> {
    From(Reference),
    /// The registry opens an upload instead of refusing.
    Not(Option<Upload<'a>>),
}

/// Asks the registry to take a blob over from one of its other repositories.
async fn take_over<'a>(
    session: &'a Session<'a>,
    blob: &Descriptor,
    sources: &[Reference],
) -> Result<TakenOver<'a>, Failure> {
    let (server, base) = session.target()?;
    let mut upload = None;
    for source in sources {
        let url = format!("{base}/blobs/uploads/?mount={}&from={}", blob.digest, source.path());
        match begin(session, server, &url).await {
            Ok(None) => return Ok(TakenOver::From(source.clone())),
            Ok(Some(opened)) => {
                let passed: Option<Upload<'_>> = upload.replace(opened);
                if let Some(passed) = passed {
                    passed.abandon().await;
                }
            }
            Err(failure) => tracing::debug!(digest = %blob.digest, %source, ?failure, "not taken over"),
        }
    }
    Ok(TakenOver::Not(upload))
}

/// Has a blob that is not here taken over; the repository that it came from.
pub(crate) async fn mount(
    session: &Session<'_>,
    blob: &Descriptor,
    sources: &[Reference],
) -> Result<Option<Reference>, Failure> {
    match take_over(session, blob, sources).await? {
        TakenOver::From(source) => Ok(Some(source)),
        TakenOver::Not(upload) => {
            if let Some(upload) = upload {
                upload.abandon().await;
            }
            Ok(None)
        }
    }
}

/// Uploads a blob while it is being made; its digest is not known yet. `total` is only for the progress.
pub(crate) async fn grow<'a>(
    session: &'a Session<'a>,
    mut made: mpsc::Receiver<Bytes>,
    total: u64,
    progress: &LayerProgress,
) -> Result<Upload<'a>, Failure> {
    let (server, base) = session.target()?;
    let opened = begin(session, server, &format!("{base}/blobs/uploads/")).await?;
    let mut upload = opened.ok_or_else(|| {
        Failure::Protocol("the registry takes an upload for done before it began".to_owned())
    })?;
    let (mut current, mut progress) = (0, progress.clone());
    let pieces = poll_fn(move |context| made.poll_recv(context)).inspect(move |piece| {
        current += piece.len() as u64;
        progress.tell_bytes(LayerState::Pushing { current, total: total.max(current) });
    });
    let body = Body::wrap_stream(pieces.map(Ok::<_, io::Error>));
    let request = server.request(Method::PATCH, upload.location.clone());
    let request = request.header(CONTENT_TYPE, "application/octet-stream").body(body);
    upload.take_next(&session.only_once(server, request).await?)?;
    Ok(upload)
}

/// Opens an upload; `None` if the registry has the blob now.
async fn begin<'a>(
    session: &'a Session<'a>,
    server: &'a Server,
    url: &str,
) -> Result<Option<Upload<'a>>, Failure> {
    let request = || server.request(Method::POST, url).header(CONTENT_LENGTH, 0);
    let response = session.patiently(server, request).await?;
    if response.status() == StatusCode::CREATED {
        return Ok(None);
    }
    let location = location(&response)?
        .ok_or_else(|| Failure::Protocol("the registry does not say where to upload to".to_owned()))?;
    Ok(Some(Upload { session, server, location, offset: 0 }))
}

impl Upload<'_> {
    async fn send_rest(
        &mut self,
        store: &Store,
        blob: &Descriptor,
        progress: Option<&LayerProgress>,
    ) -> Result<(), Failure> {
        if self.offset == 0 && blob.size <= SMALL {
            let bytes = body(store, blob, 0, progress).await?;
            return self.put(&blob.digest, Some((bytes, blob.size))).await;
        }
        if self.offset < blob.size {
            let bytes = body(store, blob, self.offset, progress).await?;
            self.patch(bytes, blob.size).await?;
            self.offset = blob.size;
        }
        self.put(&blob.digest, None).await
    }

    async fn patch(&mut self, bytes: Body, total: u64) -> Result<(), Failure> {
        let mut request = self.server.request(Method::PATCH, self.location.clone());
        if self.offset > 0 {
            request = request.header(CONTENT_RANGE, format!("{}-{}", self.offset, total - 1));
        }
        let request = with_bytes(request, bytes, total - self.offset);
        let response = self.session.only_once(self.server, request).await?;
        self.take_next(&response)
    }

    /// Where the registry says to go on.
    fn take_next(&mut self, response: &Response) -> Result<(), Failure> {
        if let Some(next) = location(response)? {
            self.location = next;
        }
        Ok(())
    }

    /// Ends an upload that has all bytes of the blob.
    pub(crate) async fn finish(&self, blob: &Descriptor) -> Result<(), Failure> {
        self.put(&blob.digest, None).await
    }

    async fn put(&self, digest: &Digest, bytes: Option<(Body, u64)>) -> Result<(), Failure> {
        let mut url = self.location.clone();
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let request = || self.server.request(Method::PUT, url.clone());
        let answer = match bytes {
            Some((bytes, length)) => {
                self.session.only_once(self.server, with_bytes(request(), bytes, length)).await
            }
            None => self.session.once(self.server, || request().header(CONTENT_LENGTH, 0)).await,
        };
        answer.map(drop)
    }

    /// What the registry has of it; false if it does not know it any more.
    async fn ask_how_far(&mut self, total: u64) -> bool {
        let request = || self.server.request(Method::GET, self.location.clone());
        let Ok(response) = self.session.once(self.server, request).await else { return false };
        // `0-0` also stands for nothing: one byte sent twice would spoil it, so that is a new beginning.
        let last = response.headers().get(RANGE).and_then(|range| {
            range.to_str().ok()?.trim_start_matches("bytes=").split_once('-')?.1.parse::<u64>().ok()
        });
        match (last, location(&response)) {
            (Some(last), Ok(next)) if last > 0 && last < total => {
                self.offset = last + 1;
                self.location = next.unwrap_or_else(|| self.location.clone());
                true
            }
            _ => false,
        }
    }

    async fn abandon(self) {
        let request = || self.server.request(Method::DELETE, self.location.clone());
        if let Err(failure) = self.session.once(self.server, request).await {
            tracing::debug!(?failure, "an upload is left to the registry's own cleaning");
        }
    }
}

fn with_bytes(request: RequestBuilder, bytes: Body, length: u64) -> RequestBuilder {
    request.header(CONTENT_TYPE, "application/octet-stream").header(CONTENT_LENGTH, length).body(bytes)
}

/// Where to go on; relative to where the request went.
fn location(response: &Response) -> Result<Option<Url>, Failure> {
    let Some(text) = response.headers().get(LOCATION) else { return Ok(None) };
    let bad = || Failure::Protocol(format!("{text:?} is no address to upload to"));
    response.url().join(text.to_str().map_err(|_| bad())?).map(Some).map_err(|_| bad())
}

/// The blob's bytes, told of as they leave.
async fn body(
    store: &Store,
    blob: &Descriptor,
    offset: u64,
    progress: Option<&LayerProgress>,
) -> Result<Body, Failure> {
    let bytes = chunks(store, blob, offset, progress).await;
    bytes.map(Body::wrap_stream).map_err(|error| Failure::Protocol(format!("{}: {error}", blob.digest)))
}

async fn chunks(
    store: &Store,
    blob: &Descriptor,
    offset: u64,
    progress: Option<&LayerProgress>,
) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>> {
    let (store, digest) = (store.clone(), blob.digest.clone());
    let file = tokio::task::spawn_blocking(move || store.content().open(&digest).map_err(io::Error::other));
    let mut file = tokio::fs::File::from_std(file.await.map_err(io::Error::other)??);
    file.set_max_buf_size(CHUNK);
    file.seek(SeekFrom::Start(offset)).await?;
    let (mut current, total, mut progress) = (offset, blob.size, progress.cloned());
    Ok(ReaderStream::with_capacity(file, CHUNK).inspect(move |chunk| {
        current += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if let Some(progress) = &mut progress {
            progress.tell_bytes(LayerState::Pushing { current, total });
        }
    }))
}
