//! The cache on its way to another machine, as an image: its layers are those that the steps made, and its config says
//! which step made which. Registries, archives and directories then need nothing that they do not have already.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_dockerfile_parser::ignore;
use berth_oci::{DiffId, Digest, ImageConfig, Platform};
use berth_store::NewImage;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::BuildError;
use crate::cache::{Cache, CacheRecords, Record};
use crate::copy::{Changes, Copier};
use crate::fault::{At, Fault, store};
use crate::rootdir::RootDir;
use crate::shared::Shared;
use crate::source::Source;
use crate::start::fresh_id;

/// Where the config of an image says it.
const FIELD: &str = "berth.build.cache.v1";

/// The form in a config.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Told {
    records: BTreeMap<String, Record>,
    /// Layers that hold the contents of cache mounts.
    #[serde(default)]
    mounts: BTreeMap<String, DiffId>,
}

impl Told {
    /// The inputs stay at home: values of variables are nobody else's business. So do the times of making and using,
    /// which would make another image every day.
    fn of<'a>(records: impl Iterator<Item = (&'a Digest, &'a Record)>) -> Self {
        let bare = |record: &Record| Record {
            inputs: Vec::new(),
            made: record.created,
            used: record.created,
            uses: 0,
            ..record.clone()
        };
        let records = records.map(|(key, record)| (key.as_str().to_owned(), bare(record))).collect();
        Self { records, mounts: BTreeMap::new() }
    }

    fn write_to(&self, config: &mut ImageConfig) {
        let value = serde_json::to_value(self).expect("records have text keys");
        config.other.insert(FIELD.to_owned(), value);
    }
}

/// Writes into an image's config what its own layers were made of.
pub(crate) fn inline(config: &mut ImageConfig, made: &HashMap<Digest, Record>) {
    let own = config.diff_ids().to_vec();
    Told::of(made.iter().filter(|(_, record)| own.contains(&record.layer))).write_to(config);
}

pub(crate) fn export(shared: &Shared, from: &CacheRecords, mounts: bool) -> Result<Digest, BuildError> {
    let _lease = shared.store.lease();
    let layers = shared.store.layers();
    let present = from.records.iter().filter(|(_, record)| layers.contains(&record.layer));
    let mut told = Told::of(present.map(|(key, record)| (key, record)));
    let mut config = ImageConfig::new(&Platform::host());
    for record in told.records.values() {
        if !config.rootfs.diff_ids.contains(&record.layer) {
            config.rootfs.diff_ids.push(record.layer.clone());
        }
    }
    if mounts {
        for name in &from.mounts {
            let layer = pack_mount(shared, name)?;
            config.rootfs.diff_ids.push(layer.clone());
            told.mounts.insert(name.clone(), layer);
        }
    }
    told.write_to(&mut config);
    let new = NewImage { config: config.to_bytes(), ..NewImage::default() };
    shared.store.images().put(new).map_err(store)
}

/// A layer of what is in a cache mount.
fn pack_mount(shared: &Shared, name: &str) -> Result<DiffId, BuildError> {
    let snapshots = shared.store.snapshots();
    let key = format!("cache-{}", fresh_id());
    let snapshot = snapshots.create(&key, &[]).map_err(store)?;
    let from = shared.dirs.builds.join("mounts").join(name);
    let copied = RootDir::open_host(&from).at("open", &from).and_then(|from| {
        let to = RootDir::open_host(&snapshot.upper).at("open", &snapshot.upper)?;
        copy_tree(from, &to, None)
    });
    let committed = copied.and_then(|()| snapshots.commit(&key, None).map_err(store));
    if committed.is_err() {
        snapshots.remove(&key).map_err(store)?;
    }
    Ok(committed?.diff_id)
}

fn copy_tree(from: RootDir, to: &RootDir, owner: Option<(u32, u32)>) -> Result<(), BuildError> {
    let said = |fault| match fault {
        Fault::Build(error) => error,
        Fault::Said(message) => BuildError::Invalid { message },
    };
    let source = Source::new(from, ignore::Matcher::default(), true, "the files".to_owned());
    let changes = Changes { owner, mode: None };
    let cancel = CancellationToken::new();
    let copier = Copier::new(to, &changes, &cancel);
    for selection in source.select("/", &ignore::Matcher::default()).map_err(said)? {
        copier.copy(&source, &selection, "/").map_err(said)?;
    }
    Ok(())
}

pub(crate) fn import(shared: &Shared, image: &Digest) -> Result<usize, BuildError> {
    let _lease = shared.store.lease();
    let config = shared.store.images().config_of(image).map_err(store)?;
    let Some(told) = config.other.get(FIELD) else { return Ok(0) };
    let told: Told = serde_json::from_value(told.clone()).map_err(|error| BuildError::Invalid {
        message: format!("the cache in image {image} cannot be read: {error}"),
    })?;
    let cache = Cache::new(&shared.dirs.builds);
    let layers = shared.store.layers();
    let mut taken = 0;
    for (key, record) in &told.records {
        let Ok(key) = Digest::parse(key) else { continue };
        if layers.contains(&record.layer) && cache.get(&key).is_none() {
            crate::prune::make_room(shared, record.size)?;
            cache.adopt(&shared.store, &key, record)?;
            taken += 1;
        }
    }
    for (name, layer) in &told.mounts {
        import_mount(shared, name, layer)?;
    }
    Ok(taken)
}

/// Fills a cache mount that is not there yet.
fn import_mount(shared: &Shared, name: &str, layer: &DiffId) -> Result<(), BuildError> {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let dir = shared.dirs.builds.join("mounts");
    let place = dir.join(name);
    if !plain || place.exists() || !shared.store.layers().contains(layer) {
        return Ok(());
    }
    fs::create_dir_all(&dir).at("create directory", &dir)?;
    let fresh = crate::context::scratch_dir(&dir)?;
    let mount = shared.store.snapshots().mount_ro(std::slice::from_ref(layer)).map_err(store)?;
    let to = RootDir::open_host(fresh.path()).at("open", fresh.path())?;
    copy_tree(RootDir::new(mount), &to, None)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(fresh.path(), mode).at("set mode of", &place)?;
    fs::rename(fresh.path(), &place).at("create", &place)?;
    // It has moved: nothing is left to remove.
    let _moved = fresh.keep();
    Ok(())
}

pub(crate) fn export_files(
    shared: &Shared,
    images: &[(Platform, Digest)],
    to: OwnedFd,
    owner: Option<(u32, u32)>,
) -> Result<(), BuildError> {
    let _lease = shared.store.lease();
    let to = RootDir::new(to);
    for (platform, image) in images {
        let config = shared.store.images().config_of(image).map_err(store)?;
        let own = match images.len() {
            1 => None,
            _ => {
                let name = PathBuf::from(platform.to_string().replace('/', "_"));
                let set_up = |root: &RootDir, path: &Path| match owner {
                    Some((uid, gid)) => root.set_owner(path, uid, gid),
                    None => Ok(()),
                };
                to.make_dirs(&name, &set_up).at("create", &name)?;
                Some(to.subtree(&name).at("open", &name)?)
            }
        };
        if !config.diff_ids().is_empty() {
            let mount = shared.store.snapshots().mount_ro(config.diff_ids()).map_err(store)?;
            copy_tree(RootDir::new(mount), own.as_ref().unwrap_or(&to), owner)?;
        }
    }
    Ok(())
}
