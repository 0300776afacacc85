//! Images in and out: pull, import, push, load, save.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use berth_api::{
    options::{Import, Push},
    registry::AuthConfig,
};
use http::Response;
use serde::de::DeserializeOwned;

use crate::{
    body::{self, Body},
    context::Context,
    error::ApiResult,
    handlers::{progress, upload::BodyReader},
};

/// Clients disagree on padding, and some on the alphabet.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

/// A header with base64 JSON; absent or unreadable is the default, as docker has it.
pub(super) fn base64_json<T: DeserializeOwned + Default>(text: &str) -> T {
    let bytes = URL_SAFE.decode(text).or_else(|_| STANDARD.decode(text)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

pub(super) fn registry_auth(context: &Context) -> AuthConfig {
    base64_json(context.header("x-registry-auth"))
}

/// `POST /images/create`: a pull or an import.
pub(super) async fn create(context: Context) -> ApiResult<Response<Body>> {
    if context.query.get("fromImage").is_empty() { import(context).await } else { pull(context).await }
}

async fn pull(context: Context) -> ApiResult<Response<Body>> {
    let query = &context.query;
    let auth = registry_auth(&context);
    let (image, tag) = (query.get("fromImage").to_owned(), query.get("tag").to_owned());
    let platform = query.get("platform").to_owned();
    let engine = context.engine().clone();
    progress::run(|messages, cancel| async move {
        engine.pull_image(&image, &tag, &platform, auth, messages, cancel).await
    })
    .await
}

async fn import(mut context: Context) -> ApiResult<Response<Body>> {
    let query = &context.query;
    let options = Import {
        source: query.get("fromSrc").to_owned(),
        repo: query.get("repo").to_owned(),
        tag: query.get("tag").to_owned(),
        message: query.get("message").to_owned(),
        changes: query.all("changes").to_vec(),
        platform: query.get("platform").to_owned(),
    };
    let tar = BodyReader::new(context.take_body());
    let engine = context.engine().clone();
    progress::run(|messages, cancel| async move { engine.import_image(options, tar, messages, cancel).await })
        .await
}

pub(super) async fn push(mut context: Context) -> ApiResult<Response<Body>> {
    body::drain(context.take_body()).await?;
    let auth = registry_auth(&context);
    let (image, tag) = (context.name().to_owned(), context.query.get("tag").to_owned());
    let options = Push {
        platform: context.query.get("platform").to_owned(),
        compression: context.query.get("compression").to_owned(),
    };
    let engine = context.engine().clone();
    progress::run(|messages, cancel| async move {
        engine.push_image(&image, &tag, options, auth, messages, cancel).await
    })
    .await
}

pub(super) async fn load(mut context: Context) -> ApiResult<Response<Body>> {
    let quiet = context.query.flag("quiet");
    let platforms = context.query.list("platform");
    let tar = BodyReader::new(context.take_body());
    let engine = context.engine().clone();
    // As docker: what is wrong with the archive is told in the stream.
    Ok(progress::run_in_band(|messages, cancel| async move {
        engine.load_images(tar, quiet, platforms, messages, cancel).await
    }))
}

pub(super) async fn save(context: Context) -> ApiResult<Response<Body>> {
    let names = context.query.all("names").to_vec();
    let platforms = context.query.list("platform");
    Ok(body::stream(body::TAR, context.engine().save_images(names, &platforms).await?))
}

pub(super) async fn save_one(context: Context) -> ApiResult<Response<Body>> {
    let (name, platforms) = (context.name().to_owned(), context.query.list("platform"));
    Ok(body::stream(body::TAR, context.engine().save_images(vec![name], &platforms).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_in_every_base64() {
        let json = r#"{"username":"u","password":"p>>>?","serveraddress":"https://r/"}"#;
        let padded = base64::engine::general_purpose::STANDARD.encode(json);
        let url = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json);
        for text in [padded, url] {
            let auth: AuthConfig = base64_json(&text);
            assert_eq!((auth.username.as_str(), auth.password.as_str()), ("u", "p>>>?"), "{text}");
        }
        assert_eq!(base64_json::<AuthConfig>(""), AuthConfig::default());
        assert_eq!(base64_json::<AuthConfig>("!!"), AuthConfig::default());
    }
}
