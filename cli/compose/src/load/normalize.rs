//! What the files leave unsaid: the default network, names, implied dependencies; and defaults of long forms.

use std::collections::BTreeMap;

use super::paths::clean;
use crate::yaml::{Map, Mark, Node, Path, Value};

/// Fills in what long forms may leave out.
pub(crate) fn set_defaults(node: &mut Node) {
    walk(node, &Path::root());
}

fn walk(node: &mut Node, path: &Path) {
    let mark = node.mark;
    if let Some(map) = node.as_map_mut() {
        let mut default = |key: &str, value: Value| {
            map.entry(key.to_owned()).or_insert_with(|| Node { value, mark });
        };
        if path.matches("services.*.build") {
            default("context", ".".into());
        } else if path.matches("services.*.ports.*") {
            default("protocol", "tcp".into());
            default("mode", "ingress".into());
        } else if path.matches("services.*.secrets.*") {
            let source = map.get("source").map(|source| source.value.to_string()).unwrap_or_default();
            map.entry("target".to_owned())
                .or_insert_with(|| Node::new(format!("/run/secrets/{source}"), mark));
        } else if (path.matches("services.*.deploy.resources.reservations.devices.*")
            || path.matches("services.*.gpus.*"))
            && !map.contains_key("count")
            && !map.contains_key("device_ids")
        {
            map.insert("count".to_owned(), Node::new("all", mark));
        }
    }
    match &mut node.value {
        Value::Map(map) => map.iter_mut().for_each(|(key, node)| walk(node, &path.join(key.as_str()))),
        Value::List(list) => {
            list.iter_mut().enumerate().for_each(|(index, node)| walk(node, &path.join(index.to_string())));
        }
        _ => {}
    }
}

/// Values that bare names in the project's files take from the environment.
pub(crate) fn resolve_environment(root: &mut Map, environment: &BTreeMap<String, String>) {
    for (_, service) in section(root, "services") {
        let Some(Node { value: Value::List(list), .. }) =
            service.as_map_mut().and_then(|service| service.get_mut("environment"))
        else {
            continue;
        };
        for item in list {
            if let Value::Text(text) = &mut item.value
                && let Some(value) = environment.get(text.as_str())
            {
                *text = format!("{text}={value}");
            }
        }
    }
    for (_, config) in section(root, "configs") {
        let Some(config) = config.as_map_mut() else { continue };
        let value = config.get("environment").and_then(Node::as_text).and_then(|name| environment.get(name));
        if let Some(value) = value.cloned() {
            config.insert("content".to_owned(), Node::new(value, Mark::default()));
        }
    }
}

/// The entries of one of the file's sections.
fn section<'a>(root: &'a mut Map, name: &str) -> impl Iterator<Item = (&'a String, &'a mut Node)> {
    root.get_mut(name).and_then(Node::as_map_mut).into_iter().flatten()
}

/// Fills in what the whole project leaves unsaid.
pub(crate) fn normalize(root: &mut Map, project: &str, environment: &BTreeMap<String, String>) {
    default_network(root);
    for (_, service) in section(root, "services") {
        if let Some(service) = service.as_map_mut() {
            normalize_service(service, environment);
        }
    }
    for kind in ["networks", "volumes", "configs", "secrets"] {
        for (key, resource) in section(root, kind) {
            name_resource(key, resource, project);
        }
    }
}

fn default_network(root: &mut Map) {
    let mut used = false;
    for (_, service) in section(root, "services") {
        let mark = service.mark;
        let Some(service) = service.as_map_mut() else { continue };
        if service.contains_key("provider") || service.contains_key("network_mode") {
            continue;
        }
        let networks = service.entry("networks".to_owned()).or_insert_with(|| Node::new(Map::new(), mark));
        if networks.is_null() {
            networks.value = Value::Map(Map::new());
        }
        if let Some(networks) = networks.as_map_mut() {
            if networks.is_empty() {
                networks.insert("default".to_owned(), Node::default());
            }
            used |= networks.contains_key("default");
        }
    }
    if used {
        let networks =
            root.entry("networks".to_owned()).or_insert_with(|| Node::new(Map::new(), Mark::default()));
        if networks.is_null() {
            networks.value = Value::Map(Map::new());
        }
        if let Some(networks) = networks.as_map_mut() {
            networks.entry("default".to_owned()).or_default();
        }
    }
}

fn normalize_service(service: &mut Map, environment: &BTreeMap<String, String>) {
    if let Some(policy) = service.get_mut("pull_policy")
        && policy.as_text() == Some("if_not_present")
    {
        policy.value = "missing".into();
    }
    if let Some(build) = service.get_mut("build").and_then(Node::as_map_mut) {
        build.entry("context".to_owned()).or_insert_with(|| Node::new(".", Mark::default()));
        if !build.contains_key("dockerfile") && !build.contains_key("dockerfile_inline") {
            build.insert("dockerfile".to_owned(), Node::new("Dockerfile", Mark::default()));
        }
        if let Some(args) = build.get_mut("args") {
            fill(args, environment, false);
        }
    }
    if let Some(variables) = service.get_mut("environment") {
        fill(variables, environment, true);
    }
    for mount in list(service, "volumes") {
        if let Some(Node { value: Value::Text(target), .. }) =
            mount.as_map_mut().and_then(|mount| mount.get_mut("target"))
        {
            *target = clean(target);
        }
    }
    implied_dependencies(service);
}

fn list<'a>(map: &'a mut Map, key: &str) -> &'a mut [Node] {
    match map.get_mut(key) {
        Some(Node { value: Value::List(list), .. }) => list,
        _ => &mut [],
    }
}

/// Names without a value take the environment's; without one there they stay (`keep`) or go.
fn fill(node: &mut Node, environment: &BTreeMap<String, String>, keep: bool) {
    match &mut node.value {
        Value::List(list) => list.retain_mut(|item| {
            let Value::Text(text) = &mut item.value else { return true };
            if text.contains('=') {
                return true;
            }
            match environment.get(text.as_str()) {
                Some(value) => {
                    *text = format!("{text}={value}");
                    true
                }
                None => keep,
            }
        }),
        Value::Map(map) => map.retain(|key, value| {
            if !value.is_null() {
                return true;
            }
            match environment.get(key.as_str()) {
                Some(found) => {
                    value.value = Value::Text(found.clone());
                    true
                }
                None => keep,
            }
        }),
        _ => {}
    }
}

/// Links, shared namespaces and `volumes_from` need the other service first.
fn implied_dependencies(service: &mut Map) {
    let mut implied: Vec<(String, bool)> = Vec::new();
    for link in list(service, "links") {
        if let Some(link) = link.as_text() {
            let parts: Vec<&str> = link.split(':').collect();
            let name = if parts.len() == 2 { parts[0] } else { link };
            implied.push((name.to_owned(), true));
        }
    }
    for namespace in ["network_mode", "ipc", "pid", "uts", "cgroup"] {
        let shared =
            service.get(namespace).and_then(Node::as_text).and_then(|mode| mode.strip_prefix("service:"));
        implied.extend(shared.map(|name| (name.to_owned(), true)));
    }
    for from in list(service, "volumes_from") {
        if let Some(from) = from.as_text().filter(|from| !from.starts_with("container:")) {
            implied.push((from.split(':').next().unwrap_or_default().to_owned(), false));
        }
    }
    if implied.is_empty() {
        return;
    }
    let dependencies =
        service.entry("depends_on".to_owned()).or_insert_with(|| Node::new(Map::new(), Mark::default()));
    let Some(dependencies) = dependencies.as_map_mut() else { return };
    for (name, restart) in implied {
        dependencies.entry(name).or_insert_with(|| {
            let made = |value: Value| Node { value, mark: Mark::default() };
            let map = Map::from([
                ("condition".to_owned(), made("service_started".into())),
                ("restart".to_owned(), made(restart.into())),
                ("required".to_owned(), made(true.into())),
            ]);
            made(map.into())
        });
    }
}

fn name_resource(key: &str, resource: &mut Node, project: &str) {
    if resource.is_null() {
        resource.value = Value::Map(Map::new());
    }
    let mark = resource.mark;
    let Some(map) = resource.as_map_mut() else { return };
    if map.get("name").is_some_and(|name| !name.is_null()) {
        return;
    }
    let external = map.get("external").is_some_and(|external| external.value == Value::Bool(true));
    let name = if external { key.to_owned() } else { format!("{project}_{key}") };
    map.insert("name".to_owned(), Node::new(name, mark));
}
