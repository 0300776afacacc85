//! Wire round trips: an answer of a real dockerd, read into our type and written back, must lose nothing but
//! what is listed here, and must not gain what a Go client would not expect.
//!
//! `tests/data` holds small answers in our own words. Where the team's larger recordings lie beside the
//! repository (`../shared/reference/golden`), they are checked too.

use std::{collections::BTreeSet, fs, path::PathBuf};

use berth_api::{
    container::{ContainerInspect, ContainerSummary, CreateRequest, FilesystemChange, TopResponse},
    event::Event,
    exec::ExecInspect,
    image::{HistoryItem, ImageInspect, ImageSummary},
    network::Network,
    stats::ContainerStats,
    system::{DiskUsage, SystemInfo, Version},
    volume::{Volume, VolumeList},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Paths present on one side only or with another value, `a.b[].c`.
fn differences(path: &str, theirs: &Value, ours: &Value, found: &mut BTreeSet<String>) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let path = format!("{path}.{key}");
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => differences(&path, a, b, found),
                    (Some(_), None) => drop(found.insert(format!("-{path}"))),
                    (None, _) => drop(found.insert(format!("+{path}"))),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).for_each(|(a, b)| differences(&format!("{path}[]"), a, b, found));
        }
        (a, b) if a == b => {}
        _ => drop(found.insert(format!("~{path}"))),
    }
}

fn round_trip<T: DeserializeOwned + Serialize>(name: &str, text: &str, tolerated: &[&str]) {
    let theirs: Value = serde_json::from_str(text).unwrap();
    let typed: T = serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let ours = serde_json::to_value(&typed).unwrap();
    let mut found = BTreeSet::new();
    differences("", &theirs, &ours, &mut found);
    found.retain(|difference| !tolerated.iter().any(|prefix| difference.starts_with(prefix)));
    assert!(found.is_empty(), "{name}: {found:#?}");
}

/// The answers in a file: one, or one a line.
fn each<'t>(file: &str, text: &'t str) -> Box<dyn Iterator<Item = &'t str> + 't> {
    if file.ends_with(".jsonl") { Box::new(text.lines()) } else { Box::new(std::iter::once(text)) }
}

fn check<T: DeserializeOwned + Serialize>(file: &str, tolerated: &[&str]) {
    let crate_dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let own = crate_dir.join("tests/data").join(file);
    if let Ok(text) = fs::read_to_string(&own) {
        each(file, &text).for_each(|text| round_trip::<T>(file, text, tolerated));
    }
    for version in ["1.41", "1.50", "1.56"] {
        let path = crate_dir.join("../../../shared/reference/golden").join(version).join(file);
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let name = format!("{version}/{file}");
        each(file, &text).for_each(|text| round_trip::<T>(&name, text, tolerated));
    }
}

/// What other versions have beyond or instead of our newest shape; `berth-http` adds it.
const CONTAINER: &[&str] =
    &["-.NetworkSettings.", "-.Storage", "+.GraphDriver", "+.HostConfig.KernelMemory", "-.HostConfig.Init"];

#[test]
fn containers() {
    for file in
        ["container-created.json", "container-running.json", "container-exited.json", "container-size.json"]
    {
        check::<ContainerInspect>(file, CONTAINER);
    }
    check::<Vec<ContainerSummary>>("container-list.json", &["-[].Ports[].IP"]);
    check::<Vec<FilesystemChange>>("changes.json", &[]);
    check::<TopResponse>("top.json", &[]);
    check::<ExecInspect>("exec-created.json", &[]);
    check::<ExecInspect>("exec-exited.json", &[]);
    check::<ContainerStats>("stats.json", &[]);
}

#[test]
fn images() {
    // Before 1.50 the config is a whole container config, since 1.51 it has only what is set.
    let tolerated = &[
        "+.Config.",
        "-.VirtualSize",
        "-.Container",
        "-.Identity",
        "+.Author",
        "+.Comment",
        "+.DockerVersion",
        "+.Parent",
        "+.GraphDriver",
        "~.Config.Labels",
        "~.Config.OnBuild",
        "-.Config.OnBuild",
    ];
    check::<ImageInspect>("image.json", tolerated);
    check::<Vec<ImageSummary>>("images.json", &["-[].VirtualSize"]);
    check::<Vec<HistoryItem>>("history.json", &[]);
}

#[test]
fn networks_and_volumes() {
    check::<Network>("network-bridge.json", &[]);
    check::<Vec<Network>>("networks.json", &[]);
    check::<Volume>("volume.json", &[]);
    check::<VolumeList>("volumes.json", &[]);
}

#[test]
fn system() {
    check::<Version>("version.json", &[]);
    check::<SystemInfo>(
        "info.json",
        &[
            "-.Containerd",
            "-.BridgeNf",
            "-.ContainerdCommit.Expected",
            "-.RuncCommit.Expected",
            "-.InitCommit.Expected",
            "-.RegistryConfig.Allow",
            "-.NRI",
            "-.DiscoveredDevices",
        ],
    );
    // df of 1.52 lists usage by kind; unreferenced images have null lists there.
    check::<DiskUsage>(
        "df.json",
        &[
            "-.ImageUsage",
            "-.ContainerUsage",
            "-.VolumeUsage",
            "-.BuildCacheUsage",
            "-.BuilderSize",
            "-.Images[].VirtualSize",
            "-.Containers[].Ports[].IP",
            "-.Containers[].Health",
            "~.Images[].Repo",
            "-.BuildCache[].Parent",
        ],
    );
    check::<Event>("events.jsonl", &["-.id", "-.status", "-.from"]);
}

/// What clients send: absent, null and short forms.
#[test]
fn requests_are_read_as_go_reads_them() {
    let body = r#"{"Image":"busybox","Cmd":"top","Env":null,"Labels":null,"ExposedPorts":{"80/tcp":null},
        "HostConfig":{"Memory":null,"Binds":null,"NetworkMode":null,"PortBindings":{"80/tcp":null},"PidsLimit":5,
        "RestartPolicy":null,"Unknown":1},"NetworkingConfig":{"EndpointsConfig":{"n":null}}}"#;
    let request: CreateRequest = serde_json::from_str(body).unwrap();
    assert_eq!(request.config.cmd, Some(vec!["top".to_owned()]));
    assert!(request.config.exposed_ports.contains_key("80/tcp"));
    let host = request.host_config.clone().unwrap();
    assert_eq!((host.resources.memory, host.resources.pids_limit, host.binds.clone()), (0, Some(5), None));
    assert_eq!(host.port_bindings["80/tcp"], None);
    assert!(request.networking_config.as_ref().unwrap().endpoints_config["n"].is_none());
    // A wrong type within the flattened limits is an error, not a default.
    assert!(serde_json::from_str::<CreateRequest>(r#"{"HostConfig":{"Memory":"a lot"}}"#).is_err());
    let again: CreateRequest = serde_json::from_value(serde_json::to_value(&request).unwrap()).unwrap();
    assert_eq!(again, request);
}
