//! Files of a result, which a client looks at before it goes on.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;

use tonic::Status;

use crate::jobs::Job;
use crate::protocol::frontend::FileRange;
use crate::protocol::fsutil::types::Stat;
use crate::{MAX_MESSAGE, failure};

/// Opens a file of one of the job's results. Clients look for "no such file" in what is said of one that is not there.
pub(crate) async fn open(job: &Job, result: &str, path: &str) -> Result<File, Status> {
    let made =
        job.made(result).ok_or_else(|| Status::not_found(format!("this build has no result {result}")))?;
    let file = made.work.file(&made.built.id, path).await.map_err(|error| failure::of_engine(&error))?;
    file.ok_or_else(|| Status::not_found(format!("open {path}: no such file or directory")))
}

/// What it is.
pub(crate) fn stat(file: &File, path: &str) -> Result<Stat, Status> {
    let meta = file.metadata().map_err(|error| Status::internal(format!("stat {path}: {error}")))?;
    // Go's mark of a directory.
    let directory = if meta.is_dir() { 1 << 31 } else { 0 };
    Ok(Stat {
        path: path.rsplit('/').next().unwrap_or_default().to_owned(),
        mode: meta.mode() & 0o777 | directory,
        uid: meta.uid(),
        gid: meta.gid(),
        size: i64::try_from(meta.len()).unwrap_or(i64::MAX),
        mod_time: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
        ..Stat::default()
    })
}

/// Its content, or a part of it; a length of zero is the rest.
pub(crate) async fn read(mut file: File, range: FileRange) -> Result<Vec<u8>, Status> {
    let read = move || -> std::io::Result<Vec<u8>> {
        file.seek(SeekFrom::Start(u64::try_from(range.offset).unwrap_or(0)))?;
        let most = MAX_MESSAGE as u64;
        let wanted = u64::try_from(range.length).ok().filter(|length| *length > 0).unwrap_or(most);
        let mut data = Vec::new();
        file.take(wanted.min(most)).read_to_end(&mut data)?;
        Ok(data)
    };
    let read =
        tokio::task::spawn_blocking(read).await.map_err(|error| Status::internal(error.to_string()))?;
    read.map_err(|error| Status::internal(format!("reading a file of the result: {error}")))
}
