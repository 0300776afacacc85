//! How one file changes what the files before it said.

use super::Fault;
use crate::yaml::{Map, Mark, Node, Path, Value};

/// Puts `over` on top of `base`.
pub(crate) fn merge(base: Node, over: Node) -> Result<Node, Fault> {
    merge_at(base, over, &Path::root())
}

/// Puts a service on top of the one it extends.
pub(crate) fn extend_service(base: Node, service: Node) -> Result<Node, Fault> {
    merge_at(base, service, &Path::from("services.x"))
}

#[derive(Debug, Clone, Copy)]
enum Rule {
    /// The later one wins whole.
    Override,
    /// Lists one after the other; mappings become lists of `key=value` first.
    Sequence,
    /// Like `Sequence`, without what is there already.
    Hosts,
    /// A text is the mapping's `context`.
    Build,
    /// Lists of names become mappings.
    Names,
    /// The same with the defaults of a dependency.
    Dependencies,
    /// Merged only when the driver is the same.
    Logging,
    /// Pools are matched by their subnet.
    Pools,
}

const RULES: &[(&str, Rule)] = &[
    ("networks.*.ipam.config", Rule::Pools),
    ("networks.*.labels", Rule::Sequence),
    ("volumes.*.labels", Rule::Sequence),
    ("services.*.annotations", Rule::Sequence),
    ("services.*.build", Rule::Build),
    ("services.*.build.args", Rule::Sequence),
    ("services.*.build.additional_contexts", Rule::Sequence),
    ("services.*.build.extra_hosts", Rule::Hosts),
    ("services.*.build.labels", Rule::Sequence),
    ("services.*.command", Rule::Override),
    ("services.*.depends_on", Rule::Dependencies),
    ("services.*.deploy.labels", Rule::Sequence),
    ("services.*.dns", Rule::Sequence),
    ("services.*.dns_opt", Rule::Sequence),
    ("services.*.dns_search", Rule::Sequence),
    ("services.*.entrypoint", Rule::Override),
    ("services.*.env_file", Rule::Sequence),
    ("services.*.label_file", Rule::Sequence),
    ("services.*.environment", Rule::Sequence),
    ("services.*.extra_hosts", Rule::Hosts),
    ("services.*.healthcheck.test", Rule::Override),
    ("services.*.labels", Rule::Sequence),
    ("services.*.volumes.*.volume.labels", Rule::Sequence),
    ("services.*.logging", Rule::Logging),
    ("services.*.models", Rule::Names),
    ("services.*.networks", Rule::Names),
    ("services.*.sysctls", Rule::Sequence),
    ("services.*.tmpfs", Rule::Sequence),
    ("services.*.ulimits.*", Rule::Override),
];

fn merge_at(base: Node, over: Node, path: &Path) -> Result<Node, Fault> {
    let rule = RULES.iter().find(|(pattern, _)| path.matches(pattern)).map(|(_, rule)| *rule);
    let mark = over.mark;
    match rule {
        Some(Rule::Override) => Ok(over),
        Some(Rule::Sequence) => {
            let mut list = sequence(base);
            list.extend(sequence(over));
            Ok(Node::new(list, mark))
        }
        Some(Rule::Hosts) => {
            let mut list = sequence(base);
            for host in sequence(over) {
                if !list.contains(&host) {
                    list.push(host);
                }
            }
            Ok(Node::new(list, mark))
        }
        Some(Rule::Build) => mappings(build(base), build(over), path, mark),
        Some(Rule::Names) => mappings(named(base, path, None)?, named(over, path, None)?, path, mark),
        Some(Rule::Dependencies) => {
            let default = Some(dependency as fn(Mark) -> Map);
            mappings(named(base, path, default)?, named(over, path, default)?, path, mark)
        }
        Some(Rule::Logging) => logging(base, over, path),
        Some(Rule::Pools) => pools(base, over, path),
        None => plain(base, over, path),
    }
}

fn plain(base: Node, over: Node, path: &Path) -> Result<Node, Fault> {
    if over.is_null() {
        return Ok(base);
    }
    let mark = over.mark;
    match (base.value, over.value) {
        (Value::Map(base), Value::Map(over)) => mappings(base, over, path, mark),
        (Value::List(mut base), Value::List(over)) => {
            base.extend(over);
            Ok(Node::new(base, mark))
        }
        (base @ (Value::Map(_) | Value::List(_)), over) => {
            let message = format!("{} cannot override {}", over.kind(), base.kind());
            Err(Fault::new(mark, path, message))
        }
        (_, over) => Ok(Node { value: over, mark }),
    }
}

fn mappings(mut base: Map, over: Map, path: &Path, mark: Mark) -> Result<Node, Fault> {
    for (key, node) in over {
        match base.get_mut(&key) {
            None => {
                base.insert(key, node);
            }
            Some(there) => {
                let merged = merge_at(std::mem::take(there), node, &path.join(key.as_str()))?;
                *there = merged;
            }
        }
    }
    Ok(Node::new(base, mark))
}

/// A mapping as a sorted list of `key=value`, a text as a list of one.
fn sequence(node: Node) -> Vec<Node> {
    let mark = node.mark;
    match node.value {
        Value::List(list) => list,
        Value::Text(_) => vec![node],
        Value::Map(map) => {
            let mut texts = Vec::new();
            for (key, value) in map {
                match value.value {
                    Value::Null => texts.push((key, value.mark)),
                    Value::List(items) => {
                        texts.extend(
                            items.into_iter().map(|item| (format!("{key}={}", item.value), item.mark)),
                        );
                    }
                    other => texts.push((format!("{key}={other}"), value.mark)),
                }
            }
            texts.sort_by(|(a, _), (b, _)| a.cmp(b));
            texts.into_iter().map(|(text, mark)| Node::new(text, mark)).collect()
        }
        Value::Null => Vec::new(),
        other => vec![Node::new(other.to_string(), mark)],
    }
}

fn build(node: Node) -> Map {
    let mark = node.mark;
    match node.value {
        Value::Map(map) => map,
        Value::Text(_) => Map::from([("context".to_owned(), Node { mark, ..node })]),
        _ => Map::new(),
    }
}

fn dependency(mark: Mark) -> Map {
    Map::from([
        ("condition".to_owned(), Node::new("service_started", mark)),
        ("required".to_owned(), Node::new(true, mark)),
    ])
}

/// A list of names as a mapping.
fn named(node: Node, path: &Path, default: Option<fn(Mark) -> Map>) -> Result<Map, Fault> {
    match node.value {
        Value::Map(map) => Ok(map),
        Value::List(list) => list
            .into_iter()
            .map(|item| match item.value {
                Value::Text(name) => {
                    let value = default.map_or(Value::Null, |default| Value::Map(default(item.mark)));
                    Ok((name, Node { value, mark: item.mark }))
                }
                other => {
                    Err(Fault::new(item.mark, path, format!("a name is expected here, not {}", other.kind())))
                }
            })
            .collect(),
        _ => Ok(Map::new()),
    }
}

fn logging(base: Node, over: Node, path: &Path) -> Result<Node, Fault> {
    let mark = over.mark;
    match (base.value, over.value) {
        (Value::Map(base), Value::Map(over)) => {
            let same = match (base.get("driver"), over.get("driver")) {
                (Some(base), Some(over)) => base == over,
                _ => true,
            };
            if same { mappings(base, over, path, mark) } else { Ok(Node::new(over, mark)) }
        }
        (_, over) => Ok(Node { value: over, mark }),
    }
}

fn pools(base: Node, over: Node, path: &Path) -> Result<Node, Fault> {
    let mark = over.mark;
    let (Value::List(base), Value::List(over)) = (base.value, over.value) else {
        return Err(Fault::new(mark, path, "a list of pools is expected here"));
    };
    let mut pools: Vec<Node> = base;
    for node in over {
        let subnet = node.get("subnet").cloned();
        let there = pools.iter_mut().find(|pool| pool.get("subnet").cloned() == subnet);
        match (there, node.value) {
            (Some(there), Value::Map(over)) => {
                let base = std::mem::take(there.as_map_mut().unwrap_or(&mut Map::new()));
                *there = mappings(base, over, path, node.mark)?;
            }
            (_, value) => pools.push(Node { value, mark: node.mark }),
        }
    }
    Ok(Node::new(pools, mark))
}
