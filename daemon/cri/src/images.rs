//! The image service.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use berth_api::registry::AuthConfig;
use berth_engine::{Engine, PodImage};
use tonic::{Request, Response, Status};

use crate::failure::{missing, status};
use crate::serve::{Chunks, chunks};
use crate::v1;
use crate::v1::image_service_server::ImageService;

/// The image service over the engine's store.
#[derive(Debug)]
pub(crate) struct Images {
    engine: Arc<Engine>,
}

impl Images {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    async fn list(&self, filter: Option<v1::ImageFilter>) -> Result<Vec<v1::Image>, Status> {
        let wanted = filter.and_then(|filter| filter.image).map(|image| image.image).unwrap_or_default();
        let images = if wanted.is_empty() {
            self.engine.pod_images().await
        } else {
            self.engine.pod_image(&wanted).await.map(|found| found.into_iter().collect())
        };
        Ok(images.map_err(status)?.iter().map(image).collect())
    }
}

fn name_of(image: Option<v1::ImageSpec>) -> Result<String, Status> {
    image.map(|image| image.image).filter(|name| !name.is_empty()).ok_or_else(|| missing("image.image"))
}

fn image(image: &PodImage) -> v1::Image {
    let user = image.user.split(':').next().unwrap_or_default();
    let uid = user.parse::<i64>().ok();
    v1::Image {
        id: image.id.clone(),
        repo_tags: image.tags.clone(),
        repo_digests: image.digests.clone(),
        size: image.size.max(1),
        uid: match (uid, user) {
            (Some(value), _) => Some(v1::Int64Value { value }),
            (None, "") => Some(v1::Int64Value { value: 0 }),
            (None, _) => None,
        },
        username: if uid.is_none() { user.to_owned() } else { String::new() },
        spec: None,
        pinned: image.pinned,
    }
}

/// Credentials as the engine has them. Those of another registry than the image's are not sent to it.
fn credentials(auth: Option<v1::AuthConfig>, image: &str) -> Result<AuthConfig, Status> {
    let Some(auth) = auth else { return Ok(AuthConfig::default()) };
    let host = |address: &str| {
        let bare = address.split_once("://").map_or(address, |(_, rest)| rest);
        bare.split('/').next().unwrap_or_default().to_owned()
    };
    let meant_for = host(&auth.server_address);
    let first = image.split('/').next().unwrap_or_default();
    let registry = if image.contains('/') && (first.contains(['.', ':']) || first == "localhost") {
        first
    } else {
        "docker.io"
    };
    let is_hub = |host: &str| host == "docker.io" || host.ends_with(".docker.io");
    if !meant_for.is_empty() && meant_for != registry && !(is_hub(&meant_for) && is_hub(registry)) {
        return Ok(AuthConfig::default());
    }
    let mut found = AuthConfig {
        username: auth.username,
        password: auth.password,
        identity_token: auth.identity_token,
        registry_token: auth.registry_token,
        server_address: auth.server_address,
        ..AuthConfig::default()
    };
    if found.username.is_empty() && !auth.auth.is_empty() {
        let invalid = || Status::invalid_argument("auth.auth must be the base64 of user:password");
        let text = BASE64_STANDARD.decode(auth.auth.trim()).map_err(|_| invalid())?;
        let text = String::from_utf8(text).map_err(|_| invalid())?;
        let (user, password) = text.split_once(':').ok_or_else(invalid)?;
        user.clone_into(&mut found.username);
        password.trim_end_matches('\0').clone_into(&mut found.password);
    }
    Ok(found)
}

#[tonic::async_trait]
impl ImageService for Images {
    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let images = self.list(request.into_inner().filter).await?;
        Ok(Response::new(v1::ListImagesResponse { images }))
    }

    type StreamImagesStream = Chunks<v1::StreamImagesResponse>;

    async fn stream_images(
        &self,
        request: Request<v1::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let images = self.list(request.into_inner().filter).await?;
        Ok(chunks(images, |images| v1::StreamImagesResponse { images }))
    }

    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Result<Response<v1::ImageStatusResponse>, Status> {
        let request = request.into_inner();
        let name = name_of(request.image)?;
        let found = self.engine.pod_image(&name).await.map_err(status)?;
        let info = match &found {
            Some(found) if request.verbose => {
                let config = self.engine.pod_image_config(&found.id).await.map_err(status)?;
                let shown = |config| serde_json::json!({ "imageSpec": config }).to_string();
                config.map(|config| ("info".to_owned(), shown(config))).into_iter().collect()
            }
            _ => HashMap::new(),
        };
        Ok(Response::new(v1::ImageStatusResponse { image: found.as_ref().map(image), info }))
    }

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<v1::PullImageResponse>, Status> {
        let request = request.into_inner();
        let name = name_of(request.image)?;
        let auth = credentials(request.auth, &name)?;
        let image_ref = self.engine.pull_pod_image(&name, auth).await.map_err(status)?;
        Ok(Response::new(v1::PullImageResponse { image_ref }))
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        let name = name_of(request.into_inner().image)?;
        self.engine.remove_pod_image(&name).await.map_err(status)?;
        Ok(Response::new(v1::RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _: Request<v1::ImageFsInfoRequest>,
    ) -> Result<Response<v1::ImageFsInfoResponse>, Status> {
        let used = self.engine.pod_store_usage().await.map_err(status)?;
        let usage = v1::FilesystemUsage {
            timestamp: crate::convert::nanoseconds(Some(jiff::Timestamp::now())),
            fs_id: Some(v1::FilesystemIdentifier { mountpoint: used.mountpoint.display().to_string() }),
            used_bytes: Some(v1::UInt64Value { value: used.bytes }),
            inodes_used: Some(v1::UInt64Value { value: used.inodes }),
        };
        let image_filesystems = vec![usage.clone()];
        Ok(Response::new(v1::ImageFsInfoResponse { image_filesystems, container_filesystems: vec![usage] }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_images() {
        let user = |text: &str| {
            let found = PodImage {
                id: String::new(),
                tags: vec![],
                digests: vec![],
                size: 5,
                user: text.to_owned(),
                pinned: false,
            };
            let image = image(&found);
            (image.uid.map(|uid| uid.value), image.username)
        };
        assert_eq!(user("1000:50"), (Some(1000), String::new()));
        assert_eq!(user("app:app"), (None, "app".to_owned()));
        assert_eq!(user(""), (Some(0), String::new()));
    }

    #[test]
    fn credentials_go_to_their_own_registry_only() {
        let auth = |server: &str| v1::AuthConfig {
            server_address: server.to_owned(),
            auth: BASE64_STANDARD.encode("me:it"),
            ..Default::default()
        };
        let user = |server: &str, image: &str| credentials(Some(auth(server)), image).unwrap().username;
        assert_eq!(user("", "registry.example/a"), "me");
        assert_eq!(user("https://registry.example/v2/", "registry.example/a"), "me");
        assert_eq!(user("other.example", "registry.example/a"), "");
        assert_eq!(user("https://index.docker.io/v1/", "busybox"), "me");
        let bad = v1::AuthConfig { auth: "?".into(), ..Default::default() };
        assert!(credentials(Some(bad), "a").is_err());
    }
}
