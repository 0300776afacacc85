//! Which images and names go into an archive.

use berth_oci::{ImageId, Reference};

use crate::error::Result;
use crate::store::Store;

/// Images in the order in which they were asked for, each with the names it was asked by.
pub(crate) fn choose<S: AsRef<str>>(store: &Store, names: &[S]) -> Result<Vec<(ImageId, Vec<Reference>)>> {
    let mut chosen: Vec<(ImageId, Vec<Reference>)> = Vec::new();
    let mut add = |id: ImageId, reference: Option<Reference>| {
        let position = chosen.iter().position(|(known, _)| *known == id).unwrap_or_else(|| {
            chosen.push((id, Vec::new()));
            chosen.len() - 1
        });
        let references = &mut chosen[position].1;
        references.extend(reference.filter(|r| !references.contains(r)));
    };
    for name in names.iter().map(AsRef::as_ref) {
        let bare = Reference::parse_name(name).ok().filter(|r| r.tag().is_none() && r.digest().is_none());
        let all_tags = bare.map(|bare| tags_of(store, &bare)).transpose()?.unwrap_or_default();
        if !all_tags.is_empty() {
            // docker: the name of a repository means all its tags.
            all_tags.into_iter().for_each(|(reference, id)| add(id, Some(reference)));
            continue;
        }
        let image = store.images().resolve(name)?;
        let reference = Reference::parse(name).ok().filter(|reference| image.tags.contains(reference));
        add(image.id, reference);
    }
    Ok(chosen)
}

fn tags_of(store: &Store, repository: &Reference) -> Result<Vec<(Reference, ImageId)>> {
    let name = repository.name();
    let images = store.images().list(false)?;
    let mut found: Vec<_> = images
        .iter()
        .flat_map(|image| image.tags.iter().map(|tag| (tag.clone(), image.id.clone())))
        .filter(|(tag, _)| tag.name() == name)
        .collect();
    found.sort();
    Ok(found)
}
