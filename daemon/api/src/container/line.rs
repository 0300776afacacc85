//! What `docker ps` shows of `GET /containers/json`, read without a copy: a list can have thousands of containers, and most
//! of what an engine says of each is not shown.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

use super::PortSummary;
use crate::wire::{Text, null_default};

/// A container's part in a list, as far as people see it; see [`super::ContainerSummary`] for what the fields mean.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "said at `ContainerSummary`")]
pub struct ContainerLine<'a> {
    #[serde(borrow)]
    pub id: Text<'a>,
    #[serde(borrow, deserialize_with = "null_default")]
    pub names: Vec<Text<'a>>,
    #[serde(borrow)]
    pub image: Text<'a>,
    #[serde(borrow)]
    pub command: Text<'a>,
    #[serde(deserialize_with = "null_default")]
    pub created: i64,
    #[serde(deserialize_with = "null_default")]
    pub ports: Vec<PortSummary>,
    #[serde(deserialize_with = "null_default")]
    pub size_rw: i64,
    #[serde(deserialize_with = "null_default")]
    pub size_root_fs: i64,
    #[serde(borrow, deserialize_with = "null_default")]
    pub labels: BTreeMap<Text<'a>, Text<'a>>,
    #[serde(borrow)]
    pub state: Text<'a>,
    #[serde(borrow)]
    pub status: Text<'a>,
    #[serde(borrow, deserialize_with = "null_default")]
    pub network_settings: NetworkNames<'a>,
    #[serde(borrow, deserialize_with = "null_default")]
    pub mounts: Vec<MountLine<'a>>,
}

/// The names of a container's networks.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "said at `NetworkSettingsSummary`")]
pub struct NetworkNames<'a> {
    #[serde(borrow, deserialize_with = "null_default")]
    pub networks: BTreeMap<Text<'a>, IgnoredAny>,
}

/// What is mounted.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "said at `MountPoint`")]
pub struct MountLine<'a> {
    #[serde(borrow)]
    pub name: Text<'a>,
    #[serde(borrow)]
    pub source: Text<'a>,
    #[serde(borrow)]
    pub driver: Text<'a>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_borrowed_where_nothing_is_escaped() {
        let json = r#"{"Id":"abc","Names":["/a"],"Command":"sh -c \"x\"","Labels":{"k":"v"},"State":null,"Mounts":null,
            "NetworkSettings":{"Networks":{"bridge":{"Gateway":""},"mine":null}},"Ports":[{"PrivatePort":80,"Type":"tcp"}]}"#;
        let line: ContainerLine<'_> = serde_json::from_str(json).unwrap();
        assert!(line.id.is_borrowed() && line.names[0].is_borrowed() && !line.command.is_borrowed());
        assert_eq!((&*line.id, &*line.names[0], &*line.command), ("abc", "/a", "sh -c \"x\""));
        assert_eq!((&*line.state, line.mounts.len(), line.ports[0].private_port), ("", 0, 80));
        let networks: Vec<&str> = line.network_settings.networks.keys().map(|name| &**name).collect();
        assert_eq!(networks, ["bridge", "mine"]);
        let labels: Vec<(&str, &str)> = line.labels.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(labels, [("k", "v")]);
    }
}
