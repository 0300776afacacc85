//! `docker images`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use berth_api::image::{Descriptor, ImageSummary};
use berth_api::options::ListImages;
use berth_oci::Reference;
use berth_store::Image;
use jiff::Timestamp;
use regex::Regex;

use crate::containers::filters::{boolean, until};
use crate::engine::Engine;
use crate::error::{EngineError, Kind, Result};

const KNOWN: [&str; 7] = ["before", "dangling", "label", "label!", "reference", "since", "until"];

/// Docker's descriptor of ours.
pub(super) fn descriptor(descriptor: &berth_oci::Descriptor) -> Descriptor {
    Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        ..Descriptor::default()
    }
}

pub(super) fn familiar(references: &[Reference]) -> Vec<String> {
    references.iter().map(Reference::familiar).collect()
}

impl Engine {
    /// The images that pass the filters, the newest first.
    ///
    /// # Errors
    /// A filter that is unknown or has no sense.
    pub async fn list_images(self: &Arc<Self>, options: &ListImages) -> Result<Vec<ImageSummary>> {
        let options = options.clone();
        self.blocking(move |engine| engine.images(&options)).await
    }

    pub(crate) fn images(&self, options: &ListImages) -> Result<Vec<ImageSummary>> {
        let filters = &options.filters;
        if let Some(key) = filters.unknown_key(&KNOWN) {
            return Err(EngineError::invalid(format!("invalid filter '{key}'")));
        }
        let dangling = boolean(filters, "dangling")?;
        let until = until(filters)?;
        let moment = |key: &str| -> Result<Option<Timestamp>> {
            let found = filters.get(key).iter().map(|name| Ok(self.store.images().resolve(name)?.created));
            Ok(found.collect::<Result<Vec<_>>>()?.into_iter().next())
        };
        let (before, since) = (moment("before")?, moment("since")?);
        let patterns =
            filters.get("reference").iter().map(|text| pattern(text)).collect::<Result<Vec<_>>>()?;
        let used = self.images_in_use();
        let all = self.store.images().list(options.all || dangling == Some(true))?;
        let shared = if options.shared_size { Some(shared_sizes(self, &all)) } else { None };
        let mut summaries = Vec::new();
        for image in all {
            let Some(labels) = self.of_listed(&image, self.labels(&image))? else { continue };
            let references = image.tags.iter().chain(&image.repo_digests);
            let named = patterns.is_empty()
                || references.clone().any(|name| patterns.iter().any(|p| matches(p, name)));
            let passes = named
                && dangling.is_none_or(|dangling| image.tags.is_empty() == dangling)
                && until.is_none_or(|until| image.created <= until)
                && before.is_none_or(|before| image.created < before)
                && since.is_none_or(|since| image.created > since)
                && filters.matches_labels(&labels);
            if passes {
                let mut summary = summary(&image, labels);
                if options.manifests {
                    let Some(manifests) = self.of_listed(&image, self.manifests(&image))? else { continue };
                    summary.manifests = Some(manifests);
                }
                if !patterns.is_empty() {
                    let shown = |name: &&Reference| patterns.iter().any(|p| matches(p, name));
                    summary.repo_tags = image.tags.iter().filter(shown).map(Reference::familiar).collect();
                }
                if let Some(shared) = &shared {
                    summary.shared_size = shared.get(image.id.as_str()).copied().unwrap_or(0);
                    summary.containers = used.get(image.id.as_str()).map_or(0, |users| users.len() as i64);
                }
                summaries.push(summary);
            }
        }
        Ok(summaries)
    }

    /// What an image of a list was asked; none if it has been removed since the list was made.
    pub(crate) fn of_listed<T>(&self, image: &Image, answer: Result<T>) -> Result<Option<T>> {
        match answer {
            Err(error) if error.kind() == Kind::NotFound => {
                let gone = self.store.images().resolve(image.id.as_str()).is_err();
                if gone { Ok(None) } else { Err(error) }
            }
            answer => answer.map(Some),
        }
    }

    fn labels(&self, image: &Image) -> Result<BTreeMap<String, String>> {
        let config = self.store.images().config_of(&image.id)?;
        Ok(config.labels().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// Image id → ids of its containers.
    pub(crate) fn images_in_use(&self) -> HashMap<String, Vec<String>> {
        let mut used: HashMap<String, Vec<String>> = HashMap::new();
        for container in self.containers.all() {
            let definition = container.definition();
            let mounted = definition.mounts.iter().map(|plan| &plan.image_id).filter(|id| !id.is_empty());
            for image in std::iter::once(&definition.image_id).chain(mounted) {
                let users = used.entry(image.clone()).or_default();
                if users.last() != Some(&container.id) {
                    users.push(container.id.clone());
                }
            }
        }
        for container in self.pods.containers() {
            let record = container.record();
            for image in record.mounted_images.iter().chain([&record.image_id]) {
                used.entry(image.clone()).or_default().push(record.id.clone());
            }
        }
        used
    }
}

fn summary(image: &Image, labels: BTreeMap<String, String>) -> ImageSummary {
    ImageSummary {
        containers: -1,
        created: image.created.as_second(),
        id: image.id.to_string(),
        labels,
        parent_id: image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        descriptor: image.manifest.as_ref().map(descriptor),
        repo_digests: familiar(&image.repo_digests),
        repo_tags: familiar(&image.tags),
        shared_size: -1,
        size: i64::try_from(image.size).unwrap_or(i64::MAX),
        manifests: None,
    }
}

/// Bytes of layers that more than one image has, by image.
fn shared_sizes(engine: &Engine, images: &[Image]) -> HashMap<String, i64> {
    let mut seen = HashSet::new();
    let mut shared = HashSet::new();
    for image in images {
        let own: HashSet<_> = image.layers.iter().collect();
        for layer in own {
            if !seen.insert(layer) {
                shared.insert(layer);
            }
        }
    }
    let size = |layer: &berth_oci::DiffId| {
        engine.store.layers().info(layer).ok().flatten().map_or(0, |info| info.size)
    };
    let bytes =
        |image: &Image| image.layers.iter().filter(|layer| shared.contains(layer)).map(size).sum::<u64>();
    images
        .iter()
        .map(|image| (image.id.to_string(), i64::try_from(bytes(image)).unwrap_or(i64::MAX)))
        .collect()
}

/// A pattern of path.Match: `*` and `?` do not match a slash.
fn pattern(text: &str) -> Result<Regex> {
    let mut expression = String::from("^");
    for c in text.chars() {
        match c {
            '*' => expression.push_str("[^/]*"),
            '?' => expression.push_str("[^/]"),
            '[' | ']' | '-' => expression.push(c),
            other => expression.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    expression.push('$');
    Regex::new(&expression).map_err(|_| EngineError::invalid(format!("invalid filter 'reference={text}'")))
}

/// Whether the pattern means the whole name, or the repository alone.
fn matches(pattern: &Regex, name: &Reference) -> bool {
    pattern.is_match(&name.familiar()) || pattern.is_match(&name.familiar_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_gos() {
        let matches = |text, name| matches(&pattern(text).unwrap(), &Reference::parse(name).unwrap());
        assert!(matches("busybox", "busybox:1"));
        assert!(matches("busy*:1", "busybox:1"));
        assert!(matches("busybox:[12]", "busybox:1"));
        assert!(!matches("busybox:2", "busybox:1"));
        assert!(!matches("*", "example.org/a/b:1"));
        assert!(matches("*/a/b", "example.org/a/b:1"));
        assert!(pattern("[").is_err());
    }
}
