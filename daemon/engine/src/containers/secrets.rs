//! Secrets: files in memory, with owner and mode, that are there before the program is.
//!
//! A client hands the content over when it makes the container, and nothing ever tells it again. It is kept in the
//! container's record, for a container that is started again has its secrets, and at each start it is written into a file
//! system in memory that only the container sees.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, fchown};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_api::container::{HostConfig, Mount};
use berth_sys::mountfd::{self, FsContext, attr};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use super::mounts::{MountKind, MountPlan};
use crate::error::{EngineError, Result};

/// The directory that is in memory as a whole; it takes no kernel that copies parts of detached mounts.
pub(super) const DIRECTORY: &str = "/run/secrets";

/// More is no secret, but data.
const MAX_SIZE: usize = 500 << 10;

/// What a secret consists of.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Secret {
    data: String,
    uid: u32,
    gid: u32,
    mode: u32,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { data: _, uid, gid, mode } = self;
        write!(f, "Secret {{ uid: {uid}, gid: {gid}, mode: {mode:o}, .. }}")
    }
}

/// Parses a mount of type `secret`.
pub(super) fn parse(mount: &Mount, base: MountPlan) -> Result<MountPlan> {
    let refuse =
        |reason: &str| EngineError::invalid(format!("invalid mount config for type \"secret\": {reason}"));
    if !mount.source.is_empty() {
        return Err(refuse("field Source must not be specified"));
    }
    let Some(options) = mount.secret_options.clone() else {
        return Err(refuse("field SecretOptions must be specified"));
    };
    let bytes = STANDARD.decode(&options.data).map_err(|_| refuse("SecretOptions.Data is not base64"))?;
    if bytes.len() > MAX_SIZE {
        return Err(refuse("a secret must not be larger than 500 KiB"));
    }
    let secret =
        Secret { data: options.data, uid: options.uid, gid: options.gid, mode: options.mode & 0o7777 };
    Ok(MountPlan { kind: MountKind::Secret, read_only: true, secret: Some(secret), ..base })
}

/// Takes the contents out of what is told to clients.
pub(super) fn forget(host: &mut HostConfig) {
    for mount in host.mounts.iter_mut().flatten() {
        if let Some(options) = &mut mount.secret_options {
            options.data.clear();
        }
    }
}

/// Whether a mount is a file of the directory that is in memory as a whole.
pub(super) fn in_directory(plan: &MountPlan) -> bool {
    let name = plan.target.strip_prefix(DIRECTORY).and_then(|rest| rest.strip_prefix('/'));
    plan.kind == MountKind::Secret && name.is_some_and(|name| !name.contains('/'))
}

fn failed(what: &str) -> impl Fn(nix::errno::Errno) -> EngineError {
    move |error| EngineError::internal(format!("{what} a secret: {error}"))
}

/// A detached file system in memory with these secrets.
pub(super) fn directory<'a>(plans: impl Iterator<Item = &'a MountPlan>) -> Result<OwnedFd> {
    let context = FsContext::open("tmpfs").map_err(failed("making a file system for"))?;
    context
        .set_string("source", "tmpfs")
        .and_then(|()| context.set_string("mode", "755"))
        .and_then(|()| context.create())
        .map_err(failed("making a file system for"))?;
    let attributes = attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let root = context.mount(attributes).map_err(failed("making a file system for"))?;
    for plan in plans {
        let Some(secret) = &plan.secret else { continue };
        write(&root, name(plan), secret)?;
    }
    Ok(root)
}

/// A secret as a mount of its own.
pub(super) fn file(plan: &MountPlan) -> Result<OwnedFd> {
    let root = directory(std::iter::once(plan))?;
    let file = openat(root.as_fd(), name(plan), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(failed("opening"))?;
    mountfd::clone_of(&file, false).map_err(|error| {
        EngineError::internal(format!(
            "cannot mount the secret {}: {error} (outside {DIRECTORY} this needs Linux 6.15)",
            plan.target
        ))
    })
}

fn name(plan: &MountPlan) -> &str {
    plan.target.rsplit('/').next().unwrap_or(&plan.target)
}

fn write(root: &OwnedFd, name: &str, secret: &Secret) -> Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(root.as_fd(), name, flags, Mode::S_IRUSR).map_err(failed("creating"))?;
    let mut file = File::from(fd);
    let written = STANDARD
        .decode(&secret.data)
        .map_err(std::io::Error::other)
        .and_then(|bytes| file.write_all(&bytes))
        .and_then(|()| fchown(&file, Some(secret.uid), Some(secret.gid)))
        .and_then(|()| file.set_permissions(std::fs::Permissions::from_mode(secret.mode)));
    written.map_err(|error| EngineError::internal(format!("writing the secret {name}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Result<MountPlan> {
        let mount: Mount = serde_json::from_str(json).unwrap();
        parse(&mount, MountPlan { target: mount.target.clone(), ..MountPlan::default() })
    }

    #[test]
    fn a_secret_is_not_told() {
        let json = r#"{"Type":"secret","Target":"/run/secrets/a","SecretOptions":{"Data":"aGlkZGVu","UID":7,"Mode":288}}"#;
        let plan = parsed(json).unwrap();
        assert!(in_directory(&plan) && plan.read_only);
        assert!(!format!("{plan:?}").contains("aGlkZGVu"));
        let mut host =
            HostConfig { mounts: Some(vec![serde_json::from_str(json).unwrap()]), ..HostConfig::default() };
        forget(&mut host);
        assert!(!serde_json::to_string(&host).unwrap().contains("aGlkZGVu"));
        assert!(parsed(r#"{"Type":"secret","Target":"/a","SecretOptions":{"Data":"?"}}"#).is_err());
        assert!(parsed(r#"{"Type":"secret","Target":"/a"}"#).is_err());
    }

    #[test]
    fn only_files_right_in_the_directory_share_it() {
        let plan = |target: &str| MountPlan {
            kind: MountKind::Secret,
            target: target.to_owned(),
            ..MountPlan::default()
        };
        assert!(in_directory(&plan("/run/secrets/a")));
        assert!(!in_directory(&plan("/run/secrets/a/b")) && !in_directory(&plan("/run/secretsa")));
    }
}
