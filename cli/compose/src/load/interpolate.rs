//! Variables in every text of a tree, and the types that values have at certain paths.

use super::{
    Fault, Warnings,
    template::{self, Lookup, TemplateError},
};
use crate::yaml::{Map, Node, Path, Value};

/// Fills in variables everywhere in `map`.
pub(crate) fn interpolate(
    map: &mut Map,
    value: &dyn Fn(&str) -> Option<String>,
    warnings: &mut Warnings,
) -> Result<(), Fault> {
    for (key, node) in map {
        walk(node, &Path::root().join(key.as_str()), value, warnings)?;
    }
    Ok(())
}

fn walk(
    node: &mut Node,
    path: &Path,
    value: &dyn Fn(&str) -> Option<String>,
    warnings: &mut Warnings,
) -> Result<(), Fault> {
    match &mut node.value {
        Value::Text(text) => {
            let mut unset = |name: &str| {
                warnings.add(format!("The {name:?} variable is not set. Defaulting to a blank string."));
            };
            let filled =
                template::substitute(text, &mut Lookup { value, unset: &mut unset }).map_err(|error| {
                    let fault = Fault::new(node.mark, path, error.to_string());
                    match error {
                        TemplateError::Invalid(_) => {
                            fault.hint("you may need to escape any $ with another $")
                        }
                        TemplateError::Required { variable, .. } => fault
                            .hint(format!("set {variable} in the environment, in .env or with --env-file")),
                    }
                })?;
            node.value = cast(filled, path).map_err(|message| Fault::new(node.mark, path, message))?;
        }
        Value::List(list) => {
            for (index, item) in list.iter_mut().enumerate() {
                walk(item, &path.join(index.to_string()), value, warnings)?;
            }
        }
        Value::Map(map) => {
            for (key, node) in map {
                walk(node, &path.join(key.as_str()), value, warnings)?;
            }
        }
        _ => {}
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Cast {
    Int,
    Float,
    Bool,
}

/// What a text at a path must be turned into.
const CASTS: &[(Cast, &[&str])] = &[
    (
        Cast::Int,
        &[
            "services.*.cpu_count",
            "services.*.cpu_period",
            "services.*.cpu_quota",
            "services.*.cpu_rt_period",
            "services.*.cpu_rt_runtime",
            "services.*.cpu_shares",
            "services.*.deploy.replicas",
            "services.*.deploy.update_config.parallelism",
            "services.*.deploy.rollback_config.parallelism",
            "services.*.deploy.restart_policy.max_attempts",
            "services.*.deploy.placement.max_replicas_per_node",
            "services.*.healthcheck.retries",
            "services.*.oom_score_adj",
            "services.*.pids_limit",
            "services.*.ports.*.target",
            "services.*.scale",
            "services.*.ulimits.*",
            "services.*.ulimits.*.hard",
            "services.*.ulimits.*.soft",
        ],
    ),
    (
        Cast::Float,
        &[
            "services.*.cpu_percent",
            "services.*.cpus",
            "services.*.deploy.update_config.max_failure_ratio",
            "services.*.deploy.rollback_config.max_failure_ratio",
        ],
    ),
    (
        Cast::Bool,
        &[
            "services.*.init",
            "services.*.healthcheck.disable",
            "services.*.oom_kill_disable",
            "services.*.privileged",
            "services.*.read_only",
            "services.*.stdin_open",
            "services.*.tty",
            "services.*.volumes.*.read_only",
            "services.*.volumes.*.volume.nocopy",
            "networks.*.external",
            "networks.*.internal",
            "networks.*.attachable",
            "networks.*.enable_ipv4",
            "networks.*.enable_ipv6",
            "volumes.*.external",
            "secrets.*.external",
            "configs.*.external",
        ],
    ),
];

fn cast(text: String, path: &Path) -> Result<Value, String> {
    let Some((cast, _)) = CASTS.iter().find(|(_, paths)| paths.iter().any(|pattern| path.matches(pattern)))
    else {
        return Ok(Value::Text(text));
    };
    match cast {
        Cast::Int => text.parse().map(Value::Int).map_err(|_| format!("{text:?} is not a whole number")),
        Cast::Float => text.parse().map(Value::Float).map_err(|_| format!("{text:?} is not a number")),
        Cast::Bool => boolean(&text).map(Value::Bool),
    }
}

/// A boolean written as text, with YAML 1.1's words.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "true" | "y" | "yes" | "on" => Ok(true),
        "false" | "n" | "no" | "off" => Ok(false),
        _ => Err(format!("{text:?} is not a boolean")),
    }
}
