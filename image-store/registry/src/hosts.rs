//! Where a registry is really spoken to: mirrors, certificates and headers from `certs.d/<registry>/`, read anew at
//! every operation.
//!
//! * `hosts.toml` as containerd has it (containerd, docs/hosts.md): `server`, and `[host."<url>"]` tables in order of
//!   preference, each with `capabilities`, `ca`, `client`, `skip_verify`, `override_path` and `header`.
//! * Without one, as docker has it (docs.docker.com, "Verify repository client with certificates"): `*.crt` are
//!   authorities, `*.cert` with `*.key` is who we are.
//!
//! The directories of the configuration are looked through in order; the first that knows the registry decides.
//! `_default/hosts.toml` is for registries that have no directory of their own.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Value;
use url::Url;

use crate::error::RegistryError;
use crate::types::RegistryConfig;

/// One server that has a registry's content.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Host {
    /// `scheme://host[:port]/v2`, or another path with `override_path`.
    pub(crate) base: String,
    pub(crate) capabilities: Capabilities,
    pub(crate) tls: Tls,
    /// Sent with every request.
    pub(crate) headers: Vec<(String, String)>,
    /// The registry itself: credentials are for it alone.
    pub(crate) origin: bool,
}

impl Host {
    /// With certificates. Whoever gives some for a registry means TLS, also where plain HTTP would be allowed.
    fn trusting(mut self, tls: Tls) -> Self {
        if tls != Tls::default()
            && let Some(rest) = self.base.strip_prefix("http://")
        {
            self.base = format!("https://{rest}");
        }
        Self { tls, ..self }
    }
}

/// What a server may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Anything by digest.
    pub(crate) pull: bool,
    /// What a tag means.
    pub(crate) resolve: bool,
    /// Taking uploads.
    pub(crate) push: bool,
}

/// What a capability is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capability {
    Pull,
    Resolve,
    Push,
}

impl Capabilities {
    const ALL: Self = Self { pull: true, resolve: true, push: true };

    pub(crate) fn has(self, wanted: Capability) -> bool {
        match wanted {
            Capability::Pull => self.pull,
            Capability::Resolve => self.resolve,
            Capability::Push => self.push,
        }
    }
}

/// How a TLS connection is trusted, and who we are on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tls {
    /// Files of authorities, beside the system's.
    pub(crate) ca: Vec<PathBuf>,
    /// Certificate and key; one file may hold both.
    pub(crate) client: Vec<(PathBuf, Option<PathBuf>)>,
    pub(crate) skip_verify: bool,
}

#[derive(Deserialize)]
struct File {
    server: Option<String>,
    #[serde(default)]
    host: toml::Table,
    #[serde(flatten)]
    settings: Settings,
}

#[derive(Deserialize, Default)]
struct Settings {
    capabilities: Option<Vec<String>>,
    ca: Option<Value>,
    client: Option<Value>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
    #[serde(default)]
    header: toml::Table,
}

/// The servers of a registry, the preferred first, the registry itself last.
pub(crate) fn hosts_of(config: &RegistryConfig, registry: &str) -> Result<Vec<Host>, RegistryError> {
    for directory in &config.host_dirs {
        for name in names(registry) {
            let place = directory.join(&name);
            let file = place.join("hosts.toml");
            if file.is_file() {
                return read(config, registry, &place, &file);
            }
            if place.is_dir() {
                return Ok(vec![origin(config, registry).trusting(docker_style(&place)?)]);
            }
        }
    }
    for directory in &config.host_dirs {
        let place = directory.join("_default");
        let file = place.join("hosts.toml");
        if file.is_file() {
            return read(config, registry, &place, &file);
        }
    }
    Ok(vec![origin(config, registry)])
}

/// The names that a registry's directory may have; some file systems do not like colons.
fn names(registry: &str) -> Vec<String> {
    let mut names = vec![registry.to_owned()];
    if let Some((host, port)) = registry.rsplit_once(':') {
        names.push(format!("{host}_{port}_"));
    }
    names
}

fn origin(config: &RegistryConfig, registry: &str) -> Host {
    let scheme = if config.is_plain(registry) { "http" } else { "https" };
    // What is called docker.io is served elsewhere.
    let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    Host {
        base: format!("{scheme}://{host}/v2"),
        capabilities: Capabilities::ALL,
        tls: Tls::default(),
        headers: Vec::new(),
        origin: true,
    }
}

fn read(
    config: &RegistryConfig,
    registry: &str,
    place: &Path,
    file: &Path,
) -> Result<Vec<Host>, RegistryError> {
    let bad = |reason: String| RegistryError::HostsFile { path: file.to_owned(), reason };
    let text = std::fs::read_to_string(file).map_err(|error| bad(error.to_string()))?;
    let parsed: File = toml::from_str(&text).map_err(|error| bad(error.to_string()))?;
    let mut hosts = Vec::new();
    for (address, table) in parsed.host {
        let settings: Settings =
            table.try_into().map_err(|error| bad(format!("[host.{address:?}]: {error}")))?;
        hosts.push(host(place, &address, settings).map_err(&bad)?);
    }
    let own = origin(config, registry);
    let own = match &parsed.server {
        Some(server) => Host { origin: true, ..host(place, server, parsed.settings).map_err(&bad)? },
        None => {
            let Host { capabilities, tls, headers, .. } =
                host(place, &own.base, parsed.settings).map_err(&bad)?;
            Host { capabilities, headers, ..own }.trusting(tls)
        }
    };
    // A table for the registry itself says how, not where else.
    match hosts.iter_mut().find(|host| host.base == own.base) {
        Some(same) => same.origin = true,
        None => hosts.push(own),
    }
    Ok(hosts)
}

fn host(place: &Path, address: &str, settings: Settings) -> Result<Host, String> {
    let full = if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
    let url = Url::parse(&full).map_err(|error| format!("{address:?} is no address: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("{address:?} is no address: http:// or https:// and a host are expected"));
    }
    let mut base = full.trim_end_matches('/').to_owned();
    if !settings.override_path && !base.ends_with("/v2") {
        base.push_str("/v2");
    }
    let capabilities = match settings.capabilities {
        None => Capabilities::ALL,
        Some(words) => {
            let mut capabilities = Capabilities { pull: false, resolve: false, push: false };
            for word in words {
                match word.as_str() {
                    "pull" => capabilities.pull = true,
                    "resolve" => capabilities.resolve = true,
                    "push" => capabilities.push = true,
                    other => return Err(format!("unknown capability {other:?}: pull, resolve or push")),
                }
            }
            capabilities
        }
    };
    let mut headers = Vec::new();
    for (name, value) in settings.header {
        headers.extend(strings(&value)?.into_iter().map(|value| (name.clone(), value)));
    }
    let tls = Tls {
        ca: settings.ca.map_or(Ok(Vec::new()), |ca| strings(&ca))?.iter().map(|ca| place.join(ca)).collect(),
        client: settings.client.map_or(Ok(Vec::new()), |client| pairs(place, &client))?,
        skip_verify: settings.skip_verify,
    };
    Ok(Host { base, capabilities, tls, headers, origin: false })
}

/// A string, or a list of them.
fn strings(value: &Value) -> Result<Vec<String>, String> {
    let text = |value: &Value| {
        value.as_str().map(str::to_owned).ok_or_else(|| format!("{value:?} should be a string"))
    };
    match value {
        Value::Array(values) => values.iter().map(text).collect(),
        value => Ok(vec![text(value)?]),
    }
}

/// Client certificates: `"file"`, `["file", …]` or `[["certificate", "key"], …]`.
fn pairs(place: &Path, value: &Value) -> Result<Vec<(PathBuf, Option<PathBuf>)>, String> {
    let Value::Array(values) = value else {
        return Ok(strings(value)?.iter().map(|file| (place.join(file), None)).collect());
    };
    let pair = |value: &Value| match strings(value)?.as_slice() {
        [file] => Ok((place.join(file), None)),
        [certificate, key] => Ok((place.join(certificate), Some(place.join(key)))),
        _ => Err(format!("{value:?} should be a file, or a certificate and its key")),
    };
    values.iter().map(pair).collect()
}

fn docker_style(place: &Path) -> Result<Tls, RegistryError> {
    let bad = |error: std::io::Error| RegistryError::HostsFile {
        path: place.to_owned(),
        reason: error.to_string(),
    };
    let mut tls = Tls::default();
    for entry in std::fs::read_dir(place).map_err(bad)? {
        let path = entry.map_err(bad)?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => tls.ca.push(path),
            Some("cert") => tls.client.push((path.clone(), Some(path.with_extension("key")))),
            _ => {}
        }
    }
    tls.ca.sort();
    tls.client.sort();
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(directory: &Path) -> RegistryConfig {
        RegistryConfig { host_dirs: vec![directory.to_owned()], ..RegistryConfig::default() }
    }

    fn written(name: &str, text: &str) -> (tempfile::TempDir, RegistryConfig) {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join(name);
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("hosts.toml"), text).unwrap();
        let config = config(directory.path());
        (directory, config)
    }

    #[test]
    fn a_registry_without_a_file_is_itself() {
        let config = RegistryConfig { host_dirs: Vec::new(), ..RegistryConfig::default() };
        let base = |registry| hosts_of(&config, registry).unwrap().remove(0).base;
        assert_eq!(base("example.org:5000"), "https://example.org:5000/v2");
        assert_eq!(base("localhost:5000"), "http://localhost:5000/v2");
        assert_eq!(base("docker.io"), "https://registry-1.docker.io/v2");
    }

    #[test]
    fn mirrors_come_first_and_in_order() {
        let text = r#"
            server = "https://origin.example"
            ca = "origin.pem"
            [host."http://10.0.0.1:5000"]
              capabilities = ["pull"]
            [host."mirror.example/some/where/"]
              capabilities = ["pull", "resolve"]
              override_path = true
              ca = ["/abs.pem", "relative.pem"]
              client = [["c.pem", "k.pem"], ["both.pem"]]
              skip_verify = true
              [host."mirror.example/some/where/".header]
                x-one = "1"
                x-many = ["a", "b"]
        "#;
        let (directory, config) = written("example.org_5000_", text);
        let place = directory.path().join("example.org_5000_");
        let hosts = hosts_of(&config, "example.org:5000").unwrap();
        let bases: Vec<_> = hosts.iter().map(|host| (host.base.as_str(), host.origin)).collect();
        assert_eq!(
            bases,
            [
                ("http://10.0.0.1:5000/v2", false),
                ("https://mirror.example/some/where", false),
                ("https://origin.example/v2", true)
            ]
        );
        assert!(hosts[0].capabilities.pull && !hosts[0].capabilities.resolve && !hosts[0].capabilities.push);
        assert_eq!(hosts[1].tls.ca, [PathBuf::from("/abs.pem"), place.join("relative.pem")]);
        assert_eq!(
            hosts[1].tls.client,
            [(place.join("c.pem"), Some(place.join("k.pem"))), (place.join("both.pem"), None)]
        );
        assert!(hosts[1].tls.skip_verify);
        assert_eq!(hosts[1].headers.len(), 3);
        assert_eq!(hosts[2].tls.ca, [place.join("origin.pem")]);
        // What is not named goes by the default, if there is one.
        assert_eq!(hosts_of(&config, "other.example").unwrap().len(), 1);
    }

    #[test]
    fn the_default_is_for_the_rest() {
        let (_directory, config) = written("_default", "[host.\"https://cache.example\"]");
        let hosts = hosts_of(&config, "other.example").unwrap();
        assert_eq!(hosts[0].base, "https://cache.example/v2");
        assert_eq!(hosts[1].base, "https://other.example/v2");
    }

    #[test]
    fn docker_s_directories_work_too() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("example.org");
        std::fs::create_dir(&place).unwrap();
        for name in ["ca.crt", "me.cert", "me.key", "README"] {
            std::fs::write(place.join(name), "").unwrap();
        }
        let host = hosts_of(&config(directory.path()), "example.org").unwrap().remove(0);
        assert_eq!(host.tls.ca, [place.join("ca.crt")]);
        assert_eq!(host.tls.client, [(place.join("me.cert"), Some(place.join("me.key")))]);
    }

    #[test]
    fn certificates_mean_tls_on_loopback_too() {
        let (directory, toml) = written("127.0.0.1:5000", "capabilities = [\"pull\"]");
        assert_eq!(hosts_of(&toml, "127.0.0.1:5000").unwrap()[0].base, "http://127.0.0.1:5000/v2");
        let place = directory.path().join("127.0.0.1:5000");
        std::fs::write(place.join("hosts.toml"), "ca = \"ca.crt\"").unwrap();
        assert_eq!(hosts_of(&toml, "127.0.0.1:5000").unwrap()[0].base, "https://127.0.0.1:5000/v2");
        std::fs::remove_file(place.join("hosts.toml")).unwrap();
        assert_eq!(hosts_of(&toml, "127.0.0.1:5000").unwrap()[0].base, "http://127.0.0.1:5000/v2");
        std::fs::write(place.join("ca.crt"), "").unwrap();
        assert_eq!(hosts_of(&toml, "127.0.0.1:5000").unwrap()[0].base, "https://127.0.0.1:5000/v2");
    }

    #[test]
    fn mistakes_are_named_with_their_file() {
        for (text, reason) in [
            ("server = 5", "invalid type"),
            ("[host.\"ftp://x\"]", "http://"),
            ("[host.\"https://x\"]\ncapabilities = [\"fly\"]", "fly"),
            ("[host.\"https://x\"]\nclient = [[\"a\", \"b\", \"c\"]]", "certificate"),
            ("[host.\"https://x\"", "hosts.toml"),
        ] {
            let (_directory, config) = written("example.org", text);
            let error = hosts_of(&config, "example.org").unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("example.org/hosts.toml"), "{text}: {error}");
        }
    }
}
