//! The recorded answers of one dockerd under several versions, where they lie beside the repository: what it said
//! under 1.50, read into our types and shaped for a version, must have the fields that it said under that version. What
//! came after 1.50 is read from the newest recording.

use std::{collections::BTreeSet, fs, path::PathBuf};

use berth_api::{
    container::{ContainerInspect, ContainerSummary},
    event::Event as EventMessage,
    image::{ImageInspect as Image, ImageSummary as ImageLine},
    network::Network as NetworkInspected,
    system::SystemInfo,
};
use serde::de::DeserializeOwned;

use super::*;

fn recorded(version: &str, file: &str) -> Option<String> {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference/golden");
    fs::read_to_string(golden.join(version).join(file)).ok()
}

/// The recording that has all that this version can say.
fn source(version: &str) -> &str {
    if version == "1.41" { "1.50" } else { version }
}

/// All paths to a field; of a list its first item's.
fn fields(value: &Value) -> BTreeSet<String> {
    fn walk(path: &str, value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    let path = format!("{path}/{key}");
                    walk(&path, value, found);
                    found.insert(path);
                }
            }
            Value::Array(items) => {
                items.first().into_iter().for_each(|item| walk(&format!("{path}[]"), item, found))
            }
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    walk("", value, &mut found);
    found
}

fn compare<T: DeserializeOwned + Serialize>(kind: Kind, file: &str, version: &str, tolerated: &[&str]) {
    let (Some(newest), Some(theirs)) = (recorded(source(version), file), recorded(version, file)) else {
        return;
    };
    let last = |text: &str| text.lines().last().unwrap_or_default().to_owned();
    let (newest, theirs) = match file.ends_with(".jsonl") {
        true => (last(&newest), last(&theirs)),
        false => (newest, theirs),
    };
    let typed: T = serde_json::from_str(&newest).unwrap();
    let ours = fields(&shape(version.parse().unwrap(), kind, &typed));
    let theirs = fields(&serde_json::from_str(&theirs).unwrap());
    let difference: Vec<_> = ours
        .symmetric_difference(&theirs)
        .filter(|path| !tolerated.iter().any(|prefix| path.starts_with(prefix)))
        .collect();
    assert!(difference.is_empty(), "{file} under {version}: {difference:#?}");
}

#[test]
fn fields_are_those_of_the_version() {
    for version in ["1.41", "1.50", "1.56"] {
        compare::<ContainerInspect>(
            Kind::ContainerInspect,
            "container-running.json",
            version,
            // Order and driver of the mounts differ from run to run.
            // The recorded engine keeps its containers' trees in containerd, which has no driver for them.
            &["/Mounts[]", "/GraphDriver", "/Storage"],
        );
        let identity = &["/GraphDriver", "/Identity"];
        compare::<Image>(ImageInspect, "image.json", version, identity);
        compare::<NetworkInspected>(NetworkInspect, "network-bridge.json", version, &[]);
        compare::<EventMessage>(Event, "events.jsonl", version, &[]);
        compare::<SystemInfo>(Info, "info.json", version, &["/Containerd", "/Runtimes"]);
    }
}

fn shaped_list<T: serde::Serialize>(version: &str, kind: Kind, typed: &[T]) -> Value {
    serde_json::to_value(shape_list(version.parse().unwrap(), kind, typed)).unwrap()
}

#[test]
fn lines_of_lists_are_those_of_the_version() {
    for version in ["1.41", "1.50", "1.56"] {
        let file = "container-list.json";
        let (Some(newest), Some(theirs)) = (recorded(source(version), file), recorded(version, file)) else {
            return;
        };
        let typed: Vec<ContainerSummary> = serde_json::from_str(&newest).unwrap();
        let ours = fields(&shaped_list(version, Kind::ContainerSummary, &typed));
        assert_eq!(ours, fields(&serde_json::from_str(&theirs).unwrap()), "{file} under {version}");

        let file = "images.json";
        let (Some(newest), Some(theirs)) = (recorded(source(version), file), recorded(version, file)) else {
            return;
        };
        let typed: Vec<ImageLine> = serde_json::from_str(&newest).unwrap();
        let ours = fields(&shaped_list(version, Kind::ImageSummary, &typed));
        assert_eq!(ours, fields(&serde_json::from_str(&theirs).unwrap()), "{file} under {version}");
    }
}
