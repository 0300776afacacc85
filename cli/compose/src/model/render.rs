//! A project as text, as `docker compose config` prints it.

use std::cmp::Ordering;

use serde_json::{Map, Value as Json};

use super::{Project, hash};
use crate::{
    load::Tree,
    yaml::{self, Node, Path, Value},
};

/// A form of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

impl Project {
    /// The project as text; `tree` gives what the model does not carry, keys that begin with `x-`.
    #[must_use]
    pub fn render(&self, tree: &Tree, format: Format) -> String {
        let mut project = self.clone();
        for config in project.configs.values_mut().filter(|config| !config.environment.is_empty()) {
            config.content.clear();
        }
        for secret in project.secrets.values_mut() {
            secret.content.clear();
        }
        match format {
            Format::Json => project.json(tree),
            Format::Yaml => project.yaml(tree),
        }
    }

    fn sections(&self) -> Vec<(&'static str, Json)> {
        fn json(value: &impl serde::Serialize) -> Json {
            serde_json::to_value(value).expect("the model has text keys and serialises")
        }
        let mut sections = vec![("services", json(&self.services))];
        let mut add = |name, map: Json| {
            if map.as_object().is_some_and(|map| !map.is_empty()) {
                sections.push((name, map));
            }
        };
        add("networks", json(&self.networks));
        add("volumes", json(&self.volumes));
        add("secrets", json(&self.secrets));
        add("configs", json(&self.configs));
        add("models", json(&self.models));
        sections
    }

    fn json(&self, tree: &Tree) -> String {
        let mut top = Map::new();
        top.insert("name".to_owned(), self.name.as_str().into());
        top.extend(
            self.sections()
                .into_iter()
                .filter(|(name, _)| *name != "models")
                .map(|(name, map)| (name.to_owned(), map)),
        );
        top.extend(extensions(&tree.root, Format::Json));
        top.sort_keys();
        pretty(&Json::Object(top))
    }

    fn yaml(&self, tree: &Tree) -> String {
        let mut top = Map::new();
        if !self.name.is_empty() {
            top.insert("name".to_owned(), self.name.as_str().into());
        }
        top.extend(self.sections().into_iter().map(|(name, map)| (name.to_owned(), map)));
        let mut top = Json::Object(top);
        tidy(&mut top, &Path::root());
        extend(&mut top, &tree.root, &Path::root());
        yaml::emit(&top)
    }
}

/// A tree as text, with sorted keys: for what is not read into the model.
#[must_use]
pub fn render_tree(tree: &Node, format: Format) -> String {
    let mut json = Json::from(tree);
    sort(&mut json, format);
    match format {
        Format::Json => pretty(&json),
        Format::Yaml => yaml::emit(&json),
    }
}

fn sort(json: &mut Json, format: Format) {
    match json {
        Json::Object(map) => {
            map.values_mut().for_each(|value| sort(value, format));
            match format {
                Format::Json => map.sort_keys(),
                Format::Yaml => sort_naturally(map),
            }
        }
        Json::Array(list) => list.iter_mut().for_each(|value| sort(value, format)),
        _ => {}
    }
}

fn pretty(json: &Json) -> String {
    hash::escape(&serde_json::to_string_pretty(json).expect("JSON serialises"))
}

/// The user's own keys of a mapping, which are sorted all through.
fn extensions(node: &Node, format: Format) -> Vec<(String, Json)> {
    let map = node.as_map().into_iter().flatten();
    let mut found: Vec<(String, Json)> = map
        .filter(|(key, _)| key.starts_with("x-"))
        .map(|(key, node)| (key.clone(), Json::from(node)))
        .collect();
    found.iter_mut().for_each(|(_, json)| sort(json, format));
    found.sort_by(|(a, _), (b, _)| natural(a, b));
    found
}

/// Adds the user's own keys where they stood.
fn extend(json: &mut Json, node: &Node, path: &Path) {
    match (json, &node.value) {
        (Json::Object(json), Value::Map(map)) => {
            let named = ["services", "networks", "volumes", "secrets", "configs", "services.*.depends_on"];
            if !named.iter().any(|pattern| path.matches(pattern)) {
                for (key, value) in extensions(node, Format::Yaml) {
                    json.entry(key).or_insert(value);
                }
            }
            for (key, inner) in json.iter_mut() {
                if let Some(node) = map.get(key) {
                    extend(inner, node, &path.join(key.as_str()));
                }
            }
        }
        (Json::Array(json), Value::List(list)) if json.len() == list.len() => {
            for (index, (inner, node)) in json.iter_mut().zip(list).enumerate() {
                extend(inner, node, &path.join(index.to_string()));
            }
        }
        _ => {}
    }
}

/// Mappings with keys of the user's: sorted. All others keep the model's order.
const SORTED: &[&str] = &[
    "services",
    "networks",
    "volumes",
    "secrets",
    "configs",
    "models",
    "*.*.labels",
    "*.*.driver_opts",
    "services.*.annotations",
    "services.*.environment",
    "services.*.depends_on",
    "services.*.networks",
    "services.*.networks.*.driver_opts",
    "services.*.models",
    "services.*.storage_opt",
    "services.*.sysctls",
    "services.*.ulimits",
    "services.*.logging.options",
    "services.*.build.args",
    "services.*.build.labels",
    "services.*.build.additional_contexts",
    "services.*.build.ulimits",
    "services.*.deploy.labels",
    "services.*.volumes.*.volume.labels",
];

/// The differences between docker compose's JSON and its YAML.
fn tidy(json: &mut Json, path: &Path) {
    match json {
        Json::Object(map) => {
            map.retain(|key, value| {
                let path = path.join(key.as_str());
                let nothing = value.is_null() && matches!(key.as_str(), "command" | "entrypoint");
                let empty = value.as_object().is_some_and(|map| map.values().all(Json::is_null));
                let struct_of_go = path.matches("services.*.deploy.resources")
                    || path.matches("services.*.deploy.placement")
                    || path.matches("networks.*.ipam")
                    || path.matches("services.*.develop.watch.*.exec");
                !(nothing || empty && struct_of_go)
            });
            if path.parts().nth(2) == Some("blkio_config") {
                *map =
                    std::mem::take(map).into_iter().map(|(key, value)| (key.to_lowercase(), value)).collect();
            }
            for (key, value) in map.iter_mut() {
                tidy(value, &path.join(key.as_str()));
            }
            if SORTED.iter().any(|pattern| path.matches(pattern)) {
                sort_naturally(map);
            }
        }
        Json::Array(list) => {
            for (index, value) in list.iter_mut().enumerate() {
                tidy(value, &path.join(index.to_string()));
            }
        }
        _ => {}
    }
}

fn sort_naturally(map: &mut Map<String, Json>) {
    let mut entries: Vec<(String, Json)> = std::mem::take(map).into_iter().collect();
    entries.sort_by(|(a, _), (b, _)| natural(a, b));
    map.extend(entries);
}

/// go-yaml's order of keys: numbers within them by their value, other signs before letters.
fn natural(a: &str, b: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut digits = false;
    for at in 0..a.len().min(b.len()) {
        let (x, y) = (a[at], b[at]);
        if x == y {
            digits = x.is_numeric();
            continue;
        }
        return match (x.is_alphabetic(), y.is_alphabetic()) {
            (true, true) => x.cmp(&y),
            (x_letter, y_letter) if x_letter || y_letter => {
                if digits == x_letter {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
            _ => {
                let number = |text: &[char]| -> u128 {
                    let start =
                        text[..at].iter().rposition(|char| !char.is_ascii_digit()).map_or(0, |end| end + 1);
                    let digits = text[start..].iter().take_while(|char| char.is_ascii_digit());
                    digits.fold(0, |sum: u128, char| {
                        sum.saturating_mul(10).saturating_add(u128::from(char.to_digit(10).unwrap_or(0)))
                    })
                };
                if x.is_ascii_digit() || y.is_ascii_digit() {
                    number(&a).cmp(&number(&b)).then(x.cmp(&y))
                } else {
                    x.cmp(&y)
                }
            }
        };
    }
    a.len().cmp(&b.len())
}
