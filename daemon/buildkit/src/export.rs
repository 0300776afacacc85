//! What becomes of an image: a name in the store, a push, an archive or files for the client, a cache for others.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_builder::rootdir::RootDir;
use berth_oci::Reference;
use nix::fcntl::OFlag;
use tokio::net::unix::pipe;
use tonic::Status;

use crate::failure;
use crate::filesync::{send_directory, send_file};
use crate::jobs::{Job, Made};
use crate::progress::Task;
use crate::protocol::control::{CacheOptionsEntry, Exporter};
use crate::serve::Shared;
use crate::session::Session;

/// Exports an image; returns what the client is told of it.
pub(crate) async fn export(
    shared: &Shared,
    job: &Arc<Job>,
    session: &Session,
    made: &Made,
    index: usize,
    exporter: &Exporter,
) -> Result<HashMap<String, String>, Status> {
    let flag = |name: &str| {
        exporter.attrs.get(name).is_some_and(|value| matches!(value.as_str(), "" | "1" | "t" | "true"))
    };
    match exporter.r#type.as_str() {
        "moby" | "image" => image(job, made, exporter, flag("push")).await,
        "docker" | "oci" if exporter.attrs.get("tar").is_some_and(|tar| tar == "false") => {
            Err(Status::unimplemented(
                "an image as a directory (tar=false) cannot be written over BuildKit's protocol here; leave tar=false out",
            ))
        }
        kind @ ("docker" | "oci") => {
            let task = Task::begin(&job.board, format!("exporting to {kind} image format"));
            let exported = archive(session, made, index, exporter).await;
            task.end(exported)
        }
        "local" => {
            let task = Task::begin(&job.board, "exporting to client directory");
            let exported = directory(shared, session, made, index).await;
            task.end(exported)
        }
        "tar" => {
            let task = Task::begin(&job.board, "exporting to client tarball");
            let exported = tar(session, made, index).await;
            task.end(exported)
        }
        other => Err(Status::unimplemented(format!(
            "no exporter {other:?} here: there are image, docker, oci, local and tar"
        ))),
    }
}

fn engine(error: berth_engine::EngineError) -> Status {
    failure::of_engine(&error)
}

/// The names that the client gives the image.
fn names(exporter: &Exporter) -> Result<Vec<Reference>, Status> {
    let list = exporter.attrs.get("name").map_or("", String::as_str);
    let parse = |name: &str| {
        Reference::parse(name)
            .map_err(|error| Status::invalid_argument(format!("invalid image name {name:?}: {error}")))
    };
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(parse).collect()
}

async fn image(
    job: &Arc<Job>,
    made: &Made,
    exporter: &Exporter,
    push: bool,
) -> Result<HashMap<String, String>, Status> {
    let names = names(exporter)?;
    let id = &made.built.id;
    if push && names.is_empty() {
        return Err(Status::invalid_argument("an image without a name cannot be pushed"));
    }
    let task = Task::begin(&job.board, "exporting to image");
    task.part(&format!("writing image {id}"), 0, 0, true);
    let named = async {
        for name in &names {
            task.part(&format!("naming to {name}"), 0, 0, true);
            made.work.tag(name, id).await.map_err(engine)?;
        }
        made.work.index(&made.built).await.map_err(engine)
    };
    let named = named.await;
    let index = task.end(named)?;
    if push {
        for name in &names {
            let task = Task::begin(&job.board, format!("pushing {name}"));
            let pushed = made.work.push(name, id).await.map_err(engine);
            task.end(pushed)?;
        }
    }
    let mut told = HashMap::from([
        ("containerimage.config.digest".to_owned(), id.to_string()),
        ("containerimage.digest".to_owned(), id.to_string()),
    ]);
    let pushed = if push { made.work.manifest(&made.built).map_err(engine)? } else { None };
    if let Some(descriptor) = index.or(pushed) {
        told.insert("containerimage.digest".to_owned(), descriptor.digest.to_string());
        let text = serde_json::to_vec(&descriptor).map_err(|error| Status::internal(error.to_string()))?;
        told.insert("containerimage.descriptor".to_owned(), STANDARD.encode(text));
    }
    if !names.is_empty() {
        let list: Vec<String> = names.iter().map(ToString::to_string).collect();
        told.insert("image.name".to_owned(), list.join(","));
    }
    Ok(told)
}

/// A pipe: what the store writes, and what goes to the client.
fn pipe() -> Result<(File, pipe::Receiver), Status> {
    let failed = |error: std::io::Error| Status::internal(format!("a pipe: {error}"));
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let reader = File::from(reader);
    let flags = nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&reader, flags).map_err(|errno| failed(errno.into()))?;
    Ok((File::from(writer), pipe::Receiver::from_file(reader).map_err(failed)?))
}

async fn archive(
    session: &Session,
    made: &Made,
    index: usize,
    exporter: &Exporter,
) -> Result<HashMap<String, String>, Status> {
    let names = names(exporter)?;
    made.work.index(&made.built).await.map_err(engine)?;
    let (writer, reader) = pipe()?;
    let saved = made.work.save_as(&made.built.id, names, writer);
    both(saved, send_file(session, index, reader)).await?;
    let digest = made.built.id.to_string();
    Ok(HashMap::from([("containerimage.config.digest".to_owned(), digest)]))
}

async fn tar(session: &Session, made: &Made, index: usize) -> Result<HashMap<String, String>, Status> {
    if made.built.images.len() > 1 {
        return Err(Status::invalid_argument(
            "an archive of files (type=tar) holds one platform; use type=local or type=oci",
        ));
    }
    let (writer, reader) = pipe()?;
    both(made.work.archive(&made.built, writer), send_file(session, index, reader)).await?;
    Ok(HashMap::new())
}

/// Writes and sends at once. A client that refuses the file says why; that the writer's pipe broke then is no news.
async fn both(
    written: impl Future<Output = berth_engine::Result<()>>,
    sent: impl Future<Output = Result<(), Status>>,
) -> Result<(), Status> {
    let (written, sent) = tokio::join!(written, sent);
    sent?;
    written.map_err(engine)
}

async fn directory(
    shared: &Shared,
    session: &Session,
    made: &Made,
    index: usize,
) -> Result<HashMap<String, String>, Status> {
    let failed = |error: std::io::Error| Status::internal(format!("a place for the result: {error}"));
    let scratch = shared.engine.root().join("builds").join("tmp");
    std::fs::create_dir_all(&scratch).map_err(failed)?;
    let scratch = tempfile::Builder::new().prefix("build-").tempdir_in(scratch).map_err(failed)?;
    let opened = File::open(scratch.path()).map_err(failed)?;
    made.work.files(&made.built, opened.into(), None).await.map_err(engine)?;
    let root = RootDir::open_host(scratch.path()).map_err(failed)?;
    let sent = send_directory(session, index, root).await;
    // A large tree takes its time.
    tokio::task::spawn_blocking(move || drop(scratch))
        .await
        .map_err(|error| Status::internal(error.to_string()))?;
    sent?;
    Ok(HashMap::new())
}

/// Gives what the build took from the cache or put into it to others.
pub(crate) async fn cache(job: &Arc<Job>, made: &Made, cache: &CacheOptionsEntry) -> Result<(), Status> {
    let name = cache.attrs.get("ref").map_or("", String::as_str);
    match cache.r#type.as_str() {
        // The image has it.
        "inline" => Ok(()),
        "registry" => {
            let reference = Reference::parse(name)
                .map_err(|error| Status::invalid_argument(format!("cache {name:?}: {error}")))?;
            let task = Task::begin(&job.board, format!("exporting cache to registry {name}"));
            let given = made.work.give_cache(&made.built, &reference, false).await.map_err(engine);
            task.end(given)
        }
        other => Err(Status::unimplemented(format!(
            "no cache of type {other:?} here: there are inline and registry"
        ))),
    }
}
