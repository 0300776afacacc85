//! Registry credentials in docker's own configuration: `auths`, `credHelpers` and `credsStore` of
//! `~/.docker/config.json` (or `$DOCKER_CONFIG/config.json`).
//!
//! Whose login counts for `host/team/app`: of all entries of `auths` and `credHelpers` that are a prefix of it, at the
//! end of a path component, the longest one; a helper before an entry of equal length; `credsStore` for what has no
//! entry with credentials in it.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use berth_api::registry::{AuthConfig, RegistryAuths};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What Docker Hub is called in the configuration.
pub(crate) const HUB: &str = "https://index.docker.io/v1/";

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

/// All logins that there are: those of the file, of the helpers for single registries, and of the one for the rest.
pub(crate) fn all() -> Result<RegistryAuths> {
    let config = read()?;
    let mut all = RegistryAuths::new();
    let mut keep = |registry: String, login: AuthConfig| {
        if login != AuthConfig::default() {
            all.insert(registry, login);
        }
    };
    if !config.creds_store.is_empty() {
        for registry in listed_by_helper(&config.creds_store)? {
            let login = ask_helper(&config.creds_store, &registry)?;
            keep(registry, login);
        }
    }
    for (registry, login) in config.auths {
        keep(registry, decoded(login)?);
    }
    for (registry, helper) in config.cred_helpers {
        let login = ask_helper(&helper, &registry)?;
        keep(registry, login);
    }
    Ok(all)
}

/// The credentials for the registry of `image`, if we know any.
pub(crate) fn for_image(image: &str) -> Result<Option<AuthConfig>> {
    choose(read()?, image, ask_helper)
}

fn choose(
    config: Config,
    image: &str,
    ask: impl Fn(&str, &str) -> Result<AuthConfig>,
) -> Result<Option<AuthConfig>> {
    let (host, path) = match image.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
        _ => (HUB, image),
    };
    let repository = format!("{}/{path}", bare(host));
    let length = |key: &String| {
        let key = bare(key);
        let fits = repository
            .strip_prefix(key)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']));
        fits.then_some(key.len())
    };
    let helper =
        config.cred_helpers.iter().filter_map(|(key, helper)| Some((length(key)?, key, helper))).max();
    let auth = config.auths.into_iter().filter_map(|(key, auth)| Some((length(&key)?, auth)));
    let auth = auth.max_by_key(|(length, _)| *length);
    if let Some((length, key, helper)) = helper
        && auth.as_ref().is_none_or(|(other, _)| length >= *other)
    {
        return ask(helper, key).map(Some);
    }
    match auth {
        Some((_, auth)) if auth != AuthConfig::default() => decoded(auth).map(Some),
        _ if !config.creds_store.is_empty() => ask(&config.creds_store, host).map(Some),
        _ => Ok(None),
    }
}

/// An entry without scheme and the version that old ones carry.
fn bare(key: &str) -> &str {
    let key = key.trim_start_matches("https://").trim_start_matches("http://");
    key.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2")
}

/// The directory that `--config` names.
static GIVEN: OnceLock<PathBuf> = OnceLock::new();

/// Takes another directory for docker's configuration than the environment says. Only the first counts.
pub(crate) fn use_directory(dir: PathBuf) {
    GIVEN.set(dir).ok();
}

/// Docker's own configuration.
pub(crate) fn directory() -> Result<PathBuf> {
    if let Some(dir) = GIVEN.get() {
        return Ok(dir.clone());
    }
    let dir = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let dir = dir.or_else(|| std::env::home_dir().map(|home| home.join(".docker")));
    dir.context("there is no home directory for docker's configuration; set DOCKER_CONFIG")
}

fn file() -> Result<PathBuf> {
    Ok(directory()?.join("config.json"))
}

fn read() -> Result<Config> {
    let Ok(file) = file() else { return Ok(Config::default()) };
    match std::fs::read(&file) {
        Ok(text) => {
            serde_json::from_slice(&text).with_context(|| format!("{} is not understood", file.display()))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Config::default()),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Keeps a login: with the helper that is responsible for it, else in the file. Says where.
pub(crate) fn store(key: &str, auth: &AuthConfig) -> Result<String> {
    let config = read()?;
    let helper = config.cred_helpers.get(key).cloned().or(Some(config.creds_store).filter(|s| !s.is_empty()));
    let mut entry = Map::new();
    let place = match helper {
        Some(helper) => {
            let (user, secret) = match auth.identity_token.as_str() {
                "" => (auth.username.as_str(), auth.password.as_str()),
                token => ("<token>", token),
            };
            let request = json!({"ServerURL": key, "Username": user, "Secret": secret}).to_string();
            run_helper(&helper, "store", &request)?;
            format!("kept by docker-credential-{helper}")
        }
        None => {
            let text = STANDARD.encode(format!("{}:{}", auth.username, auth.password));
            entry.insert("auth".to_owned(), json!(text));
            if !auth.identity_token.is_empty() {
                entry.insert("identitytoken".to_owned(), json!(auth.identity_token));
            }
            format!("kept unencrypted in {}; a credential helper is safer", file()?.display())
        }
    };
    edit(|auths| drop(auths.insert(key.to_owned(), Value::Object(entry))))?;
    Ok(place)
}

/// Forgets a login; false if there was none.
pub(crate) fn erase(key: &str) -> Result<bool> {
    let config = read()?;
    let helper = config.cred_helpers.get(key).cloned().or(Some(config.creds_store).filter(|s| !s.is_empty()));
    let mut known = false;
    if let Some(helper) = helper {
        known = run_helper(&helper, "erase", key).is_ok();
    }
    edit(|auths| known |= auths.shift_remove(key).is_some())?;
    Ok(known)
}

/// Changes `auths` and leaves the rest of the file as it is.
fn edit(change: impl FnOnce(&mut Map<String, Value>)) -> Result<()> {
    let file = file()?;
    let failed = || format!("cannot write {}", file.display());
    let mut config: Map<String, Value> = match std::fs::read(&file) {
        Ok(text) => {
            serde_json::from_slice(&text).with_context(|| format!("{} is not understood", file.display()))?
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Map::new(),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", file.display())),
    };
    let auths = config.entry("auths").or_insert_with(|| Value::Object(Map::new()));
    change(auths.as_object_mut().with_context(|| format!("`auths` of {} is no object", file.display()))?);
    let dir = file.parent().context("the configuration has no directory")?;
    std::fs::create_dir_all(dir).with_context(failed)?;
    let text = serde_json::to_vec_pretty(&config).context("a configuration is JSON")?;
    // Secrets are in it: nobody else may read it, not even for a moment; and never half a file.
    let new = dir.join(format!(".config.json.{}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
    let written = options.open(&new).and_then(|mut to| to.write_all(&text).and_then(|()| to.sync_all()));
    let renamed = written
        .and_then(|()| std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)))
        .and_then(|()| std::fs::rename(&new, &file));
    if renamed.is_err() {
        std::fs::remove_file(&new).ok();
    }
    renamed.with_context(failed)
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
    let output = match run_helper(helper, "get", host) {
        Ok(output) => output,
        Err(error) if error.to_string().contains("credentials not found") => return Ok(AuthConfig::default()),
        Err(error) => return Err(error),
    };
    let answer: Answer = serde_json::from_slice(&output)
        .with_context(|| format!("the answer of docker-credential-{helper} is not understood"))?;
    Ok(if answer.username == "<token>" {
        AuthConfig { identity_token: answer.secret, ..AuthConfig::default() }
    } else {
        AuthConfig { username: answer.username, password: answer.secret, ..AuthConfig::default() }
    })
}

/// The registries that a helper has logins for (`docker-credential-<helper> list`).
fn listed_by_helper(helper: &str) -> Result<Vec<String>> {
    let output = run_helper(helper, "list", "")?;
    let all: BTreeMap<String, String> = serde_json::from_slice(&output)
        .with_context(|| format!("the list of docker-credential-{helper} is not understood"))?;
    Ok(all.into_keys().collect())
}

/// Runs a credential helper; what it prints.
fn run_helper(helper: &str, action: &str, input: &str) -> Result<Vec<u8>> {
    let program = format!("docker-credential-{helper}");
    let mut child = Command::new(&program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start the credential helper {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(|| format!("cannot ask {program}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("{program} broke off"))?;
    if !output.status.success() {
        bail!("{program} {action}: {}", String::from_utf8_lossy(&output.stdout).trim_end());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(config: &str, image: &str) -> String {
        let config = serde_json::from_str(config).unwrap();
        let ask = |helper: &str, host: &str| {
            Ok(AuthConfig { username: format!("{helper} for {host}"), ..AuthConfig::default() })
        };
        choose(config, image, ask).unwrap().map_or_else(|| "nobody".to_owned(), |auth| auth.username)
    }

    #[test]
    fn the_longest_prefix_wins() {
        let auth = |name: &str| STANDARD.encode(format!("{name}:secret"));
        let config = json!({
            "auths": {
                "https://index.docker.io/v1/": {"auth": auth("hub")},
                "r.example": {"auth": auth("all")},
                "r.example/team": {"auth": auth("team")},
                "https://old.example/v1/": {"auth": auth("old")},
                "held.example": {},
            },
            "credHelpers": {"r.example/team/secret": "vault", "h.example": "own"},
        });
        let mut config = config;
        for (image, who) in [
            ("busybox", "hub"),
            ("user/app:1", "hub"),
            ("r.example/app", "all"),
            ("r.example/team/app:v1", "team"),
            ("r.example/teamwork/app", "all"),
            ("r.example/team/secret/app", "vault for r.example/team/secret"),
            ("h.example/x", "own for h.example"),
            ("old.example/x@sha256:00", "old"),
            ("other.example/x", "nobody"),
            ("held.example/x", "nobody"),
        ] {
            assert_eq!(chosen(&config.to_string(), image), who, "{image}");
        }
        config["credsStore"] = json!("desktop");
        assert_eq!(chosen(&config.to_string(), "held.example/x"), "desktop for held.example");
        assert_eq!(chosen(&config.to_string(), "r.example/app"), "all");
    }
}
