//! Registry credentials from docker's own configuration: `auths` and credential helpers of
//! `~/.docker/config.json` (or `$DOCKER_CONFIG/config.json`).

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use berth_api::registry::{AuthConfig, RegistryAuths};
use serde::Deserialize;

/// What Docker Hub is called in the configuration.
const HUB: &str = "https://index.docker.io/v1/";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, AuthConfig>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

/// The credentials for a build: all that the file itself knows.
pub(crate) fn for_build() -> Result<RegistryAuths> {
    read()?.auths.into_iter().map(|(host, auth)| Ok((host, decoded(auth)?))).collect()
}

/// The credentials for the registry of `image`, if we know any.
pub(crate) fn for_image(image: &str) -> Result<Option<AuthConfig>> {
    let config = read()?;
    let (host, path) = match image.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
        _ => (HUB, image),
    };
    if let Some(helper) = config.cred_helpers.get(host) {
        return ask_helper(helper, host).map(Some);
    }
    // The longest prefix wins: a login for host/team is for that team's images only.
    let repository = format!("{host}/{path}");
    let fits = |key: &str| {
        let bare = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
        key == host
            || bare == host
            || repository.strip_prefix(bare).is_some_and(|rest| rest.starts_with(['/', ':']))
    };
    let found = config.auths.into_iter().filter(|(key, _)| fits(key)).max_by_key(|(key, _)| key.len());
    match found {
        Some((_, auth)) if auth != AuthConfig::default() => decoded(auth).map(Some),
        _ if !config.creds_store.is_empty() => ask_helper(&config.creds_store, host).map(Some),
        _ => Ok(None),
    }
}

fn read() -> Result<Config> {
    let dir = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let dir = dir.or_else(|| std::env::home_dir().map(|home| home.join(".docker")));
    let Some(file) = dir.map(|dir| dir.join("config.json")) else { return Ok(Config::default()) };
    match std::fs::read(&file) {
        Ok(text) => {
            serde_json::from_slice(&text).with_context(|| format!("{} is not understood", file.display()))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Config::default()),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Takes `auth`, base64 of `user:password`, apart.
fn decoded(mut auth: AuthConfig) -> Result<AuthConfig> {
    if auth.username.is_empty() && !auth.auth.is_empty() {
        let text =
            STANDARD.decode(&auth.auth).context("an auth entry of docker's configuration is no base64")?;
        let text = String::from_utf8(text).context("an auth entry of docker's configuration is no text")?;
        let (user, password) =
            text.split_once(':').context("an auth entry of docker's configuration has no ':'")?;
        (auth.username, auth.password) = (user.to_owned(), password.trim_end_matches('\0').to_owned());
    }
    auth.auth = String::new();
    Ok(auth)
}

/// Asks `docker-credential-<helper> get` (docker's credential helper protocol).
fn ask_helper(helper: &str, host: &str) -> Result<AuthConfig> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let program = format!("docker-credential-{helper}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start the credential helper {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(host.as_bytes()).with_context(|| format!("cannot ask {program}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("{program} broke off"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if said.contains("credentials not found") {
            return Ok(AuthConfig::default());
        }
        bail!("{program} get {host}: {}", said.trim_end());
    }
    let answer: Answer =
        serde_json::from_slice(&output.stdout).with_context(|| format!("{program}'s answer"))?;
    Ok(if answer.username == "<token>" {
        AuthConfig { identity_token: answer.secret, ..AuthConfig::default() }
    } else {
        AuthConfig { username: answer.username, password: answer.secret, ..AuthConfig::default() }
    })
}
