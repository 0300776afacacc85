//! Volumes: directories with names that outlive containers.
//!
//! A row is written before the directory is made and deleted after it is gone; at the start rows without directory
//! get one and directories without row are left alone (they are somebody's data).

mod local;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_api::volume::{PruneVolumesResponse, Volume, VolumeCreateRequest, VolumeList, VolumeUsage};
use berth_api::{Filters, Time};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::db::Db;
use crate::engine::Engine;
use crate::error::{EngineError, IoContext as _, Kind, Result};
use crate::{fsutil, ids, names};
use local::Local;

/// The label of volumes that were made without a name.
pub(crate) const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// A volume as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct VolumeRecord {
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) options: Option<BTreeMap<String, String>>,
}

impl VolumeRecord {
    fn is_anonymous(&self) -> bool {
        self.labels.as_ref().is_some_and(|labels| labels.contains_key(ANONYMOUS_LABEL))
    }
}

/// All volumes.
#[derive(Debug)]
pub(crate) struct Volumes {
    root: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    records: BTreeMap<String, VolumeRecord>,
    /// Volumes that a creation under way uses: name → how often.
    pins: HashMap<String, usize>,
    /// Volumes whose file system is mounted: name → containers that use it.
    mounted: HashMap<String, HashSet<String>>,
}

/// Keeps a volume from being removed while its container is made.
#[derive(Debug)]
pub(crate) struct Pin {
    volumes: Arc<Volumes>,
    pub(crate) name: String,
    /// Whether the volume was made just now.
    pub(crate) made: bool,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut inner = self.volumes.lock();
        if let Some(count) = inner.pins.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                inner.pins.remove(&self.name);
            }
        }
    }
}

/// What a new volume is to be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// Empty: anonymous.
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) options: Option<BTreeMap<String, String>>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
}

impl Volumes {
    pub(crate) fn open(root: PathBuf, db: &Db) -> Result<Self> {
        std::fs::create_dir_all(&root).during("create", &root)?;
        let volumes = Self { root, inner: Mutex::default() };
        for record in db.volumes()? {
            volumes.make_dir(&record.name)?;
            volumes.lock().records.insert(record.name.clone(), record);
        }
        Ok(volumes)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a volume's content is, as inspect shows it.
    pub(crate) fn mountpoint(&self, name: &str) -> PathBuf {
        self.root.join(name).join("_data")
    }

    /// What to bind for a volume: its directory, or the one that its options name.
    pub(crate) fn source(&self, name: &str) -> Result<PathBuf> {
        let record = self.get(name).ok_or_else(|| no_such(name))?;
        Ok(match local::read(name, record.options.as_ref())? {
            Local::Bind(device) => PathBuf::from(device),
            Local::Plain | Local::Mount(_) => self.mountpoint(name),
        })
    }

    /// What to bind for a volume that `user` is about to use; its file system is mounted. Blocking.
    pub(crate) fn mount_for(&self, name: &str, user: &str) -> Result<PathBuf> {
        let record = self.get(name).ok_or_else(|| no_such(name))?;
        let path = self.mountpoint(name);
        match local::read(name, record.options.as_ref())? {
            Local::Plain => Ok(path),
            Local::Bind(device) => Ok(PathBuf::from(device)),
            Local::Mount(file_system) => {
                // Under the lock: the last user of before must not take away what the first one here mounts.
                let mut inner = self.lock();
                file_system.mount(name, &path)?;
                inner.mounted.entry(name.to_owned()).or_default().insert(user.to_owned());
                Ok(path)
            }
        }
    }

    fn has_file_system(&self, name: &str) -> bool {
        let record = self.get(name);
        record.is_some_and(|r| matches!(local::read(name, r.options.as_ref()), Ok(Local::Mount(_))))
    }

    /// `user` has ended: file systems that nobody else uses are taken away.
    pub(crate) fn unmount_for(&self, user: &str) {
        let mut inner = self.lock();
        let mut idle = Vec::new();
        for (name, users) in &mut inner.mounted {
            if users.remove(user) && users.is_empty() {
                idle.push(name.clone());
            }
        }
        for name in idle {
            match local::unmount(&self.mountpoint(&name)) {
                Ok(()) => drop(inner.mounted.remove(&name)),
                Err(error) => tracing::warn!(volume = name, %error, "taking a volume's file system away"),
            }
        }
    }

    /// After a restart of the daemon: mounts of the live containers, volume and container, are in use; others go.
    pub(crate) fn recover(&self, in_use: impl Iterator<Item = (String, String)>) {
        let mut inner = self.lock();
        for (volume, container) in in_use {
            inner.mounted.entry(volume).or_default().insert(container);
        }
        let names: Vec<String> = inner.records.keys().cloned().collect();
        for name in names.iter().filter(|name| !inner.mounted.contains_key(*name)) {
            let path = self.mountpoint(name);
            let gone = local::is_mounted(&path).and_then(|mounted| match mounted {
                true => local::unmount(&path),
                false => Ok(()),
            });
            if let Err(error) = gone {
                tracing::warn!(volume = name, %error, "taking a volume's file system away");
            }
        }
    }

    fn make_dir(&self, name: &str) -> Result<()> {
        let path = self.mountpoint(name);
        std::fs::create_dir_all(&path).during("create", &path)
    }

    pub(crate) fn get(&self, name: &str) -> Option<VolumeRecord> {
        self.lock().records.get(name).cloned()
    }

    /// Finds or makes a volume and keeps it from being removed.
    pub(crate) fn acquire(self: &Arc<Self>, db: &Db, wanted: Wanted) -> Result<Pin> {
        if !wanted.driver.is_empty() && wanted.driver != "local" {
            let driver = &wanted.driver;
            return Err(EngineError::not_found(format!(
                "create {}: error looking up volume plugin {driver}: plugin \"{driver}\" not found",
                wanted.name
            )));
        }
        let mut labels = wanted.labels;
        let name = if wanted.name.is_empty() {
            labels.get_or_insert_default().insert(ANONYMOUS_LABEL.to_owned(), String::new());
            ids::random()
        } else {
            names::volume(&wanted.name)?.to_owned()
        };
        let mut inner = self.lock();
        let made = !inner.records.contains_key(&name);
        if made {
            let options = wanted.options;
            local::read(&name, options.as_ref())?;
            let record = VolumeRecord { name: name.clone(), created: Timestamp::now(), labels, options };
            db.put_volume(&record)?;
            self.make_dir(&name)?;
            inner.records.insert(name.clone(), record);
        }
        *inner.pins.entry(name.clone()).or_default() += 1;
        drop(inner);
        Ok(Pin { volumes: Arc::clone(self), name, made })
    }

    /// Removes a volume that nobody uses; `users` tells who does.
    fn remove(&self, db: &Db, name: &str, users: impl FnOnce() -> Vec<String>) -> Result<()> {
        let mut inner = self.lock();
        if !inner.records.contains_key(name) {
            return Err(no_such(name));
        }
        let users = users();
        if !users.is_empty() || inner.pins.contains_key(name) {
            return Err(EngineError::conflict(format!(
                "remove {name}: volume is in use - [{}]",
                users.join(", ")
            )));
        }
        let path = self.root.join(name);
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(EngineError::io("remove", &path, error));
            }
            _ => {}
        }
        db.delete_volume(name)?;
        inner.records.remove(name);
        Ok(())
    }

    fn all(&self) -> Vec<VolumeRecord> {
        self.lock().records.values().cloned().collect()
    }

    fn show(&self, record: VolumeRecord) -> Volume {
        Volume {
            // Docker shows whole seconds here.
            created_at: Timestamp::from_second(record.created.as_second()).ok().map(Time),
            driver: "local".to_owned(),
            labels: record.labels,
            mountpoint: self.mountpoint(&record.name).display().to_string(),
            name: record.name,
            options: record.options,
            scope: "local".to_owned(),
            status: None,
            usage_data: None,
        }
    }
}

fn no_such(name: &str) -> EngineError {
    EngineError::not_found(format!("get {name}: no such volume"))
}

/// Copies the image's content into a volume that is empty, as docker does on first use.
pub(crate) fn copy_up(from: std::os::fd::BorrowedFd<'_>, volume: &Path) -> Result<()> {
    let target = fsutil::open_host_dir(volume).during("open", volume)?;
    if fsutil::is_empty(target.as_fd()).during("list", volume)? {
        fsutil::copy_tree(from, target.as_fd()).during("copy the image's content into", volume)?;
    }
    Ok(())
}

const LIST_FILTERS: [&str; 4] = ["dangling", "driver", "label", "name"];

impl Engine {
    /// Ids of the containers that use a volume.
    pub(crate) fn volume_users(&self, name: &str) -> Vec<String> {
        let uses = |definition: &crate::containers::Definition| {
            let volume = crate::containers::MountKind::Volume;
            definition.mounts.iter().any(|mount| mount.kind == volume && mount.source == name)
        };
        self.containers.all().iter().filter(|one| uses(&one.definition())).map(|one| one.id.clone()).collect()
    }

    /// Finds the mounts of volumes again that live containers use. Blocking.
    pub(crate) fn recover_volumes(&self) {
        let live = self.containers.all().into_iter().filter(|container| container.phase().is_alive());
        let uses = live.flat_map(|container| {
            let definition = container.definition();
            let volumes = definition.mounts.iter().filter(|m| m.kind == crate::containers::MountKind::Volume);
            let named = volumes.filter(|mount| self.volumes.has_file_system(&mount.source));
            named.map(|mount| (mount.source.clone(), container.id.clone())).collect::<Vec<_>>()
        });
        self.volumes.recover(uses.collect::<Vec<_>>().into_iter());
    }

    fn volume_event(&self, action: &str, name: &str) {
        self.events.publish(
            "volume",
            action,
            name,
            BTreeMap::from([("driver".to_owned(), "local".to_owned())]),
        );
    }

    /// Finds or makes a volume for a container that is being made.
    pub(crate) fn acquire_volume(&self, wanted: Wanted) -> Result<Pin> {
        let pin = self.volumes.acquire(&self.db, wanted)?;
        if pin.made {
            self.volume_event("create", &pin.name);
        }
        Ok(pin)
    }

    /// Removes a volume that was made for a container.
    pub(crate) fn drop_volume(&self, name: &str) -> Result<()> {
        match self.volumes.remove(&self.db, name, || self.volume_users(name)) {
            Ok(()) => {
                self.volume_event("destroy", name);
                Ok(())
            }
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Finds or makes a volume.
    ///
    /// # Errors
    /// A bad name, an unknown driver or options that are not supported.
    pub async fn create_volume(&self, request: VolumeCreateRequest) -> Result<Volume> {
        let pin = self.acquire_volume(Wanted {
            name: request.name,
            driver: request.driver,
            options: request.driver_opts,
            labels: request.labels,
        })?;
        self.inspect_volume(&pin.name).await
    }

    /// A volume.
    ///
    /// # Errors
    /// When there is none of this name.
    pub async fn inspect_volume(&self, name: &str) -> Result<Volume> {
        self.volumes.get(name).map(|record| self.volumes.show(record)).ok_or_else(|| no_such(name))
    }

    /// The volumes that pass the filters.
    ///
    /// # Errors
    /// A filter that is unknown or has no sense.
    pub async fn list_volumes(&self, filters: &Filters) -> Result<VolumeList> {
        if let Some(key) = filters.unknown_key(&LIST_FILTERS) {
            return Err(EngineError::invalid(format!("invalid filter '{key}'")));
        }
        let dangling = crate::containers::filters::boolean(filters, "dangling")?;
        let one_of = |key: &str, test: &dyn Fn(&String) -> bool| {
            filters.get(key).is_empty() || filters.get(key).iter().any(test)
        };
        let volumes = self.volumes.all().into_iter().filter(|record| {
            one_of("name", &|wanted| record.name.contains(wanted.as_str()))
                && one_of("driver", &|wanted| wanted == "local")
                && filters.matches_labels(record.labels.as_ref().unwrap_or(&BTreeMap::new()))
                && dangling.is_none_or(|dangling| self.volume_users(&record.name).is_empty() == dangling)
        });
        Ok(VolumeList { volumes: volumes.map(|record| self.volumes.show(record)).collect(), warnings: None })
    }

    /// Removes a volume. With `force` one that is not there is no error.
    ///
    /// # Errors
    /// When there is none of this name or a container uses it.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        match self.volumes.remove(&self.db, name, || self.volume_users(name)) {
            Err(error) if force && error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                self.volume_event("destroy", name);
                Ok(())
            }
        }
    }

    /// Removes the volumes that no container uses: anonymous ones, or with the filter `all` every one.
    ///
    /// # Errors
    /// A filter that is unknown or has no sense.
    pub async fn prune_volumes(&self, filters: &Filters) -> Result<PruneVolumesResponse> {
        if let Some(key) = filters.unknown_key(&["all", "label", "label!"]) {
            return Err(EngineError::invalid(format!("invalid filter '{key}'")));
        }
        let all = crate::containers::filters::boolean(filters, "all")?.unwrap_or(false);
        let mut pruned = PruneVolumesResponse::default();
        for record in self.volumes.all() {
            let labels = record.labels.clone().unwrap_or_default();
            if !(all || record.is_anonymous()) || !filters.matches_labels(&labels) {
                continue;
            }
            let bytes = self.weigh_volume(&record.name).await?;
            match self.volumes.remove(&self.db, &record.name, || self.volume_users(&record.name)) {
                Ok(()) => {
                    self.volume_event("destroy", &record.name);
                    pruned.space_reclaimed += bytes;
                    pruned.volumes_deleted.get_or_insert_default().push(record.name);
                }
                Err(error) if matches!(error.kind(), Kind::Conflict | Kind::NotFound) => {}
                Err(error) => tracing::warn!(volume = record.name, %error, "pruning a volume"),
            }
        }
        let bytes = pruned.space_reclaimed.to_string();
        self.events.publish("volume", "prune", "", BTreeMap::from([("reclaimed".to_owned(), bytes)]));
        Ok(pruned)
    }

    fn weigh_volume(&self, name: &str) -> JoinHandle<u64> {
        let path = self.volumes.mountpoint(name);
        tokio::task::spawn_blocking(move || fsutil::disk_usage(&path))
    }

    /// All volumes with their sizes.
    pub(crate) async fn volumes_with_usage(&self) -> Result<Vec<Volume>> {
        let records = self.volumes.all();
        let mut sizes = Vec::with_capacity(records.len());
        for some in records.chunks(fsutil::WALKS) {
            let walks: Vec<_> = some.iter().map(|record| self.weigh_volume(&record.name)).collect();
            for walk in walks {
                sizes.push(walk.await?);
            }
        }
        let with_usage = records.into_iter().zip(sizes).map(|(record, size)| {
            let users = self.volume_users(&record.name).len();
            let mut volume = self.volumes.show(record);
            volume.usage_data = Some(VolumeUsage {
                ref_count: i64::try_from(users).unwrap_or(i64::MAX),
                size: i64::try_from(size).unwrap_or(i64::MAX),
            });
            volume
        });
        Ok(with_usage.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes(dir: &Path) -> (Arc<Volumes>, Db) {
        let db = Db::open(&dir.join("engine.db")).unwrap();
        (Arc::new(Volumes::open(dir.join("volumes"), &db).unwrap()), db)
    }

    #[test]
    fn volumes_are_made_once_and_not_removed_while_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let (volumes, db) = volumes(dir.path());
        let wanted = || Wanted { name: "data".into(), ..Wanted::default() };
        let pin = volumes.acquire(&db, wanted()).unwrap();
        assert!(pin.made && dir.path().join("volumes/data/_data").is_dir());
        assert!(!volumes.acquire(&db, wanted()).unwrap().made);
        assert_eq!(volumes.remove(&db, "data", Vec::new).unwrap_err().kind(), Kind::Conflict);
        drop(pin);
        let error = volumes.remove(&db, "data", || vec!["c1".into()]).unwrap_err();
        assert_eq!(error.message(), "remove data: volume is in use - [c1]");
        volumes.remove(&db, "data", Vec::new).unwrap();
        assert_eq!(volumes.remove(&db, "data", Vec::new).unwrap_err().message(), "get data: no such volume");
        assert!(!dir.path().join("volumes/data").exists());
    }

    #[test]
    fn anonymous_ones_are_labelled() {
        let dir = tempfile::tempdir().unwrap();
        let (volumes, db) = volumes(dir.path());
        let pin = volumes.acquire(&db, Wanted::default()).unwrap();
        assert!(volumes.get(&pin.name).unwrap().is_anonymous());
    }
}
