//! Entries of a list that say the same thing: the last one stays, in the place of the first.

use indexmap::IndexMap;

use super::{Fault, short};
use crate::yaml::{Node, Path, Value};

#[derive(Debug, Clone, Copy)]
enum Key {
    /// What stands before `=`.
    Name,
    /// The path in the container.
    Volume,
    Device,
    /// The target; without one the source under this directory.
    File(&'static str),
    EnvFile,
    Port,
    Number,
}

const KEYS: &[(&str, Key)] = &[
    ("networks.*.labels", Key::Name),
    ("networks.*.ipam.options", Key::Name),
    ("services.*.annotations", Key::Name),
    ("services.*.build.args", Key::Name),
    ("services.*.build.additional_contexts", Key::Name),
    ("services.*.build.platform", Key::Name),
    ("services.*.build.tags", Key::Name),
    ("services.*.build.labels", Key::Name),
    ("services.*.cap_add", Key::Name),
    ("services.*.cap_drop", Key::Name),
    ("services.*.devices", Key::Device),
    ("services.*.configs", Key::File("")),
    ("services.*.deploy.labels", Key::Name),
    ("services.*.dns", Key::Name),
    ("services.*.dns_opt", Key::Name),
    ("services.*.dns_search", Key::Name),
    ("services.*.environment", Key::Name),
    ("services.*.env_file", Key::EnvFile),
    ("services.*.expose", Key::Number),
    ("services.*.labels", Key::Name),
    ("services.*.links", Key::Name),
    ("services.*.networks.*.aliases", Key::Name),
    ("services.*.networks.*.link_local_ips", Key::Name),
    ("services.*.ports", Key::Port),
    ("services.*.profiles", Key::Name),
    ("services.*.secrets", Key::File("/run/secrets")),
    ("services.*.sysctls", Key::Name),
    ("services.*.tmpfs", Key::Name),
    ("services.*.volumes", Key::Volume),
];

/// Takes double entries out of every list that must have none.
pub(crate) fn enforce(node: &mut Node) -> Result<(), Fault> {
    walk(node, &Path::root())
}

fn walk(node: &mut Node, path: &Path) -> Result<(), Fault> {
    match &mut node.value {
        Value::Map(map) => map.iter_mut().try_for_each(|(key, node)| walk(node, &path.join(key.as_str()))),
        Value::List(list) => {
            let Some((_, key)) = KEYS.iter().find(|(pattern, _)| path.matches(pattern)) else {
                return Ok(());
            };
            let mut unique: IndexMap<String, Node> = IndexMap::with_capacity(list.len());
            for (index, item) in std::mem::take(list).into_iter().enumerate() {
                let name = key_of(&item, *key, &path.join(index.to_string()))?;
                unique.insert(name, item);
            }
            list.extend(unique.into_values());
            Ok(())
        }
        _ => Ok(()),
    }
}

fn key_of(item: &Node, key: Key, path: &Path) -> Result<String, Fault> {
    let field = |name: &str| item.get(name).map(|node| node.value.to_string());
    let missing = |what: &str| Fault::new(item.mark, path, format!("this is missing {what}"));
    match (&item.value, key) {
        (Value::Text(text), Key::Name) => Ok(text.split('=').next().unwrap_or_default().to_owned()),
        (Value::Text(text), Key::Volume) => match short::volume(text) {
            Ok(volume) => Ok(volume.target),
            Err(message) => Err(Fault::new(item.mark, path, message)),
        },
        (Value::Text(text), Key::Device) => {
            let parts: Vec<&str> = text.split(':').collect();
            Ok((*parts.get(1).unwrap_or(&parts[0])).to_owned())
        }
        (Value::Text(text), Key::File(directory)) => Ok(format!("{directory}/{text}")),
        (Value::Map(_), Key::File(directory)) => {
            Ok(field("target")
                .unwrap_or_else(|| format!("{directory}/{}", field("source").unwrap_or_default())))
        }
        (Value::Map(_), Key::Volume | Key::Device) => {
            field("target").ok_or_else(|| missing("a mount target"))
        }
        (Value::Map(_), Key::EnvFile) => field("path").ok_or_else(|| missing("its path")),
        (Value::Map(_), Key::Port) => {
            let target = field("target").ok_or_else(|| missing("a target port"))?;
            let published = field("published").unwrap_or_default();
            let host = field("host_ip").unwrap_or_else(|| "0.0.0.0".to_owned());
            let protocol = field("protocol").unwrap_or_else(|| "tcp".to_owned());
            Ok(format!("{host}:{published}:{target}/{protocol}"))
        }
        (Value::Map(_) | Value::List(_), _) => {
            Err(Fault::new(item.mark, path, format!("{} is not expected here", item.value.kind())))
        }
        (scalar, _) => Ok(scalar.to_string()),
    }
}
