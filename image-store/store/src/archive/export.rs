//! `docker export` and `docker import`.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use berth_oci::{History, ImageConfig, ImageId, Reference};
use jiff::Timestamp;

use crate::error::{Result, StoreError};
use crate::images::NewImage;
use crate::layers::pack_error;
use crate::pack::{Form, pack};
use crate::store::Store;

pub(crate) fn export(store: &Store, snapshot: &str, to: impl Write) -> Result<()> {
    let root = store.snapshots().mount(snapshot)?;
    let shown = store.shared().snapshot_path(snapshot);
    pack(root.as_fd(), Form::Merged, to).map(drop).map_err(|error| pack_error(error, &shown))
}

pub(crate) fn import(
    store: &Store,
    from: impl Read + Send,
    mut config: ImageConfig,
    message: Option<&str>,
    reference: Option<&Reference>,
) -> Result<ImageId> {
    if let Some(reference) = reference
        && (reference.tag().is_none() || reference.digest().is_some())
    {
        return Err(StoreError::Reference(berth_oci::ReferenceError::Format));
    }
    let layer = store.layers().unpack_canonically(from)?;
    let now = Timestamp::now();
    let created = *config.created.get_or_insert(now);
    config.rootfs = berth_oci::RootFs { diff_ids: vec![layer.diff_id], ..Default::default() };
    let comment = message.filter(|m| !m.is_empty()).map(str::to_owned);
    config.history = vec![History { created: Some(created), comment: comment.clone(), ..History::default() }];
    config.comment = comment;
    let id = store.images().put(NewImage { config: config.to_bytes(), ..NewImage::default() })?;
    if let Some(reference) = reference {
        store.images().tag(reference, &id)?;
    }
    Ok(id)
}
