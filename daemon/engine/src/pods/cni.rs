//! CNI 1.1: network configurations of a directory, and the plugins that carry them out.
//!
//! The directory is read whenever it matters, so there is nothing to watch and nothing that could be stale: the first
//! file in lexical order that is a configuration counts, and NetworkReady follows at once. What a pod was given is kept
//! with it, for the configuration may have changed when the pod goes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt as _;

use super::model::SandboxSpec;
use crate::error::{EngineError, IoContext as _, Result};

/// Name of a pod's interface.
pub(super) const INTERFACE: &str = "eth0";

/// The newest specification that is spoken.
const NEWEST: &str = "1.1.0";

/// A plugin that takes longer is killed: the orchestrator's own patience is four minutes.
const PATIENCE: Duration = Duration::from_secs(180);

/// Bits of each second in a burst that a bandwidth limit allows; the plugin wants a number.
const BURST: u64 = u32::MAX as u64;

/// Where configurations and plugins are.
#[derive(Debug, Clone)]
pub struct CniDirs {
    /// Configurations: `*.conflist`, `*.conf`, `*.json`.
    pub configurations: PathBuf,
    /// Programs; the first directory that has one counts.
    pub plugins: Vec<PathBuf>,
}

/// A network configuration list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NetworkList {
    cni_version: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cni_versions: Vec<String>,
    name: String,
    #[serde(deserialize_with = "lenient_bool")]
    disable_check: bool,
    #[serde(rename = "disableGC", deserialize_with = "lenient_bool")]
    disable_gc: bool,
    plugins: Vec<Map<String, Value>>,
}

/// libcni takes the text "true" as well.
fn lenient_bool<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Bool(value) => value,
        Value::String(text) => text.eq_ignore_ascii_case("true"),
        _ => false,
    })
}

/// What a pod was given: all that its removal needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attachment {
    list: NetworkList,
    /// Environment of the plugins.
    args: String,
    capabilities: BTreeMap<String, Value>,
    /// What the last plugin of ADD answered; null: ADD did not get so far.
    result: Value,
}

/// The pod as the plugins are told about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) sandbox: &'a str,
    pub(super) netns: &'a Path,
}

impl CniDirs {
    /// The configuration in force; none if the directory has none.
    pub(crate) fn current(&self) -> Result<Option<NetworkList>> {
        let mut names: Vec<PathBuf> = match std::fs::read_dir(&self.configurations) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(EngineError::io("list", &self.configurations, error)),
        };
        names.retain(|path| {
            let extension = path.extension().and_then(OsStr::to_str);
            matches!(extension, Some("conflist" | "conf" | "json"))
        });
        names.sort();
        let mut first_problem = None;
        for path in names {
            match read_list(&path) {
                Ok(list) => return Ok(Some(list)),
                Err(error) => {
                    first_problem.get_or_insert(error);
                }
            }
        }
        first_problem.map_or(Ok(None), Err)
    }

    /// Whether pods can be put on the network: the plugins' own word, where they know the question.
    pub(crate) async fn status(&self, list: &NetworkList) -> Result<()> {
        let version = list.version();
        for plugin in &list.plugins {
            self.find(plugin)?;
        }
        if !at_least(&version, (1, 1)) {
            return Ok(());
        }
        for plugin in &list.plugins {
            let config = list.config_of(plugin, &version, &BTreeMap::new(), None);
            match self.run(plugin, "STATUS", &[], &config).await {
                Ok(_) => {}
                Err(error) if error.is_unknown_verb() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Puts a pod on the network. The attachment holds what its removal needs also when this fails.
    pub(super) async fn add(&self, subject: Subject<'_>, attachment: &mut Attachment) -> Result<Vec<IpAddr>> {
        let list = attachment.list.clone();
        let version = list.version();
        let mut previous = Value::Null;
        for plugin in &list.plugins {
            let config = list.config_of(plugin, &version, &attachment.capabilities, Some(&previous));
            let answer = self.run(plugin, "ADD", &attachment.environment(subject), &config).await?;
            previous = answer;
        }
        attachment.result = previous;
        let addresses = addresses(&attachment.result);
        if addresses.is_empty() {
            let name = &list.name;
            return Err(EngineError::internal(format!("the CNI network {name:?} gave the pod no address")));
        }
        Ok(addresses)
    }

    /// Whether the pod still has what it was given.
    pub(super) async fn check(&self, subject: Subject<'_>, attachment: &Attachment) -> Result<()> {
        let list = &attachment.list;
        let version = list.version();
        if list.disable_check || !at_least(&version, (0, 4)) {
            return Ok(());
        }
        for plugin in &list.plugins {
            let result = Some(&attachment.result);
            let config = list.config_of(plugin, &version, &attachment.capabilities, result);
            self.run(plugin, "CHECK", &attachment.environment(subject), &config).await?;
        }
        Ok(())
    }

    /// Takes a pod off the network; in reverse order, and past errors.
    pub(super) async fn delete(&self, subject: Subject<'_>, attachment: &Attachment) -> Result<()> {
        let list = &attachment.list;
        let version = list.version();
        let mut errors = Vec::new();
        for plugin in list.plugins.iter().rev() {
            let result = Some(&attachment.result);
            let config = list.config_of(plugin, &version, &attachment.capabilities, result);
            let done = self.run(plugin, "DEL", &attachment.environment(subject), &config).await;
            errors.extend(done.err().map(EngineError::from));
        }
        EngineError::collect("taking the pod off its CNI network", errors).map_or(Ok(()), Err)
    }

    /// Lets the plugins free what belongs to no pod of these.
    pub(super) async fn collect_garbage(&self, list: &NetworkList, sandboxes: &[String]) -> Result<()> {
        let version = list.version();
        if list.disable_gc || !at_least(&version, (1, 1)) {
            return Ok(());
        }
        let valid: Vec<Value> =
            sandboxes.iter().map(|id| json!({"containerID": id, "ifname": INTERFACE})).collect();
        let mut errors = Vec::new();
        for plugin in &list.plugins {
            let mut config = list.config_of(plugin, &version, &BTreeMap::new(), None);
            config.insert("cni.dev/valid-attachments".into(), valid.clone().into());
            match self.run(plugin, "GC", &[], &config).await {
                Err(error) if !error.is_unknown_verb() => errors.push(error.into()),
                _ => {}
            }
        }
        EngineError::collect("collecting garbage of CNI", errors).map_or(Ok(()), Err)
    }

    fn find(&self, plugin: &Map<String, Value>) -> Result<PathBuf> {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        if kind.is_empty() || kind.contains('/') {
            return Err(EngineError::invalid(format!("{kind:?} is no type of a CNI plugin")));
        }
        let found = self.plugins.iter().map(|dir| dir.join(kind)).find(|path| path.is_file());
        found.ok_or_else(|| {
            let dirs: Vec<_> = self.plugins.iter().map(|dir| dir.display().to_string()).collect();
            EngineError::internal(format!(
                "the CNI plugin {kind:?} is in none of {}: install it, or name its directory with --cni-bin-dir",
                dirs.join(", ")
            ))
        })
    }

    async fn run(
        &self,
        plugin: &Map<String, Value>,
        verb: &str,
        environment: &[(&str, String)],
        config: &Map<String, Value>,
    ) -> Result<Value, PluginError> {
        let program = self.find(plugin).map_err(PluginError::Engine)?;
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let failed = |error: std::io::Error| {
            PluginError::Engine(EngineError::internal(format!("CNI plugin {name}: {error}")))
        };
        let path = std::env::join_paths(&self.plugins).unwrap_or_default();
        let mut child = tokio::process::Command::new(&program)
            .env("CNI_COMMAND", verb)
            .env("CNI_PATH", path)
            .envs(environment.iter().map(|(key, value)| (*key, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let input = serde_json::to_vec(config).unwrap_or_default();
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin need not read it.
            stdin.write_all(&input).await.ok();
        }
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.map_err(|_| {
            let seconds = PATIENCE.as_secs();
            PluginError::Engine(EngineError::internal(format!(
                "CNI plugin {name} did not answer {verb} within {seconds} s and was killed"
            )))
        })?;
        let output = output.map_err(failed)?;
        let answer = serde_json::from_slice::<Value>(&output.stdout);
        if output.status.success() {
            return Ok(answer.unwrap_or(Value::Null));
        }
        let told: PluginAnswer = answer.ok().and_then(|a| serde_json::from_value(a).ok()).unwrap_or_default();
        let mut words =
            [told.msg, told.details].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>();
        if words.is_empty() {
            words.push(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        let message = format!("CNI plugin {name} failed {verb}: {}", words.join("; "));
        Err(PluginError::Refused { code: told.code, message })
    }
}

/// What a plugin says when it fails.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PluginAnswer {
    code: u32,
    msg: String,
    details: String,
}

/// A verb that was not carried out.
#[derive(Debug)]
enum PluginError {
    /// The plugin's own word.
    Refused { code: u32, message: String },
    /// It was not heard.
    Engine(EngineError),
}

impl PluginError {
    /// A plugin from before the verb: code 4 is "invalid environment variables" of the specification.
    fn is_unknown_verb(&self) -> bool {
        matches!(self, Self::Refused { code: 4, message } if message.contains("CNI_COMMAND"))
    }
}

impl From<PluginError> for EngineError {
    fn from(error: PluginError) -> Self {
        match error {
            PluginError::Refused { message, .. } => Self::internal(message),
            PluginError::Engine(error) => error,
        }
    }
}

impl NetworkList {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The newest version that both the configuration and we know.
    fn version(&self) -> String {
        let known = |version: &&String| !newer(version, NEWEST);
        let offered = self.cni_versions.iter().filter(known);
        offered.chain([&self.cni_version]).max_by_key(|version| numbers(version)).cloned().unwrap_or_default()
    }

    /// What a plugin of the list gets to read.
    fn config_of(
        &self,
        plugin: &Map<String, Value>,
        version: &str,
        capabilities: &BTreeMap<String, Value>,
        previous: Option<&Value>,
    ) -> Map<String, Value> {
        let mut config = plugin.clone();
        config.insert("cniVersion".into(), version.into());
        config.insert("name".into(), self.name.clone().into());
        let offered = config.remove("capabilities").unwrap_or_default();
        let wanted: Map<String, Value> = capabilities
            .iter()
            .filter(|(name, _)| offered.get(name.as_str()).and_then(Value::as_bool) == Some(true))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !wanted.is_empty() {
            config.insert("runtimeConfig".into(), wanted.into());
        }
        if let Some(previous) = previous.filter(|value| !value.is_null()) {
            config.insert("prevResult".into(), previous.clone());
        }
        config
    }
}

impl Attachment {
    /// How this pod is to be put on the network.
    pub(super) fn new(list: NetworkList, sandbox: &str, spec: &SandboxSpec) -> Self {
        let args = [
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", spec.namespace.as_str()),
            ("K8S_POD_NAME", spec.name.as_str()),
            ("K8S_POD_INFRA_CONTAINER_ID", sandbox),
            ("K8S_POD_UID", spec.uid.as_str()),
        ];
        let args: Vec<String> = args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Self { list, args: args.join(";"), capabilities: capabilities(spec), result: Value::Null }
    }

    fn environment(&self, subject: Subject<'_>) -> Vec<(&'static str, String)> {
        vec![
            ("CNI_CONTAINERID", subject.sandbox.to_owned()),
            ("CNI_NETNS", subject.netns.display().to_string()),
            ("CNI_IFNAME", INTERFACE.to_owned()),
            ("CNI_ARGS", self.args.clone()),
        ]
    }
}

/// What plugins may ask for by name.
fn capabilities(spec: &SandboxSpec) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let ports: Vec<Value> = spec
        .ports
        .iter()
        .filter(|port| port.host_port != 0)
        .map(|port| {
            json!({
                "hostPort": port.host_port,
                "containerPort": port.container_port,
                "protocol": port.protocol.as_str(),
                "hostIP": port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            })
        })
        .collect();
    if !ports.is_empty() {
        all.insert("portMappings".into(), ports.into());
    }
    let bits = |key: &str| spec.annotations.get(key).and_then(|text| quantity(text));
    let ingress = bits("kubernetes.io/ingress-bandwidth");
    let egress = bits("kubernetes.io/egress-bandwidth");
    if ingress.is_some() || egress.is_some() {
        let mut bandwidth = Map::new();
        for (kind, rate) in [("ingress", ingress), ("egress", egress)] {
            if let Some(rate) = rate {
                bandwidth.insert(format!("{kind}Rate"), rate.into());
                bandwidth.insert(format!("{kind}Burst"), BURST.into());
            }
        }
        all.insert("bandwidth".into(), bandwidth.into());
    }
    if let Some(dns) = &spec.dns {
        let dns = json!({"servers": dns.servers, "searches": dns.searches, "options": dns.options});
        all.insert("dns".into(), dns);
    }
    all.insert("io.kubernetes.cri.pod-annotations".into(), json!(spec.annotations));
    if !spec.cgroup_parent.is_empty() {
        all.insert("cgroupPath".into(), spec.cgroup_parent.clone().into());
    }
    all
}

/// A quantity of Kubernetes: `10M`, `1Gi`, `500k`.
fn quantity(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 10] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1_000),
        ("K", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("", 1),
    ];
    let (number, unit) = UNITS.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))?;
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn read_list(path: &Path) -> Result<NetworkList> {
    let text = std::fs::read_to_string(path).during("read", path)?;
    let invalid = |why: String| EngineError::invalid(format!("CNI configuration {}: {why}", path.display()));
    let value: Value = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
    let list = if value.get("plugins").is_some() {
        serde_json::from_value(value).map_err(|error| invalid(error.to_string()))?
    } else {
        // A single plugin is a list of one.
        let plugin = value.as_object().cloned().ok_or_else(|| invalid("an object is expected".into()))?;
        let text = |key: &str| plugin.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        NetworkList {
            cni_version: text("cniVersion"),
            name: text("name"),
            plugins: vec![plugin.clone()],
            ..NetworkList::default()
        }
    };
    if list.name.is_empty() || list.plugins.is_empty() {
        return Err(invalid("a name and at least one plugin are expected".into()));
    }
    if let Some(plugin) = list.plugins.iter().find(|plugin| !plugin.get("type").is_some_and(Value::is_string))
    {
        return Err(invalid(format!("a plugin has no type: {}", Value::Object(plugin.clone()))));
    }
    Ok(list)
}

/// The pod's addresses in a plugin's answer, those of its interface only.
fn addresses(result: &Value) -> Vec<IpAddr> {
    let list = |key: &str| result.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let interfaces = list("interfaces");
    let own = |ip: &Value| match ip.get("interface").and_then(Value::as_u64) {
        None => true,
        Some(index) => {
            usize::try_from(index).ok().and_then(|index| interfaces.get(index)).is_some_and(|interface| {
                let inside = interface
                    .get("sandbox")
                    .and_then(Value::as_str)
                    .is_some_and(|sandbox| !sandbox.is_empty());
                inside && interface.get("name").and_then(Value::as_str) == Some(INTERFACE)
            })
        }
    };
    let parse = |ip: &Value| ip.get("address")?.as_str()?.split('/').next()?.parse().ok();
    let found: Vec<IpAddr> = list("ips").iter().filter(|ip| own(ip)).filter_map(parse).collect();
    if !found.is_empty() {
        return found;
    }
    // Before 0.3 of the specification.
    let old =
        ["ip4", "ip6"].into_iter().filter_map(|key| result.get(key)?.get("ip")?.as_str()?.split('/').next());
    old.filter_map(|text| text.parse().ok()).collect()
}

fn numbers(version: &str) -> (u32, u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn newer(version: &str, than: &str) -> bool {
    numbers(version) > numbers(than)
}

fn at_least(version: &str, (major, minor): (u32, u32)) -> bool {
    numbers(version) >= (major, minor, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(dir: &Path) -> CniDirs {
        CniDirs { configurations: dir.to_owned(), plugins: vec![dir.join("bin")] }
    }

    #[test]
    fn the_first_configuration_in_lexical_order_counts() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = dirs(dir.path());
        assert_eq!(dirs.current().unwrap(), None);
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("00-not-one.txt", "{}");
        write("10-broken.conflist", "{");
        assert!(dirs.current().unwrap_err().message().contains("10-broken.conflist"));
        write("30-late.conflist", r#"{"cniVersion":"1.0.0","name":"late","plugins":[{"type":"bridge"}]}"#);
        write("20-single.conf", r#"{"cniVersion":"0.4.0","name":"single","type":"bridge"}"#);
        let list = dirs.current().unwrap().unwrap();
        assert_eq!((list.name.as_str(), list.plugins.len()), ("single", 1));
        assert_eq!(CniDirs { configurations: dir.path().join("none"), ..dirs }.current().unwrap(), None);
    }

    #[test]
    fn a_plugin_reads_only_what_it_asked_for() {
        let text = r#"{"cniVersion":"0.4.0","cniVersions":["1.0.0","1.1.0","2.0.0"],"name":"net","disableCheck":"true",
            "plugins":[{"type":"bridge"},{"type":"portmap","capabilities":{"portMappings":true,"dns":false}}]}"#;
        let list: NetworkList = serde_json::from_str(text).unwrap();
        assert!(list.disable_check);
        assert_eq!(list.version(), "1.1.0");
        let port = super::super::model::PodPort {
            container_port: 80,
            host_port: 8080,
            host_ip: None,
            protocol: berth_network::Protocol::Udp,
        };
        let spec = SandboxSpec {
            ports: vec![port.clone(), super::super::model::PodPort { host_port: 0, ..port }],
            annotations: [("kubernetes.io/ingress-bandwidth".into(), "10M".into())].into(),
            dns: Some(Default::default()),
            ..SandboxSpec::default()
        };
        let all = capabilities(&spec);
        assert_eq!(all["bandwidth"]["ingressRate"], 10_000_000);
        let previous = json!({"ips": []});
        let config = list.config_of(&list.plugins[1], "1.1.0", &all, Some(&previous));
        let expected = json!({"portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": ""}
        ]});
        assert_eq!(config["runtimeConfig"], expected);
        assert_eq!((config["name"].as_str(), &config["prevResult"]), (Some("net"), &previous));
        assert!(!config.contains_key("capabilities"));
        assert!(!list.config_of(&list.plugins[0], "1.1.0", &all, None).contains_key("runtimeConfig"));
    }

    #[test]
    fn only_the_pods_own_addresses_count() {
        let result = json!({
            "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/x"}],
            "ips": [{"address": "10.0.0.1/24", "interface": 0}, {"address": "10.0.0.5/24", "interface": 1},
                {"address": "fd00::5/64", "interface": 1}],
        });
        assert_eq!(addresses(&result), ["10.0.0.5".parse::<IpAddr>().unwrap(), "fd00::5".parse().unwrap()]);
        assert_eq!(addresses(&json!({"ip4": {"ip": "1.2.3.4/8"}})), ["1.2.3.4".parse::<IpAddr>().unwrap()]);
        assert!(addresses(&Value::Null).is_empty());
    }

    #[test]
    fn quantities_of_kubernetes() {
        assert_eq!(quantity("10M"), Some(10_000_000));
        assert_eq!(quantity("1Gi"), Some(1 << 30));
        assert_eq!(quantity("7"), Some(7));
        assert_eq!(quantity("x"), None);
    }
}
