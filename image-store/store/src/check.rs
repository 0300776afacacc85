//! `system check`: every image's config, manifest, blobs and layers are there, and are what they should be.

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_oci::DiffId;

use crate::content::Content;
use crate::error::{Result, StoreError};
use crate::images::Images;
use crate::layers::{Layers, canonical_digest};
use crate::recovery::{diff_ids, forget};
use crate::shared::{Shared, open_directory};

/// What [`crate::Store::check`] does.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Read and hash every blob; compare every layer with its tar.
    pub deep: bool,
    /// Mend what can be mended: unpack damaged layers again, drop damaged blobs so that a pull fetches them.
    pub repair: bool,
}

/// What [`crate::Store::check`] found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Each problem.
    pub problems: Vec<Problem>,
    /// Images that were looked at.
    pub images: usize,
    /// Layers that were looked at.
    pub layers: usize,
    /// Blobs that were read.
    pub blobs: usize,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong with what.
    pub what: String,
    /// Whether it was mended.
    pub repaired: bool,
}

pub(crate) fn check(shared: &Arc<Shared>, options: CheckOptions) -> Result<CheckReport> {
    let mut checker = Checker {
        layers: Layers { shared: shared.clone() },
        images: Images { shared: shared.clone() },
        options,
        report: CheckReport::default(),
    };
    checker.blobs()?;
    checker.layers()?;
    checker.images()?;
    Ok(checker.report)
}

struct Checker {
    layers: Layers,
    images: Images,
    options: CheckOptions,
    report: CheckReport,
}

impl Checker {
    fn problem(&mut self, what: String, repaired: bool) {
        self.report.problems.push(Problem { what, repaired });
    }

    fn content(&self) -> &Content {
        &self.layers.shared.content
    }

    fn blobs(&mut self) -> Result<()> {
        if !self.options.deep {
            return Ok(());
        }
        for digest in self.content().list()? {
            self.report.blobs += 1;
            let actual = self.content().digest_of(&digest)?;
            if actual == digest {
                continue;
            }
            if self.options.repair {
                let path = self.content().blob_path(&digest);
                self.content().quota().give(path.metadata().map_or(0, |m| m.len()));
                std::fs::remove_file(&path).map_err(|source| StoreError::Io {
                    operation: "remove",
                    path,
                    source,
                })?;
            }
            // Gone is not yet mended: what needs it is reported below.
            self.problem(format!("blob {digest} is damaged: its content has the digest {actual}"), false);
        }
        Ok(())
    }

    fn layers(&mut self) -> Result<()> {
        let shared = self.layers.shared.clone();
        let rows: BTreeSet<DiffId> =
            diff_ids(&shared, "SELECT diff_id FROM layers", "")?.into_iter().collect();
        let mut wanted = rows.clone();
        wanted.extend(diff_ids(
            &shared,
            "SELECT diff_id FROM image_layers UNION SELECT diff_id FROM snapshot_layers",
            "",
        )?);
        self.report.layers = wanted.len();
        for diff_id in wanted {
            let what = match (rows.contains(&diff_id), self.layers.path(&diff_id).is_dir()) {
                (true, true) => {
                    match self.options.deep.then(|| self.compare(&diff_id)).transpose()?.flatten() {
                        None => continue,
                        Some(difference) => difference,
                    }
                }
                (_, false) => "its directory is missing".to_owned(),
                (false, true) => "it has no record".to_owned(),
            };
            let repaired = self.options.repair && self.unpack_again(&diff_id);
            self.problem(format!("layer {diff_id} is damaged: {what}"), repaired);
        }
        Ok(())
    }

    /// Compares a tree with the one that its tar gives.
    fn compare(&self, diff_id: &DiffId) -> Result<Option<String>> {
        let row = self.layers.required(diff_id)?;
        let here = canonical_digest(&self.layers.path(diff_id), row.form())?.0;
        if row.canonical {
            return Ok((here != *diff_id.digest()).then(|| "its files were changed".to_owned()));
        }
        let Ok(tar) = self.layers.tar(diff_id) else { return Ok(None) };
        let temporary = self.layers.shared.temporary("check-")?;
        let root = open_directory(temporary.path())?;
        let plain = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(temporary.path(), plain).map_err(|source| StoreError::Io {
            operation: "chmod",
            path: temporary.path().into(),
            source,
        })?;
        let (limits, quota) = (self.layers.shared.limits, &*self.layers.shared.quota);
        match crate::unpack::unpack(root, tar, limits, quota) {
            Ok(unpacked) => quota.give(unpacked.size),
            Err(error) => return Ok(Some(format!("its blob cannot be unpacked: {error}"))),
        }
        let there = canonical_digest(temporary.path(), row.form())?.0;
        Ok((here != there).then(|| "its files were changed".to_owned()))
    }

    fn unpack_again(&self, diff_id: &DiffId) -> bool {
        let again = || -> Result<bool> {
            let Some(blob) = self.layers.blobs(diff_id)?.into_iter().next() else { return Ok(false) };
            forget(&self.layers.shared, diff_id)?;
            self.layers.unpack_blob(&blob, diff_id)?;
            Ok(true)
        };
        again().unwrap_or_else(|error| {
            tracing::warn!(%diff_id, %error, "cannot unpack a layer again");
            false
        })
    }

    fn images(&mut self) -> Result<()> {
        for image in self.images.list(true)? {
            self.report.images += 1;
            if let Err(error) = self.images.config_of(&image.id) {
                self.problem(format!("config of image {} is missing or damaged: {error}", image.id), false);
            }
            if image.manifest.is_some() && !self.images.is_complete(&image.id)? {
                let what = format!("blobs of image {} are missing", image.id);
                self.problem(what, false);
            }
        }
        Ok(())
    }
}
