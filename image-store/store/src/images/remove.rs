//! `docker rmi` (moby, `daemon/images/image_delete.go`). Whether a container uses the image is the engine's
//! matter: it asks [`Images::removal_deletes`] first.

use std::collections::{BTreeSet, HashSet};
use std::sync::PoisonError;

use berth_oci::{Digest, ImageId, Reference};

use crate::error::{Result, StoreError};
use crate::images::{Image, Images};
use crate::{gc, index};

/// What `docker rmi` did, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A tag or repository digest, in its familiar form.
    Untagged(String),
    /// An image.
    Deleted(ImageId),
}

/// What is to be done, decided before anything is.
struct Plan {
    image: Image,
    untag: Vec<Reference>,
    delete: bool,
    /// The user gave a name, not an id.
    by_name: bool,
}

impl Images {
    /// `docker rmi`: takes away the name that the user gave, and the image when it was the last one.
    ///
    /// # Errors
    /// [`StoreError::NoSuchImage`], [`StoreError::MultipleReferences`], [`StoreError::HasChildren`].
    pub fn remove(&self, user: &str, force: bool, prune_parents: bool) -> Result<Vec<Removed>> {
        let _removal = self.shared.removals.lock().unwrap_or_else(PoisonError::into_inner);
        self.carry_out(self.plan(user, force)?, prune_parents)
    }

    /// Takes away the name that the user gave; the image stays, without a name if it was the last one.
    ///
    /// # Errors
    /// As [`Self::remove`].
    pub fn take_name(&self, user: &str) -> Result<Vec<Removed>> {
        let _removal = self.shared.removals.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = self.plan(user, true)?;
        self.carry_out(Plan { delete: false, ..plan }, false)
    }

    fn carry_out(&self, plan: Plan, prune_parents: bool) -> Result<Vec<Removed>> {
        let mut removed = Vec::new();
        for reference in &plan.untag {
            self.forget_name(reference, &plan.image.id)?;
            removed.push(Removed::Untagged(reference.familiar()));
        }
        let mut freed = HashSet::new();
        if plan.delete {
            freed.extend(gc::scope_of(&self.shared, &plan.image.id)?);
            self.delete(&plan.image.id)?;
            removed.push(Removed::Deleted(plan.image.id.clone()));
            let mut parent = plan.image.parent.filter(|_| prune_parents);
            while let Some(id) = parent {
                let Some(image) = self.get(&id)? else { break };
                let in_use = !image.tags.is_empty() || !image.repo_digests.is_empty();
                if in_use || !self.children(&id)?.is_empty() {
                    break;
                }
                freed.extend(gc::scope_of(&self.shared, &id)?);
                self.delete(&id)?;
                removed.push(Removed::Deleted(id));
                parent = image.parent;
            }
        }
        // What is said to be gone does not come back after a power cut.
        self.shared.db.flush()?;
        index::refresh(&self.shared.db, &self.shared.content)?;
        if plan.delete {
            gc::collect(&self.shared, Some(&freed))?;
        }
        Ok(removed)
    }

    /// The image that [`Self::remove`] with these arguments would delete, if it would not only untag, and whether `user`
    /// is one of its names.
    ///
    /// # Errors
    /// As [`Self::remove`].
    pub fn removal_deletes(&self, user: &str, force: bool) -> Result<Option<(ImageId, bool)>> {
        let plan = self.plan(user, force)?;
        Ok(plan.delete.then_some((plan.image.id, plan.by_name)))
    }

    fn plan(&self, user: &str, force: bool) -> Result<Plan> {
        let image = self.resolve(user)?;
        let id = image.id.short().to_owned();
        let has_children = !self.children(&image.id)?.is_empty();
        let by_id = image.id.hex().starts_with(user.strip_prefix("sha256:").unwrap_or(user))
            && !Reference::parse(user).is_ok_and(|r| image.tags.contains(&r));
        if !by_id {
            let untag = names_to_take(&image, &Reference::parse(user)?);
            let left = image.tags.len() + image.repo_digests.len() - untag.len();
            // Without a name but with children it stays, as a step of their build.
            return Ok(Plan { image, untag, delete: left == 0 && !has_children, by_name: true });
        }
        if has_children {
            return Err(StoreError::HasChildren { id });
        }
        let repositories: BTreeSet<String> =
            image.tags.iter().chain(&image.repo_digests).map(Reference::name).collect();
        if !force && (image.tags.len() > 1 || repositories.len() > 1) {
            return Err(StoreError::MultipleReferences { id });
        }
        let untag = image.tags.iter().chain(&image.repo_digests).cloned().collect();
        Ok(Plan { image, untag, delete: true, by_name: false })
    }

    fn forget_name(&self, reference: &Reference, id: &ImageId) -> Result<()> {
        let (query, key) = match reference.digest() {
            Some(_) => ("DELETE FROM repo_digests WHERE reference = ?1 AND id = ?2", reference.to_string()),
            None => ("DELETE FROM tags WHERE reference = ?1 AND id = ?2", reference.to_string()),
        };
        self.shared.db.with("untag an image", |db| db.execute(query, (key, id.as_str())))?;
        Ok(())
    }

    fn delete(&self, id: &Digest) -> Result<()> {
        self.shared
            .db
            .with("delete an image", |db| db.execute("DELETE FROM images WHERE id = ?1", [id.as_str()]))?;
        Ok(())
    }
}

/// The name itself; and when it was the last tag in its repository, that repository's digests too.
fn names_to_take(image: &Image, named: &Reference) -> Vec<Reference> {
    if let Some(digest) = named.digest() {
        let named = named.with_digest(digest.clone());
        return image.repo_digests.iter().filter(|r| **r == named).cloned().collect();
    }
    let mut taken: Vec<Reference> = image.tags.iter().filter(|tag| *tag == named).cloned().collect();
    let another = image.tags.iter().any(|tag| tag != named && tag.name() == named.name());
    if !another {
        taken.extend(image.repo_digests.iter().filter(|r| r.name() == named.name()).cloned());
    }
    taken
}
