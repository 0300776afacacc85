//! Images: docker's view of the store.

pub(crate) mod changes;
mod check;
mod evict;
mod inspect;
mod list;
mod manifests;
mod remove;
mod search;
mod transfer;

pub(crate) use transfer::{funnel, message};

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_api::registry::AuthConfig;
use berth_oci::{Digest, ImageId, Platform, Reference};
use berth_registry::Credentials;
use berth_store::Image;

use crate::engine::Engine;
use crate::error::{EngineError, Result};

/// The name that a new image is to have: none when the repository is empty.
pub(crate) fn new_reference(repo: &str, tag: &str) -> Result<Option<Reference>> {
    if repo.is_empty() {
        return Ok(None);
    }
    let name = Reference::parse_name(repo)?;
    if name.digest().is_some() {
        return Err(EngineError::invalid("refusing to create a tag with a digest reference"));
    }
    let tag = match (tag, name.tag()) {
        ("", Some(tag)) => tag.to_owned(),
        ("", None) => "latest".to_owned(),
        (tag, _) => tag.to_owned(),
    };
    Ok(Some(name.with_tag(&tag)?))
}

/// What `image` and `tag` of a pull or push name; the tag may be a digest, and may stand in both.
pub(crate) fn named(image: &str, tag: &str) -> Result<Reference> {
    let name = Reference::parse_name(image)?;
    if tag.is_empty() {
        return Ok(match (name.tag(), name.digest()) {
            (None, None) => name.with_tag("latest")?,
            _ => name,
        });
    }
    match Digest::parse(tag) {
        Ok(digest) => Ok(name.with_digest(digest)),
        Err(_) => Ok(name.with_tag(tag)?),
    }
}

pub(crate) fn credentials(auth: &AuthConfig) -> Credentials {
    if !auth.identity_token.is_empty() {
        return Credentials::IdentityToken(auth.identity_token.clone());
    }
    if !auth.registry_token.is_empty() {
        return Credentials::Bearer(auth.registry_token.clone());
    }
    if auth.username.is_empty() {
        return Credentials::Anonymous;
    }
    Credentials::Basic { username: auth.username.clone(), password: auth.password.clone() }
}

/// `os/arch[/variant]`; empty is this host's.
pub(crate) fn platform(text: &str) -> Result<Platform> {
    if text.is_empty() {
        return Ok(Platform::host());
    }
    // Newer clients send the platform as JSON.
    if text.starts_with('{') {
        return serde_json::from_str(text)
            .map_err(|error| EngineError::invalid(format!("invalid platform: {error}")));
    }
    Platform::parse(text).map_err(|error| EngineError::invalid(error.to_string()))
}

impl Engine {
    /// An image by its name, which is to be one for the platform, if one is given.
    pub(crate) fn image_for(&self, name: &str, platform_text: &str) -> Result<Image> {
        let image = self.store.images().resolve(name)?;
        if !platform_text.is_empty() {
            let wanted = platform(platform_text)?;
            let offered = self.store.images().config_of(&image.id)?.platform();
            if !wanted.matches(&offered) {
                return Err(EngineError::not_found(format!(
                    "image with reference {name} was found but does not match the specified platform: wanted \
                     {wanted}, actual: {offered}"
                )));
            }
        }
        Ok(image)
    }

    /// The same for any of several platforms, or for none in particular.
    pub(crate) fn image_for_any(&self, name: &str, platforms: &[String]) -> Result<Image> {
        let Some((last, others)) = platforms.split_last() else { return self.image_for(name, "") };
        let found = others.iter().find_map(|one| self.image_for(name, one).ok());
        found.map_or_else(|| self.image_for(name, last), Ok)
    }

    pub(crate) fn image_event(&self, action: &str, id: &str, name: &str) {
        let mut attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        if let Ok(id) = Digest::parse(id)
            && let Ok(config) = self.store.images().config_of(&id)
        {
            let labels = config.labels().into_iter().flatten();
            attributes.extend(labels.map(|(key, value)| (key.clone(), value.clone())));
        }
        self.events.publish("image", action, id, attributes);
    }

    /// Ids of the images built on this one, and on those.
    pub(crate) fn descendants(&self, id: &ImageId) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![id.clone()];
        while let Some(id) = open.pop() {
            for child in self.store.images().children(&id).unwrap_or_default() {
                found.push(child.to_string());
                open.push(child);
            }
        }
        found
    }

    /// Gives an image a name.
    ///
    /// # Errors
    /// When there is no such image, or the name is bad.
    pub async fn tag_image(self: &Arc<Self>, name: &str, repo: &str, tag: &str) -> Result<()> {
        let bad = || EngineError::invalid("invalid reference format");
        let reference = new_reference(repo, tag)?.ok_or_else(bad)?;
        let (engine, name) = (Arc::clone(self), name.to_owned());
        self.detached(async move {
            engine
                .blocking(move |engine| {
                    let image = engine.store.images().resolve(&name)?;
                    engine.store.images().tag(&reference, &image.id)?;
                    engine.image_event("tag", image.id.as_str(), &reference.familiar());
                    Ok(())
                })
                .await
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_new_images() {
        let name = |repo, tag| new_reference(repo, tag).map(|name| name.map(|name| name.familiar()));
        assert_eq!(name("", "x").unwrap(), None);
        assert_eq!(name("busybox", "").unwrap().unwrap(), "busybox:latest");
        assert_eq!(name("busybox:1", "").unwrap().unwrap(), "busybox:1");
        assert_eq!(name("127.0.0.1:5000/a/b", "2").unwrap().unwrap(), "127.0.0.1:5000/a/b:2");
        assert!(name("BAD", "").is_err());
    }

    #[test]
    fn pulls_name_a_tag_or_a_digest_in_either_place() {
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(named("busybox", "1").unwrap().familiar(), "busybox:1");
        assert_eq!(named("busybox:1", "").unwrap().familiar(), "busybox:1");
        assert_eq!(named("busybox:2", "1").unwrap().familiar(), "busybox:1");
        assert_eq!(named("busybox", &digest).unwrap().familiar(), format!("busybox@{digest}"));
        assert_eq!(named("busybox", "").unwrap().familiar(), "busybox:latest");
    }

    #[test]
    fn tokens_come_before_passwords() {
        let auth = AuthConfig { username: "u".into(), password: "p".into(), ..AuthConfig::default() };
        assert!(matches!(credentials(&auth), Credentials::Basic { .. }));
        let auth = AuthConfig { identity_token: "t".into(), ..auth };
        assert_eq!(credentials(&auth), Credentials::IdentityToken("t".into()));
        assert_eq!(credentials(&AuthConfig::default()), Credentials::Anonymous);
    }
}
