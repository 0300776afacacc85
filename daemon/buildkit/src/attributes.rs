//! What a client says of a build (`FrontendOpt`), as the builder's options. Names are those of BuildKit's
//! `frontend/dockerui`; what is unknown here is left alone, as there.

use std::collections::{BTreeMap, HashMap};

use berth_api::build::BuildOptions;
use berth_api::container::Ulimit;
use serde::Deserialize;
use tonic::Status;

/// A build as asked for.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// What the builder knows as well.
    pub(crate) options: BuildOptions,
    /// The main context.
    pub(crate) context: Place,
    /// What the client calls the directory with the Dockerfile.
    pub(crate) dockerfile_directory: String,
    /// Whether the Dockerfile comes from there even if the context is elsewhere.
    pub(crate) dockerfile_is_local: bool,
    /// The Dockerfile's path in its directory.
    pub(crate) filename: String,
    /// Other contexts by name.
    pub(crate) named: BTreeMap<String, Place>,
    /// Stages to build whatever the cache says.
    pub(crate) no_cache_filter: Vec<String>,
    /// Where results of other builds are.
    pub(crate) cache_imports: Vec<CacheImport>,
    /// Sessions that have a directory, where it is not the build's own.
    pub(crate) sessions: HashMap<String, String>,
    /// What directories are called from one build to the next.
    pub(crate) shared_keys: HashMap<String, String>,
}

/// Where files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A directory of the client's.
    Local(String),
    /// A repository, an archive, a file.
    Url(String),
    /// An archive that the client sends over its session.
    Upload(String),
    /// An image.
    Image(String),
    /// What the client hands over beside the attributes, by its name there.
    Input(String),
}

impl Default for Place {
    fn default() -> Self {
        Self::Local("context".to_owned())
    }
}

/// Where results of other builds are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CacheImport {
    /// `registry`, `local`, …
    pub(crate) r#type: String,
    #[serde(default)]
    pub(crate) attrs: HashMap<String, String>,
}

/// The host part of URLs that stand for uploads.
const UPLOAD: &str = "http://buildkit-session/";

/// Reads the attributes.
pub(crate) fn read(attributes: &HashMap<String, String>) -> Result<Asked, Status> {
    let text = |key: &str| attributes.get(key).cloned().unwrap_or_default();
    let with = |prefix: &str| {
        let pairs = attributes
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone())));
        pairs.collect::<BTreeMap<String, String>>()
    };
    let number = |key: &str| match attributes.get(key).map(|text| text.parse::<i64>()) {
        None => Ok(0),
        Some(parsed) => parsed.map_err(|_| invalid(format!("{key}: {:?} is no number", text(key)))),
    };
    let no_cache = attributes.get("no-cache");
    let options = BuildOptions {
        target: text("target"),
        cgroup_parent: text("cgroup-parent"),
        network_mode: network(&text("force-network-mode"))?,
        extra_hosts: hosts(&text("add-hosts")),
        pull: attributes.get("image-resolve-mode").is_some_and(|mode| mode == "pull"),
        no_cache: no_cache.is_some_and(String::is_empty),
        shm_size: number("shm-size")?,
        ulimits: ulimits(&text("ulimit"))?,
        memory: number("memory")?,
        memory_swap: number("memswap")?,
        cpu_shares: number("cpushares")?,
        cpu_period: number("cpuperiod")?,
        cpu_quota: number("cpuquota")?,
        cpuset_cpus: text("cpusetcpus"),
        cpuset_mems: text("cpusetmems"),
        platform: text("platform"),
        build_args: with("build-arg:").into_iter().map(|(name, value)| (name, Some(value))).collect(),
        labels: with("label:"),
        ..BuildOptions::default()
    };
    let filter = no_cache.filter(|list| !list.is_empty());
    let filename = attributes.get("filename").filter(|name| !name.is_empty());
    Ok(Asked {
        options,
        context: main_context(attributes),
        dockerfile_directory: attributes
            .get("dockerfilekey")
            .cloned()
            .unwrap_or_else(|| "dockerfile".to_owned()),
        dockerfile_is_local: attributes.contains_key("dockerfilekey"),
        filename: filename.cloned().unwrap_or_else(|| "Dockerfile".to_owned()),
        named: named(with("context:"))?,
        no_cache_filter: filter.map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default(),
        cache_imports: cache_imports(attributes)?,
        sessions: with("local-sessionid:").into_iter().collect(),
        shared_keys: with("sharedkey:localdir:").into_iter().collect(),
    })
}

fn invalid(message: String) -> Status {
    Status::invalid_argument(message)
}

fn main_context(attributes: &HashMap<String, String>) -> Place {
    let local = attributes.get("contextkey").map_or("context", String::as_str);
    let Some(url) = attributes.get(local).filter(|url| !url.is_empty()) else {
        return match attributes.contains_key("input:context") {
            true => Place::Input("context".to_owned()),
            false => Place::Local(local.to_owned()),
        };
    };
    match url.strip_prefix(UPLOAD) {
        Some(_) => Place::Upload(url.clone()),
        None => match attributes.get("contextsubdir") {
            Some(directory) => Place::Url(format!("{url}#:{directory}")),
            None => Place::Url(url.clone()),
        },
    }
}

/// `name=local:dir`, or an image, a URL, an input. Of several platforms, each has a name of its own
/// (`name::linux/amd64`); here they are one.
fn named(contexts: BTreeMap<String, String>) -> Result<BTreeMap<String, Place>, Status> {
    let mut named = BTreeMap::new();
    for (name, value) in contexts {
        let name = name.split_once("::").map_or(name.as_str(), |(name, _)| name).to_owned();
        let place = match value.split_once(':') {
            Some(("local", directory)) => Place::Local(directory.to_owned()),
            Some(("input", input)) => Place::Input(input.to_owned()),
            Some(("docker-image", image)) => Place::Image(image.trim_start_matches('/').to_owned()),
            Some(("oci-layout", _)) => {
                return Err(Status::unimplemented(format!(
                    "build context {name}: a directory with an OCI layout cannot be a context here; load it \
                     (docker load) and name the image (docker-image://NAME)"
                )));
            }
            _ => Place::Url(value),
        };
        named.insert(name, place);
    }
    Ok(named)
}

fn network(mode: &str) -> Result<String, Status> {
    match mode {
        "" | "sandbox" => Ok(String::new()),
        "host" | "none" => Ok(mode.to_owned()),
        other => Err(invalid(format!("invalid network mode {other:?}: it is none, host or sandbox"))),
    }
}

/// `name=address,…`
fn hosts(list: &str) -> Vec<String> {
    let pairs = list.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, address)| format!("{name}:{address}")).collect()
}

/// `nofile=1024:2048,core=-1`
fn ulimits(list: &str) -> Result<Vec<Ulimit>, Status> {
    let one = |entry: &str| {
        let wrong = || invalid(format!("invalid ulimit {entry:?}: it is name=soft[:hard]"));
        let (name, limits) = entry.split_once('=').ok_or_else(wrong)?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let number = |text: &str| text.parse().map_err(|_| wrong());
        Ok(Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
    };
    list.split(',').filter(|entry| !entry.is_empty()).map(one).collect()
}

fn cache_imports(attributes: &HashMap<String, String>) -> Result<Vec<CacheImport>, Status> {
    let mut imports: Vec<CacheImport> = match attributes.get("cache-imports").filter(|text| !text.is_empty())
    {
        None => Vec::new(),
        Some(text) => serde_json::from_str::<Option<_>>(text)
            .map_err(|error| invalid(format!("cache-imports: {error}")))?
            .unwrap_or_default(),
    };
    let names = attributes.get("cache-from").into_iter().flat_map(|list| list.split(','));
    for name in names.filter(|name| !name.is_empty()) {
        let attrs = HashMap::from([("ref".to_owned(), name.to_owned())]);
        imports.push(CacheImport { r#type: "registry".to_owned(), attrs });
    }
    Ok(imports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs: &[(&str, &str)]) -> Result<Asked, Status> {
        read(&pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn attributes_are_options() {
        let asked = asked(&[
            ("filename", "app.Dockerfile"),
            ("build-arg:A", "1"),
            ("label:l", "x"),
            ("add-hosts", "a=1.2.3.4,b=::1"),
            ("ulimit", "nofile=10:20,core=0"),
            ("shm-size", "1024"),
            ("no-cache", "a,b"),
            ("image-resolve-mode", "local"),
            ("context:base::linux/amd64", "docker-image://busybox"),
            ("context:src", "local:src"),
            ("sharedkey:localdir:src", "key"),
            ("cache-imports", r#"[{"Type":"registry","Attrs":{"ref":"a/b"}},{"Type":"inline"}]"#),
            ("vcs:source", "ignored"),
        ])
        .unwrap();
        assert_eq!(asked.filename, "app.Dockerfile");
        assert_eq!(asked.options.build_args["A"].as_deref(), Some("1"));
        assert_eq!(asked.options.extra_hosts, ["a:1.2.3.4", "b:::1"]);
        assert_eq!(asked.options.ulimits[0].hard, 20);
        assert_eq!((asked.options.no_cache, asked.options.pull), (false, false));
        assert_eq!(asked.no_cache_filter, ["a", "b"]);
        assert_eq!(asked.named["base"], Place::Image("busybox".into()));
        assert_eq!(asked.named["src"], Place::Local("src".into()));
        assert_eq!(asked.cache_imports[0].attrs["ref"], "a/b");
        assert_eq!(asked.context, Place::Local("context".into()));
    }

    #[test]
    fn contexts_elsewhere() {
        let context = |url| asked(&[("context", url)]).unwrap().context;
        assert_eq!(context("https://h/r.git#main"), Place::Url("https://h/r.git#main".into()));
        assert_eq!(context("http://buildkit-session/ab"), Place::Upload("http://buildkit-session/ab".into()));
    }

    #[test]
    fn what_has_no_sense_is_refused() {
        for pair in [
            ("shm-size", "x"),
            ("ulimit", "nofile"),
            ("force-network-mode", "mine"),
            ("context:x", "oci-layout://a"),
        ] {
            assert!(asked(&[pair]).is_err(), "{pair:?}");
        }
    }
}
