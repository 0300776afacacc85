//! A container that runs → an archive. It goes on.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_runtime_client::ClientError;
use berth_runtime_client::protocol::files;
use jiff::Timestamp;
use serde_json::json;
use tokio::process::Command;

use super::{CONFIG_DUMP, Config, IMAGES, LOG, ROOTFS_DIFF, SPEC_DUMP, STATUS_DUMP};
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Kind, Result};
use crate::pods::record::{ContainerPhase, ContainerRecord};
use crate::pods::registry::PodContainer;

impl Engine {
    /// Writes a checkpoint of a running container to a file of the host; it goes on. After `limit` nobody waits any
    /// longer: what is under way is finished, so that the container is whole, and thrown away.
    ///
    /// # Errors
    /// A container that does not run, a place that is none; what CRIU says. Nothing is written then.
    pub async fn checkpoint_pod_container(
        self: &Arc<Self>,
        id: &str,
        location: &Path,
        limit: Option<Duration>,
    ) -> Result<()> {
        let container = self.pods.container(id)?;
        check_location(location)?;
        let given_up = Arc::new(AtomicBool::new(false));
        let work = {
            let (engine, location, given_up) = (Arc::clone(self), location.to_owned(), Arc::clone(&given_up));
            self.detached(async move { engine.take_checkpoint(&container, &location, &given_up).await })
        };
        let Some(limit) = limit else { return work.await };
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done,
            Err(_) => {
                given_up.store(true, Ordering::Relaxed);
                let seconds = limit.as_secs();
                Err(EngineError::new(
                    Kind::Timeout,
                    format!(
                        "the checkpoint of container {id} was not done within {seconds} s; the container goes on"
                    ),
                ))
            }
        }
    }

    async fn take_checkpoint(
        self: &Arc<Self>,
        container: &Arc<PodContainer>,
        location: &Path,
        given_up: &AtomicBool,
    ) -> Result<()> {
        let _operation = container.operation.lock().await;
        let record = container.record();
        if record.status.phase != ContainerPhase::Running {
            return Err(EngineError::conflict(format!(
                "container {} does not run: only running containers can be checkpointed",
                record.id
            )));
        }
        let work = self.pod_container_dir(&record.id).join("dump");
        let made = self.collect_checkpoint(container, &record, &work, location, given_up).await;
        let removed = crate::containers::remove_tree(&work);
        made.and(removed)
    }

    async fn collect_checkpoint(
        self: &Arc<Self>,
        container: &Arc<PodContainer>,
        record: &ContainerRecord,
        work: &Path,
        location: &Path,
        given_up: &AtomicBool,
    ) -> Result<()> {
        // Of a daemon that was killed.
        crate::containers::remove_tree(work)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(work).during("create", work)?;
        let shim = container.shim()?;
        // Memory and files are of the same moment.
        shim.pause().await?;
        let dumped = match self.dump(record, work).await {
            Ok(()) => {
                let (record, work) = (record.clone(), work.to_owned());
                self.blocking(move |engine| engine.describe_checkpoint(&record, &work)).await
            }
            failed => failed,
        };
        match shim.resume().await {
            // It has been killed meanwhile.
            Ok(()) | Err(ClientError::Gone { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        dumped?;
        if given_up.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (work, location) = (work.to_owned(), location.to_owned());
        self.blocking(move |_| pack(&work, &location)).await
    }

    /// CRIU's images, by berth-runtime.
    async fn dump(&self, record: &ContainerRecord, work: &Path) -> Result<()> {
        let program = self.config.runtime_program();
        let mut command = Command::new(&program);
        if self.config.cgroup_driver.is_systemd() {
            command.arg("--systemd-cgroup");
        }
        command
            .args(["--log-format", "json", "checkpoint", "--bundle"])
            .arg(self.pod_run_dir(&record.sandbox, &record.id));
        command.arg("--pid").arg(record.status.pid.to_string());
        command.arg("--image-path").arg(work.join(IMAGES)).arg("--work-path").arg(work);
        command.args(["--leave-running", "--manage-cgroups-mode", "ignore", "--file-locks"]);
        command.args(["--tcp-established", "--tcp-skip-in-flight", &record.id]);
        let output = command.stdin(Stdio::null()).output().await.during("run", &program)?;
        if output.status.success() {
            return Ok(());
        }
        let said = last_words(&output.stderr);
        Err(EngineError::internal(format!("checkpointing container {}: {said}", record.id)))
    }

    /// Everything beside CRIU's own files. Blocking.
    fn describe_checkpoint(&self, record: &ContainerRecord, work: &Path) -> Result<()> {
        let lease = self.store.lease();
        let places = crate::containers::mount_places();
        let layer = self.store.snapshots().capture(&record.id, &places)?;
        let path = work.join(ROOTFS_DIFF);
        let mut diff = File::create(&path).during("create", &path)?;
        io::copy(&mut self.store.layers().tar(&layer.diff_id)?, &mut diff).during("write", &path)?;
        drop(lease);
        let now = Timestamp::now().to_string();
        let config = Config {
            id: record.id.clone(),
            name: record.spec.name.clone(),
            rootfs_image: record.image_name.clone(),
            rootfs_image_name: record.image_name.clone(),
            rootfs_image_ref: record.image_ref.clone(),
            runtime: "berth-runtime".to_owned(),
            created_time: record.created.to_string(),
            checkpointed_at: now,
        };
        write_json(work, CONFIG_DUMP, &config)?;
        write_json(work, STATUS_DUMP, &status(record))?;
        copy(&self.pod_run_dir(&record.sandbox, &record.id).join(files::CONFIG), &work.join(SPEC_DUMP))?;
        match &record.log {
            Some(log) if log.exists() => copy(log, &work.join(LOG)),
            _ => Ok(()),
        }
    }
}

/// What the runtime's log says last, which is why it has failed.
fn last_words(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let line = text.trim().lines().next_back().unwrap_or_default();
    let parsed: Option<serde_json::Value> = serde_json::from_str(line).ok();
    parsed.and_then(|line| line["msg"].as_str().map(str::to_owned)).unwrap_or_else(|| line.to_owned())
}

/// The container's status in the words of the CRI.
fn status(record: &ContainerRecord) -> serde_json::Value {
    let nanoseconds = |at: Option<Timestamp>| at.map_or(0, Timestamp::as_nanosecond);
    json!({
        "id": record.id,
        "metadata": { "name": record.spec.name, "attempt": record.spec.attempt },
        "state": 1,
        "created_at": i64::try_from(nanoseconds(Some(record.created))).unwrap_or(0),
        "started_at": i64::try_from(nanoseconds(record.status.started)).unwrap_or(0),
        "image": { "image": record.image_name, "user_specified_image": record.spec.asked_image },
        "image_ref": record.image_ref,
        "image_id": record.image_id,
        "labels": record.spec.labels,
        "annotations": record.spec.annotations,
        "log_path": record.log,
    })
}

fn write_json(dir: &Path, name: &str, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| EngineError::internal(error.to_string()))?;
    let path = dir.join(name);
    fs::write(&path, text).during("write", path)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).during("copy", from)
}

/// An absolute path in a directory that is there.
fn check_location(location: &Path) -> Result<()> {
    let named = |problem: &str| {
        EngineError::invalid(format!("the location {:?} of a checkpoint {problem}", location.display()))
    };
    if !location.is_absolute() {
        return Err(named("must be an absolute path"));
    }
    match location.parent() {
        Some(parent) if location.file_name().is_some() && parent.is_dir() => {}
        _ => return Err(named("must be a file in a directory that exists")),
    }
    if location.is_dir() {
        return Err(named("is a directory: name a file"));
    }
    Ok(())
}

/// The archive, which appears as a whole or not at all. Until then it has a name that nobody can foresee: the directory
/// may be one where others make files, too, and what is written is the container's memory.
fn pack(work: &Path, location: &Path) -> Result<()> {
    let parent = location.parent().unwrap_or(Path::new("/"));
    let written = tempfile::Builder::new().prefix(".checkpoint-").tempfile_in(parent).and_then(|file| {
        write_archive(work, file.as_file())?;
        file.persist(location).map_err(|error| error.error)
    });
    written.map(drop).during("write", location)
}

fn write_archive(work: &Path, file: &File) -> io::Result<()> {
    let mut archive = tar::Builder::new(io::BufWriter::new(file));
    archive.follow_symlinks(false);
    // First what a restore asks for first.
    archive.append_path_with_name(work.join(CONFIG_DUMP), CONFIG_DUMP)?;
    for entry in fs::read_dir(work)? {
        let entry = entry?;
        let name = entry.file_name();
        match entry.file_type()?.is_dir() {
            true => archive.append_dir_all(&name, entry.path())?,
            false if name == CONFIG_DUMP => {}
            false => archive.append_path_with_name(entry.path(), &name)?,
        }
    }
    archive.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[test]
    fn the_archive_is_written_through_nobodys_link() {
        let dir = tempfile::tempdir().unwrap();
        let (work, victim) = (dir.path().join("work"), dir.path().join("victim"));
        fs::create_dir(&work).unwrap();
        fs::write(work.join(CONFIG_DUMP), "{}").unwrap();
        fs::write(&victim, "mine").unwrap();
        let location = dir.path().join("cp.tar");
        for name in ["cp.tar", "cp.tar.part"] {
            symlink(&victim, dir.path().join(name)).unwrap();
        }
        pack(&work, &location).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
        let made = fs::symlink_metadata(&location).unwrap();
        assert!(made.is_file() && made.mode() & 0o077 == 0);
        let others = fs::read_dir(dir.path()).unwrap().flatten();
        assert!(others.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with('.')));
    }
}
