//! Configs and secrets: how each gets into a container.
//!
//! A file is bound, as docker compose does it. What has no file, and a file that is to have an owner or a mode of its
//! own, is a file in memory if it is a secret and the engine can do that; else it is copied into the container before it
//! starts.

use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use berth_client::{
    Client, Upload,
    api::{
        container::{Mount, SecretOptions},
        options::PutArchive,
    },
};

use crate::{
    Result,
    error::{Context, Error},
    model::{FileObject, FileReference, Project, Service},
};

/// Permission bits of what does not say any.
const MODE: u32 = 0o444;

/// A config or secret of one service.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) target: String,
    pub(crate) is_secret: bool,
    pub(crate) delivery: Delivery,
}

/// How it gets there.
#[derive(Debug, Clone)]
pub(crate) enum Delivery {
    /// Bound from here.
    Bind(PathBuf),
    /// Copied.
    Copy { content: Vec<u8>, uid: u64, gid: u64, mode: u32, owned: bool },
}

/// Whether the engine makes secrets in memory: Berth does.
pub(crate) async fn are_in_memory(client: &Client) -> Result<bool> {
    let ping = client.ping().await.during(|| "asking who the engine is".to_owned())?;
    Ok(ping.server.starts_with("Berth/"))
}

impl File {
    /// The secret as a file in memory; none if it is to be bound or copied.
    pub(crate) fn in_memory(&self) -> Option<Mount> {
        let Delivery::Copy { content, uid, gid, mode, .. } = &self.delivery else { return None };
        let id = |id: &u64| u32::try_from(*id).ok();
        let options =
            SecretOptions { data: STANDARD.encode(content), uid: id(uid)?, gid: id(gid)?, mode: *mode };
        let target = self.target.clone();
        self.is_secret.then(|| Mount {
            kind: "secret".to_owned(),
            target,
            secret_options: Some(options),
            ..Mount::default()
        })
    }
}

/// The configs and secrets of a service.
pub(crate) fn of(project: &Project, name: &str, service: &Service) -> Result<Vec<File>> {
    let secrets =
        service.secrets.iter().map(|reference| (reference, project.secrets.get(&reference.source), true));
    let configs =
        service.configs.iter().map(|reference| (reference, project.configs.get(&reference.source), false));
    let mut files = Vec::new();
    for (reference, object, is_secret) in secrets.chain(configs) {
        // A reference that leads nowhere was refused when the project was loaded.
        let Some(object) = object else { continue };
        files.push(one(project, name, reference, object, is_secret)?);
    }
    Ok(files)
}

fn one(
    project: &Project,
    service: &str,
    reference: &FileReference,
    object: &FileObject,
    is_secret: bool,
) -> Result<File> {
    let (kind, directory) = if is_secret { ("secret", "/run/secrets/") } else { ("config", "/") };
    let wrong = |message: String| Error::service(service, message);
    if object.external {
        return Err(wrong(format!(
            "unsupported external {kind} {}; external ones need a cluster",
            object.name
        )));
    }
    if !object.driver.is_empty() || !object.template_driver.is_empty() {
        return Err(wrong(format!("{kind} {}: drivers need a cluster", object.name)));
    }
    let target = match reference.target.as_str() {
        "" => format!("{directory}{}", reference.source),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => format!("{directory}{relative}"),
    };
    let owned = !reference.uid.is_empty() || !reference.gid.is_empty();
    let content = if !object.content.is_empty() {
        object.content.clone().into_bytes()
    } else if !object.environment.is_empty() {
        let value = project.environment.get(&object.environment).ok_or_else(|| {
            let name = &object.environment;
            wrong(format!("environment variable {name:?} required by {kind} {:?} is not set", object.name))
        })?;
        value.clone().into_bytes()
    } else {
        let path = PathBuf::from(&object.file);
        if !owned && reference.mode.is_none() {
            return Ok(File { target, is_secret, delivery: Delivery::Bind(path) });
        }
        std::fs::read(&path).map_err(|source| Error::Read { path, source })?
    };
    let number = |text: &str| match text {
        "" => Ok(0),
        text => text
            .parse()
            .map_err(|_| wrong(format!("{text:?} of {kind} {} is not a number", reference.source))),
    };
    let (uid, gid) = (number(&reference.uid)?, number(&reference.gid)?);
    let mode = reference.mode.map_or(MODE, |mode| mode.0);
    Ok(File { target, is_secret, delivery: Delivery::Copy { content, uid, gid, mode, owned } })
}

/// Copies what is to be copied into a container that has not started yet.
pub(crate) async fn inject(
    client: &Client,
    project: &Project,
    name: &str,
    service: &Service,
    id: &str,
) -> Result<()> {
    let files = of(project, name, service)?;
    let copied = files.iter().any(|file| matches!(file.delivery, Delivery::Copy { .. }));
    let in_memory = copied && are_in_memory(client).await?;
    for file in files {
        if in_memory && file.in_memory().is_some() {
            continue;
        }
        let Delivery::Copy { content, uid, gid, mode, owned } = file.delivery else { continue };
        if content.is_empty() {
            continue;
        }
        if service.read_only {
            let message = format!(
                "cannot create {} in a read-only service: `file` is the sole supported option",
                file.target
            );
            return Err(Error::service(name, message));
        }
        let tar = archive(&file.target, &content, uid, gid, mode);
        let options = PutArchive { path: "/".to_owned(), copy_uid_gid: owned, ..PutArchive::default() };
        client
            .container_archive_put(id, &options, Upload::from_bytes(tar))
            .await
            .during(|| format!("copying {} into service {name}", file.target))?;
    }
    Ok(())
}

fn archive(target: &str, content: &[u8], uid: u64, gid: u64, mode: u32) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_uid(uid);
    header.set_gid(gid);
    let mut builder = tar::Builder::new(Vec::new());
    // Into memory nothing can fail but a name that is too long, and then the engine says what is missing.
    builder.append_data(&mut header, target.trim_start_matches('/'), content).ok();
    builder.into_inner().unwrap_or_default()
}
