//! Older shapes: what one version of the API says differently from the newest, as a table.
//!
//! The engine fills the newest types. A row says up to which version (exclusive) or from which one (inclusive) an
//! answer of some kind is edited, where, and how; the rows are applied in order. Requests of old clients are
//! lifted to the newest form by [`lift_create`].

use berth_api::{
    ApiVersion,
    container::{CreateRequest, UpdateRequest},
    system::DiskUsage as DiskUsageAnswer,
};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::error::{ApiError, ApiResult};

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    ContainerInspect,
    ContainerSummary,
    ImageInspect,
    ImageSummary,
    NetworkInspect,
    Event,
    Info,
    DiskUsage,
}

/// Which versions a row is about.
#[derive(Debug, Clone, Copy)]
enum Versions {
    Before(u16),
    From(u16),
}

enum Edit {
    /// Takes fields away.
    Remove(&'static [&'static str]),
    /// Adds fields that are absent, all with this JSON value.
    Add(&'static [&'static str], &'static str),
    /// Adds a field with another one's value.
    Copy { from: &'static str, to: &'static str },
    /// Whatever else.
    With(fn(&mut Map<String, Value>)),
}

struct Row {
    kind: Kind,
    versions: Versions,
    /// Object within the answer, `/` separated; empty is the answer itself.
    at: &'static str,
    edit: Edit,
}

const fn row(kind: Kind, versions: Versions, at: &'static str, edit: Edit) -> Row {
    Row { kind, versions, at, edit }
}

/// Fields of a container's config that an image's config had until 1.50.
const CONTAINER_ONLY: &[&str] = &[
    "Hostname",
    "Domainname",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "Tty",
    "OpenStdin",
    "StdinOnce",
    "Image",
    "NetworkDisabled",
    "MacAddress",
    "StopTimeout",
];

use Edit::{Add, Copy, Remove, With};
use Kind::{
    ContainerInspect, ContainerSummary, DiskUsage, Event, ImageInspect, ImageSummary, Info, NetworkInspect,
};
use Versions::{Before, From};

static ROWS: &[Row] = &[
    row(ContainerInspect, Before(45), "", With(names_among_aliases)),
    row(ContainerInspect, Before(48), "", Remove(&["ImageManifestDescriptor"])),
    row(ContainerInspect, Before(52), "NetworkSettings", With(addresses_of_default_bridge)),
    row(ContainerInspect, From(52), "Config", Remove(&["MacAddress"])),
    row(ContainerSummary, Before(48), "", Remove(&["ImageManifestDescriptor"])),
    row(ImageInspect, Before(44), "", Copy { from: "Size", to: "VirtualSize" }),
    row(ImageInspect, Before(45), "", Add(&["Container"], r#""""#)),
    row(ImageInspect, Before(45), "", Add(&["ContainerConfig"], "null")),
    // docker-compose 1 looks there for the volumes.
    row(ImageInspect, Before(41), "", Copy { from: "Config", to: "ContainerConfig" }),
    row(ImageInspect, Before(48), "", Remove(&["Descriptor"])),
    row(ImageInspect, From(50), "Config", Remove(CONTAINER_ONLY)),
    row(ImageInspect, Before(52), "Config", Add(&["OnBuild"], "null")),
    row(ImageInspect, Before(52), "Config", With(empty_labels_to_null)),
    row(ImageInspect, From(52), "Config", With(only_what_is_set)),
    row(ImageInspect, From(52), "", With(without_empty_legacy)),
    row(ImageSummary, Before(43), "", With(dangling_by_name)),
    row(ImageSummary, Before(44), "", Copy { from: "Size", to: "VirtualSize" }),
    row(ImageSummary, Before(48), "", Remove(&["Descriptor"])),
    row(NetworkInspect, Before(52), "", Remove(&["Status"])),
    row(Event, Before(52), "", With(event_before_actor)),
    row(
        Info,
        Before(47),
        "RegistryConfig",
        Add(&["AllowNondistributableArtifactsCIDRs", "AllowNondistributableArtifactsHostnames"], "null"),
    ),
    row(Info, Before(49), "ContainerdCommit", Copy { from: "ID", to: "Expected" }),
    row(Info, Before(49), "RuncCommit", Copy { from: "ID", to: "Expected" }),
    row(Info, Before(49), "InitCommit", Copy { from: "ID", to: "Expected" }),
    row(Info, Before(49), "", Remove(&["FirewallBackend"])),
    row(Info, Before(50), "", Add(&["BridgeNfIptables", "BridgeNfIp6tables"], "false")),
    row(DiskUsage, Before(42), "", Add(&["BuilderSize"], "0")),
];

/// The answer as this version has it.
pub(crate) fn shape(version: ApiVersion, kind: Kind, answer: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(answer).expect("wire types have text keys and serialise");
    edit(version, kind, &mut value);
    value
}

/// The same for every item of a list.
pub(crate) fn shape_list<T: Serialize>(version: ApiVersion, kind: Kind, answers: &[T]) -> impl Serialize {
    Shaped { version, kind, answers }
}

/// A list on its way out. Items that this version has as the engine fills them are written as they are: lists can be long.
struct Shaped<'a, T> {
    version: ApiVersion,
    kind: Kind,
    answers: &'a [T],
}

impl<T: Serialize> Serialize for Shaped<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if edits(self.version, self.kind).next().is_none() {
            return serializer.collect_seq(self.answers);
        }
        serializer.collect_seq(self.answers.iter().map(|answer| shape(self.version, self.kind, answer)))
    }
}

/// `system df`: a list per kind, each shaped as in its own endpoint. Since 1.52 there are sums of each kind, with its
/// list only for `verbose` clients; those that do not ask for that still get the lists of before.
pub(crate) fn shape_disk_usage(version: ApiVersion, verbose: bool, usage: &DiskUsageAnswer) -> Value {
    let mut value = shape(version, DiskUsage, usage);
    for (list, kind) in [("Images", ImageSummary), ("Containers", ContainerSummary)] {
        if let Some(items) = value.get_mut(list).and_then(Value::as_array_mut) {
            items.iter_mut().for_each(|item| edit(version, kind, item));
        }
    }
    match value.as_object_mut() {
        Some(answer) if version.at_least(52) => sums::add(answer, usage, verbose),
        _ => {}
    }
    value
}

/// The rows that are about this.
fn edits(version: ApiVersion, kind: Kind) -> impl Iterator<Item = &'static Row> {
    let applies = move |row: &&Row| {
        row.kind == kind
            && match row.versions {
                Before(minor) => !version.at_least(minor),
                From(minor) => version.at_least(minor),
            }
    };
    ROWS.iter().filter(applies)
}

fn edit(version: ApiVersion, kind: Kind, value: &mut Value) {
    for row in edits(version, kind) {
        let object = match row.at {
            "" => Some(&mut *value),
            field => value.get_mut(field),
        };
        if let Some(object) = object.and_then(Value::as_object_mut) {
            apply(&row.edit, object);
        }
    }
}

fn apply(edit: &Edit, object: &mut Map<String, Value>) {
    match edit {
        Remove(fields) => fields.iter().for_each(|field| drop(object.shift_remove(*field))),
        Add(fields, text) => {
            let value: Value = serde_json::from_str(text).expect("the table holds JSON (tested)");
            for field in *fields {
                object.entry(*field).or_insert_with(|| value.clone());
            }
        }
        Copy { from, to } => {
            if let Some(value) = object.get(*from).cloned() {
                object.insert((*to).to_owned(), value);
            }
        }
        With(edit) => edit(object),
    }
}

/// Until 1.44 a container's short id and host name stood among its aliases on networks of users, once it had started:
/// docker-compose 1 joins a container anew where it misses them, and gives a new one its links by that.
fn names_among_aliases(container: &mut Map<String, Value>) {
    if container.get("State").is_some_and(|state| state["Status"] == "created") {
        return;
    }
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let id: String = text(container.get("Id")).chars().take(12).collect();
    let hostname = text(container.get("Config").and_then(|config| config.get("Hostname")));
    let networks = container.get_mut("NetworkSettings").and_then(|settings| settings.get_mut("Networks"));
    for (network, endpoint) in networks.and_then(Value::as_object_mut).into_iter().flatten() {
        if ["bridge", "host", "none"].contains(&network.as_str()) {
            continue;
        }
        let mut aliases = endpoint["Aliases"].as_array().cloned().unwrap_or_default();
        for name in [&id, &hostname] {
            if !name.is_empty() && !aliases.iter().any(|alias| alias == name.as_str()) {
                aliases.push(json!(name));
            }
        }
        endpoint["Aliases"] = Value::Array(aliases);
    }
}

/// Until 1.51 a container's addresses in the default bridge stood beside `Networks` as well.
fn addresses_of_default_bridge(settings: &mut Map<String, Value>) {
    let bridge = settings.get("Networks").and_then(|networks| networks.get("bridge")).cloned();
    let texts = ["EndpointID", "Gateway", "GlobalIPv6Address", "IPAddress", "IPv6Gateway", "MacAddress"]
        .map(|f| (f, json!("")));
    let numbers = ["GlobalIPv6PrefixLen", "IPPrefixLen"].map(|field| (field, json!(0)));
    for (field, default) in texts.into_iter().chain(numbers) {
        let value = bridge.as_ref().and_then(|bridge| bridge.get(field)).cloned().unwrap_or(default);
        settings.insert(field.to_owned(), value);
    }
}

/// An image's labels are `null` rather than `{}`.
fn empty_labels_to_null(config: &mut Map<String, Value>) {
    if let Some(labels) = config.get_mut("Labels")
        && labels.as_object().is_some_and(Map::is_empty)
    {
        *labels = Value::Null;
    }
}

/// Since 1.52 an image's config says nothing of what its image does not set.
fn only_what_is_set(config: &mut Map<String, Value>) {
    config.retain(|_, value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    });
}

/// Since 1.52 what only docker's first builder wrote is there only if it was written.
fn without_empty_legacy(image: &mut Map<String, Value>) {
    for field in ["Parent", "Comment", "DockerVersion", "Author"] {
        if image.get(field).is_some_and(|value| value == "") {
            image.shift_remove(field);
        }
    }
}

/// Until 1.42 an image without a name was called `<none>`.
fn dangling_by_name(image: &mut Map<String, Value>) {
    let is_empty = |list: Option<&Value>| list.and_then(Value::as_array).is_none_or(Vec::is_empty);
    if is_empty(image.get("RepoTags")) && is_empty(image.get("RepoDigests")) {
        image.insert("RepoTags".to_owned(), json!(["<none>:<none>"]));
        image.insert("RepoDigests".to_owned(), json!(["<none>@<none>"]));
    }
}

/// Until 1.51 events of containers and images also had the fields from before there were actors.
fn event_before_actor(event: &mut Map<String, Value>) {
    let kind = event.get("Type").and_then(Value::as_str).unwrap_or_default();
    if kind != "container" && kind != "image" {
        return;
    }
    let is_container = kind == "container";
    let action = event.get("Action").cloned().unwrap_or_default();
    let actor = event.get("Actor").cloned().unwrap_or_default();
    event.insert("status".to_owned(), action);
    event.insert("id".to_owned(), actor.get("ID").cloned().unwrap_or_default());
    if is_container
        && let Some(image) = actor.get("Attributes").and_then(|attributes| attributes.get("image"))
    {
        event.insert("from".to_owned(), image.clone());
    }
}

/// Lifts an old client's request to the newest meaning. What a new client should write otherwise is refused, or warned of.
pub(crate) fn lift_create(version: ApiVersion, request: &mut CreateRequest) -> ApiResult<Option<String>> {
    if version.at_least(52) && !request.config.mac_address.is_empty() {
        return Err(ApiError::bad_request(
            "container-wide MAC address no longer supported; use endpoint-specific MAC address instead",
        ));
    }
    let host = request.host_config.get_or_insert_default();
    if !version.at_least(40) && host.ipc_mode.is_empty() {
        host.ipc_mode = "shareable".to_owned();
    }
    if !version.at_least(41) && host.cgroupns_mode.is_empty() {
        host.cgroupns_mode = "host".to_owned();
    }
    if version.at_least(42) {
        host.resources.kernel_memory = 0;
    }
    if !version.at_least(43) {
        host.annotations = None;
    }
    if !version.at_least(44) {
        if let Some(check) = &mut request.config.healthcheck {
            check.start_interval = 0;
        }
        move_mac_address(request);
    }
    let bindings = request.host_config.iter().flat_map(|host| host.port_bindings.iter());
    let empty: Vec<&str> = bindings
        .filter(|(_, bindings)| bindings.as_ref().is_none_or(Vec::is_empty))
        .map(|(port, _)| port.as_str())
        .collect();
    Ok((version.at_least(52) && !empty.is_empty()).then(|| {
        format!(
            "Following container port(s) have an empty list of port-bindings: {}. Such bindings will be discarded in a \
             future version.",
            empty.join(", ")
        )
    }))
}

/// Before 1.55 an update left the limits of single devices alone, whatever it said of them.
pub(crate) fn lift_update(version: ApiVersion, request: &mut UpdateRequest) {
    let limits = &mut request.resources;
    if version.at_least(42) {
        limits.kernel_memory = 0;
    }
    if version.at_least(55) {
        return;
    }
    limits.blkio_weight_device = None;
    for throttle in [
        &mut limits.blkio_device_read_bps,
        &mut limits.blkio_device_write_bps,
        &mut limits.blkio_device_read_iops,
        &mut limits.blkio_device_write_iops,
    ] {
        *throttle = None;
    }
}

/// Before 1.44 the hardware address stood in the config; now it belongs to the endpoint of the main network.
fn move_mac_address(request: &mut CreateRequest) {
    let mac_address = std::mem::take(&mut request.config.mac_address);
    if mac_address.is_empty() {
        return;
    }
    let mode = request.host_config.as_ref().map_or("", |host| host.network_mode.as_str());
    let network = if mode.is_empty() || mode == "default" { "bridge" } else { mode }.to_owned();
    let endpoints = &mut request.networking_config.get_or_insert_default().endpoints_config;
    let endpoint = endpoints.entry(network).or_default().get_or_insert_default();
    if endpoint.mac_address.is_empty() {
        endpoint.mac_address = mac_address;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V: fn(u16) -> ApiVersion = |minor| ApiVersion::new(1, minor);

    #[test]
    fn the_tables_json_parses() {
        for row in ROWS {
            if let Add(_, text) = row.edit {
                serde_json::from_str::<Value>(text).unwrap();
            }
        }
    }

    #[test]
    fn images_grow_older() {
        let image = json!({"Size": 5, "RepoTags": [], "RepoDigests": [], "Descriptor": {"size": 1}});
        let old = shape(V(41), ImageSummary, &image);
        assert_eq!(old["VirtualSize"], 5);
        assert_eq!(old["RepoTags"], json!(["<none>:<none>"]));
        assert!(old.get("Descriptor").is_none());
        assert_eq!(shape(V(50), ImageSummary, &image), image);
        assert_eq!(shape(V(43), ImageSummary, &image)["RepoTags"], json!([]));
    }

    #[test]
    fn a_list_is_shaped_item_by_item() {
        let images = [json!({"Size": 5, "Descriptor": {"size": 1}}), json!({"Size": 6})];
        let shaped = |version| serde_json::to_value(shape_list(version, ImageSummary, &images)).unwrap();
        assert_eq!(shaped(V(50)), json!(images), "as they are");
        assert_eq!(shaped(V(43)), json!([{"Size": 5, "VirtualSize": 5}, {"Size": 6, "VirtualSize": 6}]));
    }

    #[test]
    fn an_images_config_loses_what_containers_have() {
        let image = json!({"Config": {"Hostname": "", "Env": [], "Labels": {}}});
        assert_eq!(
            shape(V(50), ImageInspect, &image),
            json!({"Config": {"Env": [], "Labels": null, "OnBuild": null}})
        );
        let old = shape(V(41), ImageInspect, &image);
        assert_eq!(old["Config"]["Hostname"], "");
        assert_eq!((&old["Container"], &old["ContainerConfig"]), (&json!(""), &Value::Null));
        assert_eq!(shape(V(40), ImageInspect, &image)["ContainerConfig"]["Env"], json!([]));
    }

    #[test]
    fn the_newest_says_only_what_is_set() {
        let image = json!({"Parent": "", "Comment": "c", "Config": {"Env": [], "Cmd": ["sh"], "Labels": {}, "User": ""}});
        assert_eq!(shape(V(52), ImageInspect, &image), json!({"Comment": "c", "Config": {"Cmd": ["sh"]}}));
    }

    #[test]
    fn addresses_stand_beside_the_networks() {
        let inspect = json!({"NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2", "IPPrefixLen": 16}}}});
        let shaped = shape(V(51), ContainerInspect, &inspect);
        assert_eq!(shaped["NetworkSettings"]["IPAddress"], "172.17.0.2");
        assert_eq!(shaped["NetworkSettings"]["IPPrefixLen"], 16);
        assert_eq!(shaped["NetworkSettings"]["Gateway"], "");
        let other = shape(V(51), ContainerInspect, &json!({"NetworkSettings": {"Networks": {}}}));
        assert_eq!(other["NetworkSettings"]["IPAddress"], "");
    }

    #[test]
    fn names_stood_among_the_aliases() {
        let mut inspect = json!({
            "Id": "0123456789abcdef",
            "State": {"Status": "running"},
            "Config": {"Hostname": "h1"},
            "NetworkSettings": {"Networks": {"bridge": {"Aliases": null}, "mine": {"Aliases": ["web"]}, "none": {}}},
        });
        let networks = |inspect: &Value, version| {
            shape(version, ContainerInspect, inspect)["NetworkSettings"]["Networks"].clone()
        };
        assert_eq!(networks(&inspect, V(44))["mine"]["Aliases"], json!(["web", "0123456789ab", "h1"]));
        assert_eq!(networks(&inspect, V(44))["bridge"]["Aliases"], Value::Null);
        assert_eq!(networks(&inspect, V(45))["mine"]["Aliases"], json!(["web"]));
        inspect["State"]["Status"] = json!("created");
        assert_eq!(networks(&inspect, V(44))["mine"]["Aliases"], json!(["web"]));
    }

    #[test]
    fn events_keep_their_old_names() {
        let event = json!({"Type": "container", "Action": "start", "Actor": {"ID": "c", "Attributes": {"image": "i"}}});
        let shaped = shape(V(41), Event, &event);
        assert_eq!(
            (&shaped["status"], &shaped["id"], &shaped["from"]),
            (&json!("start"), &json!("c"), &json!("i"))
        );
        let volume = json!({"Type": "volume", "Action": "create", "Actor": {"ID": "v", "Attributes": {}}});
        assert_eq!(shape(V(41), Event, &volume), volume);
    }

    #[test]
    fn old_requests_mean_what_they_meant() {
        let body = r#"{"MacAddress":"02:42:ac:11:00:02","HostConfig":{"NetworkMode":"default"}}"#;
        let mut request: CreateRequest = serde_json::from_str(body).unwrap();
        lift_create(V(43), &mut request).unwrap();
        let endpoints = request.networking_config.unwrap().endpoints_config;
        assert_eq!(endpoints["bridge"].as_ref().unwrap().mac_address, "02:42:ac:11:00:02");
        let mut request = CreateRequest::default();
        lift_create(V(39), &mut request).unwrap();
        let host = request.host_config.unwrap();
        assert_eq!((host.ipc_mode.as_str(), host.cgroupns_mode.as_str()), ("shareable", "host"));
    }

    #[test]
    fn kernel_memory_is_a_thing_of_the_past() {
        let asked: CreateRequest = serde_json::from_str(r#"{"HostConfig":{"KernelMemory":1}}"#).unwrap();
        for (version, left) in [(41, 1), (42, 0)] {
            let mut request = asked.clone();
            lift_create(V(version), &mut request).unwrap();
            assert_eq!(request.host_config.unwrap().resources.kernel_memory, left);
            let mut update: UpdateRequest = serde_json::from_str(r#"{"KernelMemory":1}"#).unwrap();
            lift_update(V(version), &mut update);
            assert_eq!(update.resources.kernel_memory, left);
        }
    }
}

#[cfg(test)]
mod golden;
mod sums;
